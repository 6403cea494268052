"""Checks of what is compared on: the samples, their groups and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.checks.base import Check, listed

__all__ = ["DuplicatesAcrossFolds", "FewGroups", "SmallClasses", "equal_features"]

FEW = 20
"""Groups, or samples of a class, below which an interval says little."""


def equal_features(features: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each sample (N,) that those with exactly the same features (N, D) share."""
    # adding 0 makes -0.0 a 0.0
    digests = np.fromiter((hash((row + 0).tobytes()) for row in features), np.int64, len(features))
    found: NDArray[np.int64] = np.unique(digests, return_inverse=True)[1]
    return found


class DuplicatesAcrossFolds(Check):
    """Models are judged on samples that they were trained on."""

    code = "duplicates-across-folds"
    title = "The same features in different folds"

    def sentence(self, comparison: Any) -> str | None:
        if comparison.same_features is None:
            return None
        number, positions = comparison.same_features, comparison.positions
        if positions is None:
            positions = np.arange(len(number))
        only_trained_on = np.delete(number, positions)
        number = number[positions]
        across = np.isin(number, only_trained_on)
        for fold in comparison.fold:
            lowest = np.full(number.max() + 1, comparison.folds)
            highest = np.full(number.max() + 1, -1)
            np.minimum.at(lowest, number, fold)
            np.maximum.at(highest, number, fold)
            across |= (lowest < highest)[number]
        many, size = int(across.sum()), len(number)
        if not many:
            return None
        distinct = len(np.unique(number[across]))
        text = (
            f"{many:,} of {size:,} samples ({100 * many / size:.1f} %) have exactly the features "
            f"of a sample in another fold"
        )
        number_of_classes = len(comparison.class_names)
        shares = [across[comparison.members(c)].mean() for c in range(number_of_classes)]
        if max(shares) > 2 * many / size:
            name = comparison.class_names[np.argmax(shares)]
            text += f", most of all in {comparison.task.one} {name}"
        if many > 4 * distinct:  # a table of categories, of which many samples have the same
            return (
                f"{text}: these {many:,} samples have only {distinct:,} different rows of features."
                f" If different samples can have the same features, as in a table of a few "
                f"categories, nothing is wrong. If they are copies of each other, models were "
                f"judged on samples that they were trained on, and all numbers are too high: give "
                f"copies the same group with groups=, or remove them."
            )
        return (
            f"{text}. If they are copies, models were judged on samples that they were trained on, "
            f"and all numbers are too high. Give groups=, with one group for all copies of a "
            f"sample and for all samples of one patient, video or document, or remove the copies."
        )


class FewGroups(Check):
    """Groups are what intervals are computed from."""

    code = "few-groups"
    title = "Few groups"

    def sentence(self, comparison: Any) -> str | None:
        groups = comparison.num_groups
        if groups is None or groups >= FEW:
            return None
        return (
            f"There are only {groups} groups. All intervals are computed from how groups differ, "
            f"so that they are wide and rough below {FEW} groups, and another {groups} groups may "
            f"give another order of the rows. Collect samples from more groups before you decide."
        )


class SmallClasses(Check):
    """The recall of a class, and all means over classes, hang on a few samples."""

    code = "small-classes"
    title = "Small classes"

    def sentence(self, comparison: Any) -> str | None:
        sizes, what = np.bincount(comparison.target).tolist(), "samples"
        if comparison.groups is not None:
            what = "groups"
            sizes = [
                len(np.unique(comparison.groups[comparison.target == c])) for c in range(len(sizes))
            ]
        small = sorted((size, c) for c, size in enumerate(sizes) if size < FEW)
        if not small:
            return None
        size, names = small[0][0], [f"{comparison.class_names[c]} ({size})" for size, c in small]
        moves = "one more that is right moves the recall of its class"
        if comparison.groups is not None:
            moves = "a single one, if all are as large, can move the recall of its class"
        return (
            f"These classes have fewer than {FEW} {what}: {listed(names)}. With {size} of them, "
            f"{moves} by {100 / size:.0f} points and balanced accuracy by "
            f"{100 / size / len(sizes):.1f}. Collect more {what} of these classes, or do not "
            f"decide by differences of that size."
        )
