"""Batches of P classes with m samples each: what is in them, by how many processes, from where."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

import sampleweights as sw

LONG_TAIL = [0] * 40 + [1] * 13 + [2] * 6 + [3] * 2 + [5]  # no sample of class 4
labels = st.lists(st.sampled_from([-100, 0, 1, 2, 3, 7]), min_size=1, max_size=60).filter(
    lambda found: max(found) >= 0
)


def batches(sampler: sw.ClassBatchSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@settings(deadline=None)
@given(st.data(), labels, st.integers(1, 5), st.integers(0, 3))
def test_every_batch_has_so_many_of_so_many(
    data: st.DataObject, targets: list[int], of_each: int, epoch: int
) -> None:
    sizes = Counter(y for y in targets if y >= 0)
    classes = data.draw(st.none() | st.integers(1, len(sizes)))
    sampler = sw.ClassBatchSampler(targets, classes, of_each)
    found = batches(sampler, epoch)
    per_batch = classes or len(sizes)
    assert len(found) == len(sampler) == max(sizes.total() // (per_batch * of_each), 1)
    for batch in found:
        drawn = Counter(targets[i] for i in batch)
        assert -100 not in drawn
        assert list(drawn.values()) == [of_each] * per_batch
        for label, size in sizes.items():
            times = Counter(i for i in batch if targets[i] == label)
            if label in drawn:  # different ones, or each of them as often as any other
                assert len(times) == min(size, of_each)
                assert max(times.values()) - min(times.values()) <= (of_each % size != 0)
                assert max(times.values()) == -(-of_each // size)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 30), st.integers(1, 5))
def test_interleaved_the_processes_are_one(
    classes: int, of_each: int, num_batches: int, world: int
) -> None:
    def create(**options: Any) -> sw.ClassBatchSampler:
        options = {"num_batches": num_batches, **options}
        return sw.ClassBatchSampler(LONG_TAIL, classes, of_each, seed=7, **options)

    parts = []
    for rank in range(world):
        sampler = create(num_replicas=world, rank=rank)
        parts.append(batches(sampler, 2))
        assert len(sampler) == len(parts[-1]) == -(-num_batches // world)
    together = [batch for turn in zip(*parts, strict=True) for batch in turn]
    assert together[:num_batches] == batches(create(), 2)
    # what is drawn in excess is what a longer epoch would go on with
    assert together == batches(create(num_batches=len(together)), 2)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 20), st.integers(1, 3), st.integers(1, 3))
def test_resumed_in_mid_epoch(drawn: int, world: int, later: int) -> None:
    def create(rank: int, world: int, seed: int = 3) -> sw.ClassBatchSampler:
        return sw.ClassBatchSampler(LONG_TAIL, 3, 2, 20, seed=seed, num_replicas=world, rank=rank)

    alone, before = batches(create(0, 1), 2), create(0, world)
    before.set_epoch(2)
    drawn = min(drawn, len(before))
    assert len(list(itertools.islice(before, drawn))) == drawn
    state = before.state_dict()
    assert state == {"seed": 3, "epoch": 2, "position": drawn * world}
    parts = []
    for rank in range(later):
        resumed = create(rank, later, seed=0)
        resumed.load_state_dict(copy.deepcopy(state))
        assert resumed.state_dict() == state
        resumed.set_epoch(2)
        assert len(resumed) == -(-max(20 - drawn * world, 0) // later)
        parts.append(list(resumed))
    together = [batch for turn in zip(*parts, strict=True) for batch in turn]
    assert together[: len(alone[drawn * world :])] == alone[drawn * world :]
    assert batches(resumed, 3) == batches(create(later - 1, later), 3)


def test_a_class_is_seen_whole_before_a_sample_is_seen_again() -> None:
    targets = [0] * 12 + [1] * 6 + [2] * 3
    seen = batches(sw.ClassBatchSampler(targets, None, 3, 4))
    assert sorted(i for batch in seen for i in batch if targets[i] == 0) == list(range(12))
    for pair in (seen[:2], seen[2:]):
        assert sorted(i for b in pair for i in b if targets[i] == 1) == list(range(12, 18))
    for batch in seen:
        assert sorted(i for i in batch if targets[i] == 2) == [18, 19, 20]


def test_a_round_has_each_class_once() -> None:
    targets = np.arange(60) % 7
    seen = batches(sw.ClassBatchSampler(targets, 2, 4, 30))
    for turn in range(10):  # 3 batches of 2 classes; the seventh waits for another round
        drawn = [int(targets[i]) for batch in seen[3 * turn : 3 * turn + 3] for i in batch]
        assert list(Counter(drawn).values()) == [4] * 6
    left_out = [
        ({*range(7)} - {int(targets[i]) for b in seen[3 * turn : 3 * turn + 3] for i in b}).pop()
        for turn in range(10)
    ]
    assert len(set(left_out)) > 2


def test_all_samples_of_a_class_are_drawn_equally_often() -> None:
    """Also the last ones of a class whose size is no multiple of m."""
    sampler = sw.ClassBatchSampler([0] * 5 + [1] * 3 + [2] * 9, 2, 2, 10)
    times = np.zeros(17)
    for epoch in range(300):
        for batch in batches(sampler, epoch):
            times[batch] += 1
    for part in (times[:5], times[5:8], times[8:]):
        assert part.sum() == pytest.approx(300 * 10 * 2 * 2 / 3, rel=0.03)
        assert part == pytest.approx(part.mean(), rel=0.15)


def test_epochs_and_seeds_differ() -> None:
    sampler = sw.ClassBatchSampler(LONG_TAIL, 3, 4)
    first = batches(sampler)
    assert batches(sampler, 1) != first
    assert batches(sampler, 0) == first
    assert batches(sw.ClassBatchSampler(LONG_TAIL, 3, 4, seed=1)) != first
    twice = sw.ClassBatchSampler(LONG_TAIL, 3, 4)
    assert list(twice) == first
    with pytest.warns(UserWarning, match=r"set_epoch\(epoch\) of ClassBatchSampler before every"):
        again = list(twice)
    assert again == first
    assert list(pickle.loads(pickle.dumps(sw.ClassBatchSampler(LONG_TAIL, 3, 4)))) == first


def data() -> TensorDataset:
    return TensorDataset(torch.arange(len(LONG_TAIL)), torch.tensor(LONG_TAIL))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_as_the_batch_sampler_of_a_loader(workers: int) -> None:
    sampler = sw.ClassBatchSampler(data(), 4, 2)  # reads the data set's targets
    expected = [batches(sampler, epoch) for epoch in (0, 1)]
    loader = DataLoader(data(), batch_sampler=sampler, num_workers=workers)
    assert len(loader) == len(expected[0])
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        found = [(index.tolist(), target.tolist()) for index, target in loader]
        assert [index for index, _ in found] == expected[epoch]
        assert all(Counter(target).most_common()[-1][1] == 2 for _, target in found)


def test_class_counts_of_a_loader_are_those_of_the_data_set() -> None:
    targets = torch.tensor(LONG_TAIL)
    sampler = sw.ClassBatchSampler(targets, 4, 2)
    weighter = sw.ClassBalanced.from_targets(DataLoader(data(), batch_sampler=sampler))
    assert weighter.class_counts.tolist() == targets.bincount().tolist()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_a_stateful_loader(workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def create() -> tuple[sw.ClassBatchSampler, Any]:
        sampler = sw.ClassBatchSampler(LONG_TAIL, 3, 2, 12)
        loader = stateful.StatefulDataLoader(data(), batch_sampler=sampler, num_workers=workers)
        return sampler, loader

    sampler, whole = create()
    sampler.set_epoch(1)
    expected = [index.tolist() for index, _ in whole]
    sampler, part = create()
    sampler.set_epoch(1)
    iterator = iter(part)
    assert [next(iterator)[0].tolist() for _ in range(5)] == expected[:5]
    state = part.state_dict()
    sampler, rest = create()
    rest.load_state_dict(state)
    sampler.set_epoch(1)
    assert [index.tolist() for index, _ in rest] == expected[5:]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((6, 2), ValueError, r"classes_per_batch must be at most .* \(5\), got 6"),
        ((0, 2), ValueError, "classes_per_batch must be at least 1, got 0"),
        ((2, 0), ValueError, "samples_per_class must be at least 1, got 0"),
        ((2, 1.5), TypeError, "samples_per_class must be a whole number, got 1.5"),
        ((2, 2, 0), ValueError, "num_batches must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sw.ClassBatchSampler(LONG_TAIL, *arguments)


def test_bad_targets() -> None:
    for targets, message in (
        ([-100, -100], "at least one class index, got none"),
        ([-1, 0, 1], "class indices from 0, got -1"),
        ([[0, 1], [1, 0]], r"one class index for each sample, got shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            sw.ClassBatchSampler(torch.tensor(targets), 1, 1)
    sampler = sw.ClassBatchSampler([255, 0, 0, 1, 255], None, 1, ignore_index=255)
    assert sampler.indices.tolist() == [1, 2, 3]
    assert (sampler.classes_per_batch, sampler.samples_per_class, sampler.batch_size) == (2, 1, 2)
