"""How many training samples there are of each class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from sampleweights._checks import is_index, on_cpu

# 255 counted as a class would give 256 of them without a word
VOID = (
    "; 255 often marks what has no label: pass ignore_index=255 to leave it out, or "
    "num_classes=256 if it is a class"
)


def count_classes(
    targets: Iterable[Any] | Any, num_classes: int | None = None, ignore_index: int = -100
) -> Tensor:
    """Count the class indices in an array, or in an iterable of arrays or of samples.

    The rules are those of :meth:`sampleweights.ClassBalanced.from_targets`.
    """
    counts = torch.zeros(num_classes or 0, dtype=torch.int64)
    for indices in _pieces(targets):
        if indices.numel() == 0:  # an empty list has a floating dtype
            continue
        if not is_index(indices):
            raise ValueError(f"targets must be class indices (integer), got dtype {indices.dtype}")
        indices = indices.reshape(-1).long()
        indices = indices[indices != ignore_index]
        if indices.numel() == 0:
            continue
        low, high = (int(value) for value in indices.aminmax())
        if low < 0 or (num_classes is not None and high >= num_classes):
            limit = "" if num_classes is None else f" to {num_classes - 1}"
            raise ValueError(
                f"targets must hold class indices from 0{limit} or ignore_index ({ignore_index}), "
                f"got {low} to {high}{VOID if high == 255 else ''}"
            )
        total, counts = counts, torch.bincount(indices, minlength=counts.numel())
        counts[: total.numel()] += total
    if not counts.any():
        raise ValueError("targets must hold at least one class index, got none")
    if num_classes is None and counts.numel() == 256:
        raise ValueError(f"targets must hold class indices, got 0 to 255{VOID}")
    return counts


def class_indices(targets: Iterable[Any] | Any) -> Tensor:
    """The class index of every sample, ``(N,)`` int64, read as ``count_classes`` reads targets.

    The order is that of the data set, so a DataLoader must not shuffle.
    """
    if isinstance(targets, DataLoader) and not isinstance(targets.sampler, SequentialSampler):
        raise ValueError(
            f"targets must come in the order of the data set, got a DataLoader with "
            f"{type(targets.sampler).__name__}: pass the data set or its class indices"
        )
    pieces = [piece for piece in _pieces(targets) if piece.numel()]
    for piece in pieces:
        if not is_index(piece):
            raise ValueError(f"targets must be class indices (integer), got dtype {piece.dtype}")
        if piece.ndim > 1:
            raise ValueError(
                f"targets must hold one class index for each sample, got shape {tuple(piece.shape)}"
            )
    if not pieces:
        raise ValueError("targets must hold at least one class index, got none")
    indices = torch.cat([piece.reshape(-1).long() for piece in pieces])
    if (low := int(indices.min())) < 0:
        raise ValueError(
            f"targets must hold class indices from 0, got {low}; leave a sample without a class "
            f"out of the data set"
        )
    return indices


def _pieces(targets: Iterable[Any] | Any) -> Iterator[Tensor]:
    """The class indices, one tensor after the other, so that no two need to be in memory."""
    if isinstance(targets, Mapping):
        raise ValueError(
            f"targets must be class indices, got {type(targets).__name__}: counts go to the "
            f"constructor"
        )
    if hasattr(targets, "__array__"):  # a tensor, a numpy array, a pandas Series
        yield on_cpu("targets", targets)
        return
    try:
        items = iter(targets)
    except TypeError:
        yield on_cpu("targets", targets)
        return
    numbers = []  # one conversion for all of them: one for each takes microseconds
    for item in items:
        target = item if isinstance(item, Number) else _target_of(item)
        if isinstance(target, Number):
            numbers.append(target)
            continue
        if numbers:  # the order is that of the samples
            yield on_cpu("targets", numbers)
            numbers = []
        yield on_cpu("targets", target)
    yield on_cpu("targets", numbers)


def _target_of(item: Any) -> Any:
    """The target in a sample or batch: the last of (inputs, target), or what a dict names so."""
    if isinstance(item, tuple) or (isinstance(item, list) and _ends_in_array(item)):
        item = item[-1]
    if isinstance(item, Mapping):
        for name in ("labels", "target"):
            if name in item:
                return item[name]
        raise ValueError(
            f"targets in dicts must have the key 'labels' or 'target', got {list(item)}"
        )
    return item


def _ends_in_array(batch: list[Any]) -> bool:
    """Whether this is the list that a DataLoader makes of tuples, and not a list of numbers."""
    return bool(batch) and hasattr(batch[-1], "__array__") and not isinstance(batch[-1], Number)
