"""Batches of changing size: one export, and at most two compilations."""

from __future__ import annotations

import pytest
import torch
from contracts import LOSSES, PAIRS, compiled
from torch import Tensor, nn

SIZES = (16, 4096, 5000, 70_000)

OFTEN = ("Compose(nested)",)
"""What every loss is tried with in each run of the suite; the rest of the product is slow."""

SLOW_PAIRS = [
    pytest.param(
        *pair,
        marks=[]
        if pair[1] in OFTEN or pair == ("CrossEntropyLoss", "OHEM(per_class)")
        else pytest.mark.slow,
    )
    for pair in PAIRS
]


def build(loss: str, weighter: str | None) -> tuple[nn.Module, Tensor, Tensor]:
    entry = LOSSES[loss]
    logits, target = entry.batch()
    criterion = entry.build(weighter=None if weighter is None else entry.weighter(weighter))
    return criterion, logits, target


def of_size(tensor: Tensor, size: int) -> Tensor:
    """So many samples, of which no two are equal, so that a ranking does not hang on rounding."""
    index = torch.arange(size) % len(tensor)
    rows = tensor[index]
    if not rows.is_floating_point():
        return rows
    generator = torch.Generator().manual_seed(3)
    return rows + torch.randn(rows.shape, generator=generator)


@pytest.mark.parametrize(("loss", "weighter"), SLOW_PAIRS)
def test_compiled_at_most_twice(loss: str, weighter: str | None) -> None:
    criterion, logits, target = build(loss, weighter)
    small_and_large, graphs = compiled(criterion, dynamic=True)
    for size in SIZES:
        x, y = of_size(logits, size), of_size(target, size)
        torch.testing.assert_close(small_and_large(x, y), criterion(x, y), rtol=1e-4, atol=1e-6)
    assert len(graphs) <= 2


@pytest.mark.parametrize(("loss", "weighter"), SLOW_PAIRS)
def test_exported_once(loss: str, weighter: str | None) -> None:
    criterion, logits, target = build(loss, weighter)
    size = torch.export.Dim("size", min=2, max=2**20)
    exported = torch.export.export(
        criterion,
        (of_size(logits, 16), of_size(target, 16)),
        dynamic_shapes=({0: size}, {0: size}),
    ).module()
    for size in SIZES:
        x, y = of_size(logits, size), of_size(target, size)
        torch.testing.assert_close(exported(x, y), criterion(x, y), rtol=1e-4, atol=1e-6)
