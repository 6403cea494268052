#!/usr/bin/env bash
# An epoch of pytorch-metric-learning's MPerClassSampler has 100,000 samples, whatever the size of the data set.
#
# One would guess: an epoch has as many samples as the data set, as with torch's samplers, so that 60 labels in batches of 12
# are 5 steps.
# What happens: length_before_new_iter is 100,000 by default. 60 labels in batches of 12 give 8,333 steps an epoch, each sample
# about 1,667 times; schedules that count epochs (learning rate, deferred weights, early stopping) wait as much longer.
# Versions: pytorch-metric-learning 2.9.0, torch 2.13.0, Python 3.11.
# Output seen:
#   MPerClassSampler(60 labels): 99996 samples, 8333 batches of 12
#   RandomSampler(60 labels): 60 samples, 5 batches of 12
#   with length_before_new_iter=60: 60 samples, 5 batches of 12
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0 pytorch-metric-learning==2.9.0
cat > "$work/run.py" << 'EOF'
import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from torch.utils.data import DataLoader, RandomSampler

labels = torch.arange(60) % 3
for title, sampler in (
    ("MPerClassSampler(60 labels)", MPerClassSampler(labels, m=4, batch_size=12)),
    ("RandomSampler(60 labels)", RandomSampler(labels)),
    ("with length_before_new_iter=60", MPerClassSampler(labels, 4, 12, length_before_new_iter=60)),
):
    loader = DataLoader(labels, batch_size=12, sampler=sampler)
    print(f"{title}: {len(list(sampler))} samples, {len(loader)} batches of 12")
EOF
"$work/venv/bin/python" "$work/run.py" 2> "$work/errors" > "$work/output" || { cat "$work/errors"; exit 1; }
cat "$work/output"
sed -n 's/^#   //p' "$0" | diff - "$work/output"
