"""Modules that TorchScript passes over, and whose float64 buffers are exact values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
        """As in torch; what is built under ``torch.inference_mode`` can be changed later."""
        if tensor is not None and tensor.is_inference():
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
