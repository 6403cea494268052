"""Exactly m of M samples, by loss.

Everything here is vectorised and runs on the device of its inputs. Nothing waits for a device, and
compiled code does not depend on the value of m, so that a changing schedule recompiles nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kept_count", "select"]


_SORT_AT_MOST = 1024
"""On a CPU a sort is faster than finding the threshold up to about this size."""


def kept_count(fraction: Tensor, num_valid: Tensor | int) -> Tensor:
    r"""How many of ``num_valid`` samples a fraction keeps.

    .. math:: m = \max(1, \lfloor f M + 1/2 \rfloor), \quad m = 0 \ \text{where}\ M = 0

    Shape:
        - fraction: scalar, in (0, 1]; float64 wherever the device has it.
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
    r"""Mark the samples of highest (or lowest) loss.

    Of the :math:`M` valid samples, exactly :math:`m = \lfloor f M + 1/2 \rfloor`, at least one;
    with ``group``, of each group by itself. Among equal losses the lowest position wins. A NaN
    loss comes before every other, for both directions, so that divergence is never hidden.

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - fraction: scalar, in (0, 1].
        - valid: the shape of ``loss``, bool; what is not valid is never marked and not counted.
        - group: the shape of ``loss``, integer, any values.
        - Output: the shape of ``loss``, bool. No gradient.

    Example:
        >>> import torch
        >>> from sampleweights.selection import select
        >>> loss = torch.tensor([0.3, 2.0, 0.1, 2.0])
        >>> select(loss, 0.25, largest=True), select(loss, 0.25, largest=False)
        (tensor([False,  True, False, False]), tensor([False, False,  True, False]))
    """
    key = _ascending_key(loss, largest, valid)
    if not isinstance(fraction, Tensor):
        fraction = torch.full((), fraction, dtype=torch.float64, device=key.device)
    if valid is not None:
        valid = valid.reshape(-1)
    if group is None:
        num_valid = key.numel() if valid is None else valid.sum()
        keep = _first(key, kept_count(fraction, num_valid))
    else:
        keep = _first_of_each_group(key, fraction, group.detach().reshape(-1).long(), valid)
    return keep.reshape(loss.shape)


def _ascending_key(loss: Tensor, largest: bool, valid: Tensor | None) -> Tensor:
    """A flat copy of the losses in which the wanted samples come first.

    Infinite losses become the largest finite numbers, which leaves -inf for NaN, to come before
    all others, and inf for what is not valid, to come after them.
    """
    key = loss.detach().reshape(-1)
    key = key.to(torch.promote_types(key.dtype, torch.float32))
    if largest:
        key = -key
    limit = torch.finfo(key.dtype).max
    key = key.clamp(-limit, limit)
    key = key.masked_fill(key.isnan(), -torch.inf)
    return key if valid is None else key.masked_fill(~valid.reshape(-1), torch.inf)


def _first(key: Tensor, count: Tensor) -> Tensor:
    """Mark the ``count`` smallest keys; ties by position."""
    on_host = key.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_host and key.numel() > _SORT_AT_MOST:
        m = int(count)
        if m == 0:
            return torch.zeros_like(key, dtype=torch.bool)
        threshold = key.kthvalue(m).values
        below, tied = key < threshold, key == threshold
        return below | (tied & (tied.cumsum(0) <= m - below.sum()))
    order = key.argsort(stable=True)
    keep = torch.arange(key.numel(), device=key.device) < count
    return torch.zeros_like(keep).scatter(0, order, keep)


def _first_of_each_group(
    key: Tensor, fraction: Tensor, group: Tensor, valid: Tensor | None
) -> Tensor:
    """Mark the smallest keys of each group, a fraction of its valid samples; ties by position."""
    if valid is not None:  # apart, so that they are counted in no group
        group = group.masked_fill(~valid, torch.iinfo(torch.int64).max)
    order = key.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, by key within it
    sorted_group = group[order]
    start = torch.searchsorted(sorted_group, sorted_group)
    end = torch.searchsorted(sorted_group, sorted_group, right=True)
    rank = torch.arange(key.numel(), device=key.device) - start
    keep = rank < kept_count(fraction, end - start)
    if valid is not None:
        keep = keep & valid[order]
    return torch.zeros_like(keep).scatter(0, order, keep)
