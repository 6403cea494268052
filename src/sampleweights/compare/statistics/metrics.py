"""Metrics of out-of-fold predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "average_precision": "average precision",
    "auroc": "AUROC",
    "worst_recall": "worst recall",
    "calibration_error": "expected calibration error",
}
"""Names and words; in percent.

After them come ``recall_NAME``, ``precision_NAME`` and ``average_precision_NAME`` of each class,
and ``utility``, in the units of its table, where predictions have one.
"""
BINS = 15
"""Of confidence, in the calibration error."""
POSTHOC = " + post-hoc"
"""Ends the name of a row that is read off another."""
POSTHOC_FREE = " + post-hoc at no loss"
"""Ends the name of the row whose adjustment may cost next to no accuracy."""


@dataclass(frozen=True)
class Prediction:
    """What the metrics need of a row's logits, which may be many."""

    predicted: NDArray[np.int64]
    """(repeats, N), the most probable class."""
    confidence: NDArray[np.float64]
    """(repeats, N), probability of the predicted class."""
    probability: NDArray[np.float32] | None = None
    """(repeats, N, C); None where only decisions are known: no AUROC and average precision then."""
    utility: NDArray[np.float64] | None = None
    """(repeats, N), what the best decision earned, in the units of the table; None without one."""

    @classmethod
    def of(
        cls,
        logits: NDArray[np.floating],
        utility: NDArray[np.floating] | None = None,
        target: NDArray[np.int64] | None = None,
    ) -> Prediction:
        """Of logits (repeats, N, C).

        Args:
            logits: (repeats, N, C).
            utility: (C, D), what decision d earns on a sample of class c; the decision is the one
                with the highest expected utility under the softmax of the logits.
            target: (N,), classes; needed with ``utility``.
        """
        exponential = np.exp(logits - logits.max(-1, keepdims=True).astype(np.float64))
        probability = exponential / exponential.sum(-1, keepdims=True)
        earned = None
        if utility is not None:
            if target is None:
                raise ValueError("target must be given with utility, got None")
            earned = np.asarray(utility, float)[target, (probability @ utility).argmax(-1)]
        confidence = probability.max(-1)
        return cls(logits.argmax(-1), confidence, probability.astype(np.float32), earned)


def metrics_of(
    sums: NDArray[np.float64], support: NDArray[np.float64], num_classes: int
) -> NDArray[np.float64]:
    """Metrics (..., 7 + 2 C) in percent, from sums (..., 2 C + 15) and support (..., C).

    A class that is absent is left out of the means.
    """
    right, predicted = sums[..., :num_classes], sums[..., num_classes : 2 * num_classes]
    gap, total = sums[..., 2 * num_classes :], support.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / support
        f1 = 2 * right / (support + predicted)
        named = [
            right.sum(-1) / total,
            mean_of_known(recall),
            mean_of_known(f1),
            np.full_like(total, np.nan),  # average precision and AUROC need all probabilities
            np.full_like(total, np.nan),
            np.fmin.reduce(recall, axis=-1),
            np.abs(gap).sum(-1) / total,
        ]
        precision = right / predicted
    return 100 * np.concatenate([np.stack(named, -1), recall, precision], -1)


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last dimension, without NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, values, 0).sum(-1) / known.sum(-1)
    return mean


def metrics_of_row(
    row: Prediction,
    target: NDArray[np.int64],
    num_classes: int,
    weight: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """The named metrics of a row, without intervals; ``weight`` (N,) of the samples in them."""
    weight = np.ones(len(target)) if weight is None else weight
    support = np.bincount(target, weight, num_classes).astype(np.float64)
    values = []
    for predicted, confidence in zip(row.predicted, row.confidence, strict=True):
        column, amount = columns(predicted, confidence, target, weight, num_classes)
        sums = np.bincount(column, amount, 2 * num_classes + BINS).astype(np.float64)
        values.append(metrics_of(sums, support, num_classes))
    named = dict(zip(METRICS, np.mean(values, axis=0).tolist(), strict=False))
    for metric, of_class in ranked(row, target, num_classes, weight).items():
        named[metric] = float(mean_of_known(of_class))
    return named


def ranked(
    row: Prediction, target: NDArray[np.int64], num_classes: int, weight: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Average precision and AUROC of each class (C,) against the rest, in percent."""
    found = np.full((2, num_classes), np.nan)
    if row.probability is not None:
        for c in range(num_classes):
            both = [area(p[:, c], target == c, weight) for p in row.probability]
            found[:, c] = np.mean(both, axis=0)
    return {"average_precision": found[0], "auroc": found[1]}


def area(
    score: NDArray[np.floating], positive: NDArray[np.bool_], weight: NDArray[np.float64]
) -> tuple[float, float]:
    """Average precision and AUROC, in percent; samples of one score are taken together."""
    if positive.all() or not positive.any():
        return np.nan, np.nan
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(np.where(positive, weight, 0)[order])[last]
    false = np.cumsum(np.where(positive, 0, weight)[order])[last]
    recall = np.diff(true, prepend=0) / true[-1]
    middle = (true + np.append(0, true[:-1])) / 2
    auroc = (np.diff(false, prepend=0) * middle).sum() / (true[-1] * false[-1])
    return 100 * float(recall @ (true / (true + false))), 100 * float(auroc)


def columns(
    predicted: NDArray[np.int64], confidence: NDArray[np.float64], target: NDArray[np.int64],
    weight: NDArray[np.float64], num_classes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:  # fmt: skip
    """Of each sample three sums to which it adds, and what it adds to them."""
    right = (predicted == target).astype(float)
    edge = np.ceil(confidence * BINS).clip(1, BINS).astype(np.int64) - 1
    column = [target, num_classes + predicted, 2 * num_classes + edge]
    amount = weight * np.stack([right, np.ones(len(target)), right - confidence])
    return np.concatenate(column), amount.ravel()
