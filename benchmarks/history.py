"""What recording every sample adds to a training step."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

import sampleweights as sw
from benchmarks.measure import Report, Table, clock, take_turns

SIZES = [10_000, 1_000_000]
BATCH, NUM_CLASSES, PIXELS = 64, 1000, 64


def network() -> nn.Module:
    """About the work of a small ResNet on images of 64 pixels."""
    layers: list[nn.Module] = []
    width = 3
    for out in (64, 128, 256, 512):
        layers += [nn.Conv2d(width, out, 3, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(out, out, 3, padding=1), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def run(report: Report, seconds: float) -> None:
    device = report.device
    table = Table(
        "LossHistory.record around CrossEntropyLoss with OHEM",
        f"Batches of {BATCH} images of {PIXELS} x {PIXELS} pixels, {NUM_CLASSES} classes, eight "
        "convolutions. Milliseconds, the median; of the step: the difference to the same step "
        "without recording.",
        ["samples", "step, ms", "criterion, ms", "recorded criterion, ms", "of the step, %"],
    )
    model = network().to(device)
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(num_epochs=100)).to(device)
    criterion.set_epoch(0)
    images = torch.randn(BATCH, 3, PIXELS, PIXELS, device=device)
    target = torch.randint(NUM_CLASSES, (BATCH,), device=device)
    logits = model(images).detach()
    for size in tqdm(SIZES, unit="size"):
        history = sw.LossHistory(size).to(device)
        index = torch.randint(size, (BATCH,), device=device)

        def step() -> None:
            criterion(model(images), target).backward()

        def recorded(history: Any = history, index: Any = index) -> None:
            with history.record(criterion, index):
                criterion(logits, target)

        calls: dict[str, Callable[[], None]] = {
            "step": step,
            "plain": lambda: criterion(logits, target),
            "recorded": recorded,
        }
        timed = {name: clock(call, device) for name, call in calls.items()}
        times = {
            name: 1e3 * statistics.median(t for (t,) in results)
            for name, results in take_turns(timed, seconds).items()
        }
        added = times["recorded"] - times["plain"]
        table.rows.append(
            [
                f"{size:,}",
                times["step"],
                f"{times['plain']:.3f}",
                f"{times['recorded']:.3f}",
                100 * added / times["step"],
            ]
        )
    report.add(table)
