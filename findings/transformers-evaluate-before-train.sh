#!/usr/bin/env bash
# A Trainer of transformers that evaluates before it trains, in two processes: are their gradients averaged?
#
# One would guess: yes. evaluate() before train(), for a first point of the curve, changes nothing in the training.
# What happens: evaluate() prepares the model for evaluation, without DistributedDataParallel, and train() takes it for prepared.
# Each process trains a model of its own on its part of the data, without a warning; the first one's is saved. (Seen on CPUs.
# TrainingArguments(eval_on_start=True) evaluates within train(), and is not affected.)
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0, Python 3.11.
# Output seen:
#   train(): DistributedDataParallel, the processes end with the same weights: True
#   evaluate(), train(): Linear, the processes end with the same weights: False
#   eval_on_start=True, train(): DistributedDataParallel, the processes end with the same weights: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME=$work/home OMP_NUM_THREADS=1 # no configuration of whoever runs this
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cat > "$work/run.py" << 'EOF'
import sys

import torch
import transformers
from torch import nn

transformers.logging.set_verbosity_error()


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, features, labels):
        logits = self.linear(features)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


torch.manual_seed(0)
data = [{"features": torch.randn(3), "labels": i % 2} for i in range(8)]
for title in ("train()", "evaluate(), train()", "eval_on_start=True, train()"):
    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        sys.argv[1],
        max_steps=2,
        per_device_train_batch_size=4,
        optim="sgd",
        learning_rate=0.1,
        use_cpu=True,
        ddp_backend="gloo",
        eval_on_start=title.startswith("eval_on_start"),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = transformers.Trainer(Linear(), arguments, train_dataset=data, eval_dataset=data)
    if title.startswith("evaluate"):
        trainer.evaluate()
    trainer.train()
    weights = [torch.empty(2, 3) for _ in range(2)]
    torch.distributed.all_gather(weights, trainer.model.linear.weight.detach())
    if arguments.process_index == 0:
        same = torch.equal(*weights)
        wrapped = type(trainer.model_wrapped).__name__
        print(f"{title}: {wrapped}, the processes end with the same weights: {same}", flush=True)
EOF
"$work/venv/bin/torchrun" --standalone --nproc-per-node 2 "$work/run.py" "$work/output" > "$work/said" 2> "$work/errors" ||
    { cat "$work/errors"; exit 1; }
grep "the processes end" "$work/said" | sed 's/^{.*}//' | tee "$work/seen"
sed -n 's/^#   //p' "$0" | diff - "$work/seen"
