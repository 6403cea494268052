"""What happens between the batches: epochs that begin, checkpoints, and epochs that end."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from sampleweights.history import LossHistory
from sampleweights.losses.base import Criterion
from sampleweights.losses.processes import world_size

__all__ = ["EpochCallback"]


class EpochCallback(TrainerCallback):
    """Calls ``set_epoch`` before every update, with the fraction of an epoch that has passed.

    A schedule therefore also works in a training of one epoch. All batches that are accumulated
    for one update have the same epoch. After resuming, the epoch continues where it was.

    Args:
        criterion: an object with a ``set_epoch`` method.

    Warns:
        UserWarning: at the start of the training, ``label_smoothing_factor`` beside a criterion of
            this library: the Trainer leaves it out where it has a loss function, and says nothing.
    """

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.label_smoothing_factor and isinstance(self.criterion, Criterion):
            warnings.warn(
                f"label_smoothing_factor={args.label_smoothing_factor} has no effect where the "
                f"criterion computes the loss: pass label_smoothing= to it",
                stacklevel=2,
            )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.criterion.set_epoch(state.epoch or 0)


class Keeper(TrainerCallback):
    """Ends the epochs of the history, and saves it and the criterion with every checkpoint."""

    FILE = "sampleweights.pt"

    def __init__(self, criterion: Criterion, history: LossHistory | None) -> None:
        self.criterion, self.history = criterion, history
        self.is_open = False
        """Whether the history has an epoch that has not ended."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for part in self._parts().values():
            part.to(args.device)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if float(state.epoch or 0).is_integer():
            self.on_epoch_end()  # a checkpoint of an epoch's last step was saved before its end

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        if self.history is not None and self.is_open:
            self.history.end_epoch()
        self.is_open = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.save_only_model:  # nothing can be resumed from there
            return
        states = {name: part.state_dict() for name, part in self._parts().items()}
        if self.history is not None and world_size() > 1:
            # each process has seen other samples of the epoch
            current = self.history.current.clone()
            torch.distributed.all_reduce(current)
            states["history"]["current"] = current
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save and folder.is_dir():
            torch.save({**states, "is_open": self.is_open}, folder / self.FILE)

    def load(self, folder: Path, process: int) -> None:
        file = folder / self.FILE
        if not file.exists():
            raise ValueError(f"the checkpoint must be one of a WeightingTrainer, has no {file}")
        saved = torch.load(file, map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            if name in saved:
                part.load_state_dict(saved[name])
        if self.history is not None and process > 0:
            self.history.current.zero_()  # it is added up over the processes, of any number
        self.is_open = saved["is_open"]

    def _parts(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"criterion": self.criterion}
        if self.history is not None:
            parts["history"] = self.history
        return parts
