"""Features, targets, groups and names, checked before the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampleweights.compare.inputs.arrays import not_finite
from sampleweights.compare.inputs.classes import ClassNames, categories, classes
from sampleweights.compare.inputs.multilabel import has_labels, labels, zeros_and_ones


@dataclass(frozen=True)
class Inputs:
    """Features (N, D), target, names, groups (N,) and folds (N,) or None.

    The target (N,) is from 0 to C - 1 of the C class names; or (N, L), 1 for each of the L names
    that a sample has and 0 for the others.
    """

    features: NDArray[np.float32]
    target: NDArray[np.int64]
    class_names: list[str]
    groups: NDArray[np.int64] | None = None
    folds: NDArray[np.int64] | None = None
    """The fold in which each sample is validated; -1 of those that are only trained on."""
    facts: dict[str, str] = field(default_factory=dict)
    """What the page says of how these were read, under a short name."""


def check(
    features: ArrayLike,
    target: Any,
    groups: Any = None,
    class_names: ClassNames | None = None,
    columns: Sequence[str] | None = None,
    folds: Any = None,
    facts: Mapping[str, str] | None = None,
) -> Inputs:
    """The arrays as `compare` takes them, or a ValueError that says what is wrong.

    Args:
        features: (N, D), numbers; an array of float32 is not copied.
        target: (N,), labels (`classes`); or (N, L) of 0 and 1, labels that a sample may have
            together. Where every sample has exactly one of them, they are its classes.
        groups: (N,), as labels.
        class_names: as `classes` takes them; of labels (N, L), L names.
        columns: D names, for messages.
        folds: (N,), the fold in which each sample is validated, as labels; -1: in none.
        facts: what is said of how these were read.
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
    facts = dict(facts or {})
    if getattr(target, "ndim", 1) == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if has_labels(target):
        index, names = zeros_and_ones(target, class_names)
        if (index.sum(axis=1) == 1).all():
            index, names = classes(index.argmax(axis=1), dict(enumerate(names)))
            facts["target"] = f"one of {len(names)} classes in each row, in columns of 0 and 1"
        else:
            index, names = labels(target, class_names)
    else:
        index, names = classes(target, class_names)
    group = None if groups is None else categories("groups", groups)[0]
    fold = None if folds is None else _folds(folds)
    for name, values in (("target", index), ("groups", group), ("folds", fold)):
        if values is not None and len(values) != len(features):
            raise ValueError(f"features has {len(features)} rows but {name} has {len(values)}")
    return Inputs(features, index, names, group, fold, facts)


def _folds(labels: Any) -> NDArray[np.int64]:
    fold, found = categories("folds", labels)
    if len(found) < 2:
        raise ValueError("folds must have at least two values, all samples are in the same fold")
    trained_on = [label in (-1, "-1") for label in found]
    number = np.where(trained_on, -1, np.cumsum(np.logical_not(trained_on)) - 1)
    return number[fold]


def _check_finite(features: NDArray[Any], columns: Sequence[str] | None) -> None:
    count, row, column = not_finite(features)
    if count:
        where = f"column {column if columns is None else repr(columns[column])}"
        raise ValueError(
            f"{count} of the features {'is' if count == 1 else 'are'} NaN or infinite, the first "
            f"in row {row} (counted from 0), {where}: correct {'it' if count == 1 else 'them'}, or "
            f"leave such rows or columns out"
        )
