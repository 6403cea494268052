"""For evaluation: a loss without its weighters, which does not move with their schedules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sampleweights.losses.base import Criterion

__all__: list[str] = []


@contextmanager
def without_weighters(module: nn.Module) -> Iterator[None]:
    """Within the ``with``, every criterion in ``module``, itself included, has no weighter.

    What depends on a weighter depends on ``criterion.weighter``: weights, denominator, and the
    class weights of probability targets. So it is put aside, and put back also after an error.
    """
    put_aside = [
        (criterion, criterion.weighter)
        for criterion in module.modules()
        if isinstance(criterion, Criterion) and criterion.weighter is not None
    ]
    for criterion, _ in put_aside:
        criterion.weighter = None
    try:
        yield
    finally:
        for criterion, weighter in put_aside:
            criterion.weighter = weighter
