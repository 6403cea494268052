"""Focal loss of binary and multi-label targets, one value per element."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sampleweights._checks import check_alpha, check_binary, check_gamma, class_dim
from sampleweights.functional.reference import by_class


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
    dtype = logits.dtype
    if torch.is_autocast_enabled(logits.device.type):
        dtype = torch.promote_types(dtype, torch.float32)  # as cross-entropy does
    return focal_of_either(logits, logits, target, gamma, alpha).to(dtype)


def focal_of_either(
    negative: Tensor, positive: Tensor, target: Tensor, gamma: float, alpha: float | Tensor | None
) -> Tensor:
    """The same in at least float32, of two logits: what a negative has, and what a positive has.

    They differ where a margin moves them by the target; else they are one tensor.
    """
    same = negative is positive
    negative = _finite(negative)
    positive = negative if same else _finite(positive)
    if isinstance(alpha, Tensor):
        if alpha.shape != negative.shape[class_dim(negative) :][:1]:
            raise ValueError(
                f"alpha must be a number, or hold one for each label, shape (C,) for logits of "
                f"shape {tuple(negative.shape)}, got {tuple(alpha.shape)}"
            )
        alpha = by_class(alpha.to(negative), negative)
    of_positive: Tensor | float = 1.0 if alpha is None else alpha
    of_negative: Tensor | float = 1.0 if alpha is None else 1 - alpha
    if target.is_floating_point():
        target = target.to(negative.dtype)
        loss = target * of_positive * _binary_focal(-positive, gamma)
        return loss + (1 - target) * of_negative * _binary_focal(negative, gamma)
    is_positive = target != 0
    loss = _binary_focal(torch.where(is_positive, -positive, negative), gamma)
    if alpha is None:
        return loss
    return torch.where(is_positive, of_positive * loss, of_negative * loss)


def _finite(logits: Tensor) -> Tensor:
    """In at least float32, and clamped, so that no factor of 0 meets an inf."""
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    limit = torch.finfo(logits.dtype).max
    return logits.clamp(-limit, limit)


def _binary_focal(margin: Tensor, gamma: float) -> Tensor:
    """Focal loss of the label whose log-odds are ``-margin``, in log space throughout."""
    nll = -F.logsigmoid(-margin)
    return nll if gamma == 0 else nll * torch.exp(gamma * F.logsigmoid(margin))
