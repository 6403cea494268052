"""How much more than the samples the trainings make a difference vary.

Each fold has models of its own. If only the samples mattered, sums over folds would vary as much as
sums over as many samples drawn at random; by what factor they vary more is a variance ratio with
few degrees of freedom: 4 for five folds. So the factor is not estimated but averaged over: what is
known before (an atom at 1, and no preference for any scale above it), what all pairs of rows have
shown together, and what this pair shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from sampleweights.compare.statistics.estimates import LEVEL

FACTORS = np.exp(np.linspace(0, np.log(1e4), 41))
"""(U,), by which trainings may multiply a variance."""
PRIOR = np.append(0.25, np.full(len(FACTORS) - 1, 0.75 / (len(FACTORS) - 1)))
"""(U,), the atom is as large as it can be with intervals that hold 93 % for any factor."""
STRENGTH = 20
"""The prior counts like that many rows: few data sets have enough for more trust in the others."""


def likelihood(
    between: NDArray[np.float64], within: NDArray[np.float64], freedom: tuple[float, float]
) -> NDArray[np.float64]:
    """Of the factors (pairs, U), up to a constant.

    Args:
        between: (pairs,), mean squares between folds.
        within: (pairs,), mean squares within folds.
        freedom: their degrees of freedom.
    """
    above, below = freedom
    found = np.ones((len(between), len(FACTORS)))  # where nothing varies, nothing is learned
    known = (below > 0) & (within > 0)
    share = above * between[known] / (below * within[known])
    log = below / 2 * np.log(FACTORS) - (above + below) / 2 * np.log(FACTORS + share[:, None])
    found[known] = np.exp(log - log.max(1, keepdims=True))
    return found


def learned(likelihoods: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """The prior (U,) after pairs (pairs, U) of a number of rows: empirical Bayes by EM."""
    prior = PRIOR
    for _ in range(5 if len(likelihoods) > 1 else 0):
        share = posterior(likelihoods, prior).mean(0)
        prior = (STRENGTH * PRIOR + (rows - 1) * share) / (STRENGTH + rows - 1)
    return prior


def posterior(likelihoods: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """(pairs, U)"""
    weight = likelihoods * prior
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
