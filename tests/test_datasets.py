"""The data set whose samples say where they stand in it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)

import sampleweights as sw
from sampleweights.counting import class_indices

TARGETS = [0, 0, 2, 1, 0, 2, 0, 1, 0, 0] * 3


class Images(Dataset[Any]):
    """As torchvision's: labels beside the samples, names of the classes."""

    classes = ("cat", "dog", "oak")

    def __init__(self, sample: Callable[[int], Any] = lambda i: (float(i), TARGETS[i])) -> None:
        self.sample, self.reads = sample, 0
        self.targets = TARGETS

    def __len__(self) -> int:
        return len(TARGETS)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.sample(index)


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ((1.0, 2), (1.0, 2, 5)),
        ([1.0, 2], (1.0, 2, 5)),
        ({"image": 1.0, "label": 2}, {"image": 1.0, "label": 2, "index": 5}),
        (1.0, (1.0, 5)),
        ((), (5,)),
    ],
)
def test_the_index_comes_last(sample: Any, expected: Any) -> None:
    dataset = sw.WithIndex(Images(lambda i: sample))
    assert dataset[5] == expected
    assert type(dataset[5]) is type(expected)
    assert dataset[torch.tensor(5)] == dataset[5 - len(TARGETS)] == expected
    assert dataset.__getitems__([5]) == [expected]
    assert len(dataset) == len(TARGETS)
    assert [*dataset][5] == expected  # and it ends


def test_attributes_are_those_of_the_data_set() -> None:
    inner = Images()
    dataset = sw.WithIndex(inner)
    assert dataset.classes == inner.classes
    assert dataset.targets is TARGETS
    with pytest.raises(AttributeError, match="'Images' object has no attribute 'names'"):
        _ = dataset.names
    assert not hasattr(dataset, "__array__")


def module_level(i: int) -> Any:
    return float(i), TARGETS[i]


def test_copies_and_pickles() -> None:
    dataset = sw.WithIndex(Images(module_level))
    for other in (copy.copy(dataset), copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other[7] == dataset[7]
        assert other.classes == dataset.classes


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_in_a_loader_each_sample_keeps_its_index(workers: int) -> None:
    part = random_split(
        sw.WithIndex(Images()), [20, 10], generator=torch.Generator().manual_seed(0)
    )[1]
    chosen = list(part.indices)
    loader = DataLoader(part, 4, shuffle=True, num_workers=workers)
    seen: list[int] = []
    for images, target, index in loader:
        assert images.tolist() == index.tolist()
        assert target.tolist() == [TARGETS[i] for i in index]
        assert index.dtype == torch.int64
        seen += index.tolist()
    assert sorted(seen) == sorted(chosen)


def test_a_batch_is_asked_for_at_once() -> None:
    """As the data sets of Hugging Face are."""

    class Table(Images):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            self.asked = list(indices)
            return [{"label": TARGETS[i]} for i in indices]

    table = Table()
    [batch] = DataLoader(Subset(sw.WithIndex(table), [3, 2, -1]), 3)
    assert batch["index"].tolist() == [3, 2, 29]
    assert batch["label"].tolist() == [1, 2, 0]
    assert table.asked == [3, 2, 29]


def test_a_training_is_recorded() -> None:
    """What the data set is for: LossHistory, and weights by index."""
    inputs, target = torch.randn(30, 4), torch.tensor(TARGETS)
    dataset = sw.WithIndex(TensorDataset(inputs, target))
    history, criterion, model = sw.LossHistory(30), sw.CrossEntropyLoss(), torch.nn.Linear(4, 3)
    for images, labels, index in DataLoader(dataset, 7, shuffle=True):
        with history.record(criterion, index):
            criterion(model(images), labels)
    history.end_epoch()
    expected = torch.nn.functional.cross_entropy(model(inputs), target, reduction="none")
    torch.testing.assert_close(history.scores()["mean_loss"], expected.detach())


class TestCounts:
    """The index, which is a number as the target is, is not counted."""

    counts = torch.tensor(TARGETS).bincount().tolist()

    def check(self, targets: Any, counts: list[int] | None = None) -> None:
        weighter = sw.ClassBalanced.from_targets(targets)
        assert weighter.class_counts.tolist() == (counts or self.counts)

    def test_stored_labels_are_not_read_sample_by_sample(self) -> None:
        inner = Images()
        self.check(sw.WithIndex(inner))
        assert inner.reads <= 6

    @pytest.mark.parametrize("form", ["tuple", "dict"])
    def test_samples(self, form: str) -> None:
        def sample(i: int) -> Any:
            return (
                (torch.zeros(2), TARGETS[i])
                if form == "tuple"
                else {"image": 0.0, "label": TARGETS[i]}
            )

        inner = Images(sample)
        del inner.targets
        dataset = sw.WithIndex(inner)
        self.check(dataset)
        assert class_indices(dataset).tolist() == TARGETS
        self.check(Subset(dataset, range(10)), [6, 2, 2])
        self.check(ConcatDataset([dataset, inner]), [2 * n for n in self.counts])
        self.check(sw.WithIndex(Subset(inner, range(10))), [6, 2, 2])
        for drop_last in (False, True):
            self.check(DataLoader(dataset, 7, drop_last=drop_last))
        self.check(DataLoader(dataset, 7, shuffle=True))
        self.check(DataLoader(dataset, None))
        sampler = sw.WeightedSampler.from_targets(dataset)
        self.check(DataLoader(dataset, 7, sampler=sampler))

    def test_a_collation_of_ones_own_gets_its_index(self) -> None:
        def collate(samples: list[Any]) -> dict[str, Any]:
            images, target, index = zip(*samples, strict=True)
            return {"image": images, "label": torch.tensor(target), "index": torch.tensor(index)}

        self.check(DataLoader(sw.WithIndex(Images()), 7, collate_fn=collate))

    def test_tensors(self) -> None:
        target = torch.tensor(TARGETS)
        self.check(sw.WithIndex(TensorDataset(torch.zeros(30, 2), target)))


def test_what_does_not_fit() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([(0.0, 1)])

        def __len__(self) -> int:
            return 1

    for dataset, name in ((Stream(), "Stream"), (iter([1]), "list_iterator"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"__getitem__ and __len__, got {name}; the samples"):
            sw.WithIndex(dataset)
    dataset = sw.WithIndex(Images())
    with pytest.raises(TypeError, match="index must be a whole number, got slice"):
        dataset[:3]
    with pytest.raises(IndexError, match="index must be from -30 to 29, got 30"):
        dataset[30]
    named = sw.WithIndex(Images(lambda i: {"index": i}))
    with pytest.raises(ValueError, match=r"no key 'index' for WithIndex, got \['index'\]"):
        named[0]
    assert repr(sw.WithIndex([1, 2])) == "WithIndex([1, 2])"
