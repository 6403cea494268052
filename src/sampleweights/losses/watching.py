"""Who watches a batch pass: what is shown of it, once its losses and weights are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


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
    judged: tuple[Tensor, Tensor] | None = None
    """What ``judge`` says of logits that no longer exist."""


Batch = tuple[Samples, "Tensor | None"]
"""What the criterion made of a batch, and its weights; None where all are 1."""

WeightingHook = Callable[[Any, Samples, "Tensor | None"], None]


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


def call_hooks(criterion: Any, samples: Samples, weight: Tensor | None) -> None:
    """Show a batch to whoever watches, without its graph: watching changes nothing."""
    is_compiling = torch.compiler.is_compiling()
    if not is_compiling and _is_in_backward():
        return  # activation checkpointing computes again what was seen in the forward pass
    loss, target, valid, num_classes, class_weight, logits, weighted, dtype, judged = samples
    logits = None if logits is None else logits.detach()
    # not _replace, at which the compiler of torch 2.4 breaks the graph
    samples = Samples(
        loss.detach(), target, valid, num_classes, class_weight, logits, weighted, dtype, judged
    )
    for batches in criterion._recordings:
        batches.append((samples, weight))
    if not is_compiling or criterion._weighting_hooks:
        _call_each(criterion, samples, weight)


def _call_each(criterion: Any, samples: Samples, weight: Tensor | None) -> None:
    if _is_in_backward():
        return  # in a compiled criterion
    for handle in list(criterion._weighting_hooks):
        handle.hook(criterion, samples, weight)


# What ``torch.compiler.disable`` sets; that decorator imports the compiler, a second of work. Hooks
# run between compiled graphs: traced, one that counts would recompile at every batch.
_call_each._torchdynamo_disable = True  # type: ignore[attr-defined]

# The name is private: where it is missing, a batch that is computed again is seen twice.
_graph_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)


def _is_in_backward() -> bool:
    return _graph_task() != -1


def judge(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """What the logits (N, C) of at least two classes say of the labels (N,).

    One, probability of the label, margin and correctness, (N, 4); label and highest other class,
    (N, 2) int32.
    """
    logits, label = logits.detach().float(), label.long()
    of_label = logits.gather(1, label[:, None])[:, 0]
    (first, second), (best, next_best) = (part.unbind(1) for part in logits.topk(2, dim=1))
    is_best = best == label
    margin = of_label - torch.where(is_best, second, first)
    p = (of_label - logits.logsumexp(1)).exp()
    scores = torch.stack([torch.ones_like(p), p, margin, (margin > 0).float()], 1)
    classes = torch.stack([label, torch.where(is_best, next_best, best)], 1)
    return scores, classes.int()
