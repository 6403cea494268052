"""How far a row is above the curve of another one, adjusted post hoc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from sampleweights.compare.statistics.contrasts import Contrast
from sampleweights.compare.statistics.samples import Influence

Both = tuple[Influence, Influence]
"""Accuracy and balanced accuracy of a row."""
STEPS = 20
"""Between two neighbours of the curve, which is a polygon."""
NORMAL = ndtri((np.arange(100) + 0.5) / 100)
"""Quantiles of the normal distribution."""


class Curve:
    """The highest balanced accuracy at no less than an accuracy.

    Where no point of the curve has the accuracy, the one with the highest is taken.

    Args:
        points: in the order of the strength of the adjustment.
    """

    def __init__(self, points: Sequence[Both]) -> None:
        self.points = points
        self.place = np.linspace(0, len(points) - 1, STEPS * (len(points) - 1) + 1)
        corners = np.arange(len(points))
        self.accuracy = np.interp(self.place, corners, [of.value for of, _ in points])
        self.balanced = np.interp(self.place, corners, [of.value for _, of in points])

    def at(self, accuracy: float) -> int:
        least = min(accuracy, self.accuracy.max()) - 1e-9  # two sums may round differently
        return int(np.where(self.accuracy >= least, self.balanced, -np.inf).argmax())

    def height(self, accuracy: float) -> float:
        return float(self.balanced[self.at(accuracy)])

    def influences(self, index: int) -> Both:
        left = min(int(self.place[index]), max(len(self.points) - 2, 0))
        right, share = min(left + 1, len(self.points) - 1), float(self.place[index]) - left
        (one, of_one), (other, of_other) = self.points[left], self.points[right]
        return one * (1 - share) + other * share, of_one * (1 - share) + of_other * share


class Above:
    """A row's balanced accuracy minus that of the curve at the row's accuracy.

    Which point of the curve that is depends on the samples too: others move the accuracies of row
    and curve against each other, and with them the point, along the curve.

    Args:
        row: accuracy and balanced accuracy.
        curve: of another row.
        training: the name of the row that was trained.
    """

    def __init__(self, row: Both, curve: Curve, training: str) -> None:
        (accuracy, balanced), self.curve = row, curve
        index = curve.at(accuracy.value)
        self.nearest = round(float(curve.place[index]))
        of_curve, balanced_of_curve = curve.influences(index)
        apart = accuracy - of_curve
        self.accuracy = accuracy.value
        self.spread = max(float(np.sqrt((apart.by_group.mean(0) ** 2).sum())), 1e-6)
        # the curve has steps: its slope is seen over as much as the accuracies move
        seen = np.array([curve.height(self.accuracy + self.spread * z) for z in NORMAL])
        self.slope = float((seen * NORMAL).mean() / (NORMAL**2).mean()) / self.spread
        moved = balanced - balanced_of_curve - apart * self.slope
        value = balanced.value - float(curve.balanced[index])
        self.contrast = Contrast(Influence(value, moved.by_group, moved.by_fold), training)

    def of_few(self, shift: float, added: float, freedom: float) -> Above:
        """With what is to be added since some classes are small."""
        self.contrast = replace(self.contrast, shift=shift, added=added, freedom=freedom)
        return self

    def widened(self, low: float, high: float) -> tuple[float, float]:
        """An interval that knows that the curve is bent: steep where its accuracy is highest.

        As in `of_mean`, the distance to an end is what the curve does as far as the accuracies may
        move, instead of its slope times that.
        """
        alone = np.sqrt(self.contrast.samples_alone)
        far = self.spread * (high - low) / 2 / alone if alone > 0 else 0.0
        here, straight = self.curve.height(self.accuracy), self.slope * far
        # a row that seems more accurate than all of the curve may be like what is before its top
        beyond = max(self.accuracy + far - self.curve.accuracy.max(), 0.0)
        alike = self.curve.accuracy >= self.curve.accuracy.max() - beyond
        least = (
            self.curve.balanced[alike].min() if beyond else self.curve.height(self.accuracy + far)
        )
        bent = np.array([self.curve.height(self.accuracy - far) - here, here - least])
        half = np.sqrt((high - low) ** 2 / 4 + np.maximum(bent**2 - straight**2, 0))
        return float((low + high) / 2 - half[0]), float((low + high) / 2 + half[1])
