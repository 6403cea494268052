"""Cross-entropy and focal loss of hidden states and a linear head, without all of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sampleweights._buffers import follow
from sampleweights._checks import (
    as_whole_number,
    check_gamma,
    check_reference_loss,
)
from sampleweights.functional.linear import Form, losses, total
from sampleweights.functional.reference import valid_mask
from sampleweights.losses.base import Criterion, Samples, call_hooks
from sampleweights.losses.hidden import Batch, checked, product_dtype
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.losses.watching import judge
from sampleweights.margins.base import Margin
from sampleweights.reduction import check_normalizer, check_reduction, expand_to, nonzero
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["LinearCrossEntropyLoss"]


class LinearCrossEntropyLoss(SoftmaxLoss):
    r"""Cross-entropy, or focal loss, of a linear head whose logits never exist as a whole.

    .. math:: \frac{1}{M} \sum_j w_j \, \ell(W h_j + b, \, y_j)

    ``criterion(hidden, target)`` equals ``CrossEntropyLoss(...)(linear(hidden), target)``, or that
    of :class:`FocalLoss` with ``gamma``, in value and in all gradients. It holds no more than a
    chunk of rows of the logits at a time, which the loss alone reads: a language model with
    32,000 to 256,000 tokens otherwise spends most of its memory on them. Rows that do not count
    (ignored, or of weight 0) cost nothing, and in training the rows that a curriculum leaves out
    cost one matrix product of three.

    Weights that need no other loss (none, class weights, ``sample_weight``,
    :class:`~sampleweights.Confidence`) take one pass, in which the gradients are computed with the
    losses. Others take one for the losses and, in the backward pass, one for the rows that they
    keep; so does ``reduction="none"``. There is no second derivative, no ``torch.func``, no forward
    mode and no export. ``torch.compile`` breaks the graph here, and compiles the model around it.

    Shape:
        - hidden: :math:`(D)`, :math:`(N, D)` or :math:`(N, T, D)`, any number of leading
          dimensions, floating, in the dtype of the head (under autocast in any).
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, T)`, any integer
          dtype. Of a causal language model pass ``hidden[:, :-1]`` and ``tokens[:, 1:]``.
        - sample_weight: the shape of ``target`` or of its leading dimensions, at least 0.
        - Output: scalar; the shape of ``target`` with ``reduction="none"``. Its dtype is that of
          the logits, float32 under autocast. Products are computed in the dtype of hidden states
          and head, softmax and sums in at least float32.

    Args:
        in_features: D, the size of a hidden state.
        num_classes: C, the number of classes or tokens.
        bias: whether the head has a bias.
        device: of the head.
        dtype: of the head.
        reduction: as in :class:`CrossEntropyLoss`.
        weight: torch's own class weights, shape :math:`(C)`.
        ignore_index: the class index that marks a row to leave out.
        label_smoothing: in [0, 1].
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        margin: a :class:`~sampleweights.Margin`, which moves the logits before the loss. What it
            learns gets its gradient, too.
        gamma: focusing parameter of :class:`FocalLoss`, at least 0; 0 is cross-entropy.
        chunk_size: how many rows of logits exist at a time, at least 1. None: as many as 32 MiB
            hold (on a GPU 256 MiB), and at least 384 (512).
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.

    The arguments up to ``label_smoothing`` are those of ``torch.nn.LinearCrossEntropyLoss``
    (torch 2.13), which has ``out_features`` and ``options`` besides. The call takes
    ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` as :class:`CrossEntropyLoss` does.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit; a head whose rows are
            sharded among processes at the time of the call.
        TypeError: probabilities as target.
        IndexError: a class index out of range (on CUDA a device-side assertion).
        RuntimeError: ``create_graph=True``, ``torch.func``, tracing or export.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sampleweights import OHEM, LinearCrossEntropyLoss
        >>> lm_head = nn.Linear(2, 3, bias=False)
        >>> _ = lm_head.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> criterion = LinearCrossEntropyLoss.from_linear(lm_head, weighter=OHEM(schedule=0.5))
        >>> hidden = torch.tensor([[2.0, 0.0], [0.0, 0.0]], requires_grad=True)
        >>> criterion(hidden, torch.tensor([0, 1]))
        tensor(0.5493, grad_fn=<DotBackward0>)

    References:
        Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, ICLR 2025.
    """

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
        _leave_uncompiled()
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
        """A criterion for the head of a model, as ``model.lm_head``.

        It uses the parameters of ``linear`` and does not own them: an optimizer, a state_dict and
        a move to a device get them from the model alone. A hook of ``linear`` is not called.

        Args:
            linear: the head, an ``nn.Linear``; also one whose weight is tied to an embedding.
            **arguments: those of the class after ``dtype``.

        Raises:
            TypeError: a module that is no ``nn.Linear`` or computes something else, as heads with
                adapters or quantised weights do.
        """
        if not isinstance(linear, nn.Linear) or type(linear).forward is not nn.Linear.forward:
            raise TypeError(
                f"linear must be an nn.Linear (one that computes more, as with adapters, has no "
                f"single matrix), got {type(linear).__name__}"
            )
        if "forward" in vars(linear):
            raise TypeError(
                "linear must have the forward of nn.Linear, got one that was replaced (as for a "
                "device_map)"
            )
        if "weight" in vars(linear) and linear._forward_pre_hooks:
            raise TypeError(
                "linear must have its weight as a parameter or a parametrization, got one that a "
                "hook computes (as of torch.nn.utils.prune and the old weight_norm)"
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
    _what_classes_are = ", the rows of the head"

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
        value: Tensor = _uncompiled["loss"](
            self, hidden, target, sample_weight, normalizer, reference_loss
        )
        return value

    def _loss(
        self,
        hidden: Tensor,
        target: Tensor,
        sample_weight: Tensor | None,
        normalizer: Tensor | float | None,
        reference_loss: Tensor | None,
    ) -> Tensor:
        weighter = self.acting_weighter
        in_one_pass = self.reduction != "none" and torch.is_grad_enabled()
        if weighter is not None:
            # processes that share a batch gather it together, whatever the epoch of each of them
            alone = weighter.is_local or self.num_processes == 1
            in_one_pass = in_one_pass and alone and (weighter.is_elementwise or weighter.inactive)
        for factor in (sample_weight, normalizer):  # one that learns needs the losses
            in_one_pass = in_one_pass and not getattr(factor, "requires_grad", False)
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
        hidden, target = checked(hidden, target, self.ignore_index, self.head)
        dtype = product_dtype(hidden, self.head)
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
        needs_weights = reduction == "weighted_mean" and normalizer is None
        if weighter is not None:
            self._check_num_classes(weighter, before.num_classes)
            if not (acts and (needs_weights or self.is_watched)):
                weighter.skip()  # parts that wait count batches, which the chunks do not tell them

        def weigh(samples: Samples, own: Tensor | None, reference: Tensor | None) -> Tensor | None:
            if acts:
                return self._weigh(samples, own, reference)
            return None if own is None else own.to(samples.loss.dtype)

        divisor = 1 if needs_weights else nonzero(self._denominator(before, None, normalizer))
        # float16 holds no small gradients
        divides_later = needs_weights or batch.dtype == torch.float16
        own_of_row = None if own is None else own.reshape(-1)
        reference_of_row = None if reference_loss is None else reference_loss.reshape(-1)

        def coefficient(loss: Tensor, at: Any) -> Tensor:
            weight = weigh(
                Samples(loss, rows.target[at], None, before.num_classes),
                None if own_of_row is None else own_of_row[at],
                None if reference_of_row is None else reference_of_row[at],
            )
            weight = torch.ones_like(loss) if weight is None else weight
            return weight if divides_later else weight / divisor

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
            if judged and judged_too:
                judged = [a + b for a, b in zip(judged, judged_too, strict=True)]
            judged = judged or judged_too
        if self.is_watched or needs_weights:
            after = batch.samples(loss, judged)
            weight = weigh(after, own, reference_loss)
            if self.is_watched:
                call_hooks(self, after, weight)
            if needs_weights:
                divisor = nonzero(self._denominator(after, weight))
        value = value / divisor if divides_later else value
        return value.to(before.dtype)

    def __setstate__(self, state: dict[str, Any]) -> None:
        _leave_uncompiled()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        shared = [f"head={self.head}"] if self._shared else []
        gamma = [f"gamma={self.gamma}"] if self.gamma else []
        chunk = [] if self.chunk_size is None else [f"chunk_size={self.chunk_size}"]
        return ", ".join([*shared, *gamma, *self._arguments_repr(), *chunk])


_uncompiled: dict[str, Any] = {}
"""The loss as compiled code calls it: a walk over chunks that writes in place is not to be traced.

Made with the first criterion, and not with this module, since it imports the compiler, a second of
work, as the first optimizer does.
"""


def _leave_uncompiled() -> None:
    if not _uncompiled:
        disable: Any = torch.compiler.disable
        _uncompiled["loss"] = disable(LinearCrossEntropyLoss._loss)
