"""For Lightning: the epoch is set, and what the weighters did is logged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

try:
    import lightning.pytorch as pl
except ImportError:  # the package of the same under its older name
    import pytorch_lightning as pl

from sampleweights._checks import is_index
from sampleweights.integrations.torchmetrics import WeightingMetric
from sampleweights.losses.base import Criterion, HookHandle, Samples
from sampleweights.weighters.base import set_epoch_below

__all__ = ["WeightingCallback"]


def outermost(module: nn.Module) -> Iterator[Criterion]:
    """The criteria below ``module``, but not those inside another criterion."""
    for child in module.children():
        if isinstance(child, Criterion):
            yield child
        else:
            yield from outermost(child)


class WeightingCallback(pl.Callback):
    """Calls ``set_epoch`` on every criterion and weighter of a LightningModule, and logs them.

    At the end of each epoch, over all processes: ``weighting/kept``, the share of the samples with
    a weight above 0, and for class indices ``weighting/kept/<class>`` and
    ``weighting/weight/<class>``, the mean weight. A checkpoint within an epoch carries the sums so
    far; the criteria's own state is part of the module's.

    Args:
        class_names: for the log, one for each class; None for numbers.
        prefix: of all names in the log.

    Raises:
        ValueError: in the first batch, ``class_names`` that are not one for each class.

    Example::

        trainer = Trainer(callbacks=[WeightingCallback(["nevus", "melanoma"])])
    """

    def __init__(
        self, class_names: Sequence[str] | None = None, *, prefix: str = "weighting"
    ) -> None:
        self.class_names, self.prefix = class_names, prefix
        self._metric: WeightingMetric | None = None
        self._handles: list[HookHandle] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def observe(criterion: Criterion, samples: Samples, weight: Tensor | None) -> None:
            if pl_module.training:
                self._add(samples, weight)

        for criterion in outermost(pl_module):
            self._handles.append(criterion.register_weighting_hook(observe))

    def _add(self, samples: Samples, weight: Tensor | None) -> None:
        target = samples.target
        by_class = target is not None and is_index(target)
        num_classes = samples.num_classes if by_class else None
        if self._metric is None or self._metric.num_classes != num_classes:
            names = self.class_names
            if names is not None and num_classes is not None and len(names) != num_classes:
                raise ValueError(f"class_names must name {num_classes} classes, got {len(names)}")
            self._metric = WeightingMetric(num_classes)
        self._metric.to(samples.loss.device).update_from(samples, weight)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        set_epoch_below(pl_module, trainer.current_epoch)
        self._metric = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._metric is None:
            return
        result = self._metric.compute()
        log = {"kept": result["kept"]}
        for c in range(self._metric.num_classes or 0):
            name = str(c) if self.class_names is None else self.class_names[c]
            log[f"kept/{name}"] = result["kept_per_class"][c]
            log[f"weight/{name}"] = result["weight_per_class"][c]
        pl_module.log_dict({f"{self.prefix}/{name}": value for name, value in log.items()})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def state_dict(self) -> dict[str, Any]:
        if self._metric is None:
            return {}
        return {"num_classes": self._metric.num_classes, "metric": self._metric.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._metric = WeightingMetric(state_dict["num_classes"])
            self._metric.load_state_dict(state_dict["metric"])
