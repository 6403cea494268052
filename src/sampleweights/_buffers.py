"""A module whose float64 buffers are exact values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sampleweights._eager import plain


class ExactBuffers(nn.Module):
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
