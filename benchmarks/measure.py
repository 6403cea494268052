"""How everything here is measured, and how it is written down."""

from __future__ import annotations

import ctypes
import datetime
import json
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import sampleweights as sw

RESULTS = Path(__file__).parent / "results"


@dataclass
class Table:
    title: str
    note: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)

    def markdown(self) -> list[str]:
        text = [i == 0 or isinstance(cell, str) for i, cell in enumerate((self.rows or [[]])[0])]
        rules = ["---" if is_text else "--:" for is_text in text] or ["---"] * len(self.columns)
        lines = [f"### {self.title}", "", self.note, ""]
        lines += [f"| {' | '.join(self.columns)} |", f"|{'|'.join(rules)}|"]
        return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in self.rows), ""]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass
class Report:
    """Tables, and where they come from; written again whenever a table is added."""

    suite: str
    device: str
    folder: Path | None
    environment: dict[str, str] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environment = environment(self.device)

    def add(self, table: Table) -> None:
        self.tables.append(table)
        tqdm.write("\n".join(table.markdown()))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{self.device}-{self.suite}"
            content = {name: value for name, value in asdict(self).items() if name != "folder"}
            path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
            path.with_suffix(".md").write_text(self.markdown())

    def markdown(self) -> str:
        about = "; ".join(f"{name} {value}" for name, value in self.environment.items())
        lines = [f"# {self.suite}, {self.device}", "", f"{about}.", ""]
        return "\n".join([*lines, *(line for table in self.tables for line in table.markdown())])


def environment(device: str) -> dict[str, str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    about = {"hardware": _processor()}
    if device == "cuda":
        about["hardware"] = torch.cuda.get_device_name()
        driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        about["driver"] = subprocess.run(driver, capture_output=True, text=True).stdout.strip()
    return about | {
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "sampleweights": f"{sw.__version__} ({commit or 'no commit'})",
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def keep_freed_memory() -> None:
    """Make glibc keep what is freed, as torch's allocator does on a GPU.

    Without it a tensor of some megabytes costs page faults or not, by the luck of what was freed
    before it: up to the time of the whole loss, on whichever candidate it falls.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def take_turns(
    candidates: Mapping[str, Callable[[], Sequence[float]]],
    seconds: float,
    bar: tqdm | None = None,
    at_least: int = 5,
) -> dict[str, list[Sequence[float]]]:
    """Call all candidates in turn, once each, for some seconds: what they return, by name.

    So noise falls on all of them alike. The order changes from round to round, in the same way in
    every process: whoever runs right after a candidate that uses the same code finds it in the
    caches.
    """
    order, names = random.Random(0), list(candidates)
    results: dict[str, list[Sequence[float]]] = {name: [] for name in candidates}
    for candidate in candidates.values():  # warm up
        candidate()
        candidate()
    until, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < until or rounds < at_least:
        order.shuffle(names)
        for name in names:
            results[name].append(candidates[name]())
        rounds += 1
        if bar is not None and rounds % 10 == 0:
            bar.set_postfix_str(f"{rounds} rounds")
    return results


def clock(function: Callable[[], Any], device: str) -> Callable[[], Sequence[float]]:
    """A candidate for ``take_turns``: the seconds of one call."""

    def timed() -> Sequence[float]:
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        return (time.perf_counter() - start,)

    return timed


def median_ratio(ours: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds of the ratio within one round."""
    return statistics.median(a / b for a, b in zip(ours, base, strict=True))


def peak_memory(function: Callable[[], Any], device: str) -> int:
    """The most bytes that a call held at once, beyond what there was before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        function()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
