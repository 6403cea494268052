"""What a criterion divides by, from the labels alone: a Trainer counts before it computes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sampleweights.functional.reference import look_up_valid, valid_mask
from sampleweights.losses.base import Criterion, Samples
from sampleweights.losses.hierarchical import HierarchicalLoss
from sampleweights.losses.sigmoid import SigmoidLoss
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.losses.weighted import WeightedLoss
from sampleweights.taxonomy import Taxonomy
from sampleweights.weighters.base import Weighter
from sampleweights.weighters.class_frequency import ClassFrequency
from sampleweights.weighters.compose import Compose
from sampleweights.weighters.deferred import Deferred


class Count(NamedTuple):
    """What counts in one batch."""

    number: Tensor | float
    """What the sum of its losses is divided by."""
    shape: torch.Size
    """The shape of its losses."""


@torch.no_grad()
def count(
    criterion: Criterion, target: Tensor, sample_weight: Tensor | None, *, like_logits: bool
) -> Count:
    """Count what ``criterion`` counts in ``target``.

    ``like_logits`` says whether ``target`` has the shape of the logits. Weights that depend on the
    losses are those of equal losses; the number of samples that a curriculum keeps is right then.
    """
    if not isinstance(criterion, HierarchicalLoss):
        target = criterion._fill_absent(target, sample_weight)
    samples = _samples(criterion, target, like_logits)
    weight = None
    if criterion.reduction == "weighted_mean":
        weight = criterion._weigh(samples, sample_weight)
    return Count(criterion._denominator(samples, weight), samples.loss.shape)


def _samples(criterion: Criterion, target: Tensor, like_logits: bool) -> Samples:
    """The samples of ``target``, with losses of 0."""
    dtype = torch.get_default_dtype()
    if isinstance(criterion, HierarchicalLoss):
        leaf: Tensor | None = target
        valid = target != Taxonomy.ignore_index
        if criterion.taxonomy is None:
            levels = target.unbind(1)
            masks = map(_valid, criterion._level_criteria(len(levels)), levels)
            every = torch.ones_like(levels[0], dtype=torch.bool)
            leaf, valid = None, torch.stack([every if m is None else m for m in masks]).any(0)
        return Samples(torch.zeros_like(valid, dtype=dtype), leaf, valid)
    if like_logits:  # as large as the labels, no larger
        samples = criterion.samples(torch.zeros_like(target, dtype=dtype), target)
        return samples._replace(loss=torch.zeros_like(samples.loss))
    mask, class_weight = _valid(criterion, target), None
    if isinstance(criterion, SoftmaxLoss) and criterion.weight is not None:
        class_weight = look_up_valid(criterion.weight, target, mask)
    return Samples(torch.zeros_like(target, dtype=dtype), target, mask, class_weight=class_weight)


def _valid(criterion: Any, target: Tensor) -> Tensor | None:
    ignore_index = getattr(criterion, "ignore_index", None)
    return None if ignore_index is None else valid_mask(target, ignore_index)


def labels_decide(criterion: Criterion) -> bool:
    """Whether labels and sample weights alone decide what ``criterion`` divides by."""
    if not isinstance(criterion, (SoftmaxLoss, SigmoidLoss, HierarchicalLoss, WeightedLoss)):
        return False  # one of the user's own, which may leave out other samples
    weighter = criterion.weighter
    if criterion.reduction == "mean" or weighter is None:
        return True
    of_classes = (ClassFrequency, Compose, Deferred)
    parts = [part for part in weighter.modules() if isinstance(part, Weighter)]
    return all(isinstance(part, of_classes) for part in parts)


def check(criterion: Criterion, samples: Samples, weight: Tensor | None, counted: Count) -> None:
    """Raise where the criterion counts something else than what the labels say."""
    if samples.loss.shape != counted.shape:
        raise ValueError(
            f"criterion must return one loss for each label, shape {tuple(counted.shape)}, got "
            f"{tuple(samples.loss.shape)}: {_UNKNOWN}"
        )
    if labels_decide(criterion):
        return
    own, number = float(criterion._denominator(samples, weight)), float(counted.number)
    if abs(own - number) > 1e-5 * abs(own):
        raise ValueError(
            f"criterion with reduction={criterion.reduction!r} must divide by what the labels "
            f"alone decide, {number:g} in this batch, got {own:g}: {_UNKNOWN}"
        )


_UNKNOWN = (
    "otherwise the denominator of a batch that is accumulated, or shared by several processes, "
    "cannot be known before its last part. Use reduction='mean' (weights that depend on losses "
    "do not change its denominator), or gradient_accumulation_steps=1 in one process"
)
