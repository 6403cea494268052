"""Does reading a value of a tensor cost anything here?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# What torch.func (vmap and its kin) transforms, None outside of it. The name is private: where it
# is missing, everything counts as inside, which is slower and as right.
_transform: Callable[[], Any] = getattr(torch._C._functorch, "peek_interpreter_stack", object)


def is_eager() -> bool:
    """Neither compiled nor transformed by torch.func: what we write is what runs."""
    return not torch.compiler.is_compiling() and _transform() is None


def is_readable(tensor: Tensor) -> bool:
    """Whether reading a value of ``tensor`` costs nothing: eager, on the CPU, no subclass."""
    return tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter) and is_eager()
