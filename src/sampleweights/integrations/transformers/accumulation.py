"""What ``num_items_in_batch`` says to one who sees the parts of an accumulated batch in turn."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sampleweights.losses.processes import world_size


class Part(NamedTuple):
    """What counts in one part of the batch."""

    own: float
    """What the criterion divides by."""
    every: float
    """The labels that are not -100, which a Trainer counts, ..."""
    rest: float
    """... or, for a causal language model, those of them after the first of each row."""

    def over_processes(self, device: torch.device) -> Part:
        from sampleweights.distributed import all_sum

        return Part(*all_sum(torch.tensor(self, dtype=torch.float64), device, None).tolist())


class AccumulatedBatch:
    """Finds out what the sum of the losses of a part is to be divided by, or raises.

    A part may be all there is; then it is divided by what the criterion counts in it. If not, what
    the others hold is known only where the Trainer counts what the criterion counts.
    """

    def __init__(self) -> None:
        self._num_items: Any = None
        """Of the batch whose parts are coming; a number is known by its identity."""
        self._doubtful: Any = None
        """Of a batch that seemed to have one part, if its first labels were counted."""
        self._seen = [Part(0, 0, 0)] * 2
        """What all processes and this one have counted so far."""
        self._without_first = False
        """Whether a batch before has shown that the Trainer leaves the first labels out."""

    def denominator(
        self, num_items: Tensor | int, part: Part, *, per_loss: float, shift: bool, device: Any
    ) -> tuple[float | None, float]:
        """What to divide by, None for what the criterion divides by, and a factor for the loss."""
        # without a launcher, each of several GPUs is given the number, and the loss multiplied
        copies = num_items.numel() if isinstance(num_items, Tensor) else 1
        items = float(num_items.reshape(-1)[0] if isinstance(num_items, Tensor) else num_items)
        training, processes = torch.is_grad_enabled(), world_size()
        parts = [part]
        if training and processes > 1:
            parts.insert(0, part.over_processes(device))  # before a part that is all of its own
        if part.every == 0:  # nothing to divide
            return items or 1.0, 1.0
        is_complete = any(items in (seen.every, seen.rest) for seen in self._seen)
        if num_items is not self._num_items or is_complete or not training:
            for whole in parts:
                if items == whole.rest or (items == whole.every and not self._without_first):
                    self._doubtful = num_items if shift and whole.every != whole.rest else None
                    self._num_items = None
                    return (None if whole is part else whole.own), 1 / copies
            if copies > 1 and items == part.every // copies:
                return None, 1.0
            if training:
                self._num_items, self._seen = num_items, [Part(0, 0, 0)] * 2
        counted = part.rest if shift else part.every
        same = part.own * per_loss == counted
        if not training:  # the mean over this process, of which the Trainer takes the mean
            return (items * copies / per_loss, 1.0) if same else (None, 1 / processes)
        if num_items is self._doubtful or not same or self._counted_otherwise(parts, items, shift):
            raise ValueError(
                f"num_items_in_batch must count what the criterion counts where a batch is "
                f"accumulated or shared by several processes, got {items * copies:g}, while "
                f"the criterion divides by {part.own * per_loss:g} for the {part.every:g} labels "
                f"of this part that are not -100, and nothing says what for the others. Use "
                f"WeightingTrainer(criterion=...), which counts them, or set all labels without a "
                f"loss to -100 (with shift=True, also the first of each row)"
            )
        return items * copies / per_loss, 1.0

    def _counted_otherwise(self, parts: list[Part], items: float, shift: bool) -> bool:
        """Whether the Trainer has counted the first labels of rows, or not, against ``shift``."""
        for i, part in enumerate(parts):
            seen = Part(*(a + b for a, b in zip(self._seen[i], part, strict=True)))
            self._seen[i] = seen
            if shift and seen.rest == items != seen.every:
                self._without_first = True
            # as many as there are with the first ones: this is the last part. (It might also be a
            # part before, if those that come have one label for each row of the batch; so only
            # until a batch has ended as it should.)
            if shift and seen.every == items != seen.rest and not self._without_first:
                return True
            if not shift and len(parts) == 1 and seen.every > items:
                return True
        return False
