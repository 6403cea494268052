"""Intervals of numbers, from the spread of the samples' (or groups') influences on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sampleweights.compare.statistics.metrics import RANKED

LEVEL = 0.05
"""What an interval may miss: 95 % intervals."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, in percent or percentage points.

    The ends are NaN where no honest interval exists.
    """

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def __str__(self) -> str:
        return self._text("")

    @property
    def signed(self) -> str:
        """With a sign before each number, as differences are written."""
        return self._text("+")

    @property
    def bounded(self) -> Estimate:
        """Its interval cut to what a metric can be, 0 to 100; a difference can be negative."""
        if not self.shown:
            return self
        return replace(self, low=max(self.low, 0.0), high=min(self.high, 100.0))

    def _text(self, sign: str) -> str:
        # adding 0 makes -0.0 a 0.0
        value, low, high = (
            format(round(number, 1) + 0.0, f"{sign}.1f")
            for number in (self.value, self.low, self.high)
        )
        return f"{value} ({low} to {high})" if self.shown else value


def quantile(freedom: float) -> float:
    """Of Student's t, for a 95 % interval."""
    return float(-stdtrit(min(freedom, 1e6), LEVEL / 2)) if freedom > 0 else float("nan")


def wilson(share: float, size: float, z: float) -> tuple[float, float]:
    """The interval of a share of ``size`` independent samples.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    center = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return float(max(center - half, 0.0)), float(min(center + half, 1.0))


def of_f1(f1: float, size: float, z: float) -> tuple[float, float]:
    """As the share that true positives are of the samples which are in the class or said to be."""
    low, high = wilson(f1 / (2 - f1), size, z)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def of_area(share: float, variance: float, z: float) -> tuple[float, float]:
    """Symmetric in the logits."""
    logit, half = np.log(share / (1 - share)), z * np.sqrt(variance) / (share * (1 - share))
    return float(1 / (1 + np.exp(half - logit))), float(1 / (1 + np.exp(-half - logit)))


def of_part(
    family: str, value: float, variance: float, units: int, alone: bool
) -> tuple[float, float]:
    """The interval of one part of a metric.

    Args:
        family: the metric's kind.
        value: of the part.
        variance: of the part.
        units: how many samples or groups it depends on: the number of independent samples where
            all or none of them are right, and nothing is seen of the variance.
        alone: whether they are samples.
    """
    certain = alone and family not in RANKED  # a share has no other variance
    z = quantile(np.inf if certain else units - 1)
    variance *= 1 if certain else units / max(units - 1, 1)
    if not 0 < value < 1 or not variance > 0:
        return wilson(min(max(value, 0.0), 1.0), units, z)
    if family in RANKED:
        return of_area(value, variance, z)
    if family in ("macro_f1", "micro_f1"):
        share = value / (2 - value)
        return of_f1(value, 4 * share * (1 - share) / ((1 + share) ** 4 * variance), z)
    return wilson(value, value * (1 - value) / variance, z)


def of_mean(
    values: Sequence[float], ends: Sequence[tuple[float, float]], correlation: NDArray[np.float64]
) -> tuple[float, float]:
    """The interval of a mean of numbers, from an interval of each and how they correlate.

    Zou and Donner, Construction of confidence limits about effect measures: a general approach,
    Statistics in Medicine 2008: distances to the ends are squared and added like deviations.
    """
    below = np.array([value - low for value, (low, _) in zip(values, ends, strict=True)])
    above = np.array([high - value for value, (_, high) in zip(values, ends, strict=True)])
    center, number = float(np.mean(values)), len(values)
    return (
        center - float(np.sqrt(max(below @ correlation @ below, 0))) / number,
        center + float(np.sqrt(max(above @ correlation @ above, 0))) / number,
    )
