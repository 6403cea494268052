"""What every weighter is: loss and target in, one weight per sample out."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from sampleweights._buffers import ExactBuffers
from sampleweights._checks import as_number
from sampleweights._eager import is_eager

__all__ = ["Weighter"]


def set_epoch_below(module: nn.Module, epoch: float) -> None:
    """Call ``set_epoch`` on the nearest descendants that have one, wherever they are nested."""
    for child in module.children():
        set_epoch = getattr(child, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        else:
            set_epoch_below(child, epoch)


class Weighter(ExactBuffers, ABC):
    r"""Base class of all weighters, which compute a weight for each sample.

    .. math:: w_j = w(\ell_1, \dots, \ell_M, y_j)

    To write your own weighter, write a subclass with a ``forward``. Keep its state in buffers, so
    that ``state_dict``, ``.to``, ``deepcopy`` and pickle include it.

    Shape:
        - loss: :math:`(N, ...)`, floating; a criterion passes it detached.
        - target: class indices with the shape of ``loss``, or probabilities
          :math:`(N, C, ...)`; None for weighters that need none.
        - valid: the shape of ``loss``, bool; None means that every sample is valid. A weighter
          has no ``ignore_index``: if you call it on padded tokens, pass ``valid=target != -100``.
        - Output: the shape and dtype of ``loss``, at least 0, detached.

    Example:
        >>> import torch
        >>> from sampleweights import Weighter
        >>> class Clipped(Weighter):
        ...     '''Leave out losses far above the median of the valid samples.'''
        ...     def forward(self, loss, target=None, valid=None):
        ...         valid = torch.ones_like(loss, dtype=torch.bool) if valid is None else valid
        ...         median = loss.masked_fill(~valid, torch.nan).nanmedian()
        ...         return (valid & ~(loss > 3 * median)).to(loss.dtype)
        >>> Clipped()(torch.tensor([0.1, 0.2, 0.3, 9.0]))
        tensor([1., 1., 1., 0.])
    """

    num_classes: int | None = None
    """The number of classes that the weighter needs; None for any number. Criteria check it."""

    may_drop = True
    """Whether a valid sample can get the weight 0."""

    @property
    def inactive(self) -> bool:
        """Whether every weight is 1, whatever the loss; a criterion then skips the weighter."""
        return False

    @property
    def class_factor(self) -> Tensor | None:
        """The factor of the weights that depends only on the class, of shape (C,), or None.

        Losses of class probabilities multiply it into the term of each class.
        """
        return None

    def without_class_weights(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor | None:
        """Weights without ``class_factor``, for losses that contain it; None if none are left."""
        weight: Tensor = self(loss, target, valid)
        return weight

    @abstractmethod
    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Return one weight per sample: the shape of ``loss``, at least 0, detached."""

    def set_epoch(self, epoch: float) -> None:
        """Tell the weighter, and those nested in it, the epoch (from 0; may be a fraction)."""
        set_epoch_below(self, epoch)


_FORGOTTEN_AFTER = 1000
"""Training calls without ``set_epoch`` after which a weighter that waits for it warns: two or three
epochs of a data set of 50,000 samples. Who sets the epoch at the end of each, and not at its start,
has usually set it by then."""


class EpochWeighter(Weighter):
    """A weighter whose weights depend on the epoch, which is all that a checkpoint holds of it."""

    epoch: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("epoch", torch.zeros((), dtype=torch.float64))
        self._calls_to_warning = 0

    def set_epoch(self, epoch: float) -> None:
        epoch = as_number("epoch", epoch)
        if not 0 <= epoch < math.inf:
            raise ValueError(f"epoch must be finite and at least 0, got {epoch}")
        self._follow(epoch)
        self.epoch.fill_(epoch)
        self._calls_to_warning = 0

    @abstractmethod
    def _follow(self, epoch: float) -> None:
        """Take on what the epoch says, or raise and change nothing."""

    @abstractmethod
    def _what_stays(self) -> str | None:
        """What a warning says of the weights while nobody sets the epoch; None: no warning."""

    def _warn_if_forgotten(self, changes: bool = True) -> None:
        self._calls_to_warning = _FORGOTTEN_AFTER if changes else 0

    def _count_call(self) -> None:
        # not in compiled code, which would be compiled anew for every count
        if not (is_eager() and self._calls_to_warning and self.training):
            return
        self._calls_to_warning -= 1
        what_stays = None if self._calls_to_warning else self._what_stays()
        if what_stays is not None:
            warnings.warn(
                f"{type(self).__name__} was called {_FORGOTTEN_AFTER} times in training and "
                f"set_epoch never: {what_stays}. Call criterion.set_epoch(epoch) at the start of "
                f"each epoch",
                UserWarning,
                stacklevel=2,
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "epoch" in state_dict and not self.epoch.is_meta:
            # of this weighter alone: those nested in it load their own
            EpochWeighter.set_epoch(self, self.epoch)  # type: ignore[arg-type]
