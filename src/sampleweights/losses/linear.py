"""Cross-entropy and focal loss of hidden states and a linear head, without all of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sampleweights._buffers import follow
from sampleweights._checks import (
    as_whole_number,
    check_class_indices,
    check_floating,
    check_gamma,
    check_reference_loss,
    check_tensor,
    is_index,
)
from sampleweights._eager import is_readable, plain
from sampleweights.functional.linear import Form, Rows, losses, total
from sampleweights.functional.reference import look_up_valid, valid_mask
from sampleweights.losses.base import Criterion, Samples, call_hooks
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.losses.watching import judge
from sampleweights.margins.base import Margin
from sampleweights.reduction import check_normalizer, check_reduction, expand_to, nonzero
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["LinearCrossEntropyLoss"]


class LinearCrossEntropyLoss(SoftmaxLoss):
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        weighter: Weighter | Sequence[Weighter] | None = None,
        margin: Margin | None = None,
        gamma: float = 0.0,
        chunk_size: int | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(
            weight,
            ignore_index,
            reduction,
            label_smoothing,
            weighter,
            global_batch,
            process_group,
            margin,
        )
        in_features = as_whole_number("in_features", in_features, least=1)
        num_classes = as_whole_number("num_classes", num_classes, least=1)
        self.gamma = check_gamma(gamma)
        self.chunk_size = chunk_size
        if chunk_size is not None:
            self.chunk_size = as_whole_number("chunk_size", chunk_size, least=1)
        self.linear: nn.Linear
        self._shared: tuple[nn.Linear, ...] = ()
        self.linear = nn.Linear(in_features, num_classes, bias, device=device, dtype=dtype)

    @classmethod
    def from_linear(cls, linear: nn.Linear, **arguments: Any) -> LinearCrossEntropyLoss:
        if not isinstance(linear, nn.Linear) or type(linear).forward is not nn.Linear.forward:
            raise TypeError(
                f"linear must be an nn.Linear (one that computes more, as with adapters, has no "
                f"single matrix), got {type(linear).__name__}"
            )
        criterion = cls(1, 1, device="meta", **arguments)
        del criterion.linear
        criterion._shared = (linear,)
        return criterion

    @property
    def head(self) -> nn.Linear:
        """The linear layer: the criterion's own, or the one that was given to ``from_linear``."""
        return self._shared[0] if self._shared else self.linear

    has_class_probabilities = False
    _what_classes_are = " (the rows of the head)"

    def forward(
        self,
        hidden: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the reduced loss; see the class for what the arguments mean."""
        weighter = self.acting_weighter
        in_one_pass = self.reduction != "none" and torch.is_grad_enabled()
        if weighter is not None and not weighter.is_elementwise:
            # processes that share a batch gather it together, whatever the epoch of each of them
            alone = weighter.is_local or self.num_processes == 1
            in_one_pass = in_one_pass and alone and weighter.inactive
        if not in_one_pass:
            return Criterion.forward(
                self,
                hidden,
                target,
                sample_weight=sample_weight,
                normalizer=normalizer,
                reference_loss=reference_loss,
            )
        batch = self._batch(hidden, target)
        return self._in_one_pass(batch, sample_weight, normalizer, reference_loss)

    def samples(self, hidden: Tensor, target: Tensor) -> Samples:
        batch = self._batch(hidden, target)
        loss, judged = losses(batch.rows(batch.valid), *batch.inputs)
        return batch.samples(loss, judged)

    def _batch(self, hidden: Tensor, target: Tensor) -> Batch:
        """The batch, checked, with what its losses are made of."""
        hidden, target = _checked(hidden, target, self.ignore_index, self.head)
        dtype = _product_dtype(hidden, self.head)
        wide = torch.promote_types(dtype, torch.float32)
        self._check_margin()
        form = Form(
            gamma=self.gamma,
            label_smoothing=self.label_smoothing,
            weight=None if self.weight is None else follow(self.weight, hidden).to(wide),
            margin=self.margin if self.has_margin else None,
            judge=judge if self.is_watched and self.head.out_features > 1 else None,
            chunk_size=self.chunk_size,
        )
        if form.weight is not None and len(form.weight) != self.head.out_features:
            raise ValueError(
                f"weight must have shape ({self.head.out_features},), one value for each row of "
                f"the head, got {tuple(form.weight.shape)}"
            )
        inputs = (hidden.reshape(-1, hidden.shape[-1]), self.head.weight, self.head.bias)
        return Batch(inputs, target, valid_mask(target, self.ignore_index), dtype, form)

    def _in_one_pass(
        self,
        batch: Batch,
        sample_weight: Tensor | None,
        normalizer: Tensor | float | None,
        reference_loss: Tensor | None,
    ) -> Tensor:
        """With weights that need no other loss: the gradients are computed with the losses."""
        reduction = check_reduction(self.reduction)
        check_normalizer(normalizer, reduction)
        before, weighter = batch.samples(None, []), self.acting_weighter
        if reference_loss is not None:
            check_reference_loss(reference_loss, before.loss)
        own = None if sample_weight is None else expand_to(before.loss, sample_weight)
        acts = weighter is not None and not weighter.inactive
        if weighter is not None and not acts:
            self._check_num_classes(weighter, before.num_classes)
            weighter.skip()

        def weigh(samples: Samples, own: Tensor | None, reference: Tensor | None) -> Tensor | None:
            if acts:
                return self._weigh(samples, own, reference)
            return None if own is None else own.to(samples.loss.dtype)

        divisor: Tensor | float = 1
        needs_weights = reduction == "weighted_mean" and normalizer is None
        if not needs_weights:
            divisor = _nonzero(self._denominator(before, None, normalizer))
        own_of_row = None if own is None else own.reshape(-1)
        reference_of_row = None if reference_loss is None else reference_loss.reshape(-1)

        def coefficient(loss: Tensor, at: Any) -> Tensor:
            weight = weigh(
                Samples(loss, rows.target[at], None, before.num_classes),
                None if own_of_row is None else own_of_row[at],
                None if reference_of_row is None else reference_of_row[at],
            )
            return (torch.ones_like(loss) if weight is None else weight) / divisor

        counts = batch.valid
        if own is not None:
            counts = own != 0 if counts is None else counts & (own != 0)
        rows = batch.rows(counts)
        value, loss, judged = total(rows, coefficient, *batch.inputs)
        if self.is_watched and own is not None:  # hooks see the losses of weight 0, too
            valid = torch.ones_like(own, dtype=torch.bool) if batch.valid is None else batch.valid
            with torch.no_grad():
                others, judged_too = losses(batch.rows(valid & (own == 0)), *batch.inputs)
            loss = loss + others
            judged = [a + b for a, b in zip(judged, judged_too, strict=True)]
        if self.is_watched or needs_weights:
            after = batch.samples(loss, judged)
            weight = weigh(after, own, reference_loss)
            if self.is_watched:
                call_hooks(self, after, weight)
            if needs_weights:
                value = value / _nonzero(self._denominator(after, weight))
        return value.to(before.dtype)

    def extra_repr(self) -> str:
        shared = [f"head={self.head}"] if self._shared else []
        gamma = [f"gamma={self.gamma}"] if self.gamma else []
        return ", ".join([*shared, *gamma, *self._arguments_repr()])


class Batch(NamedTuple):
    """A batch of hidden states, and what its losses are made of."""

    inputs: tuple[Tensor, Tensor, Tensor | None]
    """Hidden states (M, D), the matrix (C, D) and the bias (C,) of the head."""
    target: Tensor
    valid: Tensor | None
    dtype: torch.dtype
    """Of the logits, if there were any."""
    form: Form

    def rows(self, counts: Tensor | None) -> Rows:
        """Those that count, given as a mask in the shape of the target; None: all."""
        kept = None if counts is None else counts.reshape(-1).nonzero().squeeze(1)
        return Rows(self.target.reshape(-1), kept, self.dtype, self.form)

    def samples(self, loss: Tensor | None, judged: list[Tensor]) -> Samples:
        """With losses of rows, or before there are any."""
        wide = torch.promote_types(self.dtype, torch.float32)
        if loss is None:
            loss = self.inputs[0].new_zeros((), dtype=wide).expand(self.target.shape)
        weight, dtype = self.form.weight, self.dtype
        if torch.is_autocast_enabled(self.target.device.type):
            dtype = wide  # as cross-entropy under autocast
        return Samples(
            loss.reshape(self.target.shape),
            self.target,
            self.valid,
            len(self.inputs[1]),
            None if weight is None else look_up_valid(weight, self.target, self.valid),
            dtype=dtype,
            judged=(judged[0], judged[1]) if judged and self.target.ndim == 1 else None,
        )


def _nonzero(divisor: Tensor | float) -> Tensor | float:
    return nonzero(divisor) if isinstance(divisor, Tensor) else divisor or 1


def _checked(
    hidden: Tensor, target: Tensor, ignore_index: int, head: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Plain tensors that fit each other and the head."""
    check_floating("hidden", hidden)
    check_tensor("target", target)
    hidden, target = plain(hidden), plain(target)
    if hidden.ndim == 0 or hidden.shape[-1] != head.in_features:
        raise ValueError(
            f"hidden must have shape (..., {head.in_features}), the in_features of the head, got "
            f"{tuple(hidden.shape)}"
        )
    if not is_index(target):
        raise TypeError(
            f"target must hold class indices (integer) where the logits never exist, got dtype "
            f"{target.dtype}; for probabilities use CrossEntropyLoss on the logits"
        )
    if target.shape != hidden.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(hidden.shape[:-1])}, one class index for each row of "
            f"hidden, got {tuple(target.shape)}"
        )
    if not isinstance(head.weight, nn.Parameter) and type(head.weight) is not Tensor:
        raise TypeError(f"the weight of the head must be a tensor, got {type(head.weight)}")
    if hasattr(head.weight, "full_tensor"):
        raise ValueError(
            "the head is sharded among processes at the moment, and its rows are not here: wrap "
            "it in the unit of FSDP whose forward calls this criterion, or in one that does not "
            "reshard after its forward"
        )
    target = target.long()
    if is_readable(target):
        check_class_indices(target, head.out_features, ignore_index)
    return hidden, target


def _product_dtype(hidden: Tensor, head: nn.Linear) -> torch.dtype:
    """What F.linear would return."""
    kind, dtype = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(kind) and dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    if dtype != head.weight.dtype:
        raise ValueError(
            f"hidden must have the dtype of the head, {head.weight.dtype}, got {dtype}"
        )
    return dtype
