"""From the columns of a table to features: what becomes of each of them, and the words for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.inputs.roles import is_in_blocks, no_features

__all__ = ["Encoded", "encode", "listed"]

_DATE = (
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{2}|\d{4})([T ].*)?|"
    r"\d{4}[-/]\d{1,2}"  # 2020.5 is a number
)
_FEW = 20
"""A column of so few texts is categories, however few the rows."""
_RARE = 10
"""Categories of fewer rows share a column; in tables of fewer than 1,000 rows, those below 1 %."""
_MOST = 100
"""Columns of one text column."""


@dataclass
class Encoded:
    """Features (N, D) of float32, the names of their columns, and what became of each."""

    features: NDArray[np.float32]
    names: list[str]
    account: str


@dataclass
class _Sorted:
    """The columns by what becomes of them."""

    numbers: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """With the reason."""
    said: list[str] = field(default_factory=list)


def encode(frame: Any, target: Any = None, *, has_groups: bool, has_folds: bool) -> Encoded:
    """The columns of a frame as features.

    Numbers stay; where one is missing, the median stands, and a further column has a 1 there. Texts
    become one-hot. Lists of equal length become a column for each place. What tells a row from all
    others, dates, and the target under another name are left out.

    Args:
        frame: the columns that nothing else was said of.
        target: the classes (N,), if there are any.
        has_groups: whether a column is named as the groups: others that look like it are left out.
        has_folds: the same of folds.

    Raises:
        ValueError: a column that must be named or left out by the user.
    """
    found = _Sorted(left_out=no_features(frame, target, has_groups, has_folds))
    for name, values in frame.items():
        if name not in found.left_out:
            _sort_out(name, values, found)
    blocks, names = [], []
    for add in (_number_columns, _text_columns, _list_columns):
        block, of_block = add(found, len(frame))
        blocks.append(block)
        names += of_block
    if not names:
        raise ValueError(f"no column is left as a feature{_reasons(found)}")
    shared = [name for name, why in found.left_out.items() if "different texts" in why]
    shared += [name for name in found.numbers if is_in_blocks(frame[name])]
    if shared and not has_groups:
        found.said.append(
            f"if rows with the same {' or '.join(shared)} belong together, name it with --group"
        )
    return Encoded(np.concatenate(blocks, axis=1), names, _account(found, len(names)))


def _sort_out(name: str, values: Any, found: _Sorted) -> None:
    import pandas as pd

    kind = pd.api.types.infer_dtype(values, skipna=True)
    if values.isna().all():
        found.left_out[name] = "empty"
    elif kind in ("datetime64", "datetime", "date", "time", "period"):
        found.left_out[name] = "a date"
    elif kind in ("timedelta64", "timedelta"):
        found.numbers[name] = _as_float(values.astype("timedelta64[ns]").dt.total_seconds())
    elif kind in ("integer", "floating", "boolean", "decimal", "mixed-integer-float"):
        numbers = _as_float(values)
        if (numbers == numbers[0]).all():
            found.left_out[name] = "the same in every row"
        else:
            found.numbers[name] = numbers
    elif kind in ("string", "categorical", "mixed-integer"):
        _sort_out_texts(name, values, found)
    elif isinstance(first := values.dropna().iloc[0], (list, tuple, np.ndarray)):
        found.lists[name] = _stacked(name, values)
    else:
        raise ValueError(
            f"column {name!r} holds values of {type(first).__name__}, which are no features: leave "
            f"it out with --drop {name}"
        )


def _as_float(values: Any) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        doubles = values.to_numpy(dtype=np.float64, na_value=np.nan)
        numbers: NDArray[np.float32] = doubles.astype(np.float32)
    infinite = np.isinf(numbers)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise ValueError(
            f"column {values.name!r} must hold finite numbers, as float32 has them, got "
            f"{values.iloc[row]} in row {row} (counted from 0): correct it, or leave the column "
            f"out with --drop {values.name}"
        )
    return numbers


def _sort_out_texts(name: str, values: Any, found: _Sorted) -> None:
    import pandas as pd

    texts = values.astype(object).where(values.notna(), None)
    texts = texts.map(lambda value: str(value).strip() or None, na_action="ignore")
    present = texts.dropna()
    distinct = present.nunique()
    if not distinct:
        found.left_out[name] = "empty"
        return
    if present.str.startswith("[").all():
        found.lists[name] = _parsed(name, texts)
        return
    if present.str.fullmatch(_DATE).mean() >= 0.9:
        found.left_out[name] = "a date"
        return
    codes = present.str.match(r"0\d").any()  # 01234 is the name of a place
    numbers = pd.to_numeric(texts, errors="coerce")
    strange = present[numbers[present.index].isna()]
    is_number = not len(strange) or (distinct > _FEW and len(strange) <= 0.1 * len(present))
    if is_number and not codes:
        found.numbers[name] = _as_float(numbers)
        if len(strange):
            found.said.append(
                f"{name}: {len(strange):,} texts such as {strange.iloc[0]!r} count as missing"
            )
    elif distinct == 1 and len(present) == len(texts):
        found.left_out[name] = "the same in every row"
    elif distinct == len(present) and distinct > _FEW:
        found.left_out[name] = "it differs in every row"
    elif distinct > max(_FEW, len(texts) / 10):
        found.left_out[name] = f"{distinct:,} different texts"
    else:
        found.texts[name] = texts.where(texts.notna(), "(missing)")


def _parsed(name: str, texts: Any) -> NDArray[np.float32]:
    """The lists that a CSV file holds as text, such as [0.1, 0.2]."""

    def parsed(text: Any) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError):
            return None

    lists = [parsed(text) for text in texts]
    if None in lists:
        row = lists.index(None)
        text = str(texts.iloc[row])[:40]
        raise ValueError(
            f"column {name!r} must hold lists such as [0.1, 0.2], got {text!r} "
            f"in row {row} (counted from 0): save the table as .parquet, or leave the column out "
            f"with --drop {name}"
        )
    return _stacked(name, lists)


def _stacked(name: str, lists: Any) -> NDArray[np.float32]:
    """A row (N, D) for each list."""
    size = None
    rows = []
    for row, values in enumerate(lists):
        array = np.asarray([] if values is None else values)
        if array.ndim != 1 or array.dtype.kind not in "fiub" or array.size != (size or array.size):
            came = f"shape {array.shape} of dtype {array.dtype}" if array.size else "none"
            raise ValueError(
                f"column {name!r} must hold a list of {size or 'some'} numbers in each row, got "
                f"{came} in row {row} (counted from 0): correct it, or leave the column out with "
                f"--drop {name}"
            )
        size = array.size
        rows.append(array.astype(np.float32))
    return np.stack(rows)


def _number_columns(found: _Sorted, size: int) -> tuple[NDArray[np.float32], list[str]]:
    """Numbers, the median where one is missing, and then for each such column where it was."""
    from sklearn.impute import SimpleImputer

    names = list(found.numbers)
    if not names:
        return np.empty((size, 0), np.float32), []
    columns = np.stack([*found.numbers.values()], axis=1)
    holes = [names[column] for column in np.flatnonzero(np.isnan(columns).any(axis=0))]
    if holes:
        columns = SimpleImputer(strategy="median", add_indicator=True).fit_transform(columns)
    return columns.astype(np.float32), names + [f"{name} is missing" for name in holes]


def _text_columns(found: _Sorted, size: int) -> tuple[NDArray[np.float32], list[str]]:
    import pandas as pd
    from sklearn.preprocessing import OneHotEncoder

    if not found.texts:
        return np.empty((size, 0), np.float32), []
    encoder = OneHotEncoder(
        drop="if_binary",
        min_frequency=max(1, min(_RARE, size // 100)),
        max_categories=_MOST,
        sparse_output=False,
        dtype=np.float32,
    )
    columns = encoder.fit_transform(pd.DataFrame(found.texts).astype(object))
    return columns, encoder.get_feature_names_out().tolist()


def _list_columns(found: _Sorted, size: int) -> tuple[NDArray[np.float32], list[str]]:
    if not found.lists:
        return np.empty((size, 0), np.float32), []
    columns = np.concatenate([*found.lists.values()], axis=1)
    return columns, [f"{n}[{i}]" for n, rows in found.lists.items() for i in range(rows.shape[1])]


def _account(found: _Sorted, size: int) -> str:
    """What became of each column, in words."""
    parts = []
    if found.numbers:
        parts.append(f"{len(found.numbers):,} numeric: {listed([*found.numbers])}")
    holes = {name: int(np.isnan(values).sum()) for name, values in found.numbers.items()}
    holes = {name: count for name, count in holes.items() if count}
    if holes:
        rows = [f"{name} in {count:,} row{'s' * (count > 1)}" for name, count in holes.items()]
        parts.append(
            f"missing numbers: {listed(rows)}, the median in their place and a column that says so"
        )
    if found.texts:
        parts.append(f"{len(found.texts):,} one-hot: {listed([*found.texts])}")
    parts += [f"{name}: lists of {rows.shape[1]:,}" for name, rows in found.lists.items()]
    parts += found.said
    return "; ".join(parts) + _reasons(found) + f"; {size:,} feature{'s' * (size != 1)} in all"


def _reasons(found: _Sorted) -> str:
    reasons = [f"{name} ({why})" for name, why in found.left_out.items()]
    return f"; left out: {listed(reasons)}" if reasons else ""


def listed(names: Sequence[str]) -> str:
    """Names, of which the middle ones are left out where they are many."""
    if len(names) <= 10:
        return ", ".join(names)
    # the classes are mostly in one of the last columns
    return f"{', '.join(names[:5])}, ..., {', '.join(names[-5:])} ({len(names)} columns)"
