"""What one batch shows of its samples: the numbers that a history adds up."""

from __future__ import annotations

import torch
from torch import Tensor

from sampleweights._checks import is_index

COLUMNS = ("times", "loss", "weight", "kept", "judged", "p", "margin", "correct")


def observe(
    loss: Tensor,
    weight: Tensor | None,
    valid: Tensor | None,
    logits: Tensor | None,
    target: Tensor | None,
) -> Tensor:
    """``COLUMNS`` of each sample, (N, 8): means over its valid positions.

    A sample without a valid position is 0 in every column, whatever its logits and its loss are.
    """
    for name, of_loss in (("weight", weight), ("valid", valid)):
        if of_loss is not None and of_loss.shape != loss.shape:
            raise ValueError(
                f"{name} must have the shape of the losses, {tuple(loss.shape)}, got "
                f"{tuple(of_loss.shape)}"
            )
    if valid is not None and valid.dtype != torch.bool:
        raise TypeError(f"valid must be bool, got dtype {valid.dtype}")
    loss, one = loss.detach().float(), torch.ones_like(loss, dtype=torch.float32)
    weight = one if weight is None else weight.float()
    columns = torch.stack([one, loss, weight, (weight > 0).float()], -1)
    if valid is not None:
        columns = columns.where(valid[..., None], 0)
    if columns.ndim > 2:
        columns = columns.flatten(1, -2).sum(1)
        columns = columns / columns[:, :1].clamp(min=1)
    judged = _judge(logits, target)
    # nothing is judged without labels, nor where they are ignored: a product would keep a NaN
    judged = columns.new_zeros(len(columns), 4) if judged is None else judged
    return torch.cat([columns, judged.where(columns[:, :1] > 0, 0)], 1)


def _judge(logits: Tensor | None, target: Tensor | None) -> Tensor | None:
    """One, probability of the target, margin and correctness, (N, 4); None where unknown."""
    if logits is None or target is None or logits.ndim != 2 or logits.shape[1] < 2:
        return None
    if not is_index(target) or target.shape != logits.shape[:1]:
        return None
    logits = logits.detach().float()
    label = target.long().clamp(0, logits.shape[1] - 1)[:, None]
    of_target = logits.gather(1, label)
    (first, second), which = logits.topk(2, dim=1).values.unbind(1), logits.argmax(1)
    margin = of_target[:, 0] - torch.where(which == label[:, 0], second, first)
    p = (of_target[:, 0] - logits.logsumexp(1)).exp()
    return torch.stack([torch.ones_like(p), p, margin, (margin > 0).float()], 1)


def add_to_mean(mean: Tensor, squares: Tensor, value: Tensor, where: Tensor, count: Tensor) -> None:
    """Add ``value`` to running means and sums of squared deviations, where told (Welford 1962)."""
    change = (value - mean).where(where, 0)
    mean += change / count.clamp(min=1)
    squares += change * (value - mean).where(where, 0)
