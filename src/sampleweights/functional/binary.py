"""Losses of binary and multi-label targets, one value per element."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sampleweights._checks import check_alpha, check_binary, check_clip, check_gamma, class_dim
from sampleweights._eager import is_readable
from sampleweights.functional.reference import by_class, output_dtype


def binary_focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float | Tensor | None = 0.25
) -> Tensor:
    r"""Sigmoid focal loss, one value per element: for binary and multi-label targets.

    .. math::
        \begin{aligned}
        \ell = {} & t \, \alpha (1 - p)^\gamma (-\log p) \\
        & + (1 - t) (1 - \alpha) \, p^\gamma (-\log(1 - p)), \quad p = \sigma(z)
        \end{aligned}

    Half precision is computed in float32.

    Shape:
        - logits: any shape, floating.
        - target: the shape of ``logits``; 0 or 1 (any dtype) or probabilities (floating).
        - Output: the shape of ``logits``.

    Args:
        logits: one score per element.
        target: the target of each element.
        gamma: focusing parameter, at least 0.
        alpha: weight of the positives, in [0, 1]; the negatives get 1 - alpha. With 0.25 a
            positive counts a third as much as a negative. A number, or one for each label,
            :math:`(C)` for logits :math:`(N, C, ...)`; None leaves out both factors.

    Raises:
        ValueError, TypeError: arguments, shapes, dtypes and (on the CPU) values that do not fit.

    Example:
        >>> import torch
        >>> from sampleweights.functional import binary_focal_loss
        >>> binary_focal_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]))
        tensor([0.0005, 0.1755])

    Note:
        Other libraries differ for targets t between 0 and 1. This function returns the expected
        loss of a label that is 1 with probability t. For targets of 0 and 1 it equals
        ``torchvision.ops.sigmoid_focal_loss``.

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 5.
    """
    check_gamma(gamma)
    if not isinstance(alpha, Tensor):
        alpha = check_alpha(alpha)
    check_binary(logits, target)
    loss = focal_of_either(logits, logits, target, gamma, alpha)
    return loss.to(output_dtype(logits, logits))


def asymmetric_loss(
    logits: Tensor,
    target: Tensor,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
) -> Tensor:
    r"""Asymmetric loss, one value per element: for multi-label targets with few positives.

    .. math::
        \begin{aligned}
        \ell = {} & t \, (1 - p)^{\gamma_+} (-\log p)
        + (1 - t) \, p_m^{\gamma_-} (-\log(1 - p_m)), \\
        & p = \sigma(z), \quad p_m = \max(p - m, 0)
        \end{aligned}

    Gradient flows through the factors, too. Half precision is computed in float32.

    Shape:
        - logits: any shape, floating.
        - target: the shape of ``logits``; 0 or 1 (any dtype) or probabilities (floating).
        - Output: the shape of ``logits``.

    Args:
        logits: one score per element.
        target: the target of each element.
        gamma_negative: focusing parameter of the negatives, at least 0.
        gamma_positive: focusing parameter of the positives, at least 0.
        clip: :math:`m`, by which the probability of a negative is lowered: 0, or in [1e-6, 1).

    Raises:
        ValueError, TypeError: arguments, shapes, dtypes and (on the CPU) values that do not fit.

    Example:
        >>> import torch
        >>> from sampleweights.functional import asymmetric_loss
        >>> asymmetric_loss(torch.tensor([2.0, -1.0, -3.0]), torch.tensor([1.0, 0.0, 0.0]))
        tensor([0.0151, 0.0006, 0.0000])

    References:
        Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021.
    """
    gamma_negative = check_gamma(gamma_negative, "gamma_negative")
    gamma_positive = check_gamma(gamma_positive, "gamma_positive")
    clip = check_clip(clip)
    check_binary(logits, target)
    loss = sigmoid_loss(logits, logits, target, gamma_negative, gamma_positive, clip=clip)
    return loss.to(output_dtype(logits, logits))


def focal_of_either(
    negative: Tensor, positive: Tensor, target: Tensor, gamma: float, alpha: float | Tensor | None
) -> Tensor:
    """``sigmoid_loss`` with one gamma, and with alpha for positives and 1 - alpha for negatives."""
    if alpha is None:
        return sigmoid_loss(negative, positive, target, gamma, gamma)
    if isinstance(alpha, Tensor):
        if alpha.shape != negative.shape[class_dim(negative) :][:1]:
            raise ValueError(
                f"alpha must be a number, or hold one for each label, shape (C,) for logits of "
                f"shape {tuple(negative.shape)}, got {tuple(alpha.shape)}"
            )
        dtype = torch.promote_types(negative.dtype, torch.float32)
        alpha = by_class(alpha.to(dtype), negative)
    return sigmoid_loss(
        negative, positive, target, gamma, gamma, of_negative=1 - alpha, of_positive=alpha
    )


def sigmoid_loss(
    negative: Tensor,
    positive: Tensor,
    target: Tensor,
    gamma_negative: float = 0.0,
    gamma_positive: float = 0.0,
    *,
    clip: float = 0.0,
    of_negative: float | Tensor | None = None,
    of_positive: float | Tensor | None = None,
) -> Tensor:
    """The loss of every criterion with a sigmoid, in at least float32.

    Of two logits: what a negative has, and what a positive has. They differ where a margin moves
    them by the target; else they are one tensor. ``of_negative`` and ``of_positive`` are factors.
    """
    same = negative is positive
    negative = _finite(negative)
    positive = negative if same else _finite(positive)
    if target.is_floating_point():
        target = target.to(negative.dtype)
        loss_positive = target * _of(-positive, gamma_positive, 0.0, of_positive)
        return loss_positive + (1 - target) * _of(negative, gamma_negative, clip, of_negative)
    is_positive = target != 0
    if gamma_negative == gamma_positive and clip == 0:  # one logarithm for both
        loss = _of(torch.where(is_positive, -positive, negative), gamma_positive, 0.0, None)
        if of_negative is None and of_positive is None:
            return loss
        return torch.where(is_positive, _times(of_positive, loss), _times(of_negative, loss))
    loss_positive = _of(-positive, gamma_positive, 0.0, of_positive)
    return torch.where(is_positive, loss_positive, _of(negative, gamma_negative, clip, of_negative))


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str = "none",
) -> Tensor:
    """F.binary_cross_entropy_with_logits with any target dtype, in at least float32.

    Its bits, but no NaN of infinite logits whose target is certain.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    target = target.to(torch.promote_types(target.dtype, logits.dtype))
    weight, pos_weight = (
        w.float() if w is not None and w.dtype.itemsize < 4 else w for w in (weight, pos_weight)
    )
    options = {"weight": weight, "pos_weight": pos_weight, "reduction": reduction}
    if is_readable(logits):
        loss = F.binary_cross_entropy_with_logits(logits, target, **options)  # type: ignore[arg-type]
        if math.isfinite((loss.detach().sum() if loss.ndim else loss).item()):
            return loss
    return F.binary_cross_entropy_with_logits(_finite(logits), target, **options)  # type: ignore[arg-type]


def _finite(logits: Tensor) -> Tensor:
    """In at least float32, and clamped, so that no factor of 0 meets an inf."""
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    limit = torch.finfo(logits.dtype).max
    return logits.clamp(-limit, limit)


def _times(factor: float | Tensor | None, loss: Tensor) -> Tensor:
    return loss if factor is None else factor * loss


def _of(margin: Tensor, gamma: float, clip: float, factor: float | Tensor | None) -> Tensor:
    """Loss of the label whose log-odds are ``-margin``, times a factor."""
    if clip:
        return _times(factor, _clipped_focal(margin, gamma, clip))
    nll = -F.logsigmoid(-margin)  # in log space throughout
    return _times(factor, nll if gamma == 0 else nll * torch.exp(gamma * F.logsigmoid(margin)))


def _clipped_focal(margin: Tensor, gamma: float, clip: float) -> Tensor:
    """The same with a probability of the other label that is lowered by ``clip``, to 0 at least."""
    other = (margin.sigmoid() - clip).clamp(min=0)  # p_m
    # the logarithm of 1 - p_m, from whichever of the two has all its digits
    from_other = torch.log1p(-other.clamp(max=0.5))
    nll = -torch.where(other < 0.5, from_other, ((-margin).sigmoid() + clip).log())
    if gamma == 0:
        return nll
    # cut where its derivative would be infinite: gamma < 1, p_m = 0 and a loss of 0
    return nll * other.clamp(min=torch.finfo(other.dtype).eps ** 2).pow(gamma)
