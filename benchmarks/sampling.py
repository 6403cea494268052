"""Drawing an epoch: WeightedSampler, and torch.multinomial as far as it goes."""

from __future__ import annotations

import statistics
import tracemalloc
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

import sampleweights as sw
from benchmarks.measure import Report, Table, clock, median_ratio, take_turns

SIZES = [10_000, 1_000_000, 10_000_000, 2**24 - 1, 100_000_000]
MULTINOMIAL = 2**24
"""From here on torch.multinomial raises."""


def peak_gigabytes(weight: torch.Tensor, replacement: bool) -> float:
    """What building a sampler and drawing from it hold at most, the sampler's copy included."""
    tracemalloc.start()  # numpy's memory, which torch's profiler does not see
    next(iter(sw.WeightedSampler(weight, replacement=replacement)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (peak + weight.nbytes) / 1e9


def run(report: Report, seconds: float) -> None:
    table = Table(
        "An epoch of N indices from N weights",
        "Exponentially distributed weights, float64. Seconds, the median: building the sampler, "
        "once; then all indices of an epoch as Python numbers. `torch.multinomial`: the median of "
        "the ratio of the sampler's epoch to its time in the same round; it gives a tensor, and "
        "nothing from 2^24 weights on. Memory: the most that is held at once.",
        ["N", "replacement", "build, s", "epoch, s", "to torch.multinomial, x", "memory, GB"],
    )
    with tqdm([(size, kind) for size in SIZES for kind in (True, False)], unit="row") as bar:
        for size, replacement in bar:
            weight = torch.empty(size, dtype=torch.float64).exponential_(
                generator=torch.Generator().manual_seed(0)
            )
            weight.clamp_(min=1e-12)
            sampler = sw.WeightedSampler(weight, replacement=replacement)

            def epoch(sampler: Any = sampler) -> None:
                sampler.set_epoch(sampler.epoch + 1)
                deque(sampler, maxlen=0)

            def multinomial(weight: Any = weight, replacement: bool = replacement) -> None:
                torch.multinomial(weight, len(weight), replacement)

            def build(weight: Any = weight, replacement: bool = replacement) -> None:
                sw.WeightedSampler(weight, replacement=replacement)

            calls: dict[str, Callable[[], Any]] = {"build": build, "epoch": epoch}
            if size < MULTINOMIAL:
                calls["multinomial"] = multinomial
            timed = {name: clock(call, "cpu") for name, call in calls.items()}
            if size > 2_000_000:  # seconds for one call, and nothing to warm up
                times = {name: [call()[0] for _ in range(2)] for name, call in timed.items()}
            else:
                rounds = take_turns(timed, seconds, bar, at_least=3)
                times = {name: [t for (t,) in results] for name, results in rounds.items()}
            ratio = None
            if "multinomial" in times:
                ratio = median_ratio(times["epoch"], times["multinomial"])
            table.rows.append(
                [
                    f"{size:,}",
                    "yes" if replacement else "no",
                    f"{statistics.median(times['build']):.3g}",
                    f"{statistics.median(times['epoch']):.3g}",
                    ratio,
                    f"{peak_gigabytes(weight, replacement):.3g}",
                ]
            )
    report.add(table)
