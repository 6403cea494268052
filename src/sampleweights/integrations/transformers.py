"""For the Trainer of Hugging Face transformers: a loss function, a callback, and a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from sampleweights._checks import is_index
from sampleweights.history import LossHistory
from sampleweights.integrations.evaluation import without_weighters
from sampleweights.losses.base import Criterion, Samples
from sampleweights.losses.hierarchical import HierarchicalLoss
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.losses.weighted import WeightedLoss

__all__ = ["EpochCallback", "LossFunction", "WeightingTrainer"]


class LossFunction:
    """A criterion of this library as ``Trainer(compute_loss_func=...)``.

    It is correct under gradient accumulation: it divides the sum of the weighted losses by
    ``num_items_in_batch``, the items of the whole accumulated batch, which the Trainer counts.
    A plain mean would be too large by the number of accumulation steps.

    Evaluation (whenever autograd is off) runs without the weighters. Its loss is the mean over the
    items, which does not change with a schedule, so that early stopping and
    ``load_best_model_at_end`` can use it.

    Shape:
        - logits: the ``logits`` of the model. Tokens, (N, T, C), become N T samples, unless the
          criterion is a ``HierarchicalLoss``, which takes the logits as they are.
        - labels: class indices, (N,) or (N, T); or probabilities, or the labels of
          ``BinaryFocalLoss``, with the shape of the logits, (N, C) or (N, T, C).

    Args:
        criterion: a loss with ``reduction`` "mean" or "weighted_mean", and without
            ``global_batch``, since the Trainer combines the processes itself.
        shift: whether position i predicts label i + 1, as in causal language models.

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
        self,
        outputs: Any,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        *,
        sample_weight: Tensor | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; ``sample_weight`` and ``reference_loss``: (N,), or one for each loss."""
        given = {"sample_weight": sample_weight, "reference_loss": reference_loss}
        per_sample = {name: value for name, value in given.items() if value is not None}
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        device = (logits if isinstance(logits, Tensor) else logits[0]).device
        if self.shift:
            logits, labels = logits[:, :-1], labels[:, 1:]
            for name, value in per_sample.items():
                per_sample[name] = value[:, 1:] if value.ndim > 1 else value
        normalizer: Tensor | float | None = num_items_in_batch
        if isinstance(normalizer, Tensor):
            # without a launcher the Trainer gives each of several GPUs its part, (n_gpu, 1)
            normalizer = normalizer.to(device).sum()
        if normalizer is not None:
            normalizer = self._num_samples(logits, labels, normalizer)
            # where every label of the accumulated batch is ignored the loss is 0, over 1
            if isinstance(normalizer, Tensor):
                normalizer = normalizer.masked_fill(normalizer == 0, 1)
            else:
                normalizer = normalizer or 1
        if self._has_tokens(logits, labels):
            for name, value in per_sample.items():
                each = value[:, None].expand(logits.shape[:2]) if value.ndim == 1 else value
                per_sample[name] = each.flatten(0, 1)
            logits, labels = logits.flatten(0, 1), labels.flatten(0, 1)
        # the Trainer's evaluation turns off autograd and does not know the criterion
        training = torch.is_grad_enabled()
        self.criterion.to(device).train(training)
        with nullcontext() if training else without_weighters(self.criterion):
            loss: Tensor = self.criterion(logits, labels, normalizer=normalizer, **per_sample)
        return loss

    def _has_tokens(self, logits: Any, labels: Tensor) -> bool:
        """Whether the logits are (N, T, C), of N T samples."""
        if isinstance(self.criterion, HierarchicalLoss) or logits.ndim != 3:
            return False
        if labels.shape == logits.shape:
            return True
        return is_index(labels) and labels.shape == logits.shape[:2]

    def _num_samples(
        self, logits: Any, labels: Tensor, num_items: Tensor | float
    ) -> Tensor | float:
        """What the Trainer counted are labels; a sample may have several."""
        criterion: Any = self.criterion
        if isinstance(criterion, HierarchicalLoss):
            if criterion.taxonomy is None:  # the class of each level, -100 where there is none
                present = labels.ne(-100)
                return num_items * present.any(1).sum() / present.sum().clamp(min=1)
            return num_items
        inner = criterion.criterion if isinstance(criterion, WeightedLoss) else criterion
        if isinstance(inner, (SoftmaxLoss, nn.CrossEntropyLoss)) and labels.shape == logits.shape:
            return num_items / labels.shape[-1]  # probabilities of all classes
        return num_items


class EpochCallback(TrainerCallback):
    """Calls ``set_epoch`` before every update, with the fraction of an epoch that has passed.

    A schedule therefore also works in a training of one epoch. All batches that are accumulated
    for one update have the same epoch. After resuming, the epoch continues where it was.

    Args:
        criterion: an object with a ``set_epoch`` method.
    """

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.criterion.set_epoch(state.epoch or 0)


PER_SAMPLE = ("sample_weight", "reference_loss")
COLUMNS = (*PER_SAMPLE, "index")


class WeightingTrainer(Trainer):
    """A Trainer with a criterion of this library, for data sets with sample weights or indices.

    It passes three optional columns of the data set to the criterion and not to the model:

    ================== =========================================================================
    ``sample_weight``  a number for each sample or token that multiplies the loss, also in
                       evaluation
    ``reference_loss`` the loss of each sample or token under a reference model, for the weighter
    ``index``          the position of the sample in the training set, for ``history``
    ================== =========================================================================

    With ``shift=True``, the value of a token applies where it is the label; the first is not used.

    Checkpoints hold the states of the criterion and of the history, so that a resumed training
    ends as it would have without the interruption.

    Args:
        *args: the arguments of the Trainer.
        criterion: as in :class:`LossFunction`.
        history: if given, it records every training batch by its ``index``, and its epochs are
            closed. For tokens it records the mean over the tokens of a sample.
        shift: as in :class:`LossFunction`.
        **kwargs: the keyword arguments of the Trainer, without ``compute_loss_func``.

    Raises:
        ValueError: a criterion that does not fit; in training, a history without an ``index``.

    Example::

        history = LossHistory(len(dataset))
        trainer = WeightingTrainer(
            model,
            args,
            train_dataset=dataset,  # with a column "index"
            criterion=CrossEntropyLoss(weighter=OHEM(3)),
            history=history,
        )
        trainer.train()
        history.to_pandas().sort_values("importance")
    """

    def __init__(
        self,
        *args: Any,
        criterion: Criterion,
        history: LossHistory | None = None,
        shift: bool = False,
        **kwargs: Any,
    ) -> None:
        self.criterion, self.history = criterion, history
        self._loss = LossFunction(criterion, shift=shift)
        self._columns: dict[str, Tensor] = {}
        super().__init__(*args, compute_loss_func=self._compute, **kwargs)
        self.data_collator: Any = _KeepColumns(self.data_collator)
        self._keeper = _Keeper(criterion, history)
        self.add_callback(EpochCallback(criterion))
        self.add_callback(self._keeper)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        names: list[str] = self._signature_columns
        names.extend(name for name in COLUMNS if name not in names)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        if isinstance(resume_from_checkpoint, (str, Path)):
            self._keeper.load(Path(resume_from_checkpoint), self.args.process_index)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        names = self.label_names
        if not names or any(inputs.get(name) is None for name in names):
            inputs = _without_columns(inputs)  # nothing to compute, and the model is called with it
        return super().prediction_step(model, inputs, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._columns = {name: inputs[name] for name in COLUMNS if name in inputs}
        try:
            return super().compute_loss(model, _without_columns(inputs), *args, **kwargs)
        finally:
            self._columns = {}

    def _compute(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        per_sample = {name: self._columns.get(name) for name in PER_SAMPLE}
        index = self._columns.get("index")
        history = self.history if torch.is_grad_enabled() else None
        if history is None:
            return self._loss(outputs, labels, num_items_in_batch, **per_sample)
        if index is None:
            raise ValueError(
                "the data set must have a column 'index', the position of each sample, for history="
            )
        self._keeper.is_open = True

        def observe(criterion: Criterion, samples: Samples, weight: Tensor | None) -> None:
            of_tokens = len(samples.loss) != len(index)

            def by_sample(value: Tensor | None) -> Tensor | None:
                if value is None or not of_tokens:
                    return value
                return value.unflatten(0, (len(index), -1))

            loss: Any = by_sample(samples.loss)
            history.update(
                index,
                loss,
                by_sample(weight),
                logits=None if of_tokens else samples.logits,
                target=None if of_tokens else samples.target,
                valid=by_sample(samples.valid),
            )

        with self.criterion.register_weighting_hook(observe):
            return self._loss(outputs, labels, num_items_in_batch, **per_sample)


def _without_columns(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in COLUMNS}


class _KeepColumns:
    """A collator that takes the columns out of the features, since others may not know them."""

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator

    def __call__(self, features: list[Any]) -> Any:
        if not isinstance(features[0], Mapping):
            return self.collator(features)
        batch = self.collator([_without_columns(feature) for feature in features])
        for name in COLUMNS:
            if name in features[0]:
                values = [torch.as_tensor(feature[name]) for feature in features]
                batch[name] = torch.stack(values)
        return batch


class _Keeper(TrainerCallback):
    """Ends the epochs of the history, and saves it and the criterion with every checkpoint."""

    def __init__(self, criterion: Criterion, history: LossHistory | None) -> None:
        self.parts: dict[str, nn.Module] = {"criterion": criterion}
        if history is not None:
            self.parts["history"] = history
        self.is_open = False
        """Whether the history has an epoch that has not ended."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for part in self.parts.values():
            part.to(args.device)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if float(state.epoch or 0).is_integer():
            self.on_epoch_end()  # a checkpoint of an epoch's last step was saved before its end

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        history: Any = self.parts.get("history")
        if history is not None and self.is_open:
            history.end_epoch()
        self.is_open = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.save_only_model or not folder.is_dir():  # nothing can be resumed from there
            return
        states = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({**states, "is_open": self.is_open}, self._file(folder, args.process_index))

    def load(self, folder: Path, process: int) -> None:
        file = self._file(folder, process)
        if not file.exists():
            raise ValueError(f"the checkpoint must be one of a WeightingTrainer, has no {file}")
        saved = torch.load(file, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            if name in saved:
                part.load_state_dict(saved[name])
        self.is_open = saved["is_open"]

    @staticmethod
    def _file(folder: Path, process: int) -> Path:
        # of every process, since each has seen other samples of the epoch
        return folder / f"sampleweights_{process}.pt"
