"""The softmax losses in torch's own operations, which differentiate twice, trace and compile."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sampleweights._buffers import follow
from sampleweights._checks import check_class_indices, class_dim, is_index
from sampleweights._eager import autocasts, is_plain, is_readable
from sampleweights.functional.focal import focal_factor, focal_of_nll


def lowest(target: Tensor) -> int:
    """The lowest class index of a tensor that ``is_readable``; of few, without a kernel."""
    if target.ndim == 1 and target.numel() <= 64:
        return int(min(target.tolist()))
    return int(target.min().item())


def valid_mask(target: Tensor, ignore_index: float) -> Tensor | None:
    """Which samples are not ignored; None if every one is known to be valid."""
    if ignore_index != ignore_index:
        return ~target.isnan() if target.is_floating_point() else None
    if target.dtype is torch.int64 or is_index(target):
        target = target.long()  # uint8 would turn -100 into 156, and uint16 has no minimum
        if is_readable(target) and target.numel():
            if ignore_index < 0:
                every = lowest(target) > ignore_index
            else:
                every = target.max().item() < ignore_index
            if every:
                return None
    return target != ignore_index


def output_dtype(logits: Tensor, target: Tensor) -> torch.dtype:
    """What F.cross_entropy returns: the dtype of its inputs, at least float32 under autocast."""
    dtype = logits.dtype
    if target.is_floating_point():
        dtype = torch.promote_types(dtype, target.dtype)
    if autocasts(logits):
        dtype = torch.promote_types(dtype, torch.float32)
    return dtype


def look_up_valid(table: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """``table[target]`` for a table of one value per class; 0 where not valid."""
    table = follow(table, target)
    if valid is None:
        return look_up(table, target.long())
    return look_up(table, target.long().masked_fill(~valid, 0)).masked_fill(~valid, 0)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` for a table of one value per class, with a clear error for a bad index."""
    try:
        if index.ndim == 1:
            return table.index_select(0, index)
        return table.index_select(0, index.reshape(-1)).reshape(index.shape)
    except IndexError:
        if is_readable(index):
            check_class_indices(index, len(table), None)
        raise


def torch_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Literal["none", "mean", "sum"] = "none",
) -> Tensor:
    """F.cross_entropy with any integer dtype, a clear index error, and no NaN of finite logits."""
    if label_smoothing and logits.dtype.itemsize < 4:
        # torch sums the log-probabilities of all classes in the dtype of the logits: inf in
        # float16 from about a thousand classes on
        dtype = output_dtype(logits, target)
        weight = None if weight is None else weight.float()
        loss = torch_cross_entropy(
            logits.float(), target, weight, ignore_index, label_smoothing, reduction
        )
        return loss.to(dtype)
    if target.dtype != torch.int64 and is_index(target):
        target = target.long()
    try:
        loss = F.cross_entropy(
            logits,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    except IndexError:
        if is_readable(target):
            check_class_indices(target, logits.shape[class_dim(logits)], ignore_index)
        raise
    if label_smoothing or not target.is_floating_point():
        return loss
    if not is_readable(loss):
        return _cross_entropy_of_probabilities(logits, target, weight, reduction)
    if math.isfinite((loss.detach().sum() if loss.ndim else loss).item()):
        return loss
    wide = torch.promote_types(logits.dtype, torch.float32)
    return _cross_entropy_of_probabilities(logits.to(wide), target, weight, reduction).to(loss)


def _cross_entropy_of_probabilities(
    logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str
) -> Tensor:
    """The same bits, but 0 for a probability of 0 whose logarithm is -inf; torch has NaN."""
    dim = class_dim(logits)
    log_p = F.log_softmax(logits, dim)
    log_p = log_p.masked_fill(target == 0, 0)
    loss = -(log_p * target if weight is None else log_p * target * by_class(weight, logits))
    if reduction == "none":
        return loss.sum(dim)
    return loss.sum() if reduction == "sum" else loss.sum() / (loss.numel() / loss.shape[dim])


def log_other_probability(log_p: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    r""":math:`\log(1 - p)` of the target class, from the other classes: all its digits are right.

    Where p rounds to 1 the logarithm is finite still, and so is its gradient. (Of a class without
    others it is the lowest number, whose exponential is 0.)
    """
    dim, index = class_dim(log_p), target.long()
    if valid is not None:
        index = index.masked_fill(~valid, 0)
    # not -inf: the gradient of a sum over nothing would be NaN
    others = log_p.scatter(dim, index.unsqueeze(dim), torch.finfo(log_p.dtype).min)
    return others.logsumexp(dim)


LOG2_E = 1 / math.log(2)

LEAN_FROM = 2**16
"""Logits from which on a cheaper backward pass is worth the overhead of an autograd function."""


def _can_be_lean(logits: Tensor, target: Tensor, label_smoothing: float) -> bool:
    return (
        logits.is_cpu
        and logits.requires_grad
        and logits.ndim > 1
        and logits.dtype.itemsize >= 4  # half precision is faster in torch's own kernels
        and label_smoothing == 0
        and is_index(target)
        and is_plain(logits)
        and is_plain(target)
        and logits.numel() >= LEAN_FROM
    )


def _lean_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """F.cross_entropy with one tensor of the size of the logits less in the backward pass."""
    target = target.long()
    try:
        loss: Tensor = _LeanCrossEntropy.apply(logits, target, ignore_index)[0]  # type: ignore[no-untyped-call]
        return loss
    except IndexError:
        check_class_indices(target, logits.shape[1], ignore_index)
        raise


class _LeanCrossEntropy(torch.autograd.Function):
    """Losses and log-probabilities, of which the first are for use.

    The second are an output so that the gradient, which is computed from them, can be
    differentiated again.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits, 1)
        ctx.save_for_backward(log_p, target, valid_mask(target, ignore_index))
        ctx.set_materialize_grads(False)
        return F.nll_loss(log_p, target, ignore_index=ignore_index, reduction="none"), log_p

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_log_p: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        log_p, target, valid = ctx.saved_tensors
        # not exp, which took twice the time of exp2 on an AMD EPYC
        p, of_logits = (log_p * LOG2_E).exp2_(), None
        if grad_log_p is not None:
            of_logits = grad_log_p - p * grad_log_p.sum(1, keepdim=True)
        if grad is not None:
            if valid is not None:
                grad, target = grad.masked_fill(~valid, 0), target.masked_fill(~valid, 0)
            grad, index = grad.unsqueeze(1), target.unsqueeze(1)
            if of_logits is None and is_plain(grad) and not torch.is_grad_enabled():
                of_logits = p.mul_(grad).scatter_add_(1, index, -grad)
            else:
                of_nll = (p * grad).scatter_add(1, index, -grad)
                of_logits = of_nll if of_logits is None else of_logits + of_nll
        return of_logits, None, None


def softmax_loss_reference(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    lean: bool = False,
) -> Tensor:
    """The same in torch's own operations, which differentiate twice, trace and compile."""
    lean = lean and _can_be_lean(logits, target, label_smoothing)
    if gamma == 0 and not lean:
        return torch_cross_entropy(logits, target, weight, ignore_index, label_smoothing)
    dtype = logits.dtype
    if dtype.itemsize < 4 or target.is_floating_point():
        dtype = output_dtype(logits, target)
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    weight = None if weight is None else weight.to(logits.dtype)
    if target.is_floating_point():
        return _focal_of_probabilities(logits, target, gamma, weight, label_smoothing).to(dtype)
    if label_smoothing:
        loss = _smoothed_focal(logits, target, gamma, weight, ignore_index, label_smoothing)
        return loss.to(dtype)
    if lean:
        nll = _lean_cross_entropy(logits, target, ignore_index)
    else:
        nll = torch_cross_entropy(logits, target, None, ignore_index, 0.0)  # -log p_t
    loss = nll if gamma == 0 else focal_of_nll(nll, gamma)
    if weight is not None:
        loss = loss * look_up_valid(weight, target, valid_mask(target, ignore_index))
    return loss if loss.dtype == dtype else loss.to(dtype)


def _smoothed_focal(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """Smoothing leaves a loss at p = 1, so that every digit of 1 - p counts there."""
    dim, valid = class_dim(logits), valid_mask(target, ignore_index)
    log_p = F.log_softmax(logits, dim)
    try:
        nll = F.nll_loss(log_p, target.long(), weight, ignore_index=ignore_index, reduction="none")
    except IndexError:
        if is_readable(target):
            check_class_indices(target, logits.shape[dim], ignore_index)
        raise
    of_all = -(log_p if weight is None else log_p * by_class(weight, logits)).mean(dim)
    of_all = of_all if valid is None else of_all.masked_fill(~valid, 0)
    loss = (1 - label_smoothing) * nll + label_smoothing * of_all
    # an infinite loss stays as it is: its product has the derivative 0 * inf
    infinite = loss.isinf()
    factor = torch.exp(gamma * log_other_probability(log_p, target, valid))
    return torch.where(infinite, loss, factor * loss.masked_fill(infinite, 0))


def _focal_of_probabilities(
    logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None, label_smoothing: float
) -> Tensor:
    """The expected loss of a class that is drawn with the probabilities of ``target``."""
    dim = class_dim(logits)
    log_p = F.log_softmax(logits, dim)
    nll = -log_p
    factor = focal_factor(nll, gamma)
    if label_smoothing:  # see _smoothed_focal; of no other class than the top one is p near 1
        top = log_p.argmax(dim)
        of_top = torch.exp(gamma * log_other_probability(log_p, top, None))
        factor = factor.scatter(dim, top.unsqueeze(dim), of_top.unsqueeze(dim))
    if weight is not None:
        nll = nll * by_class(weight, logits)
    factor = target * factor
    loss = (factor * nll).sum(dim)
    if not is_readable(loss) or math.isnan(loss.detach().sum().item()):
        loss = (factor * nll.masked_fill(target == 0, 0)).sum(dim)  # and not 0 * inf
    if not label_smoothing:
        return loss
    of_all = nll.mean(dim)
    infinite = of_all.isinf()
    smooth = torch.where(infinite, of_all, factor.sum(dim) * of_all.masked_fill(infinite, 0))
    return (1 - label_smoothing) * loss + label_smoothing * smooth


def by_class(weight: Tensor, logits: Tensor) -> Tensor:
    """``weight`` of shape (C,), to be multiplied with the logits of any batch."""
    return follow(weight, logits).reshape([-1] + [1] * (logits.ndim - class_dim(logits) - 1))


def smooth_weighted(target: Tensor, logits: Tensor, label_smoothing: float) -> Tensor:
    """Label smoothing of probabilities that were weighted, which need not sum to 1.

    What smoothing moves to all classes is a share of the sample's own weight, as it is where
    the target is an index and the weight multiplies the smoothed loss.
    """
    dim = class_dim(logits)
    mass = target.sum(dim, keepdim=True)
    return (1 - label_smoothing) * target + (label_smoothing / logits.shape[dim]) * mass
