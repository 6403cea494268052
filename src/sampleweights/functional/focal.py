"""The factor of focal loss, and what it makes of cross-entropy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sampleweights._buffers import reciprocal
from sampleweights._eager import is_eager, may_have_tangents


def focal_factor(nll: Tensor, gamma: float) -> Tensor:
    r""":math:`(1 - p)^\gamma` from :math:`-\log p`, with finite derivatives everywhere.

    :math:`1 - p` is ``-expm1(log p)``, which adds no error to that of ``log p``. The clamp cuts the
    derivative where it is inf (gamma < 1 at p = 1, where the factor multiplies a loss of 0) and
    where it would multiply an infinite loss by 0 (p = 0, where the factor is 1).
    """
    eps = torch.finfo(nll.dtype).eps
    return (-torch.expm1(-nll.clamp(eps**2, 1 / eps))).pow(gamma)


def focal_of_nll(nll: Tensor, gamma: float) -> Tensor:
    r""":math:`(1 - p)^\gamma (-\log p)` from :math:`-\log p`."""
    if is_eager() and not may_have_tangents():
        value: Tensor = _FocalOfNll.apply(nll, gamma, None)  # type: ignore[no-untyped-call]
        return value
    return focal_factor(nll, gamma) * nll


def focal_mean_of_nll(nll: Tensor, gamma: float, divisor: int) -> Tensor | None:
    """The sum of the same over ``divisor``, for few values that are readable.

    None where an infinite loss, or a gamma below 1 at p = 1, needs more care.
    """
    if may_have_tangents():
        return None
    value: Tensor = _FocalOfNll.apply(nll, gamma, divisor)  # type: ignore[no-untyped-call]
    return value if math.isfinite(value.item()) else None


class _FocalOfNll(torch.autograd.Function):
    """The same with its derivative in closed form: a third of the work, and of the graph.

    Without forward-mode differentiation, whose tangents would not reach the saved derivative.
    """

    @staticmethod
    def forward(ctx: Any, nll: Tensor, gamma: float, divisor: int | None) -> Tensor:
        clamped = nll
        if divisor is None:
            eps = torch.finfo(nll.dtype).eps
            clamped = nll.clamp(eps**2, 1 / eps)  # see focal_factor
        minus_q = clamped.neg().expm1_()  # p - 1, where q = 1 - p
        power = minus_q if gamma == 2 else minus_q.neg().pow_(gamma - 1).neg_()
        if divisor is not None:
            power = power * reciprocal(divisor, nll.dtype)
        factor = power * minus_q
        loss = factor * nll if divisor is None else torch.dot(factor, nll)
        # in place, since fresh memory costs more than arithmetic:
        # q^gamma + gamma nll (q^(gamma - 1) - q^gamma), the derivative by nll
        slope = factor.addcmul_(power.add_(factor), clamped, value=-gamma)
        ctx.gamma, ctx.divisor = gamma, divisor
        ctx.save_for_backward(nll, slope)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        nll, slope = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return grad * slope, None, None
        loss = focal_factor(nll, ctx.gamma) * nll  # a second derivative is asked for
        if ctx.divisor is not None:
            loss = loss.sum() / ctx.divisor
        [gradient] = torch.autograd.grad(loss, nll, grad, create_graph=True)
        return gradient, None, None
