"""What every criterion is: per-sample losses, weighted by a weighter, reduced to a scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.distributed as dist
from torch import Tensor, nn

from sampleweights._checks import check_tensor
from sampleweights.reduction import (
    accumulation_dtype,
    check_normalizer,
    check_reduction,
    count,
    nonzero,
    reduce,
)
from sampleweights.weighters.base import Weighter, set_epoch_below
from sampleweights.weighters.compose import as_weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Criterion"]


def world_size(group: ProcessGroup | None = None) -> int:
    """How many processes share a batch; 1 where ``torch.distributed`` is not initialised."""
    if not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size(group)


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
    logits: Tensor | None = None
    """``(N, C, ...)``, for hooks; None where no class probabilities follow from them."""


WeightingHook = Callable[["Criterion", Samples, "Tensor | None"], None]


class HookHandle:
    """What removes a hook again, also at the end of a ``with``."""

    # not torch's RemovableHandle, whose dictionary has new keys, on which compiled code depends

    def __init__(self, hooks: list[HookHandle], hook: WeightingHook) -> None:
        self.hook, self._hooks = hook, hooks
        hooks.append(self)

    def remove(self) -> None:
        """Remove the hook; again does nothing."""
        if self in self._hooks:
            self._hooks.remove(self)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def call_hooks(criterion: Criterion, samples: Samples, weight: Tensor | None) -> None:
    for handle in list(criterion._weighting_hooks):
        handle.hook(criterion, samples, weight)


# What ``torch.compiler.disable`` sets; that decorator imports the compiler, a second of work. Hooks
# run between compiled graphs: traced, one that counts would recompile at every batch.
call_hooks._torchdynamo_disable = True  # type: ignore[attr-defined]


class Criterion(nn.Module, ABC):
    """Base of all losses: ``samples`` says what each sample costs, the rest is common."""

    def __init__(
        self,
        *,
        reduction: str,
        weighter: Weighter | Sequence[Weighter] | None,
        global_batch: bool,
        process_group: ProcessGroup | None,
    ) -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)
        self.weighter = None if weighter is None else as_weighter(weighter)
        if process_group is not None and not global_batch:
            raise ValueError("process_group must be None without global_batch=True")
        self.global_batch = global_batch
        self.process_group = process_group
        self._weighting_hooks: list[HookHandle] = []

    def __getstate__(self) -> dict[str, Any]:
        # who watches this criterion does not watch its copies, and need not be picklable
        return {**self.__dict__, "_weighting_hooks": []}

    def register_weighting_hook(self, hook: WeightingHook) -> HookHandle:
        """Call ``hook(criterion, samples, weight)`` with every batch, once its weights are known.

        ``samples`` holds what a batch has by then (``loss``, ``target``, ``valid``, ``logits``,
        ...), ``weight`` one value per sample, None where all are 1. Hooks are called in the order
        in which they were registered, whether the criterion trains or not; copies and pickles of a
        criterion have none. In a compiled criterion they run uncompiled, between two graphs.

        Returns:
            A handle; ``handle.remove()``, or the end of ``with handle:``, removes the hook.

        Raises:
            TypeError: a hook that cannot be called.

        Example:
            >>> import torch
            >>> from sampleweights import CrossEntropyLoss, OHEM
            >>> criterion = CrossEntropyLoss(weighter=OHEM(schedule=0.5))
            >>> handle = criterion.register_weighting_hook(lambda c, samples, weight: print(weight))
            >>> loss = criterion(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
            tensor([0., 1.])
            >>> handle.remove()
        """
        if not callable(hook):
            raise TypeError(f"hook must be callable, got {hook!r}")
        return HookHandle(self._weighting_hooks, hook)

    @property
    def is_watched(self) -> bool:
        """Whether a hook waits for every batch."""
        return len(self._weighting_hooks) > 0

    @property
    def num_processes(self) -> int:
        """How many processes share the batch; 1 without ``global_batch``."""
        return world_size(self.process_group) if self.global_batch else 1

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
        """Return the reduced loss; see the class for what the arguments mean."""
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
            if self.num_processes > 1:
                weight = self._weigh_globally(weighter, loss, samples)
            else:
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

    def _weigh_globally(self, weighter: Weighter, loss: Tensor, samples: Samples) -> Tensor:
        from sampleweights import distributed

        batch = distributed.gather(loss, samples.target, samples.valid, self.process_group)
        weight: Tensor = weighter(batch.loss, batch.target, batch.valid)
        return weight[batch.own].reshape(loss.shape)

    def reduce(
        self,
        samples: Samples,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """Weigh the samples and reduce them as ``reduction`` says."""
        reduction = check_reduction(self.reduction)
        check_normalizer(normalizer, reduction)
        weight = self.weigh(samples, sample_weight)
        if self.is_watched:
            call_hooks(self, samples, weight)
        if reduction == "none":
            return reduce(samples.loss, weight, reduction=reduction)
        divisor = self.divisor(samples, weight, normalizer)
        return reduce(samples.loss, weight, reduction="mean", normalizer=divisor)

    def divisor(
        self,
        samples: Samples,
        weight: Tensor | None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor | float:
        """What the sum of the weighted losses is divided by, with all processes in mind."""
        loss, valid, class_weight = samples.loss, samples.valid, samples.class_weight
        reduction = check_reduction(self.reduction)
        divisor = normalizer
        if normalizer is None and class_weight is not None:
            # torch's own weight= is part of the loss, and of what a weighted mean divides by
            class_weight = class_weight.to(accumulation_dtype(class_weight.dtype))
            if reduction == "weighted_mean" and weight is not None:
                divisor = (class_weight * weight).sum()
            elif reduction == "weighted_mean" or (reduction == "mean" and self.weighter is None):
                divisor = class_weight.sum()
        if divisor is None:
            divisor = count(loss, weight, valid, reduction)
        processes = self.num_processes
        if processes > 1:
            if normalizer is None and reduction != "sum":
                from sampleweights import distributed

                divisor = distributed.all_sum(divisor, loss.device, self.process_group)
            # the mean over processes, as DDP takes it, of parts times their number is the sum
            return (nonzero(divisor) if isinstance(divisor, Tensor) else divisor) / processes
        return divisor if isinstance(divisor, Tensor) else divisor or 1
