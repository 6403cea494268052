"""Every loss x weighter, and other libraries' focal losses, relative to F.cross_entropy."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import sampleweights as sw
from benchmarks.measure import (
    Report,
    Table,
    median_ratio,
    peak_memory,
    synchronize,
    take_turns,
)

SHAPES = {
    "20x7": (20, 7),
    "64x7": (64, 7),
    "4096x1000": (4096, 1000),
    "4x19x256x256": (4, 19, 256, 256),
}
ON_CUDA = {"65536x32000": (65536, 32000)}
"""In bfloat16, on a GPU only."""

SIZES = [16, 64, 256, 1024, 4096, 16384, 65536]
"""Samples of 100 classes, for the plot."""

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


def margins(num_classes: int) -> dict[str, Callable[[], sw.Margin]]:
    counts = torch.logspace(4, 1, num_classes).long()
    return {
        "LogitAdjustment": lambda: sw.LogitAdjustment(counts),
        "LDAM": lambda: sw.LDAM(counts),
    }


def ours(num_classes: int) -> Iterator[tuple[str, str, Criterion]]:
    for loss, cls in (("CrossEntropyLoss", sw.CrossEntropyLoss), ("FocalLoss", sw.FocalLoss)):
        for name, build in weighters(num_classes).items():
            criterion = cls(weighter=build())
            criterion.set_epoch(0)  # told, so that it does not warn after many calls
            yield loss, name, criterion
        for name, margin in margins(num_classes).items():
            yield loss, name, cls(margin=margin())


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, target.unsqueeze(1), 1)


PEERS: dict[str, tuple[str, str, Callable[[Any], Criterion]]] = {
    "kornia": (
        "kornia.losses",
        "focal_loss, mean",
        lambda module: lambda x, y: module.focal_loss(x, y, alpha=None, reduction="mean"),
    ),
    "monai": (
        "monai.losses",
        "FocalLoss(use_softmax)",
        lambda module: (lambda loss: lambda x, y: loss(x, y.unsqueeze(1)))(
            module.FocalLoss(use_softmax=True, to_onehot_y=True)
        ),
    ),
    "segmentation-models-pytorch": (
        "segmentation_models_pytorch.losses",
        "FocalLoss(multiclass), a sum of sigmoids",
        lambda module: module.FocalLoss("multiclass"),
    ),
    "imbalanced-losses": (
        "imbalanced_losses",
        "SoftmaxFocalLoss",
        lambda module: module.SoftmaxFocalLoss(gamma=2.0),
    ),
    "pytorch-focalloss": (
        "torch_focalloss",
        "MultiClassFocalLoss",
        lambda module: module.MultiClassFocalLoss(gamma=2),
    ),
    "torchvision": (
        "torchvision.ops",
        "sigmoid_focal_loss of one-hot targets",
        lambda module: (
            lambda x, y: module.sigmoid_focal_loss(x, _one_hot(y, x), alpha=-1, reduction="mean")
        ),
    ),
}
"""Package: its module, what is called, and how. All with gamma = 2."""

if torch.cuda.is_available():
    PEERS["liger-kernel"] = (
        "liger_kernel.transformers",
        "LigerCrossEntropyLoss",
        lambda module: module.LigerCrossEntropyLoss(),
    )


def peers() -> Iterator[tuple[str, str, Criterion]]:
    """The peers that are installed."""
    for package, (module, call, build) in PEERS.items():
        try:
            version = metadata.version(package)
            criterion = build(importlib.import_module(module))
        except ImportError:
            tqdm.write(f"not installed, left out: {package}")
            continue
        yield f"{package} {version}", call, criterion


def call(criterion: Criterion, logits: Tensor, target: Tensor) -> Callable[[], Sequence[float]]:
    """Seconds of one forward and one backward pass."""
    device = logits.device.type

    def timed() -> Sequence[float]:
        logits.grad = None
        synchronize(device)
        start = time.perf_counter()
        loss = criterion(logits, target)
        synchronize(device)
        middle = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        synchronize(device)
        return middle - start, time.perf_counter() - middle

    return timed


def batch(
    shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn(shape, generator=generator, device=device, dtype=dtype)
    size = (shape[0], *shape[2:])
    target = torch.randint(shape[1], size, generator=generator, device=device)
    return logits.requires_grad_(), target


def rows_of(
    candidates: list[tuple[str, str, Criterion]],
    logits: Tensor,
    target: Tensor,
    seconds: float,
    bar: tqdm,
) -> tuple[list[list[Any]], str]:
    """One row for each candidate that supports the shape, and a word about the base."""
    device = logits.device.type
    memory, calls = {}, {}
    for loss, name, criterion in [("F.cross_entropy", "", F.cross_entropy), *candidates]:
        if isinstance(criterion, nn.Module):
            criterion.to(device)
        timed = call(criterion, logits, target)
        try:
            timed()
            timed()
        except (RuntimeError, ValueError, IndexError) as error:
            tqdm.write(f"left out: {loss} does not take {tuple(logits.shape)}: {error!r:.80}")
            continue
        logits.grad = None
        memory[loss, name] = peak_memory(timed, device)
        calls[f"{loss}\n{name}"] = timed
    times = {tuple(key.split("\n")): t for key, t in take_turns(calls, seconds, bar).items()}
    base_times = times.pop(("F.cross_entropy", ""))
    base_memory = memory.pop(("F.cross_entropy", ""))

    def part(results: list[Sequence[float]], which: int | None) -> list[float]:
        return [sum(r) if which is None else r[which] for r in results]

    rows: list[list[Any]] = [
        [
            *key,
            *(median_ratio(part(t, which), part(base_times, which)) for which in (0, 1, None)),
            memory[key] / base_memory,  # type: ignore[index]
        ]
        for key, t in times.items()
    ]
    forward, backward = (1e3 * statistics.median(part(base_times, which)) for which in (0, 1))
    note = (
        f"`F.cross_entropy`: forward {forward:.3g} ms, backward {backward:.3g} ms, peak "
        f"{base_memory / 2**20:.3g} MiB, median of {len(base_times)} rounds."
    )
    return rows, note


COLUMNS = ["loss", "weighter or margin", "forward", "backward", "both", "peak memory"]


def run(report: Report, shapes: Sequence[str], seconds: float) -> None:
    names = [name for name in (SHAPES | ON_CUDA) if name in (shapes or SHAPES | ON_CUDA)]
    with tqdm(names, unit="shape") as bar:
        for name in bar:
            dtype = torch.bfloat16 if name in ON_CUDA else torch.float32
            if name in ON_CUDA and report.device != "cuda":
                continue
            shape = (SHAPES | ON_CUDA)[name]
            logits, target = batch(shape, report.device, dtype)
            candidates = [*ours(shape[1]), *peers()]
            rows, note = rows_of(candidates, logits, target, seconds, bar)
            report.add(Table(str(shape), note, COLUMNS, rows))


def run_sizes(report: Report, seconds: float) -> None:
    """A few of them over the number of samples, for the plot."""
    table = Table(
        "(N, 100)",
        "Both passes and peak memory, as ratios to `F.cross_entropy` on the same tensors.",
        ["loss", "weighter", "N", "both", "peak memory"],
    )
    with tqdm(SIZES, unit="size") as bar:
        for size in bar:
            logits, target = batch((size, 100), report.device)
            candidates = [
                row
                for row in ours(100)
                if row[:2] in {("FocalLoss", "-"), ("CrossEntropyLoss", "OHEM")}
            ]
            rows, _ = rows_of([*candidates, *peers()], logits, target, seconds, bar)
            table.rows += [[*row[:2], size, row[4], row[5]] for row in rows]
    report.add(table)
