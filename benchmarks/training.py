"""The heads of a comparison: trained together, and one after the other."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from tqdm import trange

from benchmarks.measure import Report, Table
from sampleweights.compare import Head, default_entries
from sampleweights.compare.training.entries import build
from sampleweights.compare.training.head import Training

TABLES = [(846, 18, 4), (4000, 64, 6), (3000, 256, 6)]
"""Samples, features, classes."""
FOLDS, EPOCHS = 5, 4


def run(report: Report, rounds: int = 3) -> None:
    table = Table(
        "Heads of a comparison",
        f"The default rows on {FOLDS} folds, {EPOCHS} epochs, one thread: seconds, the median of "
        f"{rounds} rounds. Together: as `compare` trains them, in groups that fit into the cache. "
        "Ratio: one after the other over together, the median of the ratios within a round.",
        ["samples", "features", "trainings", "together, s", "one after the other, s", "ratio, x"],
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for size, dimension, classes in TABLES:
        random = np.random.default_rng(0)
        target = (classes * random.random(size) ** 2).astype(np.int64)
        features = random.normal(size=(size, dimension)).astype(np.float32)
        head = Head(features, target, classes, EPOCHS)
        times = []
        for _ in trange(rounds, unit="round", desc=f"{size} x {dimension}"):
            many, single = trainings(target), trainings(target)
            start = time.perf_counter()
            for first in range(0, len(many), head.num_together):
                head.together(many[first : first + head.num_together])
            middle = time.perf_counter()
            for one in single:
                head(one.criterion, one.train, one.validation, one.sampler, one.seed)
            times.append((middle - start, time.perf_counter() - middle))
        ratio = statistics.median(alone / together for together, alone in times)
        seconds = [statistics.median(column) for column in zip(*times, strict=True)]
        table.rows.append([f"{size:,}", dimension, len(many), *seconds, ratio])
    torch.set_num_threads(threads)
    report.add(table)


def trainings(target: np.ndarray) -> list[Training]:
    """The default rows on each fold, built anew."""
    fold = np.arange(len(target)) % FOLDS
    found: list[Training] = []
    for name, entry in default_entries().items():
        for number in range(FOLDS):
            train, validation = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            counts = torch.from_numpy(np.bincount(target[train]))
            criterion, make_sampler = build(name, entry, counts, EPOCHS)
            sampler = make_sampler and make_sampler(torch.from_numpy(target[train]), seed=0)
            found.append(Training(criterion, train, validation, sampler, len(found)))
    return found
