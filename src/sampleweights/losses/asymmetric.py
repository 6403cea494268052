"""Asymmetric loss, for multi-label targets with few positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sampleweights._checks import check_clip, check_gamma
from sampleweights.functional.binary import sigmoid_loss
from sampleweights.losses.sigmoid import SigmoidLoss
from sampleweights.margins.base import Margin
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["AsymmetricLoss"]


class AsymmetricLoss(SigmoidLoss):
    r"""Asymmetric loss (ASL) with sample weights, for multi-label targets with few positives.

    .. math::
        \frac{1}{M} \sum_j w_j \ell_j, \quad
        \begin{aligned}
        \ell_j = {} & t_j \, (1 - p_j)^{\gamma_+} (-\log p_j) \\
        & + (1 - t_j) \, p_{m,j}^{\gamma_-} (-\log(1 - p_{m,j})), \quad
        p_{m,j} = \max(p_j - m, 0)
        \end{aligned}

    Focal loss with a gamma of their own for negatives and positives. A negative whose probability
    is below the clip :math:`m` has the loss 0, and one that is certainly wrong has a bounded loss
    and almost no gradient, since its label may be missing. ``gamma_negative=0``,
    ``gamma_positive=0`` and ``clip=0`` is :class:`BCEWithLogitsLoss`; equal gammas and ``clip=0``
    is :class:`BinaryFocalLoss` with ``alpha=None``.

    Every element is a sample of its own. Weighters and margins take counts as for
    :class:`BinaryFocalLoss`. Half precision is computed in float32, and finite logits give no NaN,
    in value and gradient.

    Shape:
        - logits: any shape, floating.
        - target: the shape of ``logits``: 0 or 1 (any dtype), or probabilities (floating).
        - sample_weight: the shape of ``logits`` or of its leading dimensions, at least 0. A NaN in
          a floating target adds exactly 0 where its weight is 0.
        - Output: scalar; the shape of ``logits`` with ``reduction="none"``.

    Args:
        gamma_negative: focusing parameter of the negatives, at least 0. Ridnik et al. use 4.
        gamma_positive: focusing parameter of the positives, at least 0. Ridnik et al. use 0 or 1;
            1 is the default of their code and of timm.
        clip: :math:`m`, by which the probability of a negative is lowered: 0, or in [1e-6, 1).
            Ridnik et al. use 0.05.
        ignore_index: the target value that marks an element to leave out, also ``float("nan")``.
        reduction: "mean" (over the valid elements), "weighted_mean", "sum" or "none".
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.
        margin: as in :class:`BinaryFocalLoss`.

    The call takes ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` as
    :class:`CrossEntropyLoss` does.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit; on the CPU a target
            outside [0, 1].

    Example:
        >>> import torch
        >>> from sampleweights import AsymmetricLoss
        >>> criterion = AsymmetricLoss(reduction="none")
        >>> criterion(torch.tensor([2.0, -1.0, -3.0]), torch.tensor([1, 0, 0]))
        tensor([0.0151, 0.0006, 0.0000])

    Note:
        Gradient flows through the factors, as in the paper's analysis of the gradient. The paper's
        code has a switch that leaves this part out (``disable_torch_grad_focal_loss``). For targets
        between 0 and 1 this is the expected loss of a label that is 1 with probability t; the
        paper's code interpolates the exponents there.

    References:
        Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021.
    """

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        clip: float = 0.05,
        *,
        ignore_index: float = -100,
        reduction: str = "mean",
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
        margin: Margin | None = None,
    ) -> None:
        super().__init__(ignore_index, reduction, weighter, global_batch, process_group, margin)
        self.gamma_negative = check_gamma(gamma_negative, "gamma_negative")
        self.gamma_positive = check_gamma(gamma_positive, "gamma_positive")
        self.clip = check_clip(clip)

    def losses(self, negative: Tensor, positive: Tensor, target: Tensor) -> Tensor:
        gammas = self.gamma_negative, self.gamma_positive
        return sigmoid_loss(negative, positive, target, *gammas, clip=self.clip)

    def extra_repr(self) -> str:
        own = ("gamma_negative", "gamma_positive", "clip")
        arguments = [f"{name}={getattr(self, name)}" for name in own]
        return ", ".join([*arguments, *self._arguments_repr()])
