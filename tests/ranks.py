"""How the tests start several processes, and how these end."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(
    work: Callable[[int, int, str], None], world: int, folder: str, *, seconds: int = 20
) -> None:
    """Call ``work(rank, world, folder)`` in so many processes of one gloo group.

    ``seconds`` is how long one waits for another, also for what it imports.
    """
    mp.spawn(_enter, (work, world, folder, seconds), nprocs=world)


def _enter(
    rank: int, work: Callable[[int, int, str], None], world: int, folder: str, seconds: int
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=seconds),
    )
    work(rank, world, folder)
    # not by the interpreter's end, where torch may wait for ever: the destructor of a group joins a
    # thread that waits for the interpreter's lock, to free the tensors of its last collective
    os._exit(0)
