"""A Trainer that counts what the criterion counts, and takes weights and indices from the data."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import get_last_checkpoint

from sampleweights.history import LossHistory
from sampleweights.integrations.transformers.callbacks import EpochCallback, Keeper
from sampleweights.integrations.transformers.columns import (
    COLUMNS,
    PER_SAMPLE,
    KeepColumns,
    without_columns,
)
from sampleweights.integrations.transformers.head import FusedHead, on_hidden_states
from sampleweights.integrations.transformers.loss import LossFunction
from sampleweights.losses.base import Criterion, Samples
from sampleweights.losses.linear import LinearCrossEntropyLoss
from sampleweights.reduction import weigh

__all__ = ["WeightingTrainer"]


class WeightingTrainer(Trainer):
    """A Trainer with a criterion of this library, for data sets with sample weights or indices.

    Training loss, gradient and evaluation loss are those of one process on the whole batch: the
    sums over all parts of an accumulated batch, and over all processes, of the weighted losses and
    of what the criterion counts. ``eval_loss``, without weighters and margins, is the mean over all
    that counts in the evaluation set.

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

    A weight per token survives any collator that pads, cuts or concatenates the labels of a batch:
    it goes where the label of its token goes.

    Args:
        *args: the arguments of the Trainer.
        criterion: as in :class:`LossFunction`; or a ``LinearCrossEntropyLoss.from_linear`` of the
            model's own head, which implies ``fused_head=True``.
        history: if given, it records every training batch by its ``index``, and its epochs are
            closed. For tokens it records the mean over the tokens of a sample.
        shift: as in :class:`LossFunction`.
        fused_head: whether to compute the loss of the hidden states and the head, as
            :class:`~sampleweights.LinearCrossEntropyLoss` does, so that the logits of a language
            model never exist in training, nor in an evaluation that returns no predictions. The
            results are the same. ``criterion`` is a ``CrossEntropyLoss`` or a ``FocalLoss``;
            ``trainer.criterion`` is then the loss of the hidden states, with the same weighter and
            margin. The first batch shows whether the model's logits are those of its head.
        **kwargs: the keyword arguments of the Trainer, without ``compute_loss_func``.

    Raises:
        ValueError: a criterion that does not fit; ``label_smoothing_factor``, which is an argument
            of the criterion; in training, a history without an ``index``, or
            ``reduction="weighted_mean"`` in an accumulated batch with weights that depend on the
            losses, whose sum is not known before the last part; with ``fused_head``, a model that
            changes what its head returns, as with a soft cap or a scale of the logits, a head that
            is more than an ``nn.Linear``, as with adapters, or several GPUs in one process.

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
        fused_head: bool = False,
        **kwargs: Any,
    ) -> None:
        self.criterion, self.history = criterion, history
        self._head: FusedHead | None = None
        self._returns_logits = True
        self._loss = LossFunction(criterion, shift=shift)
        self._columns: dict[str, Tensor] = {}
        self._batches: list[Any] = []
        self._num_items: Any = None
        self._given_items: Any = None
        self._denominator: Tensor | None = None
        self._num_rows = 1
        self._rows: Tensor | None = None
        self._sums: list[Tensor] = []
        super().__init__(*args, compute_loss_func=self._compute, **kwargs)
        if self.args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor must be 0, since the criterion computes the loss, got "
                f"{self.args.label_smoothing_factor}: pass label_smoothing= to the criterion"
            )
        if fused_head or isinstance(criterion, LinearCrossEntropyLoss):
            self._fuse()
        # the criterion takes the labels, whether the model's forward knows them or not
        self.label_names: list[str] = getattr(self, "label_names", None) or ["labels"]
        self.data_collator: Any = KeepColumns(self.data_collator)
        self._keeper = Keeper(self.criterion, history)
        self.add_callback(EpochCallback(self.criterion))
        self.add_callback(self._keeper)

    def _fuse(self) -> None:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"fused_head=True needs one GPU for each process, got {self.args.n_gpu} in this "
                f"one: start the training with torchrun or accelerate launch"
            )
        given, fused = self.criterion, on_hidden_states(self.criterion, self.model)
        self.criterion, self._loss = fused, LossFunction(fused, shift=self._loss.shift)
        self._head = FusedHead(fused, self._loss_of, follows=fused is not given)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        names: list[str] = self._signature_columns
        names.extend(name for name in (*COLUMNS, "labels") if name not in names)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        if isinstance(resume_from_checkpoint, (str, Path)):
            self._keeper.load(Path(resume_from_checkpoint), self.args.process_index)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    # -----------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        # counted with the first of them, whose logits say what shape labels have, and after the
        # callbacks have set the epoch
        self._batches, self._num_items = super().get_batch_samples(*args, **kwargs)
        return self._batches, self._num_items

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        self._columns = {name: inputs[name] for name in COLUMNS if name in inputs}
        self._given_items = num_items_in_batch
        inputs = without_columns(inputs)
        in_place: Any = nullcontext()
        if self._head is not None:
            self._head.check(model, inputs, self.accelerator.unwrap_model(model))
            keeps_logits = return_outputs and self._returns_logits and not torch.is_grad_enabled()
            in_place = self._head.in_place(inputs.get("labels"), keeps_logits=keeps_logits)
        try:
            with in_place:
                # without the number, for which the Trainer would multiply by that of the processes
                return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        finally:
            self._columns, self._given_items = {}, None

    def _compute(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None
    ) -> Tensor:
        if self._head is not None:
            return self._head.loss(outputs)
        return self._loss_of(outputs, labels)

    def _loss_of(self, outputs: Any, labels: Tensor | None) -> Tensor:
        """Of the logits of the model, or of its hidden states in their place."""
        per_sample = {name: self._columns.get(name) for name in PER_SAMPLE}
        if not torch.is_grad_enabled():
            with self.criterion.register_weighting_hook(self._add_to_evaluation):
                return self._loss.compute(outputs, labels, None, **per_sample)
        with self._recorded():
            if self._given_items is None or self._given_items is not self._num_items:
                # a batch that did not come from get_batch_samples
                return self._loss(outputs, labels, self._given_items, **per_sample)
            if self._batches:
                self._denominator, self._batches = self._count(outputs, self._batches), []
            return self._loss.compute(outputs, labels, self._denominator, **per_sample)

    def _count(self, outputs: Any, batches: list[Any]) -> Tensor | None:
        """What the criterion counts in all parts of the batch; None: in its one part."""
        processes = self.accelerator.num_processes
        if len(batches) == 1 and processes == 1:
            return None
        form = self._loss.form(outputs, batches[0]["labels"])
        total: Any = 0
        for batch in map(self._prepare_input, batches):
            labels, weight = batch["labels"], batch.get("sample_weight")
            total = total + self._loss.count(form, labels, weight).number
        total = torch.as_tensor(total, device=self.args.device)
        if processes > 1:
            total = self.accelerator.reduce(total, "sum")
        # the gradients of replicas become their mean; what shares a batch has counted it too
        sharing = self.get_tp_size() * self.get_cp_size() * self.get_sp_size()
        return total / (sharing * (processes // self.get_tp_size()))

    def _recorded(self) -> Any:
        """Within the ``with``, the history records what the criterion computes."""
        index, history = self._columns.get("index"), self.history
        if history is None:
            return nullcontext()
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

        return self.criterion.register_weighting_hook(observe)

    # -----------------------------------------------------------------------------------------
    # Evaluation
    # -----------------------------------------------------------------------------------------

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        names = self.label_names
        if any(inputs.get(name) is None for name in names):
            inputs = without_columns(inputs)  # nothing to compute, and the model is called with it
            return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        self._num_rows, self._rows = find_batch_size(inputs), None
        self._returns_logits = not prediction_loss_only
        try:
            result = super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        finally:
            self._returns_logits = True
        rows: Any = self._rows
        if rows is not None:
            # the last batch of several processes is filled up with rows that are left out here
            rows = self.accelerator.pad_across_processes(rows)
            self._sums.append(self.accelerator.gather_for_metrics(rows).sum(0))
        return result

    def _add_to_evaluation(
        self, criterion: Criterion, samples: Samples, weight: Tensor | None
    ) -> None:
        """The sum of the losses and what it is divided by; of each row where some are left out."""
        accelerator = self.accelerator
        some_are = accelerator.num_processes > 1 and accelerator.gradient_state.end_of_dataloader
        of_rows = some_are and samples.loss.numel() % self._num_rows == 0
        n = self._num_rows if of_rows else 1

        def rows_of(value: Tensor | None) -> Any:
            return [None] * n if value is None else value.reshape(n, -1)

        columns = (samples.loss, weight, samples.valid, samples.class_weight)
        rows = []
        for loss, of_row, valid, class_weight in zip(*map(rows_of, columns), strict=True):
            part = Samples(loss, None, valid, class_weight=class_weight)
            total = (loss if of_row is None else weigh(loss, of_row)).sum()
            number = torch.as_tensor(criterion._denominator(part, of_row))
            rows.append(torch.stack([total, number.to(total)]))
        self._rows = torch.stack(rows)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        self._sums = []
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        name = f"{metric_key_prefix}_loss"
        if self._sums and output.metrics is not None and name in output.metrics:
            # the mean over all that counts, and not that of the batches by their number of rows
            total, number = torch.stack(self._sums).cpu().double().sum(0).tolist()
            output.metrics[name] = total / number if number else 0.0
        return output
