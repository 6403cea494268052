"""Arguments: what fits, and the error that says what was expected and what came."""

from __future__ import annotations

import math
import operator
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sampleweights._eager import is_readable, plain

Normalize = Literal["samples", "classes"]


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


def as_whole_number(name: str, value: Any, least: int) -> int:
    """``value`` as a whole number that is at least ``least``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def is_index(target: Tensor) -> bool:
    return not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)


def check_floating(name: str, tensor: Tensor) -> None:
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating, got dtype {tensor.dtype}")


def check_reference_loss(reference_loss: Tensor, loss: Tensor) -> None:
    check_floating("reference_loss", reference_loss)
    if reference_loss.shape != loss.shape:
        raise ValueError(
            f"reference_loss must have one value per sample, shape {tuple(loss.shape)}, got "
            f"{tuple(reference_loss.shape)}"
        )


def check_gamma(gamma: float, name: str = "gamma") -> float:
    gamma = as_number(name, gamma)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {gamma}")
    return gamma


def check_clip(clip: float) -> float:
    clip = as_number("clip", clip)
    if clip != 0 and not 1e-6 <= clip < 1:  # of less, derivatives overflow in float32
        raise ValueError(f"clip must be 0 or in [1e-6, 1), got {clip}")
    return clip


def as_factor(name: str, factor: Tensor | float | None) -> Tensor | None:
    """A factor of the losses: a tensor as it is, a number as one of no dimensions."""
    if factor is None or isinstance(factor, Tensor):
        return None if factor is None else plain(factor)
    return torch.tensor(as_number(name, factor))


def check_alpha(alpha: Any) -> float | Tensor | None:
    """The weight of the positives: a number, or one for each label, ``(C,)`` in float64."""
    if alpha is None:
        return None
    if not isinstance(alpha, (Tensor, np.ndarray, list, tuple)) or np.ndim(alpha) == 0:
        number = as_number("alpha", alpha)
        if not 0 <= number <= 1:
            raise ValueError(f"alpha must be in [0, 1] or None, got {number}")
        return number
    by_label = on_cpu("alpha", alpha).double()
    if by_label.ndim != 1 or by_label.numel() == 0:
        raise ValueError(
            f"alpha must be a number, or hold one for each label, shape (C,), got shape "
            f"{tuple(by_label.shape)}"
        )
    if not ((by_label >= 0) & (by_label <= 1)).all():
        raise ValueError(f"alpha must be in [0, 1] for every label, got {by_label.tolist()}")
    return by_label


def check_label_smoothing(label_smoothing: float) -> float:
    label_smoothing = as_number("label_smoothing", label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    return label_smoothing


def is_row_per_index(logits: Any, target: Any) -> bool:
    """Whether these are ``(N, C)`` floating and ``(N,)`` int64, as most are: a quick look."""
    return (
        type(logits) is Tensor
        and type(target) is Tensor
        and target.dtype is torch.int64
        and target.ndim == 1
        and logits.ndim == 2
        and logits.shape[0] == target.shape[0]
        and logits.is_floating_point()
    )


def check_classification(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> None:
    """Shapes and dtypes, as nn.CrossEntropyLoss understands them."""
    if weight is None and is_row_per_index(logits, target):
        return
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
                f"{tuple(logits.shape)}, got {tuple(target.shape)}{_as_indices(logits, target)}"
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
            f"{tuple(logits.shape)}, got {tuple(target.shape)}{_as_indices(logits, target)}"
        )


def _as_indices(logits: Tensor, target: Tensor) -> str:
    """What makes class indices of labels with a channel, or in floating numbers, as MONAI's are."""
    dim = class_dim(logits)
    shape, call = logits.shape[:dim] + logits.shape[dim + 1 :], ""
    if target.ndim == logits.ndim and target.shape[dim] == 1:
        call, shape = f".squeeze({dim})", torch.Size((*shape[:dim], 1, *shape[dim:]))
    if target.is_floating_point():
        call += ".long()"
    return f"; for class indices pass target{call}" if call and target.shape == shape else ""


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


def check_binary(logits: Tensor, target: Tensor) -> None:
    check_binary_metadata(logits, target)
    if is_readable(target) and target.numel():
        low, high = value_range(target)
        if low < 0 or high > 1:
            raise ValueError(f"target must lie in [0, 1], got values from {low} to {high}")


def check_binary_metadata(logits: Tensor, target: Tensor) -> None:
    check_floating("logits", logits)
    check_tensor("target", target)
    if target.shape != logits.shape:
        raise ValueError(
            f"target must have the shape of logits, {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if target.is_complex():
        raise TypeError(f"target must hold 0, 1 or probabilities, got dtype {target.dtype}")


def value_range(target: Tensor) -> tuple[float, float]:
    """The lowest and the highest value of a tensor that ``is_readable``; NaN if it holds one."""
    low, high = (target.long() if is_index(target) else target).aminmax()  # uint16 has no minimum
    return low.item(), high.item()


def on_cpu(name: str, values: Any) -> Tensor:
    """Numbers in any container, as a plain tensor on the CPU (of the same memory if it can be)."""
    try:
        if isinstance(values, Tensor):
            return plain(values.detach()).cpu()
        if torch.compiler.is_compiling() and isinstance(values, (list, tuple)):
            return torch.tensor(values, dtype=torch.float64)  # dynamo does not read numpy's flags
        array = np.array(values)
        copied = not array.flags.writeable  # of pyarrow, in spite of np.array; torch warns of it
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=copied))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be numbers, got {values!r:.60}: {error}") from error


def check_power(power: float) -> float:
    power = as_number("power", power)
    if not 0 <= power < math.inf:
        raise ValueError(f"power must be finite and at least 0, got {power}")
    return power


def check_normalize(normalize: str | None) -> None:
    if normalize is not None and normalize not in get_args(Normalize):
        raise ValueError(f"normalize must be 'samples', 'classes' or None, got {normalize!r}")
