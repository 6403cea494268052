"""What one batch shows of its samples: the numbers that a history adds up."""

from __future__ import annotations

import torch
from torch import Tensor

from sampleweights._checks import is_index
from sampleweights.losses.watching import judge

COLUMNS = ("times", "loss", "weight", "kept", "judged", "p", "margin", "correct")
CLASSES = ("label", "rival")


def observe(
    loss: Tensor,
    weight: Tensor | None,
    valid: Tensor | None,
    logits: Tensor | None,
    target: Tensor | None,
    judged: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``COLUMNS`` of each sample, (N, 8): means over its valid positions; and ``CLASSES``, (N, 2).

    A sample without a valid position is 0 in every column, whatever its logits and its loss are.
    Where nothing is judged, the classes are -1; None where no sample can be.
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
    found = _judge(logits, target) if judged is None else (*judged, columns[:, 0] > 0)
    if found is None:
        return torch.cat([columns, columns.new_zeros(len(columns), 4)], 1), None
    scores, classes, is_class = found
    # nothing is judged where labels are ignored, or are no classes: a product would keep a NaN
    where = (columns[:, :1] > 0) & is_class[:, None]
    return torch.cat([columns, scores.where(where, 0)], 1), classes.where(where, -1)


def _judge(logits: Tensor | None, target: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """One, probability of the target, margin and correctness, (N, 4); target and highest other
    class, (N, 2) int32; which targets are classes, (N,). None where unknown."""
    if logits is None or target is None or logits.ndim != 2 or logits.shape[1] < 2:
        return None
    if not is_index(target) or target.shape != logits.shape[:1]:
        return None
    is_class = (target >= 0) & (target < logits.shape[1])
    return (*judge(logits, target.where(is_class, 0)), is_class)


def add_to_mean(mean: Tensor, squares: Tensor, value: Tensor, where: Tensor, count: Tensor) -> None:
    """Add ``value`` to running means and sums of squared deviations, where told (Welford 1962)."""
    change = (value - mean).where(where, 0)
    mean += change / count.clamp(min=1)
    squares += change * (value - mean).where(where, 0)


def vote(candidate: Tensor, lead: Tensor, value: Tensor) -> None:
    """One more vote where ``value`` is not negative: who has more than half of all votes wins.

    The majority vote of Boyer and Moore (1981) keeps one candidate and its lead for each sample,
    where counts would take one number for each class.
    """
    votes, agrees = value >= 0, value == candidate
    takes_over = votes & ~agrees & (lead == 0)
    candidate.copy_(torch.where(takes_over, value, candidate))
    lead += (votes & (agrees | takes_over)).int() - (votes & ~agrees & ~takes_over).int()
