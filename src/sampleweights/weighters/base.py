"""What every weighter is: loss and target in, one weight per sample out."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sampleweights._buffers import ExactBuffers
from sampleweights._checks import as_number
from sampleweights._eager import is_eager, is_readable

__all__ = ["Weighter"]

Within = Literal["batch", "sample"]


def check_within(within: str) -> None:
    if within not in get_args(Within):
        raise ValueError(f"within must be one of {list(get_args(Within))}, got {within!r}")


def check_positions(loss: Tensor, name: str) -> None:
    """Refuse losses in which a sample has no positions to choose from.

    So are those that several processes have gathered, whose positions are no longer by sample.
    """
    if loss.ndim < 2:
        raise ValueError(
            f"loss must have several positions for each sample, shape (N, ...), for "
            f"{name}(within='sample'), got {tuple(loss.shape)}: choose from the batch with "
            f"within='batch' (in a list with weighters of the whole batch, global_batch=True has "
            f"no samples either)"
        )


def set_epoch_below(module: nn.Module, epoch: float) -> None:
    """Call ``set_epoch`` on the nearest descendants that have one, wherever they are nested.

    A whole epoch comes as an int. A fraction of one reaches only who says that it takes fractions
    (``fractional_epochs``); others, which may look their epoch up in a list, get the whole epoch.
    """
    number = as_number("epoch", epoch)
    whole = math.floor(number) if math.isfinite(number) else number
    for child in module.children():
        set_epoch = getattr(child, "set_epoch", None)
        if not callable(set_epoch):
            set_epoch_below(child, epoch)
            continue
        own = getattr(type(child), "set_epoch", None)
        fractions = getattr(child, "fractional_epochs", False) or own is Weighter.set_epoch
        set_epoch(number if fractions and number != whole else whole)


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

    is_local = False
    """Whether the weights of a sample need no other sample. Then processes that share a batch do
    not gather it for this weighter."""

    is_elementwise = False
    """Whether the weight of a loss needs no other loss, not even one of the same sample.
    :class:`~sampleweights.LinearCrossEntropyLoss` then computes loss and gradient in one pass."""

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

    def _runs(self, forward: Callable[..., Tensor]) -> bool:
        """Whether a call is this ``forward`` and no more: not a subclass's, and without hooks."""
        hooked = self._forward_hooks or self._forward_pre_hooks
        return not hooked and type(self).forward is forward

    def weight_of_few(self, loss: Tensor, divisor: int) -> Tensor | None:
        """What a call returns for losses ``(N,)`` on the CPU, over ``divisor``, in fewer steps.

        None where there is no such way.
        """
        return None

    def skip(self) -> None:
        """Hear that a criterion skips this weighter for a batch, since it is inactive."""

    @abstractmethod
    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Return one weight per sample: the shape of ``loss``, at least 0, detached."""

    def set_epoch(self, epoch: float) -> None:
        """Tell the weighter, and those nested in it, the epoch (from 0; may be a fraction).

        A ``set_epoch`` of your own gets whole epochs (int) from criteria and callbacks; set the
        class attribute ``fractional_epochs = True`` if it takes fractions.
        """
        set_epoch_below(self, epoch)


_FORGOTTEN_AFTER = 20
"""Training calls without ``set_epoch`` after which a weighter that waits for it warns: a few epochs
of a small data set. Who sets each epoch at its start, from the first one on, is never warned."""

PARTS = 1_000_000
"""Of an epoch, in the buffer: whole numbers, since averages of models mix floating buffers, and
copy the others."""
_LAST = 2**53 // PARTS
"""The last epoch that float64 tells from the next, in millionths."""


def epoch_of(stored: int) -> float:
    """The epoch that the buffer holds: an int where it is whole, as a list of one's own needs."""
    whole, part = divmod(stored, PARTS)
    return stored / PARTS if part else whole


class EpochWeighter(Weighter):
    """A weighter whose weights depend on the epoch, which is all that a checkpoint holds of it.

    The buffer alone says which epoch it is. Where it can be read at no cost, it is read in every
    call; elsewhere it is part of the computation.
    """

    epoch: Tensor
    """The epoch in millionths, of shape () and int64."""
    fractional_epochs = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self._calls_to_warning = 0

    def set_epoch(self, epoch: float) -> None:
        epoch = as_number("epoch", epoch)
        if not 0 <= epoch < math.inf:
            raise ValueError(f"epoch must be finite and at least 0, got {epoch}")
        if epoch > _LAST:
            raise ValueError(f"epoch must be at most {_LAST}, got {epoch}")
        stored = round(epoch * PARTS)
        self._follow(stored)
        self.epoch.fill_(stored)
        self._calls_to_warning = 0

    def _read(self) -> int | None:
        """The epoch in millionths; None where that would wait for a device, or is compiled."""
        epoch: Any = self._buffers["epoch"]  # several times as fast as the attribute
        return epoch.item() if is_readable(epoch) else None

    def _follow(self, stored: int) -> None:
        """Check what the epoch, in millionths, says; raise before anything has changed."""

    @abstractmethod
    def _what_stays(self) -> str | None:
        """What a warning says of the weights while nobody sets the epoch; None: no warning."""

    def _warn_if_forgotten(self, changes: bool = True) -> None:
        self._calls_to_warning = _FORGOTTEN_AFTER if changes else 0

    def _count_call(self) -> None:
        # not in compiled code, which would be compiled anew for every count
        if torch.compiler.is_compiling() or not self._calls_to_warning:
            return
        if not (self.training and torch.is_grad_enabled() and is_eager()):
            return
        self._calls_to_warning -= 1
        what_stays = None if self._calls_to_warning else self._what_stays()
        if what_stays is not None:
            warnings.warn(
                f"{type(self).__name__} was called {_FORGOTTEN_AFTER} times in training and "
                f"set_epoch never: {what_stays}. Call criterion.set_epoch(epoch) at the start of "
                f"each epoch, from epoch 0 on",
                UserWarning,
                stacklevel=2,
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        epoch = state_dict.get(prefix + "epoch")
        if isinstance(epoch, Tensor) and epoch.is_floating_point():  # of an older version
            epoch = (epoch.double() * PARTS).round().long()
            state_dict = {**state_dict, prefix + "epoch": epoch}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if isinstance(epoch, Tensor) and not epoch.is_meta:
            self._follow(int(epoch))
            self._calls_to_warning = 0
