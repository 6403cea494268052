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
from sampleweights.weighters import OHEM, Compose, SelfPaced
from sampleweights.weighters.class_frequency import ClassFrequency

__all__ = ["Heads", "OwnLoss", "SharedLoss", "is_shareable"]

Random = np.random.Generator


class Heads:
    """R networks of one hidden layer with dropout, and AdamW, which trains them.

    The gradient is written out: built by autograd, it takes 1.7 times as long.

    Shape:
        - rows: :math:`(R, B, D)`; Output: logits :math:`(R, B, C)`.

    Args:
        randoms: R sources of random numbers, each for the initial weights and the dropout of one
            network.
        num_features: D.
        width: hidden units; a multiple of 8.
        num_classes: C.
        weight_decay: of AdamW.
        device: where to compute.
    """

    def __init__(
        self,
        randoms: Sequence[Random],
        num_features: int,
        width: int,
        num_classes: int,
        weight_decay: float,
        device: torch.device,
    ) -> None:
        self.randoms, self.width, self.device = randoms, width, device

        def initial(rows: int, columns: int, inputs: int) -> Tensor:
            """As ``nn.Linear`` has them."""
            bound = 1 / math.sqrt(inputs)
            drawn = [random.uniform(-bound, bound, (rows, columns)) for random in randoms]
            return torch.from_numpy(np.stack(drawn, dtype=np.float32)).to(device)

        self.weight = initial(num_features, width, num_features)
        self.bias = initial(1, width, num_features)
        self.last_weight = initial(width, num_classes, width)
        # as long as the vectors of the processor: what remains behind them is rounded otherwise,
        # and would depend on how many networks there are
        bias = nn.functional.pad(initial(1, num_classes, width), (0, -num_classes % 16))
        self.last_bias = bias[..., :num_classes]
        parameters = [self.weight, self.bias, self.last_weight, bias]
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.gradients = [*gradients[:-1], gradients[-1][..., :num_classes]]
        self.optimizer = torch.optim.AdamW(parameters, weight_decay=weight_decay, fused=True)

    def draw_dropout(self, num_steps: int, batch_size: int) -> NDArray[np.uint8]:
        """A bit for each hidden unit of each sample of an epoch, (num_steps, R, B, width / 8)."""
        shape = num_steps, batch_size, self.width // 8
        drawn = np.empty((num_steps, len(self.randoms), *shape[1:]), np.uint8)
        for run, random in enumerate(self.randoms):
            drawn[:, run] = np.frombuffer(random.bytes(math.prod(shape)), np.uint8).reshape(shape)
        return drawn

    def forward(self, rows: Tensor, kept: NDArray[np.uint8]) -> Tensor:
        """Logits in training; ``kept`` are the bits of a step. Differentiable by the logits."""
        # one half is dropped, and what stays counts twice: torch's dropout of 0.5
        mask = torch.from_numpy(np.unpackbits(kept, axis=-1)).to(self.device)
        self.rows = rows
        self.hidden = torch.baddbmm(self.bias, rows, self.weight).relu_().mul_(mask)
        logits = torch.baddbmm(self.last_bias, self.hidden, self.last_weight, alpha=2)
        return logits.requires_grad_()

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Move by the gradient of the logits that ``forward`` gave last."""
        of_weight, of_bias, of_last_weight, of_last_bias = self.gradients
        torch.sum(gradient, 1, keepdim=True, out=of_last_bias)
        gradient = 2 * gradient
        torch.bmm(self.hidden.mT, gradient, out=of_last_weight)
        of_hidden = torch.bmm(gradient, self.last_weight.mT)
        # 0 where a unit was dropped or below 0
        of_hidden = torch.ops.aten.threshold_backward(of_hidden, self.hidden, 0)
        torch.sum(of_hidden, 1, keepdim=True, out=of_bias)
        torch.bmm(self.rows.mT, of_hidden, out=of_weight)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()

    def predict(self, run: int, rows: Tensor) -> Tensor:
        """Logits (B, C) of one network without dropout."""
        hidden = torch.addmm(self.bias[run], rows, self.weight[run]).relu_()
        return torch.addmm(self.last_bias[run], hidden, self.last_weight[run])


class OwnLoss:
    """The loss of one criterion of any kind, of one network."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def begin_epoch(self) -> None:
        """Nothing: the criterion was told."""

    def __call__(self, logits: Tensor, target: Tensor, sizes: Sequence[int]) -> Any:
        # a copy, which a criterion may change in place: it is no leaf of autograd
        return self.criterion(logits[0].clone(), target[0])


class SharedLoss:
    """The losses of several criteria, each of its own batch, added up in few operations.

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
        self.alike = [
            (settings, [run for run, _ in runs])
            for settings, runs in itertools.groupby(
                enumerate(criteria), key=lambda run: (run[1].gamma, run[1].label_smoothing)
            )
        ]
        self.shift = None
        if any(criterion.has_margin for criterion in criteria):
            # what a margin adds to logits of 0, by the class of the sample, it adds to all logits
            zeros = torch.zeros(num_classes, num_classes, device=device)
            classes = torch.arange(num_classes, device=device)
            shifts = [c.margin(zeros, classes) if c.has_margin else zeros for c in criteria]
            self.shift = torch.cat(shifts)  # (R C, C)

    def begin_epoch(self) -> None:
        """Sort the weighters, once the criteria were told the epoch, on which they depend."""
        self.class_weight = torch.ones(len(self.criteria), self.num_classes, device=self.device)
        self.curricula: dict[tuple[bool, float, bool], list[int]] = defaultdict(list)
        self.others: list[int] = []
        for run, criterion in enumerate(self.criteria):
            weighter = criterion.weighter
            if weighter is not None:
                criterion._check_num_classes(weighter, self.num_classes)
            parts: Any = weighter.weighters if isinstance(weighter, Compose) else [weighter]
            *before, last = parts
            only_counts = all(isinstance(part, ClassFrequency) for part in before)
            if criterion.reduction != "mean" or not only_counts:
                self.others.append(run)
                continue
            for part in before:
                self.class_weight[run] *= part.class_factor
            if isinstance(last, ClassFrequency):
                self.class_weight[run] *= last.class_factor
            elif isinstance(last, (OHEM, SelfPaced)):
                if not last.inactive:
                    kind = last.largest, float(last.fraction), last.per_class
                    self.curricula[kind].append(run)
            elif last is not None and not last.inactive:
                self.others.append(run)
                self.class_weight[run] = 1

    def __call__(self, logits: Tensor, target: Tensor, sizes: Sequence[int]) -> Tensor:
        """The sum of the R losses; of logits (R, B, C) and target (R, B) each has its first rows.

        Args:
            logits: what the networks gave.
            target: class indices.
            sizes: how many rows of each are its batch; the others are padding.
        """
        batch, row = logits.shape[1], (self.first_row + target).flatten()
        moved, classes = logits.flatten(0, 1), target.flatten()
        if self.shift is not None:
            moved = moved + self.shift.index_select(0, row)
        losses = []
        for (gamma, label_smoothing), runs in self.alike:
            part = slice(runs[0] * batch, (runs[-1] + 1) * batch)
            losses.append(
                softmax_loss(moved[part], classes[part], gamma, None, -100, label_smoothing)
            )
        loss = torch.cat(losses)
        with torch.no_grad():
            weight = self.class_weight.flatten().index_select(0, row).view_as(target)
            share = self._share(weight, loss.detach().view_as(target), target, sizes)
        return torch.dot(loss, share.flatten())

    def _share(self, weight: Tensor, loss: Tensor, target: Tensor, sizes: Sequence[int]) -> Tensor:
        """What each loss is multiplied by in its run: its weight over the denominator; or 0."""
        size = torch.tensor(sizes, device=self.device).unsqueeze(1)
        valid = None
        if min(sizes) < target.shape[1]:
            valid = torch.arange(target.shape[1], device=self.device) < size
        share = weight / size
        for (largest, fraction, per_class), runs in self.curricula.items():
            # the same selection in several batches is one, in groups
            of_class = target[runs] if per_class else torch.zeros_like(target[runs])
            group = self.first_row[runs] + of_class
            keep = select(
                loss[runs] * weight[runs], fraction, largest=largest, group=group,
                valid=None if valid is None else valid[runs],
            )  # fmt: skip
            share[runs] *= keep
        for run in self.others:
            criterion, of_batch = self.criteria[run], slice(sizes[run])
            samples = Samples(loss[run, of_batch], target[run, of_batch])
            own = criterion._weigh(samples)
            divisor = criterion._denominator(samples, own)
            if isinstance(divisor, Tensor):
                divisor = nonzero(divisor)
            share[run, of_batch] = 1 / divisor if own is None else own / divisor
        return share if valid is None else share * valid


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
    return all(_is_own(module) for module in criterion.modules())


def _adds(margin: Any) -> bool:
    """Whether all that a margin does is to add to the logits."""
    return type(margin) in (type(None), LogitAdjustment) or (
        type(margin) is LDAM and margin.scale == 1
    )


def _is_own(module: Any) -> bool:
    """Whether a module is the library's own, as it was made, and knows all classes."""
    kind = type(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, name) for name in hooks):
        return False
    if any(callable(value) and hasattr(kind, name) for name, value in vars(module).items()):
        return False  # a method that was replaced, such as set_epoch
    if getattr(module, "has_absent", False):  # a target of that class is an error
        return False
    return kind is nn.ModuleList or kind.__module__.startswith("sampleweights.")
