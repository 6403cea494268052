"""What a criterion counts is what a real Trainer divides by: one update and one evaluation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import ranks
from trainings import CASES, ROWS, reached, right

import sampleweights as sw

pytestmark = pytest.mark.filterwarnings("ignore")


IN_TWO = [(name, True) for name in CASES]
IN_TWO += [(name, False) for name in ("segmentation", "gpt2", "llama, head", "weighted mean")]


def agree(came: Any, expected: Any) -> None:
    assert came[0] == pytest.approx(expected[0], rel=1e-6, abs=1e-6)
    torch.testing.assert_close(came[1], expected[1], rtol=1e-6, atol=1e-6)
    assert came[2] == pytest.approx(expected[2], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("size", "steps"), [(3, 3), pytest.param(8, 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_one_process(name: str, size: int, steps: int, tmp_path: Path) -> None:
    came = reached(
        name, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=steps
    )
    agree(came, right(name))


def train_in_two(rank: int, world: int, folder: str) -> None:
    # what a launcher sets; the group is there already, and nobody listens at the port
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    results = {}
    for name, averaged in IN_TWO:
        results[name, averaged] = reached(
            name,
            Path(folder),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            ddp_backend="gloo",
            average_tokens_across_devices=averaged,
        )
    times = []
    for steps in (1, 2):  # killed within the epoch, and resumed
        history = sw.LossHistory(ROWS)
        reached(
            "index",
            Path(folder),
            history=history,
            max_steps=steps,
            per_device_train_batch_size=2,
            ddp_backend="gloo",
            save_strategy="steps",
            save_steps=1,
            resume=steps == 2,
        )
        times.append(history.times)
    torch.save((results, times), f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: Any) -> list[Any]:
    folder = tmp_path_factory.mktemp("two")
    ranks.run(train_in_two, 2, str(folder), seconds=120)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_a_killed_history_of_two_processes(of_two: list[Any]) -> None:
    """What each process has seen of the epoch is saved, and counted once after resuming."""
    seen = torch.tensor([1, 0, 1, 1, 1, 1, 1, 1], dtype=torch.int32)  # row 1 has no label
    for _, (killed, resumed) in of_two:
        assert killed.sum() == ROWS // 2
        assert resumed.equal(seen)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "averaged"), IN_TWO)
def test_two_processes(name: str, averaged: bool, of_two: list[Any]) -> None:
    for results, _ in of_two:
        agree(results[name, averaged], right(name))
