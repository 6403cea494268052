"""How much more than the samples the trainings make a difference vary.

Each fold has models of its own. If only the samples mattered, sums over folds would vary as much as
sums over as many samples drawn at random; by what factor they vary more is a ratio of variances
with few degrees of freedom: 4 for five folds. So it is not estimated but averaged over. Each pair
of rows has its own factor: a factor common to all rows would be too small for those whose trainings
vary more than the others', whose intervals would then hold the truth in 64 to 88 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from sampleweights.compare.statistics.estimates import LEVEL

FACTORS = np.exp(np.linspace(0, np.log(1e4), 41))
"""(U,), by which trainings may multiply a variance."""
PRIOR = np.append(0.25, np.full(len(FACTORS) - 1, 0.75 / (len(FACTORS) - 1)))
"""(U,), of the factors: all scales alike, but for an atom at 1, which shrinks what few folds show.

It is as large as it can be with five folds and intervals that hold 93 % at any factor; they hold
98 % where trainings do not vary at all.
"""


def posterior(
    between: NDArray[np.float64], within: NDArray[np.float64], freedom: tuple[float, float]
) -> NDArray[np.float64]:
    """The probabilities (pairs, U) of the factors.

    Args:
        between: (pairs,), mean squares between folds.
        within: (pairs,), mean squares within folds.
        freedom: their degrees of freedom.
    """
    above, below = freedom
    weight = np.tile(PRIOR, (len(between), 1))  # where nothing varies, nothing is learned
    known = (below > 0) & (within > 0)
    share = above * between[known] / (below * within[known])
    log = below / 2 * np.log(FACTORS) - (above + below) / 2 * np.log(FACTORS + share[:, None])
    weight[known] *= np.exp(log - log.max(1, keepdims=True))
    found: NDArray[np.float64] = weight / weight.sum(1, keepdims=True)
    return found


def half_width(
    weight: NDArray[np.float64], variance: NDArray[np.float64], freedom: NDArray[np.float64],
    level: float = LEVEL,
) -> NDArray[np.float64]:  # fmt: skip
    """What a number whose variance is one of several misses its truth by at most, (pairs,).

    Args:
        weight: (pairs, U), the probability of each variance.
        variance: (pairs, U).
        freedom: (pairs,), degrees of freedom with which the variance is known.
        level: how often it may be missed by more.
    """
    freedom = np.minimum(freedom, 1e6)[:, None]
    scale = np.sqrt(np.maximum(variance, 1e-300))
    single = -stdtrit(freedom, level / 2)
    low, high = scale.min(1, keepdims=True), scale.max(1, keepdims=True)
    width = single * low * (high / low) ** np.linspace(0, 1, 80)
    missed = 2 * stdtr(freedom[..., None], -width[..., None] / scale[:, None])
    log = np.log(np.maximum((missed * weight[:, None]).sum(-1), 1e-300))
    rows = [
        np.exp(np.interp(-np.log(level), -of_pair, np.log(w)))
        for of_pair, w in zip(log, width, strict=True)
    ]
    return np.array(rows)
