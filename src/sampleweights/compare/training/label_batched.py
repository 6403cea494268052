"""The loss of several heads for multi-label targets, each with a criterion of its own."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampleweights.compare.training.batched import is_own
from sampleweights.losses import AsymmetricLoss, BCEWithLogitsLoss, BinaryFocalLoss
from sampleweights.margins import LogitAdjustment
from sampleweights.selection import select
from sampleweights.weighters import OHEM, SelfPaced
from sampleweights.weighters.class_frequency import ClassFrequency

__all__ = ["SharedLabelLoss", "is_shareable_of_labels"]


class SharedLabelLoss:
    """The losses of several criteria, each of its own batch, in few operations.

    ``is_shareable_of_labels`` says for which criteria. Each label of each sample is one element.

    Args:
        criteria: R criteria, built and told the epoch by others.
        num_labels: L.
        device: where the logits are.
    """

    def __init__(self, criteria: Sequence[Any], num_labels: int, device: torch.device) -> None:
        self.criteria, self.num_labels, self.device = criteria, num_labels, device
        of_settings = itertools.groupby(range(len(criteria)), key=lambda r: settings(criteria[r]))
        self.alike = [[*runs] for _, runs in of_settings]
        """Runs whose losses are the same function."""
        zeros = torch.zeros(1, num_labels, device=device)
        shifts = [c.margin.binary(zeros)[0] if c.has_margin else zeros for c in criteria]
        self.shift = torch.stack(shifts) if any(c.has_margin for c in criteria) else None

    def begin_epoch(self, target: Tensor, sizes: NDArray[np.int64]) -> None:
        """Take the batches of an epoch, once the criteria were told it.

        Args:
            target: zeros and ones (steps, R, B, L), floating.
            sizes: how many of the B samples are the batch (steps, R); the others are padding.
        """
        self.target = target
        size = torch.from_numpy(sizes).to(self.device)[..., None, None]
        self.valid = torch.arange(target.shape[2], device=self.device)[:, None] < size
        self.divisor = size * self.num_labels
        # of negatives, and how much more of positives
        self.weight = torch.ones(len(self.criteria), 1, self.num_labels, 2, device=self.device)
        self.curricula: dict[tuple[bool, float], list[int]] = defaultdict(list)
        for run, criterion in enumerate(self.criteria):
            weighter = criterion.weighter
            if isinstance(weighter, ClassFrequency):
                self.weight[run] = weighter.class_weight
            elif weighter is not None and not weighter.inactive:
                self.curricula[weighter.largest, float(weighter.fraction)].append(run)

    def gradient(self, step: int, logits: Tensor) -> Tensor:
        """The gradient of the R losses by the logits (R, B, L)."""
        target, valid = self.target[step], self.valid[step]
        leaf = logits.detach().requires_grad_()
        moved = leaf if self.shift is None else leaf + self.shift
        losses = []
        for runs in self.alike:
            part = slice(runs[0], runs[-1] + 1)
            losses.append(self.criteria[runs[0]].losses(moved[part], moved[part], target[part]))
        loss = torch.cat(losses)
        share = torch.where(target > 0, self.weight[..., 1], self.weight[..., 0])
        share = share * valid / self.divisor[step]
        for (largest, fraction), runs in self.curricula.items():
            of_runs = loss[runs].detach().flatten(1)
            # the same selection in several batches is one, in groups
            group = torch.arange(len(runs), device=self.device)[:, None].expand_as(of_runs)
            inside = valid[runs].expand(-1, -1, self.num_labels).flatten(1)
            keep = select(of_runs, fraction, largest=largest, group=group, valid=inside)
            share[runs] *= keep.view_as(share[runs])
        [gradient] = torch.autograd.grad(loss, leaf, share)
        return gradient


def settings(criterion: Any) -> tuple[object, ...]:
    """Criteria with the same ones compute the same losses, but for a margin."""
    names = ("gamma", "alpha", "gamma_negative", "gamma_positive", "clip")
    return type(criterion), *(getattr(criterion, name, None) for name in names)


def is_shareable_of_labels(criterion: Any) -> bool:
    """Whether ``SharedLabelLoss`` computes what a criterion would: one of the library itself."""
    kinds = (BCEWithLogitsLoss, BinaryFocalLoss, AsymmetricLoss)
    if type(criterion) not in kinds or criterion.reduction != "mean" or criterion.global_batch:
        return False
    if criterion.ignore_index in (0, 1) or criterion.evaluates or criterion.is_watched:
        return False
    factors = ("weight", "pos_weight", "alpha")
    if any(isinstance(getattr(criterion, name, None), Tensor) for name in factors):
        return False
    if type(criterion.margin) not in (type(None), LogitAdjustment):
        return False
    weighter = criterion.weighter
    is_curriculum = isinstance(weighter, (OHEM, SelfPaced)) and not weighter.per_class
    if not (weighter is None or isinstance(weighter, ClassFrequency) or is_curriculum):
        return False
    return all(is_own(module) for module in criterion.modules())
