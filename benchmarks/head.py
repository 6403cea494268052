"""A linear head and its loss without all of the logits: ours, and what torch and Liger have."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import sampleweights as sw
from benchmarks.measure import Report, Table, clock, median_ratio, peak_memory, take_turns

SIZES = [(4096, 256, 32_000), (2048, 1024, 50_000)]
"""Rows, features and classes."""

Loss = Callable[[Tensor, Tensor], Tensor]


def candidates(head: nn.Linear, rows: int, device: str) -> dict[str, Loss]:
    """Each takes hidden states and targets; the first is plain."""
    weight, classes = head.weight, head.out_features
    counts = torch.arange(1, classes + 1)
    of_row = torch.rand(rows, generator=torch.Generator().manual_seed(1)).to(device)
    make = sw.LinearCrossEntropyLoss.from_linear
    balanced, weighted = make(head, weighter=sw.ClassBalanced(counts)), make(head)
    found: dict[str, Loss] = {
        "F.cross_entropy(F.linear(x, W), t)": lambda x, t: F.cross_entropy(F.linear(x, weight), t)
    }
    theirs: Any = getattr(F, "linear_cross_entropy", None)
    if theirs is not None:
        options = nn.LinearCrossEntropyOptions()
        found |= {
            "F.linear_cross_entropy": lambda x, t: theirs(x, weight, t),
            "F.linear_cross_entropy, chunked": lambda x, t: theirs(x, weight, t, options=options),
            'the same, "none", times weights of tokens': lambda x, t: (
                theirs(x, weight, t, options=options, reduction="none") * of_row
            ).mean(),
        }
    if device == "cuda" and importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss()
        found["Liger's fused loss"] = lambda x, t: liger(weight, x, t)
    return found | {
        "ours": make(head),
        "ours, ClassBalanced": balanced,
        "ours, sample_weight": lambda x, t: weighted(x, t, sample_weight=of_row),
        "ours, Confidence": make(head, weighter=sw.Confidence()),
        "ours, gamma=2": make(head, gamma=2.0),
        "ours, LDAM": make(head, margin=sw.LDAM(counts)),
        "ours, LogitAdjustment": make(head, margin=sw.LogitAdjustment(counts)),
        "ours, label_smoothing=0.1": make(head, label_smoothing=0.1),
        "ours, OHEM, 50 %": make(head, weighter=sw.OHEM(schedule=0.5)),
        "ours, OHEM, 25 %": make(head, weighter=sw.OHEM(schedule=0.25)),
    }


def run(report: Report, seconds: float) -> None:
    dtypes = [torch.float32]
    if report.device == "cuda" or torch.cpu._is_amx_tile_supported():
        dtypes.append(torch.bfloat16)  # without these units it is slower than float32
    cases = [(size, dtype) for dtype in dtypes for size in SIZES]
    with tqdm(cases, unit="case") as bar:
        for size, dtype in bar:
            report.add(_table(report, size, dtype, seconds, bar))


def _table(
    report: Report, size: tuple[int, int, int], dtype: torch.dtype, seconds: float, bar: tqdm
) -> Table:
    rows, features, classes = size
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(features, classes, bias=False, dtype=dtype, device=report.device)
    hidden = torch.randn(rows, features, generator=generator).to(report.device, dtype)
    hidden.requires_grad_()
    target = torch.randint(0, classes, (rows,), generator=generator).to(report.device)
    name = str(dtype).removeprefix("torch.")
    table = Table(
        f"({rows:,}, {features:,}) times ({classes:,}, {features:,}), {name}",
        "Loss and gradients of hidden states and head. Time: the median, and the median of the "
        "ratio to plain in the same round. Memory: the most that a call holds beyond its inputs, "
        "with the two gradients and without.",
        ["", "seconds", "to plain, x", "MiB", "to plain, x", "beyond the gradients, MiB"],
    )

    def call(loss: Loss) -> Callable[[], None]:
        def once() -> None:
            hidden.grad = head.weight.grad = None
            loss(hidden, target).backward()  # type: ignore[no-untyped-call]

        return once

    losses = {name: call(loss) for name, loss in candidates(head, rows, report.device).items()}
    calls = {name: clock(once, report.device) for name, once in losses.items()}
    times = {
        name: [t for (t,) in results]
        for name, results in take_turns(calls, seconds, bar, at_least=3).items()
    }
    gradients = (hidden.numel() + head.weight.numel()) * dtype.itemsize
    plain, of_plain = next(iter(losses)), 0
    for name, once in losses.items():
        hidden.grad = head.weight.grad = None
        memory = peak_memory(once, report.device)
        of_plain = of_plain or memory
        table.rows.append(
            [
                name, f"{statistics.median(times[name]):.3g}",
                median_ratio(times[name], times[plain]), f"{memory / 2**20:,.0f}",
                f"{memory / of_plain:.3f}", f"{(memory - gradients) / 2**20:,.0f}",
            ]
        )  # fmt: skip
    return table
