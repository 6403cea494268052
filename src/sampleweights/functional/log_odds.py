"""One logit is the log-odds of the second of two classes, whose values per class it takes."""

from __future__ import annotations

import torch
from torch import Tensor

from sampleweights._buffers import follow
from sampleweights._checks import check_floating, class_dim
from sampleweights.functional.reference import by_class


def log_odds(per_class: Tensor) -> Tensor:
    """What values per class add to one logit: ``(2,)`` to a number, ``(L, 2)`` to ``(L,)``."""
    return per_class[..., 1] - per_class[..., 0]


def by_label(per_label: Tensor, elements: Tensor) -> Tensor:
    """A number for elements of any shape, or a value for each label for ``(N, L, ...)``."""
    if per_label.ndim == 0:
        return follow(per_label, elements)
    if elements.ndim < 2 or elements.shape[1] != len(per_label):
        raise ValueError(
            f"class_counts of {len(per_label)} labels need logits and target of shape "
            f"(N, {len(per_label)}, ...), got {tuple(elements.shape)}"
        )
    return by_class(per_label, elements)


def decision_logits(logits: Tensor, per_class: Tensor, made_for: str) -> Tensor:
    """``logits`` plus one value per class, in at least float32, for a decision after training.

    One logit is the log-odds: ``()``, ``(N,)`` or ``(N, 1, ...)`` for the values of two classes,
    ``(N, L, ...)`` for those of L labels. Else there is one logit for each class.
    """
    of_two = check_made_for(logits, per_class, made_for)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if of_two:
        return logits + by_label(log_odds(per_class), logits).to(logits.dtype)
    return logits + by_class(per_class.to(logits.dtype), logits)


def check_made_for(logits: Tensor, per_class: Tensor, made_for: str) -> bool:
    """Whether each logit is the log-odds of class 1 of two; a ValueError if logits do not fit.

    ``per_class`` has the shape that counts have: ``(C,)``, or ``(L, 2)`` for L labels.
    """
    check_floating("logits", logits)
    if per_class.ndim == 2:
        if logits.ndim < 2 or logits.shape[1] != len(per_class):
            raise ValueError(
                f"{made_for} was made for {len(per_class)} labels, logits must have shape "
                f"(N, {len(per_class)}, ...), got {tuple(logits.shape)}"
            )
        return True
    num_classes = len(per_class)
    if num_classes == 2 and (logits.ndim < 2 or logits.shape[1] == 1):
        return True
    came = logits.shape[class_dim(logits)] if logits.ndim else 0
    if came != num_classes:
        one = ", and not one logit, (N,) or (N, 1, ...)" if num_classes == 2 else ""
        raise ValueError(f"{made_for} was made for {num_classes} classes, logits have {came}{one}")
    return False


def classes_last(logits: Tensor, per_class: Tensor, made_for: str) -> Tensor:
    """A logit for each class in the last dimension, in at least float32.

    One logit is that of class 1 beside a 0, so that ``(N, L, ...)`` becomes ``(N, L, ..., 2)``;
    ``(N, C, ...)`` becomes ``(N, ..., C)``.
    """
    of_two = check_made_for(logits, per_class, made_for)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if of_two:
        return torch.stack([torch.zeros_like(logits), logits], -1)
    return logits.movedim(class_dim(logits), -1)


def beside(per_label: Tensor, elements: Tensor) -> Tensor:
    """Values of classes for elements ``(N, ..., C)``: ``(L, 2)`` for ``(N, L, ..., 2)``."""
    if per_label.ndim == 1:
        return per_label
    return per_label.reshape(len(per_label), *[1] * (elements.ndim - 3), per_label.shape[-1])
