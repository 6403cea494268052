"""A criterion in the place of a language model's head, so that its logits never exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sampleweights.integrations.transformers.loss import logits_of
from sampleweights.losses.base import Criterion
from sampleweights.losses.cross_entropy import CrossEntropyLoss
from sampleweights.losses.focal import FocalLoss
from sampleweights.losses.linear import LinearCrossEntropyLoss


def on_hidden_states(criterion: Criterion, model: Any) -> LinearCrossEntropyLoss:
    """The loss of the hidden states of ``model`` that ``criterion`` is of its logits.

    It shares the weighter, the margin and the hooks of ``criterion``.
    """
    if isinstance(criterion, LinearCrossEntropyLoss):
        return criterion
    if type(criterion) not in (CrossEntropyLoss, FocalLoss):
        raise ValueError(
            f"criterion must be a CrossEntropyLoss, a FocalLoss or a LinearCrossEntropyLoss with "
            f"fused_head=True, got {type(criterion).__name__}"
        )
    own: Any = criterion
    fused = LinearCrossEntropyLoss.from_linear(
        _head_of(model),
        reduction=own.reduction,
        weight=own.weight,
        ignore_index=own.ignore_index,
        label_smoothing=own.label_smoothing,
        weighter=own.weighter,
        margin=own.margin,
        gamma=own.gamma,
    )
    fused._weighting_hooks, fused._recordings = own._weighting_hooks, own._recordings
    return fused


class FusedHead:
    """Computes the loss where the model calls its head, of what the head is given.

    The loss then goes through the rest of the model in the place of the logits. Whatever wraps the
    model (DDP, FSDP, autocast) thus sees the backward pass begin at the model's output, and has
    gathered the parameters of the head for its call.
    """

    def __init__(
        self,
        criterion: LinearCrossEntropyLoss,
        compute: Callable[[Any, Tensor], Tensor],
        *,
        follows: bool,
    ) -> None:
        self.criterion, self._compute = criterion, compute
        self._follows = follows
        """Whether another head of the model takes the place of the one before."""
        self._checked: nn.Linear | None = None
        self._labels: Any = None
        self._keeps_logits = False
        self._loss: Tensor | None = None

    @contextmanager
    def in_place(self, labels: Any, *, keeps_logits: bool) -> Iterator[None]:
        """Within the ``with``, a forward pass of the model computes the loss of ``labels``.

        With ``keeps_logits``, which is for evaluation, it returns its logits as ever.
        """
        self._labels, self._keeps_logits, self._loss = labels, keeps_logits, None
        try:
            with _replaced(self.criterion.head, self._forward):
                yield
        finally:
            self._labels = self._loss = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _forward(self, hidden: Tensor) -> Tensor:
        if self._loss is not None:
            raise ValueError("the model must call its head once in a forward pass, called it twice")
        loss = self._loss = self._compute({"logits": hidden}, self._labels)
        if self._keeps_logits:
            return nn.Linear.forward(self.criterion.head, hidden)
        return loss.expand(*hidden.shape[:-1], 1)

    def loss(self, outputs: Any) -> Tensor:
        """The loss, from the outputs of the model."""
        if self._loss is None:
            raise ValueError("the model must call its head in a forward pass, did not")
        return self._loss if self._keeps_logits else logits_of(outputs)[0, 0, 0]

    def check(self, model: Any, inputs: Mapping[str, Any], unwrapped: Any) -> None:
        """Raise unless the outputs of ``model`` are those of its head, as they are.

        On a few tokens the head returns marks, which must arrive.
        """
        head = _head_of(unwrapped)
        if head is self._checked:
            return
        name = type(getattr(unwrapped, "get_base_model", lambda: unwrapped)()).__name__
        if self._follows:  # a model_init, or another vocabulary
            self.criterion._shared = (head,)
        if self.criterion.head is not head:
            raise ValueError(
                f"criterion must be a LinearCrossEntropyLoss of the head of the model that is "
                f"trained, from_linear(model.get_output_embeddings()), which a {name} has replaced "
                f"or never had"
            )
        tokens = {
            key: value[:1, :8]
            for key, value in inputs.items()
            if key in ("input_ids", "inputs_embeds") and value is not None
        }
        if not tokens:
            raise ValueError(f"the batch must hold input_ids or inputs_embeds, got {[*inputs]}")
        calls: list[Tensor] = []

        def mark(hidden: Tensor) -> Tensor:
            shape = (*hidden.shape[:-1], head.out_features)
            marks = torch.arange(hidden.shape[:-1].numel() * shape[-1], device=hidden.device)
            calls.append((4 * (marks % 509 - 254)).to(hidden.dtype).reshape(shape))
            return calls[-1]

        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), _replaced(head, torch.compiler.disable(mark)):
                outputs = model(**tokens)
        finally:
            model.train(was_training)
        logits, shape = logits_of(outputs), next(iter(tokens.values())).shape[:2]
        as_they_are = (
            len(calls) == 1
            and calls[0].shape[:-1] == shape
            and isinstance(logits, Tensor)
            and logits.shape == calls[0].shape
            and logits.equal(calls[0].to(logits.dtype))
        )
        if not as_they_are:
            raise ValueError(
                f"the logits of the model must be what its head returns for each token, but a "
                f"{name} changes them (as with final_logit_softcapping, logit_scale, "
                f"logits_scaling or a temperature), or computes them otherwise: train it without "
                f"fused_head, with CrossEntropyLoss or FocalLoss"
            )
        self._checked = head


def _head_of(model: Any) -> nn.Linear:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        raise ValueError(
            f"the last layer of the model, model.get_output_embeddings(), must be an nn.Linear "
            f"without adapters or quantised weights for fused_head=True, got {type(head)} of a "
            f"{type(model).__name__}"
        )
    if "forward" in vars(head):
        raise ValueError(
            f"the head of the model must have the forward of nn.Linear for fused_head=True, but "
            f"that of {type(model).__name__} was replaced (as for a device_map)"
        )
    return head


@contextmanager
def _replaced(head: nn.Linear, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    head.forward = forward  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del head.forward
