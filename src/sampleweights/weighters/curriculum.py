"""Curricula: keep some samples of the batch, by their loss, and more of them every epoch."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from sampleweights import selection
from sampleweights._checks import as_number, check_floating
from sampleweights.schedules import Constant, Schedule, Sigmoid
from sampleweights.weighters.base import Weighter

__all__ = ["OHEM", "SelfPaced"]


class _Curriculum(Weighter):
    """A weighter with a kept fraction that follows a schedule."""

    fraction: Tensor

    def __init__(self, num_epochs: float | None, schedule: Any) -> None:
        super().__init__()
        if (num_epochs is None) == (schedule is None):
            raise ValueError(
                f"{type(self).__name__} takes either num_epochs or schedule, got "
                f"num_epochs={num_epochs!r} and schedule={schedule!r}"
            )
        if num_epochs is not None:
            schedule = Sigmoid(num_epochs)
        elif isinstance(schedule, (numbers.Real, Tensor)):
            schedule = Constant(float(schedule))
        if not callable(schedule):
            raise ValueError(
                f"schedule must be a callable or a fraction in (0, 1], got {schedule!r}"
            )
        self.schedule: Schedule = schedule
        self.register_buffer("fraction", torch.ones((), dtype=torch.float64))
        self.set_epoch(0)

    @property
    def inactive(self) -> bool:
        return self._keeps_all

    def set_epoch(self, epoch: float) -> None:
        epoch = as_number("epoch", epoch)
        if not 0 <= epoch < math.inf:
            raise ValueError(f"epoch must be finite and at least 0, got {epoch}")
        fraction = float(self.schedule(epoch))
        if not 0 < fraction <= 1:
            raise ValueError(
                f"schedule must return a fraction in (0, 1], got {fraction} at epoch {epoch}"
            )
        self.fraction.fill_(fraction)
        self._keeps_all = fraction == 1

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.fraction.is_meta:
            self._keeps_all = bool(self.fraction == 1)

    def extra_repr(self) -> str:
        return f"schedule={self.schedule!r}"


class SelfPaced(_Curriculum):
    r"""Self-paced learning: weight 1 for the m samples of lowest loss, 0 for the others.

    .. math::
        w_j = [\, \ell_j \ \text{among the}\ m\ \text{lowest of the batch}\,], \quad
        m = \lfloor f(e) M + 1/2 \rfloor

    with :math:`M` the number of valid samples and :math:`f` the schedule; at least one sample is
    kept. Equal losses are taken in order of position, a NaN loss is always kept first.

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, 0 or 1, detached.

    Args:
        num_epochs: the epochs of the whole training, at least 1; gives the paper's
            :class:`~sampleweights.schedules.Sigmoid`.
        schedule: instead of ``num_epochs``, any callable from the epoch to a fraction in (0, 1],
            or a fraction that stays.

    Raises:
        ValueError: none or both of the two, ``num_epochs`` below 1, a fraction outside (0, 1].

    Example:
        >>> import torch
        >>> from sampleweights import SelfPaced
        >>> weighter = SelfPaced(num_epochs=10)
        >>> loss = torch.tensor([0.1, 2.0, 0.3, 1.0])
        >>> weighter(loss)
        tensor([1., 0., 1., 0.])
        >>> weighter.set_epoch(5)
        >>> weighter(loss)
        tensor([1., 1., 1., 1.])

    Note:
        The paper divides by the batch size, not by m (``reduction="mean"``): training begins with
        smaller steps. ``reduction="weighted_mean"`` divides by m.

    References:
        Kumar, Packer & Koller, Self-Paced Learning for Latent Variable Models, NIPS 2010.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Sec. 3.3.
    """

    def __init__(
        self, num_epochs: float | None = None, *, schedule: Schedule | float | None = None
    ) -> None:
        super().__init__(num_epochs, schedule)

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        check_floating("loss", loss)
        keep = selection.select(loss, self.fraction, largest=False, valid=valid)
        return keep.to(loss.dtype)


class OHEM(_Curriculum):
    r"""Online hard example mining: weight 1 for the m samples of highest loss, 0 for the others.

    .. math::
        w_j = [\, \ell_j \ \text{among the}\ m\ \text{highest of the batch}\,], \quad
        m = \lfloor f(e) M + 1/2 \rfloor

    with :math:`M` the number of valid samples and :math:`f` the schedule; at least one sample is
    kept. Equal losses are taken in order of position, a NaN loss is always kept first. With
    ``per_class=True`` the same holds within each class that the batch contains.

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: the shape of ``loss``, integer; needed with ``per_class=True`` only.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, 0 or 1, detached.

    Args:
        num_epochs: the epochs of the whole training, at least 1; gives the paper's
            :class:`~sampleweights.schedules.Sigmoid`.
        schedule: instead of ``num_epochs``, any callable from the epoch to a fraction in (0, 1],
            or a fraction that stays.
        per_class: keep the hardest samples of each class, not of the batch (the paper's future
            work).

    Raises:
        ValueError: none or both of the two, ``num_epochs`` below 1, a fraction outside (0, 1];
            in the call, ``per_class=True`` without class indices.

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
        The paper divides by the batch size, not by m (``reduction="mean"``): training begins with
        smaller steps. ``reduction="weighted_mean"`` divides by m.

    References:
        Shrivastava, Gupta & Girshick, Training Region-Based Object Detectors with Online Hard
        Example Mining, CVPR 2016.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Sec. 3.3.
    """

    def __init__(
        self,
        num_epochs: float | None = None,
        *,
        schedule: Schedule | float | None = None,
        per_class: bool = False,
    ) -> None:
        super().__init__(num_epochs, schedule)
        self.per_class = per_class

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        check_floating("loss", loss)
        group = target if self.per_class else None
        if self.per_class and (
            target is None or target.is_floating_point() or target.shape != loss.shape
        ):
            came = "None" if target is None else f"{target.dtype} {tuple(target.shape)}"
            raise ValueError(
                f"target must hold class indices of shape {tuple(loss.shape)} for "
                f"OHEM(per_class=True), got {came}"
            )
        keep = selection.select(loss, self.fraction, largest=True, valid=valid, group=group)
        return keep.to(loss.dtype)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", per_class=True" if self.per_class else "")
