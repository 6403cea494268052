"""Images per second of a training step with selective backpropagation, against the plain step."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from tqdm import tqdm

import sampleweights as sw
from benchmarks.measure import Report, Table, clock, median_ratio, take_turns

FRACTIONS = [1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0]
MODELS: dict[str, dict[str, Any]] = {
    "vgg16": {},
    "vit_small_patch16_224": {"img_size": 96},
}


def step(model: Any, images: Any, target: Any, fraction: float, *, selective: bool) -> Any:
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=fraction)).to(images.device)

    def one() -> None:
        model.zero_grad(set_to_none=True)
        if selective:
            loss = sw.selective_loss(model, criterion, images, target)
        else:
            loss = criterion(model(images), target)
        loss.backward()  # type: ignore[no-untyped-call]

    return one


def run(report: Report, seconds: float) -> None:
    import timm  # this suite alone needs it

    size, batch = (96, 16) if report.device == "cpu" else (224, 128)
    table = Table(
        "Forward and backward pass of a batch",
        f"Random weights, {size} x {size} pixels, batches of {batch}, OHEM at a constant fraction, "
        "no batch normalisation or dropout. Images per second, the median; speed-up: the median "
        "of the ratio to the plain step in the same round; expected: 3 / (1 + 3 f), for a backward "
        "pass that costs two forward passes.",
        ["model", "kept", "plain, images/s", "selective, images/s", "speed-up", "expected"],
    )
    with tqdm(MODELS.items(), unit="model") as bar:
        for name, options in bar:
            if report.device == "cuda":
                options = {}
            model = timm.create_model(name, num_classes=7, drop_rate=0.0, **options)
            model.to(report.device).train()
            images = torch.randn(batch, 3, size, size, device=report.device)
            target = torch.randint(7, (batch,), device=report.device)
            calls = {"plain": step(model, images, target, 1 / 2, selective=False)}
            for f in FRACTIONS:
                calls[str(f)] = step(model, images, target, f, selective=True)
            timed = {k: clock(c, report.device) for k, c in calls.items()}
            times = {
                k: [t for (t,) in results] for k, results in take_turns(timed, seconds, bar).items()
            }
            base = times.pop("plain")
            for f in FRACTIONS:
                mine = times[str(f)]
                table.rows.append(
                    [
                        name,
                        f"{f:g}",
                        batch / statistics.median(base),
                        batch / statistics.median(mine),
                        1 / median_ratio(mine, base),
                        3 / (1 + 3 * f) if f < 1 else 1.0,
                    ]
                )
    report.add(table)
