#!/usr/bin/env bash
# torchvision's SSD adds the classification loss of some positives twice where an image has few negatives.
#
# One would guess: hard negative mining keeps each anchor at most once, and all negatives where there are fewer than three for
# each positive.
# What happens: the positives are ranked behind all negatives, and the first 3 x positives of the ranking count as negatives,
# whatever they are. Of 10 anchors with 6 positives, 16 losses are added up. With 2 positives it is 8, as it should be.
# Method: all logits are equal, so that each anchor's loss is log(5), and the sum tells how many losses were added.
# Versions: torchvision 0.29.1, torch 2.14.1, Python 3.11.
# Output seen:
#   2 positives of 10 anchors: 8 losses
#   6 positives of 10 anchors: 16 losses
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.14.1 torchvision==0.29.1
cat > "$work/run.py" << 'EOF'
import math

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

model = SSD(nn.Identity(), DefaultBoxGenerator([[2]]), (300, 300), num_classes=5, head=nn.Identity())
box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
for positives in (2, 6):
    matched = torch.tensor([[0] * positives + [-1] * (10 - positives)])
    outputs = {"cls_logits": torch.zeros(1, 10, 5), "bbox_regression": torch.zeros(1, 10, 4)}
    targets = [{"labels": torch.tensor([1]), "boxes": box}]
    loss = model.compute_loss(targets, outputs, [box.expand(10, 4)], matched)["classification"]
    count = loss.item() * positives / math.log(5)  # SSD divides by the positives
    print(f"{positives} positives of 10 anchors: {count:.0f} losses")
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
sed -n 's/^#   //p' "$0" | diff - "$work/output"
