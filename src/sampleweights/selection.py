"""Selects exactly m of M samples by their loss.

There are two implementations with the same result. On the host, where reading a value is free, a
loop selects from a small batch, and numpy finds the threshold of a larger one. Everywhere else
(CUDA, compiled code, ``torch.func``) it is one stable sort of integers, which never synchronises.
Compiled code does not depend on the value of m, so a changing schedule recompiles nothing.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sampleweights._buffers import as_tensor
from sampleweights._eager import is_readable, is_tracing

__all__ = ["kept_count", "select"]

LOOP_AT_MOST = 64
"""A loop over so few samples takes less time than the calls that would avoid it."""

_SORT_AT_MOST = 2**10
"""So few samples of several groups are sorted in less time than they are counted."""

_COUNT_FROM = 64
"""Groups of fewer samples, on average, are sorted: there would be more counts than samples."""

_SAMPLE_FROM, _SAMPLE = 2**15, 2**12
"""From this size on a threshold is first enclosed, with a sample of this size."""


def kept_count(fraction: Tensor, num_valid: Tensor | int) -> Tensor:
    r"""Return how many of ``num_valid`` samples a fraction keeps.

    .. math:: m = \max(1, \lfloor f M + 1/2 \rfloor), \quad m = 0 \ \text{where}\ M = 0

    Shape:
        - fraction: scalar, in (0, 1]; float64 if the device supports it.
        - num_valid: int, or int64 of any shape.
        - Output: the shape of ``num_valid``, int64.

    Example:
        >>> import torch
        >>> from sampleweights.selection import kept_count
        >>> kept_count(torch.tensor(0.5, dtype=torch.float64), torch.tensor([0, 1, 4, 5]))
        tensor([0, 1, 2, 3])
    """
    count = (fraction * num_valid + 0.5).floor().clamp(min=1).long()
    # m <= M holds by itself, but for M = 0
    if isinstance(num_valid, Tensor):
        return torch.minimum(count, num_valid)
    return count.clamp(max=num_valid)


def select(
    loss: Tensor,
    fraction: Tensor | float,
    *,
    largest: bool,
    valid: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    r"""Mark the samples with the highest (or lowest) loss.

    Marks exactly :math:`m = \lfloor f M + 1/2 \rfloor` of the :math:`M` valid samples, at least
    one; with ``group``, of each group. Ties are broken by index. NaN losses are selected before
    all others, in both directions, so that divergence is never hidden.

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - fraction: scalar, in (0, 1].
        - valid: the shape of ``loss``, bool; invalid samples are never marked and not counted.
        - group: the shape of ``loss``, integer, from :math:`-2^{30}` to :math:`2^{30}`.
        - Output: the shape of ``loss``, bool. No gradient.

    Example:
        >>> import torch
        >>> from sampleweights.selection import select
        >>> loss = torch.tensor([0.3, 2.0, 0.1, 2.0])
        >>> select(loss, 0.25, largest=True), select(loss, 0.25, largest=False)
        (tensor([False,  True, False, False]), tensor([False, False,  True, False]))
    """
    if is_tracing():
        raise RuntimeError("torch.jit.trace cannot record a selection: use torch.export instead")
    flat = loss.detach() if loss.ndim == 1 else loss.detach().reshape(-1)
    if flat.dtype.itemsize < 4:
        flat = flat.float()
    valid = None if valid is None else valid.reshape(-1)
    if group is not None:
        group = group.detach().reshape(-1).long()
    if is_readable(flat):  # before any size is looked at, to which compiled code would be bound
        keep = _select_on_host(flat, float(fraction), largest, valid, group)
    else:
        if not isinstance(fraction, Tensor):
            dtype = torch.float32 if flat.is_mps else torch.float64  # which MPS does not have
            fraction = torch.full((), fraction, dtype=dtype, device=flat.device)
        key = ascending_key(flat, largest)
        if group is None:
            keep = _first(key, fraction, valid)
        else:
            keep = _first_of_each_group(key, fraction, valid, group)
    return keep if loss.ndim == 1 else keep.reshape(loss.shape)


# ---------------------------------------------------------------------------------------------
# On the host
# ---------------------------------------------------------------------------------------------


def _select_on_host(
    loss: Tensor, fraction: float, largest: bool, valid: Tensor | None, group: Tensor | None
) -> Tensor:
    if loss.numel() <= LOOP_AT_MOST:
        return as_tensor(mark_few(loss, fraction, largest, valid, group), torch.bool)
    # numpy puts NaN behind everything: the wanted samples are at the end of ``values``
    values = loss.numpy() if largest else -loss.numpy()
    chosen = None
    if valid is not None:
        mask = valid.numpy()
        if not mask.all():
            chosen = np.flatnonzero(mask)
            values = values[chosen]
    if group is None:
        keep = _last(values, fraction)
    else:
        groups = group.numpy()
        keep = _last_of_each_group(values, fraction, groups if chosen is None else groups[chosen])
    if chosen is not None:
        mask = np.zeros(loss.numel(), dtype=bool)
        mask[chosen[keep]] = True
        keep = mask
    return torch.from_numpy(keep)


def _count(fraction: float, num_valid: int) -> int:
    return max(math.floor(fraction * num_valid + 0.5), 1)


def mark_few(
    loss: Tensor, fraction: float, largest: bool, valid: Tensor | None, group: Tensor | None
) -> list[bool]:
    values: list[float] = loss.tolist()
    order: Iterable[int] = range(len(values))
    if valid is not None:
        order = itertools.compress(order, valid.tolist())
    is_nan: list[int] = []
    if math.isnan(sum(values)):  # or an inf and a -inf; NaN comes first
        order = sorted(order, key=lambda i: values[i] == values[i])
        is_nan = [i for i in order if values[i] != values[i]]
        order = order[len(is_nan) :]
    # stable in both directions
    order = is_nan + sorted(order, key=values.__getitem__, reverse=largest)
    flags = [False] * len(values)
    if group is None:
        for i in order[: _count(fraction, len(order))]:
            flags[i] = True
        return flags
    groups = group.tolist()
    size = collections.Counter([groups[i] for i in order])
    left = {g: _count(fraction, n) for g, n in size.items()}
    for i in order:
        if left[groups[i]]:
            left[groups[i]] -= 1
            flags[i] = True
    return flags


def _last(values: np.ndarray, fraction: float) -> np.ndarray:
    """Mark the largest values; ties by position."""
    size = values.size
    m = _count(fraction, size)
    if m >= size:
        return np.ones(size, dtype=bool)
    threshold = _largest(values, m)
    is_nan = threshold != threshold
    keep = np.isnan(values) if is_nan else ~(values < threshold)
    excess = np.count_nonzero(keep) - m
    if excess:
        tied = np.flatnonzero(keep if is_nan else values == threshold)
        keep[tied[-excess:]] = False
    return keep


def _largest(values: np.ndarray, m: int) -> np.floating[Any]:
    """The m-th largest value; NaN is larger than all others.

    Floyd & Rivest, Expected Time Bounds for Selection, CACM 1975: two values of a sample enclose
    the threshold almost surely, and only what lies between them is partitioned.
    """
    size = values.size
    if size >= _SAMPLE_FROM:
        sample = np.sort(values[:: size // _SAMPLE])
        rank, slack = sample.size * (1 - m / size), 3 * math.sqrt(sample.size)
        low = sample[max(int(rank - slack), 0)]
        high = sample[min(int(rank + slack), sample.size - 1)]
        m_between = m - (size - int(np.count_nonzero(values <= high)))  # NaN is above
        between = values[(values >= low) & (values <= high)]
        if 0 < m_between <= between.size and low == low and high == high:
            values, m = between, m_between
    threshold: np.floating[Any] = np.partition(values, values.size - m)[values.size - m]
    return threshold


def _last_of_each_group(values: np.ndarray, fraction: float, group: np.ndarray) -> np.ndarray:
    """Mark the largest values of each group; ties by position."""
    if values.size == 0:
        return np.zeros(0, dtype=bool)
    low, high = int(group.min()), int(group.max())
    if high - low >= values.size:  # numbers far apart
        group = np.unique(group, return_inverse=True)[1]
        low, high = 0, int(group.max())
    elif low:
        group = group - low
    num_groups = high - low + 1
    if _SORT_AT_MOST < values.size < _COUNT_FROM * num_groups:
        kept = torch.tensor(fraction, dtype=torch.float64)
        key = ascending_key(torch.from_numpy(values), largest=True)
        sorted_out: np.ndarray = _first_of_each_group(
            key, kept, None, torch.from_numpy(group)
        ).numpy()
        return sorted_out

    def count(size: np.ndarray) -> np.ndarray:
        m: np.ndarray = np.floor(fraction * size + 0.5).astype(np.int64)
        at_least_one: np.ndarray = np.minimum(np.maximum(m, 1), size)
        return at_least_one

    return _last_bits(_ascending_bits(values), count, group, num_groups)


def _last_bits(
    bits: np.ndarray, count: Callable[[np.ndarray], np.ndarray], group: np.ndarray, groups: int
) -> np.ndarray:
    """Mark the largest ``count(size)`` of each group; ties by position.

    Radix selection: leading bits put values into buckets, which are counted. Of each group what is
    above the bucket with its threshold is kept, and what is in it is looked at again.
    """
    if bits.size <= _SORT_AT_MOST:
        keep: np.ndarray = np.zeros(bits.size, dtype=bool)
        at_edge, of_each = np.arange(bits.size), np.bincount(group, minlength=groups)
        left = count(of_each)
    else:
        span = int(bits.max()) - int(bits.min())
        shift = max(span.bit_length() - min(max((bits.size // groups).bit_length() - 1, 4), 11), 0)
        buckets = (span >> shift) + 1
        offset = np.subtract(bits, bits.min()).view(f"u{bits.itemsize}")
        leading = (offset >> np.uint8(shift)).view(bits.dtype)
        place = group.astype(bits.dtype if groups * buckets < 2**31 else np.int64)
        np.multiply(place, buckets, out=place)
        np.add(place, leading, out=place)
        if bits.size < _SAMPLE_FROM:
            sizes = np.bincount(place, minlength=groups * buckets)
        else:  # torch takes longer to begin, and half of the time for narrow integers
            sizes = torch.from_numpy(place).bincount(minlength=groups * buckets).numpy()
        sizes = sizes.reshape(groups, buckets)
        at_least = sizes[:, ::-1].cumsum(1)[:, ::-1]
        m, each = count(at_least[:, 0]), np.arange(groups)
        edge = np.maximum((at_least >= m[:, None]).sum(1) - 1, 0)
        of_each = sizes[each, edge]
        left = m - (at_least[each, edge] - of_each)
        edge_place = (each * buckets + edge).astype(place.dtype)[group]
        keep = place > edge_place
        at_edge = np.flatnonzero(place == edge_place)
        if shift and at_edge.size > _SORT_AT_MOST:
            rest = (offset[at_edge] & offset.dtype.type((1 << shift) - 1)).view(bits.dtype)
            keep[at_edge] = _last_bits(rest, lambda _: left, group[at_edge], groups)
            return keep
    order = np.lexsort((-1 - bits[at_edge], group[at_edge]))  # stable: ties by position
    start = of_each.cumsum() - of_each
    keep[at_edge[order]] = np.arange(at_edge.size) < np.repeat(start + left, of_each)
    return keep


def _ascending_bits(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the values, NaN last."""
    integer: type[np.signedinteger[Any]] = np.int64 if values.dtype == np.float64 else np.int32
    bits: np.ndarray = (values + 0.0).view(integer)  # no -0.0
    if not values.min() >= 0:
        limits = np.iinfo(integer)
        bits = bits ^ ((bits >> (limits.bits - 1)) & limits.max)
        bits[np.isnan(values)] = limits.max
    return bits


# ---------------------------------------------------------------------------------------------
# Everywhere else
# ---------------------------------------------------------------------------------------------


def ascending_key(loss: Tensor, largest: bool) -> Tensor:
    """Integers of the width of ``loss``, in which the wanted samples come first."""
    dtype = torch.int64 if loss.dtype == torch.float64 else torch.int32
    limits = torch.iinfo(dtype)
    bits = loss.masked_fill(loss == 0, 0.0).view(dtype)  # -0.0 equals 0.0
    key = bits ^ ((bits >> (limits.bits - 1)) & limits.max)  # integers in the order of floats
    if largest:
        key = ~key
    return key.masked_fill(loss.isnan(), limits.min)


def _first(key: Tensor, fraction: Tensor, valid: Tensor | None) -> Tensor:
    """Mark the smallest keys; ties by position."""
    num_valid: Tensor | int = key.numel()
    if valid is not None:
        key = key.masked_fill(~valid, torch.iinfo(key.dtype).max)
        num_valid = valid.sum()
    order = key.sort(stable=True).indices
    keep = torch.arange(key.numel(), device=key.device) < kept_count(fraction, num_valid)
    return torch.zeros_like(keep).scatter(0, order, keep)


def _by_group(key: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Positions by group (int64), and by key within it; and the group of each."""
    if key.dtype == torch.int64:  # the rank fits into 32 bits where the key does not
        order = key.sort(stable=True).indices
        rank = torch.arange(key.numel(), device=key.device)
        key = torch.zeros_like(order).scatter(0, order, rank)
    # from 0 on: torch sorts integers without a sign several times as fast
    ordered, order = ((group << 32) + (key.long() + 2**31)).sort(stable=True)
    return order, ordered >> 32


def _first_of_each_group(
    key: Tensor, fraction: Tensor, valid: Tensor | None, group: Tensor
) -> Tensor:
    """Mark the smallest keys of each group, a fraction of its valid samples; ties by position."""
    if valid is not None:  # apart, so that they are counted in no group
        group = group.masked_fill(~valid, 2**30 + 1)
    order, by_group = _by_group(key, group)
    size = key.numel()
    position = torch.arange(size, device=key.device)
    # comparing slices, which are of length N - 1, would bind compiled code to N != 2
    before, after = (position - 1).clamp(min=0), (position + 1).clamp(max=size - 1)
    is_first = (position == 0) | (by_group != by_group[before])
    is_last = (position == size - 1) | (by_group != by_group[after])
    start = torch.where(is_first, position, 0).cummax(0).values
    end = torch.where(is_last, position + 1, size)
    end = end.flip(0).cummin(0).values.flip(0)
    keep = position - start < kept_count(fraction, end - start)
    if valid is not None:
        keep = keep & valid[order]
    return torch.zeros_like(keep).scatter(0, order, keep)
