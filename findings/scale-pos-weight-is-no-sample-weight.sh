#!/usr/bin/env bash
# `scale_pos_weight=9` is the weight 9 for each positive sample in CatBoost, but not in LightGBM and XGBoost.
#
# One would guess: the two are the same model in each library, as `pos_weight` of torch is the weight of the positives.
# What happens: LightGBM starts with the mean of the target, in which sample weights count and `scale_pos_weight` does not, so
# that one tree calls every sample positive with weights, and none with `scale_pos_weight`. XGBoost counts sample weights when
# it makes the bins of the features, but not `scale_pos_weight`; with exact splits they are the same.
# Versions: lightgbm 4.7.0, xgboost-cpu 3.2.0, catboost 1.2.10, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
# Output seen:
#   called positive by weights and by scale_pos_weight, and the largest difference of a probability
#   LightGBM, 1 tree: 100 % and 0 %, 0.40
#   LightGBM, 20 trees: 27 % and 21 %, 0.16
#   LightGBM, boost_from_average=False, 20 trees: 25 % and 25 %, 0.00
#   XGBoost, 20 trees: 25 % and 25 %, 0.38
#   XGBoost, tree_method="exact", 20 trees: 25 % and 25 %, 0.00
#   CatBoost, 20 trees: 31 % and 31 %, 0.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q lightgbm==4.7.0 xgboost-cpu==3.2.0 catboost==1.2.10 scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/run.py" << 'EOF'
import warnings

import numpy as np
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.datasets import make_classification
from xgboost import XGBClassifier

warnings.filterwarnings("ignore")
X, y = make_classification(2000, 10, n_informative=3, weights=[0.9], flip_y=0.1, random_state=0)
sample_weight = np.where(y == 1, 9.0, 1.0)
small = {"max_depth": 3, "n_jobs": 1}
kinds = [
    ("LightGBM, 1 tree", LGBMClassifier, {**small, "n_estimators": 1, "verbose": -1}),
    ("LightGBM, 20 trees", LGBMClassifier, {**small, "n_estimators": 20, "verbose": -1}),
    (
        "LightGBM, boost_from_average=False, 20 trees",
        LGBMClassifier,
        {**small, "n_estimators": 20, "verbose": -1, "boost_from_average": False},
    ),
    ("XGBoost, 20 trees", XGBClassifier, {**small, "n_estimators": 20}),
    ('XGBoost, tree_method="exact", 20 trees', XGBClassifier, {**small, "n_estimators": 20, "tree_method": "exact"}),
    (
        "CatBoost, 20 trees",
        CatBoostClassifier,
        {"depth": 3, "thread_count": 1, "iterations": 20, "verbose": 0, "allow_writing_files": False},
    ),
]
print("called positive by weights and by scale_pos_weight, and the largest difference of a probability")
for name, kind, options in kinds:
    by_weights = kind(**options).fit(X, y, sample_weight=sample_weight).predict_proba(X)[:, 1]
    by_scale = kind(**options, scale_pos_weight=9).fit(X, y).predict_proba(X)[:, 1]
    shares = " and ".join(f"{100 * (p > 0.5).mean():.0f} %" for p in (by_weights, by_scale))
    print(f"{name}: {shares}, {abs(by_weights - by_scale).max():.2f}")
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
# the lines above, in the header of this file, are what is expected
sed -n 's/^#   //p' "$0" | diff - "$work/output"
