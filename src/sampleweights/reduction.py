"""The reduction: from one value per sample to one scalar, the last step of the pipeline.

logits, target -> criterion: loss per sample -> weighter: weight per sample
               -> reduction: one scalar
"""

from __future__ import annotations

import math
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from sampleweights._checks import check_tensor
from sampleweights._eager import is_readable

__all__ = ["Reduction", "reduce", "weigh"]

Reduction = Literal["mean", "weighted_mean", "sum", "none"]
_REDUCTIONS = get_args(Reduction)


def check_reduction(reduction: str) -> Reduction:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {list(_REDUCTIONS)}, got {reduction!r}")
    return cast(Reduction, reduction)


def check_normalizer(normalizer: Tensor | float | None, reduction: Reduction) -> None:
    if normalizer is None:
        return
    if reduction in ("sum", "none"):
        raise ValueError(
            f"normalizer replaces the denominator of a mean and needs reduction 'mean' or "
            f"'weighted_mean', got reduction={reduction!r}"
        )
    if isinstance(normalizer, Tensor):
        if normalizer.ndim != 0:
            raise ValueError(
                f"normalizer must be a number or a tensor of no dimensions, got shape "
                f"{tuple(normalizer.shape)}"
            )
        if normalizer.is_complex() or normalizer.dtype == torch.bool:
            raise ValueError(f"normalizer must be a real number, got dtype {normalizer.dtype}")
        if not is_readable(normalizer):
            return
        normalizer = normalizer.item()
    if not 0 < normalizer < math.inf:
        raise ValueError(f"normalizer must be positive and finite, got {normalizer}")


DOT_AT_MOST = 4096
"""One operation instead of two, for sizes at which its sequential sum is as exact."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for the half precisions, whose range and digits do not survive a long sum."""
    return dtype if dtype.itemsize >= 4 else torch.float32


def nonzero(denominator: Tensor | float) -> Tensor | float:
    """``denominator`` with 0 replaced by 1: a batch in which nothing counts gives 0 / 1."""
    if isinstance(denominator, Tensor):
        return denominator.masked_fill(denominator == 0, 1)
    return 1 if denominator == 0 else denominator


def weigh(loss: Tensor, weight: Tensor) -> Tensor:
    r"""Multiply each loss by its weight. A weight of 0 gives exactly 0.

    .. math:: w_j \ell_j, \quad \text{with}\ 0 \cdot \infty = 0

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - weight: the shape of ``loss``, floating, at least 0.
        - Output: the shape of ``loss``.

    Gradient flows to ``loss`` and, if ``weight`` requires a gradient, to ``weight`` (also where
    the weight is 0, as learning to reweight by Ren et al., 2018, needs it).

    Example:
        >>> import torch
        >>> from sampleweights.reduction import weigh
        >>> weigh(torch.tensor([1.0, float("inf")]), torch.tensor([0.5, 0.0]))
        tensor([0.5000, 0.0000])
    """
    weighted = weight * loss
    if is_readable(loss) and math.isfinite(weighted.detach().sum().item()):
        return weighted  # nothing that a weight of 0 has not made 0
    dropped = weight == 0
    if weight.requires_grad:
        dropped = dropped & ~loss.isfinite()
    return weight * loss.masked_fill(dropped, 0)


def expand_to(loss: Tensor, sample_weight: Tensor) -> Tensor:
    """One weight for each loss, from one for each, or one for all that share leading positions."""
    check_tensor("sample_weight", sample_weight)
    weight = expanded(sample_weight, loss.shape)
    if weight is None:
        raise ValueError(
            f"sample_weight must have one value per sample, or one for all that share leading "
            f"dimensions, shape {tuple(loss.shape)}, got {tuple(sample_weight.shape)}"
        )
    return weight


def expanded(sample_weight: Tensor, shape: torch.Size) -> Tensor | None:
    """The same for losses of this shape; None where it does not fit."""
    if sample_weight.shape == shape:
        return sample_weight
    full = (*sample_weight.shape, *[1] * (len(shape) - sample_weight.ndim))
    fits = 0 < sample_weight.ndim <= len(shape) and full[0] == shape[0]
    if not fits or any(n not in (1, m) for n, m in zip(full, shape, strict=True)):
        return None
    return sample_weight.reshape(full).expand(shape)


def reduce(
    loss: Tensor,
    weight: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    r"""Weight per-sample losses and reduce them to a scalar.

    Let :math:`M` be the number of valid samples:

    ================= ====================================================
    ``reduction``     value
    ================= ====================================================
    "mean"            :math:`\sum_j w_j \ell_j / M` (Eq. 3 of the paper)
    "weighted_mean"   :math:`\sum_j w_j \ell_j / \sum_j w_j`
    "sum"             :math:`\sum_j w_j \ell_j`
    "none"            :math:`w_j \ell_j`
    ================= ====================================================

    If no sample counts (the batch is empty, or all samples are ignored or have weight 0), the
    result is 0 and ``backward()`` still works. Sums are computed in at least float32.

    Shape:
        - loss: :math:`(N, ...)`, floating, 0 where not valid.
        - weight: the shape of ``loss``, at least 0; None means 1 for every sample.
        - valid: the shape of ``loss``, bool; None means that every sample is valid.
        - Output: scalar, or the shape of ``loss`` with "none"; the dtype of ``loss``.

    Args:
        loss: one value per sample.
        weight: one weight per sample.
        valid: which samples are valid, that is, not ignored.
        reduction: one of the four names above.
        normalizer: a number or 0-d tensor that replaces the denominator of the two means, for
            example by that of the whole batch in gradient accumulation.

    Raises:
        ValueError: an unknown ``reduction``, or a ``normalizer`` that is not positive or is given
            for "sum" or "none".

    Example:
        >>> import torch
        >>> from sampleweights.reduction import reduce
        >>> loss = torch.tensor([1.0, 2.0, 6.0])
        >>> weight = torch.tensor([1.0, 1.0, 0.0])
        >>> reduce(loss, weight), reduce(loss, weight, reduction="weighted_mean")
        (tensor(1.), tensor(1.5000))

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 3.
    """
    name = check_reduction(reduction)
    check_normalizer(normalizer, name)
    dtype = loss.dtype
    if dtype.itemsize < 4:
        loss = loss.float()
    if weight is not None and weight.dtype != loss.dtype:
        weight = weight.to(loss.dtype)
    if name == "none":
        value = loss if weight is None else weigh(loss, weight)
    else:
        divisor = denominator(name, loss.numel(), weight=weight, valid=valid, normalizer=normalizer)
        value = weighted_mean(loss, weight, divisor)
    return value if value.dtype == dtype else value.to(dtype)


def denominator(
    reduction: Reduction,
    num_samples: int,
    *,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    valid: Tensor | None = None,
    normalizer: Tensor | float | None = None,
) -> Tensor | float:
    """What the sum of the weighted losses is divided by: the only place that decides it.

    ``class_weight`` holds one factor for each sample that the losses contain already and that a
    mean divides by, 0 where not valid.
    """
    if normalizer is not None:
        return normalizer
    if reduction == "sum":
        return 1
    if class_weight is not None:
        class_weight = class_weight.to(accumulation_dtype(class_weight.dtype))
        if reduction == "weighted_mean" and weight is not None:
            class_weight = class_weight * weight
        return class_weight.sum()
    if reduction == "weighted_mean" and weight is not None:
        return (weight if valid is None else weight * valid).sum()
    return num_samples if valid is None else valid.sum()


def weighted_mean(loss: Tensor, weight: Tensor | None, divisor: Tensor | float) -> Tensor:
    """The sum of the weighted losses over ``divisor``, 0 where that is 0: the only sum there is.

    In at least float32; the caller rounds.
    """
    if loss.dtype.itemsize < 4:
        loss = loss.float()
    divisor = nonzero(divisor)
    is_one = isinstance(divisor, int) and divisor == 1
    if weight is not None:
        if weight.dtype != loss.dtype:
            weight = weight.to(loss.dtype)
        return weighted_sum(loss, weight if is_one else weight / divisor)
    if is_one:
        return loss.sum()
    if isinstance(divisor, int) and divisor == loss.numel():
        return _mean(loss)
    return loss.sum() / divisor


def _mean(loss: Tensor) -> Tensor:
    # is_readable first: compiled and exported code must not depend on the size of a batch
    if is_readable(loss) and loss.ndim == 1 and loss.numel() <= DOT_AT_MOST:
        return torch.dot(loss, loss.new_full(loss.shape, 1 / loss.numel()))  # half its graph
    return loss.mean()


def weighted_sum(loss: Tensor, weight: Tensor) -> Tensor:
    readable = is_readable(loss) and loss.ndim == 1 and not weight.requires_grad
    if readable and loss.numel() <= DOT_AT_MOST:
        total = torch.dot(loss, weight)
        if math.isfinite(total.item()):
            return total
    return weigh(loss, weight).sum()
