"""Features, targets, groups and names, checked before the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampleweights.compare.inputs.arrays import in_order, not_finite


@dataclass(frozen=True)
class Inputs:
    """Features (N, D), target (N,) from 0 to C - 1, C class names, groups (N,) or None."""

    features: NDArray[np.float32]
    target: NDArray[np.int64]
    class_names: list[str]
    groups: NDArray[np.int64] | None = None


def check(
    features: ArrayLike,
    target: ArrayLike,
    groups: ArrayLike | None = None,
    class_names: ArrayLike | None = None,
    columns: Sequence[str] | None = None,
) -> Inputs:
    """The arrays as `compare` takes them, or a ValueError that says what is wrong.

    Args:
        features: (N, D), numbers; an array of float32 is not copied.
        target: (N,), integers or strings.
        groups: (N,), integers or strings.
        class_names: for integer targets one name for each label, in their order; for strings the
            same strings in the order that is wanted.
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
    labels, numbers = _categories("target", target, len(features))
    if len(labels) < 2:
        raise ValueError(f"target must hold at least two classes, all samples are {labels[0]!r}")
    names = [str(label) for label in labels]
    if class_names is not None:
        wanted = [str(name) for name in np.asarray(class_names).ravel()]
        names, numbers = _rename(names, numbers, wanted, is_text=isinstance(labels[0], str))
    if groups is not None:
        groups = _categories("groups", groups, len(features))[1]
    return Inputs(features, numbers, names, groups)


def _check_finite(features: NDArray[Any], columns: Sequence[str] | None) -> None:
    count, row, column = not_finite(features)
    if count:
        where = f"column {column if columns is None else repr(columns[column])}"
        raise ValueError(
            f"{count} of the features {'is' if count == 1 else 'are'} NaN or infinite, the first "
            f"in row {row} (counted from 0), {where}"
        )


def _categories(name: str, values: ArrayLike, size: int) -> tuple[list[Any], NDArray[np.int64]]:
    """The sorted distinct values, as Python has them, and the position of each value among them."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one value for each sample, got shape {array.shape}")
    if len(array) != size:
        raise ValueError(f"features has {size} rows but {name} has {len(array)}")
    if array.dtype.kind == "f":  # a table with an empty cell, or numbers that were stored so
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array)))
            raise ValueError(f"{name} is missing in row {row} (counted from 0)")
        if (array != np.round(array)).any():
            row = int(np.argmax(array != np.round(array)))
            raise ValueError(f"{name} must be integers or strings, got {array[row]} in row {row}")
        array = array.astype(np.int64)
    elif array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "iubU":
        raise ValueError(f"{name} must be integers or strings, got dtype {array.dtype}")
    distinct, position = np.unique(array, return_inverse=True)
    return distinct.tolist(), position.astype(np.int64)


def _rename(
    names: list[str], numbers: NDArray[np.int64], wanted: list[str], *, is_text: bool
) -> tuple[list[str], NDArray[np.int64]]:
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"class_names must differ from each other, got {', '.join(wanted)}")
    if is_text:
        if set(wanted) != set(names):
            raise ValueError(
                f"class_names must be the classes of target ({', '.join(names)}) in the order that "
                f"is wanted, got {', '.join(wanted)}"
            )
        return wanted, in_order(numbers, names, wanted)
    if len(wanted) != len(names):
        raise ValueError(
            f"class_names must have one name for each of the {len(names)} classes of target "
            f"({', '.join(names)}), got {len(wanted)}"
        )
    return wanted, numbers
