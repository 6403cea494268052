"""Softmax cross-entropy, a drop-in replacement for nn.CrossEntropyLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.margins.base import Margin
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(SoftmaxLoss):
    r"""Softmax cross-entropy with sample weights: nn.CrossEntropyLoss with a ``weighter``.

    .. math:: \frac{1}{M} \sum_j w_j \, (-\log p(y_j))

    Without a weighter it equals ``torch.nn.CrossEntropyLoss`` in value and gradient, with three
    differences:

    - If no sample counts (the batch is empty, or all samples are ignored), the loss is 0 and
      ``backward()`` still works. torch returns NaN.
    - Label smoothing in half precision is computed in float32. torch's float16 gives infinity.
    - A probability of 0 adds 0 also where the difference of two logits is too large for their
      dtype. torch returns NaN.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating.
        - target: class indices of shape :math:`()`, :math:`(N)` or :math:`(N, d_1, ...)`, any
          integer dtype; or probabilities with the shape of ``logits``.
        - sample_weight: the shape of the class indices or of their leading dimensions, at least 0.
        - Output: scalar; the shape of the class indices with ``reduction="none"``.

    Args:
        weight: torch's own class weights, shape :math:`(C)`. They are multiplied into the loss
            before the weighter sees it.
        size_average: None; torch's deprecated argument, kept so that the order stays the same.
        ignore_index: the class index that marks a sample to leave out.
        reduce: None; torch's deprecated argument, kept so that the order stays the same.
        reduction: "mean" (divides by the number of valid samples, Eq. 3; with ``weight`` and
            without a weighter it divides by the summed class weights of the targets, as torch
            does), "weighted_mean" (divides by the sum of all weights), "sum" or "none".
        label_smoothing: in [0, 1].
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: weight and divide as if the batches of all processes were one batch. DDP and
            FSDP then average to the gradient that one process would compute. The returned value
            is the part of this process, times the number of processes.
        process_group: the processes, with ``global_batch=True``; None for all of them.
        margin: a :class:`~sampleweights.Margin` that moves the logits before the loss. Weighters
            see the loss of the moved logits. Hooks such as :class:`~sampleweights.LossHistory`
            see that loss, too, but the original logits of the model.

    The call takes three optional arguments:

    - ``sample_weight=`` is multiplied in last. Gradient flows through it if it requires one.
    - ``normalizer=``, a number or 0-d tensor, replaces the denominator of the means. With that of
      the whole batch (its valid samples; for "weighted_mean" the sum of their weights), the
      gradients of micro-batches add up to the gradient of the whole batch, if a weight does not
      depend on the other samples: with class weights and ``sample_weight``, but not with curricula,
      which rank within each micro-batch.
    - ``reference_loss=`` is the loss of each sample under a reference model, in the shape of the
      losses. The weighter then sees the loss minus the reference loss (detached), and the returned
      value is still the loss itself. ``OHEM`` then keeps samples that are hard but learnable,
      since noise has a high loss under both models. If class weights are part of the losses
      (``weight``, and class-frequency weighters with probabilities), compute the reference loss
      with them, too.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit.
        IndexError: a class index out of range (on CUDA a device-side assertion, or a NaN loss
            where the Triton kernels compute it).

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, OHEM
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
        >>> target = torch.tensor([0, 0, 1])
        >>> CrossEntropyLoss()(logits, target)
        tensor(0.8048)
        >>> CrossEntropyLoss(weighter=OHEM(schedule=1 / 3), reduction="none")(logits, target)
        tensor([0.0000, 1.3133, 0.0000])

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 3
        and 5.
        Mindermann et al., Prioritized Training on Points that Are Learnable, Worth Learning, and
        Not Yet Learnt, ICML 2022 (``reference_loss``).
        Lin et al., Rho-1: Not All Tokens Are What You Need, NeurIPS 2024 (the same for tokens).
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
        margin: Margin | None = None,
    ) -> None:
        deprecated: dict[str, Any] = {"size_average": size_average, "reduce": reduce}
        for name, value in deprecated.items():
            if value is not None:
                raise ValueError(f"{name} must be None (deprecated by torch), got {value}")
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
