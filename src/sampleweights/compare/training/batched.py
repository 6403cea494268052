"""Several heads of one shape, trained in the same operations: a leading dimension of runs.

A small head takes microseconds of arithmetic and a millisecond of Python per step. So each step
is computed for many heads at once; what one of them computes depends on none of the others.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sampleweights.functional.softmax import softmax_loss
from sampleweights.losses import CrossEntropyLoss, FocalLoss
from sampleweights.losses.base import Samples
from sampleweights.margins import LDAM, LogitAdjustment
from sampleweights.reduction import nonzero
from sampleweights.selection import select
from sampleweights.weighters import OHEM, Compose, Deferred, SelfPaced
from sampleweights.weighters.class_frequency import ClassFrequency

__all__ = ["Heads", "OwnLoss", "SharedLoss", "is_own", "is_shareable"]

Random = np.random.Generator


class Heads:
    """R networks of one hidden layer with dropout, and AdamW, which trains them.

    The gradient is written out: built by autograd, it takes 1.7 times as long. Each step writes
    to the same memory.

    Shape:
        - rows: :math:`(R, B, D)`; Output: logits :math:`(R, B, C)`.

    Args:
        randoms: R sources of random numbers, each for the initial weights and the dropout of one
            network.
        batch_size: B, samples of each network in a step.
        num_features: D.
        width: hidden units; a multiple of 16.
        num_classes: C.
        weight_decay: of AdamW.
        device: where to compute.
    """

    def __init__(
        self,
        randoms: Sequence[Random],
        batch_size: int,
        num_features: int,
        width: int,
        num_classes: int,
        weight_decay: float,
        device: torch.device,
    ) -> None:
        self.randoms, self.width, self.device = randoms, width, device
        size, runs = num_features + 1, len(randoms)  # what a bias multiplies is a feature: 1
        # one tensor holds all that is trained. Each part of it is as long as the vectors of the
        # processor: what remains behind them is rounded otherwise, and would depend on how many
        # networks there are
        shapes = (size, width), (width, num_classes), (1, num_classes + -num_classes % 16)
        lengths = [runs * rows * columns for rows, columns in shapes]
        parameter = torch.zeros(sum(lengths), device=device)
        parameter.grad = torch.zeros_like(parameter)

        def cut(flat: Tensor) -> list[Tensor]:
            parts = [
                part.view(runs, *shape)
                for part, shape in zip(torch.split(flat, lengths), shapes, strict=True)
            ]
            return [*parts[:-1], parts[-1][..., :num_classes]]

        self.weight, self.last_weight, self.last_bias = cut(parameter)
        self.gradients = cut(parameter.grad)

        def draw(part: Tensor, inputs: int) -> None:
            """As ``nn.Linear`` does."""
            bound = 1 / math.sqrt(inputs)
            drawn = [random.uniform(-bound, bound, part.shape[1:]) for random in randoms]
            part.copy_(torch.from_numpy(np.stack(drawn)))

        draw(self.weight, num_features)
        draw(self.last_weight, width)
        draw(self.last_bias, width)
        self.optimizer = torch.optim.AdamW([parameter], weight_decay=weight_decay, fused=True)
        self.rows = torch.ones(runs, batch_size, size, device=device)
        self.hidden = torch.empty(runs, batch_size, width, device=device)
        self.of_hidden = torch.empty_like(self.hidden)
        self.mask = self.hidden.new_empty(self.hidden.numel() // 8, 8, dtype=torch.int32)
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        self.bits = torch.from_numpy(-bits.astype(np.int32)).to(device)

    def draw_dropout(self, num_steps: int) -> NDArray[np.uint8]:
        """A bit for each hidden unit of each sample of an epoch, (num_steps, R B width / 8)."""
        each = self.hidden[0].numel() // 8
        drawn = [random.bytes(num_steps * each) for random in self.randoms]
        bits = [np.frombuffer(of_run, np.uint8).reshape(num_steps, each) for of_run in drawn]
        return np.concatenate(bits, axis=1)

    def forward(self, rows: Tensor, kept: NDArray[np.uint8]) -> Tensor:
        """Logits in training; ``kept`` are the bits of a step."""
        self.rows[..., :-1] = rows
        torch.bmm(self.rows, self.weight, out=self.hidden)
        # one half is dropped, and what stays counts twice: torch's dropout of 0.5
        index = torch.from_numpy(kept.astype(np.int32)).to(self.device)
        torch.index_select(self.bits, 0, index, out=self.mask)
        # a number of which no bit is kept is 0
        self.hidden.view(torch.int32).bitwise_and_(self.mask.view_as(self.hidden))
        self.hidden.relu_()
        return torch.baddbmm(self.last_bias, self.hidden, self.last_weight, alpha=2)

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Move by the gradient of the logits that ``forward`` gave last."""
        of_weight, of_last_weight, of_last_bias = self.gradients
        torch.sum(gradient, 1, keepdim=True, out=of_last_bias)
        gradient = 2 * gradient
        torch.bmm(self.hidden.mT, gradient, out=of_last_weight)
        torch.bmm(gradient, self.last_weight.mT, out=self.of_hidden)
        # 0 where a unit was dropped or below 0
        torch.ops.aten.threshold_backward.grad_input(
            self.of_hidden, self.hidden, 0, grad_input=self.of_hidden
        )
        torch.bmm(self.rows.mT, self.of_hidden, out=of_weight)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()

    def predict(self, run: int, rows: Tensor) -> Tensor:
        """Logits (B, C) of one network without dropout."""
        weight, bias = self.weight[run, :-1], self.weight[run, -1]
        hidden = torch.addmm(bias, rows, weight).relu_()
        return torch.addmm(self.last_bias[run], hidden, self.last_weight[run])


class OwnLoss:
    """The loss of one criterion of any kind, of one network."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def begin_epoch(self, target: Tensor, sizes: NDArray[np.int64]) -> None:
        """Take the batches of an epoch; the criterion was told."""
        self.target, self.sizes = target, sizes[:, 0].tolist()

    def gradient(self, step: int, logits: Tensor) -> Tensor:
        """The gradient of the loss by the logits (1, B, C)."""
        size = self.sizes[step]
        # a copy, which a criterion may change in place: it is no leaf of autograd
        logits.requires_grad_()
        loss = self.criterion(logits[0, :size].clone(), self.target[step, 0, :size])
        [gradient] = torch.autograd.grad(loss, logits)
        return gradient


class SharedLoss:
    """The losses of several criteria, each of its own batch, in few operations.

    ``is_shareable`` says for which criteria. Losses per sample are the same function for all
    criteria with the same settings, and are computed in one call; margins and class weights, which
    have counts of their own, are looked up; curricula of several batches select in one call. All
    other weighters are called one by one.

    Args:
        criteria: R criteria, built and told the epoch by others.
        num_classes: C.
        device: where the logits are.
    """

    def __init__(self, criteria: Sequence[Any], num_classes: int, device: torch.device) -> None:
        self.criteria, self.num_classes, self.device = criteria, num_classes, device
        self.first_row = num_classes * torch.arange(len(criteria), device=device).unsqueeze(1)
        of_settings = itertools.groupby(
            enumerate(criteria), key=lambda run: (run[1].gamma, run[1].label_smoothing)
        )
        self.not_plain = [
            (settings, [run for run, _ in runs])
            for settings, runs in of_settings
            if settings != (0, 0)
        ]
        """All but cross-entropy itself, whose gradient is written out."""
        self.shift = None
        if any(criterion.has_margin for criterion in criteria):
            # what a margin adds to logits of 0, by the class of the sample, it adds to all logits
            zeros = torch.zeros(num_classes, num_classes, device=device)
            classes = torch.arange(num_classes, device=device)
            shifts = [c.margin(zeros, classes) if c.has_margin else zeros for c in criteria]
            self.shift = torch.cat(shifts)  # (R C, C)

    def begin_epoch(self, target: Tensor, sizes: NDArray[np.int64]) -> None:
        """Take the batches of an epoch, once the criteria were told it, on which they depend.

        Args:
            target: class indices (steps, R, B).
            sizes: how many of the B samples are the batch (steps, R); the others are padding.
        """
        self.target, self.sizes = target, sizes
        class_weight = torch.ones(len(self.criteria), self.num_classes, device=self.device)
        self.curricula: dict[tuple[bool, float, bool], list[int]] = defaultdict(list)
        self.others: list[int] = []
        for run, criterion in enumerate(self.criteria):
            weighter = criterion.weighter
            if weighter is not None:
                criterion._check_num_classes(weighter, self.num_classes)
            parts: Any = weighter.weighters if isinstance(weighter, Compose) else [weighter]
            *before, last = parts
            if isinstance(last, Deferred) and not last.inactive:  # its start is behind
                last = last.weighter
            only_counts = all(isinstance(part, ClassFrequency) for part in before)
            if criterion.reduction != "mean" or not only_counts:
                self.others.append(run)
                continue
            for part in before:
                class_weight[run] *= part.class_factor
            if isinstance(last, ClassFrequency):
                class_weight[run] *= last.class_factor
            elif isinstance(last, (OHEM, SelfPaced)):
                if not last.inactive:
                    kind = last.largest, float(last.fraction), last.per_class
                    self.curricula[kind].append(run)
            elif last is not None and not last.inactive:
                self.others.append(run)
                class_weight[run] = 1
        self.row = self.first_row + target
        self.weight = class_weight.flatten()[self.row]
        size = torch.from_numpy(sizes).to(self.device).unsqueeze(2)
        self.valid = torch.arange(target.shape[2], device=self.device) < size
        # what a loss is multiplied by: its weight over the denominator, where nothing is selected
        self.share = self.weight * self.valid / size

    def gradient(self, step: int, logits: Tensor) -> Tensor:
        """The gradient of the R losses by the logits (R, B, C)."""
        target, batch = self.target[step], logits.shape[1]
        moved, classes = logits.flatten(0, 1), target.flatten()
        if self.shift is not None:
            moved = moved + self.shift.index_select(0, self.row[step].flatten())
        # classes first: vectors of the processor then hold samples, of which there are more
        gradient = moved.T.contiguous().log_softmax(0)
        loss = gradient.gather(0, classes.unsqueeze(0)).neg_().view_as(target)
        others = []
        for (gamma, label_smoothing), runs in self.not_plain:
            part = slice(runs[0] * batch, (runs[-1] + 1) * batch)
            of_part = moved[part].detach().requires_grad_()
            value = softmax_loss(of_part, classes[part], gamma, None, -100, label_smoothing)
            loss[runs[0] : runs[-1] + 1] = value.detach().view(-1, batch)
            others.append((part, value, of_part))
        share = self._share(step, loss).view(1, -1)
        # of cross-entropy: the probabilities, less 1 at the target
        gradient.exp_().scatter_add_(0, classes.unsqueeze(0), torch.full_like(share, -1))
        gradient = gradient.mul_(share).T.contiguous()
        for part, value, of_part in others:
            [gradient[part]] = torch.autograd.grad(value, of_part, share[0, part])
        return gradient.view_as(logits)

    def _share(self, step: int, loss: Tensor) -> Tensor:
        """What each loss (R, B) is multiplied by; 0 for padding."""
        share = self.share[step]
        if not self.curricula and not self.others:
            return share
        share, target, weight = share.clone(), self.target[step], self.weight[step]
        valid = self.valid[step]
        for (largest, fraction, per_class), runs in self.curricula.items():
            # the same selection in several batches is one, in groups
            of_class = target[runs] if per_class else torch.zeros_like(target[runs])
            group = self.first_row[runs] + of_class
            keep = select(
                loss[runs] * weight[runs], fraction, largest=largest, group=group, valid=valid[runs]
            )
            share[runs] *= keep
        for run in self.others:
            criterion, of_batch = self.criteria[run], slice(int(self.sizes[step, run]))
            samples = Samples(loss[run, of_batch], target[run, of_batch])
            own = criterion._weigh(samples)
            divisor = nonzero(criterion._denominator(samples, own))
            share[run, of_batch] = 1 / divisor if own is None else own / divisor
        return share


def is_shareable(criterion: Any) -> bool:
    """Whether ``SharedLoss`` computes what a criterion would: one of the library itself.

    Others may draw random numbers, or hold on to what they see. What must fail is trained alone,
    too, and fails there.
    """
    if type(criterion) not in (CrossEntropyLoss, FocalLoss) or criterion.reduction == "none":
        return False
    if criterion.weight is not None or criterion.ignore_index >= 0 or criterion.global_batch:
        return False
    if criterion.evaluates or criterion.is_watched or not _adds(criterion.margin):
        return False
    return all(is_own(module) for module in criterion.modules())


def _adds(margin: Any) -> bool:
    """Whether all that a margin does is to add to the logits."""
    return type(margin) in (type(None), LogitAdjustment) or (
        type(margin) is LDAM and margin.scale == 1
    )


def is_own(module: Any) -> bool:
    """Whether a module is the library's own, as it was made, and knows all classes."""
    kind = type(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, name) for name in hooks):
        return False
    if any(callable(value) and hasattr(kind, name) for name, value in vars(module).items()):
        return False  # a method that was replaced, such as set_epoch
    if getattr(module, "has_absent", False):  # a target of that class is an error
        return False
    if getattr(module, "within", "batch") != "batch":  # shared losses are ranked by batch
        return False
    return kind is nn.ModuleList or kind.__module__.startswith("sampleweights.")
