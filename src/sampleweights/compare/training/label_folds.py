"""Folds of multi-label targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_label_parts", "folds_of_labels", "label_counts"]


def folds_of_labels(
    target: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    names: Sequence[str],
    folds: int,
    repeats: int,
    seed: int,
) -> NDArray[np.int64]:
    """The fold (repeats, N) in which each sample is predicted; groups stay together.

    Each label is spread over the folds as evenly as it can be, the rarest first: its samples go,
    one after the other, to the fold that lacks most of it, as in Sechidis, Tsoumakas and Vlahavas,
    On the stratification of multi-label data, ECML PKDD 2011. Groups are dealt as samples are, the
    ones with most of the label first.

    Args:
        target: (N, L), of zeros and ones.
        groups: (N,), or None.
        names: of the labels.
        folds: how many.
        repeats: of the whole, on other folds.
        seed: of what decides between folds that are alike.

    Raises:
        ValueError: a label that fewer samples, or groups, have, or lack, than there are folds.
    """
    group = np.arange(len(target)) if groups is None else np.unique(groups, return_inverse=True)[1]
    size = np.bincount(group).astype(np.float64)
    amount = np.zeros((len(size), target.shape[1]))
    np.add.at(amount, group, target)
    what = "samples" if groups is None else "groups"
    for label, name in enumerate(names):
        for number, side in (
            ((amount[:, label] > 0).sum(), "with"),
            ((amount[:, label] < size).sum(), "without"),
        ):
            if number < folds:
                raise ValueError(
                    f"every label must have at least as many {what} with it and without it as "
                    f"there are folds ({folds}), got {number} {side} {name!r}: give fewer folds, "
                    f"or leave the label out"
                )
    dealt = [deal(amount, size, folds, np.random.default_rng(seed + r)) for r in range(repeats)]
    fold: NDArray[np.int64] = np.stack(dealt)[:, group]
    check_label_parts(target, fold, names)
    return fold


def deal(
    amount: NDArray[np.float64], size: NDArray[np.float64], folds: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """The fold of each group (G,).

    Args:
        amount: (G, L), samples with each label.
        size: (G,), samples.
        folds: how many.
        random: decides between folds that are alike.
    """
    number = len(size)
    wanted = np.tile(amount.sum(0) / folds, (folds, 1))  # of each label, still missing
    room = np.full(folds, size.sum() / folds)
    fold = np.full(number, -1)
    order = random.permutation(number)

    def put(chosen: int, wanting: NDArray[np.float64]) -> None:
        best = np.flatnonzero(wanting >= wanting.max() - 1e-9)
        best = best[room[best] >= room[best].max() - 1e-9]
        where = int(random.choice(best))
        fold[chosen] = where
        wanted[where] -= amount[chosen]
        room[where] -= size[chosen]

    left = amount.sum(0)
    while (left > 0).any():
        label = int(np.where(left > 0, left, np.inf).argmin())
        open_ = order[(fold[order] < 0) & (amount[order, label] > 0)]
        for chosen in open_[np.argsort(-amount[open_, label], kind="stable")]:
            put(chosen, wanted[:, label])
        left = amount[fold < 0].sum(0)
        left[label] = 0
    rest = order[fold[order] < 0]  # those without any label
    for chosen in rest[np.argsort(-size[rest], kind="stable")]:
        put(chosen, room)
    return fold


def label_counts(target: NDArray[np.int64], fold: NDArray[np.int64]) -> NDArray[np.int64]:
    """Negatives and positives of each label (repeats, folds, L, 2) in each training part."""
    counts = []
    for of_repeat in fold:
        of_folds = []
        for k in range(int(of_repeat.max()) + 1):
            part = target[of_repeat != k]
            of_folds.append(np.stack([len(part) - part.sum(0), part.sum(0)], 1))
        counts.append(of_folds)
    return np.array(counts)


def check_label_parts(
    target: NDArray[np.int64], fold: NDArray[np.int64], names: Sequence[str]
) -> None:
    """Refuse folds whose training part lacks samples with a label, or without it.

    Raises:
        ValueError: there is such a fold.
    """
    for _, number, label, side in np.argwhere(label_counts(target, fold) == 0):
        raise ValueError(
            f"all samples {('without', 'with')[side]} {names[label]!r} fall into fold {number}, so "
            f"that there is none to train on: its groups are too few or too uneven; give fewer "
            f"folds or another seed, or leave the label out"
        )
