"""Post-hoc logit adjustment of labels: the threshold of each moves with its frequency."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.adjustment import TAUS, TOLERANCE, Choice, adjusted, columns, smallest

__all__ = ["choose_label_tau"]

Floats = NDArray[np.float64]


def choose_label_tau(
    logits: NDArray[np.float32],
    target: NDArray[np.int64],
    fold: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Choice:
    """The smallest tau whose macro F1 is within 0.5 points of the best, one for all labels.

    Of each fold, on the samples of all other folds. One for each label would be chosen by the few
    positives of the rare ones.
    """
    scores = []
    for tau in TAUS:
        said = adjusted(logits, fold, counts, np.full(counts.shape[:2], tau)) > 0
        found = [
            _macro_f1_without(of_repeat, target > 0, where, counts.shape[1])
            for of_repeat, where in zip(said, fold, strict=True)
        ]
        scores.append(np.stack(found))
    return smallest(TAUS, columns(scores), TOLERANCE / 100, counts)


def _macro_f1_without(
    said: NDArray[np.bool_], target: NDArray[np.bool_], fold: NDArray[np.int64], folds: int
) -> Floats:
    """Macro F1 (folds + 1,) without each fold, and at last of all samples."""

    def count(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        by_fold = np.stack([which[fold == k].sum(0) for k in range(folds)])
        return np.concatenate([by_fold.sum(0) - by_fold, by_fold.sum(0)[None]])

    right, all_said, positives = count(said & target), count(said), count(target)
    found: Floats = (2 * right / np.maximum(all_said + positives, 1)).mean(1)
    return found
