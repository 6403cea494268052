"""A digest of whatever a run depends on, so that a changed input never reads an old run."""

from __future__ import annotations

import copyreg
import functools
import io
import pickle
import threading
import types
import warnings
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from sampleweights.compare.training import code
from sampleweights.compare.training.code import CannotTell, CodeReader

__all__ = ["CannotTell", "fingerprint"]

SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
LOCKS = (type(threading.Lock()), type(threading.RLock()))
BY_ROW = ("crow_indices", "col_indices", "values")
BY_COLUMN = ("ccol_indices", "row_indices", "values")
COMPRESSED = {
    torch.sparse_csr: BY_ROW, torch.sparse_bsr: BY_ROW,
    torch.sparse_csc: BY_COLUMN, torch.sparse_bsc: BY_COLUMN,
}  # fmt: skip
NAMED_BY_C = (
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)


def fingerprint(*what: Any) -> str:
    """64 hexadecimal digits that differ when anything of ``what`` differs.

    Arrays, tensors and tables count by value, functions by their code, defaults, closures and the
    globals that they name, modules of the user's own by their code and that of what they import,
    installed packages by their version, and other objects by their class and by what ``copy``
    and ``pickle`` ask them for. The digest is the same in another process. What a function reads
    from a file or from a device is not seen.

    Raises:
        CannotTell: there is an object of which none of these is known, such as an open file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages whose objects are asked for their state
        return Reader().read(what).hex()


class Reader(CodeReader):
    """Writes down objects and what they hold.

    What was met before is written as its number, so that cycles end, and so that tied weights
    differ from equal ones.
    """

    def __init__(self, before: Reader | None = None) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no id is given to two objects
        if before is not None:
            self.seen, self.files, self.path = {**before.seen}, {*before.files}, [*before.path]

    def read(self, what: Iterable[Any]) -> bytes:
        try:
            self.add(list(what))
            for path, add, value in self.later:  # which grows meanwhile
                self.path = path
                self.put("then")
                add(value)
        except CannotTell:
            raise
        except Exception as error:  # objects of others may raise anything when they are asked
            raise CannotTell(
                f"{self.place()} cannot be read ({type(error).__name__}: {error})"
            ) from error
        return self.digest.digest()

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind in SCALARS:
            self.put(kind.__name__, value if kind in (bytes, str) else repr(value))
            return
        self.put(kind.__module__, kind.__qualname__)
        if kind is tuple or kind is frozenset:  # the compiler may make one of equal constants
            self.add_items(value) if kind is tuple else self.add_set(value)
            return
        if isinstance(value, np.generic):
            self.add_array(np.asarray(value))
            return
        if id(value) in self.seen:
            self.put("seen", self.seen[id(value)])
            return
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        if kind is list:
            self.add_items(value)
        elif kind is dict or kind is types.MappingProxyType:
            self.add_pairs(value.items())
        elif kind is set:
            self.add_set(value)
        elif kind is types.FunctionType:
            self.add_function(value)
        elif isinstance(value, type):
            self.add_class(value)
        elif isinstance(value, types.ModuleType):
            self.add_module(value)
        elif kind is types.CodeType:
            self.add_code(value)
        elif kind is types.MethodType:
            self.add_items((value.__func__, value.__self__))
        elif kind is types.CellType:
            self.put("empty") if code.is_empty(value) else self.add(value.cell_contents)
        elif kind in (classmethod, staticmethod):
            self.add(value.__func__)
        elif kind is property:
            self.add_items((value.fget, value.fset, value.fdel))
        elif kind is functools.cached_property:
            self.add(value.func)
        elif kind in NAMED_BY_C:
            self.put(value.__objclass__.__qualname__, value.__name__)
        elif kind is weakref.ref:
            self.add(value())
        elif kind in LOCKS or code.is_output(value):
            pass  # no two differ in what they give to a training
        elif isinstance(value, torch.Tensor):
            self.add_tensor(value)
        elif isinstance(value, torch.Generator):
            self.add_items((str(value.device), value.get_state()))
        elif isinstance(value, np.ndarray):
            self.add_array(value)
            if kind not in (np.ndarray, np.memmap):
                self.add_items((kind, getattr(value, "__dict__", None)))
        elif isinstance(value, (pd.DataFrame, pd.Series, pd.Index)):
            self.add_table(value)
        elif isinstance(value, nn.Module):
            self.add(kind)
            self.add_attributes(attributes_of_module(value))
        else:
            self.add_object(value)

    # --------------------------------------------------------------------------------------------
    # Containers
    # --------------------------------------------------------------------------------------------

    def add_items(self, values: list[Any] | tuple[Any, ...]) -> None:
        if SCALARS.issuperset(map(type, values)):  # a million of them at once
            self.put("scalars", pickled(list(values)))
            return
        self.put(len(values))
        for place, value in enumerate(values):
            self.add_at(place, value)

    def add_pairs(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """In their order, which may be one of layers."""
        pairs = list(pairs)
        self.add_items([key for key, _ in pairs])
        for key, value in pairs:
            self.add_at(key, value)

    def add_set(self, values: Iterable[Any]) -> None:
        """In no order: each item by itself, as if the others were not there."""
        if SCALARS.issuperset(map(type, values)):
            found = sorted(pickled([value]) for value in values)
        else:
            found = sorted(Reader(self).read([value]) for value in values)
        self.put(len(found), *found)

    def add_attributes(self, state: Any) -> None:
        """The state of an object; the order in which attributes were set means nothing."""
        if isinstance(state, dict) and all(type(name) is str for name in state):
            self.add_pairs(sorted(state.items(), key=lambda item: item[0]))
        else:
            self.add(state)

    # --------------------------------------------------------------------------------------------
    # Values
    # --------------------------------------------------------------------------------------------

    def add_array(self, value: NDArray[Any]) -> None:
        value = np.asarray(value)
        self.put(value.dtype, value.shape)
        if value.dtype.names is not None and not value.dtype.hasobject:
            for name in value.dtype.names:  # there may be anything between the fields
                self.add_array(value[name])
        elif value.dtype.kind in "OT" or value.dtype.hasobject or value.dtype.char in "gG":
            # objects; and long doubles, which are shorter than their place
            flat = value.reshape(-1)
            self.add_items(flat.astype(str).tolist() if value.dtype.char in "gG" else flat.tolist())
        else:
            data = np.ascontiguousarray(value).reshape(-1)
            self.put(data.view(np.uint8).data if data.nbytes else b"")

    def add_tensor(self, value: torch.Tensor) -> None:
        if value.is_nested:  # has no shape
            self.add_items([value.layout, value.requires_grad, *value.detach().unbind()])
            return
        self.put(value.dtype, tuple(value.shape), value.device.type, value.requires_grad)
        if type(value) not in (torch.Tensor, nn.Parameter):
            self.add(type(value))
        self.add(getattr(value, "__dict__", None) or None)
        plain = value.detach()
        try:
            if plain.layout is torch.sparse_coo:
                plain = plain.coalesce()
                self.add_items((plain.indices(), plain.values()))
                return
            if plain.layout in COMPRESSED:
                places = COMPRESSED[plain.layout]
                self.add_items([str(plain.layout), *(getattr(plain, n)() for n in places)])
                return
            plain = plain.cpu().resolve_conj().resolve_neg().contiguous().view(-1)
            data = plain.view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise self.cannot_tell(value, error) from error
        self.put(data.data)

    def add_table(self, value: Any) -> None:
        """Names, labels, types and values; whatever way pandas holds them in memory."""
        if isinstance(value, pd.Index):
            self.add_index(value)
            return
        self.add_attributes(dict(value.attrs))
        if type(value) not in (pd.DataFrame, pd.Series):  # of geopandas, or the user's own
            self.add(type(value))
            self.add_attributes({n: getattr(value, n, None) for n in value._metadata})
        self.add_index(value.index)
        if isinstance(value, pd.Series):
            self.add(value.name)
            self.add_column(value)
            return
        self.add_index(value.columns)
        of_dtype: dict[Any, list[int]] = {}
        for place, dtype in enumerate(value.dtypes):
            of_dtype.setdefault(dtype, []).append(place)
        for dtype, places in of_dtype.items():
            self.add_items([str(dtype), *places])
            if isinstance(dtype, np.dtype):  # one call for a thousand columns
                part = value if len(of_dtype) == 1 else value.iloc[:, places]
                self.add_array(part.to_numpy())
            else:
                for place in places:
                    self.add_column(value.iloc[:, place])

    def add_index(self, index: Any) -> None:
        """Written out each time, since it cannot change: whether it is shared says nothing."""
        self.add_items([*index.names, index.nlevels])
        for level in range(index.nlevels):
            self.add_column(index.get_level_values(level))

    def add_column(self, column: Any) -> None:
        dtype = column.dtype
        self.put(dtype.name)
        if isinstance(dtype, np.dtype):
            self.add_array(column.to_numpy())
        elif isinstance(dtype, pd.CategoricalDtype):
            values = pd.Categorical(column)
            self.put(bool(dtype.ordered))
            self.add_index(dtype.categories)
            self.add_array(values.codes)
        elif isinstance(dtype, pd.StringDtype):
            self.add_items(column.array.to_numpy(dtype=object, na_value=None).tolist())
        else:
            self.add(column.array)

    # --------------------------------------------------------------------------------------------
    # Anything else
    # --------------------------------------------------------------------------------------------

    def add_object(self, value: Any) -> None:
        """What an object tells ``pickle``: how it is made, from what, and its state."""
        kind = type(value)
        if isinstance(value, threading.Thread):  # has numbers of its process
            raise self.cannot_tell(value, "it is a thread")
        reduce = copyreg.dispatch_table.get(kind)
        made: Any
        try:
            if type(getattr(value, "__self__", None)).__name__ == "PyCapsule":
                made = value.__name__  # a function of pybind11, whose capsule says nothing
            else:
                made = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except Exception as error:
            raise self.cannot_tell(value, error) from error
        if isinstance(made, str):  # by its name
            module = getattr(value, "__module__", None) or kind.__module__
            wrapped = getattr(value, "__wrapped__", None)
            if wrapped is None and not code.is_found(value, made, module):
                raise self.cannot_tell(value, f"no module has it as {made}")
            self.put("name", made, module, self.version_of(module) or "")
            if self.version_of(module) is None:
                self.add(kind)
                self.after(self.add_source, module)
            self.add(wrapped)
            return
        maker, arguments, state, items, pairs = (*made, None, None, None)[:5]
        self.add_items([maker, tuple(arguments or ())])
        if isinstance(state, tuple) and len(state) == 2:  # that of __dict__, that of __slots__
            self.put("two")
            self.add_attributes(state[0])
            self.add_attributes(state[1])
        else:
            self.add_attributes(state)
        self.add_items(list(items or ()))
        self.add_pairs(pairs or ())

    def cannot_tell(self, value: Any, error: object) -> CannotTell:
        kind = type(value)
        return CannotTell(
            f"nothing says what {self.place()} holds, of type {kind.__module__}."
            f"{kind.__qualname__} ({error})"
        )


def pickled(values: list[Any]) -> bytes:
    """The bytes of a list of scalars; the same where two of them are one object."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 4)
    pickler.fast = True
    pickler.dump(values)
    return buffer.getvalue()


def attributes_of_module(module: nn.Module) -> dict[str, Any]:
    """Hooks without their keys, which count all hooks of a process."""
    try:
        state: Any = module.__getstate__()  # type: ignore[no-untyped-call]
    except Exception:  # a parametrized module has none; before Python 3.11 only a few have one
        state = None
    state = state if isinstance(state, dict) else vars(module)
    return {
        name: list(value.values()) if "hooks" in name and isinstance(value, dict) else value
        for name, value in state.items()
    }
