"""Arrays in the files of NumPy and safetensors."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

ARRAYS = ("features", "target", "groups", "folds")
"""What a file of several arrays may hold of a comparison."""


def read_npy(path: Path) -> NDArray[Any]:
    """An array that stays in its file until it is read."""
    with path.open("rb") as stream:
        if stream.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path} must be an .npy file, as numpy.save writes it")
    try:
        with path.open("rb") as stream:
            _check_size("the array", stream, path.stat().st_size)
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
            members = {m.filename.removesuffix(".npy"): m for m in archive.zip.infolist()}
            if not {"features", "target"} <= members.keys():
                held = ", ".join(members) or "nothing"
                raise KeyError(
                    f"{path} must hold features and target, got {held}: write it with "
                    "numpy.savez(file, features=..., target=...)"
                )
            arrays = {}
            for name in (*ARRAYS, "class_names"):
                if name in members:
                    with archive.zip.open(members[name]) as stream:
                        _check_size(name, stream, members[name].file_size)
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
    except MemoryError:
        raise ValueError(f"{path} cannot be read: {name} does not fit into the memory") from None


def read_safetensors(path: Path) -> dict[str, Any]:
    """Features, targets, and what else of a comparison the file holds."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise ImportError(f"{path} needs safetensors: pip install safetensors") from None
    try:
        with safe_open(path, framework="pt") as stream:  # NumPy has no bfloat16
            held = list(stream.keys())
            if not {"features", "target"} <= {*held}:
                raise ValueError(
                    f"{path} must hold features and target, got {', '.join(held) or 'nothing'}: "
                    "write it with safetensors.torch.save_file({'features': ..., 'target': ...}, "
                    "file)"
                )
            tensors = {name: stream.get_tensor(name) for name in ARRAYS if name in held}
    except SafetensorError as error:
        raise ValueError(f"{path} must be a .safetensors file: {error}") from None
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in tensors.items()
    }


def _check_size(name: str, stream: IO[bytes], size: int) -> None:
    """See that a header is followed by what it says: NumPy would first make room for all of it."""
    version = np.lib.format.read_magic(stream)
    try:
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:  # columns with names in other letters, which are not read here
            return
    except ValueError:
        raise
    except Exception as error:  # of Python's own parser
        raise ValueError(f"the header of {name} is damaged ({error})") from error
    if any(isinstance(size, bool) or not 0 <= size < 2**63 for size in shape):
        raise ValueError(f"the header of {name} says shape {shape}")
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claimed > held and not dtype.hasobject:
        raise ValueError(
            f"the header of {name} says shape {shape} of {dtype}, which is {claimed:,} bytes, but "
            f"{held:,} follow"
        )


def _unreadable(path: Path, name: str, error: ValueError) -> ValueError:
    if "object" in str(error).lower():
        return ValueError(
            f"{path}: {name} holds pickled Python objects, which could run code when they are "
            "read; save it as an array of numbers or strings"
        )
    return ValueError(f"{path} cannot be read: {error}")
