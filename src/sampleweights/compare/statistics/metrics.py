"""Metrics of out-of-fold predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "worst_recall": "worst recall",
    "calibration_error": "expected calibration error",
}
"""Names and words; in percent. A recall of each class, ``recall_NAME``, comes after them."""
BINS = 15
"""Of confidence, in the calibration error."""
POSTHOC = " + post-hoc"
"""Ends the name of a row that is read off another."""


@dataclass(frozen=True)
class Prediction:
    """What the metrics need of a row's probabilities, which may be many."""

    predicted: NDArray[np.int64]
    """(repeats, N)"""
    confidence: NDArray[np.float64]
    """(repeats, N), probability of the predicted class."""

    @classmethod
    def of(cls, logits: NDArray[np.floating]) -> Prediction:
        """Of logits (repeats, N, C)."""
        largest = logits.max(-1, keepdims=True).astype(np.float64)
        total = np.exp(logits - largest).sum(-1)
        return cls(logits.argmax(-1), 1 / total)


def metrics_of(
    sums: NDArray[np.float64], support: NDArray[np.float64], num_classes: int
) -> NDArray[np.float64]:
    """Metrics (..., 5 + C) in percent, from sums (..., 2 C + 15) and support (..., C).

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
            np.fmin.reduce(recall, axis=-1),
            np.abs(gap).sum(-1) / total,
        ]
    return 100 * np.concatenate([np.stack(named, -1), recall], -1)


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last dimension, without NaN."""
    known = ~np.isnan(values)
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
    return dict(zip(METRICS, np.mean(values, axis=0).tolist(), strict=False))


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
