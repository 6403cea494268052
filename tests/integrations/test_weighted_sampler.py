"""The samplers in real trainings of two processes: every batch is that of one process."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import sampleweights as sw

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not dist.is_available(), reason="torch without distributed"),
]
EPOCHS, BATCH, WORLD = 2, 3, 2
TARGETS = torch.tensor([0] * 20 + [1] * 5 + [2] * 2)


class Samples(Dataset[Any]):
    def __len__(self) -> int:
        return len(TARGETS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "labels": int(TARGETS[index])}


class Model(nn.Module):
    """Remembers the indices it was called with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(len(TARGETS), 3)
        self.seen: list[list[int]] = []

    def forward(self, index: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.seen.append(index.tolist())
        logits = self.table(index)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def sampler(**options: Any) -> sw.WeightedSampler:
    return sw.WeightedSampler.from_targets(TARGETS, num_samples=24, **options)


KINDS = ["WeightedSampler", pytest.param("ClassBatchSampler", marks=pytest.mark.slow)]


def loader_of(kind: str, **options: Any) -> DataLoader[Any]:
    if kind == "WeightedSampler":
        return DataLoader(Samples(), BATCH, sampler=sampler(**options))
    batches = sw.ClassBatchSampler(TARGETS, None, 1, 24 // BATCH, **options)
    return DataLoader(Samples(), batch_sampler=batches)


def steps(kind: str) -> list[list[int]]:
    """What one process sees in each step, sorted."""
    loader, found = loader_of(kind, num_replicas=1, rank=0), []
    one: Any = loader.batch_sampler
    for epoch in range(EPOCHS):
        one.sampler.set_epoch(epoch)
        found += [sorted(a + b) for a, b in zip(*[iter(one)] * WORLD, strict=True)]
    return found


def check(folder: Path, kind: str = "WeightedSampler") -> None:
    parts = [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == steps(kind)
    assert parts[0] != parts[1]


def enter_torchrun(rank: int, world: int) -> None:
    """The variables that torchrun sets."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",  # the group is there
    }


def _accelerate(rank: int, world: int, folder: str, kind: str) -> None:
    import accelerate

    enter_torchrun(rank, world)
    accelerator = accelerate.Accelerator(cpu=True)
    assert accelerator.num_processes == world
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = loader_of(kind, num_replicas=1, rank=0)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        for batch in loader:
            accelerator.backward(wrapped(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
    torch.save(model.seen, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("kind", KINDS)
def test_accelerate(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    ranks.run(partial(_accelerate, kind=kind), WORLD, str(tmp_path))
    check(tmp_path, kind)


def trainer(folder: Any, given: sw.WeightedSampler, **options: Any) -> Any:
    import transformers

    class SamplingTrainer(transformers.Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return given

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        num_train_epochs=EPOCHS,
        remove_unused_columns=False,
        **{"per_device_train_batch_size": BATCH, "save_strategy": "no"} | options,
    )
    return SamplingTrainer(Model(), arguments, train_dataset=Samples())


def _trainer(rank: int, world: int, folder: str) -> None:
    enter_torchrun(rank, world)
    training = trainer(folder, sampler(num_replicas=1, rank=0), ddp_backend="gloo")
    assert training.accelerator.num_processes == world
    training.train()
    torch.save(training.model.seen, f"{folder}/{rank}.pt")


def test_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    ranks.run(_trainer, WORLD, str(tmp_path))
    check(tmp_path)


def test_trainer_resumed_in_mid_epoch(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    whole = trainer(tmp_path / "whole", sampler())
    whole.train()
    part = trainer(tmp_path / "part", sampler(), max_steps=11, save_strategy="steps", save_steps=11)
    part.train()
    rest = trainer(tmp_path / "part", sampler())
    rest.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-11"))
    assert part.model.seen + rest.model.seen == whole.model.seen


def fit(folder: Path, kind: str, **options: Any) -> None:
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(**batch)["loss"]

        def train_dataloader(self) -> Any:
            # before or after the processes were connected: the sampler asks at each epoch
            return loader_of(kind)

        def on_train_end(self) -> None:
            torch.save(self.model.seen, folder / f"{self.global_rank}.pt")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=WORLD,
        strategy="ddp",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    ).fit(Module())


def _lightning(rank: int, world: int, folder: str, kind: str) -> None:
    enter_torchrun(rank, world)
    fit(Path(folder), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_lightning(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    ranks.run(partial(_lightning, kind=kind), WORLD, str(tmp_path))
    check(tmp_path, kind)


class TestDividedTwice:
    """What the frameworks put around a sampler, without their processes."""

    @staticmethod
    def around(framework: str, given: sw.WeightedSampler) -> DataLoader[Any]:
        loader = DataLoader(Samples(), BATCH, sampler=given)
        if framework == "lightning":
            distributed = pytest.importorskip("lightning.fabric.utilities.distributed")
            wrapper = distributed.DistributedSamplerWrapper(given, num_replicas=WORLD, rank=0)
            return DataLoader(Samples(), BATCH, sampler=wrapper)
        accelerate = pytest.importorskip("accelerate.data_loader")
        prepared: DataLoader[Any] = accelerate.prepare_data_loader(
            loader, num_processes=WORLD, process_index=0, put_on_device=False
        )
        return prepared

    @pytest.mark.parametrize(
        ("framework", "advice"),
        [
            ("lightning", "Lightning's Trainer: pass it use_distributed_sampler=False"),
            ("accelerate", "Accelerate: pass num_replicas=1, rank=0"),
        ],
    )
    def test_says_which_argument_to_set(self, framework: str, advice: str) -> None:
        loader = self.around(framework, sampler(num_replicas=WORLD, rank=0))
        with pytest.warns(UserWarning, match=f"a part of its part.* among 2 .* {advice}"):
            batches = list(loader)
        assert len(batches) < 24 / BATCH / WORLD
        loader = self.around(framework, sampler(num_replicas=1, rank=0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(list(loader)) == 24 / BATCH / WORLD

    def test_a_plain_loader_is_silent(self) -> None:
        loader = DataLoader(Samples(), BATCH, sampler=sampler(num_replicas=WORLD, rank=0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(list(loader)) == 24 / BATCH / WORLD
