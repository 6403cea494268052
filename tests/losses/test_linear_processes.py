"""The head's loss under DDP and FSDP2: two processes have the gradients of one, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import fsdp
from torch.nn.parallel import DistributedDataParallel

import sampleweights as sw

VOCABULARY, ROWS, LENGTH = 11, 4, 7
LABELS = ROWS * (LENGTH - 1)
WEIGHTERS = {"none": None, "OHEM": sw.OHEM(schedule=0.5), "Confidence": sw.Confidence()}
CASES = [(tied, name) for tied in (False, True) for name in WEIGHTERS]
HAS_FSDP2 = hasattr(fsdp, "fully_shard")  # from torch 2.6 on


class Model(nn.Module):
    """A language model; with a criterion it returns the loss, without the hidden states."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.lm_head = nn.Linear(6, VOCABULARY, bias=False)
        if tied:
            self.lm_head.weight = self.embedding.weight
        self.criterion: Any = None

    def forward(self, tokens: Tensor, processes: int = 1) -> Tensor:
        hidden: Tensor = self.body(self.embedding(tokens))
        return hidden if self.criterion is None else of(self.criterion, hidden, tokens, processes)


def of(criterion: Any, hidden: Tensor, tokens: Tensor, processes: int) -> Tensor:
    """Each process divides by its share of all labels, since gradients become their mean."""
    loss: Tensor = criterion(hidden[:, :-1], tokens[:, 1:], normalizer=LABELS / processes)
    return loss


def setting(tied: bool) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    return Model(tied).double(), torch.randint(VOCABULARY, (ROWS, LENGTH))


def right(tied: bool, weighter: Any) -> dict[str, Tensor]:
    """The gradients of the full logits in one process, mined in two halves."""
    model, tokens = setting(tied)
    criterion = sw.CrossEntropyLoss(weighter=weighter)
    for part in tokens.chunk(2):
        logits = F.linear(model(part), model.lm_head.weight)[:, :-1]
        loss = criterion(logits.flatten(0, 1), part[:, 1:].flatten(), normalizer=LABELS)
        loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        gradient: Any = parameter.grad
        is_sharded = hasattr(gradient, "full_tensor")
        found[name.removeprefix("module.")] = gradient.full_tensor() if is_sharded else gradient
    return found


def train(rank: int, world: int, folder: str) -> None:
    found = {}
    for tied, name in CASES:

        def new(tied: bool = tied, name: str = name) -> tuple[Any, Any]:
            model, _ = setting(tied)
            weighter = WEIGHTERS[name]
            return model, sw.LinearCrossEntropyLoss.from_linear(model.lm_head, weighter=weighter)

        own = setting(tied)[1].chunk(world)[rank]
        model, model.criterion = new()
        parallel = DistributedDataParallel(model)
        parallel(own, world).backward()
        found["DDP", tied, name] = gradients(parallel)
        model, criterion = new()
        parallel = DistributedDataParallel(model)
        of(criterion, parallel(own), own, world).backward()
        found["DDP, outside", tied, name] = gradients(parallel)
        if not HAS_FSDP2:
            continue
        for reshards in (True, False):
            model, criterion = new()
            fsdp.fully_shard(model.body, reshard_after_forward=reshards)
            fsdp.fully_shard(model, reshard_after_forward=reshards)
            model.criterion = criterion
            model(own, world).backward()
            found[f"FSDP2, {reshards}", tied, name] = gradients(model)
            model.criterion = None
            model.zero_grad()
            hidden = model(own)
            if reshards:
                with pytest.raises(ValueError, match="the head is sharded among processes"):
                    of(criterion, hidden, own, world)
            else:
                of(criterion, hidden, own, world).backward()
                found["FSDP2, outside", tied, name] = gradients(model)
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    ranks.run(train, 2, str(tmp_path), seconds=60)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert len({kind for kind, _, _ in found}) == (5 if HAS_FSDP2 else 2)
        for (_, tied, name), came in found.items():
            expected = right(tied, WEIGHTERS[name])
            assert came.keys() == expected.keys()
            for parameter, gradient in came.items():
                torch.testing.assert_close(gradient, expected[parameter], rtol=1e-9, atol=1e-12)
