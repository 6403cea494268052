"""What cross-entropy and focal loss share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sampleweights._buffers import follow
from sampleweights._checks import (
    check_classification,
    check_label_smoothing,
    check_tensor,
    class_dim,
    is_index,
)
from sampleweights._eager import is_readable, plain
from sampleweights.functional.reference import (
    by_class,
    look_up_valid,
    output_dtype,
    smooth_weighted,
    torch_cross_entropy,
    valid_mask,
)
from sampleweights.functional.softmax import has_kernel, softmax_loss
from sampleweights.losses.base import Criterion, Samples, call_hooks
from sampleweights.losses.few import loss_of_few
from sampleweights.margins.base import Margin, checked_margin
from sampleweights.reduction import (
    accumulation_dtype,
    check_normalizer,
    check_reduction,
    denominator,
)
from sampleweights.weighters.base import Weighter
from sampleweights.weighters.class_frequency import ClassFrequency

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SoftmaxLoss(Criterion):
    """Cross-entropy where gamma is 0, else focal loss."""

    has_class_probabilities = True
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
        margin: Margin | None,
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
        self.register_buffer("weight", None if weight is None else plain(weight))
        self.ignore_index = ignore_index
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.margin = checked_margin(margin)
        for part in self.modules():
            if isinstance(part, ClassFrequency):
                part.check_one_class()
        self._check_margin()

    def _check_margin(self) -> None:
        if self.label_smoothing and self.margin is not None and self.margin.excludes_classes:
            raise ValueError(
                f"label_smoothing must be 0 with a margin that excludes classes without samples, "
                f"whose smoothed loss is infinite, got {self.label_smoothing}"
            )

    def _moved(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the loss sees; hooks see the logits of the model."""
        if self.margin is None or not self.has_margin:
            return logits
        self._check_margin()  # a state_dict may have brought other counts
        moved: Tensor = self.margin(logits, target, valid)
        return moved

    def samples(self, logits: Tensor, target: Tensor) -> Samples:
        weight = None if self.weight is None else follow(self.weight, logits)
        check_classification(logits, target, weight, self.ignore_index)
        num_classes = logits.shape[class_dim(logits)]
        if target.is_floating_point():
            return self._samples_of_probabilities(logits, target, num_classes)
        valid = valid_mask(target, self.ignore_index)
        moved, dtype = self._moved(logits, target, valid), None
        if moved.dtype != logits.dtype:  # a margin computes in float32, and so does its loss
            dtype = output_dtype(logits, target)
            weight = None if weight is None else weight.to(moved.dtype)
        loss = softmax_loss(
            moved,
            target,
            self.gamma,
            weight,
            self.ignore_index,
            self.label_smoothing,
            lean=moved is not logits,  # pays for the pass over the logits that a margin takes
        )
        class_weight = None if weight is None else look_up_valid(weight, target, valid)
        return Samples(loss, target, valid, num_classes, class_weight, logits, dtype=dtype)

    def _samples_of_probabilities(
        self, logits: Tensor, target: Tensor, num_classes: int
    ) -> Samples:
        """The loss of a mixture is the mixture of the losses, class weights and all."""
        weighter, smoothing, dtype = self.acting_weighter, self.label_smoothing, None
        of_model, logits = logits, self._moved(logits, target)
        if logits.dtype != of_model.dtype:
            dtype = output_dtype(of_model, target)
        class_factor = None
        if weighter is not None and not weighter.inactive:
            class_factor = weighter.class_factor
        weighted, class_weight = target, None
        if weighter is not None and class_factor is not None:
            self._check_num_classes(weighter, num_classes)
            dtype = output_dtype(of_model, target)
            target = target.to(accumulation_dtype(target.dtype))
            logits = logits.to(torch.promote_types(logits.dtype, target.dtype))
            weighted = target * by_class(class_factor.to(target.dtype), logits)
            if self.reduction == "weighted_mean":
                class_weight = weighted.detach().sum(class_dim(logits))
            if self.gamma == 0 and smoothing:
                weighted, smoothing = smooth_weighted(weighted, logits, smoothing), 0.0
        weight = None if self.weight is None else follow(self.weight, logits)
        if weight is not None and logits.dtype != of_model.dtype:
            weight = weight.to(logits.dtype)
        loss = softmax_loss(logits, weighted, self.gamma, weight, self.ignore_index, smoothing)
        return Samples(
            loss,
            target,
            None,
            num_classes,
            class_weight,
            of_model,
            is_class_weighted=class_factor is not None,
            dtype=dtype,
        )

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the reduced loss; see the class for what the arguments mean."""
        own = type(self).samples is SoftmaxLoss.samples
        if own and sample_weight is None and normalizer is None and reference_loss is None:
            value = loss_of_few(self, logits, target)
            if value is not None:
                if self.is_watched:
                    self._show(logits, target)
                return value
        check_tensor("logits", logits)
        check_tensor("target", target)
        if type(logits) is not Tensor:
            logits = plain(logits)
        if type(target) is not Tensor:
            target = plain(target)
        if logits.ndim == 1 and target.shape == (1,) and is_index(target):  # torch allows it
            target = target.squeeze(0)
        if sample_weight is None and reference_loss is None:
            value = self._in_one_call(logits, target, normalizer)
            if value is not None:
                if self.is_watched:
                    self._show(logits, target)
                return value
        return super().forward(
            logits,
            target,
            sample_weight=sample_weight,
            normalizer=normalizer,
            reference_loss=reference_loss,
        )

    def _in_one_call(
        self, logits: Tensor, target: Tensor, normalizer: Tensor | float | None
    ) -> Tensor | None:
        """The loss, where one call of F.cross_entropy is all there is to compute; else None."""
        reduction, weight, weighter = self.reduction, self.weight, self.acting_weighter
        if self.gamma != 0 or self.has_margin or self.num_processes > 1:
            return None
        if reduction not in ("mean", "sum") or target.numel() == 0:
            return None
        if weight is not None:
            weight = follow(weight, logits)
        if has_kernel(logits, target, weight, self.label_smoothing):
            return None
        if weighter is None or weighter.inactive:
            # with a weighter, the mean divides by M even if there are class weights
            same = weighter is None or weight is None or reduction == "sum"
            if not same or normalizer is not None:
                return None
            if weighter is not None:
                weighter.skip()
            return self._torchs_own(logits, target, weight, weighter)
        if (
            isinstance(weighter, ClassFrequency)
            and weight is None
            and self.label_smoothing == 0
            and logits.dtype.itemsize >= 4  # torch sums in the dtype of the logits
            and is_index(target)
        ):
            return self._class_frequency(weighter, logits, target, normalizer)
        return None

    def _show(self, logits: Tensor, target: Tensor) -> None:
        """Compute for the hooks what one call of F.cross_entropy does not return."""
        with torch.no_grad():
            samples = self.samples(logits.detach(), target)
            call_hooks(self, samples, self._weigh(samples))

    def _class_frequency(
        self,
        weighter: ClassFrequency,
        logits: Tensor,
        target: Tensor,
        normalizer: Tensor | float | None,
    ) -> Tensor | None:
        """Weights over M as torch's ``weight=``: no tensor of one value per sample is needed."""
        check_classification(logits, target, None, self.ignore_index)
        self._check_num_classes(weighter, logits.shape[class_dim(logits)])
        reduction = check_reduction(self.reduction)
        check_normalizer(normalizer, reduction)
        valid = valid_mask(target, self.ignore_index) if normalizer is None else None
        divisor = denominator(reduction, target.numel(), valid=valid, normalizer=normalizer)
        weight = weighter.weight_over(divisor, logits)  # autocast keeps float32 and float64
        if weight is None:
            return None
        return torch_cross_entropy(logits, target, weight, self.ignore_index, 0.0, "sum")

    def _torchs_own(
        self, logits: Tensor, target: Tensor, weight: Tensor | None, weighter: Weighter | None
    ) -> Tensor:
        """F.cross_entropy to the last bit, but 0 where no sample counts and torch has 0 / 0."""
        ignore_index, label_smoothing = self.ignore_index, self.label_smoothing
        check_classification(logits, target, weight, ignore_index)
        if weighter is not None:
            self._check_num_classes(weighter, logits.shape[class_dim(logits)])
        if self.reduction == "sum" or target.is_floating_point():
            reduction: Literal["sum", "mean"] = "sum" if self.reduction == "sum" else "mean"
            return torch_cross_entropy(
                logits, target, weight, ignore_index, label_smoothing, reduction
            )
        if is_readable(logits):
            loss = torch_cross_entropy(
                logits, target, weight, ignore_index, label_smoothing, "mean"
            )
            value = loss.item()
            if value == value:  # 0 / 0 is NaN: one look at it costs less than one at each target
                return loss
        nothing, counts = None, valid_mask(target, ignore_index)
        if weight is not None:
            counts = look_up_valid(weight, target, counts) != 0
        if counts is not None:
            nothing = ~counts.any()
            if weight is not None:  # torch's gradient would be 0 / 0 too
                weight = torch.where(nothing, torch.ones_like(weight), weight)
        loss = torch_cross_entropy(logits, target, weight, ignore_index, label_smoothing, "mean")
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
