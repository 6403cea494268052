"""Differences of rows, with intervals that hold their truth together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from sampleweights.compare.statistics.estimates import LEVEL
from sampleweights.compare.statistics.samples import Influence
from sampleweights.compare.statistics.trainings import (
    FACTORS,
    half_width,
    posterior,
)

DRAWS = 20_000
"""Of normal numbers, for the largest of several."""


@dataclass(frozen=True)
class Contrast:
    """A difference, and how much it varies."""

    influence: Influence
    training: str
    """Of the row whose difference to another it is, the name of the one that was trained."""
    shift: float = 0.0
    """Added to the difference, as samples of a small class have too little to say."""
    added: float = 0.0
    """Added to the variance for the same reason."""
    freedom: float = np.inf
    """Degrees of freedom with which the variance is known."""

    @property
    def number(self) -> tuple[int, int, int]:
        """Of repeats, groups and folds."""
        repeats, groups = self.influence.by_group.shape
        return repeats, groups, self.influence.by_fold.shape[1]

    @property
    def samples_alone(self) -> float:
        """The variance of the average of the repeats, if no training varied."""
        _, groups, _ = self.number
        mean = self.influence.by_group.mean(0)
        return float(mean @ mean) * groups / max(groups - 1, 1)

    @property
    def of_repeat(self) -> float:
        """The same of a single repeat."""
        repeats, groups, _ = self.number
        flat = self.influence.by_group.ravel()
        return float(flat @ flat) / repeats * groups / max(groups - 1, 1)

    @property
    def squares(self) -> tuple[float, float]:
        """Mean squares between and within folds; alike, if no training varied."""
        repeats, groups, folds = self.number
        between = float((self.influence.by_fold**2).sum()) / repeats * folds / max(folds - 1, 1)
        within = (groups - 1) * self.of_repeat - (folds - 1) * between
        return between, max(within, 0.0) / max(groups - folds, 1)

    @property
    def freedoms(self) -> tuple[int, int]:
        """Of ``squares``."""
        repeats, groups, folds = self.number
        return (folds - 1) * repeats, max(groups - folds, 0)

    def variances(self) -> NDArray[np.float64]:
        """(U,), for each factor by which trainings may multiply what samples do."""
        repeats, _, folds = self.number
        (between, within), (above, below) = self.squares, self.freedoms
        alone, single = self.samples_alone, self.of_repeat
        found = np.full(len(FACTORS), alone + self.added)
        if single > 0 and folds > 1:
            pooled = (above * between / FACTORS + below * within) / (above + below)
            found *= pooled / single * (1 + (FACTORS - 1) * single / (repeats * alone))
        return found


def intervals(contrasts: Sequence[Contrast], seed: int) -> list[tuple[float, float]]:
    """Of differences to one row, all of which hold their truth together in 95 %."""
    if not contrasts:
        return []
    squares = np.array([contrast.squares for contrast in contrasts])
    weight = posterior(squares[:, 0], squares[:, 1], contrasts[0].freedoms)
    if contrasts[0].number[2] == 1:  # one model predicted all: nothing tells how trainings vary
        weight = np.eye(1, len(FACTORS)).repeat(len(contrasts), 0)
    variance = np.stack([contrast.variances() for contrast in contrasts])
    level = LEVEL
    if len(contrasts) > 1:
        level = level_together(correlation(contrasts, (weight * variance).sum(1)), seed)
    freedom = np.array([contrast.freedom for contrast in contrasts])
    half = half_width(weight, variance, freedom, level)
    center = [contrast.influence.value + contrast.shift for contrast in contrasts]
    return [(float(c - h), float(c + h)) for c, h in zip(center, half, strict=True)]


def correlation(
    contrasts: Sequence[Contrast], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(contrasts, contrasts), of differences to one row.

    What samples do is known of each pair. Of what trainings do, half is the other row's, which is
    in all of the differences; rows that were read off one training share all of it.
    """
    _, groups, _ = contrasts[0].number
    mean = np.stack([contrast.influence.by_group.mean(0) for contrast in contrasts])
    shared = (mean @ mean.T).astype(np.float64) * groups / max(groups - 1, 1)
    training = np.maximum(variance - shared.diagonal() - [c.added for c in contrasts], 0)
    # of two groups, which differ in one way, all would correlate by 1, whatever the rows are
    np.multiply(
        shared, max(groups - 2, 0) / groups, out=shared, where=~np.eye(len(mean), dtype=bool)
    )
    names = np.array([contrast.training for contrast in contrasts])
    same = np.where(names[:, None] == names, 1.0, 0.5)
    shared += same * np.sqrt(training[:, None] * training)
    scale = np.sqrt(np.maximum(variance, 1e-300))
    found: NDArray[np.float64] = np.clip(shared / scale[:, None] / scale, -1, 1)
    np.fill_diagonal(found, 1)
    return found


def level_together(correlation: NDArray[np.float64], seed: int) -> float:
    """The level of each of several intervals, for the level of all of them."""
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn = np.random.default_rng(seed).standard_normal((DRAWS, len(root))) @ root.T
    largest = np.abs(drawn / np.sqrt((root**2).sum(1))).max(1)
    return float(2 * ndtr(-np.quantile(largest, 1 - LEVEL)))
