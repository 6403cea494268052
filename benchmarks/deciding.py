"""Deciding by expected utility: ours, and what one would write with torch."""

from __future__ import annotations

import statistics

import torch
from tqdm import tqdm

import sampleweights as sw
from benchmarks.measure import Report, Table, clock, median_ratio, peak_memory, take_turns

SIZES = [(2_000, 7, 8), (200_000, 7, 8), (200_000, 1_000, 10), (200_000, 1_000, 1_000)]
"""Samples, classes and decisions."""


def run(report: Report, seconds: float) -> None:
    table = Table(
        "N decisions by a utility table (C, D)",
        "`decide`: milliseconds, the median; to `(logits.softmax(1) @ utility).argmax(1)`: the "
        "median of their ratio in the same round. Memory: the most that a call holds beyond its "
        "inputs, MB.",
        ["N", "C", "D", "decide, ms", "to the line of torch, x", "memory, MB", "of the line, MB"],
    )
    generator = torch.Generator().manual_seed(0)
    with tqdm(SIZES, unit="size") as bar:
        for samples, classes, decisions in bar:
            logits = torch.randn(samples, classes, generator=generator).to(report.device)
            utility = torch.randn(classes, decisions, generator=generator).to(report.device)

            def ours(logits: torch.Tensor = logits, utility: torch.Tensor = utility) -> None:
                sw.decide(logits, utility)

            def plain(logits: torch.Tensor = logits, utility: torch.Tensor = utility) -> None:
                (logits.softmax(1) @ utility).argmax(1)

            calls = {name: clock(f, report.device) for name, f in (("o", ours), ("p", plain))}
            times = {
                name: [t for (t,) in results]
                for name, results in take_turns(calls, seconds, bar, at_least=3).items()
            }
            table.rows.append(
                [
                    f"{samples:,}", f"{classes:,}", f"{decisions:,}",
                    f"{1e3 * statistics.median(times['o']):.3g}",
                    median_ratio(times["o"], times["p"]),
                    *(f"{peak_memory(f, report.device) / 1e6:,.1f}" for f in (ours, plain)),
                ]
            )  # fmt: skip
    report.add(table)
