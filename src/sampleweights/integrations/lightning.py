"""For Lightning: the epoch is set, and what the weighters did is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

try:
    import lightning.pytorch as pl
except ImportError:  # the package of the same under its older name
    import pytorch_lightning as pl

from sampleweights.functional import is_index
from sampleweights.losses.base import Criterion, Samples
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
        class_names: for the log; None for numbers.
        prefix: of all names in the log.

    Example::

        trainer = Trainer(callbacks=[WeightingCallback(["nevus", "melanoma"])])
    """

    def __init__(
        self, class_names: Sequence[str] | None = None, *, prefix: str = "weighting"
    ) -> None:
        self.class_names, self.prefix = class_names, prefix
        self._sums: Tensor | None = None
        self._before: list[tuple[Criterion, Any]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for criterion in outermost(pl_module):
            self._before.append((criterion, criterion.observer))
            criterion.observer = self._observer(pl_module, criterion.observer)

    def _observer(
        self, module: nn.Module, other: Callable[..., None] | None
    ) -> Callable[[Samples, Tensor | None], None]:
        def observe(samples: Samples, weight: Tensor | None) -> None:
            if other is not None:
                other(samples, weight)
            if module.training:
                self._add(samples, weight)

        return observe

    @torch.no_grad()
    def _add(self, samples: Samples, weight: Tensor | None) -> None:
        loss, target, valid, num_classes, _ = samples
        one = torch.ones_like(loss, dtype=torch.float32)
        weight = one if weight is None else weight.detach().float()
        rows = torch.stack([one, weight, (weight > 0).float()], -1)
        if valid is not None:
            rows = rows.where(valid[..., None], 0)
        by_class = num_classes is not None and target is not None and is_index(target)
        size = num_classes if by_class and num_classes is not None else 1
        if self._sums is None or len(self._sums) != size:
            self._sums = torch.zeros(size, 3, device=loss.device)
        if by_class and target is not None:
            label = target.long().clamp(0, size - 1).reshape(-1)
        else:
            label = torch.zeros(loss.numel(), dtype=torch.int64, device=loss.device)
        self._sums = self._sums.to(loss.device).index_add(0, label, rows.reshape(-1, 3))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        set_epoch_below(pl_module, trainer.current_epoch)
        self._sums = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._sums is None:
            return
        sums: Any = trainer.strategy.reduce(self._sums, reduce_op="sum")
        count, weight, kept = sums.unbind(1)
        log = {"kept": kept.sum() / count.sum().clamp(min=1)}
        if len(sums) > 1:
            present = count.clamp(min=1)
            for c in range(len(sums)):
                name = str(c) if self.class_names is None else self.class_names[c]
                log[f"kept/{name}"] = kept[c] / present[c]
                log[f"weight/{name}"] = weight[c] / present[c]
        pl_module.log_dict({f"{self.prefix}/{name}": value for name, value in log.items()})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for criterion, observer in self._before:
            criterion.observer = observer
        self._before.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums = state_dict["sums"]
