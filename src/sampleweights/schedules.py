"""Schedules map the epoch to the fraction of samples that a curriculum keeps.

A schedule is any callable from a number to a number in (0, 1]. This module has the usual ones. On
the host they run once in an epoch; ``of_tensor`` is the same for an epoch that is on a device, or
an input of compiled code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sampleweights._checks import as_number

__all__ = ["Constant", "Linear", "Schedule", "Sigmoid"]

Schedule = Callable[[float], float]


def _check_num_epochs(num_epochs: float) -> None:
    if not 1 <= as_number("num_epochs", num_epochs) < math.inf:
        raise ValueError(f"num_epochs must be at least 1, got {num_epochs}")


@dataclass(frozen=True)
class Sigmoid:
    r"""The paper's schedule: from 50 % of the samples to 100 % halfway through the training.

    .. math::
        f(e) = \frac{\exp(\alpha e)}{1 + \exp(\alpha e)}, \quad
        \alpha = \frac{\ln 39}{E / 2}, \quad f(e) = 1 \ \text{for}\ e \ge E / 2

    A sigmoid never reaches 1. :math:`\alpha` is chosen such that, with the paper's batch of 20, the
    number of kept samples rounds to 20 exactly at :math:`E / 2`. From there on the fraction is
    exactly 1.

    Args:
        num_epochs: :math:`E`, the epochs of the whole training, at least 1.

    Raises:
        ValueError: ``num_epochs`` below 1.

    Example:
        >>> from sampleweights.schedules import Sigmoid
        >>> schedule = Sigmoid(150)
        >>> [round(schedule(epoch), 3) for epoch in (0, 25, 50, 74, 75)]
        [0.5, 0.772, 0.92, 0.974, 1.0]

    Note:
        The paper gives the form and "all samples for the second half of the training"; the value
        of :math:`\alpha` and the cut at :math:`E / 2` are ours.

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 9.
    """

    num_epochs: float

    def __post_init__(self) -> None:
        _check_num_epochs(self.num_epochs)

    @property
    def full_after(self) -> float:
        """The epoch from which on every sample is kept."""
        return self.num_epochs / 2

    def __call__(self, epoch: float) -> float:
        if epoch >= self.full_after:
            return 1.0
        alpha = math.log(39) / self.full_after
        return 1 / (1 + math.exp(-alpha * epoch))  # Eq. 9, divided through by exp(alpha e)

    def of_tensor(self, epoch: Tensor) -> Tensor:
        alpha = math.log(39) / self.full_after
        fraction = 1 / (1 + torch.exp(-alpha * epoch))
        return fraction.masked_fill(epoch >= self.full_after, 1)


@dataclass(frozen=True)
class Linear:
    r"""Increases linearly from ``start`` to 1 over the first half of the training.

    .. math:: f(e) = \min(1,\ s + (1 - s) \, e / (E / 2))

    Args:
        num_epochs: :math:`E`, the epochs of the whole training, at least 1.
        start: :math:`s`, the fraction at epoch 0, in (0, 1]; the default is 1/2, as in the
            paper's schedule.

    Raises:
        ValueError: ``num_epochs`` below 1, ``start`` outside (0, 1].

    Example:
        >>> from sampleweights.schedules import Linear
        >>> schedule = Linear(100)
        >>> [schedule(epoch) for epoch in (0, 25, 50, 99)]
        [0.5, 0.75, 1.0, 1.0]
    """

    num_epochs: float
    start: float = 0.5

    def __post_init__(self) -> None:
        _check_num_epochs(self.num_epochs)
        if not 0 < as_number("start", self.start) <= 1:
            raise ValueError(f"start must be in (0, 1], got {self.start}")

    @property
    def full_after(self) -> float:
        """The epoch from which on every sample is kept."""
        return self.num_epochs / 2

    def __call__(self, epoch: float) -> float:
        if epoch >= self.full_after:
            return 1.0
        return self.start + (1 - self.start) * epoch / self.full_after

    def of_tensor(self, epoch: Tensor) -> Tensor:
        fraction = self.start + (1 - self.start) * epoch / self.full_after
        return fraction.masked_fill(epoch >= self.full_after, 1)


@dataclass(frozen=True)
class Constant:
    """The same fraction at every epoch.

    Args:
        fraction: in (0, 1].

    Raises:
        ValueError: ``fraction`` outside (0, 1].

    Example:
        >>> from sampleweights.schedules import Constant
        >>> Constant(0.25)(epoch=10)
        0.25
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < as_number("fraction", self.fraction) <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")

    def __call__(self, epoch: float) -> float:
        return self.fraction

    def of_tensor(self, epoch: Tensor) -> Tensor:
        return torch.full_like(epoch, self.fraction)
