"""Arrays in NumPy's files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray


def read_npy(path: Path) -> NDArray[Any]:
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


def read_npz(path: Path) -> dict[str, Any]:
    """Features, targets, and what else of a comparison the archive holds."""
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
