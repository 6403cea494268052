"""Does reading a value of a tensor cost anything here, and is the tensor what it looks like?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

# What torch.func (vmap and its kin) transforms, None outside of it. The names are private: where
# one is missing, everything counts as inside, which is slower and as right.
_transform: Callable[[], Any] = getattr(torch._C._functorch, "peek_interpreter_stack", object)
_count_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_count_modes_before_autograd: Callable[[], int] = getattr(
    torch._ops, "_len_torch_dispatch_stack_pre_dispatch", lambda: 1
)
# torch.jit.is_tracing without its overhead; a torch without TorchScript traces nothing
_is_tracing: Callable[[], bool] = getattr(torch._C, "_is_tracing", lambda: False)

# whether a backward pass is one of retain_graph=True, True where nobody says
keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)


def is_eager() -> bool:
    """Whether what we write is what runs, once.

    Not so is code that is compiled, traced, transformed by torch.func, or under a
    TorchDispatchMode, as make_fx and FakeTensorMode are.
    """
    return (
        not torch.compiler.is_compiling()
        and _transform() is None
        and not _is_tracing()
        and _count_modes() == 0
    )


def is_staged() -> bool:
    """Whether this is compiled, exported, traced or transformed by torch.func.

    Under another TorchDispatchMode, as one that counts operations, it is not.
    """
    return torch.compiler.is_compiling() or _transform() is not None or _is_tracing()


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on where ``tensor`` is. The meta device has none: asking is an error."""
    kind = tensor.device.type
    return kind != "meta" and torch.is_autocast_enabled(kind)


def is_tracing() -> bool:
    """Whether torch.jit.trace records what runs."""
    return not torch.compiler.is_compiling() and _is_tracing()


def is_readable(tensor: Tensor) -> bool:
    """Whether reading a value of ``tensor`` costs nothing: eager, on the CPU, no subclass."""
    return tensor.is_cpu and type(tensor) in (Tensor, nn.Parameter) and is_eager()


def is_plain(tensor: Tensor) -> bool:
    """Whether ``tensor`` is eager and its memory holds its values and all there is to know of it.

    Not so are subclasses (fake and distributed tensors among them), the tensors inside of a vmap
    (``is_grads_batched=True`` makes them without torch.func), those without memory, those that
    are negated lazily, and those with a tangent of forward-mode differentiation.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or not is_eager():
        return False
    if _count_modes_before_autograd() or tensor.layout != torch.strided or tensor.is_neg():
        return False
    try:
        in_memory = tensor.data_ptr() != 0
    except RuntimeError:  # a batched tensor
        return False
    if not may_have_tangents():
        return in_memory
    dual = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return in_memory and dual.tangent is None


def plain(tensor: Tensor) -> Tensor:
    """The same values without a subclass that only adds to them, as MONAI's MetaTensor does.

    What computes by itself, as fake and distributed tensors do, stays what it is.
    """
    kind = type(tensor)
    if kind in (Tensor, nn.Parameter) or kind.__torch_dispatch__ != Tensor.__torch_dispatch__:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():  # not as_subclass, which does not compile
        return tensor.view_as(tensor)


def may_have_tangents() -> bool:
    """Whether forward-mode differentiation is on; ``unpack_dual`` takes microseconds to say so."""
    level: int = getattr(forward_ad, "_current_level", 0)
    return level >= 0
