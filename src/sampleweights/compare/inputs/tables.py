"""Tables: a CSV or Parquet file with a column of targets."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampleweights.compare.inputs.columns import encode, listed

__all__ = ["is_table", "label_arrays", "read_frame", "read_table"]

_HEAD = 1 << 16  # bytes in which the separator shows
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")  # "007" is a name
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d*)?")
_NO_WORDS = {"na", "n/a", "#n/a", "nan", "none", "null", "?", ".", "-"}
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def is_table(path: Path) -> bool:
    """Whether the name of a file is that of a table."""
    ends = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zip", ".tsv.zip", ".parquet")
    return path.name.lower().endswith(ends)


def read_table(
    path: Path,
    target: Sequence[str],
    group: str | None = None,
    folds: str | None = None,
    drop: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """What `check` takes of a table, and the names of its features.

    Args:
        path: the file.
        target: the column of the classes, or several columns of labels that are 0 or 1.
        group: the column of the groups.
        folds: the column of the folds.
        drop: columns that are no features.

    Raises:
        ValueError, ImportError: what is wrong with the table, in one sentence.
    """
    named = [
        *(("--target", column) for column in target),
        *((flag, c) for flag, c in (("--group", group), ("--folds", folds)) if c is not None),
        *(("--drop", column) for column in drop),
    ]
    frame = read_frame(path, [column for flag, column in named if flag != "--drop"])
    columns = list(frame.columns)
    if not target:
        raise ValueError(f"{path} needs --target COLUMN, one of {listed(columns)}")
    given: dict[str, str] = {}
    for flag, column in named:
        if column not in columns:
            raise ValueError(f"{path} has no column {column!r} for {flag}, only {listed(columns)}")
        before = given.setdefault(column, flag)
        if {before, flag} != {"--group", "--folds"} and before != flag:
            raise ValueError(f"{path}: {before} and {flag} both name the column {column!r}")
    if len({*target}) < len(target):
        raise ValueError(f"{path}: --target must name each column once, got {', '.join(target)}")
    if len(frame) == 0:
        raise ValueError(f"{path} has no rows")
    try:
        arrays = label_arrays(frame, target, group, folds)
        encoded = encode(
            frame.drop(columns=list(given)),
            arrays["target"] if len(target) == 1 else None,
            has_groups=group is not None,
            has_folds=folds is not None,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    arrays["features"] = encoded.features
    arrays["facts"]["columns"] = encoded.account
    return arrays, encoded.names


def label_arrays(
    frame: Any, target: Sequence[str], group: str | None = None, folds: str | None = None
) -> dict[str, Any]:
    """What `check` takes of the columns that are no features.

    Raises:
        ValueError: a column has an empty cell, or one of several targets is neither 0 nor 1.
    """
    named = [column for column in (*target, group, folds) if column is not None]
    labels = {column: _labels(frame[column]) for column in named}
    arrays: dict[str, Any] = {"facts": {}}
    for name, of_column in (("groups", group), ("folds", folds)):
        if of_column is not None:
            arrays[name] = labels[of_column]
    if len(target) == 1:
        arrays["target"] = labels[target[0]]
    elif target:
        arrays["target"] = np.stack([_truth(labels[column]) for column in target], axis=1)
        arrays["class_names"] = [*target]
    words = [_kept_words(labels[c]) for c in (*target, group) if c is not None]
    words += [_joined_words(labels[c]) for c in target[:1]]
    if any(words):
        arrays["facts"]["labels"] = "; ".join(word for word in words if word)
    return arrays


def read_frame(path: Path, as_text: Sequence[str] = ()) -> Any:
    """The table; of a CSV file, these columns as the texts that stand in it."""
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
            if any(name is not None for name in frame.index.names):
                frame = frame.reset_index()
        else:
            frame = _read_csv(path, as_text)
    except ImportError:
        raise ImportError(f"{path} needs pyarrow: pip install pyarrow") from None
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty") from None
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {str(error).strip()}") from None
    frame.columns = [str(column) for column in frame.columns]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{path} has two columns {twice[0]!r}: give one of them another name")
    return frame


def _read_csv(path: Path, as_text: Sequence[str]) -> Any:
    with _opened(path) as stream:
        head = stream.read(_HEAD)
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))  # as Excel writes its "Unicode text"
    if not utf16 and b"\0" in head:
        raise ValueError("it is no text: save the table as .csv or .parquet")
    try:
        return _read_csv_as("utf-16" if utf16 else "utf-8-sig", path, head, as_text)
    except UnicodeDecodeError:
        return _read_csv_as("cp1252", path, head, as_text)  # as Excel writes in Europe


def _read_csv_as(encoding: str, path: Path, head: bytes, as_text: Sequence[str]) -> Any:
    import pandas as pd

    text = head.decode(encoding, errors="replace")
    said = re.match("sep=(.)\r?\n", text)  # by Excel, which reads such a line
    separator = said[1] if said else _separator(text, whole=len(head) < _HEAD)
    options: dict[str, Any] = {"sep": separator, "encoding": encoding, "skiprows": int(bool(said))}
    options |= {"skipinitialspace": True, "index_col": False}
    with _opened(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # read in parts, a column could be numbers in one and text in the next
            frame = pd.read_csv(stream, low_memory=False, **options)
        except pd.errors.ParserWarning:
            raise ValueError(
                "its rows have more cells than the first line has names: name every column"
            ) from None
    names = {str(column).strip(): column for column in frame.columns}
    wanted = [names[column] for column in as_text if column in names]
    if wanted:  # a class may be called NA, and a group 007
        with _opened(path) as stream:
            texts = pd.read_csv(stream, usecols=wanted, dtype=str, na_filter=False, **options)
        for column in wanted:
            frame[column] = texts[column].str.strip()
            frame[column] = frame[column].where(frame[column] != "")
    for column in set(frame.columns) - set(wanted):
        if pd.api.types.infer_dtype(frame[column], skipna=True) == "string":
            frame[column] = _decimal(frame[column], separator)
    if len(names) == len(frame.columns):
        frame.columns = list(names)
    return frame


def _opened(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix != ".zip":
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.namelist() if not m.startswith("__MACOSX")]
        if len(members) != 1:
            raise ValueError(f"it holds {len(members)} files and not one: unzip it first")
        return io.BytesIO(archive.read(members[0]))


def _separator(text: str, whole: bool) -> str:
    """What splits the first rows into equally many cells, and into most."""

    def cells(separator: str) -> tuple[bool, int]:
        try:
            rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
        except csv.Error:
            return False, 0
        rows = rows if whole else rows[:-1] or rows
        widths = {len(row) for row in rows[:50]} or {0}
        return len(widths) == 1 and widths != {1}, max(widths)

    return max(",;\t|", key=cells)


def _decimal(values: Any, separator: str) -> Any:
    """Texts such as 37,5 and 1.234,5 of a file with semicolons, or 1,234.5, as Python's numbers."""
    point, group = (".", ",") if separator == "," else (",", ".")
    number = rf"[-+]?(\d{{1,3}}(\{group}\d{{3}})+|\d*)(\{point}\d+)?"
    if values.dropna().str.fullmatch(number).all():
        grouped = values.str.replace(group, "", regex=False)
        return grouped.str.replace(point, ".", regex=False)
    if point == ",":  # numbers among texts
        return values.str.replace(r"^([-+]?\d*),(\d+)$", r"\1.\2", regex=True)
    return values


def _labels(column: Any) -> Any:
    """Labels without a missing one; texts that are whole numbers become these."""
    import pandas as pd

    missing = column.isna().to_numpy()
    text = pd.api.types.infer_dtype(column, skipna=True) == "string"
    if text:
        distinct = [value for value in column.dropna().unique() if isinstance(value, str)]
        words = [value for value in distinct if value.lower() not in _NO_WORDS]
        if words and all(_NUMBER.fullmatch(value) for value in words):
            # beside numbers, NA is none
            missing = missing | ~column.isin(words).to_numpy()
    if missing.any():
        row = int(np.argmax(missing))
        word = "" if pd.isna(column.iloc[row]) else f"{column.iloc[row]!r} beside numbers, "
        more = f", and in {missing.sum() - 1:,} more" if missing.sum() > 1 else ""
        raise ValueError(
            f"column {column.name!r} is empty in row {column.index[row]} ({word}counted from 0)"
            f"{more}: fill in what is missing, or delete these rows"
        )
    if not text:
        return column
    if all(_INTEGER.fullmatch(value) for value in distinct):
        return column.astype("int64")
    whole = all(_NUMBER.fullmatch(value) for value in distinct)
    return column.astype("float64") if whole else column


def _truth(column: Any) -> Any:
    """A label of several that a sample may have together, as 0 or 1."""
    values = column.astype(str).str.lower().map(_TRUTH)
    wrong = values.isna().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"column {column.name!r} must hold 0 and 1, since --target names several columns, got "
            f"{column.iloc[row]} in row {column.index[row]} (counted from 0)"
        )
    return values.to_numpy(dtype=np.int64)


def _kept_words(labels: Any) -> str:
    """Says which labels look like missing ones and are none."""
    import pandas as pd

    if pd.api.types.infer_dtype(labels, skipna=True) != "string":
        return ""
    counts = labels.value_counts()
    found = [
        f"{v!r} ({n:,} row{'s' * (n > 1)})" for v, n in counts.items() if v.lower() in _NO_WORDS
    ]
    return f"{', '.join(found)} of {labels.name} taken as any other label" if found else ""


def _joined_words(labels: Any) -> str:
    """Says what to do about classes such as cough|fever beside cough and fever."""
    import pandas as pd

    if pd.api.types.infer_dtype(labels, skipna=True) != "string":
        return ""
    distinct = {*labels.unique()}
    for mark in "|;,":
        parts = {part.strip() for value in distinct for part in value.split(mark)}
        joined = sorted(value for value in distinct if mark in value)
        if joined and len(parts) < len(distinct):
            return (
                f"{joined[0]!r} of {labels.name} taken as a class of its own; if it is several "
                f"labels, make a column of 0 and 1 for each, as pandas does with "
                f"str.get_dummies({mark!r}), and give these with --target"
            )
    return ""
