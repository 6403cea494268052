"""Selecting half of M samples: ours, and what one would write with torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.measure import Report, Table, clock, median_ratio, take_turns
from sampleweights.selection import select

SIZES = [20, 64, 1024, 4096, 65536, 2**18, 2**20, 2**22, 2**24]
NUM_CLASSES = 19


def _mask(loss: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(loss, dtype=torch.bool).index_fill_(0, index, True)


def candidates(loss: Tensor, target: Tensor) -> dict[str, Callable[[], Any]]:
    m = loss.numel() // 2
    fraction = torch.full((), 0.5, dtype=torch.float64, device=loss.device)
    found = {
        "select": lambda: select(loss, fraction, largest=True),
        "select per class": lambda: select(loss, fraction, largest=True, group=target),
        "topk": lambda: _mask(loss, loss.topk(m, sorted=False).indices),
        "stable sort": lambda: _mask(loss, loss.sort(stable=True, descending=True).indices[:m]),
    }
    if loss.device.type == "cpu":
        found["kthvalue"] = lambda: loss >= loss.kthvalue(loss.numel() - m + 1).values
    return found


def run(report: Report, seconds: float) -> None:
    table = Table(
        f"Half of M samples, {NUM_CLASSES} classes",
        "`select`: milliseconds, the median; the others: the median of their ratio to it in the "
        "same round. All but ours leave ties, NaN and ignored samples to chance.",
        ["M", "select, ms"],
    )
    generator = torch.Generator().manual_seed(0)
    with tqdm(SIZES, unit="size") as bar:
        for size in bar:
            loss = torch.rand(size, generator=generator).log().neg().to(report.device)
            target = torch.randint(NUM_CLASSES, (size,), generator=generator).to(report.device)
            calls = {k: clock(f, report.device) for k, f in candidates(loss, target).items()}
            times = {
                name: [t for (t,) in results]
                for name, results in take_turns(calls, seconds, bar, at_least=3).items()
            }
            base = times.pop("select")
            table.columns[2:] = [f"{name}, x" for name in times]
            ratios = [median_ratio(t, base) for t in times.values()]
            table.rows.append([f"{size:,}", f"{1e3 * statistics.median(base):.3g}", *ratios])
    report.add(table)
