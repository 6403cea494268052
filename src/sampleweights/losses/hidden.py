"""A batch of hidden states for a linear head: what fits, and what its losses are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sampleweights._checks import check_class_indices, check_floating, check_tensor, is_index
from sampleweights._eager import autocasts, is_readable, is_staged, plain
from sampleweights.functional.linear import Form, Rows, positions
from sampleweights.functional.reference import look_up_valid
from sampleweights.losses.watching import Samples


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
        kept = None if counts is None else positions(counts.reshape(-1))
        return Rows(self.target.reshape(-1), kept, self.dtype, self.form)

    def samples(self, loss: Tensor | None, judged: list[Tensor]) -> Samples:
        """With losses of rows, or before there are any."""
        wide = torch.promote_types(self.dtype, torch.float32)
        if loss is None:
            loss = self.inputs[0].new_zeros((), dtype=wide).expand(self.target.shape)
        weight, dtype = self.form.weight, self.dtype
        if autocasts(self.target):
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


def checked(
    hidden: Tensor, target: Tensor, ignore_index: int, head: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Plain tensors that fit each other and the head."""
    check_floating("hidden", hidden)
    check_tensor("target", target)
    hidden, target = plain(hidden), plain(target)
    if is_staged() or type(target) not in (Tensor, nn.Parameter):
        raise RuntimeError(
            "LinearCrossEntropyLoss computes the rows that the target counts, which code that is "
            "exported, traced, transformed by torch.func or run on fake tensors cannot know: use "
            "CrossEntropyLoss or FocalLoss on the logits there"
        )
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


def product_dtype(hidden: Tensor, head: nn.Linear) -> torch.dtype:
    """What F.linear would return."""
    dtype = hidden.dtype
    if autocasts(hidden) and dtype != torch.float64:
        return torch.get_autocast_dtype(hidden.device.type)
    if dtype != head.weight.dtype:
        raise ValueError(
            f"hidden must have the dtype of the head, {head.weight.dtype}, got {dtype}"
        )
    return dtype
