#!/usr/bin/env bash
# CatBoost with `scale_pos_weight` reports, and picks the best iteration by, an F1 that no user will ever see.
#
# One would guess: class weights change the training, and the F1 of the validation set is that of its samples; or else, all
# metrics are weighted.
# What happens: the validation samples are weighted, too, so that accuracy, F1, precision, MCC and the area under the
# precision-recall curve are those of data in which each positive counts nine times: precision 0.79 for 0.30. The AUC is not
# weighted. `eval_metric="F1:use_weights=false"` gives the number of the samples, and another best iteration.
# Versions: catboost 1.2.10, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
# Output seen:
#   Accuracy: 0.733 of CatBoost, 0.746 of scikit-learn
#   F1: 0.755 of CatBoost, 0.423 of scikit-learn, best at 20
#   Precision: 0.793 of CatBoost, 0.299 of scikit-learn
#   MCC: 0.466 of CatBoost, 0.341 of scikit-learn
#   PRAUC: 0.860 of CatBoost, 0.527 of scikit-learn
#   AUC: 0.800 of CatBoost, 0.800 of scikit-learn
#   F1:use_weights=false: 0.423 of CatBoost, 0.423 of scikit-learn, best at 199
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q catboost==1.2.10 scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/run.py" << 'EOF'
from catboost import CatBoostClassifier
from sklearn import metrics
from sklearn.datasets import make_classification

X, y = make_classification(2000, 10, n_informative=3, weights=[0.9], flip_y=0.1, random_state=0)
train, validation = (X[:1000], y[:1000]), (X[1000:], y[1000:])


def area(target, probability):
    precision, recall, _ = metrics.precision_recall_curve(target, probability)
    return metrics.auc(recall, precision)


def best_iteration(name):
    model = CatBoostClassifier(**options, iterations=200, eval_metric=name)
    return model.fit(*train, eval_set=validation).get_best_iteration()


options = {"depth": 3, "scale_pos_weight": 9, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
of_class = {
    "Accuracy": metrics.accuracy_score,
    "F1": metrics.f1_score,
    "Precision": metrics.precision_score,
    "MCC": metrics.matthews_corrcoef,
}
of_probability = {"PRAUC": area, "AUC": metrics.roc_auc_score}
for name in [*of_class, *of_probability, "F1:use_weights=false"]:
    model = CatBoostClassifier(**options, iterations=30, eval_metric=name, use_best_model=False)
    model.fit(*train, eval_set=validation)
    theirs = model.get_evals_result()["validation"][name][-1]
    probability = model.predict_proba(validation[0])[:, 1]
    if name in of_probability:
        ours = of_probability[name](validation[1], probability)
    else:
        ours = of_class[name.partition(":")[0]](validation[1], probability > 0.5)
    best = f", best at {best_iteration(name)}" if name.startswith("F1") else ""
    print(f"{name}: {theirs:.3f} of CatBoost, {ours:.3f} of scikit-learn{best}")
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
# the lines above, in the header of this file, are what is expected
sed -n 's/^#   //p' "$0" | diff - "$work/output"
