"""What every weighter is: loss and target in, one weight per sample out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from sampleweights._buffers import ExactBuffers

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
    r"""Base of all weighters: per-sample losses and targets to per-sample weights.

    .. math:: w_j = w(\ell_1, \dots, \ell_M, y_j)

    A weighter of your own is a subclass with a ``forward``. Whatever it remembers goes into
    buffers, so that ``state_dict``, ``.to``, ``deepcopy`` and pickle carry it.

    Shape:
        - loss: :math:`(N, ...)`, floating; a criterion passes it detached.
        - target: class indices with the shape of ``loss``, or probabilities
          :math:`(N, C, ...)`; None for weighters that need none.
        - valid: the shape of ``loss``, bool; None means that every sample is valid. A weighter
          knows no ``ignore_index``: called alone on padded tokens, give ``valid=target != -100``.
        - Output: the shape and dtype of ``loss``, at least 0, detached.

    Example:
        >>> import torch
        >>> from sampleweights import Weighter
        >>> class Clipped(Weighter):
        ...     '''Leave out what lies far above the median of the valid samples.'''
        ...     def forward(self, loss, target=None, valid=None):
        ...         valid = torch.ones_like(loss, dtype=torch.bool) if valid is None else valid
        ...         median = loss.masked_fill(~valid, torch.nan).nanmedian()
        ...         return (valid & ~(loss > 3 * median)).to(loss.dtype)
        >>> Clipped()(torch.tensor([0.1, 0.2, 0.3, 9.0]))
        tensor([1., 1., 1., 0.])
    """

    num_classes: int | None = None
    """How many classes the weighter was made for; None if it does not matter. Criteria check it."""

    may_drop = True
    """Whether a valid sample can get the weight 0."""

    @property
    def inactive(self) -> bool:
        """Whether every weight is 1, whatever the loss; a criterion then skips the weighter."""
        return False

    @property
    def class_factor(self) -> Tensor | None:
        """``(C,)``: the factor of the weights that depends on the class alone; None: none does.

        Losses of probabilities over classes multiply it into the term of each class.
        """
        return None

    def without_class_weights(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor | None:
        """The weights without ``class_factor``, for losses that contain it; None: none is left."""
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
