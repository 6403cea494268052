"""Images per second of the input side and of training, apart; and what the full grid would cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from examples.isic2018.data import Dataset
from examples.isic2018.recipes import LOSSES, OPTIMIZERS, PAPER, Recipe
from examples.isic2018.training import Experiment, Run, hardware

SECONDS = 20


def rate(step: Callable[[], int]) -> float:
    """Samples per second of ``step``, which says how many it did; the first call does not count."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    step()
    wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        done += step()
    wait()
    return done / (time.perf_counter() - start)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large matrix product: what the device reaches, not what it is sold for."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def step() -> int:
        torch.mm(left, right)
        return 1

    return 2 * size**3 * rate(step)


def measure(datasets: Mapping[str, Dataset], recipe: Recipe) -> None:
    """Print a table: both models, on batches of the training split."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = peak_flops(device, torch.bfloat16 if recipe.half else torch.float32)
    print(
        f"{hardware()}; a matrix product reaches {peak / 1e12:.2f} TFLOP/s in {recipe.precision}\n"
    )
    print("| model | input side | training | GFLOP per image | MFU | hours of its paper runs |")
    print("|---|--:|--:|--:|--:|--:|")
    total_hours, total_flops = 0.0, 0.0
    for model, dataset in datasets.items():
        run = Run(model, "adam", "ce", "none", 0, recipe, dataset.fingerprint)
        experiment = Experiment(run, dataset, Path(), pretrained=False).to(device).train()
        experiment.on_fit_start()
        trained, flops = _training(experiment, device, recipe.half)
        runs = len(OPTIMIZERS) * len(LOSSES) * len(PAPER) * 2  # splits
        images = runs * run.epochs * len(experiment.split.train)
        hours = images / trained / 3600
        total_hours += hours
        total_flops += images * flops
        print(
            f"| {model} | {_input_side(experiment, device):,.1f} images/s | "
            f"{trained:,.1f} images/s | {flops / 1e9:.1f} | {100 * trained * flops / peak:.0f} % | "
            f"{hours:,.1f} |"
        )
    print(
        f"\nThe paper's 80 runs ({recipe.epochs_flat} and {recipe.epochs_hierarchical} epochs): "
        f"{total_flops / 1e18:,.1f} EFLOP, {total_hours:,.1f} hours on one such device."
    )


def _input_side(experiment: Experiment, device: torch.device) -> float:
    """Reading, moving and augmenting, without the model."""
    batches = experiment.batches(0)
    augment = getattr(experiment.encoder, "augment", None)
    numbers = itertools.count()

    @torch.no_grad()
    def step() -> int:
        index, view = (
            part.to(experiment.inputs.device) for part in batches[next(numbers) % len(batches)]
        )
        images = experiment.inputs[index, view].to(device)
        if augment is not None:
            augment(images.permute(0, 3, 1, 2) / 255)
        return len(images)

    return rate(step)


def _training(experiment: Experiment, device: torch.device, half: bool) -> tuple[float, float]:
    """Images per second of steps on one batch without augmentation; and FLOP per image."""
    optimizer = torch.optim.Adam(experiment.parameters(), 1e-5)
    index, view = (part.to(experiment.inputs.device) for part in experiment.batches(0)[0])
    images, target = experiment.inputs[index, view].to(device), experiment.target[index.to(device)]
    encoder: Any = experiment.encoder
    augment = getattr(encoder, "augment", None)
    if augment is not None:
        encoder.augment = None

    def step() -> int:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = experiment.model(encoder(images), target)
        experiment.criterion(logits, target).backward()
        optimizer.step()
        return len(images)

    with FlopCounterMode(display=False) as counter:
        step()
    trained = rate(step)
    if augment is not None:
        encoder.augment = augment
    return trained, counter.get_total_flops() / len(images)
