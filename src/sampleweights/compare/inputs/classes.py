"""Labels as people have them: which class each sample is of, and what the classes are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ClassNames", "categories", "classes"]

ClassNames = Sequence[str] | NDArray[Any] | Mapping[Any, str]
"""Names in the order of the labels, or the name of each label."""


def classes(
    target: Any, class_names: ClassNames | None = None, *, consecutive: bool = False
) -> tuple[NDArray[np.int64], list[str]]:
    """The class of each sample, from 0 to C - 1, and the C names; nothing else decides on either.

    Labels that are text are ordered as text (0, 1, 10, 2), all others by their value, and those
    of pandas' ordered categories as these are. A class without a sample has no number.

    Args:
        target: (N,), integers, whole floats, booleans, text or bytes, in anything that NumPy reads:
            a list, an array, a tensor, a column of pandas.
        class_names: None for the labels themselves. A mapping gives each label its name, and may
            name further ones; its keys may be the labels or their text, as JSON has them; so is a
            Series of pandas whose index has the labels. A sequence names integers by position; of
            text, it is the labels in the order that is wanted.
        consecutive: whether integers must be 0 to C - 1.

    Raises:
        ValueError: labels that are missing, not whole, of several kinds or all the same; names that
            are too few or too many, or not distinct.
    """
    index, labels = categories("target", target)
    if any(isinstance(label, float) for label in labels):
        whole = np.array([not isinstance(label, float) for label in labels])[index]
        sample = int(np.argmin(whole))
        raise ValueError(
            f"target must be classes, integers or strings, got {labels[index[sample]]} in row "
            f"{sample} (counted from 0)"
        )
    if len(labels) < 2:
        raise ValueError(f"target must have at least two classes, all samples are of {labels[0]!r}")
    shown = _listed(labels)
    if consecutive and isinstance(labels[0], int) and labels != list(range(len(labels))):
        raise ValueError(
            f"target must be classes from 0 to {len(labels) - 1} for a fit of your own, whose "
            f"logits have a column for each of them, got {shown}"
        )
    if isinstance(class_names, pd.Series) and {*map(str, labels)} <= {
        str(_plain(key)) for key in class_names.index
    }:
        class_names = class_names.to_dict()
    if class_names is None:
        return index, [str(label) for label in labels]
    if isinstance(class_names, Mapping):
        names = _names_by_key(labels, class_names)
    else:
        names = _as_names(class_names)
    if len(set(names)) < len(names):
        raise ValueError(f"class_names must differ from each other, got {_listed(names)}")
    if isinstance(class_names, Mapping):
        return index, names
    if isinstance(labels[0], str):
        if set(names) != set(labels):
            raise ValueError(
                f"class_names must be the {len(labels)} classes of target ({shown}) in the order "
                f"that is wanted, got {_listed(names)}; a mapping gives them other names"
            )
        return np.array([names.index(label) for label in labels], dtype=np.int64)[index], names
    if len(names) != len(labels):
        raise ValueError(
            f"class_names must have one name for each of the {len(labels)} classes of target "
            f"({shown}), got {len(names)} names: {_listed(names)}; a mapping from label to name "
            f"may have more"
        )
    return index, names


def categories(name: str, values: Any) -> tuple[NDArray[np.int64], list[Any]]:
    """The position of each value (N,) among the distinct ones, and these in their order.

    They are ints, bools, strings or floats that are not whole, as Python has them, or objects of
    one kind that can be sorted.
    """
    dtype = getattr(values, "dtype", None)
    array = _array(name, values)
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"{name} must have shape (N,), one value for each sample, got shape {array.shape}"
        )
    absent = pd.isna(array)
    if isinstance(values, np.ma.MaskedArray):
        absent |= np.ma.getmaskarray(values)
    missing = np.flatnonzero(absent)
    if len(missing):
        raise ValueError(
            f"{name} must have no missing values, got one for sample {missing[0]} (counted from 0)"
        )
    kind = array.dtype.kind
    if kind in "cV":
        raise ValueError(f"{name} must be integers or strings, got dtype {array.dtype}")
    if kind in "mM":  # a time in nanoseconds would become a number
        array = array.astype(str)
    native = array.dtype.newbyteorder("=")
    array = array.astype(np.float64 if kind == "f" else native if kind in "iub" else object)
    distinct: list[Any] = []
    try:
        codes, found = pd.factorize(array)
        distinct = [_plain(value) for value in found]
        labels = sorted(set(distinct))
    except TypeError:  # it cannot be sorted, or not even be hashed
        kinds = " and ".join(sorted({type(value).__name__ for value in distinct or array}))
        raise ValueError(
            f"{name} must be integers or strings, or other values of one kind that can be sorted, "
            f"got {kinds}"
        ) from None
    if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered:
        present = set(labels)
        labels = [value for value in map(_plain, dtype.categories) if value in present]
    position = {label: i for i, label in enumerate(labels)}
    index = np.array([position[value] for value in distinct], dtype=np.int64)[codes]
    return index, labels


def _array(name: str, values: Any) -> NDArray[Any]:
    """An array in which each value keeps its kind: in a list of 1 and "a" NumPy sees texts."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # NumPy has no bfloat16
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(
            f"{name} must have shape (N,), one value for each sample, got parts of several lengths"
        ) from None
    if array.ndim == 1 and array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        array = np.empty(len(array), dtype=object)
        array[:] = [*values]
    return array


def _plain(value: Any) -> Any:
    """A label as Python has it; a float that is whole is an integer."""
    if getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum that is text, its value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _names_by_key(labels: list[Any], class_names: Mapping[Any, str]) -> list[str]:
    given: dict[Any, str] = {}
    for key, name in class_names.items():
        if not isinstance(name, (str, bytes)):  # a model's label2id would name a class by a number
            raise ValueError(
                f"class_names must map each label to its name, a string, got {key!r}: {name!r}"
            )
        key, name = str(_plain(key)), _plain(name)
        if given.setdefault(key, name) != name:
            raise ValueError(f"class_names must have one name for the label {key}, got two")
    names = []
    for label in labels:
        keys = [str(label)]
        if isinstance(label, (bool, int)) and label in (0, 1):  # what is true may be 1
            keys += [str(int(label)), str(bool(label))]
        found = [given[key] for key in keys if key in given]
        if not found:
            raise ValueError(
                f"class_names must have a name for each of the classes of target "
                f"({_listed(labels)}), got none for {label!r}, only for {_listed([*given])}"
            )
        names.append(found[0])
    return names


def _as_names(class_names: Any) -> list[str]:
    if isinstance(class_names, (str, bytes, Set)):
        raise ValueError(
            f"class_names must be a list of names or a mapping from label to name, got "
            f"{class_names!r}"
        )
    names = [*class_names]
    for position, name in enumerate(names):
        if pd.api.types.is_scalar(name) and pd.isna(name):
            raise ValueError(
                f"class_names must be strings, got {name!r} as name {position} (counted from 0)"
            )
    return [str(_plain(name)) for name in names]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:9])) + ", ..." * (len(values) > 9)
