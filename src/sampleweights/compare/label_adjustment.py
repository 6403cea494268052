"""Post-hoc logit adjustment of labels: the threshold of each moves with its frequency."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sampleweights.compare.adjustment import TAUS, TOLERANCE, Choice
from sampleweights.margins import LogitAdjustment

__all__ = ["adjusted_labels", "choose_label_tau"]

Floats = NDArray[np.float64]


def adjusted_labels(
    logits: NDArray[np.float32], fold: NDArray[np.int64], counts: NDArray[np.int64], tau: Floats
) -> NDArray[np.float32]:
    """Logits (repeats, N, L) after adjustment by the label frequencies of each training part.

    Args:
        logits: (repeats, N, L), out of fold.
        fold: (repeats, N), in which each sample was predicted.
        counts: (repeats, folds, L, 2), negatives and positives of the training parts.
        tau: (repeats, folds).
    """
    none = torch.zeros(1, counts.shape[2])
    moved = logits.copy()
    for repeat, of_repeat in enumerate(fold):
        by_fold = [
            LogitAdjustment(torch.from_numpy(of_fold), tau=float(strength)).posthoc(none)[0]
            for of_fold, strength in zip(counts[repeat], tau[repeat], strict=True)
        ]
        moved[repeat] += torch.stack(by_fold).numpy()[of_repeat]
    return moved


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
        said = adjusted_labels(logits, fold, counts, np.full(counts.shape[:2], tau)) > 0
        scores.append(
            [
                _macro_f1_without(of_repeat, target > 0, where, counts.shape[1])
                for of_repeat, where in zip(said, fold, strict=True)
            ]
        )
    score = np.array(scores)  # (T, repeats, folds + 1)
    every = np.concatenate(
        [score[..., :-1].reshape(len(score), -1), score[..., -1].mean(1)[:, None]], 1
    )
    found = TAUS[(every >= every.max(0) - TOLERANCE / 100 - 1e-9).argmax(0)]
    return Choice(found[:-1].reshape(counts.shape[:2]), float(found[-1]))


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
