"""A digest of whatever a run depends on, so that a changed input never reads an old run."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["fingerprint"]

INSTALLED = ("torch", "numpy", "sampleweights", "sklearn", "pandas", "lightning", "builtins")
"""Packages whose code is named, not read: their versions stand for it."""
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(*what: Any) -> str:
    """64 hexadecimal digits that differ when anything of ``what`` differs.

    Arrays and tensors count by value, functions by their code, defaults, closures and the globals
    that they name, other objects by their class and attributes. Two objects can be told apart as
    far as that reaches: what a function reads from a file or from a device is not seen.
    """
    digest = hashlib.sha256()
    seen: dict[int, int] = {}
    kept: list[Any] = []  # so that no id is given to two objects

    def put(*parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, (bytes, memoryview)) else str(part).encode()
            digest.update(b"%d:" % len(data))
            digest.update(data)

    def add_bytes(data: NDArray[np.uint8]) -> None:
        put(data.data)

    def add_code(code: types.CodeType) -> None:
        put("code", code.co_code, code.co_names, code.co_varnames)
        for constant in code.co_consts:
            add_code(constant) if isinstance(constant, types.CodeType) else add(constant)

    def names_of(code: types.CodeType) -> set[str]:
        inner = [names_of(c) for c in code.co_consts if isinstance(c, types.CodeType)]
        return set(code.co_names).union(*inner)

    def add_function(function: types.FunctionType) -> None:
        if is_installed(function):
            return
        add_code(function.__code__)
        add(function.__defaults__, function.__kwdefaults__)
        add([cell.cell_contents for cell in function.__closure__ or () if not is_empty(cell)])
        for name in sorted(names_of(function.__code__) & function.__globals__.keys()):
            put(name)
            add(function.__globals__[name])

    def add_class(cls: type) -> None:
        if is_installed(cls):
            return
        for name, value in sorted(vars(cls).items(), key=lambda item: item[0]):
            if name not in ("__dict__", "__weakref__", "__module__", "__doc__"):
                put(name)
                add(value)
        for base in cls.__bases__:
            add(base)

    def add(*values: Any) -> None:
        for value in values:
            add_one(value)

    def add_one(value: Any) -> None:
        kind = type(value)
        put(kind.__module__, kind.__qualname__)
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            put(repr(value))
            return
        if not isinstance(value, tuple):  # the compiler may make one of equal constants, or not
            if id(value) in seen:  # again, or within itself
                put("seen", seen[id(value)])
                return
            seen[id(value)] = len(seen)
            kept.append(value)
        if isinstance(value, torch.Tensor):
            put(value.dtype, tuple(value.shape))
            add_bytes(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        elif isinstance(value, np.ndarray) and value.dtype != object:
            put(value.dtype, value.shape)
            add_bytes(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                add(key, item)
        elif isinstance(value, (set, frozenset)):
            put(*sorted(map(repr, value)))
        elif isinstance(value, (list, tuple)):
            put(len(value))
            add(*value)
        elif isinstance(value, types.FunctionType):
            put(value.__module__, value.__qualname__)
            add_function(value)
        elif isinstance(value, types.MethodType):
            add(value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            add(value.func, value.args, value.keywords)
        elif isinstance(value, (classmethod, staticmethod)):
            add(value.__func__)
        elif isinstance(value, property):
            add(value.fget)
        elif isinstance(value, type):
            put(value.__module__, value.__qualname__)
            add_class(value)
        elif isinstance(value, types.ModuleType):
            put(value.__name__)
            file = getattr(value, "__file__", None)
            if file and not is_named(value.__name__) and Path(file).is_file():
                put(Path(file).read_bytes())
        elif isinstance(value, types.BuiltinFunctionType):
            put(value.__name__)
        elif isinstance(value, logging.Logger):  # notes what was asked of it
            put(value.name)
        elif hasattr(value, "__array__"):  # a table, a column
            add(list(getattr(value, "columns", ())), np.asarray(value).tolist())
        elif not hasattr(value, "__dict__"):
            put(ADDRESS.sub("", repr(value)))
            for base in kind.__mro__:
                for name in getattr(base, "__slots__", ()):
                    add(name, getattr(value, name, None))
        else:
            add(kind)
            if isinstance(value, nn.Module):
                put(value.training)
            for name, item in sorted(vars(value).items()):
                put(name)
                add(item)

    add(*what)
    return digest.hexdigest()


def is_installed(what: Any) -> bool:
    """Whether a function or class comes with Python or one of the packages that are named."""
    return is_named(what.__module__ or "builtins")


def is_named(module: str) -> bool:
    package = module.partition(".")[0]
    return package in INSTALLED or package in sys.stdlib_module_names - {"__main__"}


def is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
        return False
    except ValueError:  # a name that is not bound yet
        return True
