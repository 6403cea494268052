"""What every margin is: logits in, logits out, before the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from sampleweights._buffers import ExactBuffers
from sampleweights._checks import check_floating, class_dim
from sampleweights.counting import FromCounts

__all__ = ["Margin"]


class Margin(ExactBuffers, ABC):
    r"""Base class of all margins, which adjust the logits of the model before the loss.

    .. math:: \tilde z = m(z, y)

    To write your own margin, write a subclass with a ``forward``. Keep its state in buffers, so
    that ``state_dict``, ``.to``, ``deepcopy`` and pickle include it. Gradient flows through it.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`, or
          probabilities with the shape of ``logits``; None for margins that need none.
        - valid: the shape of the class indices, bool; None means that every sample is valid. The
          result for other samples does not matter, since their loss is 0.
        - Output: the shape and dtype of ``logits``.

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, Margin
        >>> class Temperature(Margin):
        ...     '''Softer probabilities.'''
        ...     def forward(self, logits, target=None, valid=None):
        ...         return logits / 2
        >>> CrossEntropyLoss(margin=Temperature())(torch.tensor([[4.0, 0.0]]), torch.tensor([0]))
        tensor(0.1269)
    """

    @property
    def inactive(self) -> bool:
        """Whether the logits do not change; a criterion then skips the margin."""
        return False

    @property
    def excludes_classes(self) -> bool:
        """Whether a class gets the logit -inf, so that its part of a smoothed loss is infinite."""
        return False

    @abstractmethod
    def forward(
        self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Return the logits that the loss sees: shape and dtype of ``logits``."""


class CountMargin(Margin, FromCounts):
    """A margin made of class counts."""

    def _check_logits(self, logits: Tensor) -> None:
        check_floating("logits", logits)
        num_classes = logits.shape[class_dim(logits)] if logits.ndim else 0
        if num_classes != self.num_classes:
            raise ValueError(
                f"{type(self).__name__} was made for {self.num_classes} classes, logits have "
                f"{num_classes}"
            )
