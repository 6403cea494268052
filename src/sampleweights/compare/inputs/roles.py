"""What the columns of a table are if not features, as their names and values tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_in_blocks", "may_be_folds", "no_features", "refuse_folds"]

_OWNER = "patient|subject|participant|proband|donor|customer|client|user"
_THING = (
    "patienten|probanden|pat|person|animal|passenger|lesion|case|fall|image|img|file|sample|record|"
    "row|study|series|session|visit|slide|scan|video|exam|encounter"
)
_NUMBER = "ids?|no|nr|num|number|nummer|key|code|name|path"
_IDENTIFIER = re.compile(f"{_OWNER}|identifiers?|({_OWNER}|{_THING})s?({_NUMBER})")
_WORD = re.compile("id|ids|uid|uuid|guid|mrn")
_FOLDS = re.compile("(cv|k)?folds?(ids?|no|nr|number)?|splits?|subsets?|partitions?")
_MOST_FOLDS = 20


def no_features(frame: Any, target: Any, has_groups: bool, has_folds: bool) -> dict[str, str]:
    """The columns that are no features, and why; the others may be.

    Args:
        frame: all columns but those that the user has named.
        target: the classes (N,), or None.
        has_groups: whether the user has named the groups.
        has_folds: whether the user has named the folds.

    Raises:
        ValueError: a column looks like groups or folds, on which all numbers depend, and the user
            has not said whether it is.
    """
    import pandas as pd

    found: dict[str, str] = {}
    shared: dict[str, str] = {}
    folds: list[str] = []
    codes = None if target is None else pd.factorize(target)[0]
    for name, values in frame.items():
        if pd.api.types.infer_dtype(values, skipna=True) not in _PLAIN:
            continue
        if name == "Unnamed: 0" or _counts_rows(values):
            found[name] = "it counts the rows"
        elif codes is not None and _is_renamed(values, codes):
            found[name] = "the target under another name"
        elif _is_identifier(name, values):
            if values.nunique() == len(values):
                found[name] = "it differs in every row"
            elif has_groups:
                found[name] = "an identifier"
            else:
                shared[name] = f"{name!r} ({values.nunique():,} values in {len(values):,} rows)"
        elif may_be_folds(name, values):
            if has_folds:
                found[name] = "other folds"
            else:
                folds.append(name)
    if shared:
        one = next(iter(shared)) if len(shared) == 1 else "with one of them"
        raise ValueError(
            f"{', '.join(shared.values())} {'looks' if len(shared) == 1 else 'look'} like an "
            f"identifier: if rows with the same value belong together, give --group {one}, "
            f"otherwise --drop {' '.join(shared)}; to make it a feature, give it another name"
        )
    refuse_folds(folds)
    if target is not None:
        _check_one_of_several(frame, target)
    return found


def _check_one_of_several(frame: Any, target: Any) -> None:
    """See that the target is no part of classes in columns of 0 and 1: the others would tell it."""
    truth = [
        name
        for name, values in frame.items()
        if values.dtype.kind in "iufb" and values.isin([0, 1]).all()
    ]
    if len(truth) < 2 or target.dtype.kind not in "iufb":
        return
    if (frame[truth].sum(axis=1).to_numpy() + target.to_numpy() == 1).all():
        columns = " ".join([str(target.name), *truth])
        raise ValueError(
            f"in each row exactly one of the columns {columns} is 1, so that the others tell the "
            f"target: give --target {columns}"
        )


def refuse_folds(names: Sequence[str]) -> None:
    """Ask what columns are that look like folds, if there are any."""
    if names:
        raise ValueError(
            f"column {names[0]!r} looks like the folds of a cross-validation: use them with "
            f"--folds {names[0]}, or leave the column out with --drop {names[0]}"
        )


def may_be_folds(name: str, values: Any) -> bool:
    """Whether a column has the name and as few values as folds or parts of a data set have."""
    return bool(_FOLDS.fullmatch(_letters(name)) and 2 <= values.nunique() <= _MOST_FOLDS)


_PLAIN = {"string", "integer", "floating", "boolean", "categorical", "mixed-integer-float"}


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _is_identifier(name: str, values: Any) -> bool:
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    if not _IDENTIFIER.fullmatch(_letters(name)) and not any(
        _WORD.fullmatch(word.lower()) for word in words
    ):
        return False
    if values.nunique() <= 2:  # patient: yes or no
        return False
    return values.dtype.kind != "f" or bool((values.dropna() % 1 == 0).all())


def _counts_rows(values: Any) -> bool:
    if len(values) < 10 or values.dtype.kind not in "iu" or values.isna().any():
        return False
    return bool((np.diff(values.to_numpy(dtype=np.int64)) == 1).all())


def is_in_blocks(values: Any) -> bool:
    """Whether rows with the same whole number follow each other, as those of one patient do."""
    if values.dtype.kind not in "iu" or values.isna().any():
        return False
    numbers = values.to_numpy()
    blocks = 1 + np.count_nonzero(numbers[1:] != numbers[:-1])
    return bool(10 <= blocks < len(numbers) and blocks == values.nunique())


def _is_renamed(values: Any, codes: NDArray[np.int64]) -> bool:
    """Whether each class has one value, and each value one class."""
    import pandas as pd

    if len(values) < 10 or values.isna().any():
        return False
    first = np.unique(codes, return_index=True)[1]
    few = slice(100)  # tell most columns from the target quickly
    if not (values.iloc[first].to_numpy()[codes[few]] == values.iloc[few].to_numpy()).all():
        return False
    own, distinct = pd.factorize(values)
    return len(distinct) == len(first) and len(np.unique(own * len(first) + codes)) == len(first)
