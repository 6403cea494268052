"""The images in a folder: which files are meant, and which class the folders give them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sampleweights.compare.outputs import PARTS, PICTURE, RUNS, is_output, is_own

__all__ = ["SUFFIXES", "ClassFolders", "examples", "find_images", "list_images"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_OF_SYSTEMS = {"__MACOSX", "@eaDir"}
"""Folders that macOS puts into zips, and that network drives fill with thumbnails."""
_SPLIT = re.compile(
    r"(train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?:[ _-]?(?:set|data|images?|imgs?))?",
    re.IGNORECASE,
)
_PART = re.compile(r".*part[ _-]?\d+", re.IGNORECASE)


class ClassFolders(NamedTuple):
    """What a folder with one sub-folder of images for each class holds."""

    files: list[Path]
    classes: list[str]
    """Of each file."""
    note: str
    """What was taken and what was left out; empty if nothing needs to be said."""


def find_images(folder: Path, output: Path) -> list[Path]:
    """The images anywhere below a folder, sorted by path.

    What systems leave (``._1.jpg``, ``__MACOSX``) is no image, nor is the picture of a comparison,
    of this one in ``output`` or of an earlier one.
    """
    picture = (output / PICTURE).resolve()
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(map(_is_hidden, file.relative_to(folder).parts))
        and not (file.name == PICTURE and (file.resolve() == picture or is_own(file)))
    )


def list_images(folder: Path, output: Path) -> ClassFolders:
    """The images of a folder, sorted by class and path, and the class of each.

    Folders called train and val (beside test) are no classes: the classes lie below them, and the
    images of train and val are taken together. Hidden folders, and what an earlier run has written
    to ``output``, are no classes and images.

    Raises:
        ValueError: fewer than two classes, a class folder without images, folders that are parts of
            a data set, or an ``output`` that holds other images.
    """
    folders = _class_folders(folder, output)
    splits = _splits(folders)
    notes = []
    if splits:
        for split in splits:
            if not _class_folders(split, output):
                raise ValueError(
                    f"{split} must hold one sub-folder of images for each class; if a table has "
                    f"the classes, give it with --labels FILE"
                )
        names = " and ".join(split.name for split in splits)
        together = " together, because the comparison is a cross-validation" * (len(splits) > 1)
        left = [sub.name for sub in folders if sub not in splits]
        notes.append(f"{names} taken{together}")
        notes += [f"left out: {', '.join(left)}"] if left else []
        folders = [sub for split in splits for sub in _class_folders(split, output)]
    elif folders and all(_PART.fullmatch(sub.name) for sub in folders):
        raise ValueError(
            f"{folder} holds parts of a data set, {examples([sub.name for sub in folders])}, and "
            f"no folders of classes: give the table that has the classes{_tables(folder)} with "
            f"--labels FILE"
        )
    of_class: dict[str, list[Path]] = {}
    for sub in folders:
        of_class.setdefault(sub.name, []).extend(_images_of_class(sub, output))
    of_class = {name: files for name, files in sorted(of_class.items()) if files}
    if len(of_class) < 2:
        inner = [sub for sub in folders if len(_class_folders(sub, output)) > 1]
        hint = f"; give {inner[0]}, if its folders are the classes" if len(inner) == 1 else ""
        raise ValueError(
            f"{folder} must hold one sub-folder of images for each of at least two classes, "
            f"got {len(of_class)}{hint}; if a table has the classes, give it with --labels FILE"
        )
    return ClassFolders(
        [file for files in of_class.values() for file in files],
        [name for name, files in of_class.items() for _ in files],
        "; ".join(notes),
    )


def _splits(folders: Sequence[Path]) -> list[Path]:
    """Those of training and validation, if the folders are splits; a class may be called train."""
    kinds = {sub: match[1].lower()[:3] for sub in folders if (match := _SPLIT.fullmatch(sub.name))}
    if "tra" not in kinds.values() or (len({*kinds.values()}) == 1 and len(folders) > 1):
        return []
    return [sub for sub, kind in kinds.items() if kind != "tes"]


def examples(names: Sequence[object]) -> str:
    """The first of many names."""
    return ", ".join(map(str, names[:3])) + ", ..." * (len(names) > 3)


def _tables(folder: Path) -> str:
    """The tables that are there, for a message."""
    tables = [
        f for f in sorted(folder.iterdir()) if f.suffix.lower() in (".csv", ".tsv", ".parquet")
    ]
    return f", perhaps {examples(tables)}," if tables else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _OF_SYSTEMS


def _class_folders(folder: Path, output: Path) -> list[Path]:
    """The sub-folders, without those that only hold what this run or an earlier one has written."""
    subs = [sub for sub in sorted(folder.iterdir()) if sub.is_dir() and not _is_hidden(sub.name)]
    written = {(output / name).resolve() for name in ("", RUNS, PARTS)}
    if is_output(folder):
        written |= {(folder / name).resolve() for name in (RUNS, PARTS)}
    return [
        sub
        for sub in subs
        if not (sub.resolve() in written or is_output(sub)) or find_images(sub, output)
    ]


def _images_of_class(sub: Path, output: Path) -> list[Path]:
    """The images below a class folder; none only where the folder was made for the output."""
    found, place = find_images(sub, output), output.resolve()
    holds_output = place.is_relative_to(sub.resolve())
    if holds_output and any(file.resolve().is_relative_to(place) for file in found):
        raise ValueError(
            f"{output} lies in {sub.parent} and holds images, which would become a class or a part "
            f"of one: give another folder with --output"
        )
    if not found and not holds_output:
        raise ValueError(f"the class folder {sub} holds no image")
    return found
