"""The callback in real trainings: epochs, logs, and a kill in mid-epoch."""

from __future__ import annotations

import copy
import inspect
import pickle
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

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
    epochs = [EPOCHS - 1 + step / STEPS for step in range(STEPS)]
    assert module.criterion.weighter.weighters[1].fraction == schedule(epochs[-1])
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    kept = sum(sw.selection.kept_count(torch.tensor(schedule(epoch)), 8) for epoch in epochs)
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
    with pytest.raises(ValueError, match="class_names must name 3 classes for .criterion., got 2"):
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


class Small(pl.LightningModule):
    """Any training and validation on the features alone; nothing is learned."""

    def __init__(self, **criteria: Any) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.seen: list[float] = []
        for name, criterion in criteria.items():
            setattr(self, name, criterion)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.bias * 0

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


def run(module: Any, folder: Path, *callbacks: Any, **options: Any) -> Any:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
        **{"max_epochs": 1, "enable_checkpointing": False} | options,
    )  # fmt: skip
    trainer.fit(module, Batches(), Batches() if hasattr(module, "validation_step") else None)
    return trainer


class Stepwise(Small):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(float(self.criterion.weighter.fraction))
        return self.bias * 0


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_moves_at_every_step(epochs: int, tmp_path: Path) -> None:
    module = Stepwise(criterion=sw.CrossEntropyLoss(weighter=sw.OHEM(epochs)))
    run(module, tmp_path, WeightingCallback(), max_epochs=epochs)
    schedule = sw.schedules.Sigmoid(epochs)
    assert module.seen == [schedule(step / STEPS) for step in range(epochs * STEPS)]


class Endless(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(list(Batches()))


def test_batches_that_nobody_counted(tmp_path: Path) -> None:
    module = Stepwise(criterion=sw.CrossEntropyLoss(weighter=sw.OHEM(4)))
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, max_epochs=2,
        callbacks=[WeightingCallback()],
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(Endless(), batch_size=None))
    schedule = sw.schedules.Sigmoid(4)
    assert module.seen == [schedule(0)] * STEPS + [schedule(1)] * STEPS


class Validated(Module):
    """Validates with its training criterion, whose logits never change."""

    def __init__(self, weighter: Any) -> None:
        super().__init__(weighter)
        self.losses: list[float] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        features, target = batch
        loss = self.criterion(self.model(features), target)
        self.losses.append(float(loss))
        self.log("validation", loss)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


def test_the_validation_loss_does_not_move_with_the_schedule(tmp_path: Path) -> None:
    module = Validated(weighter())
    module.criterion.ignore_index = 2
    checkpoint = ModelCheckpoint(tmp_path, monitor="validation", save_top_k=-1)
    trainer = run(
        module, tmp_path, checkpoint, WeightingCallback(), max_epochs=3, enable_checkpointing=True
    )
    trainer.test(module, Batches(), verbose=False)
    plain = nn.CrossEntropyLoss(ignore_index=2)
    expected = [float(plain(module.model(x), y)) for x, y in Batches()]
    assert module.losses == pytest.approx([*expected[:2], *expected * 4])  # 2 sanity checks
    assert module.criterion.weighter is not None
    for path in tmp_path.glob("*.ckpt"):  # saved at the end of a validation
        assert (
            torch.load(path, weights_only=True)["state_dict"].keys() == module.state_dict().keys()
        )


class Fails(Validated):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        raise ArithmeticError


def test_a_validation_that_fails_leaves_the_weighter(tmp_path: Path) -> None:
    module = Fails(weighter())
    with pytest.raises(ArithmeticError):
        run(module, tmp_path, WeightingCallback())
    assert module.criterion.weighter is not None


class Heads(Small):
    """Two heads of 3 and of 2 classes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, target = batch
        loss: Tensor = self.site(features[:, :3], target) + self.malignant(
            features[:, 3:5], target.clamp(max=1)
        )
        return loss + self.bias * 0


def heads(*, same: bool = False) -> Heads:
    site = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    other = site if same else sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25, per_class=True))
    return Heads(site=site, malignant=other)


def test_two_heads_of_different_classes(tmp_path: Path) -> None:
    names = {"malignant": ["benign", "malignant"]}
    logged = run(heads(), tmp_path, WeightingCallback(names)).callback_metrics
    assert logged["weighting/site/kept"] == 0.5
    kept = dict.fromkeys((0, 1), 0)
    for _, target in Batches():
        for label, count in enumerate(target.clamp(max=1).bincount(minlength=2).tolist()):
            kept[label] += max(1, int(count / 4 + 0.5)) if count else 0
    counts = Batches().target.clamp(max=1).bincount().tolist()
    for label, name in enumerate(["benign", "malignant"]):
        share = float(logged[f"weighting/malignant/kept/{name}"])
        assert share == pytest.approx(kept[label] / counts[label])
    assert "weighting/site/weight/2" in logged


def test_two_heads_with_one_criterion(tmp_path: Path) -> None:
    logged = run(heads(same=True), tmp_path, WeightingCallback()).callback_metrics
    assert logged["weighting/kept"] == 0.5
    assert "weighting/kept/2 classes/1" in logged
    assert "weighting/kept/3 classes/2" in logged


class Mixed(Small):
    """Every other batch has probabilities for targets, as mixup makes them."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, target = batch
        if batch_idx % 2:
            target = nn.functional.one_hot(target, 3).float()
        loss: Tensor = self.criterion(features[:, :3], target)
        return loss + self.bias * 0


def test_some_batches_have_probabilities(tmp_path: Path) -> None:
    module = Mixed(criterion=sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5)))
    logged = run(module, tmp_path, WeightingCallback(["a", "b", "c"])).callback_metrics
    assert logged["weighting/kept"] == 0.5
    target = torch.cat([y for _, y in list(Batches())[::2]]).bincount()
    kept = sum(float(logged[f"weighting/kept/{c}"]) * n for c, n in zip("abc", target, strict=True))
    assert float(kept) == pytest.approx(8)


def test_names_of_criteria_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of \['site', 'malignant'\], got \['grade'\]"):
        run(heads(), tmp_path, WeightingCallback({"grade": ["low", "high"]}))
    with pytest.raises(ValueError, match="2 classes for 'malignant', got 3; .* give a dictionary"):
        run(heads(), tmp_path, WeightingCallback(["a", "b", "c"]))


def test_nothing_to_watch(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no criterion or weighter of sampleweights in Small"):
        run(Small(criterion=nn.CrossEntropyLoss()), tmp_path, WeightingCallback())
    with warnings.catch_warnings(record=True) as caught:
        run(Small(weighter=sw.OHEM(3)), tmp_path, WeightingCallback())
    assert not [w for w in caught if "sampleweights" in str(w.message)]


def test_copies_of_the_callback() -> None:
    callback = WeightingCallback(["a", "b"], prefix="w")
    for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (other.class_names, other.prefix) == (callback.class_names, callback.prefix)


def test_the_module_of_the_docstring_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Lightning's logs
    text = inspect.getdoc(WeightingCallback) or ""
    code = textwrap.dedent(text.partition("finds it::\n")[2])
    data = TensorDataset(torch.randn(24, 1, 4, 4), torch.arange(24) % 3)
    names = {
        "class_counts": [8, 8, 8],
        "class_names": ["cat", "dog", "oak"],
        "num_epochs": 2,
        "train_loader": DataLoader(data, 6),
        "validation_loader": DataLoader(data, 12),
    }
    exec(code, names)
    logged: dict[str, Tensor] = names["trainer"].callback_metrics  # type: ignore[attr-defined]
    assert {"val_loss", "weighting/kept", "weighting/kept/oak"} <= logged.keys()
    assert names["trainer"].current_epoch == 2  # type: ignore[attr-defined]
