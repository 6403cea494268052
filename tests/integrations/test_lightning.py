"""The callback in real trainings: epochs, logs, and a kill in mid-epoch."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import os
import pickle
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import sampleweights as sw

pytest.importorskip("lightning")
import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.combined_loader import CombinedLoader

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


class Uneven(Batches):
    """Larger batches on the second process, one of them with probabilities for targets."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def __iter__(self) -> Iterator[Any]:
        for features, target in super().__iter__():
            if self.rank == 0:
                yield features, target
            elif self.position == 2:
                yield features.repeat(3, 1), nn.functional.one_hot(target.repeat(3), 3).float()
            else:
                yield features.repeat(3, 1), target.repeat(3).clamp(max=1)


def _train_two(rank: int, world: int, folder: str) -> None:
    os.environ.update(
        LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500"
    )  # Lightning takes the processes that there are
    warnings.simplefilter("ignore")

    def fit_two(name: str, *callbacks: Any, resume: Any = None) -> dict[str, float]:
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", devices=world, strategy="ddp", logger=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[
                WeightingCallback(),
                ModelCheckpoint(f"{folder}/{name}", every_n_train_steps=1, save_top_k=-1),
                *callbacks,
            ],
        )  # fmt: skip
        trainer.fit(Module(sw.OHEM(2)), Uneven(rank), ckpt_path=resume)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    whole = fit_two("whole")
    [middle] = Path(folder, "whole").glob("*step=2.ckpt")
    torch.save((whole, fit_two("resumed", resume=middle)), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_a_checkpoint_has_the_sums_of_all_processes_once(tmp_path: Path) -> None:
    ranks.run(_train_two, 2, str(tmp_path))
    logged = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    (whole, resumed), other = logged
    assert (whole, resumed) == other
    assert resumed == pytest.approx(whole)
    fractions = [1 / (1 + 39 ** -(step / STEPS)) for step in range(STEPS)]
    kept = sum(math.floor(f * 8 + 0.5) + math.floor(f * 24 + 0.5) for f in fractions)
    assert whole["weighting/kept"] == pytest.approx(kept / (32 * STEPS))
    assert "weighting/kept/2" in whole


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


class Stream(IterableDataset[Any]):
    """Samples that nobody has counted; without a length they never end."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        numbers = itertools.count() if self.length is None else range(self.length)
        return (torch.tensor([float(n)]) for n in numbers)


def loader(length: int | None = None) -> Any:
    return DataLoader(Stream(length), batch_size=1)


def counted(length: int) -> Any:
    return DataLoader(TensorDataset(torch.zeros(length, 1)), batch_size=1)


FIFTHS = [0, 0.2, 0.4, 0.6, 0.8]
THIRDS = [0, 1 / 3, 2 / 3]
STREAMS: dict[str, tuple[Any, dict[str, Any], list[float]]] = {
    "all steps are an epoch": (loader, {"max_steps": 5}, FIFTHS),
    "also if the stream begins anew": (lambda: loader(2), {"max_steps": 5}, FIFTHS),
    "also if one epoch is asked for": (loader, {"max_steps": 5, "max_epochs": 1}, FIFTHS),
    "who asks for several counts in them": (
        lambda: loader(2),
        {"max_steps": 20, "max_epochs": 3},
        [0, 0.05, 1, 1, 2, 2],
    ),
    "accumulated batches have one epoch": (
        loader,
        {"max_steps": 3, "accumulate_grad_batches": 2},
        [0, 0, *THIRDS[1:2] * 2, *THIRDS[2:] * 2],
    ),
    "a limit is a length": (
        loader,
        {"max_epochs": 2, "limit_train_batches": 3},
        [*THIRDS, *(1 + third for third in THIRDS)],
    ),
    "a limit is a length, also for steps": (
        loader,
        {"max_steps": 4, "limit_train_batches": 3},
        [*THIRDS, 1],
    ),
    "the stream of several that ends first": (
        lambda: CombinedLoader([counted(2), loader()], "min_size"),
        {"max_epochs": 2},
        [0, 0.5, 1, 1.5],
    ),
    "one of several that never ends": (
        lambda: CombinedLoader([counted(2), loader()], "max_size_cycle"),
        {"max_steps": 5},
        FIFTHS,
    ),
    "accumulated, the last update of fewer": (
        lambda: counted(4),
        {"max_epochs": 2, "accumulate_grad_batches": 3},
        [0, 0, 0, 0.75, 1, 1, 1, 1.75],
    ),
}


class Epochs(Small):
    """Notes the epoch of every batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(int(self.criterion.weighter.epoch) / 1e6)
        return self.bias * 0


def epochs(weighter: Any = None) -> Epochs:
    return Epochs(criterion=sw.CrossEntropyLoss(weighter=weighter or sw.OHEM(1)))


def fit_stream(module: Any, data: Any, folder: Path, *callbacks: Any, **options: Any) -> list[str]:
    """Train, and return our warnings."""
    resume = options.pop("resume", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[WeightingCallback(), *callbacks],
            **{"enable_checkpointing": False} | options,
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=resume)
    return [str(w.message) for w in caught if "WeightingCallback" in str(w.message)]


@pytest.mark.parametrize("case", STREAMS)
def test_the_epochs_of_a_stream(case: str, tmp_path: Path) -> None:
    data, options, expected = STREAMS[case]
    module = epochs()
    told = fit_stream(module, data(), tmp_path, **options)
    assert module.seen == pytest.approx(expected, abs=1e-6)
    assert not told


def test_a_stream_resumes_at_its_epoch(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    fit_stream(epochs(), loader(), tmp_path, save, max_steps=5, enable_checkpointing=True)
    [checkpoint] = tmp_path.glob("*step=2.ckpt")
    module = epochs()
    fit_stream(module, loader(), tmp_path, max_steps=5, resume=checkpoint)
    assert module.seen == FIFTHS[2:]


def test_who_cannot_know_the_epoch_says_so(tmp_path: Path) -> None:
    def told(weighter: Any) -> list[str]:
        return fit_stream(epochs(weighter), loader(2), tmp_path, max_epochs=2)

    module = epochs()
    [warning] = fit_stream(module, loader(2), tmp_path, max_epochs=2)
    assert module.seen == [0, 0, 1, 1]
    assert "sets the epoch of OHEM only when the data end" in warning
    assert "Give the Trainer max_steps= " in warning
    [warning] = told(sw.Deferred(sw.ClassBalanced([1, 2]), 1))
    assert "epoch of Deferred" in warning
    assert not told(sw.OHEM(schedule=0.5))


def test_a_schedule_that_is_longer_than_the_stream_says_so(tmp_path: Path) -> None:
    def told(weighter: Any, **options: Any) -> list[str]:
        return fit_stream(epochs(weighter), loader(), tmp_path, **{"max_steps": 2} | options)

    for late, name in (
        (sw.OHEM(100), "OHEM"),
        (sw.SelfPaced(schedule=lambda epoch: [0.5, 0.75, 1.0][int(epoch)]), "SelfPaced"),
        (sw.Deferred(sw.ClassBalanced([1, 2]), 1), "Deferred"),
    ):
        [warning] = told(late)
        assert f"one epoch, but {name} would still change after it" in warning
        assert not told(late, limit_train_batches=2)
    assert not told(sw.Deferred(sw.OHEM(1), 0.8))
    assert not told(sw.OHEM(2))  # which has reached all samples by then


class Growing(Epochs):
    """Another number of batches in each epoch."""

    def train_dataloader(self) -> Any:
        return counted(2 + 2 * self.trainer.current_epoch)


def test_loaders_that_change_their_length(tmp_path: Path) -> None:
    module = Growing(criterion=sw.CrossEntropyLoss(weighter=sw.OHEM(2)))
    fit_stream(module, None, tmp_path, max_epochs=2, reload_dataloaders_every_n_epochs=1)
    assert module.seen == [0, 0.5, 1, 1.25, 1.5, 1.75]


class Table(sw.Weighter):
    """Looks its factor up in a list, as only a whole number can."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def set_epoch(self, epoch: float) -> None:
        self.factor = [1.0, 2.0][epoch]  # type: ignore[call-overload]
        self.seen.append(epoch)

    def forward(self, loss: Tensor, target: Any = None, valid: Any = None) -> Tensor:
        return torch.full_like(loss, self.factor)


class Weighted(Small):
    """Calls every criterion that it has, each twice."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, target = batch
        criteria = [m for m in self.modules() if isinstance(m, sw.CrossEntropyLoss)]
        criteria += getattr(self, "hidden", [])
        loss: Tensor = sum(c(features[:, :3], target) for c in criteria for _ in range(2))  # type: ignore[assignment]
        return loss + self.bias * 0


def test_a_set_epoch_of_ones_own_gets_whole_numbers(tmp_path: Path) -> None:
    own, curriculum = Table(), sw.OHEM(2)
    module = Weighted(
        criterion=sw.CrossEntropyLoss(weighter=own),
        others=nn.ModuleList([sw.CrossEntropyLoss(weighter=[curriculum, Table()])]),
    )
    run(module, tmp_path, WeightingCallback(), max_epochs=2)
    assert set(own.seen) == {0, 1}
    assert all(type(epoch) is int for epoch in own.seen)
    assert curriculum.fraction == sw.schedules.Sigmoid(2)(1.75)


def test_a_criterion_that_a_plain_list_hides_is_told_by_the_weighter(tmp_path: Path) -> None:
    module = Weighted(criterion=sw.CrossEntropyLoss(weighter=sw.OHEM(2)))
    module.hidden = [sw.CrossEntropyLoss(weighter=sw.SelfPaced(2))]
    with pytest.warns(
        UserWarning, match="SelfPaced was called 20 times .* set_epoch never"
    ) as told:
        run(module, tmp_path, WeightingCallback(), max_epochs=3)
    assert not [w for w in told if "OHEM was called" in str(w.message)]


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_compiled(whole: bool, tmp_path: Path) -> None:
    """A compiled module, and a compiled criterion in a module."""
    torch._dynamo.reset()
    module = Validated([sw.ClassBalanced([16, 8, 8]), sw.OHEM(2)])
    weighters = module.criterion.weighter.weighters
    if whole:
        compiled: Any = torch.compile(module, backend="eager")
    else:
        module.criterion, compiled = torch.compile(module.criterion, backend="eager"), module
    trainer = run(compiled, tmp_path, WeightingCallback(), max_epochs=2)
    assert weighters[1].fraction == sw.schedules.Sigmoid(2)(1.75)
    assert "weighting/kept" in trainer.callback_metrics
    expected = [float(nn.functional.cross_entropy(module.model(x), y)) for x, y in Batches()]
    assert module.losses == pytest.approx([*expected[:2], *expected * 2])


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


COUNTS = [16, 8, 0]


class Staged(Small):
    """The plain and the given loss of every batch, in training and in all kinds of evaluation."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(criterion=sw.CrossEntropyLoss(**parts))
        self.given: dict[str, list[float]] = {}
        self.fails_in, self.error = "", ArithmeticError

    def step(self, stage: str, batch: Any) -> Tensor:
        features, target = batch
        if stage == self.fails_in:
            raise self.error
        if stage == "train":
            target = target.clamp(max=1)  # only the others have class 2
        loss: Tensor = self.criterion(features[:, :3], target)
        plain = nn.functional.cross_entropy(features[:, :3], target)
        self.given.setdefault(stage, []).append(float(loss / plain))
        return loss + self.bias * 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.step("validate", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.step("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        self.step("predict", batch)

    def on_validation_epoch_end(self) -> None:
        self.copies = [copy.deepcopy(self.criterion), pickle.loads(pickle.dumps(self.criterion))]


class Second(WeightingCallback):
    """Another, as a subclass of a user's may be added by a module."""


STAGED: dict[str, Any] = {
    "weighter": lambda: {"weighter": sw.ClassBalanced(COUNTS)},
    "LogitAdjustment": lambda: {"margin": sw.LogitAdjustment(COUNTS)},
    "LDAM": lambda: {"margin": sw.LDAM(COUNTS)},
}


@pytest.mark.parametrize("parts", STAGED)
def test_every_evaluation_is_plain_and_every_training_step_is_not(
    parts: str, tmp_path: Path
) -> None:
    """A class that only the evaluation has does not end the training either."""
    module = Staged(**STAGED[parts]())
    trainer = run(
        module, tmp_path, WeightingCallback(), Second(), max_epochs=2, val_check_interval=2
    )
    for stage in (trainer.validate, trainer.test):
        stage(module, Batches(), verbose=False)
    trainer.predict(module, Batches())
    numbers = {stage: len(ratios) for stage, ratios in module.given.items()}
    assert numbers == {"train": 8, "validate": 2 + 4 * STEPS + STEPS, "test": 4, "predict": 4}
    for stage, ratios in module.given.items():
        for ratio in ratios:
            assert (ratio == pytest.approx(1, abs=1e-6)) == (stage != "train")
    features, target = next(iter(Batches()))
    expected = module.criterion(features[:, :3], target.clamp(max=1))
    for twin in module.copies:  # made within an evaluation
        assert twin(features[:, :3], target.clamp(max=1)).equal(expected)


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_an_evaluation_that_fails_ends(stage: str, error: Any, tmp_path: Path) -> None:
    module = Staged(weighter=sw.ClassBalanced(COUNTS))
    module.fails_in, module.error = stage, error
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[WeightingCallback()],
        max_epochs=1,
    )  # fmt: skip
    given = (Batches(), Batches()) if stage == "validate" else (Batches(),)
    with pytest.raises((error, SystemExit)):
        getattr(trainer, "fit" if stage == "validate" else stage)(module, *given)
    module.step("train", next(iter(Batches())))
    assert module.given["train"][0] != pytest.approx(1)


# ---------------------------------------------------------------------------------------------
# Checkpoints within an evaluation, and averages of models
# ---------------------------------------------------------------------------------------------


class Saves(Validated):
    """Saves itself at the end of each validation, as ``ModelCheckpoint`` would a moment later."""

    folder: Path

    def __init__(self, weighter: Any, margin: Any = None) -> None:
        super().__init__(weighter)
        self.criterion = sw.CrossEntropyLoss(weighter=weighter, margin=margin)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.trainer.save_checkpoint(self.folder / f"{self.trainer.global_step}.ckpt")

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.05)


def saves(folder: Path) -> Saves:
    rare = sw.ClassBalanced([20_000_001, 3, 1])  # float32 has no 20,000,001
    module = Saves([rare, sw.OHEM(2 * EPOCHS)], sw.LogitAdjustment([7, 3, 1]))
    module.folder = folder
    folder.mkdir(parents=True, exist_ok=True)
    return module


def weighting_state(state: Any) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.startswith("criterion")}


def fit_saving(module: Any, *callbacks: Any, resume: Any = None) -> Any:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=module.folder, max_epochs=EPOCHS,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, Batches(), Batches(), ckpt_path=resume)
    return trainer


def test_a_checkpoint_of_a_module_within_its_validation_can_be_loaded(tmp_path: Path) -> None:
    module = saves(tmp_path)
    fit_saving(module, WeightingCallback())
    resumed = saves(tmp_path / "resumed")
    fit_saving(resumed, WeightingCallback(), resume=tmp_path / f"{STEPS}.ckpt")
    for step in (STEPS, 2 * STEPS, 3 * STEPS):
        state = torch.load(tmp_path / f"{step}.ckpt", weights_only=True)["state_dict"]
        twin = saves(tmp_path)
        twin.load_state_dict(state)  # with all keys
        assert twin.criterion.weighter.weighters[1].epoch == round(1e6 * (step - 1) / STEPS)
    for (name, a), b in zip(
        module.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert a.equal(b), name


EMA: Any = getattr(pl.callbacks, "EMAWeightAveraging", None)


@pytest.mark.skipif(EMA is None, reason="Lightning has EMAWeightAveraging from 2.6 on")
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("options", [{"decay": 0.9}, {"decay": 0.9, "update_starting_at_epoch": 0}])
def test_averages_of_models(first: bool, options: Any, tmp_path: Path) -> None:
    """They train, and average the parameters; weighters and margins are as in the training."""

    def callbacks() -> list[Any]:
        both = [EMA(**options), WeightingCallback(["a", "b", "c"])]
        last = ModelCheckpoint(tmp_path / "last", every_n_epochs=1, save_top_k=-1, save_last=True)
        return [*(both if first else both[::-1]), last]

    module = saves(tmp_path)
    built = weighting_state(saves(tmp_path).state_dict())
    trainer = fit_saving(module, *callbacks())
    plain = [float(nn.functional.cross_entropy(module.model(x), y)) for x, y in Batches()]
    if len(options) == 1:  # they stay in the module, as they were validated
        assert module.losses[-STEPS:] == pytest.approx(plain)
    trainer.save_checkpoint(tmp_path / "last" / "end.ckpt")

    def check(state: Any, step: int) -> None:
        now = weighting_state(state)
        assert now.keys() == built.keys()
        for name, value in now.items():
            if name.endswith("epoch"):
                assert value == round(1e6 * (step - 1) / STEPS), name
            else:
                assert value.equal(built[name]), name

    check(module.state_dict(), EPOCHS * STEPS)
    files = [*tmp_path.glob("*.ckpt"), *(tmp_path / "last").glob("*.ckpt")]
    assert len(files) == EPOCHS + EPOCHS + 2
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        check(checkpoint["state_dict"], checkpoint["global_step"])
        check(checkpoint["current_model_state"], checkpoint["global_step"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as of other counts than it was built with
            saves(tmp_path).load_state_dict(checkpoint["state_dict"])
    resumed = saves(tmp_path / "resumed")
    [middle] = (tmp_path / "last").glob("epoch=1*.ckpt")
    fit_saving(resumed, *callbacks(), resume=middle)
    check(resumed.state_dict(), EPOCHS * STEPS)


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
