"""The callback in real trainings: epochs, logs, and a kill in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw

pytest.importorskip("lightning")
import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from sampleweights.integrations.lightning import WeightingCallback

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS, STEPS = 3, 4


class Module(pl.LightningModule):
    def __init__(self, weighter: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.criterion = sw.CrossEntropyLoss(weighter=weighter)
        self.weights: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, target = batch
        loss: Tensor = self.criterion(self.model(features), target)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.05)


class StopAt(pl.Callback):
    """A kill in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


class Batches:
    """A loader that knows where it is, as torchdata has them: Lightning resumes in mid-epoch."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(1)
        self.target = torch.randint(3, (8 * STEPS,), generator=g)
        self.features = torch.randn(8 * STEPS, 6, generator=g)
        self.position = self.start = 0

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Any]:
        start, self.start = self.start, 0
        for self.position in range(start + 1, STEPS + 1):
            part = slice(8 * self.position - 8, 8 * self.position)
            yield self.features[part], self.target[part]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["position"] % STEPS


def weighter() -> Any:
    return sw.Compose([sw.ClassBalanced([16, 8, 8]), sw.OHEM(2 * EPOCHS)])


def fit(module: Module, folder: Path, *callbacks: Any, resume: Any = None) -> Any:
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            WeightingCallback(["a", "b", "c"]),
            ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1),
            *callbacks,
        ],
    )
    trainer.fit(module, Batches(), ckpt_path=resume)
    return trainer


def test_epochs_are_set_and_weights_logged(tmp_path: Path) -> None:
    module = Module(weighter())
    trainer = fit(module, tmp_path)
    schedule = sw.schedules.Sigmoid(2 * EPOCHS)
    assert module.criterion.weighter.weighters[1].fraction == schedule(EPOCHS - 1)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    kept = sum(sw.selection.kept_count(torch.tensor(schedule(EPOCHS - 1)), 8) for _ in range(STEPS))
    assert logged["weighting/kept"] == pytest.approx(float(kept) / (8 * STEPS))
    counts = torch.bincount(Batches().target, minlength=3)
    by_class = sum(logged[f"weighting/kept/{c}"] * n for c, n in zip("abc", counts, strict=True))
    assert by_class == pytest.approx(float(kept))
    ratio = logged["weighting/weight/a"] / logged["weighting/kept/a"]
    assert ratio == pytest.approx(float(module.criterion.weighter.weighters[0].class_weight[0]))
    assert not module.criterion.is_watched


def test_an_inactive_weighter_keeps_all(tmp_path: Path) -> None:
    trainer = fit(Module(sw.OHEM(schedule=1.0)), tmp_path)
    assert trainer.callback_metrics["weighting/kept"] == 1
    assert trainer.callback_metrics["weighting/weight/b"] == 1


def test_names_of_other_classes(tmp_path: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[WeightingCallback(["a", "b"])],
    )  # fmt: skip
    with pytest.raises(ValueError, match="class_names must name 3 classes, got 2"):
        trainer.fit(Module(weighter()), Batches())


@pytest.mark.parametrize("killed_after", [1, STEPS + 2, 2 * STEPS + 1])
def test_a_killed_training_ends_the_same(tmp_path: Path, killed_after: int) -> None:
    whole = Module(weighter())
    logged = fit(whole, tmp_path / "whole").callback_metrics
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(Module(weighter()), tmp_path / "part", StopAt(killed_after + 1))
    [checkpoint] = (tmp_path / "part").glob(f"*step={killed_after}.ckpt")
    resumed = Module(weighter())
    again = fit(resumed, tmp_path / "part", resume=checkpoint).callback_metrics
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert a.equal(b), name
    assert again == logged
