"""How long the statistics of a comparison take, without its trainings."""

from __future__ import annotations

import statistics
import time

import numpy as np
from tqdm import tqdm

from benchmarks.measure import Report, Table
from sampleweights.compare.statistics import Prediction, Statistics

SIZES = [10_000, 150_000]
CLASSES, FOLDS, ROWS = 7, 5, 5
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "average_precision", "auroc")


def run(report: Report) -> None:
    table = Table(
        "Statistics of a comparison",
        f"Seconds for each of {ROWS} rows of {CLASSES} classes: every metric with its interval "
        f"(the median), and the differences of all rows to the first, in {len(METRICS)} metrics.",
        ["samples", "metrics", "differences"],
    )
    for size in tqdm(SIZES, unit="size"):
        generator = np.random.default_rng(0)
        target = generator.integers(0, CLASSES, size)
        shared = generator.normal(size=(size, CLASSES)) + np.eye(CLASSES)[target]
        rows = {}
        for number in range(ROWS):
            logits = shared + 0.5 * generator.normal(size=(size, CLASSES))
            rows[f"row {number}"] = Prediction.of(logits[None].astype(np.float32))
        fold = generator.permutation(size)[None] % FOLDS
        names = [f"class {c}" for c in range(CLASSES)]
        found, seconds = Statistics(target, np.arange(size), fold, names, rows), []
        for row in rows:
            start = time.perf_counter()
            for metric in found.metrics:
                found.estimate(row, metric)
            seconds.append(time.perf_counter() - start)
        first, *others = rows
        start = time.perf_counter()
        for metric in METRICS:
            found.differences(others, first, metric)
        differences = (time.perf_counter() - start) / ROWS
        table.rows.append([f"{size:,}", statistics.median(seconds), differences])
    report.add(table)
