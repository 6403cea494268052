"""Counts of what people hold: each form gives the counts of its samples, or an error."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import sampleweights as sw
from sampleweights.counting import class_indices, count_classes

TARGET = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0] * 2 + [0] * 7  # 20 of class 0... see COUNTS
COUNTS = [TARGET.count(0), TARGET.count(1)]


class Samples(Dataset[Any]):
    """Has a length and, as pandas or a loop around the end have it, no IndexError."""

    def __init__(self, make: Callable[[int], Any] = lambda i: (torch.zeros(2), TARGET[i])) -> None:
        self.make, self.reads = make, 0

    def __len__(self) -> int:
        return len(TARGET)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        assert self.reads <= 10 * len(TARGET), "reads for ever"
        return self.make(index % len(TARGET))


class Stored(Samples):
    """Keeps its labels as torchvision's data sets do."""

    def __init__(self, targets: Any, make: Callable[[int], Any] | None = None, **more: Any) -> None:
        super().__init__(*([] if make is None else [make]))
        self.__dict__ |= {"targets": targets, **more}


def vector(index: int) -> Tensor:
    return torch.tensor([float(TARGET[index]), 1.0, 1.0])


FORMS: dict[str, Any] = {
    "data set without an end": Samples(),
    "an index before names": Samples(lambda i: (torch.zeros(2), TARGET[i], f"{i}.png")),
    "names before the target": Samples(lambda i: (torch.zeros(2), f"{i}.png", TARGET[i])),
    "label": Samples(lambda i: {"image": torch.zeros(2), "label": TARGET[i]}),
    "a mapping of all": {"label": TARGET, "image": None},
    "booleans": [bool(y) for y in TARGET],
    "boolean array": np.array(TARGET, bool),
    "column of labels": np.array(TARGET)[:, None],
    "sparse": torch.tensor(TARGET).to_sparse(),
    "stored": Stored(TARGET),
    "stored as labels": Stored(None, labels=np.array(TARGET)),
    "a concatenation": ConcatDataset(
        [Subset(Stored(TARGET), range(9)), Subset(Samples(), range(9, 27))]
    ),
    "stored, a subset": Subset(Stored(TARGET), range(27)),
    "floating labels of a sigmoid": torch.tensor(TARGET, dtype=torch.float32)[:, None],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    assert count_classes(FORMS[form]).tolist() == COUNTS
    assert class_indices(FORMS[form]).tolist() == TARGET


def test_data_sets_that_are_indexed_by_label() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"y": TARGET})

    class Located(Samples):
        def __getitem__(self, index: int) -> Any:
            return 0, table["y"].loc[index]

    assert count_classes(Located()).tolist() == COUNTS


@pytest.mark.parametrize(
    "sample",
    [
        lambda i: (torch.zeros(2), TARGET[i], i),
        lambda i: (torch.zeros(2), torch.tensor(TARGET[i]), torch.tensor(i)),
        lambda i: (torch.zeros(2), vector(i), i),
        lambda i: [torch.zeros(2), torch.tensor(TARGET[i]), torch.tensor(i)],
    ],
)
def test_an_index_behind_the_target_is_not_counted(sample: Callable[[int], Any]) -> None:
    for count in (count_classes, class_indices):
        with pytest.raises(ValueError, match=r"tuples of 3 .* as in \(data\[i\]\[1\] for i in"):
            count(Samples(sample))
    loader = DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4).long(), torch.arange(4)), 2)
    with pytest.raises(ValueError, match="tuples of 3"):
        count_classes(loader)


def test_two_names_of_the_target() -> None:
    with pytest.raises(ValueError, match=r"one key of .* got \['label', 'target'\]"):
        count_classes([{"target": 1, "label": 0}])


class TestStored:
    def test_the_samples_are_not_all_read(self) -> None:
        for whole in (Stored(TARGET), Stored(torch.tensor(TARGET))):
            for data in (whole, Subset(whole, range(1, 27))):
                whole.reads = 0
                left = TARGET[27 - len(data) :]
                assert count_classes(data).tolist() == [left.count(0), left.count(1)]
                assert whole.reads <= 4  # the first and the last of each class

    @pytest.mark.parametrize(
        ("targets", "make"),
        [
            (TARGET, lambda i: (0, 1 - TARGET[i])),  # a target_transform
            ([y + 5 for y in TARGET], lambda i: (0, 1 - TARGET[i])),
            (TARGET[:-1], lambda i: (0, 1 - TARGET[i])),  # of another length
            (["no.png"] * 27, lambda i: (0, 1 - TARGET[i])),
            (np.zeros((27, 2), int), lambda i: (0, 1 - TARGET[i])),
        ],
    )
    def test_what_the_samples_say_counts(self, targets: Any, make: Callable[[int], Any]) -> None:
        assert count_classes(Stored(targets, make)).tolist() == COUNTS[::-1]

    def test_a_subset_counts_its_own(self) -> None:
        chosen = [i for i, y in enumerate(TARGET) if y == 1] + [0]
        assert count_classes(Subset(Stored(TARGET), chosen)).tolist() == [1, COUNTS[1]]

    def test_torchvision(self) -> None:
        torchvision = pytest.importorskip("torchvision")
        data = torchvision.datasets.FakeData(27, (3, 2, 2), 3)
        expected = np.bincount([int(target) for _, target in data], minlength=3).tolist()
        assert count_classes(data, 3).tolist() == expected


class Chosen(Sampler[int]):
    def __init__(self, indices: Any) -> None:
        self.indices_of_mine = indices

    def __iter__(self) -> Any:
        return iter(self.indices_of_mine)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(0, y) for y in TARGET])


def loaders() -> dict[str, DataLoader[Any]]:
    data = TensorDataset(torch.zeros(27, 2), torch.tensor(TARGET))
    weight = [1.0 + 9 * y for y in TARGET]
    return {
        "resampled": DataLoader(data, 4, sampler=WeightedRandomSampler(weight, 27)),
        "resampled by ours": DataLoader(data, 4, sampler=sw.WeightedSampler(weight)),
        "drop_last": DataLoader(data, 4, drop_last=True),
        "shuffled, drop_last": DataLoader(data, 4, shuffle=True, drop_last=True),
        "a part of an epoch": DataLoader(data, 4, sampler=RandomSampler(data, num_samples=3)),
        "one process of two": DataLoader(data, 4, sampler=DistributedSampler(data, 2, 0)),
        "batches of a sampler": DataLoader(
            data, batch_sampler=BatchSampler(RandomSampler(data), 4, True)
        ),
        "a permutation": DataLoader(data, 4, sampler=Chosen(range(26, -1, -1)), drop_last=True),
        "batches of one's own": DataLoader(data, batch_sampler=[[*range(20, 27)], [*range(20)]]),
        "no batches": DataLoader(data, None, shuffle=True),
        "a stream": DataLoader(Stream(), 4, drop_last=True),
        "a subset": DataLoader(Subset(data, range(27)), 4, shuffle=True, drop_last=True),
    }


class TestLoaders:
    @pytest.mark.parametrize("name", loaders())
    def test_each_sample_counts_once(self, name: str) -> None:
        before = torch.get_rng_state()
        assert count_classes(loaders()[name]).tolist() == COUNTS
        assert torch.get_rng_state().equal(before)

    def test_a_sampler_of_a_part_counts_the_part(self) -> None:
        data = TensorDataset(torch.zeros(27, 2), torch.tensor(TARGET))
        part = [0, 1, 2, 6, 26]
        loader = DataLoader(data, 2, sampler=SubsetRandomSampler(part), drop_last=True)
        assert count_classes(loader).tolist() == [3, 2]
        weight = torch.zeros(27).index_fill(0, torch.tensor(part), 1.0)
        loader = DataLoader(data, 2, sampler=WeightedRandomSampler(weight, 50))
        assert count_classes(loader).tolist() == [3, 2]

    @pytest.mark.parametrize("sampler", [[1, 1, 2], range(5), itertools.cycle(range(27)), [0] * 27])
    def test_an_unknown_choice_is_an_error(self, sampler: Any) -> None:
        data = TensorDataset(torch.zeros(27, 2), torch.tensor(TARGET))
        with pytest.raises(ValueError, match="DataLoader whose Chosen chooses among them"):
            count_classes(DataLoader(data, 4, sampler=Chosen(sampler)))

    def test_batches_with_one_of_a_class_are_no_one_hot_labels(self) -> None:
        loader = DataLoader(TensorDataset(torch.zeros(6), torch.tensor([0, 1, 1, 0, 0, 1])), 2)
        assert count_classes(loader).tolist() == [3, 3]

    def test_what_the_collate_function_makes_counts(self) -> None:
        data = [(i, "name", y) for i, y in enumerate(TARGET)]
        loader = DataLoader(
            data,  # type: ignore[arg-type]
            4,
            shuffle=True,
            collate_fn=lambda batch: {"label": torch.tensor([1 - item[2] for item in batch])},
        )
        assert count_classes(loader).tolist() == COUNTS[::-1]


class TestOneHot:
    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float32])
    def test_is_an_error_in_every_layout(self, dtype: torch.dtype) -> None:
        target = torch.tensor(TARGET)
        for classes in (2, 3):
            rows = torch.nn.functional.one_hot(target, classes).to(dtype)
            maps = rows.reshape(3, 9, classes)
            for labels, dim in [
                (rows, 1),
                (list(rows), 0),
                (rows.tolist(), 0),
                ([(0, row) for row in rows], 0),
                (maps.movedim(-1, 1), 1),
                (maps, 2),
                (list(maps.reshape(3, 3, 3, classes).movedim(-1, 1)), 0),
            ]:
                if dtype is torch.float32 and isinstance(labels[0], list):
                    continue
                with pytest.raises(ValueError, match=rf"one-hot .* argmax\({dim}\)"):
                    count_classes(labels)

    def test_labels_of_which_a_sample_has_several(self) -> None:
        labels = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
        for dtype in (torch.int64, torch.bool, torch.float32, torch.bfloat16):
            assert count_classes(labels.to(dtype)).tolist() == [6, 3]
            assert count_classes([(0, row) for row in labels.to(dtype)]).tolist() == [6, 3]

    def test_masks_are_no_one_hot_labels(self) -> None:
        masks = [torch.tensor([[0, 0, 1], [1, 1, 0]]), torch.tensor([[0, 1, 0], [1, 1, 1]])]
        assert count_classes(masks).tolist() == [5, 7]
        assert count_classes(torch.tensor([[0, 1], [0, 1]])).tolist() == [2, 2]
        assert count_classes([0, 1]).tolist() == [1, 1]


class TestMissing:
    @pytest.mark.parametrize(
        "targets",
        [
            [1, 0, None],
            [1, 0, float("nan")],
            np.array([1.0, 0.0, np.nan]),
            np.ma.masked_array([1, 0, 1], [False, False, True]),
            [(0, 1), (0, None), (0, 1)],
            torch.tensor([[1.0, 0.0], [1.0, torch.nan]]),
        ],
    )
    def test_is_named(self, targets: Any) -> None:
        for count in (count_classes, class_indices):
            if isinstance(targets, Tensor) and count is class_indices:
                continue
            with pytest.raises(ValueError, match=r"a class for every sample, got 1 missing"):
                count(targets)

    def test_labels_that_nobody_gave(self) -> None:
        labels = torch.tensor([[1.0, 0.0], [1.0, torch.nan], [0.0, 0.0]])
        assert count_classes(labels, ignore_index=float("nan")).tolist() == [3, 2]
        assert count_classes(labels.nan_to_num(-1), ignore_index=-1).tolist() == [3, 2]

    def test_floating_class_indices_say_what_to_do(self) -> None:
        for targets in ([0.0, 2.0], np.array([0.0, 2.0]), torch.tensor([[0.0, 2.0]])):
            with pytest.raises(ValueError, match=r"got dtype torch.float\d\d; if .* \.long\(\)"):
                count_classes(targets)


def test_nested_tensors() -> None:
    parts = [torch.tensor([0, 1]), torch.tensor([2])]
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged)
    assert count_classes(nested).tolist() == [1, 1, 1]


def test_a_sampler_needs_one_class_for_each_sample() -> None:
    several = Samples(lambda i: (torch.zeros(2), torch.tensor([0, TARGET[i]])))
    with pytest.raises(ValueError, match="one class index for each sample, got 54 for 27"):
        sw.WeightedSampler.from_targets(several)


class TestTables:
    def test_pandas(self) -> None:
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame({"id": range(27), "label": TARGET})
        assert count_classes(table).tolist() == COUNTS
        counts = table["label"].value_counts().reset_index()
        assert sw.ClassBalanced(counts).class_counts.tolist() == COUNTS
        with pytest.raises(ValueError, match=r"a Series named 'count', as of value_counts\(\)"):
            count_classes(table["label"].value_counts())
        for missing in (
            pandas.Series([1, 0, None]),
            pandas.Series([1, 0, None], dtype="Int64"),
            pandas.Series([1, 0, None], dtype=object),
        ):
            with pytest.raises(ValueError, match="got 1 missing"):
                count_classes(missing)

    def test_polars(self) -> None:
        polars = pytest.importorskip("polars")
        labels = polars.Series("label", TARGET)
        table = polars.DataFrame({"id": range(27), "label": labels})
        assert count_classes(table).tolist() == count_classes(labels).tolist() == COUNTS
        some = polars.Series("label", [2] * 5 + [0] * 9)  # none of class 1
        for counts in (some.value_counts(), some.to_frame().group_by("label").len()):
            assert sw.ClassBalanced(counts).class_counts.tolist() == [9, 0, 5]
            for column in (counts[counts.columns[1]], counts.sort("label")[counts.columns[1]]):
                with pytest.raises(ValueError, match="with their classes, got the column"):
                    sw.ClassBalanced(column)
        with pytest.raises(ValueError, match="got 1 missing"):
            count_classes(polars.Series([1, 0, None]))
        twice = polars.DataFrame({"label": [0, 1, 0], "count": [1, 2, 3]})
        with pytest.raises(ValueError, match="each class once, got 0 twice"):
            sw.ClassBalanced(twice)

    def test_datasets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"id": list(range(27)), "label": TARGET})

        def never(self: Any) -> Any:
            raise AssertionError("row by row takes 100 times as long")

        for form in (None, "torch", "numpy"):
            table = data.with_format(form)
            assert count_classes(table).tolist() == COUNTS
            assert class_indices(table["label"]).tolist() == TARGET
            with monkeypatch.context() as patch:
                patch.setattr(datasets.Dataset, "__iter__", never)
                assert count_classes(table["label"]).tolist() == COUNTS
        other = data.with_transform(lambda rows: {"label": [1 - y for y in rows["label"]]})
        assert count_classes(other).tolist() == COUNTS[::-1]
        assert count_classes(data.to_iterable_dataset()).tolist() == COUNTS
        loader = DataLoader(data.with_format("torch"), 4, shuffle=True, drop_last=True)
        assert count_classes(loader).tolist() == COUNTS

    def test_tensordict(self) -> None:
        tensordict = pytest.importorskip("tensordict")
        batch = tensordict.TensorDict({"label": torch.tensor(TARGET)}, batch_size=27)
        assert count_classes(batch).tolist() == count_classes(list(batch)).tolist() == COUNTS


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", ">i4", ">u2", ">f4"])
def test_numbers_that_torch_does_not_calculate_with(dtype: str) -> None:
    labels = np.array([0, 1, 1], dtype=dtype)
    assert count_classes(labels).tolist() == [1, 2]
    assert class_indices(labels).tolist() == [0, 1, 1]


def test_tables() -> None:
    pd = pytest.importorskip("pandas")
    labels = pd.Series([0, 0, 2, 1], name="diagnosis")
    with pytest.raises(ValueError, match=r"must be its column .* got \['diagnosis', 'count'\]"):
        count_classes(labels.value_counts().reset_index())  # would be 8 labels
    with pytest.raises(ValueError, match="must be its column"):
        count_classes(pd.DataFrame({"age": [30, 40], "diagnosis": [0, 1]}))
    assert count_classes(pd.DataFrame({"a": [1, 0], "b": [1, 1]})).tolist() == [1, 3]
    assert count_classes(pd.DataFrame([[0, 2], [2, 2]])).tolist() == [1, 0, 3]  # a map
    with pytest.raises(ValueError, match="got 1 missing"):
        count_classes(pd.Series([True, None], dtype="boolean"))


def test_a_table_of_pyarrow_is_no_data_set_of_its_columns() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"row": [0, 1], "label": [2, 2]})
    assert count_classes(table).tolist() == [0, 0, 2]
    assert class_indices(table).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [(torch.int64, -100), (torch.float32, -100), (torch.float32, float("nan"))],
)
def test_one_hot_labels_of_which_some_samples_are_ignored(
    dtype: torch.dtype, missing: float
) -> None:
    labels = torch.eye(3, dtype=dtype).repeat(4, 1)
    labels[[2, 5]] = torch.tensor(missing).to(dtype)
    for targets in (labels, [*labels], DataLoader(TensorDataset(labels, labels), 5)):
        with pytest.raises(ValueError, match="got a single 1 among 3 values along .*argmax"):
            count_classes(targets, ignore_index=missing)
    labels[0, 1] = missing  # of many labels one may be missing: no one-hot has that
    assert count_classes(labels, ignore_index=missing).tolist() == [19, 10]


@pytest.mark.parametrize("labels", [[True, 1, 0, 2], [0, True], [(0.5, True), (0.5, 1)]])
def test_booleans_among_class_indices(labels: list[Any]) -> None:
    with pytest.raises(ValueError, match="class indices or booleans, got both"):
        count_classes(labels)
