"""The formulas: per-sample losses, and class counts to class weights. Pure functions, no state."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Normalize",
    "binary_focal_loss",
    "class_balanced_weights",
    "cross_entropy",
    "effective_number_weights",
    "focal_loss",
]

Normalize = Literal["samples", "classes"]


# ---------------------------------------------------------------------------------------------
# Where we are
# ---------------------------------------------------------------------------------------------

# What torch.func (vmap and its kin) transforms, None outside of it. The name is private: where it
# is missing, everything counts as inside, which is slower and as right.
_transform: Callable[[], Any] = getattr(torch._C._functorch, "peek_interpreter_stack", object)


def is_eager() -> bool:
    """Neither compiled nor transformed by torch.func: what we write is what runs."""
    return not torch.compiler.is_compiling() and _transform() is None


def is_readable(tensor: Tensor) -> bool:
    """Whether reading a value of ``tensor`` costs nothing: eager, on the CPU, no subclass."""
    return tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter) and is_eager()


# ---------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------


def class_dim(logits: Tensor) -> int:
    """Where the classes are: 1, or 0 for the logits ``(C,)`` of a single sample."""
    return 0 if logits.ndim == 1 else 1


def as_number(name: str, value: Any) -> float:
    """``value`` as a float, or a TypeError that names the argument."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def is_index(target: Tensor) -> bool:
    return not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)


def check_floating(name: str, tensor: Tensor) -> None:
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating, got dtype {tensor.dtype}")


def check_gamma(gamma: float) -> float:
    gamma = as_number("gamma", gamma)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be finite and at least 0, got {gamma}")
    return gamma


def check_label_smoothing(label_smoothing: float) -> float:
    label_smoothing = as_number("label_smoothing", label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    return label_smoothing


def check_classification(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> None:
    """Shapes and dtypes, as nn.CrossEntropyLoss understands them."""
    check_floating("logits", logits)
    check_tensor("target", target)
    if logits.ndim == 0:
        raise ValueError("logits must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    dim = class_dim(logits)
    if weight is not None and weight.shape != (logits.shape[dim],):
        raise ValueError(
            f"weight must have shape ({logits.shape[dim]},), one value for each class of logits, "
            f"got {tuple(weight.shape)}"
        )
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise ValueError(
                f"target with probabilities must have the shape of logits, "
                f"{tuple(logits.shape)}, got {tuple(target.shape)}"
            )
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index must be negative for a target with probabilities, got {ignore_index}"
            )
        return
    if not is_index(target):
        raise TypeError(
            f"target must hold class indices (integer) or probabilities (floating), "
            f"got dtype {target.dtype}"
        )
    expected = logits.shape[:dim] + logits.shape[dim + 1 :]
    if target.shape != expected:
        raise ValueError(
            f"target with class indices must have shape {tuple(expected)} for logits of shape "
            f"{tuple(logits.shape)}, got {tuple(target.shape)}"
        )


def check_class_indices(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    """Name the first bad class index. Reads values: for the CPU, once something went wrong."""
    wrong = (target < 0) | (target >= num_classes)
    except_for = ""
    if ignore_index is not None:
        wrong &= target != ignore_index
        except_for = f" or ignore_index ({ignore_index})"
    if wrong.any():
        raise IndexError(
            f"target must hold class indices from 0 to {num_classes - 1}{except_for}, "
            f"got {target[wrong][0].item()}"
        )


def valid_mask(target: Tensor, ignore_index: int) -> Tensor | None:
    """Which samples are not ignored; None if every one is known to be valid."""
    if is_index(target):
        if is_readable(target) and target.numel():
            if ignore_index < 0:
                every = target.min().item() > ignore_index
            else:
                every = target.max().item() < ignore_index
            if every:
                return None
        target = target.long()  # uint8 would turn -100 into 156
    return target != ignore_index


def output_dtype(logits: Tensor, target: Tensor) -> torch.dtype:
    """What F.cross_entropy returns: the dtype of its inputs, at least float32 under autocast."""
    dtype = logits.dtype
    if target.is_floating_point():
        dtype = torch.promote_types(dtype, target.dtype)
    if torch.is_autocast_enabled(logits.device.type):
        dtype = torch.promote_types(dtype, torch.float32)
    return dtype


# ---------------------------------------------------------------------------------------------
# Per-sample losses
# ---------------------------------------------------------------------------------------------


def torch_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: Literal["none", "mean", "sum"] = "none",
) -> Tensor:
    """F.cross_entropy with any integer dtype, a clear index error, and smoothing in float32."""
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
        return F.cross_entropy(
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


def look_up_valid(table: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """``table[target]`` for a table of one value per class; 0 where not valid."""
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
        target: what is true.
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
    check_label_smoothing(label_smoothing)
    return torch_cross_entropy(logits, target, weight, ignore_index, label_smoothing)


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
    if is_eager():
        value: Tensor = _FocalOfNll.apply(nll, gamma)  # type: ignore[no-untyped-call]
        return value
    return focal_factor(nll, gamma) * nll


class _FocalOfNll(torch.autograd.Function):
    """The same with its derivative in closed form: a third of the work, and of the graph."""

    @staticmethod
    def forward(ctx: Any, nll: Tensor, gamma: float) -> Tensor:
        eps = torch.finfo(nll.dtype).eps
        clamped = nll.clamp(eps**2, 1 / eps)  # see focal_factor
        q = clamped.neg().expm1_().neg_()  # 1 - p
        power = q if gamma == 2 else q.pow(gamma - 1)
        loss = (q * power).mul_(nll)
        # in place, since fresh memory costs more than arithmetic:
        # q^(gamma - 1) (q + gamma nll p), the derivative by nll
        slope = clamped.mul_(gamma).addcmul_(clamped, q, value=-1).add_(q).mul_(power)
        ctx.gamma = gamma
        ctx.save_for_backward(nll, slope)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        nll, slope = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return grad * slope, None
        loss = focal_factor(nll, ctx.gamma) * nll  # a second derivative is asked for
        [gradient] = torch.autograd.grad(loss, nll, grad, create_graph=True)
        return gradient, None


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

    :math:`p_t` is the softmax probability of the target class; class weights and label smoothing
    are in the cross-entropy, never in :math:`p_t`. For probabilities as target,

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
    check_gamma(gamma)
    check_label_smoothing(label_smoothing)
    return softmax_loss(logits, target, gamma, weight, ignore_index, label_smoothing)


def softmax_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """Focal loss, or cross-entropy where gamma is 0, of arguments that have been checked."""
    if not has_kernel(logits, target, weight, label_smoothing):
        return softmax_loss_reference(logits, target, gamma, weight, ignore_index, label_smoothing)
    from sampleweights import kernels

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

    Compiled code has no use for them: the compiler fuses the reference in the same way.
    """
    return (
        logits.is_cuda
        and logits.numel() >= 2**20
        and logits.ndim > 1
        and logits.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and is_index(target)
        and (weight is None or label_smoothing == 0)
        and is_eager()
        and _has_triton()
    )


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def softmax_loss_reference(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """The same in torch's own operations, which differentiate twice, trace and compile."""
    if gamma == 0:
        return torch_cross_entropy(logits, target, weight, ignore_index, label_smoothing)
    dtype = logits.dtype
    if dtype.itemsize < 4 or target.is_floating_point():
        dtype = output_dtype(logits, target)
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    if weight is not None:
        weight = weight.to(logits.dtype)
    if target.is_floating_point():
        return _focal_of_probabilities(logits, target, gamma, weight, label_smoothing).to(dtype)
    nll = torch_cross_entropy(logits, target, None, ignore_index, 0.0)  # -log p_t
    if label_smoothing:
        smooth = torch_cross_entropy(logits, target, weight, ignore_index, label_smoothing)
        # an infinite loss stays as it is: its product has the derivative 0 * inf
        infinite = smooth.isinf()
        loss = focal_factor(nll, gamma) * smooth.masked_fill(infinite, 0)
        return torch.where(infinite, smooth, loss).to(dtype)
    loss = focal_of_nll(nll, gamma)
    if weight is not None:
        loss = loss * look_up_valid(weight, target, valid_mask(target, ignore_index))
    return loss if loss.dtype == dtype else loss.to(dtype)


def _focal_of_probabilities(
    logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None, label_smoothing: float
) -> Tensor:
    dim = class_dim(logits)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / logits.shape[dim]
    if weight is not None:
        target = target * weight.reshape([-1] + [1] * (logits.ndim - dim - 1))
    nll = -F.log_softmax(logits, dim)
    return (target * focal_factor(nll, gamma) * nll).sum(dim)


def binary_focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float | None = 0.25
) -> Tensor:
    r"""Sigmoid focal loss, one value per element: for binary and multi-label targets.

    .. math::
        \ell = t \, \alpha (1 - p)^\gamma (-\log p)
             + (1 - t) (1 - \alpha) \, p^\gamma (-\log(1 - p)), \quad p = \sigma(z)

    Half precision is computed in float32.

    Shape:
        - logits: any shape, floating.
        - target: the shape of ``logits``; 0 or 1 (any dtype) or probabilities (floating).
        - Output: the shape of ``logits``.

    Args:
        logits: one score per element.
        target: what is true.
        gamma: focusing parameter, at least 0.
        alpha: weight of the positives, in [0, 1], with 1 - alpha for the negatives; None leaves
            both factors out.

    Raises:
        ValueError, TypeError: arguments, shapes, dtypes and (on the CPU) values that do not fit.

    Example:
        >>> import torch
        >>> from sampleweights.functional import binary_focal_loss
        >>> binary_focal_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]))
        tensor([0.0005, 0.1755])

    Note:
        Peers disagree on targets between 0 and 1. Ours is the expected loss of a label drawn with
        probability t; on 0 and 1 it equals ``torchvision.ops.sigmoid_focal_loss``.

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 5.
    """
    check_gamma(gamma)
    check_alpha(alpha)
    check_binary(logits, target)
    dtype = logits.dtype
    if dtype.itemsize < 4:
        logits = logits.float()
    limit = torch.finfo(logits.dtype).max
    logits = logits.clamp(-limit, limit)  # so that no factor of 0 meets an inf
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    if target.is_floating_point():
        target = target.to(logits.dtype)
        loss = target * positive * _binary_focal(-logits, gamma)
        loss = loss + (1 - target) * negative * _binary_focal(logits, gamma)
    else:
        is_positive = target != 0
        loss = _binary_focal(torch.where(is_positive, -logits, logits), gamma)
        if alpha is not None:
            loss = torch.where(is_positive, positive * loss, negative * loss)
    return loss.to(dtype)


def _binary_focal(margin: Tensor, gamma: float) -> Tensor:
    """Focal loss of the label whose log-odds are ``-margin``, in log space throughout."""
    nll = -F.logsigmoid(-margin)
    return nll if gamma == 0 else nll * torch.exp(gamma * F.logsigmoid(margin))


def check_alpha(alpha: float | None) -> float | None:
    if alpha is None:
        return None
    alpha = as_number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1] or None, got {alpha}")
    return alpha


def check_binary(logits: Tensor, target: Tensor) -> None:
    check_floating("logits", logits)
    check_tensor("target", target)
    if target.shape != logits.shape:
        raise ValueError(
            f"target must have the shape of logits, {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if target.is_complex():
        raise TypeError(f"target must hold 0, 1 or probabilities, got dtype {target.dtype}")
    if is_readable(target) and target.numel():
        low, high = target.aminmax()
        if low < 0 or high > 1:
            raise ValueError(
                f"target must lie in [0, 1], got values from {low.item()} to {high.item()}"
            )


# ---------------------------------------------------------------------------------------------
# Class counts to class weights
# ---------------------------------------------------------------------------------------------


def on_cpu(name: str, values: Any) -> Tensor:
    """A copy of numbers in any container, as a tensor on the CPU."""
    try:
        if isinstance(values, Tensor):
            return values.detach().cpu()
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be numbers, got {values!r:.60}: {error}") from error


def as_class_counts(class_counts: Tensor | Sequence[int] | Any) -> Tensor:
    """Class counts as int64 on the CPU, or a ValueError that says what is wrong with them."""
    counts = on_cpu("class_counts", class_counts)
    if counts.ndim != 1 or counts.numel() == 0:
        raise ValueError(f"class_counts must have shape (C,), got {tuple(counts.shape)}")
    if counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(f"class_counts must be whole numbers, got dtype {counts.dtype}")
    counts = counts.double() if counts.is_floating_point() else counts.long()
    bad = (counts < 0) | ~counts.isfinite() | (counts != counts.floor()) | (counts >= 2**53)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"class_counts must be whole numbers from 0 to 2**53, got {counts[first].item()} "
            f"for class {first}"
        )
    if not counts.any():
        raise ValueError("class_counts must hold at least one sample, got only zeros")
    return counts.long()


def check_normalize(normalize: str | None) -> None:
    if normalize is not None and normalize not in get_args(Normalize):
        raise ValueError(f"normalize must be 'samples', 'classes' or None, got {normalize!r}")


def _normalized(weight: Tensor, counts: Tensor, normalize: str | None) -> Tensor:
    weight = weight.masked_fill(counts == 0, 0)
    if normalize == "samples":
        return weight * (counts.sum() / (counts * weight).sum())
    if normalize == "classes":
        return weight * ((counts > 0).sum() / weight.sum())
    return weight


def class_balanced_weights(
    class_counts: Tensor | Sequence[int] | Any, normalize: Normalize | None = "samples"
) -> Tensor:
    r"""Inverse class frequencies.

    .. math:: w_c = N / N_c

    Shape:
        - class_counts: :math:`(C)`, whole numbers; tensor, list or numpy array.
        - Output: :math:`(C)`, float64, on the CPU; 0 for a class without samples, which takes no
          part in the normalisation.

    Args:
        class_counts: training samples of each class.
        normalize: "samples" (the mean weight over the training samples is 1; the result is then
            scikit-learn's "balanced"), "classes" (the weights sum to the number of classes) or
            None (the equation as it stands).

    Raises:
        ValueError: counts that are negative, not whole, not finite, all zero or not 1-D; unknown
            ``normalize``.

    Example:
        >>> from sampleweights.functional import class_balanced_weights
        >>> class_balanced_weights([90, 9, 1])
        tensor([ 0.3704,  3.7037, 33.3333], dtype=torch.float64)
        >>> class_balanced_weights([90, 9, 1], normalize=None)
        tensor([  1.1111,  11.1111, 100.0000], dtype=torch.float64)

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 7.
    """
    check_normalize(normalize)
    counts = as_class_counts(class_counts).double()
    return _normalized(counts.sum() / counts, counts, normalize)  # Eq. 7


def effective_number_weights(
    class_counts: Tensor | Sequence[int] | Any,
    beta: float | None = None,
    normalize: Normalize | None = "samples",
) -> Tensor:
    r"""Inverse effective number of samples.

    .. math:: w_c = \frac{1 - \beta}{1 - \beta^{N_c}}, \quad \beta = (N - 1) / N

    Computed with ``expm1`` and ``log1p``, to 1e-12 relative for counts up to 1e12.

    Shape:
        - class_counts: :math:`(C)`, whole numbers; tensor, list or numpy array.
        - Output: :math:`(C)`, float64, on the CPU; 0 for a class without samples, which takes no
          part in the normalisation.

    Args:
        class_counts: training samples of each class.
        beta: in [0, 1); None is (N - 1) / N, with N the number of training samples.
        normalize: "samples" (the mean weight over the training samples is 1), "classes" (the
            weights sum to the number of classes, as in Cui et al.) or None (the equation as it
            stands, whose mean is about 1 / N).

    Raises:
        ValueError: bad counts as in :func:`class_balanced_weights`, ``beta`` outside [0, 1),
            unknown ``normalize``.

    Example:
        >>> from sampleweights.functional import effective_number_weights
        >>> effective_number_weights([90, 9, 1])
        tensor([ 0.4729,  3.2548, 28.1484], dtype=torch.float64)

    References:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eq. 2.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 8.
    """
    check_normalize(normalize)
    if beta is not None and not 0 <= as_number("beta", beta) < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    counts = as_class_counts(class_counts).double()
    one_minus_beta = 1 / counts.sum().item() if beta is None else 1 - beta
    # for beta = 0 the logarithm is -inf and every weight 1; the empty class, 0 * -inf, is masked
    log_beta = math.log1p(-one_minus_beta) if one_minus_beta < 1 else -math.inf
    weight = one_minus_beta / -torch.expm1(counts * log_beta)  # Eq. 8
    return _normalized(weight, counts, normalize)
