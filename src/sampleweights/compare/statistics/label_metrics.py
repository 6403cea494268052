"""Metrics of multi-label predictions: each label is a problem of two classes of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sampleweights.compare.statistics.metrics import (
    RANKED,
    Part,
    areas,
    calibration_gaps,
    debiased,
    mean_of_known,
    ratio,
)

LABEL_METRICS = {
    "average_precision": "average precision",
    "auroc": "AUROC",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "balanced_accuracy": "balanced accuracy",
    "calibration_error": "expected calibration error",
}
"""Names and words of the metrics of multi-label targets; means over the labels, in percent.

Micro F1 counts all labels together. After them come ``average_precision_NAME``, ``auroc_NAME``,
``f1_NAME``, ``recall_NAME`` and ``precision_NAME`` of each label.
"""

Bools = NDArray[np.bool_]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class LabelPrediction:
    """What the metrics need of a row's logits."""

    logits: NDArray[np.float32]
    """(repeats, N, L), of each label; the label is predicted where it is above 0."""
    before: NDArray[np.float32] | None = None
    """The same without a post-hoc adjustment, if there was one.

    It orders the samples as the adjusted ones do, where all are adjusted alike; those of different
    folds are not.
    """

    @property
    def score(self) -> NDArray[np.float32]:
        """What the samples are ordered by."""
        return self.logits if self.before is None else self.before

    def of_label(self, c: int) -> LabelPrediction:
        """The same of one label."""
        before = None if self.before is None else self.before[..., [c]]
        return LabelPrediction(self.logits[..., [c]], before)

    @cached_property
    def predicted(self) -> Bools:
        """(repeats, N, L)"""
        return self.logits > 0


def label_parts(
    row: LabelPrediction, repeat: int, family: str, target: Bools, weight: Weights
) -> list[Part]:
    """What a metric is the mean of: parts for each label, or one for all of them.

    Args:
        row: what was predicted.
        repeat: which one.
        family: a metric, or ``recall`` or ``precision``.
        target: (N, L).
        weight: (N,), of the samples.
    """
    if family in RANKED:
        return label_areas(row, repeat, target, weight)[RANKED.index(family)]
    predicted = row.predicted[repeat]
    if family == "micro_f1":
        right = 2 * weight * (predicted & target).sum(1)
        said = weight * predicted.sum(1)
        return [ratio(right, weight * target.sum(1) + said, np.arange(len(target)))]
    if family == "balanced_accuracy":  # of each label two recalls
        return shares(predicted, target, weight) + shares(~predicted, ~target, weight)
    if family == "recall":
        return shares(predicted, target, weight)
    if family == "precision":
        return shares(target, predicted, weight)
    if family == "macro_f1":
        return [f1_score(*of, weight) for of in zip(predicted.T, target.T, strict=True)]
    raise ValueError(f"family must be one of {', '.join(LABEL_METRICS)}, got {family!r}")


def shares(hit: Bools, among: Bools, weight: Weights) -> list[Part]:
    """Of each label, the share of samples (N, L) in ``among`` that are in ``hit``."""
    found = []
    for of_label, members in zip(hit.T, among.T, strict=True):
        index = np.flatnonzero(members)
        found.append(ratio(weight[index] * of_label[index], weight[index], index))
    return found


def f1_score(predicted: Bools, target: Bools, weight: Weights) -> Part:
    """Of one label (N,): 0 if it is never predicted right, NaN if it neither occurs nor is said."""
    index = np.flatnonzero(predicted | target)
    said, of = predicted[index], target[index]
    return ratio(2 * weight[index] * (said & of), weight[index] * (said + 1.0 * of), index)


def label_areas(
    row: LabelPrediction, repeat: int, target: Bools, weight: Weights
) -> tuple[list[Part], list[Part]]:
    """Average precision and AUROC of each label."""
    score = row.score[repeat]
    both = [areas(of, label, weight) for of, label in zip(score.T, target.T, strict=True)]
    return [of[0] for of in both], [of[1] for of in both]


def label_calibration_error(
    row: LabelPrediction, repeat: int, target: Bools, weight: Weights
) -> float:
    """How far the probability of a label is from how often it occurs, in the mean over labels."""
    found = []
    positive = np.ones(len(target), np.int64)
    for logits, of in zip(row.logits[repeat].T, target.T, strict=True):
        probability = expit(logits.astype(np.float64))
        gap, spread = calibration_gaps(positive, probability, of.astype(np.int64), weight)
        found.append(debiased(gap, spread) / float(weight.sum()))
    return float(np.mean(found))


def label_metrics_of_row(
    row: LabelPrediction,
    target: Bools,
    weight: Weights | None = None,
    metrics: Iterable[str] = tuple(LABEL_METRICS),
) -> dict[str, float]:
    """Metrics of a row in percent, averaged over its repeats, without intervals.

    Args:
        row: what was predicted.
        target: (N, L).
        weight: (N,), of the samples; None for 1 each.
        metrics: which of ``LABEL_METRICS``.
    """
    weight = np.ones(len(target)) if weight is None else weight

    def value(repeat: int, metric: str) -> float:
        if metric == "calibration_error":
            return label_calibration_error(row, repeat, target, weight)
        parts = label_parts(row, repeat, metric, target, weight)
        return mean_of_known(part.value for part in parts)

    repeats = range(len(row.logits))
    return {m: 100 * float(np.mean([value(repeat, m) for repeat in repeats])) for m in metrics}
