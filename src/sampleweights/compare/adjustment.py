"""Post-hoc logit adjustment: its strength tau, chosen on other folds than it is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from sampleweights.compare.objective import Objective
from sampleweights.decisions import decide
from sampleweights.margins import LogitAdjustment

__all__ = [
    "COARSE_TAUS", "TAUS", "TOLERANCE", "Choice", "adjusted", "choose_tau", "columns", "smallest",
]  # fmt: skip

TAUS = np.linspace(0, 1.5, 31).round(2)
COARSE_TAUS = np.linspace(0, 1.5, 7)
"""For average precision, which has to sort all samples for every tau and class."""
TOLERANCE = 0.5
"""Points, of accuracy or of an objective in percent, that count as none."""
DOUBT = 0.5
"""Standard errors: of 0.5, 1 and 2 the one with the highest gain on the development half of
docs/does-it-pay.md."""

Floats = NDArray[np.float64]


def adjusted(
    logits: NDArray[np.float32], fold: NDArray[np.int64], counts: NDArray[np.int64], tau: Floats
) -> NDArray[np.float32]:
    """Logits after adjustment by the frequencies of each training part.

    Args:
        logits: (repeats, N, C), or of labels (repeats, N, L), out of fold.
        fold: (repeats, N), in which each sample was predicted.
        counts: of the training parts (repeats, folds, C), or of labels (repeats, folds, L, 2),
            their negatives and positives.
        tau: (repeats, folds).
    """
    none = torch.zeros(1, counts.shape[2])  # as one row: two numbers alone would be two samples
    moved = logits.copy()
    for repeat, of_repeat in enumerate(fold):
        by_fold = [
            LogitAdjustment(torch.from_numpy(of_fold), tau=float(strength)).posthoc(none)[0]
            for of_fold, strength in zip(counts[repeat], tau[repeat], strict=True)
        ]
        moved[repeat] += torch.stack(by_fold).numpy()[of_repeat]
    return moved


@dataclass(frozen=True)
class Choice:
    """The strengths of one row."""

    by_fold: Floats
    """(repeats, folds), each the best one on the samples of all other folds."""
    overall: float
    """The best one on all samples: the one to use for data that are still to come."""


def choose_tau(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    fold: NDArray[np.int64],
    counts: NDArray[np.int64],
    objective: Objective,
) -> tuple[Choice, Choice]:
    """The tau that is best for the objective, and the best of those that cost no accuracy.

    The second is the best one among those that lose at most 0.5 points of accuracy against tau = 0,
    on the same samples. Near its highest value an objective hardly changes with tau, while accuracy
    falls and falls; so the smallest tau within 0.5 points of the best is taken; of balanced
    accuracy `least_strong`. Of accuracy and of a utility, it is the smallest of the best.
    """
    taus = COARSE_TAUS if objective.metric == "average_precision" else TAUS
    found = []
    for tau in taus:
        moved = adjusted(logits, fold, counts, np.full(counts.shape[:2], tau))
        of_repeats = [
            _without_folds(of_repeat, target, where, counts.shape[1], objective)
            for of_repeat, where in zip(moved, fold, strict=True)
        ]
        found.append([np.stack(part) for part in zip(*of_repeats, strict=True)])
    score, accuracy, hit, support = (columns(part) for part in zip(*found, strict=True))
    cheap = accuracy >= accuracy[0] - TOLERANCE / 100 - 1e-9
    free = np.where(cheap, score, -np.inf)
    if objective.metric == "balanced_accuracy":
        best, at_no_loss = (least_strong(taus, s, hit, support[0]) for s in (score, free))
        return _choice(best, counts), _choice(at_no_loss, counts)
    slack = 0.0 if objective.metric in ("accuracy", "utility") else TOLERANCE / 100
    return smallest(taus, score, slack, counts), smallest(taus, free, slack, counts)


def least_strong(taus: Floats, score: Floats, hit: Floats, support: Floats) -> Floats:
    """For each column the tau to take for balanced accuracy.

    With tau = 1, the logits are those for equal class frequencies, and balanced accuracy is the
    highest that a calibrated model has. So of all taus that are within half a standard error of
    the best, the one nearest to 1 is where to start: where a class has few samples, the best one is
    a matter of chance. It is then weakened, for the sake of accuracy, as far as that is shown to
    lose at most 0.5 points, half a standard error included.

    The standard error of a difference follows from the samples of each class that are right with
    one tau and not with the other.

    Args:
        taus: (T,).
        score: balanced accuracy (T, X), from 0 to 1; -inf where a tau must not be taken.
        hit: samples that are right, by class (T, X, C).
        support: samples of each class (X, C).
    """
    columns, known = np.arange(score.shape[1]), support > 0

    def error(other: NDArray[np.intp]) -> Floats:
        # half a sample more: none that differs among a few is not none among many
        changed = np.abs(hit - hit[other, columns]) + 0.5
        variance = np.where(known, changed / np.maximum(support, 1) ** 2, 0).sum(-1)
        deviation: Floats = DOUBT * np.sqrt(variance) / known.sum(-1)
        return deviation

    best = score.argmax(0)
    alike = score >= score[best, columns] - error(best)
    start = np.where(alike, np.abs(taus - 1)[:, None], np.inf).argmin(0)
    loses = score[start, columns] - score + error(start)
    loses[start, columns] = 0
    taken: Floats = taus[(loses <= TOLERANCE / 100).argmax(0)]
    return taken


def smallest(taus: Floats, score: Floats, slack: float, counts: NDArray[np.int64]) -> Choice:
    """The smallest tau whose score is within ``slack`` of the best; of scores (T, R K + 1)."""
    found = taus[(score >= score.max(0) - slack - 1e-9).argmax(0)]
    return _choice(found, counts)


def _choice(found: Floats, counts: NDArray[np.int64]) -> Choice:
    return Choice(found[:-1].reshape(counts.shape[:2]), float(found[-1]))


def columns(scores: Sequence[Floats]) -> Floats:
    """Of all but each fold, and of all samples in the mean over the repeats: (T, R K + 1).

    What is there of each class, in an axis behind, is taken by class: (T, R K + 1, C).
    """
    by_tau = np.stack(scores)
    by_fold = by_tau[:, :, :-1].reshape(len(by_tau), -1, *by_tau.shape[3:])
    return np.concatenate([by_fold, by_tau[:, :, -1].mean(1)[:, None]], 1)


def _without_folds(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    fold: NDArray[np.int64],
    folds: int,
    objective: Objective,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Without each fold, and at last of all samples.

    Objective and accuracy (folds + 1,), and of each class what is right and what there is
    (folds + 1, C).
    """
    classes = logits.shape[-1]
    predicted = logits.argmax(-1)

    def count(column: NDArray[np.int64], amount: NDArray[Any] | None = None) -> Floats:
        """Sums by class (folds + 1, C)."""
        found = np.bincount(fold * classes + column, amount, folds * classes)
        by_fold = found.reshape(folds, classes).astype(np.float64)
        total = by_fold.sum(0)
        return np.concatenate([total - by_fold, total[None]])

    support, hit = count(target), count(target, predicted == target)
    score = accuracy = hit.sum(-1) / support.sum(-1)
    if objective.metric == "balanced_accuracy":
        score = _mean(hit, support, support > 0)
    elif objective.metric == "macro_f1":
        score = _mean(2 * hit, support + count(predicted), support > 0)
    elif objective.metric == "average_precision":
        score = _average_precision(softmax(logits, axis=-1), target, fold, folds)
    elif objective.table is not None:
        decision = decide(torch.from_numpy(logits), objective.table).numpy()
        score = count(target, objective.table[target, decision]).sum(-1) / support.sum(-1)
    return score, accuracy, hit, support


def _mean(part: Floats, whole: Floats, known: NDArray[np.bool_]) -> Floats:
    """The mean ratio over the classes that have samples."""
    ratio = np.where(known, part / np.where(known, whole, 1), 0)
    mean: Floats = ratio.sum(-1) / np.maximum(known.sum(-1), 1)
    return mean


def _average_precision(
    probability: NDArray[np.float32],
    target: NDArray[np.int64],
    fold: NDArray[np.int64],
    folds: int,
) -> Floats:
    """Of one class against the rest, averaged over the classes: (folds + 1,).

    Each class is sorted once for all folds. Samples with the same probability count together.
    """
    found = np.zeros((folds + 1, probability.shape[1]))
    known = np.zeros(found.shape, bool)
    for c in range(probability.shape[1]):
        order = np.argsort(-probability[:, c])
        score, positive, of_sample = probability[order, c], target[order] == c, fold[order]
        ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
        # only where something is found does the recall, and so the area, grow
        ends = np.unique(ends[np.searchsorted(ends, np.flatnonzero(positive))])
        for k in range(folds + 1):
            inside = of_sample != k  # of the last, which no sample has: all of them
            hits = (positive & inside).cumsum(dtype=np.int32)[ends]
            among = inside.cumsum(dtype=np.int32)[ends]
            total = hits[-1] if len(hits) else 0
            gained = np.diff(hits, prepend=0) / max(total, 1)
            found[k, c] = (gained * hits / np.maximum(among, 1)).sum()
            known[k, c] = total > 0
    return _mean(found, np.ones_like(found), known)
