"""What every margin is: logits in, logits out, before the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
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
        - Output: the shape of ``logits``, floating. The loss is computed in this dtype, and its
          result has the dtype that it has without a margin; so move half precision in float32.

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
        """Return the logits that the loss sees: the shape of ``logits``."""

    def binary(
        self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Move one logit per sample, the log-odds of class 1 of two: for losses with a sigmoid.

        .. math:: m(z, y) = m_1((0, z), y) - m_0((0, z), y)

        Shape:
            - logits: any shape, floating.
            - target: the shape of ``logits``: 0, 1 or the probability of class 1.
            - valid: the shape of ``logits``, bool; None means that every sample is valid.
            - Output: the logits of a negative and those of a positive, each in the shape of
              ``logits``. A margin that does not depend on the target returns one tensor twice.
        """
        both = torch.stack([torch.zeros_like(logits), logits], -1).reshape(-1, 2)
        index = torch.zeros(len(both), dtype=torch.int64, device=logits.device)
        moved = (self(both, index), self(both, index + 1))
        negative, positive = ((m[:, 1] - m[:, 0]).reshape(logits.shape) for m in moved)
        return negative, positive


def checked_margin(margin: Margin | None) -> Margin | None:
    if not isinstance(margin, (Margin, type(None))):
        raise TypeError(f"margin must be a Margin, got {type(margin).__name__}")
    return margin


class CountMargin(Margin, FromCounts):
    """A margin made of class counts."""

    def _check_binary(self, logits: Tensor, target: Tensor | None, valid: Tensor | None) -> None:
        """Two counts are those of every element; with rows of counts each label has its own."""
        check_floating("logits", logits)
        if self.num_classes != 2:
            raise ValueError(
                f"class_counts of {type(self).__name__} must be [negatives, positives], or have a "
                f"row of both for each label, (L, 2), where a sample has one logit; got "
                f"{self.num_classes} classes"
            )
        if target is not None and self.has_absent:
            self._check_binary_present(target, valid)

    def _check_logits(self, logits: Tensor) -> None:
        check_floating("logits", logits)
        counts: Any = self._buffers["class_counts"]
        if counts.ndim == 2:
            raise ValueError(
                f"{type(self).__name__} has the counts of {len(counts)} labels, which "
                f"are for losses with a sigmoid, such as BCEWithLogitsLoss; for classes of which a "
                f"sample has one, give it class_counts of shape (C,)"
            )
        num_classes = logits.shape[class_dim(logits)] if logits.ndim else 0
        if num_classes != self.num_classes:
            raise ValueError(
                f"{type(self).__name__} was made for {self.num_classes} classes, logits have "
                f"{num_classes}"
            )
