"""How long the first import takes, on top of torch's."""

from __future__ import annotations

import statistics
import subprocess
import sys

from tqdm import trange

from benchmarks.measure import Report, Table

CODE = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import sampleweights
print(middle - start, time.perf_counter() - middle)
"""


def run(report: Report, repeats: int = 9) -> None:
    times = []
    for _ in trange(repeats, unit="process"):
        done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True)
        times.append([1e3 * float(value) for value in done.stdout.split()])
    table = Table(
        "First import",
        f"Milliseconds in a new process, the median of {repeats}; files are in the disk's cache.",
        ["import torch", "import sampleweights after it"],
    )
    table.rows.append([statistics.median(column) for column in zip(*times, strict=True)])
    report.add(table)
