"""Samples that were not trained on, as a calibration and prediction sets are fitted to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import (
    check_class_indices,
    check_classification,
    check_floating,
    check_tensor,
    on_cpu,
)
from sampleweights.functional.log_odds import classes_last


def held_out(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A logit for each class and the classes: (n, C) and (n,), or of labels (n, L, 2) and (n, L).

    A target in the shape of the logits holds 0 and 1; the logits are then log-odds.
    """
    check_floating("logits", logits)
    check_tensor("target", target)
    logits, target = logits.detach(), target.detach().to(logits.device)
    if logits.ndim > 1 and logits.shape[1] == 1 and target.shape == logits[:, 0].shape:
        target = target[:, None]
    if target.shape == logits.shape and logits.ndim:
        found = _of_two(logits, target)
    else:
        if logits.ndim == 1 and len(logits) == len(target.reshape(-1)) > 1:
            raise ValueError(
                f"target of one logit must have the shape of logits, {tuple(logits.shape)}, got "
                f"{tuple(target.shape)}"
            )
        check_classification(logits, target, None, -100)
        if logits.ndim == 1:
            raise ValueError(
                f"logits must be those of many samples, (N, C, ...), got {tuple(logits.shape)}"
            )
        num_classes = logits.shape[1]
        check_class_indices(target, num_classes, None)
        per_class = classes_last(logits, logits.new_empty(num_classes), "target")
        found = per_class.reshape(-1, num_classes), target.reshape(-1).long()
    per_class, classes = found
    if classes.numel() == 0:
        raise ValueError("target must hold at least one sample, got none")
    if not logits.isfinite().all():
        bad = logits[~logits.isfinite()][0].item()
        raise ValueError(f"logits must be finite, got {bad}")
    return per_class, classes


def _of_two(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-odds, of one class or of each label."""
    if target.is_complex() or not ((target == 0) | (target == 1)).all():
        raise ValueError(
            f"target in the shape of logits, {tuple(logits.shape)}, must hold 0 and 1, got "
            f"{target[(target != 0) & (target != 1)][0].item()}; of classes, pass their indices"
        )
    labels = logits.shape[1] if logits.ndim > 1 else 1
    if labels == 1:
        return classes_last(logits, logits.new_empty(2), "target").reshape(-1, 2), (
            target.reshape(-1).long()
        )
    if len(target) > 1 and (target.long().sum(1) == 1).all() and not target.all(0).any():
        raise ValueError(
            "target has a single 1 for each sample, as one-hot classes have: pass "
            "target.argmax(1); labels of which a sample always has exactly one are classes"
        )
    pairs = classes_last(logits, logits.new_empty(labels, 2), "target")
    return pairs.movedim(1, -2).reshape(-1, labels, 2), target.movedim(1, -1).reshape(
        -1, labels
    ).long()


def class_values(name: str, values: Any) -> Tensor:
    """A copy in float64 of a value for each class, (C,), or for each label's two, (L, 2)."""
    given = on_cpu(name, values)
    if given.is_complex():
        raise ValueError(f"{name} must be real numbers, got dtype {given.dtype}")
    found = given.to(torch.float64, copy=True)
    if not (found.ndim in (1, 2) and found.shape[-1] > 1) or (
        found.ndim == 2 and found.shape[1] != 2
    ):
        raise ValueError(f"{name} must have shape (C,) or (L, 2), got {tuple(found.shape)}")
    return found


def count(classes: Tensor, num_classes: int) -> Tensor:
    """Samples of each class, (C,), or of each label's two, (L, 2)."""
    if classes.ndim == 1:
        return torch.bincount(classes, minlength=num_classes)
    return torch.stack([(classes == c).sum(0) for c in range(num_classes)], -1)


def check_every_class(classes: Tensor, num_classes: int, why: str) -> None:
    """Refuse samples among which a class is missing."""
    missing = (count(classes, num_classes) == 0).nonzero()
    if len(missing):
        *label, c = missing[0].tolist()
        of = f" of label {label[0]}" if label else ""
        raise ValueError(f"target must hold at least one sample of each class{why}, got none of "
                         f"class {c}{of}")  # fmt: skip
