"""A table that gives the images of a folder their classes and groups, as data sets often come."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sampleweights.compare.inputs.columns import listed
from sampleweights.compare.inputs.folders import SUFFIXES, examples, find_images
from sampleweights.compare.inputs.roles import may_be_folds, refuse_folds
from sampleweights.compare.inputs.tables import label_arrays, read_frame

__all__ = ["Labelled", "read_labels"]

Rows = dict[str, list[str]]
"""The columns of a table, as text."""
_TARGETS = {
    "target", "label", "labels", "class", "classname", "classlabel", "dx", "diagnosis", "category",
}  # fmt: skip
_GROUPS = {
    f"{what}{end}"
    for what in (
        "group", "patient", "subject", "participant", "person", "case", "lesion", "animal", "slide",
        "specimen", "video",
    )
    for end in ("", "s", "id", "name", "number")
}  # fmt: skip
_IMAGES = {
    f"{what}{end}"
    for what in ("image", "img", "file", "filename", "picture", "photo", "path", "filepath")
    for end in ("", "id", "name", "path", "file", "index")
}
"""What such columns are called, without capital letters and marks."""
_FLAGS = {"", "0", "1", "yes", "no", "y", "n", "true", "false"}
"""Of a column called case that has no names."""


class Labelled(NamedTuple):
    """The images that a table names, in the order of the table."""

    files: list[Path]
    arrays: dict[str, Any]
    """As `check` takes them: target, facts, and where there are, groups, folds and class_names."""
    note: str
    """Which columns were taken, and what was left out."""


def read_labels(
    table: Path,
    folder: Path,
    output: Path,
    *,
    image: str | None = None,
    target: Sequence[str] = (),
    group: str | None = None,
    folds: str | None = None,
    drop: Sequence[str] = (),
    classes: Callable[[], tuple[list[Path], list[str]]] | None = None,
) -> Labelled:
    """Find the image of each row below a folder, and what the row says of it.

    An image is named by its file name, its path within the folder or any end of that, each with or
    without the suffix. Rows without an image and images without a row are left out, and told.

    Args:
        table: a file with a row for each image.
        folder: where the images are, at any depth.
        output: of the comparison; its picture is no image.
        image: the column that names the images. None: the one whose values do.
        target: the column of the classes, or several of labels 0 and 1. Without one: the one that
            has a name such as ``label`` or ``dx``.
        group: the column of the groups. None: the one that has a name such as ``patient_id``.
        folds: the column of the folds.
        drop: columns that are none of these.
        classes: images and classes by sub-folder, for a table that has no column of classes.

    Raises:
        ValueError: no column or several columns come into question, none of the images is named,
            an image is named with different labels, a name could mean different images, or a
            column looks like folds of which nothing is said.
    """
    frame, rows = _read(table)
    named = [("--image", image), *(("--target", name) for name in target), ("--group", group)]
    for flag, name in (*named, ("--folds", folds), *(("--drop", name) for name in drop)):
        if name is not None and name not in rows:
            raise ValueError(f"{table} has no column {name!r} for {flag}, only {listed([*rows])}")
    files = find_images(folder, output)
    if not files:
        raise ValueError(f"{folder} holds no image")
    names = _Names(files, folder)
    image = image or _image_column(table, rows, names, [*target, group, folds, *drop])
    found = [names.find(value) for value in rows[image]]
    _refuse_unclear(table, image, rows, found)
    if not any(found):
        raise ValueError(
            f"column {image!r} of {table} names none of the {len(files):,} images below {folder}: "
            f"it has {rows[image][0]!r}, an image is {names.of(files[0])}"
        )
    group = group or _group_column(table, rows, [image, *target, folds, *drop])
    class_of: dict[Path, str] | None = None
    if not target:
        target, class_of = _target_column(table, rows, [image, group, folds, *drop], classes)
    columns = [column for column in (*target, group, folds) if column is not None]
    if folds is None:
        others = [column for column in rows if column not in (image, *columns, *drop)]
        try:
            refuse_folds([column for column in others if may_be_folds(column, frame[column])])
        except ValueError as error:
            raise ValueError(f"{table}: {error}") from None
    first = _first_rows(table, rows, found, columns, names)
    taken = [f"column {image!r} names the images"]
    taken += [f"{listed([*map(repr, target)])} the classes" if target else "folders the classes"]
    taken += [f"{group!r} the groups"] if group else []
    left_out = _left_out(rows[image], found, first, names)
    if class_of is not None:
        first = {file: row for file, row in first.items() if file in class_of}
    told = [f"{len(first):,} images", ", ".join(taken), *left_out]
    try:
        arrays = label_arrays(frame.iloc[list(first.values())], target, group, folds)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from None
    if class_of is not None:
        arrays["target"] = [class_of[file] for file in first]
    return Labelled(list(first), arrays, "; ".join(told))


class _Names:
    """Which files a name may mean."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self.parts = {file: file.relative_to(folder).parts for file in files}
        self.by_name: dict[str, list[Path]] = {}
        self.copies: set[Path] = set()
        """Files that are left out, because another one with their content is taken."""
        for file in files:
            for name in (file.name, file.stem):
                self.by_name.setdefault(name, []).append(file)

    def of(self, file: Path) -> str:
        """The path within the folder."""
        return "/".join(self.parts[file])

    def known(self, value: str) -> bool:
        return bool(self._candidates(_split(value)[-1]))

    def find(self, value: str) -> list[Path]:
        """The files that a value may mean; of copies of a file, the first."""
        *above, name = _split(value)
        found = []
        for file in self._candidates(name):
            folders = self.parts[file][:-1]
            shared = min(len(above), len(folders))
            if not shared or tuple(above[-shared:]) == folders[-shared:]:
                found.append(file)
        exact = [file for file in found if list(self.parts[file][:-1]) == above]
        found = exact or found
        if len(found) > 1 and all(_is_copy(found[0], other) for other in found[1:]):
            self.copies.update(found[1:])
            return found[:1]
        return found

    def _candidates(self, name: str) -> list[Path]:
        stem, _, suffix = name.rpartition(".")
        if name in self.by_name or f".{suffix.lower()}" not in SUFFIXES:
            return self.by_name.get(name, [])
        return self.by_name.get(stem, [])


def _split(value: str) -> list[str]:
    """The folders and the name of a path, as Windows or anybody else writes it."""
    parts = [part for part in value.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    return parts or [""]


def _is_copy(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def _image_column(table: Path, rows: Rows, names: _Names, but: Sequence[str | None]) -> str:
    """The column that names most images."""
    known = {c: len({v for v in rows[c] if names.known(v)}) for c in rows if c not in but}
    most = max(known.values(), default=0)
    likely = [column for column, count in known.items() if count > most / 2]
    if len(likely) > 1:  # numbers may name images by chance
        likely = _called(likely, _IMAGES, ()) or likely
    if len(likely) > 1:
        raise ValueError(f"{table} needs --image COLUMN, one of {listed(likely)}: all name images")
    if not likely:
        first = ", ".join(f"{c}={values[0]}" for c, values in list(rows.items())[:6])
        raise ValueError(
            f"no column of {table} names the images: its first row is {first}, an image is "
            f"{names.of(next(iter(names.parts)))}; give the column with --image COLUMN"
        )
    return likely[0]


def _group_column(table: Path, rows: Rows, but: Sequence[str | None]) -> str | None:
    likely = [c for c in _called(rows, _GROUPS, but) if {v.lower() for v in rows[c]} - _FLAGS]
    if len(likely) > 1:
        raise ValueError(
            f"{table} needs --group COLUMN, one of {listed(likely)}, so that images of one group "
            f"are not split between training and validation; or --drop {' '.join(likely)}"
        )
    return likely[0] if likely else None


def _target_column(
    table: Path,
    rows: Rows,
    but: Sequence[str | None],
    classes: Callable[[], tuple[list[Path], list[str]]] | None,
) -> tuple[list[str], dict[Path, str] | None]:
    """The columns of the classes, or none and the class that a folder gives each image."""
    others = [c for c in rows if c not in but and not c.startswith("Unnamed: ")]
    likely = _called(rows, _TARGETS, but) or (others if len(others) == 1 else [])
    if len(likely) == 1:
        return likely, None
    if not likely and _is_one_hot([rows[column] for column in others]):
        return others, None
    if not likely and classes is not None:
        try:
            return [], dict(zip(*classes(), strict=True))
        except ValueError:
            pass  # there are no folders of classes either
    raise ValueError(f"{table} needs --target COLUMN, one of {listed(likely or others)}")


def _is_one_hot(columns: Sequence[Sequence[str]]) -> bool:
    """Whether exactly one of the columns is 1 in each row, as in the ground truth of ISIC."""
    ones, zeros = {"1", "1.0"}, {"0", "0.0"}
    return len(columns) > 1 and all(
        sum(cell in ones for cell in row) == 1 and {*row} <= ones | zeros
        for row in zip(*columns, strict=True)
    )


def _first_rows(
    table: Path,
    rows: Rows,
    found: Sequence[list[Path]],
    columns: Sequence[str],
    names: _Names,
) -> dict[Path, int]:
    """The first row of each image that has one; all others must say the same of it."""
    first: dict[Path, int] = {}
    for row, candidates in enumerate(found):
        if not candidates:
            continue
        before = first.setdefault(candidates[0], row)
        for column in columns:
            if rows[column][before] != rows[column][row]:
                raise ValueError(
                    f"{table} must say the same in all rows of an image, {names.of(candidates[0])} "
                    f"has {rows[column][before]!r} in column {column!r}, row {before} (counted "
                    f"from 0), and {rows[column][row]!r} in row {row}"
                )
    return first


def _refuse_unclear(table: Path, column: str, rows: Rows, found: Sequence[list[Path]]) -> None:
    for row, candidates in enumerate(found):
        if len(candidates) > 1:
            raise ValueError(
                f"{rows[column][row]!r} in row {row} of {table} could be {candidates[0]} or "
                f"{candidates[1]}, which differ: give the folder that holds only the images that "
                f"are meant, or a column with their paths"
            )


def _left_out(
    values: Sequence[str],
    found: Sequence[list[Path]],
    first: dict[Path, int],
    names: _Names,
) -> list[str]:
    """What has no row or no image, and what is there twice."""
    alone = [file for file in names.parts if file not in first and file not in names.copies]
    missing = [value for value, candidates in zip(values, found, strict=True) if not candidates]
    told = []
    if missing:
        told.append(
            f"left out: {len(missing):,} of {len(values):,} rows, without an image "
            f"({examples(missing)})"
        )
    if alone:
        told.append(
            f"left out: {len(alone):,} of {len(names.parts):,} images, without a row "
            f"({examples([names.of(file) for file in alone])})"
        )
    if copies := len(names.copies - first.keys()):
        told.append(f"copies of other images, each taken once: {copies:,}")
    if again := len(values) - len(missing) - len(first):
        told.append(f"rows that say the same of an image again: {again:,}")
    return told


def _called(columns: Iterable[str], names: set[str], but: Sequence[str | None]) -> list[str]:
    """The columns with such a name."""
    simple = {c: "".join(filter(str.isalnum, c)).lower() for c in columns if c not in but}
    return [column for column, name in simple.items() if name in names]


def _read(table: Path) -> tuple[Any, Rows]:
    """The table, and its columns as text: 007 stays 007, and a class may be called NA."""
    frame = read_frame(table, [*read_frame(table).columns])
    if not len(frame):
        raise ValueError(f"{table} has no rows")
    rows = {}
    for column in frame:
        missing = frame[column].isna()
        cells = zip(frame[column], missing, strict=True)
        rows[column] = ["" if gone else str(value) for value, gone in cells]
    return frame, rows
