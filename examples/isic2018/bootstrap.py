"""A paired bootstrap of accuracy and balanced accuracy over whole lesions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.statistics import Estimate

RESAMPLES = 2000
Name = TypeVar("Name")
"""Of a row: whatever its draws are asked for by."""


def resample(
    target: NDArray[np.int64],
    group: NDArray[np.int64],
    predicted: Mapping[Name, NDArray[np.int64]],
    num_classes: int,
    weight: NDArray[np.float64],
    seed: int,
) -> dict[Name, dict[str, NDArray[np.float64]]]:
    """Of each row what its metrics become when groups are drawn, (RESAMPLES,), in percent.

    The same groups are drawn for every row: differences of draws are paired. A class that is not
    among the drawn ones is left out of the balanced accuracy.

    Args:
        target: (N,), classes.
        group: (N,), 0 to G - 1: what is drawn as a whole.
        predicted: by row, (N,), classes.
        num_classes: C.
        weight: (N,), of the samples in the metrics.
        seed: of the draws.
    """
    groups = int(group.max()) + 1
    cell = group * num_classes + target

    def of_groups(amount: NDArray[np.float64]) -> NDArray[np.float64]:
        summed = np.bincount(cell, amount, groups * num_classes).astype(np.float64)
        return summed.reshape(groups, num_classes).T

    support, right = (
        of_groups(weight),
        {n: of_groups(weight * (p == target)) for n, p in predicted.items()},
    )
    draws: dict[Name, list[NDArray[np.float64]]] = {name: [] for name in predicted}
    generator = np.random.default_rng(seed)
    step = max(1, 2**19 // groups)  # what is drawn stays in the cache
    for first in range(0, RESAMPLES, step):
        times = np.empty((groups, min(step, RESAMPLES - first)))
        for i in range(times.shape[1]):
            times[:, i] = np.bincount(generator.integers(0, groups, groups), minlength=groups)
        drawn = support @ times
        for name, of_row in right.items():
            hits = of_row @ times
            recall = np.where(drawn > 0, hits / np.where(drawn > 0, drawn, 1), np.nan)
            balanced = np.nanmean(recall, axis=0)
            draws[name].append(100 * np.stack([hits.sum(0) / drawn.sum(0), balanced]))
    return {
        name: dict(zip(("accuracy", "balanced_accuracy"), np.concatenate(parts, 1), strict=True))
        for name, parts in draws.items()
    }


def interval(value: float, draws: NDArray[np.floating]) -> Estimate:
    """Percentiles of the draws, which are moved to have the value as their mean."""
    draws = draws[np.isfinite(draws)].astype(np.float64)
    if not np.isfinite(value) or not len(draws):
        return Estimate(float(value), float("nan"), float("nan"))
    bias = draws.mean() - value
    if bias**2 <= 9 * draws.var() / len(draws):  # as much as the number of resamples explains
        bias = 0.0
    low, high = np.percentile(draws - bias, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
