"""What the losses of binary and multi-label targets share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sampleweights._checks import check_binary, check_tensor, is_index
from sampleweights.functional.reference import output_dtype, valid_mask
from sampleweights.losses.base import Criterion, Samples
from sampleweights.margins.base import Margin, checked_margin
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SigmoidLoss(Criterion):
    """Every element is a sample with two classes. A subclass computes ``losses``."""

    def __init__(
        self,
        ignore_index: float,
        reduction: str,
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
        self.ignore_index = ignore_index
        self.margin = checked_margin(margin)

    _what_classes_are = (
        "; for binary and multi-label targets a weighter takes the counts of negatives and "
        "positives, [(1 - y).sum(), y.sum()], and alpha= or pos_weight= one value for each label"
    )

    @abstractmethod
    def losses(self, negative: Tensor, positive: Tensor, target: Tensor) -> Tensor:
        """The loss of each element, in at least float32, from the logits of either class."""

    def samples(self, logits: Tensor, target: Tensor) -> Samples:
        check_tensor("target", target)
        if is_index(target):
            target = target.long()  # the larger unsigned integers have few operations
        valid = valid_mask(target, self.ignore_index)
        if valid is not None:
            target = target.masked_fill(~valid, 0)
        check_binary(logits, target)
        dtype = self._output_dtype(logits, target)
        if self.margin is None or not self.has_margin:
            loss, rounded = self.losses(logits, logits, target).to(dtype), None
        else:
            moved = self.margin.binary(logits, target, valid)
            loss, rounded = self.losses(*moved, target), dtype
        if valid is not None:
            loss = loss.masked_fill(~valid, 0)
        if not target.is_floating_point():
            target = target.long()  # bool
        return Samples(loss, target, valid, num_classes=2, dtype=rounded)

    def _output_dtype(self, logits: Tensor, target: Tensor) -> torch.dtype:
        return output_dtype(logits, logits)

    def _arguments_repr(self) -> list[str]:
        arguments = []
        if self.ignore_index != -100:
            arguments.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            arguments.append(f"reduction={self.reduction!r}")
        return arguments

    def extra_repr(self) -> str:
        return ", ".join(self._arguments_repr())
