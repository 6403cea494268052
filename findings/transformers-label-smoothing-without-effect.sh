#!/usr/bin/env bash
# The Trainer of transformers with `compute_loss_func` and `label_smoothing_factor`.
#
# One would guess: the loss that is computed is smoothed as well, or an error or a warning says that one of the two does nothing.
# What happens: `label_smoothing_factor` has no effect, and nothing says so. The losses are those of 0, while without
# `compute_loss_func` they are others.
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0, Python 3.11.
# Output seen:
#   the model's own loss: 1.3873 with 0, 1.3868 with 0.5
#   compute_loss_func: 1.3873 with 0, 1.3873 with 0.5, warnings: none
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0
"$work/venv/bin/python" -m pip install -q transformers==5.24.0 accelerate==1.15.0
cat > "$work/run.py" << 'EOF'
import logging
import sys
import warnings

import torch
import transformers as hf

SIZES = dict(
    vocab_size=11, num_labels=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)
torch.manual_seed(0)
data = [{"input_ids": torch.randint(1, 11, (5,)), "labels": torch.randint(4, ())} for _ in range(8)]


class Heard(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


heard = Heard()
hf.utils.logging.get_logger("transformers").addHandler(heard)


def plain(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


def loss(smoothing, function):
    hf.set_seed(0)
    arguments = hf.TrainingArguments(
        sys.argv[1], use_cpu=True, report_to=[], disable_tqdm=True, max_steps=1, save_strategy="no",
        per_device_train_batch_size=8, label_smoothing_factor=smoothing,
    )
    model = hf.BertForSequenceClassification(hf.BertConfig(**SIZES))
    trainer = hf.Trainer(model, arguments, train_dataset=data, compute_loss_func=function)
    return trainer.train().training_loss


def losses(function):
    return f"{loss(0.0, function):.4f} with 0, {loss(0.5, function):.4f} with 0.5"


print("the model's own loss:", losses(None))
heard.said.clear()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = losses(plain)
said = [text for text in [*heard.said, *(str(w.message) for w in caught)] if "smooth" in text]
print(f"compute_loss_func: {found}, warnings: {', '.join(said) or 'none'}")
EOF
"$work/venv/bin/python" "$work/run.py" "$work/output_dir" 2> "$work/errors" | grep -v "^{" | tee "$work/output" || { cat "$work/errors" >&2; exit 1; }
# the lines above, in the header of this file, are what is expected
sed -n 's/^#   //p' "$0" | diff - "$work/output"
