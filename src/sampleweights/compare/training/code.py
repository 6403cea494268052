"""Code as part of a digest: functions, classes and modules, as far as they reach."""

from __future__ import annotations

import functools
import hashlib
import io
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampleweights.compare.training.origins import (
    code_of,
    file_of,
    imported,
    modules_within,
    version_of,
)

__all__ = ["CannotTell", "CodeReader", "is_empty", "is_found", "is_output"]

HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE, which classes that are constants of C code lack."""
FIELDS = ("__slots__", "__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__")
"""Where classes keep what their authors said of their fields; pydantic has defaults only there."""
DYNAMO_ID = "_torchdynamo_wrapper_id"
"""An address, which torch.compile notes on what it makes."""


class CannotTell(TypeError):
    """Nothing says what an object is, so that two of them cannot be told apart."""


class CodeReader(ABC):
    """Writes down code, each part with its length, and digests what it wrote.

    Functions, classes and modules are read after all that is met before them: a chain of calls is
    longer than Python's recursion may be deep.
    """

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.files: set[Path] = set()
        self.version_of = functools.cache(version_of)  # for as long as this reads
        self.path: list[object] = []
        self.later: list[tuple[list[object], Callable[[Any], None], Any]] = []

    @abstractmethod
    def add(self, value: Any) -> None:
        """Any object."""

    @abstractmethod
    def add_attributes(self, state: Any) -> None:
        """The state of an object; the order in which attributes were set means nothing."""

    def put(self, *parts: object) -> None:
        for part in parts:
            data: Any = part
            if not isinstance(part, (bytes, memoryview)):
                data = str(part).encode("utf-8", "surrogatepass")
            self.digest.update(b"%d:" % len(data))
            self.digest.update(data)

    def add_at(self, place: object, value: Any) -> None:
        """A part of something; the place is for what an error says."""
        self.path.append(place)
        self.add(value)
        self.path.pop()

    def place(self) -> str:
        parts = [f".{part}" if isinstance(part, str) else f"[{part!r}]" for part in self.path]
        return "".join(parts).removeprefix(".") or "an input"

    def after(self, add: Callable[..., None], value: Any) -> None:
        self.later.append(([*self.path], add, value))

    def is_installed(self, what: Any) -> bool:
        """Whether a package has a function or class under its name, whose version then says it."""
        module = what.__module__ or "builtins"
        version = self.version_of(module)
        static = isinstance(what, type) and not what.__flags__ & HEAP_TYPE
        if not static and (version is None or found_by_name(what.__qualname__, module) is not what):
            return False
        self.put("installed", module, what.__qualname__, version or "")
        if version is None:
            self.after(self.add_source, module)
        return True

    def add_function(self, function: types.FunctionType) -> None:
        if not self.is_installed(function):
            name = function.__qualname__.rpartition("<locals>.")[2]
            self.later.append(([name], self.add_body, function))

    def add_body(self, function: types.FunctionType) -> None:
        code = function.__code__
        self.add_code(code)
        self.add(function.__defaults__)
        self.add_attributes(function.__kwdefaults__)
        self.add_attributes({n: v for n, v in vars(function).items() if n != DYNAMO_ID})
        self.put(len(code.co_freevars))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self.add_at(name, cell)
        # not that of __module__, which a decorator changes: this is the code's own
        version = self.version_of(str(function.__globals__.get("__name__", "")))
        self.put(version or "")
        if version is None:
            self.add_reached(code, function.__globals__)

    def add_code(self, code: types.CodeType) -> None:
        self.put("code", code.co_code, getattr(code, "co_exceptiontable", b""), code.co_flags)
        self.put(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        self.put(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.put(len(code.co_consts))
        for constant in code.co_consts:
            self.add(constant)

    def add_reached(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        """The globals that code names, and the modules that it imports."""
        names = names_of(code)
        named = sorted(names & namespace.keys())
        self.put("globals", len(named))
        for name in named:
            self.put(name)
            self.add_at(name, namespace[name])
            if isinstance(namespace[name], types.ModuleType):
                self.add_named(namespace[name], names, set())
        for module in imported(code, str(namespace.get("__package__") or "")):
            self.add_source(module)

    def add_named(self, module: types.ModuleType, names: set[str], met: set[int]) -> None:
        """What code names of a module of the user's own, as it is now: it may have been set."""
        if id(module) in met or self.version_of(module.__name__) is not None:
            return
        met.add(id(module))
        for name in sorted(names & vars(module).keys()):
            self.put(name)
            self.add_at(name, vars(module)[name])
            if isinstance(vars(module)[name], types.ModuleType):
                self.add_named(vars(module)[name], names, met)

    def add_module(self, module: types.ModuleType) -> None:
        self.put(module.__name__)
        self.after(self.add_source, module.__name__)
        if getattr(module, "__file__", None) is None and self.version_of(module.__name__) is None:
            self.add_attributes({n: v for n, v in vars(module).items() if not is_dunder(n)})

    def add_source(self, module: str) -> None:
        """A module's version; or its code, and that of what it imports."""
        version = self.version_of(module)
        file = None if version else file_of(module)
        self.put("module", module, version or "")
        if version or file is None or not file.is_file() or file in self.files:
            return
        self.files.add(file)
        data = file.read_bytes()
        code = code_of(data) if file.suffix == ".py" else None
        if code is None:
            self.put(data)
            return
        self.add_code(code)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        others = imported(code, package)
        if "__getattr__" in code.co_names and file.name == "__init__.py":
            others += modules_within(module, file)  # it may import any of them when it is asked
        for other in others:
            self.after(self.add_source, other)

    def add_class(self, cls: type) -> None:
        if not self.is_installed(cls):
            self.put(cls.__module__, cls.__qualname__)
            self.after(self.add_members, cls)

    def add_members(self, cls: type) -> None:
        self.put("class")
        self.add(type(cls))
        self.add(cls.__bases__)
        self.path = [cls.__qualname__]
        self.add_attributes({n: v for n, v in vars(cls).items() if is_written(n, v)})


def names_of(code: types.CodeType) -> set[str]:
    """What code and the functions within it read by name: globals, and attributes."""
    inner = [names_of(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)


def found_by_name(name: str, module: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def is_found(value: Any, name: str, module: str) -> bool:
    """Whether an object has its name in its module, or in that of an extension beside it."""
    if found_by_name(name, module) is value:
        return True
    loaded = [getattr(other, "__dict__", {}) for other in [*sys.modules.values()]]
    return any(names.get(name) is value for names in loaded)


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def is_written(name: str, value: Any) -> bool:
    """Whether the author of a class wrote a member; Python and its modules write others."""
    if name in ("_abc_impl", "__annotate__", "__annotate_func__"):
        return False
    return not is_dunder(name) or name in FIELDS or callable(value) or is_method(value)


def is_method(value: Any) -> bool:
    return isinstance(value, (classmethod, staticmethod, property))


def is_output(value: Any) -> bool:
    """Whether an object is a stream into which one can only write, as ``sys.stderr`` is."""
    return isinstance(value, io.IOBase) and value.writable() and not value.readable()


def is_empty(cell: types.CellType) -> bool:
    """Whether a name is not bound yet."""
    try:
        cell.cell_contents  # noqa: B018
        return False
    except ValueError:
        return True
