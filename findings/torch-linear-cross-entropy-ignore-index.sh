#!/usr/bin/env bash
# nn.LinearCrossEntropyLoss().ignore_index is None, and -100 is ignored all the same.
#
# One would guess: None means that no target value is ignored, so that a target of -100 is out of range, an error; code that
# reads the attribute (`if criterion.ignore_index is not None: valid = target != criterion.ignore_index`) is safe.
# What happens: None stands for -100 with class indices. The loss of these targets is 0, the mean leaves them out, and code that
# reads the attribute counts them.
# Versions: torch 2.13.0, Python 3.11.
# Output seen:
#   ignore_index: None
#   losses of targets [0, -100, 2]: 1.0986, 0.0000, 1.0986
#   mean: 1.0986; over the 3 targets that the attribute says: 0.7324
#   nn.CrossEntropyLoss().ignore_index: -100
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0
cat > "$work/run.py" << 'EOF'
import torch
from torch import nn

hidden, target = torch.zeros(3, 4), torch.tensor([0, -100, 2])
none = nn.LinearCrossEntropyLoss(4, 3, reduction="none")
mean = nn.LinearCrossEntropyLoss(4, 3)
losses = none(hidden, target)
print("ignore_index:", none.ignore_index)
print(f"losses of targets {target.tolist()}:", ", ".join(f"{x:.4f}" for x in losses.tolist()))
valid = target != none.ignore_index if none.ignore_index is not None else torch.ones(3)
by_attribute = losses.sum().item() / valid.sum().item()
print(f"mean: {mean(hidden, target).item():.4f}; over the {int(valid.sum())} targets that the attribute says: {by_attribute:.4f}")
print("nn.CrossEntropyLoss().ignore_index:", nn.CrossEntropyLoss().ignore_index)
EOF
"$work/venv/bin/python" "$work/run.py" 2> "$work/errors" | tee "$work/output" || { cat "$work/errors"; exit 1; }
sed -n 's/^#   //p' "$0" | diff - "$work/output"
