"""Weights that begin late in the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampleweights._buffers import follow
from sampleweights._checks import as_number, check_floating
from sampleweights.weighters.base import PARTS, EpochWeighter, Weighter, set_epoch_below
from sampleweights.weighters.compose import as_weighter

__all__ = ["Deferred"]


class Deferred(EpochWeighter):
    r"""Deferred re-weighting: no weights at first, the weights of a weighter from an epoch on.

    .. math::
        w_j = \begin{cases} 1 & e < \text{start} \\ w_j^{\text{weighter}} & e \ge \text{start}
        \end{cases}

    with :math:`e` the epoch. The model first learns its features from all samples equally, which
    class weights would slow down. The class weights then move the decision boundary. Before
    ``start`` the weighter is inactive, and the loss is the loss without a weighter.

    Shape:
        - loss, target, valid, Output: as for ``weighter``.

    Args:
        weighter: the weighter, or list of weighters, that applies from ``start`` on. Its epochs
            count from the start of the training: ``OHEM(100)`` inside ``Deferred(..., 80)`` starts
            with the fraction of epoch 80.
        start: the first epoch with weights, at least 0. Cao et al. use 0.8 times the number of
            epochs. A checkpoint does not hold ``start``.

    Raises:
        TypeError: a ``weighter`` that is not a weighter, a ``start`` that is not a number.
        ValueError: a ``start`` that is negative or not finite.

    Example:
        >>> import torch
        >>> from sampleweights import ClassBalanced, Deferred
        >>> weighter = Deferred(ClassBalanced([3, 1]), start=8)
        >>> loss, target = torch.rand(3), torch.tensor([0, 0, 1])
        >>> weighter(loss, target)
        tensor([1., 1., 1.])
        >>> weighter.set_epoch(8)
        >>> weighter(loss, target)
        tensor([0.6667, 0.6667, 2.0000])

    References:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss,
        NeurIPS 2019.
    """

    def __init__(self, weighter: Weighter | Sequence[Weighter], start: float) -> None:
        super().__init__()
        self.weighter = as_weighter(weighter)
        self.start = start
        self._warn_if_forgotten(self._start > 0)

    @property
    def start(self) -> float:
        """The first epoch with weights."""
        return self._given_start

    @start.setter
    def start(self, start: float) -> None:
        number = as_number("start", start)
        if not 0 <= number < math.inf:
            raise ValueError(f"start must be finite and at least 0, got {number}")
        self._given_start = number
        self._start = min(round(number * PARTS), 2**62)  # what an int64 holds

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        return self.weighter.num_classes

    @property
    def may_drop(self) -> bool:  # type: ignore[override]
        return self.weighter.may_drop

    @property
    def is_local(self) -> bool:  # type: ignore[override]
        return self.weighter.is_local

    @property
    def is_elementwise(self) -> bool:  # type: ignore[override]
        return self.weighter.is_elementwise

    def _waits(self) -> bool | Tensor:
        """Whether the start is still to come: a tensor where only the device knows."""
        if self._start == 0:
            return False
        stored = self._read()
        return self.epoch < self._start if stored is None else stored < self._start

    @property
    def inactive(self) -> bool:
        waits = self._waits()
        return waits is True or (waits is False and self.weighter.inactive)

    def skip(self) -> None:
        if not self._calls_to_warning or self._waits() is False:
            self.weighter.skip()
        else:
            self._count_call()

    @property
    def class_factor(self) -> Tensor | None:
        waits = self._waits()
        factor = None if waits is True else self.weighter.class_factor
        if factor is None or isinstance(waits, bool):
            return factor
        return factor.masked_fill(waits, 1)

    def without_class_weights(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor | None:
        return self._unless_waiting(self.weighter.without_class_weights, loss, target, valid)

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        check_floating("loss", loss)
        if self._waits() is True:
            self._count_call()
        weight = self._unless_waiting(self.weighter, loss, target, valid)
        return _ones(loss, valid) if weight is None else weight

    def _unless_waiting(
        self,
        weigh: Callable[..., Tensor | None],
        loss: Tensor,
        target: Tensor | None,
        valid: Tensor | None,
    ) -> Tensor | None:
        waits = self._waits()
        if waits is False:
            return weigh(loss, target, valid)
        if waits is True:
            return None
        waits = follow(waits, loss)
        # to a weighter that must wait no sample is valid, so that it does not learn from any
        ones = _ones(loss, valid)
        weight = weigh(loss, target, (ones != 0) & ~waits)
        return None if weight is None else torch.where(waits, ones, weight)

    def set_epoch(self, epoch: float) -> None:
        super().set_epoch(epoch)
        set_epoch_below(self, epoch)

    def _what_stays(self) -> str:
        return f"every weight is still 1, as before epoch {self.start:g}"

    def extra_repr(self) -> str:
        return f"start={self.start:g}"


def _ones(loss: Tensor, valid: Tensor | None) -> Tensor:
    return torch.ones_like(loss) if valid is None else valid.to(loss.dtype)
