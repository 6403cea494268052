"""Class counts and class frequencies, as whoever has them has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import on_cpu
from sampleweights._eager import is_readable, plain


def in_class_order(counts: Any, name: str = "class_counts") -> list[Any]:
    """The counts of a mapping or a pandas Series, whose keys are the classes."""
    by_class: dict[int, Any] = {}
    for key, count in counts.items():
        try:
            index = int(key)
            if index != key or index < 0:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{name} with keys must have class indices (from 0) as keys, got {key!r}; without "
                f"keys, pass a list of the values in the order of the classes"
            ) from None
        if index in by_class:
            raise ValueError(f"{name} must have each class once, got {index} twice")
        by_class[index] = count
    return [by_class.get(index, 0) for index in range(max(by_class, default=-1) + 1)]


def _keyed(class_counts: Any) -> Any:
    """The counts by their classes, of a table that has a column for either."""
    columns = getattr(class_counts, "columns", None)
    if columns is None:
        if type(class_counts).__module__.startswith("polars") and class_counts.name in COUNTS:
            raise ValueError(
                f"class_counts must come with their classes, got the column "
                f"{class_counts.name!r} of a table, whose rows polars does not order: pass the "
                f"table, such as Series.value_counts()"
            )
        return class_counts
    names = list(columns)
    counted = [name for name in names if isinstance(name, str) and name in COUNTS]
    if len(names) != 2 or len(counted) != 1:
        return class_counts
    [count] = counted
    names.remove(count)
    classes = list(class_counts[names[0]])
    if len(set(classes)) < len(classes):
        first = next(c for c in classes if classes.count(c) > 1)
        raise ValueError(f"class_counts must have each class once, got {first} twice")
    return dict(zip(classes, class_counts[count], strict=True))


COUNTS = ("count", "len", "size")
"""What polars and pandas call the number of rows of a group."""


def as_class_counts(
    class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any, labels: bool = False
) -> Tensor:
    """A copy of class counts as int64 on the CPU, or a ValueError that says what is wrong.

    ``(C,)``; with ``labels`` also ``(L, 2)``, the negatives and positives of each of L labels.
    """
    if isinstance(table := _keyed(class_counts), Mapping) or callable(
        getattr(class_counts, "items", None)
    ):
        class_counts, labels = in_class_order(table), False
    counts = on_cpu("class_counts", class_counts)
    fits = counts.ndim == 1 or (labels and counts.ndim == 2 and counts.shape[1] == 2)
    if not fits or counts.numel() == 0:
        of_labels = "; or (L, 2), the negatives and positives of each label" if labels else ""
        raise ValueError(f"class_counts must have shape (C,), got {tuple(counts.shape)}{of_labels}")
    if counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(f"class_counts must be whole numbers, got dtype {counts.dtype}")
    counts = counts.double() if counts.is_floating_point() else counts.long()
    bad = (counts < 0) | ~counts.isfinite() | (counts != counts.floor()) | (counts >= 2**53)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        place = f"class {first[-1]}" + (f" of label {first[0]}" if counts.ndim == 2 else "")
        raise ValueError(
            f"class_counts must be whole numbers from 0 to 2**53, got {counts[first].item()} for "
            f"{place}"
        )
    if not counts.any():
        raise ValueError("class_counts must hold at least one sample, got only zeros")
    if not counts.any(-1).all():
        raise ValueError(
            f"class_counts must hold at least one sample of each label, got none of label "
            f"{int((~counts.any(-1)).nonzero()[0])}"
        )
    with torch.inference_mode(False):  # a buffer made of it may be written to later
        return counts.long().clone()  # not the caller's memory, which may change


def as_prior(prior: Any, shape: torch.Size) -> Tensor:
    """Class frequencies in float64 in the shape of the counts; read only where it costs nothing."""
    if isinstance(prior, Tensor):
        found = plain(prior.detach())
    else:
        if callable(getattr(prior, "items", None)):  # a mapping, or value_counts(normalize=True)
            by_class = in_class_order(prior, "prior")
            prior = by_class + [0.0] * (shape[-1] - len(by_class) if len(shape) == 1 else 0)
        found = on_cpu("prior", prior)
    if found.shape != shape:
        raise ValueError(
            f"prior must have one frequency for each class, shape {tuple(shape)}, got shape "
            f"{tuple(found.shape)}"
        )
    if found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"prior must hold frequencies, got dtype {found.dtype}")
    if is_readable(found):
        found = found.double()
        if not (found >= 0).all() or not ((found.sum(-1) - 1).abs() < 1e-4).all():
            raise ValueError(
                f"prior must hold frequencies of at least 0 that sum to 1, got {found.tolist()}"
            )
    return found
