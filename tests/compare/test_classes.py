"""What comes out under a name is what was measured on the samples of that name."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from matplotlib.figure import Figure  # noqa: E402

from sampleweights.__main__ import main  # noqa: E402
from sampleweights.compare import Comparison, compare, comparing, default_entries  # noqa: E402
from sampleweights.compare.inputs import images  # noqa: E402
from sampleweights.compare.inputs.classes import classes  # noqa: E402

DIGITS = [str(i) for i in range(12)]  # as text they are 0, 1, 10, 11, 2 ...
WORDS = ["nv", "mel", "bkl", "bcc", "akiec", "df", "vasc", "NA", "é", "a b", "10", "2"]


class Grade(enum.IntEnum):
    LOW = 0
    HIGH = 1


TEXT: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "bytes": lambda v: np.char.encode(np.array(v), "utf-8"),
    "list of bytes": lambda v: [s.encode() for s in v],
    "objects": lambda v: np.array(v, dtype=object),
    "strings of NumPy": lambda v: [np.str_(s) for s in v],
    "Series": pd.Series,
    "strings of pandas": lambda v: pd.Series(v, dtype="string"),
    "Index": pd.Index,
    "Categorical": lambda v: pd.Categorical(v, categories=["never", *sorted({*v})[::-1], "x"]),
    "Series of categories": lambda v: pd.Series(v, dtype="category").cat.add_categories("never"),
}
NUMBERS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "int64": np.array,
    "uint8": lambda v: np.array(v, dtype=np.uint8),
    "float32": lambda v: np.array(v, dtype=np.float32),
    "float16": lambda v: np.array(v, dtype=np.float16),
    "objects": lambda v: np.array(v, dtype=object),
    "mixed objects": lambda v: [np.int64(i) if i % 2 else float(i) for i in v],
    "Series": pd.Series,
    "Int64": lambda v: pd.Series(v, dtype="Int64"),
    "Float64": lambda v: pd.Series(v, dtype="Float64"),
    "categories": lambda v: pd.Series(pd.Categorical(v, categories=[99, *sorted({*v})[::-1]])),
    "tensor": torch.tensor,
    "tensors": lambda v: [torch.tensor(i) for i in v],
    "int32 tensor": lambda v: torch.tensor(v, dtype=torch.int32),
    "bfloat16": lambda v: torch.tensor(v, dtype=torch.bfloat16),
    "masked": np.ma.masked_array,
}


# --------------------------------------------------------------------------------------------
# One function
# --------------------------------------------------------------------------------------------


@given(st.permutations(WORDS), st.integers(2, 12), st.sampled_from([*TEXT]), st.randoms())
def test_text_is_its_own_name(
    words: list[str], count: int, kind: str, random: random.Random
) -> None:
    labels = words[:count] * 2
    random.shuffle(labels)
    index, names = classes(TEXT[kind](labels))
    assert names == sorted({*labels})
    assert [names[i] for i in index] == labels
    index, names = classes(TEXT[kind](labels), words[:count])  # an order
    assert names == words[:count]
    assert [names[i] for i in index] == labels
    index, names = classes(TEXT[kind](labels), {word: f"the {word}" for word in words})
    assert names == [f"the {label}" for label in sorted({*labels})]
    assert [names[i] for i in index] == [f"the {label}" for label in labels]


@given(
    st.lists(st.integers(0, 200), min_size=2, max_size=12, unique=True),
    st.permutations(DIGITS),
    st.sampled_from([*NUMBERS]),
    st.randoms(),
)
def test_numbers_are_named_by_position_or_by_key(
    values: list[int], words: list[str], kind: str, random: random.Random
) -> None:
    labels = values * 2
    random.shuffle(labels)
    given = NUMBERS[kind](labels)
    ordered = sorted(values)
    index, names = classes(given)
    assert names == [str(value) for value in ordered]
    assert [names[i] for i in index] == [str(label) for label in labels]

    name_of = dict(zip(ordered, words, strict=False))  # digits that are not the labels'
    index, names = classes(given, words[: len(values)])
    assert names == words[: len(values)]
    assert [names[i] for i in index] == [name_of[label] for label in labels]

    further = {1000: "never", **dict(sorted(name_of.items(), key=lambda _: random.random()))}
    for mapping in (further, {str(key): name for key, name in further.items()}):
        index, names = classes(given, mapping)
        assert [names[i] for i in index] == [name_of[label] for label in labels]


@pytest.mark.parametrize(
    "target",
    [
        [False, True, True],
        np.array([False, True, True]),
        torch.tensor([False, True, True]),
        pd.Series([False, True, True], dtype="boolean"),
        np.array([False, True, True], dtype=object),
    ],
)
def test_booleans(target: Any) -> None:
    assert classes(target) == (pytest.approx([0, 1, 1]), ["False", "True"])
    assert classes(target, ["no", "yes"])[1] == ["no", "yes"]
    for keys in ((False, True), (0, 1), ("0", "1"), ("False", "True")):
        mapping = dict(zip(keys, ("no", "yes"), strict=True))
        assert classes(target, mapping)[1] == ["no", "yes"]
    assert classes([0, 1, 1], {True: "yes", False: "no"})[1] == ["no", "yes"]


def test_ordered_categories_keep_their_order() -> None:
    order = ["mild", "never", "severe", "fatal"]
    target = pd.Categorical(["fatal", "mild", "severe"], categories=order, ordered=True)
    index, names = classes(pd.Series(target))
    assert names == ["mild", "severe", "fatal"]
    assert index.tolist() == [2, 0, 1]


def test_enums_are_their_values() -> None:
    assert classes([Grade.HIGH, Grade.LOW])[1] == ["0", "1"]


def test_other_labels_that_can_be_sorted() -> None:
    days = pd.to_datetime(["2026-03-01", "2025-12-31", "2026-03-01"])
    for target in (days, days.to_numpy(), days.tz_localize("UTC"), list(days.date)):
        index, names = classes(target)
        assert index.tolist() == [1, 0, 1]
        assert names[0].startswith("2025-12-31")


@pytest.mark.parametrize(
    "target",
    [
        ["a", None, "b"],
        ["a", float("nan"), "b"],  # NumPy makes the text "nan" of it
        ["a", pd.NA, "b"],
        [0, float("nan"), 1],
        torch.tensor([0, float("nan"), 1]),
        np.ma.masked_array([0, 1, 2], [False, True, False]),
        pd.Series([0, None, 1], dtype="Int64"),
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Categorical(["a", None, "b"]),
        pd.to_datetime(["2026-03-01", None, "2026-03-02"]),
    ],
)
def test_a_missing_label_is_named(target: Any) -> None:
    with pytest.raises(ValueError, match=r"target must have no missing values.* sample 1 "):
        classes(target)


@pytest.mark.parametrize(
    ("target", "class_names", "message"),
    [
        ([1, 2, 5], ["a", "b"], r"one name for each of the 3 classes .*\(1, 2, 5\), got 2"),
        ([1, 2, 5], [*"abcdef"], r"got 6 names: a, b, c, d, e, f; a mapping .* may have more"),
        ([1, 2, 5], ["a", "b", "a"], "class_names must differ from each other, got a, b, a"),
        ([1, 2, 5], {1: "a", 2: "b"}, r"a name for each .*got none for 5, only for 1, 2"),
        ([1, 2, 5], {1: "a", 2: "b", 5: "a"}, "class_names must differ"),
        ([1, 2], {1: "a", 2: "b", "1": "c"}, "one name for the label 1, got two"),
        (["a", "b"], {"a": 0, "b": 1}, "map each label to its name, a string, got 'a': 0"),
        ([0, 1], {"a": 0, "b": 1}, "map each label to its name, a string, got 'a': 0"),
        (["a", "b"], ["a", "c"], r"the 2 classes of target \(a, b\) in the order .*got a, c"),
        (["a", "b"], ["a", "b", "c"], r"in the order that is wanted, got a, b, c; a mapping"),
        (["a", "b"], "ab", "a list of names or a mapping from label to name, got 'ab'"),
        (["a", "b"], {"a", "b"}, "a list of names or a mapping"),
        ([1, "1"], None, "integers or strings, or other values of one kind .*got int and str"),
        ([0, 1, 1.5], None, "integers or strings, got 1.5 in row 2"),
        ([0, 1, np.inf], None, "integers or strings, got inf in row 2"),
        ([[0], [1, 2]], None, r"target must have shape \(N,\).*several lengths"),
        ([[0], [1]], None, r"target must have shape \(N,\).*got shape \(2, 1\)"),
        ([], None, r"target must have shape \(N,\)"),
        ({0, 1}, None, r"target must have shape \(N,\)"),
        (np.array([0j, 1]), None, "integers or strings, got dtype complex128"),
        (["a", "a"], None, "at least two classes, all samples are of 'a'"),
    ],
)
def test_what_would_be_misread_is_refused(target: Any, class_names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classes(target, class_names)


# --------------------------------------------------------------------------------------------
# A recall of its own for each class, from labels to the table
# --------------------------------------------------------------------------------------------

SIZE = 15  # samples of each class
CLASS = np.random.default_rng(0).permutation(np.repeat(np.arange(12), SIZE))
PLACE = np.array([(CLASS[:i] == CLASS[i]).sum() for i in range(len(CLASS))])
RIGHT = PLACE <= CLASS  # 1 sample of class 0, 12 of class 11
PREDICTED = np.where(RIGHT, CLASS, (CLASS + 1) % 12)


def compared(target: Any, names_in_order: Sequence[int], **options: Any) -> Comparison:
    """``names_in_order``: the class of each column of the logits."""
    column = np.argsort(names_in_order)

    def fit(criterion, train, validation, sampler=None, seed=0):  # type: ignore[no-untyped-def]
        return np.eye(12)[column[PREDICTED[validation]]]

    entries = {"no weighting": default_entries()["no weighting"]}
    options |= {"entries": entries, "folds": 3, "num_epochs": 1, "progress": False, "workers": 1}
    return compare(fit, target, **options)


def check_recalls(table: Any, names: Sequence[str]) -> None:
    """``names``: of the classes 0 to 11, which are right for 1 to 12 samples of 15."""
    columns = [column for column in table.columns if column.startswith("recall_")]
    assert sorted(columns) == sorted(f"recall_{name}" for name in names)
    for c, name in enumerate(names):
        assert table[f"recall_{name}"].iloc[0] == pytest.approx(100 * (c + 1) / SIZE), name


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize("words", [DIGITS, WORDS], ids=["digits", "words"])
def test_recalls_of_text(kind: str, words: list[str]) -> None:
    shuffle = random.Random(kind)
    words = shuffle.sample(words, 12)
    target = TEXT[kind]([words[c] for c in CLASS])
    in_order = sorted(range(12), key=words.__getitem__)
    check_recalls(compared(target, in_order).table(), words)
    wanted = shuffle.sample(range(12), 12)
    names = [words[c] for c in wanted]
    check_recalls(compared(target, wanted, class_names=names).table(), words)


@pytest.mark.parametrize("kind", NUMBERS)
def test_recalls_of_numbers(kind: str) -> None:
    shuffle = random.Random(kind)
    value = shuffle.sample(range(12), 12)
    target = NUMBERS[kind]([value[c] for c in CLASS])
    in_order = np.argsort(value).tolist()
    check_recalls(compared(target, in_order).table(), [str(v) for v in value])
    words = shuffle.sample(DIGITS, 12)  # of the class with the value 0, 1, 2 ...
    names = [words[v] for v in value]
    check_recalls(compared(target, in_order, class_names=words).table(), names)
    id2label = {str(v): words[v] for v in shuffle.sample(range(12), 12)}
    check_recalls(compared(target, in_order, class_names=id2label).table(), names)


def test_a_fit_of_ones_own_has_integers_from_0() -> None:
    for kind in NUMBERS.values():
        with pytest.raises(ValueError, match="target must be classes from 0 to 11 for a fit"):
            compared(kind((CLASS * 2).tolist()), range(12))


class Lookup:
    """In the place of a head: its features are what is to be predicted, and whether it is right."""

    def __init__(self, features: Any, target: Any, num_classes: int, num_epochs: int) -> None:
        self.features, self.target, self.num_classes = features, target, num_classes
        self.num_epochs, self.device = num_epochs, torch.device("cpu")

    def __call__(self, criterion: Any, train: Any, validation: Any, **_: Any) -> Any:
        right = train[self.features[train, 1] == 1]
        learnt = dict(zip(self.features[right, 0], self.target[right], strict=True))
        return np.eye(self.num_classes)[[learnt[p] for p in self.features[validation, 0]]]


# in each fold's training part there must be one sample that is right
RIGHT_OFTEN = PLACE <= CLASS % 11 + 3
FEATURES = np.stack([np.where(RIGHT_OFTEN, CLASS, (CLASS + 1) % 12), RIGHT_OFTEN], axis=1)


def saved(kind: str, path: Path, words: list[str], value: list[int]) -> list[Any]:
    """The arguments of the command for one kind of input."""
    text, numbers = np.array(words)[CLASS], np.array(value)[CLASS]
    frame = pd.DataFrame(FEATURES.astype(float), columns=["x", "y"])
    if kind == "npz of text":
        np.savez(path / "data.npz", features=FEATURES, target=text)
    elif kind == "npz of text in an order":
        np.savez(path / "data.npz", features=FEATURES, target=text, class_names=words)
    elif kind == "npz of integers with names":
        names = [words[value.index(v)] for v in sorted(value)]
        np.savez(path / "data.npz", features=FEATURES, target=numbers, class_names=names)
    elif kind == "npy":
        np.save(path / "features.npy", FEATURES)
        np.save(path / "target.npy", numbers)
        names = [words[value.index(v)] for v in sorted(value)]
        return [path / "features.npy", path / "target.npy", "--class-names", *names]
    elif kind == "csv":  # where digits are integers
        frame.assign(dx=text).to_csv(path / "data.csv", index=False)
        return [path / "data.csv", "--target", "dx"]
    elif kind == "csv of integers with names":
        frame.assign(dx=numbers).to_csv(path / "data.csv", index=False)
        names = [words[value.index(v)] for v in sorted(value)]
        return [path / "data.csv", "--target", "dx", "--class-names", *names]
    elif kind == "parquet of categories":
        pytest.importorskip("pyarrow")
        dx = pd.Categorical(text, categories=["never", *words])
        frame.assign(dx=dx).to_parquet(path / "data.parquet")
        return [path / "data.parquet", "--target", "dx"]
    elif kind == "parquet of nullable integers":
        pytest.importorskip("pyarrow")
        frame.assign(dx=pd.array(numbers, "Int64")).to_parquet(path / "data.parquet")
        names = [words[value.index(v)] for v in sorted(value)]
        return [path / "data.parquet", "--target", "dx", "--class-names", *names]
    elif kind == "folder":
        for i, word in enumerate(text):
            (path / "images" / word).mkdir(parents=True, exist_ok=True)
            (path / "images" / word / f"{i}.png").touch()
        return [path / "images"]
    return [path / "data.npz"]


@pytest.mark.parametrize(
    "kind",
    [
        "npz of text", "npz of text in an order", "npz of integers with names", "npy",
        "csv", "csv of integers with names", "parquet of categories",
        "parquet of nullable integers", "folder",
    ],
)  # fmt: skip
def test_recalls_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def features_of(files: list[Path], *_: Any, **__: Any) -> Any:
        return FEATURES[[int(file.stem) for file in files]].astype(np.float32)

    monkeypatch.setattr(images, "image_features", features_of)
    monkeypatch.setattr(comparing, "Head", Lookup)
    monkeypatch.setattr(Comparison, "plot", lambda self: Figure().subplots())
    monkeypatch.setattr(Comparison, "write_page", lambda self, path: path.touch())
    shuffle = random.Random(kind)
    words = shuffle.sample(DIGITS, 12)
    value = shuffle.sample([1, 2, 5, 10, 11, 20, 100, 101, 3, 30, 4, 400], 12)
    arguments = saved(kind, tmp_path, words, value)
    small = ["--rows", "LogitAdjustment", "--folds", "3", "--workers", "1", "--num-epochs", "1"]
    output = tmp_path / "out"
    command = ["compare", *arguments, "--output", output, "--no-progress", *small]
    assert main([str(part) for part in command]) == 0
    table = pd.read_csv(output / "table.csv", index_col=0)
    assert len([c for c in table.columns if c.startswith("recall_")]) == 12
    for c, word in enumerate(words):
        expected = 100 * RIGHT_OFTEN[c == CLASS].mean()
        assert table[f"recall_{word}"].iloc[0] == pytest.approx(expected), word


def test_numbers_that_float32_cannot_tell_apart() -> None:
    patients = torch.tensor([20240002, 20240001, 20240003], dtype=torch.float64)
    assert classes(patients)[1] == ["20240001", "20240002", "20240003"]


def test_numbers_of_another_byte_order() -> None:
    index, names = classes(np.array([10, 2, 2], dtype=">i4"))
    assert (index.tolist(), names) == ([1, 0, 0], ["2", "10"])


def test_a_series_names_by_its_index_where_this_has_the_labels() -> None:
    named = pd.Series(["nv", "mel"], index=[7, 3])
    index, names = classes([3, 7], named)
    assert (index.tolist(), names) == ([0, 1], ["mel", "nv"])
    assert classes([3, 7], pd.Series(["mel", "nv"]))[1] == ["mel", "nv"]
    order = pd.Series(["nv", "mel"], index=[7, 3])
    assert classes(["mel", "nv"], order)[1] == ["nv", "mel"]


@pytest.mark.parametrize("absent", [None, np.nan, pd.NA])
def test_a_name_is_no_missing_value(absent: Any) -> None:
    with pytest.raises(ValueError, match=r"class_names must be strings, got .* as name 1"):
        classes([0, 1, 2], ["a", absent, "c"])
    with pytest.raises(ValueError, match="class_names must map each label to its name, a string"):
        classes([0, 1], {0: "a", 1: absent})
