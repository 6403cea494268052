"""What the command line reads, and the sentence for what it can not read."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from sampleweights.compare.inputs import (  # noqa: E402
    check,
    load,
)

FEATURES = np.arange(12.0).reshape(6, 2)
TARGET = np.array([0, 0, 1, 1, 2, 2])
WORDS = np.array(["b", "b", "a", "c", "a", "c"])


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def table(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path / "data.csv", index=False)
    return path / "data.csv"


def test_npz(tmp_path: Path) -> None:
    groups = ["x", "x", "y", "z", "z", "z"]
    inputs = load([npz(tmp_path, features=FEATURES, target=TARGET, groups=groups)])
    assert inputs.features.dtype == np.float32
    np.testing.assert_array_equal(inputs.features, FEATURES)
    assert inputs.target.dtype == np.int64
    assert inputs.target.tolist() == [0, 0, 1, 1, 2, 2]
    assert inputs.class_names == ["0", "1", "2"]
    assert inputs.groups is not None
    assert inputs.groups.tolist() == [0, 0, 1, 2, 2, 2]


def test_npy_pair_stays_in_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", FEATURES.astype(np.float32))
    np.save(tmp_path / "target.npy", WORDS)
    np.save(tmp_path / "groups.npy", np.arange(6) // 2 + 7)
    inputs = load(
        [tmp_path / "features.npy", tmp_path / "target.npy"], groups=tmp_path / "groups.npy"
    )
    assert isinstance(inputs.features, np.memmap)
    np.testing.assert_array_equal(inputs.features, FEATURES)
    assert inputs.class_names == ["a", "b", "c"]
    assert inputs.target.tolist() == [1, 1, 0, 2, 0, 2]
    assert inputs.groups is not None
    assert inputs.groups.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"age": np.arange(1, 7), "diagnosis": WORDS, "size": FEATURES[:, 1]})
    frame["patient"] = list("uvvwww")
    path = tmp_path / f"data{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    inputs = load([path], target=["diagnosis"], group="patient")
    np.testing.assert_array_equal(
        inputs.features, np.stack([np.arange(1, 7), FEATURES[:, 1]], axis=1)
    )
    assert inputs.class_names == ["a", "b", "c"]
    assert inputs.groups is not None
    assert inputs.groups.tolist() == [0, 1, 1, 2, 2, 2]


def test_folds_of_ones_own(tmp_path: Path) -> None:
    folds = np.array(["b", "a", "c", "a", "b", "c"])
    path = npz(tmp_path, features=FEATURES, target=TARGET, folds=folds)
    assert load([path]).folds.tolist() == [1, 0, 2, 0, 1, 2]
    np.save(tmp_path / "folds.npy", [5, 5, 7, 7, 5, 7])
    inputs = load([path], folds=str(tmp_path / "folds.npy"))
    assert inputs.folds.tolist() == [0, 0, 1, 1, 0, 1]
    assert check(FEATURES, TARGET).folds is None
    # what is only trained on is no fold, whatever the others are called
    for given in (
        [0, -1, 3, -1, 0, 3],
        ["b", "-1", "x", "-1", "b", "x"],
        np.array([0.0, -1, 2] * 2),
    ):
        assert check(FEATURES, TARGET, folds=given).folds.tolist()[:3] == [0, -1, 1]
    assert check(FEATURES, TARGET, folds=[-1, 7, -1, 7, -1, 7]).folds.tolist() == [-1, 0] * 3


def test_labels_that_a_sample_may_have_together(tmp_path: Path) -> None:
    target = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])
    inputs = load([npz(tmp_path, features=FEATURES, target=target, class_names=[*"xyz"])])
    np.testing.assert_array_equal(inputs.target, target)
    assert inputs.target.dtype == np.int64
    assert inputs.class_names == ["x", "y", "z"]
    assert inputs.facts == {}
    np.save(tmp_path / "features.npy", FEATURES)
    np.save(tmp_path / "target.npy", target.astype(bool))
    inputs = load([tmp_path / "features.npy", tmp_path / "target.npy"])
    np.testing.assert_array_equal(inputs.target, target)
    assert inputs.class_names == ["0", "1", "2"]


def test_exactly_one_of_several_labels_is_a_class() -> None:
    target = np.eye(4)[[3, 0, 0, 1, 3, 0]]
    inputs = check(FEATURES, target, class_names=["d", "c", "b", "a"])
    assert [inputs.class_names[i] for i in inputs.target] == [*"addcad"]
    assert inputs.class_names == ["d", "c", "a"]
    assert inputs.facts == {"target": "one of 3 classes in each row, in columns of 0 and 1"}
    assert check(FEATURES, TARGET[:, None]).target.tolist() == TARGET.tolist()


def test_safetensors(tmp_path: Path) -> None:
    torch_files = pytest.importorskip("safetensors.torch")
    import torch

    tensors = {
        "features": torch.from_numpy(FEATURES).bfloat16(),  # which NumPy has not
        "target": torch.from_numpy(TARGET),
        "groups": torch.tensor([4, 4, 2, 2, 1, 1], dtype=torch.int32),
        "other": torch.zeros(3),
    }
    path = tmp_path / "data.safetensors"
    torch_files.save_file(tensors, path)
    inputs = load([path], class_names=["x", "y", "z"])
    np.testing.assert_array_equal(inputs.features, FEATURES)
    assert inputs.target.tolist() == TARGET.tolist()
    assert inputs.groups.tolist() == [2, 2, 1, 1, 0, 0]
    assert inputs.class_names == ["x", "y", "z"]
    torch_files.save_file({"embeddings": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="must hold features and target, got embeddings"):
        load([path])
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"data.safetensors must be a .safetensors file"):
        load([path])


def test_safetensors_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "data.safetensors").touch()
    with pytest.raises(ImportError, match="needs safetensors: pip install safetensors"):
        load([tmp_path / "data.safetensors"])


def test_names_of_integer_classes_follow_their_order() -> None:
    inputs = check(FEATURES, TARGET * 10 - 5, class_names=["low", "middle", "high"])
    assert inputs.class_names == ["low", "middle", "high"]
    assert inputs.target.tolist() == TARGET.tolist()


def test_names_of_text_classes_give_the_order() -> None:
    inputs = check(FEATURES, WORDS, class_names=["c", "b", "a"])
    assert [inputs.class_names[t] for t in inputs.target] == WORDS.tolist()
    assert inputs.class_names == ["c", "b", "a"]


def test_whole_floats_and_bytes_are_classes() -> None:
    assert check(FEATURES, TARGET.astype(float)).class_names == ["0", "1", "2"]
    assert check(FEATURES, WORDS.astype("S")).class_names == ["a", "b", "c"]


def spoiled(*places: tuple[int, int], by: float = np.nan) -> np.ndarray[Any, Any]:
    features = np.tile(FEATURES, (2000, 1))  # more than are checked at once
    for place in places:
        features[place] = by
    return features


LONG = np.tile(TARGET, 2000)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": FEATURES[:5]}, "features has 5 rows but target has 6"),
        ({"groups": [1, 2]}, "features has 6 rows but groups has 2"),
        ({"target": np.zeros(6, int)}, "at least two classes, all samples are of 0"),
        ({"target": ["nv"] * 6}, "at least two classes, all samples are of 'nv'"),
        ({"target": np.zeros((6, 2, 2))}, r"one value for each sample, got shape \(6, 2, 2\)"),
        (
            {"target": [[0, 1], [1, 1], [-1, 0], [0, 0], [0, 0], [1, 0]]},
            r"0 and 1 of shape \(N, L\) for labels .* got .*-1.* for sample 2 .* label '0'",
        ),
        ({"target": np.array([WORDS, WORDS]).T}, r"0 and 1 of shape \(N, L\) .* got 'b'"),
        ({"folds": [1, 2]}, "features has 6 rows but folds has 2"),
        ({"folds": [7] * 6}, "folds must have at least two values"),
        ({"folds": [-1] * 6}, "folds must have at least two values"),
        ({"target": [0, 0, 1, 1.5, 1, 0]}, "integers or strings, got 1.5 in row 3"),
        (
            {"target": [0, 0, np.nan, 1, 1, 0]},
            "target must have no missing values, .* sample 2",
        ),
        ({"features": FEATURES[0]}, r"shape \(samples, features\), got \(2,\)"),
        ({"features": FEATURES[:0], "target": []}, r"got \(0, 2\)"),
        ({"features": FEATURES.astype(str)}, "features must be numbers, got dtype <U"),
        (
            {"features": spoiled((9999, 1), (7000, 0)), "target": LONG},
            r"2 of the features are NaN or infinite, the first in row 7000 .*, column 0: correct",
        ),
        (
            {"features": spoiled((3, 1), by=1e39), "target": LONG},  # infinite in float32
            r"1 of the features is NaN or infinite, the first in row 3 .*, column 1: correct it",
        ),
        ({"class_names": ["x", "y"]}, r"each of the 3 classes of target \(0, 1, 2\), got 2"),
        ({"class_names": ["x", "y", "x"]}, "class_names must differ"),
        ({"target": WORDS, "class_names": ["a", "b", "d"]}, r"classes of target \(a, b, c\)"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    arrays = {"features": FEATURES, "target": TARGET} | arrays
    arrays["target"] = np.asarray(arrays["target"])
    with pytest.raises(ValueError, match=message):
        check(**arrays)
    with pytest.raises(ValueError, match=f"data.npz: .*{message}"):
        load([npz(tmp_path, **arrays)])


OBJECTS = np.array([0, 0, 1, 1, 2, None], dtype=object)


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.npz: target holds pickled Python objects"):
        load([npz(tmp_path, features=FEATURES, target=OBJECTS)])
    np.save(tmp_path / "features.npy", FEATURES)
    np.save(tmp_path / "target.npy", OBJECTS)
    with pytest.raises(ValueError, match="target.npy: the array holds pickled Python objects"):
        load([tmp_path / "features.npy", tmp_path / "target.npy"])


def test_missing_arrays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold features and target, got x, y"):
        load([npz(tmp_path, x=FEATURES, y=TARGET)])


@pytest.mark.parametrize("content", [b"", b"PK", b"not an array", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_files_of_another_kind(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"data{suffix} (must be an {suffix} file|cannot be read)"):
        load([path] * (2 if suffix == ".npy" else 1))


@pytest.mark.parametrize("shape", [(10**13,), (10**13, 2), (7,), (2**62, 2**62)])
@pytest.mark.parametrize("name", ["features", "target", "groups", "class_names"])
def test_a_header_that_says_more_than_follows(
    tmp_path: Path, shape: tuple[int, ...], name: str
) -> None:
    header = io.BytesIO()
    given = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, given)
    short = header.getvalue() + bytes(6 * 8)
    message = f"cannot be read: the header of {name} says shape .*, but 48 follow"
    arrays = {"features": FEATURES, "target": TARGET, "groups": TARGET, "class_names": [*"abc"]}
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        for key, array in arrays.items():
            whole = io.BytesIO()
            np.save(whole, array)
            archive.writestr(f"{key}.npy", short if key == name else whole.getvalue())
    with pytest.raises(ValueError, match=f"data.npz {message}"):
        load([tmp_path / "data.npz"])
    (tmp_path / "short.npy").write_bytes(short)
    with pytest.raises(ValueError, match=f"short.npy {message.replace(name, 'the array')}"):
        load([tmp_path / "short.npy"] * 2)


def test_an_array_that_does_not_fit_into_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = npz(tmp_path, features=FEATURES, target=TARGET)

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", full)
    with pytest.raises(ValueError, match=r"data.npz .*features does not fit into the memory"):
        load([path])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"x": [1, 2], "y": [0, 1]}, {}, "needs --target COLUMN, one of x, y"),
        ({"x": [1, 2], "y": [0, 1]}, {"target": ["z"]}, "no column 'z' for --target, only x, y"),
        (
            {"x": [1, 2], "y": [0, 1]},
            {"target": ["y"], "group": "g"},
            "no column 'g' for --group, only x, y",
        ),
        (
            {f"x{i}": [1, 2] for i in range(20)} | {"site": [0, 1], "diagnosis": [0, 1]},
            {},
            r"one of x0, x1, x2, x3, x4, \.\.\., .* site, diagnosis \(22 columns\)",
        ),
        ({"x": [], "y": []}, {"target": ["y"]}, "has no rows"),
        ({"y": [0, 1]}, {"target": ["y"]}, "no column is left as a feature"),
    ],
)
def test_wrong_tables(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"data.csv.*{message}"):
        load([table(tmp_path, **columns)], **options)


def test_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    with pytest.raises(ValueError, match="data.csv is empty"):
        load([tmp_path / "data.csv"], target=["y"])


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"data.parquet needs pyarrow: pip install pyarrow"):
        load([tmp_path / "data.parquet"], target=["y"])


def test_wrong_paths_and_options(tmp_path: Path) -> None:
    data = npz(tmp_path, features=FEATURES, target=TARGET)
    np.save(tmp_path / "x.npy", FEATURES)
    for name in ("x.txt", "x.xlsx"):
        (tmp_path / name).touch()
    comma = table(tmp_path, x=[1, 2], y=[0, 1])
    for paths, options, message in [
        ([tmp_path / "no.npz"], {}, "no.npz does not exist"),
        ([data], {"groups": tmp_path / "no.npy"}, "no.npy does not exist"),
        ([tmp_path / "x.npy"], {}, "x.npy needs the file of its targets"),
        (
            [tmp_path / "x.txt"],
            {},
            r"the input must be an .npz or .safetensors file, .*, got .*x.txt",
        ),
        ([tmp_path / "x.xlsx"], {"target": ["y"]}, "the input must be .*x.xlsx; save it as one of"),
        ([data, data], {}, "the input must be"),
        ([data], {"target": ["y"]}, "--target, --group and --drop are for .csv, .tsv and .parquet"),
        ([data], {"drop": ["y"]}, "--target, --group and --drop are for .csv, .tsv and .parquet"),
        ([data], {"folds": "fold"}, "--folds must be an integer, an .npy file .* got 'fold'"),
        ([data], {"folds": "no.npy"}, "--folds must be .* got 'no.npy', which does not exist"),
        ([data], {"encoder": "resnet18"}, "--encoder and --weights are for a folder of images"),
        ([comma], {"target": ["y"], "groups": data}, "one of its columns: --group COLUMN"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(paths, **options)


@pytest.mark.parametrize("shape", ["(0, 10000000000000000000000)", "(True, 3)", "(-1, -3)", "(("])
def test_a_damaged_header(tmp_path: Path, shape: str) -> None:
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)
    (tmp_path / "data.npy").write_bytes(array)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("features.npy", array)
        archive.writestr("target.npy", array)
    for paths in ([tmp_path / "data.npz"], [tmp_path / "data.npy"] * 2):
        with pytest.raises(ValueError, match=r"data.np. cannot be read: the header of"):
            load(paths)
