"""What the command line reads: features and targets of files, checked before the training."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sampleweights.compare.arrays import in_order, not_finite
from sampleweights.compare.images import DEFAULT_ENCODER, image_features, list_images

__all__ = ["Inputs", "check", "load"]

KINDS = (
    "an .npz file, two .npy files (features and target), a .csv or .parquet file, or a folder with "
    "one sub-folder of images for each class"
)


@dataclass(frozen=True)
class Inputs:
    """Features (N, D), target (N,) from 0 to C - 1, C class names, groups (N,) or None."""

    features: NDArray[np.float32]
    target: NDArray[np.int64]
    class_names: list[str]
    groups: NDArray[np.int64] | None = None


def load(
    paths: Sequence[Path],
    *,
    output: Path = Path(),
    target: str | None = None,
    group: str | None = None,
    groups: Path | None = None,
    class_names: Sequence[str] | None = None,
    encoder: str | None = None,
    weights: str | None = None,
    progress: bool = True,
) -> Inputs:
    """Read the input of the command line.

    Args:
        paths: one ``.npz``, two ``.npy`` (features, target), one ``.csv`` or ``.parquet``, or one
            folder with a sub-folder of images for each class.
        output: the folder that keeps the features of images, as ``features.npz``.
        target: the column of a table that holds the classes.
        group: the column of a table that holds the groups; all other columns are features.
        groups: an ``.npy`` file with one group for each sample, for all but tables.
        class_names: a name for each class, in the order of the sorted labels.
        encoder: the timm model that turns images into features.
        weights: of the encoder: "imagenet", "random" or a file.
        progress: show a bar while images are encoded.

    Raises:
        ValueError, OSError, ImportError: what is wrong with the input, in one sentence.
    """
    for path in (*paths, *([groups] if groups else [])):
        if not path.exists():
            raise ValueError(f"{path} does not exist")
    path, suffixes = paths[0], [p.suffix.lower() for p in paths]
    is_folder = len(paths) == 1 and path.is_dir()
    is_table = suffixes in ([".csv"], [".parquet"]) and not is_folder
    if not is_table and (target is not None or group is not None):
        raise ValueError(f"--target and --group are for .csv and .parquet files, got {path}")
    if is_table and groups is not None:
        raise ValueError(f"the groups of {path} are one of its columns: --group COLUMN")
    if not is_folder and (encoder is not None or weights is not None):
        raise ValueError(f"--encoder and --weights are for a folder of images, got {path}")

    columns = labels = None
    if is_folder:
        files, labels = list_images(path, output)
        arrays: dict[str, Any] = {"target": labels}
        arrays["features"] = image_features(
            files,
            path,
            output / "features.npz",
            encoder or DEFAULT_ENCODER,
            weights or "imagenet",
            progress,
        )
    elif is_table:
        arrays, columns = _read_table(path, target, group)
    elif suffixes == [".npz"]:
        arrays = _read_npz(path)
    elif suffixes == [".npy", ".npy"]:
        arrays = {"features": _read_npy(path), "target": _read_npy(paths[1])}
    elif suffixes == [".npy"]:
        raise ValueError(f"{path} needs the file of its targets beside it: {path} target.npy")
    else:
        raise ValueError(f"the input must be {KINDS}, got {' '.join(map(str, paths))}")
    if groups is not None:
        arrays["groups"] = _read_npy(groups)
    if class_names is not None:
        arrays["class_names"] = class_names
    try:
        return check(**arrays, columns=columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check(
    features: ArrayLike,
    target: ArrayLike,
    groups: ArrayLike | None = None,
    class_names: ArrayLike | None = None,
    columns: Sequence[str] | None = None,
) -> Inputs:
    """The arrays as `compare` takes them, or a ValueError that says what is wrong.

    Args:
        features: (N, D), numbers; an array of float32 is not copied.
        target: (N,), integers or strings.
        groups: (N,), integers or strings.
        class_names: for integer targets one name for each label, in their order; for strings the
            same strings in the order that is wanted.
        columns: D names, for messages.
    """
    features = np.asanyarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must have shape (samples, features), got {features.shape}")
    if features.dtype.kind not in "fiub":
        raise ValueError(f"features must be numbers, got dtype {features.dtype}")
    if features.dtype != np.float32:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            features = features.astype(np.float32)
    _check_finite(features, columns)
    labels, numbers = _categories("target", target, len(features))
    if len(labels) < 2:
        raise ValueError(f"target must hold at least two classes, all samples are {labels[0]!r}")
    names = [str(label) for label in labels]
    if class_names is not None:
        wanted = [str(name) for name in np.asarray(class_names).ravel()]
        names, numbers = _rename(names, numbers, wanted, is_text=isinstance(labels[0], str))
    if groups is not None:
        groups = _categories("groups", groups, len(features))[1]
    return Inputs(features, numbers, names, groups)


def _check_finite(features: NDArray[Any], columns: Sequence[str] | None) -> None:
    count, row, column = not_finite(features)
    if count:
        where = f"column {column if columns is None else repr(columns[column])}"
        raise ValueError(
            f"{count} of the features {'is' if count == 1 else 'are'} NaN or infinite, the first "
            f"in row {row} (counted from 0), {where}"
        )


def _categories(name: str, values: ArrayLike, size: int) -> tuple[list[Any], NDArray[np.int64]]:
    """The sorted distinct values, as Python has them, and the position of each value among them."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one value for each sample, got shape {array.shape}")
    if len(array) != size:
        raise ValueError(f"features has {size} rows but {name} has {len(array)}")
    if array.dtype.kind == "f":  # a table with an empty cell, or numbers that were stored so
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array)))
            raise ValueError(f"{name} is missing in row {row} (counted from 0)")
        if (array != np.round(array)).any():
            row = int(np.argmax(array != np.round(array)))
            raise ValueError(f"{name} must be integers or strings, got {array[row]} in row {row}")
        array = array.astype(np.int64)
    elif array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "iubU":
        raise ValueError(f"{name} must be integers or strings, got dtype {array.dtype}")
    distinct, position = np.unique(array, return_inverse=True)
    return distinct.tolist(), position.astype(np.int64)


def _rename(
    names: list[str], numbers: NDArray[np.int64], wanted: list[str], *, is_text: bool
) -> tuple[list[str], NDArray[np.int64]]:
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"class_names must differ from each other, got {', '.join(wanted)}")
    if is_text:
        if set(wanted) != set(names):
            raise ValueError(
                f"class_names must be the classes of target ({', '.join(names)}) in the order that "
                f"is wanted, got {', '.join(wanted)}"
            )
        return wanted, in_order(numbers, names, wanted)
    if len(wanted) != len(names):
        raise ValueError(
            f"class_names must have one name for each of the {len(names)} classes of target "
            f"({', '.join(names)}), got {len(wanted)}"
        )
    return wanted, numbers


def _read_npy(path: Path) -> NDArray[Any]:
    """An array that stays in its file until it is read."""
    with path.open("rb") as stream:
        if stream.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path} must be an .npy file, as numpy.save writes it")
    try:
        # a copy on write: torch warns of arrays that cannot be written
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError as error:
        raise _unreadable(path, "the array", error) from None
    return array


def _read_npz(path: Path) -> dict[str, Any]:
    name = ""
    try:
        if not is_zipfile(path):  # of other files NumPy says that they are pickled
            raise BadZipFile("not a zip archive")
        with np.load(path, allow_pickle=False) as archive:
            if not {"features", "target"} <= set(archive.files):
                held = ", ".join(archive.files) or "nothing"
                raise KeyError(f"{path} must hold features and target, got {held}")
            arrays = {}
            for name in ("features", "target", "groups", "class_names"):
                if name in archive.files:
                    arrays[name] = archive[name]
            return arrays
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except (BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} must be an .npz file, as numpy.savez writes it: {error}"
        ) from None
    except ValueError as error:
        raise _unreadable(path, name, error) from None


def _unreadable(path: Path, name: str, error: ValueError) -> ValueError:
    if "object" in str(error).lower():
        return ValueError(
            f"{path}: {name} holds pickled Python objects, which could run code when they are "
            "read; save it as an array of numbers or strings"
        )
    return ValueError(f"{path} cannot be read: {error}")


def _read_table(
    path: Path, target: str | None, group: str | None
) -> tuple[dict[str, Any], list[str]]:
    import pandas as pd

    try:
        frame = pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except ImportError:
        raise ImportError(f"{path} needs pyarrow: pip install pyarrow") from None
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {str(error).strip()}") from None
    frame.columns = [str(column) for column in frame.columns]
    columns = list(frame.columns)
    if target is None:
        raise ValueError(f"{path} needs --target COLUMN, one of {_listed(columns)}")
    for flag, column in (("--target", target), ("--group", group)):
        if column is not None and column not in columns:
            raise ValueError(f"{path} has no column {column!r} for {flag}, only {_listed(columns)}")
    if len(frame) == 0:
        raise ValueError(f"{path} has no rows")
    if columns[0] == "Unnamed: 0":  # it counts the rows, and rows are often sorted by class
        raise ValueError(f"{path}: the first column has no name; drop it, or name it to keep it")
    features = frame.drop(columns=[c for c in (target, group) if c is not None])
    for column in features.columns:
        if not pd.api.types.is_numeric_dtype(features[column].dtype):
            values = features[column]
            text = pd.to_numeric(values, errors="coerce").isna() & values.notna()
            row = int(np.argmax(text.to_numpy()))
            raise ValueError(
                f"{path}: column {column!r} must be numeric, got {values.iloc[row]!r} in row {row} "
                "(counted from 0); drop it, encode it as numbers, or name it with --group"
            )
    arrays = {"features": features.to_numpy(dtype=np.float32, na_value=np.nan)}
    for name, column in (("target", target), ("groups", group)):
        if column is not None:
            arrays[name] = _cells(path, frame[column])
    return arrays, list(features.columns)


def _cells(path: Path, column: Any) -> NDArray[Any]:
    """A column of categories as an array of integers or strings."""
    if column.isna().any():
        row = int(np.argmax(column.isna().to_numpy()))
        raise ValueError(f"{path}: column {column.name!r} is empty in row {row} (counted from 0)")
    array: NDArray[Any] = column.to_numpy()
    return array if array.dtype.kind in "fiub" else np.array([str(value) for value in array])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown}, ... ({len(names)} columns)"
