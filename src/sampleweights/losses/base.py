"""The base of every criterion: per-sample losses, weighted by a weighter, reduced to a scalar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sampleweights._buffers import Unscripted
from sampleweights._checks import check_reference_loss, check_tensor, class_dim
from sampleweights._eager import plain
from sampleweights.losses.processes import Group, world_size
from sampleweights.losses.watching import Batch, WeightingHook
from sampleweights.losses.watching import HookHandle as HookHandle
from sampleweights.losses.watching import Samples as Samples
from sampleweights.losses.watching import call_hooks as call_hooks
from sampleweights.reduction import (
    accumulation_dtype,
    check_normalizer,
    check_reduction,
    denominator,
    expand_to,
    expanded,
    nonzero,
    weigh,
    weighted_mean,
)
from sampleweights.weighters.base import Weighter, set_epoch_below
from sampleweights.weighters.compose import as_weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Criterion"]


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
        self.evaluates = False
        """Whether this is an evaluation: weighters and margins are then left out."""
        self._group = Group(process_group)
        self._weighting_hooks: list[HookHandle] = []
        # lists that fill, for who wants the batch later: in compiled code a call of a hook breaks
        # the graph, and then its rounding may differ, while an addition to a list does not
        self._recordings: list[list[Batch]] = []

    fractional_epochs = True

    @property
    def acting_weighter(self) -> Weighter | None:
        """The weighter, but None in an evaluation."""
        if self.evaluates:
            return None
        # several times as fast as the attribute
        return self._modules.get("weighter")  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        # who watches or evaluates this criterion does not do so with its copies
        nobody: dict[str, Any] = {"_weighting_hooks": [], "_recordings": [], "evaluates": False}
        return {**self.__dict__, **nobody}

    def register_weighting_hook(self, hook: WeightingHook) -> HookHandle:
        """Call ``hook(criterion, samples, weight)`` with every batch, once its weights are known.

        ``samples`` holds what a batch has by then (``loss``, ``target``, ``valid``, ``logits``,
        ...), ``weight`` one value per sample, None where all are 1. Hooks are called in the order
        in which they were registered, whether the criterion trains or not; copies and pickles of a
        criterion have none. They see detached tensors, and see a batch once, also if activation
        checkpointing computes it again in the backward pass. In a compiled criterion they run
        uncompiled, between two graphs. The criteria of a ``HierarchicalLoss`` call no hooks: it
        calls its own.

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

    @contextmanager
    def recording(self) -> Iterator[list[Batch]]:
        """Within the ``with``, add (samples, weight) of every batch to the list that it gives."""
        batches: list[Batch] = []
        self._recordings.append(batches)
        try:
            yield batches
        finally:
            self._recordings[:] = [other for other in self._recordings if other is not batches]

    @property
    def has_margin(self) -> bool:
        """Whether a margin moves the logits."""
        margin: Any = self._modules.get("margin")  # several times as fast as the attribute
        return not (margin is None or self.evaluates or margin.inactive)

    @property
    def is_watched(self) -> bool:
        """Whether a hook or a recording waits for every batch."""
        return len(self._weighting_hooks) > 0 or len(self._recordings) > 0

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
        if type(target) is not Tensor and isinstance(target, Tensor):
            target = plain(target)
        if type(logits) is not Tensor and isinstance(logits, Tensor):
            logits = plain(logits)
        samples = self.samples(logits, self._fill_absent(target, sample_weight))
        return self._reduce(samples, sample_weight, normalizer, reference_loss)

    has_class_probabilities = False
    """Whether floating targets have a dimension that the losses lack, (N, C, ...)."""

    def _fill_absent(self, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        """``target`` with 0 for the NaN of samples whose weight is 0: a label that nobody has."""
        if sample_weight is None or not isinstance(target, Tensor):
            return target
        if not target.is_floating_point():
            return target
        check_tensor("sample_weight", sample_weight)
        dropped, dim = sample_weight == 0, class_dim(target)
        fitting = None if self.has_class_probabilities else expanded(dropped, target.shape)
        if fitting is None:
            fitting = expanded(dropped, target.shape[:dim] + target.shape[dim + 1 :])
            if fitting is None:
                return target  # the shape of the losses, not yet known, may explain it
            fitting = fitting.unsqueeze(dim)
        return target.masked_fill(fitting & target.isnan(), 0)

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
        loss, weighter, weight = samples.loss.detach(), self.acting_weighter, None
        dtype = accumulation_dtype(loss.dtype)
        if reference_loss is not None:
            check_reference_loss(reference_loss, loss)
        if weighter is not None:  # now, and not in the epoch in which its weights begin
            self._check_num_classes(weighter, samples.num_classes)
        within = within or self
        # processes that share a batch gather it together, whatever the epoch of each of them
        shares = weighter is not None and not weighter.is_local and within.num_processes > 1
        if weighter is not None and not shares and weighter.inactive:
            weighter.skip()
        elif weighter is not None:
            loss = loss if loss.dtype == dtype else loss.to(dtype)
            if reference_loss is not None:
                loss = loss - reference_loss.detach().to(dtype)
                if samples.valid is not None:
                    loss = loss.masked_fill(~samples.valid, 0)
            part = weighter.without_class_weights if samples.is_class_weighted else weighter
            if shares:
                weight = _weigh_globally(part, loss, samples, within.process_group)
            else:
                weight = part(loss, samples.target, samples.valid)
            weight = self._checked_weight(weight, loss)
        if sample_weight is None:
            return weight
        sample_weight = expand_to(loss, sample_weight).to(dtype)
        return sample_weight if weight is None else weight * sample_weight

    def _checked_weight(self, weight: Tensor | None, loss: Tensor) -> Tensor | None:
        if weight is None:
            return None
        if weight.shape != loss.shape:
            raise ValueError(
                f"weighter must return one weight per sample, shape {tuple(loss.shape)}, "
                f"got {tuple(weight.shape)}"
            )
        # the weighter may have parameters of its own
        return weight.detach() if weight.requires_grad else weight

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
        if self.reduction == "mean" and self.acting_weighter is not None:
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
        return nonzero(divisor) / processes


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
