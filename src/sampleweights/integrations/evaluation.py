"""For evaluation: a loss without weighters and margins, which does not move with schedules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sampleweights.losses.base import Criterion

__all__: list[str] = []


@contextmanager
def without_weighters(module: nn.Module) -> Iterator[None]:
    """Within the ``with``, every criterion in ``module``, itself included, evaluates.

    It then leaves its weighter and its margin out, which belong to the training. The modules stay
    where they are, for checkpoints and averages of models that are made meanwhile.
    """
    criteria = [
        criterion
        for criterion in module.modules()
        if isinstance(criterion, Criterion) and not criterion.evaluates
    ]
    for criterion in criteria:
        criterion.evaluates = True
    try:
        yield
    finally:
        for criterion in criteria:
            criterion.evaluates = False
