"""Selective backpropagation: skips the backward pass of samples of weight 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from sampleweights.losses.base import Criterion, call_hooks
from sampleweights.reduction import weighted_mean

__all__ = ["selective_loss"]

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


def selective_loss(
    model: Callable[..., Tensor],
    criterion: Criterion,
    inputs: Inputs,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    reference_loss: Tensor | None = None,
) -> Tensor:
    r"""Compute ``criterion(model(inputs), target)`` without a backward pass for dropped samples.

    All samples are first scored without a graph. The samples with a weight above 0 then go through
    the model once more, with a graph. The gradient equals the gradient of the plain call for a
    model in which the output of a sample depends on that sample alone. If a forward pass costs 1
    and a backward pass 2, keeping a fraction :math:`f` costs :math:`1 + 3 f` instead of 3, which is
    less for :math:`f` below 2/3. While the weighter is inactive, this is the plain call.

    Shape:
        - inputs: a tensor :math:`(N, ...)`, or a tuple (``model(*inputs)``) or dictionary
          (``model(**inputs)``) in which every tensor of length N is indexed.
        - target, sample_weight, normalizer, reference_loss, Output: as for ``criterion``.

    Args:
        model: a module or function from ``inputs`` to logits. Modules that a function calls keep
            their running statistics in the first pass, as those inside a module do. Pass a compiled
            module itself, and no function around it, since compiled code runs no module hooks.
        criterion: any loss of this library with a ``weighter`` and a ``reduction`` other than
            "none".
        inputs: the inputs of the model.
        target: the target. With dense targets, rows are kept in which any position counts.
        sample_weight: as for ``criterion``.
        normalizer: as for ``criterion``.
        reference_loss: as for ``criterion``, with one value for each sample of the batch.

    Raises:
        ValueError: ``reduction="none"``; levels of a :class:`HierarchicalLoss` with their own
            weighters.

    Note:
        In the second pass, batch normalisation sees only the kept samples, with which its running
        statistics are updated once. Dropout draws new masks for the second pass, so the network
        that trains differs from the network that ranked the samples, as it does from one step to
        the next. The number of kept samples is read on the host, which synchronises with the GPU
        once.

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, OHEM, selective_loss
        >>> model = torch.nn.Linear(2, 3)
        >>> inputs, target = torch.randn(8, 2), torch.randint(3, (8,))
        >>> criterion = CrossEntropyLoss(weighter=OHEM(schedule=0.25))
        >>> loss = selective_loss(model, criterion, inputs, target)  # the graph of 2 samples
        >>> torch.allclose(loss, criterion(model(inputs), target))
        True

    References:
        Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019.
    """
    if criterion.reduction == "none":
        raise ValueError("criterion must reduce to a scalar, got reduction='none'")
    for part in criterion.modules():
        if part is not criterion and isinstance(part, Criterion) and part.acting_weighter:
            raise ValueError("criterion must have no weighters on single levels")
    extra = {
        "sample_weight": sample_weight,
        "normalizer": normalizer,
        "reference_loss": reference_loss,
    }
    weighter = criterion.acting_weighter
    if weighter is None or weighter.inactive or len(target) == 0:
        return criterion(_call(model, inputs), target, **extra)  # type: ignore[no-any-return]

    target = criterion._fill_absent(target, sample_weight)
    scored = criterion.samples(_score(model, inputs), target)
    weight = criterion._weigh(scored, sample_weight, reference_loss)
    if weight is None:  # the class weights of probabilities are part of the losses
        weight = torch.ones_like(scored.loss)
    if criterion.is_watched:
        call_hooks(criterion, scored, weight)
    divisor = criterion._denominator(scored, weight, normalizer)
    rows = (weight.detach().reshape(len(target), -1) != 0).any(1).nonzero()[:, 0]
    if len(rows) == 0:  # a graph is needed still, by DDP for one
        rows = rows.new_zeros(1)
    kept = criterion.samples(_call(model, _index(inputs, rows, len(target))), target[rows])
    value = weighted_mean(kept.loss, weight[rows], divisor)
    return value.to(kept.dtype or kept.loss.dtype)


def _call(model: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def _score(model: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    """Logits without a graph; running statistics stay as they were."""
    before: dict[Tensor, Tensor] = {}

    def keep(called: nn.Module, *_: Any) -> None:
        for module in called.modules():
            for buffer in module.buffers(recurse=False) if module.training else ():
                if buffer not in before and not is_lazy(buffer):
                    before[buffer] = buffer.clone()

    handle = None
    if isinstance(model, nn.Module):
        keep(model)
    else:  # a function, whose modules show themselves when it calls them
        handle = register_module_forward_pre_hook(keep)
    with torch.no_grad():
        try:
            return _call(model, inputs)
        finally:
            if handle is not None:
                handle.remove()
            for buffer, value in before.items():
                buffer.copy_(value)


def _index(inputs: Any, rows: Tensor, size: int) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _index(value, rows, size) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [_index(value, rows, size) for value in inputs]
    if isinstance(inputs, Tensor) and inputs.ndim and len(inputs) == size:
        return inputs[rows]
    return inputs
