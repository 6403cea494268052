"""Losses of few samples on the CPU, where the calls take the time and not the arithmetic."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sampleweights._checks import is_row_per_index
from sampleweights._eager import is_eager
from sampleweights.functional.focal import focal_mean_of_nll, focal_of_nll
from sampleweights.functional.reference import lowest
from sampleweights.reduction import DOT_AT_MOST, weighted_mean, weighted_sum
from sampleweights.weighters.class_frequency import ClassFrequency


def loss_of_few(criterion: Any, logits: Any, target: Any) -> Tensor | None:
    """What a ``SoftmaxLoss`` returns for a batch, in as few calls as there can be.

    None for everything that needs a second look, such as a batch with ignored samples, an infinite
    loss or an argument that does not fit: the general way has the second look, and the error.
    """
    if not is_eager() or not is_row_per_index(logits, target):
        return None
    size, num_classes = logits.shape
    fits = logits.is_cpu and target.is_cpu and logits.dtype.itemsize >= 4
    if not fits or not 0 < size <= DOT_AT_MOST or criterion.reduction not in ("mean", "sum"):
        return None
    if (  # as they lie in the module: properties and buffers take several times as long
        criterion.label_smoothing
        or criterion.global_batch
        or criterion._buffers["weight"] is not None
        or (criterion._modules.get("margin") is not None and criterion.has_margin)
    ):
        return None
    weighter: Any = None if criterion.evaluates else criterion._modules.get("weighter")
    if weighter is None:
        return _loss(criterion, logits, target, None)
    if weighter.num_classes not in (None, num_classes):
        return None
    if not weighter.inactive:
        # the general way, of the same bits, shows the weights to who watches
        return None if criterion.is_watched else _loss(criterion, logits, target, weighter)
    loss = _loss(criterion, logits, target, None)
    if loss is not None:
        weighter.skip()
    return loss


def _loss(criterion: Any, logits: Tensor, target: Tensor, weighter: Any) -> Tensor | None:
    reduction, gamma, ignore_index = criterion.reduction, criterion.gamma, criterion.ignore_index
    divisor = len(target) if reduction == "mean" else 1
    class_weight = None
    if gamma != 0 or weighter is not None:
        if ignore_index >= 0 or lowest(target) <= ignore_index:
            return None
        reduction = "none"
        if gamma == 0 and isinstance(weighter, ClassFrequency):
            class_weight, reduction = weighter.weight_over(divisor, logits, True), "sum"
            if class_weight is None:
                return None
    try:
        loss = F.cross_entropy(
            logits, target, class_weight, ignore_index=ignore_index, reduction=reduction
        )
    except IndexError:
        return None
    if class_weight is not None:
        return loss
    if reduction != "none":
        value = loss.item()
        return loss if value == value else None
    if weighter is None:
        return focal_mean_of_nll(loss, gamma, divisor)
    if gamma != 0:
        loss = focal_of_nll(loss, gamma)
    seen = loss.detach()
    weight = weighter.weight_of_few(seen, divisor)
    if weight is not None:
        return weighted_sum(loss, weight)
    weight = criterion._checked_weight(weighter(seen, target), loss)
    return weighted_mean(loss, weight, divisor)
