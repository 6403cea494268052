"""LDAM: a margin that the logit of the target must win by, larger for rare classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import as_number, check_classification, class_dim
from sampleweights._counts import as_class_counts
from sampleweights.functional.log_odds import by_label
from sampleweights.functional.reference import look_up_valid
from sampleweights.margins.base import CountMargin

__all__ = ["LDAM"]


class LDAM(CountMargin):
    r"""Label-distribution-aware margin, which is larger for rare classes.

    .. math::
        \tilde z_c = s \, (z_c - [c = y] \, \Delta_c), \quad
        \Delta_c = \Delta_{\max} \left( \frac{\min_k N_k}{N_c} \right)^{1/4}

    Predict with the original logits of the model. Cao et al. first train with the margin alone,
    and switch on class weights near the end of the training (:class:`~sampleweights.Deferred`).

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`.
        - valid: the shape of ``target``, bool; None means that every sample is valid.
        - Output: the shape of ``logits``; their dtype, at least float32.

    Args:
        class_counts: training samples of each class, as for
            :class:`~sampleweights.ClassBalanced`. The minimum is taken over classes with samples.
            For :class:`~sampleweights.BCEWithLogitsLoss` and other losses with a sigmoid the
            negatives and positives, :math:`(2)`, or :math:`(L, 2)` with a row for each label.
        max_margin: the margin of the rarest class, at least 0. Cao et al. use 0.5.
        scale: the factor of the logits, above 0. Cao et al. use 30 for the cosines of a normalised
            last layer, which lie in [-1, 1]. Use 1 for the logits of a linear layer.

    ``max_margin=0`` with ``scale=1`` leaves the logits unchanged, to the last bit.

    Raises:
        ValueError: bad ``class_counts``, ``max_margin`` or ``scale``; in the call, a missing
            target or one that does not fit, another number of classes, a target that holds a
            class whose count is 0 (on CUDA and in compiled code a device-side assertion), or
            probabilities.

    Note:
        Probabilities as target raise an error, because no single shift of the logits gives the
        mixture of the losses that mixup needs. Mix the losses instead:
        ``lam * criterion(logits, a) + (1 - lam) * criterion(logits, b)``. In losses with a sigmoid
        the probability of a positive is allowed: the loss is that mixture, of a positive and a
        negative.

    Example:
        >>> import torch
        >>> from sampleweights import LDAM, CrossEntropyLoss
        >>> margin = LDAM([1600, 100])
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> margin(logits, torch.tensor([0, 1]))
        tensor([[ 1.7500,  0.0000],
                [ 2.0000, -0.5000]])
        >>> CrossEntropyLoss(margin=margin)(logits, torch.tensor([0, 1]))
        tensor(1.3696)

    References:
        Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss,
        NeurIPS 2019.
    """

    relative_margin: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
        max_margin: float = 0.5,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_margin = as_number("max_margin", max_margin)
        if not 0 <= self.max_margin < math.inf:
            raise ValueError(f"max_margin must be finite and at least 0, got {max_margin}")
        self.scale = as_number("scale", scale)
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be finite and above 0, got {scale}")
        counts = as_class_counts(class_counts, labels=True)
        rarest = counts.masked_fill(counts == 0, 2**53).amin(-1, keepdim=True)
        relative = (rarest / counts.double()) ** 0.25
        self._keep("relative_margin", counts, relative.masked_fill(counts == 0, 0))

    @property
    def inactive(self) -> bool:
        return self.max_margin == 0 and self.scale == 1

    def forward(
        self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        self._check_logits(logits)
        if target is None:
            raise ValueError("target must be given for LDAM, got None")
        check_classification(logits, target, None, ignore_index=-100)
        if target.is_floating_point():
            raise ValueError(
                "target must hold class indices for LDAM, got probabilities; of mixed samples mix "
                "the losses: lam * criterion(logits, a) + (1 - lam) * criterion(logits, b)"
            )
        if self.inactive:
            return logits
        dim = class_dim(logits)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        margin = self.max_margin * look_up_valid(
            self.relative_margin.to(logits.dtype), target, valid
        )
        if self.has_absent:
            self._check_present(target, valid)
        index = target.long() if valid is None else target.long().masked_fill(~valid, 0)
        # no one-hot tensor: the copy that the logits need in any case is all that is written
        moved = logits.scatter_add(dim, index.unsqueeze(dim), -margin.unsqueeze(dim))
        return moved if self.scale == 1 else moved * self.scale

    def binary(
        self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check_binary(logits, target, valid)
        if self.inactive:
            return logits, logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        of_negative, of_positive = (
            by_label(self.max_margin * self.relative_margin[..., y], logits).to(logits.dtype)
            for y in (0, 1)
        )
        return self.scale * (logits + of_negative), self.scale * (logits - of_positive)

    def extra_repr(self) -> str:
        max_margin = "" if self.max_margin == 0.5 else f", max_margin={self.max_margin}"
        scale = "" if self.scale == 1 else f", scale={self.scale}"
        return super().extra_repr() + max_margin + scale
