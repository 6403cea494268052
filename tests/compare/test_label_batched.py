"""Heads for several labels, trained together, are what they are alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("tqdm")

import sampleweights as sw
from sampleweights.compare import compare, default_label_entries
from sampleweights.compare.training.entries import build
from sampleweights.compare.training.head import Head, Training
from sampleweights.compare.training.label_batched import (
    SharedLabelLoss,
    is_shareable_of_labels,
)

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((190, 5)).astype(np.float32)
TARGET = (FEATURES[:, :3] + RANDOM.standard_normal((190, 3)) > [0, 0.8, 1.2]).astype(np.int64)
COUNTS = torch.from_numpy(np.stack([190 - TARGET.sum(0), TARGET.sum(0)], 1))


def training(entry: Callable[..., Any], seed: int) -> Training:
    criterion, _ = build("row", entry, COUNTS, 6)
    fold = np.arange(190) % 4 == seed % 4
    return Training(criterion, np.flatnonzero(~fold), np.flatnonzero(fold), seed=seed)


def trainings() -> list[Training]:
    """Twice each default row, on folds of 142 and 143 samples."""
    entries = default_label_entries().values()
    return [training(entry, seed) for entry in entries for seed in (1, 2)]


def test_every_default_row_gives_together_what_it_gives_alone() -> None:
    head = Head(FEATURES, TARGET, 3, 6)
    assert all(head.can_share(one) for one in trainings())
    for one, found in zip(trainings(), head.together(trainings()), strict=True):
        alone = head(one.criterion, one.train, one.validation, seed=one.seed)
        np.testing.assert_allclose(found.logits, alone, rtol=0, atol=2e-4)
        assert found.target.shape == found.predicted.shape == (len(one.train), 3)


def test_the_others_change_no_bit() -> None:
    head = Head(FEATURES, TARGET, 3, 6)
    together = head.together(trainings())
    for chosen in ([0], [3, 8], range(4, 12)):
        fewer = head.together([trainings()[i] for i in chosen])
        for i, found in zip(chosen, fewer, strict=True):
            assert np.array_equal(found.logits, together[i].logits)


@pytest.mark.parametrize(
    "entry",
    [
        *default_label_entries().values(),
        lambda n, e: sw.BinaryFocalLoss(1.5, alpha=0.3),
        lambda n, e: sw.BCEWithLogitsLoss(weighter=sw.EffectiveNumber(n)),
        lambda n, e: sw.BCEWithLogitsLoss(weighter=sw.SelfPaced(e)),
        lambda n, e: sw.BinaryFocalLoss(margin=sw.LogitAdjustment(n, tau=0.5)),
    ],
)
def test_gradients_are_those_of_the_criteria(entry: Callable[..., Any]) -> None:
    criteria = [build("row", entry, COUNTS, 6)[0] for _ in range(3)]
    for criterion in criteria:
        if hasattr(criterion, "set_epoch"):
            criterion.set_epoch(1)
    assert all(is_shareable_of_labels(criterion) for criterion in criteria)
    shared = SharedLabelLoss(criteria, 3, torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 3, 8, 3, generator=random) < 0.4).float()
    sizes = np.array([[8, 8, 7], [5, 8, 8]])
    shared.begin_epoch(target, sizes)
    for step in range(2):
        logits = torch.randn(3, 8, 3, generator=random)
        found = shared.gradient(step, logits)
        for run, size in enumerate(sizes[step]):
            leaf = logits[run, :size].clone().requires_grad_()
            criteria[run](leaf, target[step, run, :size]).backward()
            assert leaf.grad is not None
            torch.testing.assert_close(found[run, :size], leaf.grad)
            assert not found[run, size:].any()


@pytest.mark.parametrize(
    "criterion",
    [
        nn.BCEWithLogitsLoss(),
        sw.CrossEntropyLoss(),
        sw.BCEWithLogitsLoss(reduction="sum"),
        sw.BCEWithLogitsLoss(pos_weight=3.0),
        sw.BCEWithLogitsLoss(weight=torch.ones(3)),
        sw.BCEWithLogitsLoss(ignore_index=0),
        sw.BinaryFocalLoss(alpha=[0.1, 0.2, 0.3]),
        sw.BCEWithLogitsLoss(weighter=sw.OHEM(6, per_class=True)),
        sw.BCEWithLogitsLoss(weighter=[sw.ClassBalanced(COUNTS), sw.OHEM(6)]),
    ],
    ids=repr,
)
def test_others_are_trained_alone(criterion: nn.Module) -> None:
    assert not is_shareable_of_labels(criterion)


def test_a_comparison_trains_its_heads_together(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, options = [], {"folds": 2, "num_epochs": 3, "workers": 1, "progress": False}
    original = Head.__call__

    def call(self: Head, criterion: Any, *args: Any, **kwargs: Any) -> Any:
        alone.append(copy.copy(criterion))
        return original(self, criterion, *args, **kwargs)

    together = compare(FEATURES, TARGET, **options)
    monkeypatch.setattr(Head, "__call__", call)
    assert not alone
    entries = {
        name: lambda n, e, entry=entry: Own(build("row", entry, n, e)[0])
        for name, entry in default_label_entries().items()
    }
    one_by_one = compare(FEATURES, TARGET, entries=entries, **options)
    assert len(alone) == 2 * len(entries)
    for row in together.trained:
        np.testing.assert_allclose(together.logits[row], one_by_one.logits[row], rtol=0, atol=2e-4)
        np.testing.assert_allclose(together.train_recall[row], one_by_one.train_recall[row], atol=2)


class Own(nn.Module):
    """A criterion that the library does not know."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> Any:
        return self.criterion(logits, target)

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.criterion, sw.losses.base.Criterion):
            self.criterion.set_epoch(epoch)
