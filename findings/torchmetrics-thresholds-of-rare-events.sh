#!/usr/bin/env bash
# With `thresholds=100` AUROC and average precision of torchmetrics are wrong where positives are rare.
#
# One would guess: a hundred thresholds give these numbers to two or three decimals. They are what the documentation offers
# to use less memory.
# What happens: the thresholds are evenly spaced from 0 to 1. Where one sample in a thousand is positive, nearly all
# probabilities of a calibrated model lie between the first two of them, and are one single point of the curve.
# Logits do not help, since a sigmoid is applied to them. Ranks from 0 to 1 help the AUROC alone.
# Versions: torchmetrics 1.9.0, torch 2.13.0, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
# Output seen:
#   116 positives of 100000, highest probability 0.17
#   all probabilities: AUROC 0.85, average precision 0.024
#   thresholds=100: AUROC 0.57, average precision 0.017
#   thresholds=200: AUROC 0.66, average precision 0.020
#   thresholds=200 of the logits: AUROC 0.66, average precision 0.020
#   thresholds=200 of the ranks: AUROC 0.85, average precision 0.009
#   scikit-learn: AUROC 0.85, average precision 0.024
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0
"$work/venv/bin/python" -m pip install -q torchmetrics==1.9.0 scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/run.py" << 'EOF'
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

random = torch.Generator().manual_seed(0)
size = 100_000
logits = 1.5 * torch.randn(size, generator=random, dtype=torch.float64) - 8
probability = logits.sigmoid()
target = (torch.rand(size, generator=random, dtype=torch.float64) < probability).long()
ranks = probability.argsort().argsort() / size
print(f"{target.sum()} positives of {size}, highest probability {probability.max():.2f}")


def measured(name, scores, thresholds):
    auroc = BinaryAUROC(thresholds=thresholds)(scores, target)
    precision = BinaryAveragePrecision(thresholds=thresholds)(scores, target)
    print(f"{name}: AUROC {auroc:.2f}, average precision {precision:.3f}")


measured("all probabilities", probability, None)
measured("thresholds=100", probability, 100)
measured("thresholds=200", probability, 200)
measured("thresholds=200 of the logits", logits, 200)
measured("thresholds=200 of the ranks", ranks, 200)
auroc, precision = roc_auc_score(target, probability), average_precision_score(target, probability)
print(f"scikit-learn: AUROC {auroc:.2f}, average precision {precision:.3f}")
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
# the lines above, in the header of this file, are what is expected
sed -n 's/^#   //p' "$0" | diff - "$work/output"
