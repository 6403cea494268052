"""The head learns without being tuned, from the training rows alone, and the same way each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import sampleweights as sw
from sampleweights.compare.training.head import Head

rng = np.random.default_rng(0)
TARGET = np.repeat([0, 1, 2], [60, 30, 10])
FEATURES = (rng.normal(size=(100, 8)) + 3 * np.eye(8)[TARGET]).astype(np.float32)
TRAIN = np.flatnonzero(np.arange(100) % 5 > 0)
VALIDATION = np.flatnonzero(np.arange(100) % 5 == 0)


def logits(
    features: NDArray[Any] = FEATURES, criterion: Any = None, num_epochs: int = 3, **arguments: Any
) -> NDArray[np.float32]:
    head = Head(features, TARGET, 3, num_epochs)
    return head(criterion or nn.CrossEntropyLoss(), TRAIN, VALIDATION, **arguments)


def test_one_row_of_logits_for_each_validation_sample() -> None:
    result = logits(num_epochs=40)
    assert result.shape == (20, 3)
    assert result.dtype == np.float32
    assert (result.argmax(1) == TARGET[VALIDATION]).mean() > 0.8


def test_validation_rows_change_their_own_logits_alone() -> None:
    changed = FEATURES.copy()
    changed[VALIDATION[4]] += 100
    before, after = logits(), logits(changed)
    rows = np.arange(20) != 4
    assert np.array_equal(before[rows], after[rows])
    assert not np.array_equal(before[4], after[4])


def test_rows_on_neither_side_change_nothing() -> None:
    head = Head(FEATURES, TARGET, 3, 2)
    before = head(nn.CrossEntropyLoss(), TRAIN[10:], VALIDATION)
    features, target = FEATURES.copy(), TARGET.copy()
    features[TRAIN[:10]] *= -50
    target[TRAIN[:10]] = 2
    after = Head(features, target, 3, 2)(nn.CrossEntropyLoss(), TRAIN[10:], VALIDATION)
    assert np.array_equal(before, after)


def test_inputs_are_standardized_over_the_training_rows() -> None:
    shift = rng.normal(size=8, scale=50)
    scale = 10.0 ** rng.integers(-3, 4, size=8)
    moved = (FEATURES * scale + shift * scale).astype(np.float32)
    assert np.allclose(logits(moved), logits(), atol=1e-2)


def test_the_seed_decides_and_nothing_else_does() -> None:
    first = logits(seed=1)
    torch.manual_seed(99)
    assert np.array_equal(logits(seed=1), first)
    assert not np.array_equal(logits(seed=2), first)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    logits()
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


class Recording(nn.Module):
    """Cross-entropy that writes down what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []
        self.targets: list[list[int]] = [[]]
        self.sizes: list[int] = []
        self.device = ""

    def to(self, device: torch.device) -> Recording:  # type: ignore[override]
        self.device = device.type
        return super().to(device)

    def set_epoch(self, epoch: float) -> None:
        self.epochs.append(epoch)
        self.targets.append([])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self.targets[-1] += target.tolist()
        self.sizes.append(len(target))
        return nn.functional.cross_entropy(logits, target)


def test_every_epoch_is_announced_and_sees_every_training_sample() -> None:
    criterion = Recording()
    logits(criterion=criterion, num_epochs=4)
    assert criterion.epochs == [0, 1, 2, 3]
    assert criterion.targets[0] == []  # none before the first epoch
    for targets in criterion.targets[1:]:
        assert sorted(targets) == TARGET[TRAIN].tolist()
    assert criterion.targets[1] != criterion.targets[2]  # in another order


def test_no_batch_is_a_remainder() -> None:
    criterion = Recording()
    Head(FEATURES, TARGET, 3, 1)(criterion, np.arange(97), VALIDATION)
    assert max(criterion.sizes) - min(criterion.sizes) <= 1


class Positions:
    """A sampler that gives the same training samples, and writes down its epochs."""

    def __init__(self, positions: list[int]) -> None:
        self.positions = positions
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)


def test_a_sampler_gives_positions_within_train() -> None:
    criterion, sampler = Recording(), Positions([0, 79, 79])
    logits(criterion=criterion, sampler=sampler, num_epochs=2)
    assert sampler.epochs == [0, 1]
    assert criterion.targets[1:] == [[0, 2, 2], [0, 2, 2]]


def test_the_librarys_sampler_and_torchs() -> None:
    target = TARGET[TRAIN]
    first = logits(sampler=sw.WeightedSampler.from_targets(target, seed=3))
    assert np.array_equal(first, logits(sampler=sw.WeightedSampler.from_targets(target, seed=3)))
    weight = np.ones(len(target)).tolist()
    second = logits(sampler=torch.utils.data.WeightedRandomSampler(weight, 30))
    torch.manual_seed(99)
    third = logits(sampler=torch.utils.data.WeightedRandomSampler(weight, 30))
    assert np.array_equal(second, third)


@pytest.mark.parametrize(
    "criterion",
    [
        lambda: sw.CrossEntropyLoss(weighter=[sw.EffectiveNumber([48, 24, 8]), sw.OHEM(5)]),
        lambda: sw.CrossEntropyLoss(weighter=sw.SelfPaced(5)),
        lambda: sw.CrossEntropyLoss(margin=sw.LogitAdjustment([48, 24, 8])),
        lambda: sw.FocalLoss(),
        lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 6.0])),
    ],
)
def test_any_criterion(criterion: Any) -> None:
    result = logits(criterion=criterion(), num_epochs=5)
    assert np.isfinite(result).all()
    assert not np.array_equal(result, logits(num_epochs=5))


def test_a_function_as_criterion() -> None:
    assert np.array_equal(logits(criterion=nn.functional.cross_entropy), logits())


def test_the_criterion_is_moved_to_the_device() -> None:
    criterion = Recording()
    logits(criterion=criterion)
    assert criterion.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_read_only_memory_map(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", FEATURES)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    target = TARGET.copy()
    target.flags.writeable = False
    head = Head(mapped, target, 3, 3)
    assert np.array_equal(head(nn.CrossEntropyLoss(), TRAIN, VALIDATION), logits())


def test_half_precision_features_are_computed_with_in_single() -> None:
    half = FEATURES.astype(np.float16)
    assert np.array_equal(logits(half), logits(half.astype(np.float32)))


def test_large_half_precision_features_do_not_overflow() -> None:
    half = (FEATURES * 5000).astype(np.float16)  # its squares and sums are beyond float16
    assert np.isfinite(logits(half)).all()


def test_one_feature() -> None:
    result = logits(TARGET[:, None].astype(np.float32), num_epochs=100)
    assert (result.argmax(1) == TARGET[VALIDATION]).all()


@pytest.mark.parametrize("value", [0, 0.1, 12345.678, -1e30])
def test_a_constant_feature_says_nothing(value: float) -> None:
    constant = np.full((100, 1), value, dtype=np.float32)
    changed = constant.copy()
    changed[VALIDATION] = 2 * value + 1
    first = logits(np.hstack([FEATURES, constant]))
    assert np.isfinite(first).all()
    assert np.array_equal(first, logits(np.hstack([FEATURES, changed])))


def test_only_constant_features() -> None:
    result = logits(np.ones((100, 3), dtype=np.float32), num_epochs=100)
    assert np.isfinite(result).all()
    assert (result.argmax(1) == 0).all()  # the most frequent class


def test_a_value_far_from_all_of_training_is_limited() -> None:
    features = FEATURES.copy()
    features[TRAIN, 7] = 0
    features[TRAIN[0], 7] = 1e-3  # all but constant
    features[VALIDATION, 7] = 1e6
    assert np.abs(logits(features)).max() < 50


def test_very_few_samples() -> None:
    features, target = FEATURES[[0, 1, 99]], TARGET[[0, 1, 99]]
    head = Head(features, target, 3)
    result = head(nn.CrossEntropyLoss(), np.array([0, 2]), np.array([1]))
    assert np.isfinite(result).all()
    assert head(nn.CrossEntropyLoss(), np.array([0]), np.array([], dtype=np.int64)).shape == (0, 3)


@pytest.mark.parametrize(
    ("size", "num_epochs"), [(100, 100), (3000, 42), (10_015, 25), (1_000_000, 25)]
)
def test_the_number_of_epochs_follows_from_the_number_of_samples(
    size: int, num_epochs: int
) -> None:
    features = np.broadcast_to(np.zeros(1, dtype=np.float32), (size, 1))
    head = Head(features, np.zeros(size, dtype=np.int64), 2)
    assert head.num_epochs == num_epochs
    assert Head(features, np.zeros(size, dtype=np.int64), 2, 7).num_epochs == 7


def test_a_long_tail_of_digits() -> None:
    """1 to 60, without weights: right on most, and after post-hoc adjustment on every class."""
    features, target = load_digits(return_X_y=True)
    train, validation = train_test_split(
        np.arange(len(target)), test_size=0.5, stratify=target, random_state=0
    )
    counts = np.geomspace(86, 86 / 60, 10).round().astype(int)
    train = np.concatenate([train[target[train] == c][:n] for c, n in enumerate(counts.tolist())])
    head = Head(features.astype(np.float32), target, 10)
    result = torch.from_numpy(head(nn.CrossEntropyLoss(), train, validation))
    adjusted = sw.LogitAdjustment(counts.tolist()).posthoc(result)
    right = {
        name: (values.argmax(1).numpy() == target[validation]).mean()
        for name, values in (("plain", result), ("adjusted", adjusted))
    }
    assert right["plain"] > 0.6  # the classes are balanced here: accuracy is balanced accuracy
    assert right["adjusted"] > 0.75
