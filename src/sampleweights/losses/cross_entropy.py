"""Softmax cross-entropy, a drop-in replacement for nn.CrossEntropyLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sampleweights._checks import (
    check_classification,
    check_label_smoothing,
    check_tensor,
    class_dim,
    is_index,
)
from sampleweights._eager import is_readable
from sampleweights.functional.reference import look_up_valid, torch_cross_entropy, valid_mask
from sampleweights.functional.softmax import has_kernel, softmax_loss
from sampleweights.losses.base import Criterion, Samples
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CrossEntropyLoss"]


class SoftmaxLoss(Criterion):
    """What cross-entropy and focal loss share; gamma is 0 for the former."""

    gamma: float = 0.0
    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
        weighter: Weighter | Sequence[Weighter] | None,
        global_batch: bool,
        process_group: ProcessGroup | None,
    ) -> None:
        super().__init__(
            reduction=reduction,
            weighter=weighter,
            global_batch=global_batch,
            process_group=process_group,
        )
        if weight is not None:
            check_tensor("weight", weight)
            if weight.ndim != 1:
                raise ValueError(f"weight must have shape (C,), got {tuple(weight.shape)}")
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = check_label_smoothing(label_smoothing)

    def samples(self, logits: Tensor, target: Tensor) -> Samples:
        weight = self.weight
        check_classification(logits, target, weight, self.ignore_index)
        loss = softmax_loss(
            logits, target, self.gamma, weight, self.ignore_index, self.label_smoothing
        )
        num_classes = logits.shape[class_dim(logits)]
        if target.is_floating_point():
            return Samples(loss, target, num_classes=num_classes, logits=logits)
        valid = valid_mask(target, self.ignore_index)
        class_weight = None if weight is None else look_up_valid(weight, target, valid)
        return Samples(loss, target, valid, num_classes, class_weight, logits)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """Return the reduced loss; see the class for what the arguments mean."""
        check_tensor("logits", logits)
        check_tensor("target", target)
        if logits.ndim == 1 and target.shape == (1,) and is_index(target):  # torch allows it
            target = target.squeeze(0)
        if self._is_torchs_own(logits, target) and sample_weight is None and normalizer is None:
            return self._torchs_own(logits, target)
        return super().forward(logits, target, sample_weight=sample_weight, normalizer=normalizer)

    def _is_torchs_own(self, logits: Tensor, target: Tensor) -> bool:
        """Whether F.cross_entropy computes the very same thing, reduction and all."""
        if self.gamma != 0 or self.reduction not in ("mean", "sum") or target.numel() == 0:
            return False
        if self.num_processes > 1 or self.is_watched:
            return False
        if has_kernel(logits, target, self.weight, self.label_smoothing):
            return False
        if self.weighter is None:
            return True
        # with a weighter, the mean divides by M even if there are class weights
        return self.weighter.inactive and (self.weight is None or self.reduction == "sum")

    def _torchs_own(self, logits: Tensor, target: Tensor) -> Tensor:
        """F.cross_entropy to the last bit, but 0 where no sample counts and torch has 0 / 0."""
        check_classification(logits, target, self.weight, self.ignore_index)
        weight, nothing = self.weight, None
        if self.reduction == "mean" and not target.is_floating_point():
            counts = valid_mask(target, self.ignore_index)
            if weight is not None:
                counts = look_up_valid(weight, target, counts) != 0
            if counts is not None and not (is_readable(counts) and bool(counts.any())):
                nothing = ~counts.any()
            if weight is not None and nothing is not None:  # torch's gradient would be 0 / 0 too
                weight = torch.where(nothing, torch.ones_like(weight), weight)
        loss = torch_cross_entropy(
            logits,
            target,
            weight,
            self.ignore_index,
            self.label_smoothing,
            "sum" if self.reduction == "sum" else "mean",
        )
        return loss if nothing is None else loss.masked_fill(nothing, 0)

    def _arguments_repr(self) -> list[str]:
        arguments = []
        if self.weight is not None:
            arguments.append(f"weight=<{len(self.weight)} classes>")
        if self.ignore_index != -100:
            arguments.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            arguments.append(f"reduction={self.reduction!r}")
        if self.label_smoothing:
            arguments.append(f"label_smoothing={self.label_smoothing}")
        return arguments

    def extra_repr(self) -> str:
        return ", ".join(self._arguments_repr())


class CrossEntropyLoss(SoftmaxLoss):
    r"""Softmax cross-entropy with sample weights: nn.CrossEntropyLoss, and a ``weighter``.

    .. math:: \frac{1}{M} \sum_j w_j \, (-\log p(y_j))

    Without a weighter it is ``torch.nn.CrossEntropyLoss`` in value, gradient and errors, with one
    difference: a batch in which no sample counts (empty, or all ignored) gives 0 with its graph
    kept, where torch gives NaN.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`, any
          integer dtype; or probabilities with the shape of ``logits``.
        - sample_weight: the shape of the class indices, at least 0.
        - Output: scalar; the shape of the class indices with ``reduction="none"``.

    Args:
        weight: torch's own class weights, shape :math:`(C)`; multiplied into the loss, before the
            weighter sees it.
        size_average: None; torch's deprecated argument, kept for its place.
        ignore_index: the class index that marks a sample to leave out.
        reduce: None; torch's deprecated argument, kept for its place.
        reduction: "mean" (over the valid samples, Eq. 3; with ``weight`` and no weighter torch's
            meaning, division by the summed class weights of the targets), "weighted_mean"
            (division by the sum of all weights), "sum" or "none".
        label_smoothing: in [0, 1].
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: weigh and divide as if the batches of all processes were one, so that the
            gradient that DDP or FSDP averages is that of one process; the value is this
            process's part, times the number of processes.
        process_group: the processes, with ``global_batch=True``; None for all of them.

    The call takes ``sample_weight=``, multiplied in last, through which gradient flows if it asks
    for one; and ``normalizer=``, a number or 0-d tensor that replaces the denominator of the
    means: micro-batches with a common normalizer add up to the gradient of the whole batch.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit.
        IndexError: a class index out of range (on CUDA torch's device-side assertion).

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, OHEM
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
        >>> target = torch.tensor([0, 0, 1])
        >>> CrossEntropyLoss()(logits, target)
        tensor(0.8048)
        >>> CrossEntropyLoss(weighter=OHEM(schedule=1 / 3), reduction="none")(logits, target)
        tensor([0.0000, 1.3133, 0.0000])

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 3
        and 5.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        deprecated: dict[str, Any] = {"size_average": size_average, "reduce": reduce}
        for name, value in deprecated.items():
            if value is not None:
                raise ValueError(f"{name} must be None (deprecated by torch), got {value}")
        super().__init__(
            weight,
            ignore_index,
            reduction,
            label_smoothing,
            weighter,
            global_batch,
            process_group,
        )
