"""Focal loss, for one class of many and for binary and multi-label targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sampleweights._checks import check_alpha, check_gamma
from sampleweights.functional.binary import focal_of_either
from sampleweights.losses.sigmoid import SigmoidLoss
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.margins.base import Margin
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["BinaryFocalLoss", "FocalLoss"]


class FocalLoss(SoftmaxLoss):
    r"""Softmax focal loss with sample weights.

    .. math:: \frac{1}{M} \sum_j w_j \, (1 - p_t)^\gamma \, (-\log p_t)

    :math:`p_t` is the softmax probability of the target. It depends only on the logits (and on the
    margin); class weights and label smoothing apply to the cross-entropy. Finite logits give no
    NaN, in value and gradient, for any gamma, gap and dtype; half precision is computed in
    float32. gamma = 0 is :class:`CrossEntropyLoss`.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`, any
          integer dtype; or probabilities with the shape of ``logits``, whose loss is
          :math:`\sum_c t_c (1 - p_c)^\gamma (-\log p_c)`.
        - sample_weight: the shape of the class indices or of their leading dimensions, at least 0.
        - Output: scalar; the shape of the class indices with ``reduction="none"``.

    Args:
        gamma: focusing parameter, at least 0. Lin et al. use 2; the paper found 1 best.
        weight: torch's own class weights, shape :math:`(C)` (the alpha of Lin et al.).
        ignore_index: the class index that marks a sample to leave out.
        reduction: as in :class:`CrossEntropyLoss`.
        label_smoothing: in [0, 1].
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.
        margin: as in :class:`CrossEntropyLoss`; :math:`p_t` is computed from the moved logits.

    The call takes ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` as
    :class:`CrossEntropyLoss` does.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit.
        IndexError: a class index out of range (on CUDA a device-side assertion, or a NaN loss
            where the Triton kernels compute it).

    Example:
        >>> import torch
        >>> from sampleweights import FocalLoss
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> FocalLoss(gamma=1.0)(logits, torch.tensor([0, 0]))
        tensor(0.4876)

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 6.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
        margin: Margin | None = None,
    ) -> None:
        super().__init__(
            weight,
            ignore_index,
            reduction,
            label_smoothing,
            weighter,
            global_batch,
            process_group,
            margin,
        )
        self.gamma = check_gamma(gamma)

    def extra_repr(self) -> str:
        return ", ".join([f"gamma={self.gamma}", *self._arguments_repr()])


class BinaryFocalLoss(SigmoidLoss):
    r"""Sigmoid focal loss with sample weights, for binary and multi-label targets.

    .. math::
        \frac{1}{M} \sum_j w_j \ell_j, \quad
        \begin{aligned}
        \ell_j = {} & t_j \, \alpha (1 - p_j)^\gamma (-\log p_j) \\
        & + (1 - t_j) (1 - \alpha) \, p_j^\gamma (-\log(1 - p_j))
        \end{aligned}

    Every element is a sample of its own. Weighters rank elements. Class-frequency weighters and
    margins take two counts, the number of negatives and the number of positives, in this order;
    or a row of both for each label, :math:`(L, 2)`, for logits :math:`(N, L, ...)`.

    The default ``alpha=0.25`` makes positives count less than negatives. If positives are rare and
    should count more, pass ``alpha`` above 0.5, or ``alpha=None`` with a class-frequency weighter.

    Shape:
        - logits: any shape, floating.
        - target: the shape of ``logits``: 0 or 1 (any dtype), or probabilities (floating).
        - sample_weight: the shape of ``logits`` or of its leading dimensions, at least 0. A NaN in
          a floating target adds exactly 0 where its weight is 0.
        - Output: scalar; the shape of ``logits`` with ``reduction="none"``.

    Args:
        gamma: focusing parameter, at least 0. Lin et al. use 2.
        alpha: weight of the positives, in [0, 1]; the negatives get 1 - alpha. With 0.25, the
            choice of Lin et al., a positive counts a third as much as a negative. A number, or
            one for each label, :math:`(C)` for logits :math:`(N, C, ...)`. With None, positives
            and negatives have the weight 1. ``alpha = p / (1 + p)`` has the ratio of
            ``pos_weight=p`` of ``nn.BCEWithLogitsLoss``; its loss is smaller by the
            factor 1 + p.
        ignore_index: the target value that marks an element to leave out, also ``float("nan")``.
        reduction: "mean" (over the valid elements), "weighted_mean", "sum" or "none".
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.
        margin: as in :class:`CrossEntropyLoss`; it takes one logit z for the logits (0, z) of two
            classes, and :math:`p` is computed from the moved logit.

    The call takes ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` as
    :class:`CrossEntropyLoss` does.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit; on the CPU a target
            outside [0, 1].

    Example:
        >>> import torch
        >>> from sampleweights import BinaryFocalLoss
        >>> BinaryFocalLoss()(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]))
        tensor(0.0880)

    Note:
        For targets of 0 and 1 this equals ``torchvision.ops.sigmoid_focal_loss``. For targets t
        between them it is the expected loss of a label that is 1 with probability t.

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 5.
    """

    alpha: float | Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        alpha: float | Tensor | Sequence[float] | None = 0.25,
        ignore_index: float = -100,
        reduction: str = "mean",
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
        margin: Margin | None = None,
    ) -> None:
        super().__init__(ignore_index, reduction, weighter, global_batch, process_group, margin)
        self.gamma = check_gamma(gamma)
        checked = check_alpha(alpha)
        if isinstance(checked, Tensor):
            self.register_buffer("alpha", checked)
        else:
            self.alpha = checked

    def losses(self, negative: Tensor, positive: Tensor, target: Tensor) -> Tensor:
        return focal_of_either(negative, positive, target, self.gamma, self.alpha)

    def extra_repr(self) -> str:
        alpha = f"<{len(self.alpha)} labels>" if isinstance(self.alpha, Tensor) else self.alpha
        return ", ".join([f"gamma={self.gamma}", f"alpha={alpha}", *self._arguments_repr()])
