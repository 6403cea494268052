"""Multi-label targets: a table of zeros and ones, a column for each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from sampleweights.compare.inputs.classes import ClassNames, classes

__all__ = ["has_labels", "labels", "read_target", "zeros_and_ones"]


def read_target(
    target: Any, class_names: ClassNames | None = None, *, consecutive: bool = False
) -> tuple[NDArray[np.int64], list[str]]:
    """The class of each sample (N,) and the names (`classes`); of several labels, (N, L).

    Args:
        target: (N,), or with a column of zeros and ones for each label (N, L).
        class_names: as `classes` takes them, or the L names of the labels.
        consecutive: as of `classes`.
    """
    if has_labels(target):
        return labels(target, class_names)
    return classes(target, class_names, consecutive=consecutive)


def has_labels(target: Any) -> bool:
    """Whether a target has several columns, or is sparse, as only labels are."""
    shape = getattr(target, "shape", None)
    if shape is None:
        try:
            shape = np.shape(target)
        except ValueError:  # parts of several lengths
            return False
    return len(shape) == 2 and (shape[1] > 1 or is_sparse(target))


def is_sparse(target: Any) -> bool:
    return hasattr(target, "toarray") and hasattr(target, "nnz")


def labels(
    target: Any, class_names: ClassNames | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Zeros and ones (N, L), and L names.

    Args:
        target: (N, L): booleans, or numbers that are 0 or 1, in a list, an array, a sparse matrix
            (as ``MultiLabelBinarizer(sparse_output=True)`` gives it), a tensor, or a data frame,
            whose columns are the names.
        class_names: L names; or a mapping from the name, or from the position, of a column to
            another name.

    Raises:
        ValueError: other values than 0 and 1; a label that no sample or each sample has; one-hot
            classes; names that are too few, too many or not distinct.
    """
    values, names = zeros_and_ones(target, class_names)
    for name, positives in zip(names, values.sum(0), strict=True):
        if positives in (0, len(values)):
            raise ValueError(
                f"target must have samples with and without each label, got "
                f"{'none' if positives == 0 else 'all of them'} with {name!r}: leave its column out"
            )
    if (values.sum(1) == 1).all():
        raise ValueError(
            "target must have labels of which a sample may have none or several, got exactly one "
            "for each sample: these are classes, so pass target.argmax(1)"
        )
    return values, names


def zeros_and_ones(
    target: Any, class_names: ClassNames | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """As `labels`, whatever the columns hold: no label, every label or one-hot classes."""
    columns = [*target.columns] if hasattr(target, "columns") else None
    if is_sparse(target):
        target = target.toarray()
    if isinstance(target, Tensor):
        target = target.detach().cpu()
        target = target.float() if target.is_floating_point() else target  # as no bfloat16
    array = np.asarray(target)
    if array.ndim != 2 or not len(array) or array.shape[1] < 2:
        raise ValueError(
            f"target must have shape (N, L) with a column for each of at least 2 labels, got "
            f"shape {array.shape}"
        )
    names = _names(columns, class_names, array.shape[1])
    return _as_numbers(array, names), names


def _as_numbers(array: NDArray[Any], names: list[str]) -> NDArray[np.int64]:
    try:
        values = array.astype(np.float64)
        wrong = ~((values == 0) | (values == 1))
    except (TypeError, ValueError):  # text
        values, wrong = np.zeros(array.shape), ~np.isin(array, [0, 1])
    if array.dtype.kind in "US":  # in which numpy reads numbers
        wrong[:] = True
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = array[row, column]
        found = found.item() if isinstance(found, np.generic) else found
        unknown = pd.isna(found) or str(found) == "-1"
        hint = ": labels that are unknown are not supported" if unknown else ""
        raise ValueError(
            f"target must be classes of shape (N,), or 0 and 1 of shape (N, L) for labels that a "
            f"sample may have together, got {found!r} for sample {row} (counted from 0), label "
            f"{names[column]!r}{hint}"
        )
    return values.astype(np.int64)


def _names(columns: list[Any] | None, class_names: ClassNames | None, number: int) -> list[str]:
    if class_names is None:
        class_names = columns
    elif isinstance(class_names, Mapping) and columns and all(c in class_names for c in columns):
        class_names = [class_names[column] for column in columns]
    return classes(np.arange(number), class_names)[1]  # as if they were labels from 0 on
