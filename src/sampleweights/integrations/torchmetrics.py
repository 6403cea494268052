"""For torchmetrics: the fraction of kept samples and their mean weight, by class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sampleweights._checks import is_index
from sampleweights._eager import is_readable
from sampleweights.losses.base import Criterion, HookHandle, Samples

__all__ = ["WeightingMetric"]


class WeightingMetric(Metric):
    """Kept fraction and mean weight of the samples, over all samples and by class.

    ``compute`` returns a dictionary:

    ==================== =============================================================
    ``kept``             share of the samples with a weight above 0, scalar
    ``weight``           mean weight, scalar
    ``kept_per_class``   the same for each class, (num_classes,); NaN for classes
    ``weight_per_class`` without samples. Only with ``num_classes``.
    ==================== =============================================================

    Like every metric, it accumulates over batches and processes, follows ``.to``, and is reset
    between epochs. It does not synchronise with the GPU before ``compute``.

    Args:
        num_classes: the number of classes; None if there are no classes.
        **kwargs: the keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: ``num_classes`` below 1; in ``update``, a missing target or shapes that differ.

    Example::

        metric = WeightingMetric(num_classes=7)
        metric.watch(criterion)  # or metric.update(weight, target) after each batch
        for epoch in range(num_epochs):
            ...
            print(metric.compute()["kept_per_class"])
            metric.reset()
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
    sums: Tensor

    def __init__(self, num_classes: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        # samples, weight and kept ones of each class; pixels of an epoch are too many for float32
        self.add_state(
            "sums", torch.zeros(num_classes or 1, 3, dtype=torch.float64), dist_reduce_fx="sum"
        )
        self.persistent(True)

    def update(
        self, weight: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> None:
        """Add a batch.

        Shape:
            - weight: (N, ...), the weight of each sample.
            - target: the same shape, class indices; needed with ``num_classes``. Samples below 0
              (ignored) do not count.
            - valid: the same shape, bool; samples that are not valid do not count.

        Raises:
            ValueError: a missing target, or one of another shape.
            IndexError: a target that is no class (on a GPU, which is not waited for, such samples
                do not count).
        """
        one = torch.ones_like(weight, dtype=torch.float32)
        columns = torch.stack([one, weight.detach().float(), (weight > 0).float()], -1)
        if valid is not None:
            columns = columns.where(valid[..., None], 0)
        if self.num_classes is None:
            label = torch.zeros(weight.numel(), dtype=torch.int64, device=weight.device)
        elif target is None or not is_index(target) or target.shape != weight.shape:
            came = None if target is None else (target.dtype, tuple(target.shape))
            raise ValueError(
                f"target must hold class indices of shape {tuple(weight.shape)}, got {came}"
            )
        else:
            label = target.long()
            is_class = (label >= 0) & (label < self.num_classes)
            too_large = label >= self.num_classes
            if valid is not None:
                too_large = too_large & valid
            if is_readable(label) and too_large.any():
                raise IndexError(
                    f"target must be from 0 to {self.num_classes - 1}, or below 0 where ignored, "
                    f"got {int(label[too_large][0])}"
                )
            columns = columns.where(is_class[..., None], 0)
            label = label.where(is_class, 0).reshape(-1)
        batch = columns.new_zeros(self.sums.shape).index_add_(0, label, columns.reshape(-1, 3))
        self.sums += batch.to(self.sums)

    def compute(self) -> dict[str, Tensor]:
        """Return the dictionary of fractions and weights; see the class."""
        count, weight, kept = self.sums.unbind(1)
        result = {
            "kept": (kept.sum() / count.sum()).float(),
            "weight": (weight.sum() / count.sum()).float(),
        }
        if self.num_classes is not None:
            result["kept_per_class"] = (kept / count).float()
            result["weight_per_class"] = (weight / count).float()
        return result

    def watch(self, criterion: Criterion) -> HookHandle:
        """Update from every call of ``criterion`` in training mode, until ``handle.remove()``."""

        def observe(criterion: Criterion, samples: Samples, weight: Tensor | None) -> None:
            if criterion.training:
                self.update_from(samples, weight)

        return criterion.register_weighting_hook(observe)

    def update_from(self, samples: Samples, weight: Tensor | None) -> None:
        """Add a batch from a hook of a criterion; ``weight=None`` means that all weights are 1."""
        if weight is None:
            weight = torch.ones_like(samples.loss)
        self.update(weight, None if self.num_classes is None else samples.target, samples.valid)
