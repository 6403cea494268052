"""The files that the command writes; what it did not write itself, it does not replace."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = [
    "FEATURES", "MARK", "PAGE", "PARTS", "PICTURE", "RUNS", "SUSPICIOUS", "TABLE", "check_output",
    "is_output", "is_own", "remove_own", "replacing",
]  # fmt: skip

TABLE, PICTURE, PAGE = "table.csv", "comparison.png", "comparison.html"
FEATURES = "features.npz"
"""Of a folder of images."""
PARTS = "features"
"""The folder that has parts of these features while they are computed."""
SUSPICIOUS = "suspicious_labels.csv"
"""Where labels look wrong."""
RUNS = "runs"
"""The folder of finished runs, whose names say what they are of."""
MARK = "written by sampleweights.compare"
"""In the page and the picture; tables and features are known by their columns and names."""


def check_output(folder: Path, inputs: Sequence[Path]) -> None:
    """See before the training that nothing of the user's would be replaced after it.

    Args:
        folder: where the table, the picture and the page are written.
        inputs: what is read; also an earlier table is not replaced by what is computed from it.

    Raises:
        ValueError: a file with one of these names is an input, or was not written by the command.
    """
    for name in (TABLE, PICTURE, PAGE, SUSPICIOUS):
        path = folder / name
        for given in inputs:
            if path.exists() and given.exists() and path.samefile(given):
                raise ValueError(f"{path} would be replaced, and is an input: {_ANOTHER}")
        _check_replaceable(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The file to write, which takes the place of ``path`` when it is whole.

    A link is replaced, and not what it leads to.

    Raises:
        ValueError: there is a file that was not written by the command.
    """
    _check_replaceable(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        _check_replaceable(path)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_output(folder: Path) -> bool:
    """Whether the command has written into a folder, this time or an earlier one."""
    files = [folder / name for name in (PAGE, PICTURE, TABLE, FEATURES)]
    return any(is_own(path) for path in (*files, *(folder / PARTS).glob("*.npz")))


def remove_own(path: Path) -> None:
    """Remove what an earlier run has written, and nothing else."""
    if path.exists() and is_own(path):
        path.unlink()


_ANOTHER = "give another folder with --output"


def _check_replaceable(path: Path) -> None:
    if path.exists() and not is_own(path):
        raise ValueError(
            f"{path} would be replaced, and was not written by this command: move it, or {_ANOTHER}"
        )


def is_own(path: Path) -> bool:
    """Whether the command has written this file, as its name and content tell."""
    try:
        if path.name == FEATURES or (path.parent.name == PARTS and path.suffix == ".npz"):
            with np.load(path, allow_pickle=False) as archive:
                return "signature" in archive.files
        with path.open("rb") as stream:
            start = stream.read(2**16)
    except Exception:  # a folder, or what no archive is: whatever it is, it is not ours
        return False
    if path.name == TABLE:
        of_classes, of_labels = b"row,accuracy,accuracy_low,", b"row,average_precision,average_"
        return start.startswith((of_classes, of_labels))
    if path.name == SUSPICIOUS:
        return start.startswith(b"index,label,predicted,score")
    # a page of the user's own may quote the words, but not as a comment of its markup
    mark = f"<!-- {MARK} -->" if path.name == PAGE else MARK
    return mark.encode() in start
