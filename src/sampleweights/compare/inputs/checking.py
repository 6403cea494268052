"""Features, targets, groups and names, checked before the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampleweights.compare.inputs.arrays import not_finite
from sampleweights.compare.inputs.classes import ClassNames, categories, classes


@dataclass(frozen=True)
class Inputs:
    """Features (N, D), target (N,) from 0 to C - 1, C class names, groups and folds (N,)."""

    features: NDArray[np.float32]
    target: NDArray[np.int64]
    class_names: list[str]
    groups: NDArray[np.int64] | None = None
    folds: NDArray[np.int64] | None = None
    """The fold in which each sample is validated."""
    facts: dict[str, str] = field(default_factory=dict)
    """What the page says of how these were read, under a short name."""


def check(
    features: ArrayLike,
    target: Any,
    groups: Any = None,
    class_names: ClassNames | None = None,
    columns: Sequence[str] | None = None,
) -> Inputs:
    """The arrays as `compare` takes them, or a ValueError that says what is wrong.

    Args:
        features: (N, D), numbers; an array of float32 is not copied.
        target: (N,), labels (`classes`).
        groups: (N,), as labels.
        class_names: as `classes` takes them.
        columns: D names, for messages.
    """
    features = np.asanyarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must have shape (samples, features), got {features.shape}")
    if features.dtype.kind not in "fiub":
        raise ValueError(f"features must be numbers, got dtype {features.dtype}")
    if features.dtype != np.float32:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            features = features.astype(np.float32)
    _check_finite(features, columns)
    index, names = classes(target, class_names)
    group = None if groups is None else categories("groups", groups)[0]
    for name, values in (("target", index), ("groups", group)):
        if values is not None and len(values) != len(features):
            raise ValueError(f"features has {len(features)} rows but {name} has {len(values)}")
    return Inputs(features, index, names, group)


def _check_finite(features: NDArray[Any], columns: Sequence[str] | None) -> None:
    count, row, column = not_finite(features)
    if count:
        where = f"column {column if columns is None else repr(columns[column])}"
        raise ValueError(
            f"{count} of the features {'is' if count == 1 else 'are'} NaN or infinite, the first "
            f"in row {row} (counted from 0), {where}"
        )
