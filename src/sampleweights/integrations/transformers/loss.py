"""A criterion as the loss function of a Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sampleweights._checks import is_index
from sampleweights._eager import is_readable
from sampleweights.integrations.evaluation import without_weighters
from sampleweights.integrations.transformers.accumulation import AccumulatedBatch, Part
from sampleweights.integrations.transformers.denominator import (
    Count,
    check,
    count,
    labels_decide,
)
from sampleweights.losses.base import Criterion
from sampleweights.losses.hierarchical import HierarchicalLoss
from sampleweights.losses.sigmoid import SigmoidLoss
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.losses.weighted import WeightedLoss

__all__ = ["LossFunction"]


class Form(NamedTuple):
    """What the logits say about labels, also about those of batches that are still to come."""

    of_tokens: bool
    """Whether the logits are (N, T, C), of N T samples."""
    like_logits: bool
    """Whether the labels have the shape of the logits."""


class LossFunction:
    """A criterion of this library as ``Trainer(compute_loss_func=...)``.

    It divides the sum of the weighted losses by what the criterion counts in the whole accumulated
    batch: a plain mean would be too large by the number of accumulation steps. The Trainer passes
    only how many labels are not -100, ``num_items_in_batch``. Where a batch is neither accumulated
    nor shared by several processes, the criterion itself decides what counts. Where it is, and the
    Trainer counts other labels than the criterion (another ``ignore_index``, NaN, class weights,
    ``reduction="weighted_mean"``, the first label of each row with ``shift``), the right
    denominator cannot be known here, and an error says so: :class:`WeightingTrainer` knows it.

    Evaluation (whenever autograd is off) runs without weighters and margins. The loss of a batch is
    the mean over what counts in it, which does not change with a schedule, so that early stopping
    and ``load_best_model_at_end`` can use it. The Trainer takes the mean of the batches by their
    number of rows, which is the mean over all that counts if every row has the same number.

    Shape:
        - logits: the ``logits`` of the model. Tokens, (N, T, C), become N T samples, unless the
          criterion is a ``HierarchicalLoss``, which takes the logits as they are.
        - labels: class indices, (N,) or (N, T); or probabilities, or the labels of
          ``BCEWithLogitsLoss`` and its like, with the shape of the logits, (N, C) or (N, T, C).

    Args:
        criterion: a loss with ``reduction`` "mean" or "weighted_mean", and without
            ``global_batch``, since the Trainer combines the processes itself.
        shift: whether position i predicts label i + 1, as in causal language models.

    Raises:
        ValueError: a criterion that does not fit; in training, no labels, or an accumulated batch
            whose denominator cannot be known.

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
        self._batch = AccumulatedBatch()

    def __call__(
        self,
        outputs: Any,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None = None,
        *,
        sample_weight: Tensor | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; ``sample_weight`` and ``reference_loss``: (N,), or one for each loss."""
        labels = _given(labels)
        normalizer, factor = None, 1.0
        if num_items_in_batch is not None:
            counted = self.count(self.form(outputs, labels), labels, sample_weight)
            normalizer, factor = self._normalizer(labels, counted, num_items_in_batch)
        loss = self.compute(
            outputs, labels, normalizer, sample_weight=sample_weight, reference_loss=reference_loss
        )
        return loss if factor == 1 else loss * factor

    # -----------------------------------------------------------------------------------------
    # One batch
    # -----------------------------------------------------------------------------------------

    def compute(
        self,
        outputs: Any,
        labels: Tensor | None,
        normalizer: Tensor | float | None,
        *,
        sample_weight: Tensor | None,
        reference_loss: Tensor | None,
    ) -> Tensor:
        """The loss over ``normalizer``, or over what the criterion itself divides by."""
        labels = _given(labels)
        form, logits = self.form(outputs, labels), logits_of(outputs)
        device = _device(logits)
        if self.shift:
            logits = logits[:, :-1]
        if form.of_tokens:
            logits = logits.flatten(0, 1)
        target = self._arrange(form, labels, labels)
        per_sample = {"sample_weight": sample_weight, "reference_loss": reference_loss}
        given = {
            name: self._arrange(form, labels, value)
            for name, value in per_sample.items()
            if value is not None
        }
        if normalizer is not None:  # where nothing counts in the whole batch the loss is 0, over 1
            if isinstance(normalizer, Tensor):
                normalizer = normalizer.to(device)
                normalizer = normalizer.masked_fill(normalizer == 0, 1)
            else:
                normalizer = normalizer or 1
        criterion = self.criterion
        # the Trainer's evaluation turns off autograd and does not know the criterion
        training = torch.is_grad_enabled()
        watched: Any = nullcontext()
        if normalizer is not None and _may_differ(criterion):
            counted = self.count(form, labels, sample_weight)
            watched = criterion.register_weighting_hook(partial(check, counted=counted))
        criterion.to(device).train(training)
        with watched, nullcontext() if training else without_weighters(criterion):
            loss: Tensor = criterion(logits, target, normalizer=normalizer, **given)
        return loss

    def form(self, outputs: Any, labels: Tensor) -> Form:
        """What the logits say about labels."""
        logits: Any = logits_of(outputs)
        if isinstance(self.criterion, HierarchicalLoss):
            return Form(False, False)
        like_logits = labels.shape == logits.shape
        of_tokens = logits.ndim == 3 and (
            like_logits or (is_index(labels) and labels.shape == logits.shape[:2])
        )
        return Form(of_tokens, like_logits)

    def count(self, form: Form, labels: Tensor, sample_weight: Tensor | None) -> Count:
        """What the criterion counts in a batch with these labels, whatever its logits are."""
        target = self._arrange(form, labels, labels)
        if sample_weight is not None:
            sample_weight = self._arrange(form, labels, sample_weight).to(labels.device)
        criterion = self.criterion.to(labels.device).eval()  # a weighter counts training calls
        with nullcontext() if torch.is_grad_enabled() else without_weighters(criterion):
            return count(criterion, target, sample_weight, like_logits=form.like_logits)

    def _arrange(self, form: Form, labels: Tensor, value: Tensor) -> Tensor:
        """Labels, or values of rows or of labels, in the order in which the criterion has them."""
        if form.of_tokens and value.ndim == 1:
            value = value[:, None].expand(labels.shape[:2])
        if self.shift and value.ndim > 1:
            value = value[:, 1:]
        return value.flatten(0, 1) if form.of_tokens else value

    # -----------------------------------------------------------------------------------------
    # A batch that may be a part of one that the Trainer accumulates
    # -----------------------------------------------------------------------------------------

    def _normalizer(
        self, labels: Tensor, counted: Count, num_items: Tensor | int
    ) -> tuple[Tensor | float | None, float]:
        """What to divide by, and a factor that takes out one which the Trainer puts in."""
        size = labels[:, 1:].numel() if self.shift else labels.numel()
        per_loss = size / max(counted.shape.numel(), 1) or 1.0
        if per_loss != 1 and not _has_classes_in_labels(self.criterion):
            per_loss = math.nan  # of rows, which may differ in length: equal to nothing
        if self._counts_as_the_trainer() and not is_readable(labels) and per_loss == per_loss:
            # a GPU is not waited for
            total = num_items.sum() if isinstance(num_items, Tensor) else num_items
            return total / per_loss, 1.0
        number = (part.ne(-100).sum() for part in (labels, labels[..., labels.ndim > 1 :]))
        part = Part(float(counted.number), *map(float, number))
        return self._batch.denominator(
            num_items, part, per_loss=per_loss, shift=self.shift, device=labels.device
        )

    def _counts_as_the_trainer(self) -> bool:
        criterion = self.criterion
        return (
            isinstance(criterion, (SoftmaxLoss, SigmoidLoss))
            and not self.shift
            and criterion.ignore_index == -100
            and getattr(criterion, "weight", None) is None
            and (criterion.reduction == "mean" or criterion.weighter is None)
        )


def _given(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError(
            "labels must be in the batch under the name 'labels', got none: name the column of "
            "the data set 'labels'. If the model's forward has no argument of this name, the "
            "Trainer removes the column: pass TrainingArguments(remove_unused_columns=False, "
            "label_names=['labels']), or use WeightingTrainer, which keeps it"
        )
    return labels


def logits_of(outputs: Any) -> Any:
    """What the model says of each sample; an auxiliary loss beside it must not be lost."""
    if torch.is_grad_enabled() and getattr(outputs, "aux_loss", None) is not None:
        raise ValueError(
            "the outputs of the model must have no aux_loss in training, which only the model's "
            "own loss would add: set model.config.output_router_logits = False"
        )
    return outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]


def _device(logits: Any) -> torch.device:
    return (logits if isinstance(logits, Tensor) else logits[0]).device


def _may_differ(criterion: Criterion) -> bool:
    return isinstance(criterion, WeightedLoss) or not labels_decide(criterion)


def _has_classes_in_labels(criterion: Criterion) -> bool:
    """Whether several labels of one loss are as many as there are classes, or levels of them."""
    inner = criterion.criterion if isinstance(criterion, WeightedLoss) else criterion
    return isinstance(inner, (SoftmaxLoss, HierarchicalLoss, nn.CrossEntropyLoss))
