"""One batch over all processes: what each of them needs to weigh its part as one would the whole.

Losses, targets and validity of single samples cross the wire, as one tensor of bytes; logits never
do. Weighters do not know about any of this: they are called with the batch of all ranks.

``torch.compiler.disable`` imports the compiler, a second of work, so this module is imported only
where there are several processes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Batch", "all_sum", "gather"]


class Batch(NamedTuple):
    """The samples of all ranks, in the order of the ranks, flat."""

    loss: Tensor
    """``(T,)``"""
    target: Tensor | None
    """``(T,)`` or ``(T, C)``"""
    valid: Tensor
    """``(T,)`` bool"""
    own: slice
    """Where this rank's samples are."""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def all_sum(value: Tensor | float, device: torch.device, group: dist.ProcessGroup | None) -> Tensor:
    """The sum over all ranks, 0-d, float64."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            "sample_weight must not require a gradient where the sum of the weights of all "
            "processes is divided by (global_batch=True, reduction='weighted_mean')"
        )
    # a number is filled in by the device; as_tensor would copy it there
    if isinstance(value, Tensor):
        total = value.to(device, torch.float64, copy=True)
    else:
        total = torch.full((), value, dtype=torch.float64, device=device)
    dist.all_reduce(total, group=group)
    return total


@torch.compiler.disable  # type: ignore[untyped-decorator]
def gather(
    loss: Tensor, target: Tensor | None, valid: Tensor | None, group: dist.ProcessGroup | None
) -> Batch:
    """Gather per-sample losses, targets and validity, of any number on each rank."""
    if valid is None:
        valid = torch.ones_like(loss, dtype=torch.bool)
    columns = [loss.reshape(-1), valid.reshape(-1)]
    if target is not None:
        of_sample = _by_sample(target, loss)
        if of_sample.is_floating_point():
            # a process whose weights have begun holds probabilities in float32, others in half
            of_sample = of_sample.to(torch.promote_types(of_sample.dtype, torch.float32))
        columns.append(of_sample)
    sizes = _sizes(loss, group)
    gathered = _gather_columns(columns, sizes, group)
    start = sum(sizes[: dist.get_rank(group)])
    own = slice(start, start + loss.numel())
    return Batch(gathered[0], gathered[2] if target is not None else None, gathered[1], own)


def _by_sample(target: Tensor, loss: Tensor) -> Tensor:
    """``(M,)`` class indices, or ``(M, C)`` probabilities."""
    if target.shape == loss.shape:
        return target.reshape(-1)
    dim = min(loss.ndim, 1)
    if target.ndim == loss.ndim + 1:
        last = target.movedim(dim, -1)
        if last.shape[:-1] == loss.shape:
            return last.reshape(loss.numel(), last.shape[-1])
    raise ValueError(
        f"target must have one value for each loss, shape {tuple(loss.shape)}, or probabilities "
        f"of its classes, for global_batch=True with a weighter; got {tuple(target.shape)}"
    )


def _sizes(loss: Tensor, group: dist.ProcessGroup | None) -> list[int]:
    """How many samples each rank has; without waiting for a GPU if the group has a CPU backend."""
    on_cpu = "cpu" in dist.get_backend_config(group)
    own = torch.full((1,), loss.numel(), device="cpu" if on_cpu else loss.device)
    sizes = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, own, group=group)
    return [int(size) for size in sizes]


def _gather_columns(
    columns: list[Tensor], sizes: list[int], group: dist.ProcessGroup | None
) -> list[Tensor]:
    """One collective: the columns' bytes one after the other, each padded to the largest rank."""
    spans, end = [], 0
    for column in columns:
        width = column.shape[1:].numel()  # 1 for a column of no further dimensions
        length = max(sizes) * width * column.dtype.itemsize
        spans.append((end, width))
        end += -(-length // 8) * 8  # every column begins at a whole number of its elements
    buffer = torch.zeros(end, dtype=torch.uint8, device=columns[0].device)
    for column, (start, _) in zip(columns, spans, strict=True):
        data = column.detach().contiguous().view(-1).view(torch.uint8)
        buffer[start : start + data.numel()] = data
    received = buffer.new_empty(len(sizes), end)
    dist.all_gather(list(received.unbind(0)), buffer, group=group)
    gathered = []
    for column, (start, width) in zip(columns, spans, strict=True):
        step = width * column.dtype.itemsize
        parts = [row[start : start + n * step] for row, n in zip(received, sizes, strict=True)]
        flat = torch.cat(parts).view(column.dtype)
        gathered.append(flat.view(-1, *column.shape[1:]))
    return gathered
