"""The base of every criterion: per-sample losses, weighted by a weighter, reduced to a scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sampleweights._buffers import Unscripted
from sampleweights._checks import check_reference_loss, check_tensor
from sampleweights.reduction import (
    accumulation_dtype,
    check_normalizer,
    check_reduction,
    denominator,
    nonzero,
    weigh,
    weighted_mean,
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
    """``(N, ...)``: class weights that are already in ``loss``, and that a mean divides by."""
    logits: Tensor | None = None
    """``(N, C, ...)``, for hooks; None where no class probabilities follow from them."""
    is_class_weighted: bool = False
    """Whether ``loss`` contains the weighter's class weights: with a probability target they belong
    to the terms of the classes, ``sum_c t_c w_c (-log p_c)``."""
    dtype: torch.dtype | None = None
    """What the result is rounded to; None: the dtype of ``loss``."""


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


class _Group:
    """A process group: copies share it, and a pickle, which can hold none, means all processes."""

    def __init__(self, value: ProcessGroup | None) -> None:
        self.value = value

    def __deepcopy__(self, memo: Any) -> _Group:
        return self

    def __reduce__(self) -> tuple[type[_Group], tuple[None]]:
        return _Group, (None,)


class Criterion(Unscripted, ABC):
    """Base of all losses. A subclass computes ``samples``; the rest is common to all losses."""

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
        self._group = _Group(process_group)
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
    def process_group(self) -> ProcessGroup | None:
        """The processes that share a batch with ``global_batch``; None for all of them."""
        return self._group.value

    @property
    def num_processes(self) -> int:
        """How many processes share the batch; 1 without ``global_batch``."""
        return world_size(self.process_group) if self.global_batch else 1

    @abstractmethod
    def samples(self, logits: Any, target: Tensor) -> Samples:
        """What each sample costs, before the weighter, and what the weighter needs.

        All that a subclass has to write; weights, denominator and hooks follow from it.
        """

    def forward(
        self,
        logits: Any,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the reduced loss; see the class for what the arguments mean."""
        samples = self.samples(logits, fill_absent(target, sample_weight))
        return self._reduce(samples, sample_weight, normalizer, reference_loss)

    def set_epoch(self, epoch: float) -> None:
        """Tell every nested weighter which epoch it is (from 0; may be a fraction)."""
        set_epoch_below(self, epoch)

    def _reduce(
        self,
        samples: Samples,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Weigh the samples, tell the hooks, sum, and divide as ``reduction`` says."""
        check_normalizer(normalizer, check_reduction(self.reduction))
        weight = self._weigh(samples, sample_weight, reference_loss)
        if self.is_watched:
            call_hooks(self, samples, weight)
        if self.reduction == "none":
            value = samples.loss if weight is None else weigh(samples.loss, weight)
        else:
            divisor = self._denominator(samples, weight, normalizer)
            value = weighted_mean(samples.loss, weight, divisor)
        dtype = samples.dtype or samples.loss.dtype
        return value if value.dtype == dtype else value.to(dtype)

    def _weigh(
        self,
        samples: Samples,
        sample_weight: Tensor | None = None,
        reference_loss: Tensor | None = None,
        within: Criterion | None = None,
    ) -> Tensor | None:
        """The weighter's weights times ``sample_weight``; None where both are absent.

        ``within`` is the criterion whose processes share the batch, this one if None.
        """
        loss, weighter, weight = samples.loss.detach(), self.weighter, None
        dtype = accumulation_dtype(loss.dtype)
        if reference_loss is not None:
            check_reference_loss(reference_loss, loss)
        if weighter is not None:  # now, and not in the epoch in which its weights begin
            self._check_num_classes(weighter, samples.num_classes)
        if weighter is not None and not weighter.inactive:
            loss = loss if loss.dtype == dtype else loss.to(dtype)
            if reference_loss is not None:
                loss = loss - reference_loss.detach().to(dtype)
                if samples.valid is not None:
                    loss = loss.masked_fill(~samples.valid, 0)
            part = weighter.without_class_weights if samples.is_class_weighted else weighter
            within = within or self
            if within.num_processes > 1:
                weight = _weigh_globally(part, loss, samples, within.process_group)
            else:
                weight = part(loss, samples.target, samples.valid)
            if weight is not None:
                if weight.requires_grad:  # the weighter has parameters of its own
                    weight = weight.detach()
                if weight.shape != loss.shape:
                    raise ValueError(
                        f"weighter must return one weight per sample, shape {tuple(loss.shape)}, "
                        f"got {tuple(weight.shape)}"
                    )
        if sample_weight is None:
            return weight
        sample_weight = _expand_to(loss, sample_weight).to(dtype)
        return sample_weight if weight is None else weight * sample_weight

    def _check_num_classes(self, weighter: Weighter, num_classes: int | None) -> None:
        made_for = weighter.num_classes
        if made_for is not None and num_classes is not None and made_for != num_classes:
            raise ValueError(
                f"weighter was made for {made_for} classes, logits have {num_classes}"
                f"{self._what_classes_are}"
            )

    _what_classes_are = ""

    def _denominator(
        self,
        samples: Samples,
        weight: Tensor | None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor | float:
        """What the sum of the weighted losses is divided by, with all processes in mind."""
        class_weight = samples.class_weight
        if self.reduction == "mean" and self.weighter is not None:
            class_weight = None  # a mean with a weighter is over the samples (Eq. 3)
        divisor = denominator(
            check_reduction(self.reduction),
            samples.loss.numel(),
            weight=weight,
            class_weight=class_weight,
            valid=samples.valid,
            normalizer=normalizer,
        )
        processes = self.num_processes
        if processes == 1:
            return divisor
        if normalizer is None and self.reduction != "sum":
            from sampleweights import distributed

            divisor = distributed.all_sum(divisor, samples.loss.device, self.process_group)
        # the mean over processes, as DDP takes it, of parts times their number is the sum
        return (nonzero(divisor) if isinstance(divisor, Tensor) else divisor) / processes


def _weigh_globally(
    weigh_samples: Callable[..., Tensor | None],
    loss: Tensor,
    samples: Samples,
    group: ProcessGroup | None,
) -> Tensor | None:
    from sampleweights import distributed

    batch = distributed.gather(loss, samples.target, samples.valid, group)
    weight = weigh_samples(batch.loss, batch.target, batch.valid)
    return None if weight is None else weight[batch.own].reshape(loss.shape)


def _expand_to(loss: Tensor, sample_weight: Tensor) -> Tensor:
    """One weight for each loss, from one for each, or one for all that share leading positions."""
    check_tensor("sample_weight", sample_weight)
    shape = sample_weight.shape
    if shape == loss.shape:
        return sample_weight
    full = (*shape, *[1] * (loss.ndim - sample_weight.ndim))
    fits = 0 < sample_weight.ndim <= loss.ndim and full[0] == loss.shape[0]
    if not fits or any(n not in (1, m) for n, m in zip(full, loss.shape, strict=True)):
        raise ValueError(
            f"sample_weight must have one value per sample, or one for all that share leading "
            f"dimensions, shape {tuple(loss.shape)}, got {tuple(shape)}"
        )
    return sample_weight.reshape(full).expand(loss.shape)


def fill_absent(target: Tensor, sample_weight: Tensor | None) -> Tensor:
    """``target`` with 0 for the NaN of samples whose weight is 0: a label that nobody has."""
    if sample_weight is None or not isinstance(target, Tensor) or not target.is_floating_point():
        return target
    check_tensor("sample_weight", sample_weight)
    dropped = sample_weight == 0
    if target.ndim > 1 and dropped.shape == (*target.shape[:1], *target.shape[2:]):
        dropped = dropped.unsqueeze(1)  # a probability for each class
    elif dropped.ndim < target.ndim:
        dropped = dropped.reshape(*dropped.shape, *[1] * (target.ndim - dropped.ndim))
    return target.masked_fill(dropped & target.isnan(), 0)
