#!/usr/bin/env bash
# The Trainer of transformers, without any loss function of one's own: what loss does it report, and
# what gradient does it apply, when a batch of 8 is accumulated from 4 parts of 2?
#
# One would guess: those of the batch of 8. The Trainer passes num_items_in_batch to every model whose
# forward takes **kwargs, and divides the loss by the number of parts itself for all others.
#
# What happens, transformers 5.24.0 (torch 2.13.0, CPU): BERT, RoBERTa and Llama for sequence
# classification take **kwargs and do not use num_items_in_batch, so nobody divides. Loss and gradient
# are 4 times as large (issue 47688 of transformers, open). With Adam the step hardly changes, with
# SGD, gradient clipping or a weight decay it does, and losses of two runs cannot be compared.
#
# Output:
#   BertForSequenceClassification: loss 1.387 in one part, 5.549 in four; gradient 4.00 times as large
#   RobertaForSequenceClassification: loss 1.386 in one part, 5.545 in four; gradient 4.00 times as large
#   LlamaForSequenceClassification: loss 1.357 in one part, 5.428 in four; gradient 4.00 times as large
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
cat > run.py <<'PYTHON'
import torch
import transformers as hf

SIZES = dict(
    vocab_size=11, num_labels=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, pad_token_id=0,
)
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
torch.manual_seed(0)
data = [
    {"input_ids": torch.randint(1, 11, (5,)), "labels": torch.randint(4, ())} for _ in range(8)
]


def train(build, size, parts):
    hf.set_seed(0)
    model = build()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    arguments = hf.TrainingArguments(
        "output", use_cpu=True, report_to=[], disable_tqdm=True, max_steps=1, max_grad_norm=0.0,
        optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", save_strategy="no",
        per_device_train_batch_size=size, gradient_accumulation_steps=parts,
    )
    loss = hf.Trainer(model, arguments, train_dataset=data).train().training_loss
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    return loss, (after - before).norm().item() / 0.1


changed = False
for build in (
    lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES, **NO_DROPOUT)),
    lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES, **NO_DROPOUT)),
    lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**SIZES)),
):
    (loss, gradient), (of_parts, accumulated) = train(build, 8, 1), train(build, 2, 4)
    print(
        f"{type(build()).__name__}: loss {loss:.3f} in one part, {of_parts:.3f} in four; gradient "
        f"{accumulated / gradient:.2f} times as large"
    )
    changed |= abs(of_parts / loss - 4) > 0.01 or abs(accumulated / gradient - 4) > 0.01
raise SystemExit("the behaviour has changed" if changed else 0)
PYTHON
"$folder/venv/bin/python" run.py 2> "$folder/errors" | grep -v "^{" || { cat "$folder/errors" >&2; exit 1; }
