"""For Lightning: a callback that sets epochs, logs weights, and leaves validation unweighted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

try:
    import lightning.pytorch as pl
except ImportError:  # the package of the same under its older name
    import pytorch_lightning as pl

from sampleweights._checks import is_index
from sampleweights.integrations.averages import averages, weighting_buffers, write
from sampleweights.integrations.evaluation import without_weighters
from sampleweights.integrations.torchmetrics import WeightingMetric
from sampleweights.losses.base import Criterion, HookHandle, Samples
from sampleweights.losses.processes import world_size
from sampleweights.weighters.base import Weighter, set_epoch_below
from sampleweights.weighters.curriculum import OHEM, SelfPaced
from sampleweights.weighters.deferred import Deferred

__all__ = ["WeightingCallback"]

Key = tuple[str, "int | None"]
"""Which criterion, and for how many classes; None where targets are not class indices."""


def outermost(module: nn.Module, path: str = "") -> Iterator[tuple[str, Criterion]]:
    """The criteria below ``module`` with their names, but not those inside another criterion."""
    for name, child in module.named_children():
        # torch.compile wraps a module in one that holds it under this name
        below = path if name == "_orig_mod" else f"{path}.{name}" if path else name
        if isinstance(child, Criterion):
            yield below, child
        else:
            yield from outermost(child, below)


def epoch_of(trainer: pl.Trainer, batch_idx: int) -> float:
    """The epoch of a training batch; the batches that are accumulated for an update have one."""
    num_batches = trainer.num_training_batches
    if math.isfinite(num_batches):
        first = batch_idx - batch_idx % trainer.accumulate_grad_batches
        return float(trainer.current_epoch + first / num_batches)
    share = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
    return share if steps_are_an_epoch(trainer) else max(trainer.current_epoch, share)


def steps_are_an_epoch(trainer: pl.Trainer) -> bool:
    """Whether all steps over a stream are one epoch; whoever asks for several, counts in them."""
    return trainer.max_steps > 0 and (trainer.max_epochs or 0) <= 1


def names_of(module: nn.Module, *, changes_after: int) -> str:
    """The weighters in ``module`` whose weights change after an epoch."""
    parts = module.modules()
    return ", ".join(sorted({type(p).__name__ for p in parts if changes(p, changes_after)}))


def changes(part: nn.Module, epoch: int) -> bool:
    if isinstance(part, Deferred):
        return 0 < part.start >= epoch  # a training of one epoch does not reach epoch 1
    if not isinstance(part, (OHEM, SelfPaced)):
        return False
    try:
        fraction = part.schedule(epoch)
        return any(part.schedule(later) != fraction for later in (epoch + 1, 10, 100))
    except Exception:  # one of the user's own may end with the training
        return False


class WeightingCallback(pl.Callback):
    """Sets the epoch of all criteria and weighters of a LightningModule, and logs their weights.

    It calls ``set_epoch`` at every training step, with a fraction of an epoch, so that a schedule
    also works in a training of one epoch. All batches that are accumulated for one update have the
    same epoch. If Lightning does not know the number of batches of an epoch, as for a stream
    without a length, all ``max_steps`` are one epoch. Without ``max_steps`` the epoch changes only
    when the stream ends.

    Validation, test and prediction run without the weighters and margins. The loss is the mean
    over the samples, which does not change with a schedule, so that early stopping and checkpoints
    can monitor it.

    At the end of each epoch it logs over all processes ``weighting/kept``, the share of samples
    with a weight above 0. For class indices it also logs ``weighting/kept/<class>`` and the mean
    weight, ``weighting/weight/<class>``. With several criteria the names contain the criterion:
    ``weighting/<criterion>/kept``. A checkpoint within an epoch holds the sums so far, of all
    processes; the state of the criteria is part of the state of the module. An average of models,
    such as Lightning's ``EMAWeightAveraging``, gets the state of the weighters and margins as it
    is, since a mean of epochs or of class counts is neither.

    Args:
        class_names: a name for each class, for the log; with several criteria a dictionary from
            the name of the criterion in the module to its class names. None uses numbers.
        prefix: the first part of all names in the log.

    Raises:
        ValueError: a number of class names that is not the number of classes (in the first batch),
            or names for a criterion that the module does not have (at the start of ``fit``).

    The callback warns if the module has no criterion or weighter of this library, and if a schedule
    cannot move, or not to its end, within a stream.

    Example:
        A whole module. The criterion is an attribute of it, so the callback finds it::

            import lightning
            import torch
            from lightning.pytorch.callbacks import EarlyStopping
            from torch import nn

            import sampleweights as sw
            from sampleweights.integrations.lightning import WeightingCallback


            class Classifier(lightning.LightningModule):
                def __init__(self, class_counts, num_epochs):
                    super().__init__()
                    self.model = nn.Sequential(nn.Flatten(), nn.Linear(16, len(class_counts)))
                    weighter = [sw.EffectiveNumber(class_counts), sw.OHEM(num_epochs)]
                    self.criterion = sw.CrossEntropyLoss(weighter=weighter)

                def training_step(self, batch, batch_idx):
                    images, target = batch
                    return self.criterion(self.model(images), target)

                def validation_step(self, batch, batch_idx):
                    images, target = batch
                    self.log("val_loss", self.criterion(self.model(images), target))

                def configure_optimizers(self):
                    return torch.optim.AdamW(self.parameters(), lr=1e-3)


            trainer = lightning.Trainer(
                max_epochs=num_epochs,
                # the validation loss is without weights, so early stopping can monitor it
                callbacks=[WeightingCallback(class_names), EarlyStopping("val_loss")],
            )
            trainer.fit(Classifier(class_counts, num_epochs), train_loader, validation_loader)
    """

    def __init__(
        self,
        class_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        prefix: str = "weighting",
    ) -> None:
        self.class_names, self.prefix = class_names, prefix
        self._metrics: dict[Key, WeightingMetric] = {}
        self._names: list[str] = []
        self._handles: list[HookHandle] = []
        self._evaluation = ExitStack()
        self._trained: dict[str, Tensor] = {}
        self._is_first = True

    # -----------------------------------------------------------------------------------------
    # Watching
    # -----------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._is_first = trainer.is_global_zero

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        criteria = {criterion: name for name, criterion in outermost(pl_module)}
        self._names = list(criteria.values())
        if not any(isinstance(part, (Criterion, Weighter)) for part in pl_module.modules()):
            warnings.warn(
                f"WeightingCallback found no criterion or weighter of sampleweights in "
                f"{type(pl_module).__name__}, so it does nothing: make it an attribute of the "
                "module, self.criterion = CrossEntropyLoss(...)",
                stacklevel=2,
            )
        if isinstance(self.class_names, Mapping):
            unknown = sorted(set(self.class_names) - set(self._names))
            if unknown:
                raise ValueError(f"class_names must name criteria of {self._names}, got {unknown}")
        for criterion, name in criteria.items():
            self._watch(pl_module, criterion, name)

    def _watch(self, pl_module: pl.LightningModule, criterion: Criterion, name: str) -> None:
        def observe(criterion: Criterion, samples: Samples, weight: Tensor | None) -> None:
            if pl_module.training:
                self._add(name, samples, weight)

        self._handles.append(criterion.register_weighting_hook(observe))

    def _add(self, name: str, samples: Samples, weight: Tensor | None) -> None:
        by_class = samples.target is not None and is_index(samples.target)
        num_classes = samples.num_classes if by_class else None
        metric = self._metrics.get((name, num_classes))
        if metric is None:
            names = self._class_names(name)
            if names is not None and num_classes is not None and len(names) != num_classes:
                raise ValueError(
                    f"class_names must name {num_classes} classes for {name!r}, got {len(names)}; "
                    "for criteria of different classes give a dictionary"
                )
            metric = self._metrics[name, num_classes] = WeightingMetric(num_classes)
        metric.to(samples.loss.device).update_from(samples, weight)

    def _class_names(self, name: str) -> Sequence[str] | None:
        names = self.class_names
        return names.get(name) if isinstance(names, Mapping) else names

    # -----------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if math.isfinite(trainer.num_training_batches) or not trainer.is_global_zero:
            return
        if steps_are_an_epoch(trainer):
            names = names_of(pl_module, changes_after=1)
            what = (
                f"takes all max_steps for one epoch, but {names} would still change after it. "
                f"Count the training as one epoch, as in OHEM(num_epochs=1), Deferred(start=0.8)"
            )
        elif trainer.max_steps > 0:
            return
        else:
            names = names_of(pl_module, changes_after=0)
            what = (
                f"sets the epoch of {names} only when the data end, and never for an endless "
                f"stream. Give the Trainer max_steps= (all steps are then one epoch) or "
                f"limit_train_batches=, or the data set a length"
            )
        if names:
            unknown = "Lightning does not know how many batches an epoch has, so WeightingCallback"
            warnings.warn(f"{unknown} {what}", stacklevel=2)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        set_epoch_below(pl_module, epoch_of(trainer, 0))
        self._metrics.clear()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        set_epoch_below(pl_module, epoch_of(trainer, batch_idx))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = {
            name: buffer.clone()
            for name, buffer in (
                weighting_buffers(pl_module) if averages(trainer.callbacks) else {}
            ).items()
        }
        total = self._over_processes(trainer)
        log: dict[str, Tensor] = {}
        for name in self._names:
            sums = {n: total[of, n] for of, n in total if of == name}
            if not sums:
                continue
            path = f"{self.prefix}/{name}" if len(self._names) > 1 else self.prefix
            count, _, kept = torch.stack([of_all.sum(0) for of_all in sums.values()]).sum(0)
            log[f"{path}/kept"] = (kept / count).float()
            numbers = sorted(n for n in sums if n is not None)
            for n in numbers:
                # two heads with one criterion have different classes
                head = f"{n} classes/" if len(numbers) > 1 else ""
                count, weight, kept = sums[n].unbind(1)
                names = self._class_names(name)
                for c in range(n):
                    label = head + (str(c) if names is None else names[c])
                    log[f"{path}/kept/{label}"] = (kept[c] / count[c]).float()
                    log[f"{path}/weight/{label}"] = (weight[c] / count[c]).float()
        if log:
            pl_module.log_dict(log)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # averages are copied into the module, before this or after
        for module in (pl_module, *averages(trainer.callbacks)):
            write(self._trained, module)

    def _over_processes(self, trainer: pl.Trainer) -> dict[Key, Tensor]:
        """The sums over all processes, of which each may have met other kinds of targets."""
        own = self.state_dict()["sums"]
        if trainer.world_size == 1 or world_size() == 1:
            return own
        parts: list[dict[Key, Tensor]] = [{}] * trainer.world_size
        dist.all_gather_object(parts, {key: sums.cpu() for key, sums in own.items()})
        total: dict[Key, Tensor] = {}
        for part in parts:
            for key, sums in part.items():
                total[key] = total[key] + sums if key in total else sums
        return total

    # -----------------------------------------------------------------------------------------
    # Evaluation
    # -----------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.close()
        self._evaluation.enter_context(without_weighters(pl_module))
        for module in averages(trainer.callbacks):  # which may take the place of the module
            write(weighting_buffers(pl_module), module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.close()

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._evaluation.close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._evaluation.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # -----------------------------------------------------------------------------------------
    # Checkpoints
    # -----------------------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for module in averages(trainer.callbacks):  # the checkpoint refers to its tensors, or will
            write(weighting_buffers(pl_module), module)
        if not trainer.interrupted:  # by an exception, of one process perhaps
            total = self._over_processes(trainer)
            checkpoint["callbacks"][self.state_key] = {"sums": total}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {key: metric.sums.clone() for key, metric in self._metrics.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._metrics.clear()
        if not self._is_first:
            return  # the first process has the sums of all
        for (name, num_classes), sums in state_dict.get("sums", {}).items():
            metric = self._metrics[name, num_classes] = WeightingMetric(num_classes)
            metric.sums += sums.to(metric.sums)
