"""The processes that share a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def world_size(group: ProcessGroup | None = None) -> int:
    """How many processes share a batch; 1 where ``torch.distributed`` is not initialised."""
    if not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size(group)


class Group:
    """A process group: copies share it, and a pickle, which can hold none, means all processes."""

    def __init__(self, value: ProcessGroup | None) -> None:
        self.value = value

    def __deepcopy__(self, memo: Any) -> Group:
        return self

    def __reduce__(self) -> tuple[type[Group], tuple[None]]:
        return Group, (None,)
