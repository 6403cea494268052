"""Cross-entropy and focal loss of one class of many, one value per sample."""

from __future__ import annotations

import functools
import importlib.util
import warnings

import torch
from torch import Tensor

from sampleweights._checks import check_classification, check_gamma, check_label_smoothing, is_index
from sampleweights._eager import is_eager, is_plain
from sampleweights.functional.reference import (
    look_up_valid,
    output_dtype,
    softmax_loss_reference,
    torch_cross_entropy,
)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Softmax cross-entropy, one value per sample.

    .. math:: \ell_j = -\log p(y_j)

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`, any
          integer dtype; or probabilities with the shape of ``logits``.
        - weight: :math:`(C)`, the dtype of ``logits``; torch's own class weights.
        - Output: :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`; 0 where ignored.

    Args:
        logits: unnormalised scores.
        target: class indices or probabilities.
        weight: rescales the loss of each class, as in ``F.cross_entropy``.
        ignore_index: the class index that marks a sample to leave out.
        label_smoothing: in [0, 1].

    Raises:
        ValueError, TypeError, IndexError: shapes, dtypes and (on the CPU) values that do not fit.

    Example:
        >>> import torch
        >>> from sampleweights.functional import cross_entropy
        >>> cross_entropy(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.1269, 0.6931])

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 5.
    """
    check_classification(logits, target, weight, ignore_index)
    label_smoothing = check_label_smoothing(label_smoothing)
    return torch_cross_entropy(logits, target, weight, ignore_index, label_smoothing)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Softmax focal loss, one value per sample.

    .. math:: \ell_j = (1 - p_t)^\gamma \, \mathrm{CE}_j

    :math:`p_t` is the softmax probability of the target class. Class weights and label smoothing
    apply to the cross-entropy, never to :math:`p_t`. For probabilities as target,

    .. math:: \ell_j = \sum_c t_c (1 - p_c)^\gamma (-\log p_c),

    with smoothing and class weights applied to :math:`t`. Half precision is computed in float32.

    Shape:
        - logits, target, weight, Output: as in :func:`cross_entropy`.

    Args:
        logits: unnormalised scores.
        target: class indices or probabilities.
        gamma: focusing parameter, at least 0; 0 is cross-entropy exactly.
        weight: torch's own class weights (the alpha of Lin et al.).
        ignore_index: the class index that marks a sample to leave out.
        label_smoothing: in [0, 1].

    Raises:
        ValueError, TypeError, IndexError: arguments, shapes, dtypes and (on the CPU) values that
            do not fit.

    Example:
        >>> import torch
        >>> from sampleweights.functional import focal_loss
        >>> focal_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]), gamma=1.0)
        tensor([0.0151, 0.3466])

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 6.
    """
    check_classification(logits, target, weight, ignore_index)
    gamma = check_gamma(gamma)
    label_smoothing = check_label_smoothing(label_smoothing)
    return softmax_loss(logits, target, gamma, weight, ignore_index, label_smoothing)


def softmax_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    lean: bool = False,
) -> Tensor:
    """Focal loss, or cross-entropy where gamma is 0, of arguments that have been checked.

    ``lean`` asks for a cheaper backward pass than torch's, whose bits then differ.
    """
    if not has_kernel(logits, target, weight, label_smoothing):
        return softmax_loss_reference(
            logits, target, gamma, weight, ignore_index, label_smoothing, lean
        )
    from sampleweights.functional import kernels

    target = target.long()
    loss = kernels.softmax_loss(logits, target, gamma, ignore_index, label_smoothing)
    if weight is not None:
        valid = target != ignore_index
        loss = loss * look_up_valid(weight.to(loss.dtype), target, valid)
    return loss.to(output_dtype(logits, target))


def has_kernel(
    logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> bool:
    """Whether the Triton kernels compute this: on CUDA, and large enough to be worth a launch.

    Compiled code has no use for them: the compiler fuses the reference in the same way. Sizes come
    after that, since a size that is looked at while compiling is a guard.
    """
    return (
        _on_one_gpu(logits, target)
        and is_eager()
        and logits.numel() >= 2**20
        and logits.ndim > 1
        and logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and is_index(target)
        and (weight is None or label_smoothing == 0)
        and is_plain(logits)
        and is_plain(target)
        and _kernels_work(logits.device, logits.dtype)
    )


def _on_one_gpu(logits: Tensor, target: Tensor) -> bool:
    return logits.is_cuda and logits.device == target.device


@functools.cache
def _kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton is here and can compile for this device: tried once, on two logits.

    Triton needs a C compiler when it runs, and a GPU that knows the dtype. A program that works
    without Triton works with it.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from sampleweights.functional import kernels

        kernels.try_out(device, dtype)
    except Exception as error:  # whatever Triton, the compiler it calls or the driver raise
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        warnings.warn(
            f"large losses of {dtype} on {device} are computed by torch's own operations, with "
            f"more memory, since Triton cannot run kernels there ({reason:.300})",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
