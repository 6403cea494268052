"""Checks of what was trained."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.checks.base import Check, listed
from sampleweights.compare.statistics import POSTHOC, Prediction, metrics_of_row

__all__ = ["BaselineNotAdjustable", "EpochNeverTold", "RareClassNotFitted"]

NOT_FITTED, FITTED = 50, 80
"""Training recall in percent: below, a class is not fitted; above, the largest class is."""
TOLERANCE = 1
"""Percentage points by which two rows are alike."""
BALANCED = "balanced_accuracy"


class RareClassNotFitted(Check):
    """Post-hoc adjustment moves boundaries: it does not find what a model has not learnt.

    A low recall of a rare class on the training part has two causes. The training was too short
    for the few steps in which the class occurs; or the class lies among others, where the most
    probable class is another one, and where post-hoc adjustment is right. Classes can be told
    apart where another row fits them without losing accuracy on the training part, so that this
    and the balanced accuracy out of fold decide; or nothing does, where no row fits them.
    """

    code = "rare-class-not-fitted"
    title = "A rare class is not fitted"

    def sentence(self, comparison: Any) -> str | None:
        plain = comparison.baseline
        if plain not in comparison.adjustable or plain not in comparison.train_recall:
            return None
        recall = {row: mean(comparison.train_recall[row]) for row in comparison.train_recall}
        largest = int(np.argmax(comparison.class_counts))
        if not recall[plain][largest] > FITTED:
            return None
        adjusted = Prediction.of(comparison.adjusted(plain))
        classes = len(comparison.class_names)
        posthoc = max(  # whatever strength was chosen, and for whatever objective
            comparison.estimate(plain + POSTHOC, BALANCED).value,
            metrics_of_row(adjusted, comparison.target, classes)[BALANCED],
        )
        balanced = {row: comparison.estimate(row, BALANCED).value for row in recall}
        counts = comparison.counts.sum((0, 1)) / comparison.counts.sum()
        better = {
            row
            for row in recall
            if counts @ recall[row] > counts @ recall[plain] - TOLERANCE
            and balanced[row] > posthoc + TOLERANCE
        }
        missed, by = [], set()
        for c in np.argsort(recall[plain]):
            fitting = {row for row in recall if recall[row][c] >= NOT_FITTED}
            if recall[plain][c] < NOT_FITTED and (not fitting or fitting & better):
                missed.append(f"{comparison.class_names[c]} ({recall[plain][c]:.0f} %)")
                by |= fitting & better
        if not missed:
            return None
        text = (
            f"{plain} has not fitted {listed(missed)}: that is the recall on the samples that it "
            f"was trained on, while the largest class, {comparison.class_names[largest]}, has "
            f"{recall[plain][largest]:.0f} %. "
        )
        if by:
            return (
                f"{text}In the same number of epochs, {max(by, key=balanced.__getitem__)} fits "
                f"more. Post-hoc adjustment cannot help with what the model has not learnt yet: "
                f"train longer, or weight the classes in training."
            )
        return (
            f"{text}No other method fits it. If this recall rises when you train longer, the "
            f"training is too short: post-hoc adjustment cannot help with what the model has not "
            f"learnt yet."
        )


def mean(recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class (C,), over the runs (repeats, folds, C) that know it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a class that no run knows
        found: NDArray[np.float64] = np.nanmean(recall, axis=(0, 1))
    return found


class EpochNeverTold(Check):
    """What depends on the epoch stays as it is in the first one."""

    code = "epoch-never-told"
    title = "set_epoch was never called"

    def sentence(self, comparison: Any) -> str | None:
        if not comparison.never_told:
            return None
        return (
            f"fit never called criterion.set_epoch for {listed([*comparison.never_told])}: what "
            f"depends on the epoch stayed as in the first one, so that these results do not show "
            f"what the methods can do. Call criterion.set_epoch(epoch) at the start of each epoch."
        )


class BaselineNotAdjustable(Check):
    """The prior would be subtracted twice."""

    code = "baseline-not-adjustable"
    title = "No curve of post-hoc adjustment"

    def sentence(self, comparison: Any) -> str | None:
        first = comparison.baseline
        if first in comparison.adjustable:
            return None
        if comparison.adjustable:
            plain = comparison.adjustable[0]
            order = [plain, *(row for row in comparison.trained if row != plain)]
            what = f"give the entries in the order {', '.join(order)}"
        else:
            what = (
                'give a plain one as the first of the entries, such as "no weighting" of '
                "default_entries()"
            )
        return (
            f"{first}, the first of the entries, was trained with the class frequencies. Post-hoc "
            f"adjustment would count them twice, so that nothing says whether a method is worth "
            f"its training. To see the curve of post-hoc adjustment, {what}."
        )
