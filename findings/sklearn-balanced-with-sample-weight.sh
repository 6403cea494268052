#!/usr/bin/env bash
# class_weight="balanced" together with sample_weight has two meanings within scikit-learn.
#
# One would guess: one meaning for all estimators, and surely the same one for a decision tree and for a forest of such trees.
# What happens: some estimators count the samples of each class, others sum their sample weights. DecisionTreeClassifier
# counts, RandomForestClassifier sums; SGDClassifier counts, LogisticRegression sums; SVC counts, LinearSVC sums.
# Method: each estimator is fitted three times, with "balanced", with the weights of either meaning as a dictionary, and the
# decision values are compared.
# Versions: scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
# Output seen:
#   DecisionTreeClassifier         counts samples
#   ExtraTreeClassifier            counts samples
#   ExtraTreesClassifier           sums sample weights
#   HistGradientBoostingClassifier counts samples
#   LinearSVC                      sums sample weights
#   LogisticRegression             sums sample weights
#   Perceptron                     counts samples
#   RandomForestClassifier         sums sample weights
#   RidgeClassifier                counts samples
#   SGDClassifier                  counts samples
#   SVC                            counts samples
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/run.py" << 'EOF'
import warnings

import numpy as np
from sklearn import ensemble, linear_model, svm, tree
from sklearn.datasets import make_classification

warnings.filterwarnings("ignore")
X, y = make_classification(300, 6, n_informative=4, n_classes=3, weights=[0.6, 0.3, 0.1], random_state=0)
sample_weight = np.where(y == 2, np.random.default_rng(0).integers(1, 9, 300), 1).astype(float)
samples, sums = np.bincount(y), np.bincount(y, weights=sample_weight)
meanings = {
    "counts samples": len(y) / (3 * samples),
    "sums sample weights": sample_weight.sum() / (3 * sums),
}
small = {"random_state": 0, "max_depth": 3}
estimators = [
    (tree.DecisionTreeClassifier, small),
    (tree.ExtraTreeClassifier, small),
    (ensemble.ExtraTreesClassifier, small),
    (ensemble.HistGradientBoostingClassifier, {**small, "max_iter": 20}),
    (svm.LinearSVC, {"random_state": 0}),
    (linear_model.LogisticRegression, {}),
    (linear_model.Perceptron, {"random_state": 0}),
    (ensemble.RandomForestClassifier, {**small, "bootstrap": False}),
    (linear_model.RidgeClassifier, {}),
    (linear_model.SGDClassifier, {"random_state": 0}),
    (svm.SVC, {}),
]


def decision(estimator, options, class_weight):
    fitted = estimator(class_weight=class_weight, **options).fit(X, y, sample_weight=sample_weight)
    values = getattr(fitted, "decision_function", None) or fitted.predict_proba
    return values(X)


for estimator, options in estimators:
    balanced = decision(estimator, options, "balanced")
    same = [
        name
        for name, weights in meanings.items()
        if np.allclose(balanced, decision(estimator, options, dict(enumerate(weights))))
    ]
    print(f"{estimator.__name__:30} {' and '.join(same)}")
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
# the lines above, in the header of this file, are what is expected
sed -n 's/^#   //p' "$0" | diff - "$work/output"
