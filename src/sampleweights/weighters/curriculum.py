"""Curricula keep some samples of the batch, selected by loss, and keep more in every epoch."""

from __future__ import annotations

import math
import numbers
from typing import ClassVar

import torch
from torch import Tensor

from sampleweights import selection
from sampleweights._buffers import as_tensor
from sampleweights._checks import check_floating
from sampleweights.schedules import Constant, Schedule, Sigmoid
from sampleweights.weighters.base import (
    PARTS,
    EpochWeighter,
    Within,
    check_positions,
    check_within,
    epoch_of,
)

__all__ = ["OHEM", "SelfPaced"]


class _Curriculum(EpochWeighter):
    """A weighter that keeps a fraction of the batch, of each class or of each sample's positions,
    along a schedule."""

    largest: ClassVar[bool]
    """Whether the samples of highest loss are kept, or those of lowest."""

    scheduled: Tensor

    def __init__(
        self,
        num_epochs: float | None = None,
        *,
        schedule: Schedule | float | None = None,
        per_class: bool = False,
        within: Within = "batch",
    ) -> None:
        super().__init__()
        check_within(within)
        if per_class and within == "sample":
            raise ValueError(
                f"per_class must be False for {type(self).__name__}(within='sample'), got "
                f"{per_class}: losses are ranked in one kind of group"
            )
        if (num_epochs is None) == (schedule is None):
            raise ValueError(
                f"{type(self).__name__} takes either num_epochs or schedule, got "
                f"num_epochs={num_epochs!r} and schedule={schedule!r}"
            )
        if num_epochs is not None:
            schedule = Sigmoid(num_epochs)
        elif isinstance(schedule, (numbers.Real, Tensor)):
            schedule = Constant(float(schedule))  # type: ignore[unreachable]
        if not callable(schedule):
            raise ValueError(
                f"schedule must be a callable or a fraction in (0, 1], got {schedule!r}"
            )
        self.schedule: Schedule = schedule
        self.per_class, self.within = per_class, within
        self._last: tuple[int, Schedule, float] | None = None
        if not hasattr(schedule, "of_tensor"):
            # a schedule that needs the host: what it said last, for devices and compiled code
            self.register_buffer("scheduled", _exactly(1.0), persistent=False)
        self.set_epoch(0)
        self._warn_if_forgotten(not isinstance(schedule, Constant))

    @property
    def fraction(self) -> Tensor:
        """The fraction that the epoch says is kept, 0-d, float64 where the device has it."""
        stored = self._read()
        if stored is not None:
            return torch.tensor(self._fraction_at(stored), dtype=torch.float64)
        dtype = torch.float32 if self.epoch.is_mps else torch.float64
        of_tensor = getattr(self.schedule, "of_tensor", None)
        if of_tensor is None:
            return self.scheduled.to(dtype) / _SCALE
        fraction: Tensor = of_tensor(self.epoch.to(dtype) / PARTS)
        return fraction

    @property
    def inactive(self) -> bool:
        # not known without waiting for a device, nor to compiled code, which would depend on it
        stored = self._read()
        return stored is not None and self._fraction_at(stored) == 1

    @property
    def is_local(self) -> bool:  # type: ignore[override]
        return self.within == "sample"

    def skip(self) -> None:
        self._count_call()

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        check_floating("loss", loss)
        if self.per_class and (
            target is None or target.is_floating_point() or target.shape != loss.shape
        ):
            came = "None" if target is None else f"{target.dtype} {tuple(target.shape)}"
            raise ValueError(
                f"target must hold class indices of shape {tuple(loss.shape)} for "
                f"{type(self).__name__}(per_class=True), got {came}"
            )
        group = target if self.per_class else None
        if self.within == "sample":
            check_positions(loss, type(self).__name__)
            group = torch.arange(loss.shape[0], device=loss.device).view(-1, *[1] * (loss.ndim - 1))
            group = group.expand(loss.shape)
        self._count_call()
        stored = self._read()
        fraction = self.fraction if stored is None else self._fraction_at(stored)
        keep = selection.select(loss, fraction, largest=self.largest, valid=valid, group=group)
        return keep.to(loss.dtype)

    def weight_of_few(self, loss: Tensor, divisor: int) -> Tensor | None:
        if self.per_class or self.within == "sample" or loss.numel() > selection.LOOP_AT_MOST:
            return None
        stored = self._read() if self._runs(_Curriculum.forward) else None
        if stored is None:
            return None
        self._count_call()
        flags = selection.mark_few(loss, self._fraction_at(stored), self.largest, None, None)
        over = 1 / divisor
        return as_tensor([over if kept else 0.0 for kept in flags], loss.dtype)

    def _fraction_at(self, stored: int) -> float:
        """What the schedule says; computed once for each epoch."""
        last = self._last
        if last is not None and last[0] == stored and last[1] is self.schedule:
            return last[2]
        epoch = epoch_of(stored)
        try:
            fraction = float(self.schedule(epoch))
        except (TypeError, LookupError):
            if isinstance(epoch, int):
                raise
            fraction = float(self.schedule(math.floor(epoch)))  # it looks up whole epochs
        if not 0 < fraction <= 1:
            raise ValueError(
                f"schedule must return a fraction in (0, 1], got {fraction} at epoch {epoch}"
            )
        self._last = stored, self.schedule, fraction
        return fraction

    def _follow(self, stored: int) -> None:
        self._last = None  # the schedule may be another than before
        fraction = self._fraction_at(stored)
        if "scheduled" not in self._buffers:
            return
        if self.scheduled.is_meta and not self.epoch.is_meta:  # `assign=True` brings the epoch only
            self.scheduled = torch.zeros_like(self.epoch)
        self.scheduled.copy_(_exactly(fraction))

    def _what_stays(self) -> str | None:
        fraction = float(self.schedule(0))
        if not _changes(self.schedule, fraction):
            return None
        return (
            f"it still keeps the fraction {fraction:g} of epoch 0 (a number as schedule= is a "
            f"fraction that stays)"
        )

    def extra_repr(self) -> str:
        return (
            f"schedule={self.schedule!r}"
            + (", per_class=True" if self.per_class else "")
            + (", within='sample'" if self.within == "sample" else "")
        )


_SCALE = 2.0**62


def _exactly(fraction: float) -> Tensor:
    """A fraction as a whole number, which averages of models copy and casts do not round."""
    return torch.tensor(round(fraction * _SCALE))


def _changes(schedule: Schedule, fraction: float) -> bool:
    """Whether a schedule leaves its first fraction at some later epoch."""
    try:
        return any(schedule(epoch) != fraction for epoch in (1, 10, 100))
    except Exception:  # one of the user's own may end with the training
        return False


class SelfPaced(_Curriculum):
    r"""Self-paced learning: weight 1 for the m samples with the lowest loss, 0 for the others.

    .. math::
        w_j = [\, \ell_j \ \text{among the}\ m\ \text{lowest of the batch}\,], \quad
        m = \lfloor f(e) M + 1/2 \rfloor

    with :math:`M` the number of valid samples and :math:`f` the schedule. At least one sample is
    kept, ties are broken by index, and a NaN loss is always kept first. With ``per_class=True``
    the samples are selected within each class in the batch. Use it if classes are imbalanced:
    otherwise rare classes, whose losses are the highest, are dropped.

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: the shape of ``loss``, integer; needed with ``per_class=True`` only.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, 0 or 1, detached.

    Args:
        num_epochs: the number of epochs of the whole training, at least 1. The fraction of kept
            samples follows the paper's schedule, :class:`~sampleweights.schedules.Sigmoid`.
        schedule: instead of ``num_epochs``, any callable that maps the epoch to a fraction in
            (0, 1], or a constant fraction.
        per_class: select the easiest samples of each class, not of the whole batch.
        within: "sample" selects the easiest positions of each sample of a dense loss, for example
            pixels of each image; "batch" (the default) selects from all of them together.

    Raises:
        ValueError: neither or both of ``num_epochs`` and ``schedule``, ``num_epochs`` below 1, a
            fraction outside (0, 1], ``per_class=True`` with ``within="sample"``; in the call,
            ``per_class=True`` without class indices, ``within="sample"`` with one loss for each
            sample.

    Example:
        >>> import torch
        >>> from sampleweights import SelfPaced
        >>> weighter = SelfPaced(num_epochs=10)
        >>> loss = torch.tensor([0.1, 2.0, 0.3, 1.0])
        >>> weighter(loss)
        tensor([1., 0., 1., 0.])
        >>> SelfPaced(num_epochs=10, per_class=True)(loss, torch.tensor([0, 1, 0, 1]))
        tensor([1., 0., 0., 1.])
        >>> weighter.set_epoch(5)
        >>> weighter(loss)
        tensor([1., 1., 1., 1.])

    Note:
        The paper divides by the batch size and not by m (``reduction="mean"``), so the training
        starts with smaller steps. ``reduction="weighted_mean"`` divides by m.

    References:
        Kumar, Packer & Koller, Self-Paced Learning for Latent Variable Models, NIPS 2010.
        Ghasedi, Wang, Deng & Huang, Balanced Self-Paced Learning for Generative Adversarial
        Clustering Network, CVPR 2019 (for ``per_class``, there over clusters).
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Sec. 3.3.
    """

    largest = False


class OHEM(_Curriculum):
    r"""Online hard example mining: weight 1 for the m samples with the highest loss, else 0.

    .. math::
        w_j = [\, \ell_j \ \text{among the}\ m\ \text{highest of the batch}\,], \quad
        m = \lfloor f(e) M + 1/2 \rfloor

    with :math:`M` the number of valid samples and :math:`f` the schedule. At least one sample is
    kept, ties are broken by index, and a NaN loss is always kept first. With ``per_class=True``
    the samples are selected within each class in the batch.

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: the shape of ``loss``, integer; needed with ``per_class=True`` only.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, 0 or 1, detached.

    Args:
        num_epochs: the number of epochs of the whole training, at least 1. The fraction of kept
            samples follows the paper's schedule, :class:`~sampleweights.schedules.Sigmoid`.
        schedule: instead of ``num_epochs``, any callable that maps the epoch to a fraction in
            (0, 1], or a constant fraction.
        per_class: select the hardest samples of each class, not of the whole batch (the paper
            names this as future work).
        within: "sample" selects the hardest positions of each sample of a dense loss, for example
            pixels or regions of each image, as Shrivastava et al. do; "batch" (the default) selects
            from all of them together.

    Raises:
        ValueError: neither or both of ``num_epochs`` and ``schedule``, ``num_epochs`` below 1, a
            fraction outside (0, 1], ``per_class=True`` with ``within="sample"``; in the call,
            ``per_class=True`` without class indices, ``within="sample"`` with one loss for each
            sample.

    Example:
        >>> import torch
        >>> from sampleweights import OHEM
        >>> weighter = OHEM(schedule=0.5)
        >>> loss = torch.tensor([0.1, 2.0, 0.3, 1.0])
        >>> weighter(loss)
        tensor([0., 1., 0., 1.])
        >>> OHEM(schedule=0.5, per_class=True)(loss, torch.tensor([0, 1, 0, 1]))
        tensor([0., 1., 1., 0.])

    Note:
        The paper divides by the batch size and not by m (``reduction="mean"``), so the training
        starts with smaller steps. ``reduction="weighted_mean"`` divides by m.

    References:
        Shrivastava, Gupta & Girshick, Training Region-Based Object Detectors with Online Hard
        Example Mining, CVPR 2016.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Sec. 3.3.
    """

    largest = True
