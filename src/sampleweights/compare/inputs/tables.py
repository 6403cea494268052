"""Tables: a CSV or Parquet file with a column of targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read_table(
    path: Path, target: str | None, group: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Features, targets and groups of a table, and the names of its features."""
    import pandas as pd

    try:
        if path.suffix.lower() == ".csv":
            # read in parts, a column could be numbers in one and text in the next
            frame = pd.read_csv(path, low_memory=False)
        else:
            frame = pd.read_parquet(path)
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
            arrays[name] = _filled(path, frame[column])
    return arrays, list(features.columns)


def _filled(path: Path, column: Any) -> Any:
    """A column without an empty cell."""
    if column.isna().any():
        row = int(np.argmax(column.isna().to_numpy()))
        raise ValueError(f"{path}: column {column.name!r} is empty in row {row} (counted from 0)")
    return column


def _listed(names: Sequence[str]) -> str:
    if len(names) <= 10:
        return ", ".join(names)
    # the classes are mostly in one of the last columns
    return f"{', '.join(names[:5])}, ..., {', '.join(names[-5:])} ({len(names)} columns)"
