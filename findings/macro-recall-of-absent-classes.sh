#!/usr/bin/env bash
# Balanced accuracy, macro recall, and macro recall of Ignite: three numbers where a validation set lacks a class.
#
# One would guess: macro recall is balanced accuracy, and a class that has no sample does not count.
# What happens: balanced accuracy of scikit-learn leaves the class out. Its macro recall, and macro recall and macro accuracy
# of torchmetrics, count 0 for it as soon as one sample is predicted to be of it. Ignite counts 0 for it in any case.
# Versions: scikit-learn 1.9.1, torchmetrics 1.9.0, pytorch-ignite 0.5.5, torch 2.13.0, numpy 2.4.6, Python 3.11.
# Output seen:
#   four classes, samples of two of them
#   never predicted: balanced_accuracy_score 0.750, recall_score 0.750, torchmetrics 0.750 and 0.750, ignite 0.375
#   predicted once: balanced_accuracy_score 0.625, recall_score 0.417, torchmetrics 0.417 and 0.417, ignite 0.312
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0
"$work/venv/bin/python" -m pip install -q torchmetrics==1.9.0 pytorch-ignite==0.5.5 scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/run.py" << 'EOF'
import warnings

import torch
from ignite.metrics import Recall
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch.nn.functional import one_hot
from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall

warnings.filterwarnings("ignore")  # scikit-learn warns of the class
target = torch.tensor([0, 0, 0, 0, 1, 1])
print("four classes, samples of two of them")
for name, other in (("never predicted", 0), ("predicted once", 2)):
    predicted = torch.tensor([0, 0, 0, other, 1, 0])
    ignite = Recall(average=True)
    ignite.update((one_hot(predicted, 4), target))
    recall = recall_score(target, predicted, average="macro")
    accuracies = (metric(4, average="macro")(predicted, target) for metric in (MulticlassAccuracy, MulticlassRecall))
    print(
        f"{name}: balanced_accuracy_score {balanced_accuracy_score(target, predicted):.3f}, recall_score {recall:.3f}, "
        f"torchmetrics {' and '.join(f'{value:.3f}' for value in accuracies)}, ignite {ignite.compute():.3f}"
    )
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
# the lines above, in the header of this file, are what is expected
sed -n 's/^#   //p' "$0" | diff - "$work/output"
