"""Reads class indices out of what people hold: arrays, tables, samples, data sets and loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from sampleweights._checks import is_index, on_cpu
from sampleweights.datasets import without_index
from sampleweights.loaders import each_sample_once

NAMES = ("labels", "label", "target")
"""What the target is called in a dict or a table."""

ROWS = 2**10
"""Rows of a column that are read at once."""


def pieces(targets: Any) -> Iterator[Tensor]:
    """The class indices, one tensor after the other, so that no two need to be in memory."""
    targets = without_index(targets)
    if isinstance(targets, DataLoader):
        targets = each_sample_once(targets)
    elif is_data_set(targets):
        stored = _stored(targets)
        if stored is not None and (type(targets) is TensorDataset or _agree(targets, stored)):
            yield stored
            return
        targets = map(targets.__getitem__, range(len(targets)))
    else:
        targets = _column(targets)
    is_counts = hasattr(targets, "value_counts") and getattr(targets, "name", None) == "count"
    if is_counts:  # a Series of pandas or polars: its counts would be counted as classes
        raise ValueError(
            "targets must be class indices, got a Series named 'count', as of value_counts(): "
            "counts go to the constructor"
        )
    if isinstance(targets, Mapping):
        if not any(name in list(targets.keys()) for name in NAMES):
            raise ValueError(
                f"targets must be class indices, got {type(targets).__name__}: counts go to the "
                f"constructor"
            )
        targets = _target_of(targets)
    if isinstance(targets, Tensor) and targets.is_nested:
        targets = targets.unbind()
    if hasattr(targets, "__array__"):  # a tensor, a numpy array, a pandas Series
        yield _as_labels(targets)
        return
    if _is_flat_column(targets):
        # a column of datasets converts row by row where it is iterated: 100 times as slow
        for low in range(0, len(targets), ROWS):
            yield _as_labels(targets[low : low + ROWS])
        return
    try:
        items = iter(targets)
    except TypeError:
        yield _as_labels(targets)
        return
    numbers: list[Any] = []  # one conversion for all of them: one for each takes microseconds
    for item in items:
        target = item if isinstance(item, Number) else _target_of(item)
        if isinstance(target, Number) or target is None:
            numbers.append(target)
            continue
        if numbers:  # the order is that of the samples
            yield _of_numbers(numbers)
            numbers = []
        yield _as_labels(target)
    yield _of_numbers(numbers)


def refuse_dtype(labels: Tensor) -> None:
    """Raise an error for labels that are neither class indices nor 0 and 1."""
    if labels.is_floating_point() and (missing := int(labels.isnan().sum())):
        raise _missing(missing)
    advice = ""
    if labels.is_floating_point() and (labels == labels.floor()).all():
        advice = "; if they are class indices, convert them, as .long() does"
    raise ValueError(f"targets must be class indices (integer), got dtype {labels.dtype}{advice}")


def _missing(count: int) -> ValueError:
    return ValueError(
        f"targets must have a class for every sample, got {count} missing (None or NaN): leave "
        f"these samples out, or give them ignore_index"
    )


def _as_labels(values: Any) -> Tensor:
    """Labels in any container as a plain tensor, with 0 and 1 for booleans."""
    if isinstance(values, Tensor) and values.layout != torch.strided:
        values = values.to_dense()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise _missing(int(np.ma.getmaskarray(values).sum()))
    try:
        labels = on_cpu("targets", values)
    except ValueError as error:
        if missing := _count_missing(values):
            raise _missing(missing) from error
        raise
    # of the wider unsigned ones torch finds no maximum
    wide = (torch.bool, torch.uint16, torch.uint32, torch.uint64)
    return labels.long() if labels.dtype in wide else labels


def _count_missing(values: Any) -> int:
    try:
        each = np.array(values, dtype=object)
    except (TypeError, ValueError):  # a ragged list
        return 0
    return sum(v is None or _is_nan(v) for v in each.ravel() if each.ndim)


def _is_nan(value: Any) -> bool:
    is_float_nan = isinstance(value, float) and value != value
    return is_float_nan or type(value).__name__ == "NAType"  # of pandas


def _of_numbers(numbers: list[Any]) -> Tensor:
    kinds = {isinstance(number, bool) for number in numbers}
    if len(kinds) == 2:
        raise ValueError(
            "targets must be class indices or booleans, got both: as class indices, True and 1 "
            "would be the same class"
        )
    labels = _as_labels(numbers)
    if numbers and not is_index(labels):
        refuse_dtype(labels)
    return labels


def _target_of(item: Any) -> Any:
    """The target in a sample or batch."""
    if callable(convert := getattr(item, "to_tensordict", None)):  # a tensorclass
        item = convert()
    if isinstance(item, tuple) or (isinstance(item, list) and _is_batch(item)):
        item = _target_of_tuple(item)
        if callable(convert := getattr(item, "to_tensordict", None)):
            item = convert()
    if isinstance(item, Mapping):
        return item[_one_name(list(item.keys()), "dicts")]
    return item


def _is_batch(items: list[Any]) -> bool:
    """Whether this is the list that a DataLoader makes of tuples, and not a list of numbers."""
    return any(hasattr(item, "__array__") and not isinstance(item, Number) for item in items)


def _target_of_tuple(items: Sequence[Any]) -> Any:
    """The second of (input, target); of more, the only one that can be the target."""
    if len(items) <= 2:
        return items[-1] if items else None
    candidates = [item for item in items[1:] if _can_be_target(item)]
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError(
        f"targets in tuples of {len(items)} must be the only numbers behind the first element, "
        f"got ({', '.join(type(item).__name__ for item in items)}), where an index may follow the "
        f"target: select the target yourself, as in (data[i][1] for i in range(len(data)))"
    )


def _can_be_target(item: Any) -> bool:
    if isinstance(item, Mapping):
        return any(name in list(item.keys()) for name in NAMES)
    if isinstance(item, (list, tuple)):  # of strings: the paths of a batch
        return not all(isinstance(value, (str, bytes, type(None))) for value in item)
    return isinstance(item, Number) or hasattr(item, "__array__")


def _one_name(names: list[Any], where: str) -> Any:
    found = [name for name in NAMES if name in names]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"targets in {where} must have one key of {list(NAMES)}, got {found}: select one "
            f"yourself, as in (sample[{found[0]!r}] for sample in data)"
        )
    raise ValueError(
        f"targets in {where} must have the key 'label', 'labels' or 'target', got {names}"
    )


def _is_flat_column(targets: Any) -> bool:
    """Whether this is a column of datasets, not of a stream, with a number in each row."""
    if not hasattr(targets, "column_name") or not hasattr(targets, "__len__"):
        return False
    return len(targets) > 0 and np.ndim(targets[0]) == 0


def _column(table: Any) -> Any:
    """The column of a table that holds the labels, where one is called so."""
    names = getattr(table, "column_names", None)  # of datasets and pyarrow
    if names is None:
        names = getattr(table, "columns", None)  # of pandas and polars
    if names is None or isinstance(names, Mapping) or len(names) < 2:
        return table
    names = list(names)
    if any(name in names for name in NAMES):
        return table[_one_name(names, "tables")]
    if any(isinstance(name, str) for name in names) and not _is_zeros_and_ones(table):
        raise ValueError(  # counting the values of all columns would be an answer, to nothing
            f"targets in a table must be its column 'label', 'labels' or 'target', got {names}: "
            f"pass the column; class counts, as of value_counts(), go to the constructor"
        )
    return table


def _is_zeros_and_ones(table: Any) -> bool:
    """Whether a table has a column for each label, as multi-label targets and one-hot ones have."""
    try:
        values = np.asarray(table)
        return bool(((values == 0) | (values == 1) | (values != values)).all())
    except (TypeError, ValueError):
        return False


# ---------------------------------------------------------------------------------------------
# Data sets
# ---------------------------------------------------------------------------------------------


def is_data_set(targets: Any) -> bool:
    """Whether the samples are ``targets[0]`` to ``targets[len(targets) - 1]``, as for a loader."""
    if isinstance(targets, IterableDataset) or not hasattr(targets, "__getitem__"):
        return False
    if not isinstance(targets, Dataset) and (
        hasattr(targets, "__iter__") or hasattr(targets, "column_names")  # a table of pyarrow
    ):
        return False
    return hasattr(targets, "__len__")


def _stored(data: Any) -> Tensor | None:
    """The labels that a data set keeps beside its samples, as those of torchvision do."""
    if type(data) is TensorDataset:
        return _as_labels(data.tensors[-1]) if len(data.tensors) <= 2 else None
    if type(data) is Subset:
        inner = _stored(data.dataset)
        return None if inner is None else inner[torch.as_tensor(data.indices, dtype=torch.int64)]
    if type(data) is ConcatDataset:
        parts = [_stored(part) for part in data.datasets]
        known = [part for part in parts if part is not None and part.ndim == 1]
        return torch.cat(known) if len(known) == len(parts) else None
    for name in ("targets", "labels"):
        value = getattr(data, name, None)
        if value is None or callable(value):
            continue
        try:
            labels = _as_labels(value)
        except ValueError:  # file names
            continue
        if labels.ndim == 1 and is_index(labels) and len(labels) == len(data):
            return labels
    return None


def _agree(data: Any, stored: Tensor) -> bool:
    """Whether the first and the last sample of each class have the stored label.

    Not so where a ``target_transform`` or a class of one's own gives other labels. Where that takes
    about as many samples as there are, nothing is gained.
    """
    if stored.ndim != 1 or not is_index(stored):
        return False
    labels = stored.numpy()
    _, first = np.unique(labels, return_index=True)
    _, last = np.unique(labels[::-1], return_index=True)
    positions = {*first.tolist(), *(len(labels) - 1 - last).tolist()}
    if 4 * len(positions) > len(labels):
        return False
    for position in positions:
        target = _target_of(data[position])
        if np.ndim(target) != 0 or target != labels[position]:
            return False
    return True
