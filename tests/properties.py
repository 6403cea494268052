"""Properties that a weighter may have, each a named assertion.

A test file of weighters lists in ``CLAIMS`` which of them each weighter has;
``weighters/test_properties.py`` shows that it has these, and that it has no others. What holds for
every weighter is no claim: see test_contracts.py, test_state.py and test_hooks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from contracts import COUNTS, NUM_CLASSES
from torch import Tensor

Build = Callable[[], Any]
SIZES = (1, 2, 7, 20, 33)


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Losses without ties, and their classes."""
    generator = torch.Generator().manual_seed(1000 * seed + size)
    loss = torch.randperm(size, generator=generator).double() + 0.5
    return loss, torch.randint(NUM_CLASSES, (size,), generator=generator)


def mean_weight_is_one(build: Build) -> None:
    """Over samples of the classes' frequencies, so that the learning rate keeps its meaning."""
    target = torch.repeat_interleave(torch.arange(NUM_CLASSES), torch.tensor(COUNTS))
    loss = batch(len(target))[0]
    torch.testing.assert_close(build()(loss, target).mean(), torch.ones((), dtype=loss.dtype))


def order_does_not_matter(build: Build) -> None:
    for size in SIZES:
        loss, target = batch(size)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
        assert build()(loss[order], target[order]).equal(build()(loss, target)[order])


def twice_the_batch_has_twice_the_weights(build: Build) -> None:
    for size in SIZES:
        loss, target = batch(size)
        twice = build()(torch.cat([loss, loss]), torch.cat([target, target]))
        assert twice.equal(torch.cat([build()(loss, target)] * 2))


def scale_of_the_loss_does_not_matter(build: Build) -> None:
    for size in SIZES:
        loss, target = batch(size)
        for scale in (2.0**-20, 8.0):
            assert build()(loss * scale, target).equal(build()(loss, target))


def loss_does_not_matter(build: Build) -> None:
    for size in SIZES:
        loss, target = batch(size)
        assert build()(loss, target).equal(build()(batch(size, seed=1)[0], target))


def _changes(build: Build) -> Tensor:
    """How the weight of each sample changes where its loss alone rises, past some others or all."""
    changes = []
    for size in SIZES:
        loss, target = batch(size)
        before = build()(loss, target)
        for i in range(size):
            for more in (1.25, size / 2 + 0.25, size):
                raised = loss.clone()
                raised[i] += more
                changes.append(build()(raised, target)[i] - before[i])
    return torch.stack(changes)


def rises_with_the_loss(build: Build) -> None:
    assert (_changes(build) >= 0).all()


def falls_with_the_loss(build: Build) -> None:
    assert (_changes(build) <= 0).all()


def keeps_or_drops(build: Build) -> None:
    for size in SIZES:
        weight = build()(*batch(size))
        assert ((weight == 0) | (weight == 1)).all()


PROPERTIES = (
    mean_weight_is_one,
    order_does_not_matter,
    twice_the_batch_has_twice_the_weights,
    scale_of_the_loss_does_not_matter,
    loss_does_not_matter,
    rises_with_the_loss,
    falls_with_the_loss,
    keeps_or_drops,
)
