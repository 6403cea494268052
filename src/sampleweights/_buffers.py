"""Modules that TorchScript passes over, exact buffers, and what is computed from them."""

from __future__ import annotations

import array
import functools
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sampleweights._eager import plain

Value = TypeVar("Value")


class Derived(Generic[Value]):
    """A value that is computed from a buffer, and kept while its memory holds the same bytes.

    A collective, ``.data``, a numpy view and an average of models write a buffer without a trace
    that Python could see. So the bytes themselves are compared, which takes a fraction of a
    microsecond for the few values that a buffer on the CPU has. Copies begin with nothing.
    """

    __slots__ = ("_buffer", "_bytes", "_key", "_memory", "_pointer", "_value")

    _bytes: bytes
    _key: Hashable
    _memory: Any
    _pointer: int
    _value: Value

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def get(self, buffer: Tensor, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value for a buffer that ``is_readable``, and for all else that it depends on."""
        if (
            buffer is self._buffer
            and key == self._key
            and buffer.data_ptr() == self._pointer  # before its memory is looked at
            and self._memory.tobytes() == self._bytes
        ):
            return self._value
        self._buffer = None
        with torch.inference_mode(False):  # it may be saved for a backward pass later
            self._value = compute()
        self._key, self._pointer = key, buffer.data_ptr()
        self._memory = buffer.detach().numpy()
        self._bytes = self._memory.tobytes()
        self._buffer = buffer
        return self._value

    def __deepcopy__(self, memo: Any) -> Derived[Value]:
        return Derived()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Derived, ()


@functools.lru_cache(256)
def reciprocal(number: int, dtype: torch.dtype) -> Tensor:
    """``1 / number`` as a tensor ``()`` on the CPU: a factor twice as fast as a Python number."""
    with torch.inference_mode(False):
        return torch.full((), 1 / number, dtype=dtype, device="cpu")


_TYPECODES = {torch.bool: "b", torch.float32: "f", torch.float64: "d"}


def as_tensor(values: list[Any], dtype: torch.dtype) -> Tensor:
    """``torch.tensor``, of a few numbers in a third of the time."""
    if not values:
        return torch.tensor(values, dtype=dtype, device="cpu")
    return torch.frombuffer(array.array(_TYPECODES[dtype], values), dtype=dtype)


def follow(buffer: Tensor, batch: Tensor) -> Tensor:
    """``buffer`` on the device of ``batch``: itself, or a copy of this call.

    So a criterion that was built on the CPU works with logits of any device, as torch's own losses
    do. The buffer stays where it is: moving it would change what others hold of the module. Memory
    that is not pinned is copied to CUDA without waiting for it, and may be freed at once.
    """
    if (buffer.is_cpu and batch.is_cpu) or buffer.device == batch.device:
        return buffer
    if batch.is_mps and buffer.dtype == torch.float64:  # which MPS does not have
        buffer = buffer.float()
    return buffer.to(batch.device, non_blocking=buffer.is_cpu and batch.is_cuda)


_OF_EVERY_MODULE = vars(nn.Module()).keys()


class Unscripted(nn.Module):
    """Base of all losses, weighters and margins: ``torch.jit.script`` leaves them out of a module.

    As with torch's losses, a module that holds one can be scripted and saved, if its ``forward``
    does not call it. TorchScript would compile ``forward`` and properties, in Python that it
    does not know, and read the annotations, which postponed evaluation makes strings.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            torch.jit.unused(vars(cls)["forward"])
        cls.__jit_unused_properties__ = [  # type: ignore[attr-defined]
            name for name in dir(cls) if isinstance(getattr(cls, name, None), property)
        ]

    @property
    def __jit_ignored_attributes__(self) -> list[str]:
        own = vars(self).keys() - _OF_EVERY_MODULE
        held = {*self._parameters, *self._buffers, *self._modules}
        return [*type(self).__jit_unused_properties__, *own, *held]  # type: ignore[attr-defined]


class ExactBuffers(Unscripted):
    """Base of weighters and margins: casts of the module do not round its float64 buffers."""

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """As in torch; what is built under ``torch.inference_mode`` can be changed later.

        A state is loaded where the packages of its subclasses are not: buffers are plain.
        """
        if tensor is not None:
            tensor = plain(tensor)
            if tensor.is_inference():
                with torch.inference_mode(False):
                    tensor = tensor.clone()
        super().register_buffer(name, tensor, persistent)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # float64 buffers are exact values (fractions, class weights), cast where they are used:
        # they follow the device, but `.half()` or `.to(dtype)` does not round them
        exact = [b for b in self._buffers.values() if b is not None and b.dtype == torch.float64]

        def keep_exact(tensor: Tensor) -> Tensor:
            if not any(tensor is buffer for buffer in exact):
                return fn(tensor)
            try:
                moved = fn(tensor)
            except TypeError:  # MPS has no float64
                return fn(tensor.float())
            return moved if moved.dtype == torch.float64 else tensor.to(moved.device)

        super()._apply(keep_exact, recurse)  # type: ignore[no-untyped-call]
        return self
