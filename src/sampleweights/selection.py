"""Exactly m of M samples, by loss.

Everything here is vectorised, runs on the device of its inputs, never synchronises with the host
and does not depend on the value of m, so that a changing schedule recompiles nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kept_count", "select"]


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
    key = loss.detach().reshape(-1)
    key = key.to(torch.promote_types(key.dtype, torch.float32))
    size = key.numel()
    if not isinstance(fraction, Tensor):
        fraction = torch.full((), fraction, dtype=torch.float64, device=key.device)

    # Ascending key: wanted samples first. Infinite losses become the largest finite ones, which
    # leaves -inf for NaN and inf for what is not valid; the stable sort settles ties by position.
    if largest:
        key = -key
    limit = torch.finfo(key.dtype).max
    key = key.clamp(-limit, limit)
    key = key.masked_fill(key.isnan(), -torch.inf)
    num_valid: Tensor | int = size
    if valid is not None:
        valid = valid.reshape(-1)
        key = key.masked_fill(~valid, torch.inf)
        num_valid = valid.sum()
    order = key.argsort(stable=True)
    rank = torch.arange(size, device=key.device)

    if group is None:
        keep = rank < kept_count(fraction, num_valid)
    else:
        group = group.detach().reshape(-1).long()
        if valid is not None:  # apart, so that they are counted in no class
            group = group.masked_fill(~valid, torch.iinfo(torch.int64).max)
        order = order[group[order].argsort(stable=True)]  # by group, by key within it
        sorted_group = group[order]
        start = torch.searchsorted(sorted_group, sorted_group)
        end = torch.searchsorted(sorted_group, sorted_group, right=True)
        keep = rank - start < kept_count(fraction, end - start)
        if valid is not None:
            keep = keep & valid[order]
    return torch.zeros_like(keep).scatter(0, order, keep).reshape(loss.shape)
