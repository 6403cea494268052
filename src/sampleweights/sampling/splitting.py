"""Which part of the indices a process sees, and who else divides them."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

import torch.distributed as dist

from sampleweights._checks import as_whole_number

ADVICE = {
    "_DatasetSamplerWrapper": "Lightning's Trainer: pass it use_distributed_sampler=False",
    "BatchSamplerShard": "Accelerate: pass num_replicas=1, rank=0 to {sampler}",
    "DataLoaderDispatcher": "Accelerate: pass num_replicas=1, rank=0 to {sampler}",
}
"""By the class that iterates over a sampler; the Hugging Face Trainer uses those of Accelerate."""


def checked_place(num_replicas: int | None, rank: int | None) -> tuple[int | None, int | None]:
    """Number of processes and rank, which are given together or not at all."""
    if (num_replicas is None) != (rank is None):
        raise ValueError(
            f"num_replicas and rank must be given together, got num_replicas={num_replicas}, "
            f"rank={rank}"
        )
    if num_replicas is not None and rank is not None:
        num_replicas = as_whole_number("num_replicas", num_replicas, 1)
        rank = as_whole_number("rank", rank, 0)
        if rank >= num_replicas:
            raise ValueError(f"rank must be below num_replicas ({num_replicas}), got {rank}")
    return num_replicas, rank


def processes(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Number of processes and rank, as given or as torch.distributed says."""
    if num_replicas is not None and rank is not None:
        return num_replicas, rank
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size(), dist.get_rank()
    return 1, 0


def warn_if_divided_again(sampler: str, replicas: int) -> None:
    """Warn if what a sampler, of this name, divided is divided once more by who iterates over it.

    Only the stack says so: these classes hold the sampler, which does not know them.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames else None
        if (advice := ADVICE.get(type(owner).__name__)) is not None:
            warnings.warn(
                f"each process sees a part of its part: {sampler} divides its indices among "
                f"{replicas} processes, and so does {advice.format(sampler=sampler)}",
                stacklevel=2,
            )
            return
        frame = frame.f_back
