"""Metrics of out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from sampleweights.decisions import decide

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


def source_of(row: str) -> str:
    """The row that was trained: the one that ``row`` was read off, or itself."""
    return row.removesuffix(POSTHOC_FREE).removesuffix(POSTHOC)


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
    worth: NDArray[np.float64] | None = None
    """(C, 2), what the worst and the best decision earn on a sample of each class."""

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
        earned = worth = None
        if utility is not None:
            if target is None:
                raise ValueError("target must be given with utility, got None")
            rows = torch.from_numpy(logits.reshape(-1, logits.shape[-1]).astype(np.float64))
            decision = decide(rows, utility).numpy().reshape(logits.shape[:-1])
            earned = np.asarray(utility, float)[target, decision]
            worth = np.stack([np.min(utility, 1), np.max(utility, 1)], 1).astype(np.float64)
        confidence = probability.max(-1)
        return cls(logits.argmax(-1), confidence, probability.astype(np.float32), earned, worth)


def same(one: Prediction, other: Prediction) -> bool:
    """Whether two rows are one: no number of either differs."""
    return np.array_equal(one.predicted, other.predicted) and np.array_equal(
        one.confidence, other.confidence
    )


@dataclass(frozen=True)
class Part:
    """A number about one class, a metric being the mean of such numbers, and who moves it."""

    value: float
    index: NDArray[np.int64]
    """(n,), the samples that it depends on."""
    influence: NDArray[np.float64]
    """(n,), what each of them adds to it: the derivative by the sample's weight, times the weight.
    They sum to 0, and the sum of their squares is the variance of ``value``."""


def names_of(class_names: Sequence[str], with_utility: bool) -> list[str]:
    """All metrics."""
    of_class = ("recall", "precision", "average_precision")
    named = [f"{metric}_{name}" for metric in of_class for name in class_names]
    return [*METRICS, *named, *(["utility"] if with_utility else [])]


def ratio(above: NDArray[np.float64], below: NDArray[np.float64], index: NDArray[np.int64]) -> Part:
    """The ratio of two sums (n,)."""
    total = below.sum()
    value = above.sum() / total if total > 0 else np.nan
    return Part(float(value), index, (above - value * below) / total if total > 0 else 0 * above)


def recalls(
    predicted: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.float64],
    num_classes: int,
) -> list[Part]:  # fmt: skip
    """Of each class, the share of its samples that is predicted so."""
    right, members = predicted == target, indices_of(target, num_classes)
    return [ratio(weight[i] * right[i], weight[i], i) for i in members]


def precisions(
    predicted: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.float64],
    num_classes: int,
) -> list[Part]:  # fmt: skip
    """Of each class, the share of what is predicted so that belongs to it."""
    return recalls(target, predicted, weight, num_classes)


def f1_scores(
    predicted: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.float64],
    num_classes: int,
) -> list[Part]:  # fmt: skip
    """Of each class, the harmonic mean of recall and precision."""
    members = indices_of(target, num_classes)
    found = []
    for c, taken in enumerate(indices_of(predicted, num_classes)):
        index = np.concatenate([members[c], taken[target[taken] != c]])
        of, said = target[index] == c, predicted[index] == c
        found.append(
            ratio(2 * weight[index] * (of & said), weight[index] * (of + 1.0 * said), index)
        )
    return found


def indices_of(classes: NDArray[np.int64], num_classes: int) -> list[NDArray[np.int64]]:
    """Of each class, which samples have it."""
    small = np.uint16 if num_classes < 2**16 else np.int64  # integers of 16 bits sort fastest
    order = np.argsort(classes.astype(small), kind="stable")
    return np.split(order, np.bincount(classes, minlength=num_classes).cumsum()[:-1])


def areas(
    score: NDArray[np.floating], positive: NDArray[np.bool_], weight: NDArray[np.float64]
) -> tuple[Part, Part]:
    """Average precision and AUROC of one class against the rest.

    Samples of one score are taken together. The influences on the AUROC are those of DeLong et
    al., Comparing the areas under two or more correlated receiver operating characteristic
    curves, Biometrics 1988; those on the average precision are its derivatives: a sample moves
    the precision at each positive that is not above it.
    """
    everyone = np.arange(len(score))
    if positive.all() or not positive.any():
        nothing = Part(np.nan, everyone, np.zeros(len(score)))
        return nothing, nothing
    order = np.argsort(-score)
    place = np.append(0, np.cumsum(np.diff(score[order]) != 0))  # among the scores that differ
    of_positive = np.where(positive, weight, 0)[order]
    of_negative = np.where(positive, 0, weight)[order]
    true, false = np.bincount(place, of_positive), np.bincount(place, of_negative)
    above_true, above_false = np.cumsum(true), np.cumsum(false)
    positives, negatives = above_true[-1], above_false[-1]

    beaten = 1 - (above_false - false / 2) / negatives  # share of negatives below a positive
    beating = (above_true - true / 2) / positives  # share of positives above a negative
    auroc = float(true @ beaten / positives)
    of_auroc = of_positive * (beaten[place] - auroc) / positives
    of_auroc += of_negative * (beating[place] - auroc) / negatives

    seen = above_true + above_false
    precision = above_true / seen
    mean = float(true @ precision / positives)
    # a positive more among those seen raises a precision by false / seen^2, a negative lowers it
    raised = np.cumsum((true * above_false / seen**2)[::-1])[::-1][place]
    lowered = np.cumsum((true * above_true / seen**2)[::-1])[::-1][place]
    of_mean = of_positive * (precision[place] - mean + raised) - of_negative * lowered
    return Part(mean, order, of_mean / positives), Part(auroc, order, of_auroc)


def calibration_gaps(
    predicted: NDArray[np.int64], confidence: NDArray[np.float64], target: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Of each bin of confidence, right minus confidence, summed, and by how much chance moves it.

    The expected calibration error is the sum of the absolute gaps over the sum of the weights.
    """
    edge = np.ceil(confidence * BINS).clip(1, BINS).astype(np.int64) - 1
    error, chance = (predicted == target) - confidence, confidence * (1 - confidence)
    gap = np.bincount(edge, weight * error, BINS).astype(np.float64)
    spread: NDArray[np.float64] = np.sqrt(np.bincount(edge, weight**2 * chance, BINS))
    return gap, spread


def debiased(gap: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    """The sum of absolute gaps without what chance adds to it.

    Chance alone makes a gap of 0.8 ``spread`` in each bin, so that a calibrated model has an error
    above 0, the more so the fewer samples there are. To a gap of t spreads it adds
    2 phi(t) - 2 t Phi(-t) of them, the mean of an absolute normal number minus t; t is known from
    the squares of all gaps. Kumar, Liang and Ma, Verified uncertainty calibration, NeurIPS 2019,
    take each gap for its own t instead, which leaves more than half of the 0.8.
    """
    if not spread.any():
        return float(np.abs(gap).sum())
    t = np.sqrt(max((gap**2).sum() / (spread**2).sum() - 1, 0))
    added = 2 * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) - 2 * t * ndtr(-t)
    return float(max(np.abs(gap).sum() - added * spread.sum(), 0))


def mean_of_known(values: Iterable[float]) -> float:
    """The mean without NaN, which is the value of a class that is absent."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def metrics_of_row(
    row: Prediction,
    target: NDArray[np.int64],
    num_classes: int,
    weight: NDArray[np.float64] | None = None,
    metrics: Iterable[str] = tuple(METRICS),
) -> dict[str, float]:
    """Named metrics of a row, averaged over its repeats, without intervals.

    Args:
        row: what was predicted.
        target: (N,), classes.
        num_classes: C.
        weight: (N,), of the samples in the metrics; None for 1 each.
        metrics: which of ``METRICS``, or utility; average precision and AUROC take longest.
    """
    weight = np.ones(len(target)) if weight is None else weight
    repeats = range(len(row.predicted))
    found = {}
    for metric in metrics:
        values = [value_of(row, repeat, metric, target, weight, num_classes) for repeat in repeats]
        found[metric] = unit_of(metric) * float(np.mean(values))
    return found


def unit_of(metric: str) -> float:
    """All are shown in percent but the utility, which has the units of its table."""
    return 1.0 if metric == "utility" else 100.0


def value_of(
    row: Prediction, repeat: int, metric: str, target: NDArray[np.int64],
    weight: NDArray[np.float64], num_classes: int,
) -> float:  # fmt: skip
    """One of ``METRICS``, of one repeat, between 0 and 1."""
    if metric == "calibration_error":
        confidence = row.confidence[repeat]
        gap, spread = calibration_gaps(row.predicted[repeat], confidence, target, weight)
        return debiased(gap, spread) / float(weight.sum())
    if metric == "worst_recall":
        parts = parts_of(row, repeat, "balanced_accuracy", target, weight, num_classes)
        return min((part.value for part in parts if np.isfinite(part.value)), default=np.nan)
    parts = parts_of(row, repeat, metric, target, weight, num_classes)
    return mean_of_known(part.value for part in parts)


def parts_of(
    row: Prediction, repeat: int, family: str, target: NDArray[np.int64],
    weight: NDArray[np.float64], num_classes: int,
) -> list[Part]:  # fmt: skip
    """What a metric is the mean of: a part for each class, or one for all samples."""
    predicted, everyone = row.predicted[repeat], np.arange(len(target))
    if family == "accuracy":
        return [ratio(weight * (predicted == target), weight, everyone)]
    if family == "utility":
        earned = np.full(len(target), np.nan) if row.utility is None else row.utility[repeat]
        return [ratio(weight * earned, weight, everyone)]
    if family in PARTS:
        return PARTS[family](predicted, target, weight, num_classes)
    return areas_of(row, repeat, target, weight, num_classes)[RANKED.index(family)]


def areas_of(
    row: Prediction, repeat: int, target: NDArray[np.int64], weight: NDArray[np.float64],
    num_classes: int,
) -> tuple[list[Part], list[Part]]:  # fmt: skip
    """Average precision and AUROC of each class against the rest."""
    if row.probability is None:
        nothing = [Part(np.nan, np.arange(0), np.zeros(0))] * num_classes
        return nothing, nothing
    probability = row.probability[repeat]
    both = [areas(probability[:, c], target == c, weight) for c in range(num_classes)]
    return [of[0] for of in both], [of[1] for of in both]


PARTS = {"balanced_accuracy": recalls, "recall": recalls,
         "precision": precisions, "macro_f1": f1_scores}  # fmt: skip
RANKED = ("average_precision", "auroc")
