"""What ``global_batch=True`` adds to a step of two processes: milliseconds and bytes."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

import sampleweights as sw
from benchmarks.losses import batch, call
from benchmarks.measure import Report, Table, keep_freed_memory, median_ratio, take_turns

PROCESSES = 2
SHAPES = [(64, 7), (4096, 1000), (1, 19, 256, 256)]
ROUNDS = 50


def work(rank: int, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=PROCESSES,
    )
    found = []
    for shape in SHAPES:
        logits, target = batch(shape, device)
        criteria = {
            flag: sw.CrossEntropyLoss(weighter=sw.OHEM(num_epochs=100), global_batch=flag).to(
                device
            )
            for flag in (False, True)
        }
        sent = _bytes_sent(criteria[True], logits, target)
        calls = {str(flag): call(c, logits, target) for flag, c in criteria.items()}
        # as many rounds on every rank, or one would wait for the other for ever
        times = {
            name: [sum(t) for t in results]
            for name, results in take_turns(calls, 0, at_least=ROUNDS).items()
        }
        found.append((shape, sent, times))
    if rank == 0:
        Path(folder, "times.json").write_text(json.dumps(found))
    # a group's destructor may wait for a thread that waits for the interpreter
    os._exit(0)


def _bytes_sent(criterion: sw.CrossEntropyLoss, logits: torch.Tensor, target: torch.Tensor) -> int:
    """What this rank gives to its collectives, counted where it is given."""
    with (
        mock.patch.object(dist, "all_gather", wraps=dist.all_gather) as all_gather,
        mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce,
    ):
        criterion(logits, target)
    given = [c.args[1] for c in all_gather.call_args_list]
    given += [c.args[0] for c in all_reduce.call_args_list]
    return sum(tensor.numel() * tensor.itemsize for tensor in given)


def run(report: Report, seconds: float) -> None:
    if report.device == "cuda" and torch.cuda.device_count() < PROCESSES:
        raise SystemExit(f"this needs {PROCESSES} GPUs, there are {torch.cuda.device_count()}")
    table = Table(
        f"CrossEntropyLoss with OHEM, {PROCESSES} processes",
        "Forward and backward pass of the loss, on each process the shape given; bytes that one "
        "process sends in a step, against those of its logits.",
        ["logits", "own batch, ms", "global batch, ms", "ratio", "bytes sent", "of the logits, %"],
    )
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (folder, report.device), nprocs=PROCESSES)  # type: ignore[no-untyped-call]
        found = json.loads(Path(folder, "times.json").read_text())
    for shape, sent, times in found:
        own, together = times["False"], times["True"]
        logits_bytes = 4 * torch.Size(shape).numel()
        table.rows.append(
            [
                str(tuple(shape)),
                1e3 * statistics.median(own),
                1e3 * statistics.median(together),
                median_ratio(together, own),
                f"{sent:,}",
                100 * sent / logits_bytes,
            ]
        )
    report.add(table)
