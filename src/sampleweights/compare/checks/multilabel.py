"""Checks of multi-label targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from sampleweights.compare.checks.base import Check, listed
from sampleweights.compare.checks.samples import FEW
from sampleweights.compare.checks.trainings import FITTED, NOT_FITTED, RareClassNotFitted, mean

__all__ = ["RareLabelNotFitted", "SmallLabels"]


class SmallLabels(Check):
    """The metrics of a label, and all means over labels, hang on a few positives."""

    code = "small-classes"
    title = "Rare labels"

    def sentence(self, comparison: Any) -> str | None:
        sizes, what = comparison.class_counts, "samples"
        if comparison.groups is not None:
            what = "groups"
            sizes = [
                len(np.unique(comparison.groups[comparison.members(c)])) for c in range(len(sizes))
            ]
        small = sorted((size, c) for c, size in enumerate(sizes) if size < FEW)
        if not small:
            return None
        size, names = small[0][0], [f"{comparison.class_names[c]} ({size})" for size, c in small]
        return (
            f"Fewer than {FEW} {what} have these labels: {listed(names)}. Of {size} {what}, one "
            f"more that is found moves the recall of the label by about {100 / size:.0f} points, "
            f"and a mean over the {len(sizes)} labels by {100 / size / len(sizes):.1f}. Average "
            f"precision and AUROC of such a label have no interval, nor has their mean over the "
            f"labels. Collect more {what} with these labels, or leave these labels out."
        )


class RareLabelNotFitted(RareClassNotFitted):
    """A threshold finds no label that the model has not learnt.

    A label may have a low recall on the training part since its probability never reaches one
    half, while its samples are ranked well: then a threshold is all that it needs. So it counts as
    not fitted where no row fits it, or where one that does is shown to rank the label better.
    """

    title = "A rare label is not fitted"

    def sentence(self, comparison: Any) -> str | None:
        plain = comparison.baseline
        if plain not in comparison.adjustable or plain not in comparison.train_recall:
            return None
        recall = {row: mean(of) for row, of in comparison.train_recall.items()}
        if not (recall[plain] > FITTED).any():
            return None
        missed, by = [], set()
        low = np.flatnonzero(recall[plain] < NOT_FITTED)
        # of many labels some seem better by chance
        wider = ndtri(1 - 0.025 / max(len(low), 1)) / ndtri(0.975)
        for c in low:
            fitting = {row for row in recall if recall[row][c] >= NOT_FITTED}
            name = comparison.class_names[c]
            differences = comparison.differences(f"average_precision_{name}")
            better = {
                row
                for row, by_row in differences.items()
                if row in fitting and by_row.value - wider * (by_row.value - by_row.low) > 0
            }
            if not fitting or better:
                missed.append(f"{name} ({recall[plain][c]:.0f} %)")
                by |= better
        if not missed:
            return None
        text = (
            f"{plain} has not fitted {listed(missed)}: that is the share of the samples with the "
            f"label that it finds among those it was trained on, while its best label has "
            f"{np.nanmax(recall[plain]):.0f} %. "
        )
        if by:
            return (
                f"{text}In the same number of epochs, {listed(sorted(by))} can do so and rank it "
                f"better. Train longer, or weight the labels in training."
            )
        return f"{text}No other method fits it: train longer, and see whether this recall rises."
