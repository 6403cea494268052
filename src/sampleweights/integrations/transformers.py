"""For the Trainer of Hugging Face transformers: a loss function and a callback."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from sampleweights.losses.base import Criterion

__all__ = ["EpochCallback", "LossFunction"]


class LossFunction:
    """A criterion of this library as ``Trainer(compute_loss_func=...)``.

    Right under gradient accumulation: the sum of the weighted losses is divided by
    ``num_items_in_batch``, the items of the whole accumulated batch, which the Trainer counts.
    A plain mean here would be too large by the number of accumulation steps.

    Args:
        criterion: with ``reduction`` "mean" or "weighted_mean", and without ``global_batch``,
            since the Trainer brings the processes together itself.
        shift: for causal language models: position i predicts label i + 1.

    Raises:
        ValueError: a criterion that does not fit.

    Example::

        criterion = CrossEntropyLoss(weighter=OHEM(schedule=0.5))  # the harder half of the tokens
        trainer = Trainer(
            model,
            args,
            compute_loss_func=LossFunction(criterion, shift=True),
            callbacks=[EpochCallback(criterion)],
            ...,
        )
    """

    def __init__(self, criterion: Criterion, *, shift: bool = False) -> None:
        if criterion.reduction not in ("mean", "weighted_mean"):
            raise ValueError(
                f"criterion must have reduction 'mean' or 'weighted_mean', got "
                f"{criterion.reduction!r}"
            )
        if criterion.global_batch:
            raise ValueError(
                "criterion must not have global_batch=True: the Trainer brings the processes "
                "together itself"
            )
        self.criterion, self.shift = criterion, shift

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        logits: Tensor = outputs["logits"] if hasattr(outputs, "keys") else outputs[0]
        if self.shift:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        if logits.ndim == 3:  # (N, T, C): every token is a sample
            logits, labels = logits.flatten(0, 1), labels.flatten()
        self.criterion.to(logits.device)
        if isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.to(logits.device).squeeze()
        loss: Tensor = self.criterion(logits, labels, normalizer=num_items_in_batch)
        return loss


class EpochCallback(TrainerCallback):
    """Calls ``set_epoch`` at the beginning of each epoch, also after a resume.

    Args:
        criterion: anything with ``set_epoch``.
    """

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.criterion.set_epoch(int(state.epoch or 0))
