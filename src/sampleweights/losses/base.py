"""What every criterion is: per-sample losses, weighted by a weighter, reduced to a scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from sampleweights.functional import check_tensor
from sampleweights.reduction import (
    accumulation_dtype,
    check_normalizer,
    check_reduction,
    nonzero,
    reduce,
)
from sampleweights.weighters.base import Weighter, set_epoch_below
from sampleweights.weighters.compose import as_weighter

__all__ = ["Criterion"]


class Samples(NamedTuple):
    """A batch on its way from a loss to the weighter and the reduction."""

    loss: Tensor
    """``(N, ...)``, 0 where not valid."""
    target: Tensor | None
    """What the weighter sees: class indices ``(N, ...)`` or probabilities."""
    valid: Tensor | None = None
    """``(N, ...)`` bool; None: every sample."""
    num_classes: int | None = None
    """For the check against the weighter's; None: unknown."""
    class_weight: Tensor | None = None
    """``(N, ...)``: the factors of torch's own ``weight=`` that are already in ``loss``."""


class Criterion(nn.Module, ABC):
    """Base of all losses: ``samples`` says what each sample costs, the rest is common."""

    def __init__(self, *, reduction: str, weighter: Weighter | Sequence[Weighter] | None) -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)
        self.weighter = None if weighter is None else as_weighter(weighter)

    @abstractmethod
    def samples(self, logits: Any, target: Tensor) -> Samples:
        """Per-sample losses, before the weighter, and what the weighter needs."""

    def forward(
        self,
        logits: Any,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        return self.reduce(self.samples(logits, target), sample_weight, normalizer)

    def set_epoch(self, epoch: float) -> None:
        """Tell every nested weighter which epoch it is (from 0; may be a fraction)."""
        set_epoch_below(self, epoch)

    def weigh(self, samples: Samples, sample_weight: Tensor | None = None) -> Tensor | None:
        """The weighter's weights times ``sample_weight``; None where both are absent."""
        weight = None
        weighter = self.weighter
        dtype = accumulation_dtype(samples.loss.dtype)
        if weighter is not None and not weighter.inactive:
            made_for, num_classes = weighter.num_classes, samples.num_classes
            if made_for is not None and num_classes is not None and made_for != num_classes:
                raise ValueError(
                    f"weighter was made for {made_for} classes, logits have {num_classes}"
                )
            loss = samples.loss.detach()
            if loss.dtype != dtype:
                loss = loss.to(dtype)
            weight = weighter(loss, samples.target, samples.valid)
            if weight.requires_grad:  # the weighter has parameters of its own
                weight = weight.detach()
            if weight.shape != loss.shape:
                raise ValueError(
                    f"weighter must return one weight per sample, shape "
                    f"{tuple(samples.loss.shape)}, got {tuple(weight.shape)}"
                )
        if sample_weight is not None:
            check_tensor("sample_weight", sample_weight)
            if sample_weight.shape != samples.loss.shape:
                raise ValueError(
                    f"sample_weight must have one value per sample, shape "
                    f"{tuple(samples.loss.shape)}, got {tuple(sample_weight.shape)}"
                )
            sample_weight = sample_weight.to(dtype)
            weight = sample_weight if weight is None else weight * sample_weight
        return weight

    def reduce(
        self,
        samples: Samples,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """Weigh the samples and reduce them as ``reduction`` says."""
        loss, _, valid, _, class_weight = samples
        check_normalizer(normalizer, self.reduction)
        weight = self.weigh(samples, sample_weight)
        if normalizer is None and class_weight is not None:
            # torch's own weight= is part of the loss, and of what a weighted mean divides by
            class_weight = class_weight.to(accumulation_dtype(class_weight.dtype))
            if self.reduction == "weighted_mean" and weight is not None:
                normalizer = nonzero((class_weight * weight).sum())
            elif self.reduction == "weighted_mean" or (
                self.reduction == "mean" and self.weighter is None
            ):
                normalizer = nonzero(class_weight.sum())
        return reduce(loss, weight, valid=valid, reduction=self.reduction, normalizer=normalizer)
