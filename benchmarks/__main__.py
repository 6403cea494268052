"""Time and memory of every loss x weighter, as ratios to F.cross_entropy in the same run.

python -m benchmarks                    # all shapes; a few minutes on two cores
python -m benchmarks --shapes 64x7      # one of them
python -m benchmarks --update-readme    # and put the tables into benchmarks/README.md
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import sampleweights as sw

SHAPES = {
    "20x7": (20, 7),
    "64x7": (64, 7),
    "4096x1000": (4096, 1000),
    "4x19x256x256": (4, 19, 256, 256),
}
README = Path(__file__).with_name("README.md")
MARKS = "<!-- results: python -m benchmarks --update-readme -->", "<!-- end of results -->"

Criterion = Callable[[Tensor, Tensor], Tensor]


def weighters(num_classes: int) -> dict[str, Callable[[], sw.Weighter | None]]:
    """Every weighter, in the first epoch of a schedule, when it has work to do."""
    counts = torch.logspace(4, 1, num_classes).long()
    return {
        "-": lambda: None,
        "ClassBalanced": lambda: sw.ClassBalanced(counts),
        "EffectiveNumber": lambda: sw.EffectiveNumber(counts),
        "SelfPaced": lambda: sw.SelfPaced(num_epochs=100),
        "OHEM": lambda: sw.OHEM(num_epochs=100),
        "OHEM per class": lambda: sw.OHEM(num_epochs=100, per_class=True),
        "[ClassBalanced, OHEM]": lambda: sw.Compose(
            [sw.ClassBalanced(counts), sw.OHEM(num_epochs=100)]
        ),
    }


def candidates(num_classes: int) -> Iterator[tuple[str, str, Criterion]]:
    yield "F.cross_entropy", "", F.cross_entropy
    for loss, cls in (("CrossEntropyLoss", sw.CrossEntropyLoss), ("FocalLoss", sw.FocalLoss)):
        for name, build in weighters(num_classes).items():
            yield loss, name, cls(weighter=build())


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def forward_and_backward(
    criterion: Criterion, logits: Tensor, target: Tensor, repeats: int
) -> tuple[float, float]:
    """Seconds of one forward and of one backward pass, each the mean of ``repeats``."""
    device = logits.device.type
    forward = backward = 0.0
    for _ in range(repeats):
        logits.grad = None
        synchronize(device)
        start = time.perf_counter()
        loss = criterion(logits, target)
        synchronize(device)
        middle = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        synchronize(device)
        forward += middle - start
        backward += time.perf_counter() - middle
    return forward / repeats, backward / repeats


def peak_memory(criterion: Criterion, logits: Tensor, target: Tensor) -> int:
    """The most bytes that one forward and backward pass held at once, beyond its inputs."""
    logits.grad = None
    if logits.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        criterion(logits, target).backward()  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        criterion(logits, target).backward()  # type: ignore[no-untyped-call]
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@dataclass
class Row:
    loss: str
    weighter: str
    criterion: Criterion
    memory: int = 0
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)


def measure(shape: tuple[int, ...], device: str, seconds: float, bar: tqdm) -> list[Row]:
    """Alternate between all candidates, round after round, so that noise falls on all alike."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator).to(device)
    rows = [Row(*candidate) for candidate in candidates(shape[1])]
    for row in rows:
        if isinstance(row.criterion, torch.nn.Module):
            row.criterion.to(device)
        forward_and_backward(row.criterion, logits, target, 2)  # warm up
        row.memory = peak_memory(row.criterion, logits, target)
    once = sum(forward_and_backward(rows[0].criterion, logits, target, 3))
    repeats = max(1, round(2e-3 / once))
    until, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < until or rounds < 5:
        for row in rows:
            forward, backward = forward_and_backward(row.criterion, logits, target, repeats)
            row.forward.append(forward)
            row.backward.append(backward)
        rounds += 1
        bar.set_postfix_str(f"{rounds} rounds")
    return rows


def table(shape: tuple[int, ...], rows: list[Row]) -> list[str]:
    base = rows[0]
    both = [f + b for f, b in zip(base.forward, base.backward, strict=True)]
    lines = [
        f"### {shape}",
        "",
        f"`F.cross_entropy`: forward {1e3 * statistics.median(base.forward):.3g} ms, backward "
        f"{1e3 * statistics.median(base.backward):.3g} ms, peak {base.memory / 2**20:.3g} MiB, "
        f"median of {len(both)} rounds.",
        "",
        "| loss | weighter | forward | backward | both | peak memory |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows[1:]:
        total = [f + b for f, b in zip(row.forward, row.backward, strict=True)]
        ratios = [
            statistics.median(ours / theirs for ours, theirs in zip(mine, its, strict=True))
            for mine, its in (
                (row.forward, base.forward),
                (row.backward, base.backward),
                (total, both),
            )
        ]
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {row.loss} | {row.weighter} | {cells} | {row.memory / base.memory:.2f} |")
    return [*lines, ""]


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time and memory of every loss x weighter, relative to F.cross_entropy.",
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=20, help="of measuring for each shape")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--update-readme", action="store_true", help="write benchmarks/README.md")
    args = parser.parse_args()

    date = datetime.date.today().isoformat()
    lines = [
        f"{hardware(args.device)}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"sampleweights {sw.__version__}; float32; {date}.",
        "",
    ]
    with tqdm(args.shapes, unit="shape") as bar:
        for name in bar:
            rows = measure(SHAPES[name], args.device, args.seconds, bar)
            lines += table(SHAPES[name], rows)
    print("\n".join(lines))
    if args.update_readme:
        text = README.read_text()
        start, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
        README.write_text(text[:start] + "\n" + "\n".join(lines) + text[end:])


if __name__ == "__main__":
    main()
