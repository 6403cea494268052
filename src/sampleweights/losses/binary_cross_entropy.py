"""Binary cross-entropy, a drop-in replacement for nn.BCEWithLogitsLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sampleweights._buffers import follow
from sampleweights._checks import as_factor, check_binary_metadata, value_range
from sampleweights._eager import is_readable
from sampleweights.functional.binary import binary_cross_entropy, sigmoid_loss
from sampleweights.functional.reference import output_dtype
from sampleweights.losses.base import call_hooks
from sampleweights.losses.sigmoid import SigmoidLoss
from sampleweights.margins.base import Margin
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["BCEWithLogitsLoss"]


class BCEWithLogitsLoss(SigmoidLoss):
    r"""Binary cross-entropy with sample weights: nn.BCEWithLogitsLoss with a ``weighter``.

    .. math::
        \frac{1}{M} \sum_j w_j \ell_j, \quad
        \ell_j = v_j \left( q_j \, t_j (-\log p_j) + (1 - t_j) (-\log(1 - p_j)) \right)

    with :math:`p = \sigma(z)`, and torch's own ``weight`` :math:`v` and ``pos_weight`` :math:`q`,
    which are 1 unless they are given. Without a weighter it equals ``torch.nn.BCEWithLogitsLoss``
    in value and gradient, on the CPU to the last bit, with three differences:

    - If no element counts (the batch is empty, or all are ignored), the loss is 0 and
      ``backward()`` still works. torch returns NaN.
    - Half precision is computed in float32.
    - Targets may be integers or booleans, and elements with ``ignore_index`` are left out.

    Every element is a sample of its own. Weighters rank elements. Class-frequency weighters and
    margins take two counts, the number of negatives and the number of positives, in this order; or
    a row of both for each label, :math:`(L, 2)`, for logits :math:`(N, L, ...)`.
    ``weighter=ClassBalanced([negatives, positives])`` has the ratio of
    ``pos_weight = negatives / positives``, with a mean weight of 1 over the training elements; so
    its loss is that of ``pos_weight``, times ``(negatives + positives) / (2 * negatives)``.

    Shape:
        - logits: any shape, floating.
        - target: the shape of ``logits``: 0 or 1 (any dtype), or probabilities (floating).
        - sample_weight: the shape of ``logits`` or of its leading dimensions, at least 0. A NaN in
          a floating target adds exactly 0 where its weight is 0.
        - Output: scalar; the shape of ``logits`` with ``reduction="none"``.

    Args:
        weight: torch's own weights, which are broadcast to the shape of the logits. They are
            multiplied into the loss before the weighter sees it; no reduction divides by them.
        size_average: None; torch's deprecated argument, kept so that the order stays the same.
        reduce: None; torch's deprecated argument, kept so that the order stays the same.
        reduction: "mean" (over the valid elements), "weighted_mean", "sum" or "none".
        pos_weight: torch's own weight of the positives: a number, or a tensor that is broadcast to
            the shape of the logits, such as one value for each label, :math:`(L)`, for logits
            :math:`(N, L)`. It is part of the loss, as ``weight`` is.
        ignore_index: the target value that marks an element to leave out, also ``float("nan")``.
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.
        margin: as in :class:`CrossEntropyLoss`; it takes one logit z for the logits (0, z) of two
            classes.

    The call takes ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` as
    :class:`CrossEntropyLoss` does.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit; on the CPU a target
            outside [0, 1].

    Example:
        >>> import torch
        >>> from sampleweights import BCEWithLogitsLoss, ClassBalanced
        >>> logits, target = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
        >>> BCEWithLogitsLoss()(logits, target)
        tensor(0.3778)
        >>> negatives, positives = 90, 10
        >>> BCEWithLogitsLoss(weighter=ClassBalanced([negatives, positives]))(logits, target)
        tensor(1.4248)
        >>> BCEWithLogitsLoss(pos_weight=negatives / positives)(logits, target) * 100 / 180
        tensor(1.4248)

    See also :class:`BinaryFocalLoss`, which is the same loss for ``gamma=0, alpha=None``.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: Tensor | float | None = None,
        *,
        ignore_index: float = -100,
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
        margin: Margin | None = None,
    ) -> None:
        deprecated: dict[str, Any] = {"size_average": size_average, "reduce": reduce}
        for name, value in deprecated.items():
            if value is not None:
                raise ValueError(f"{name} must be None (deprecated by torch), got {value}")
        super().__init__(ignore_index, reduction, weighter, global_batch, process_group, margin)
        self.register_buffer("weight", as_factor("weight", weight))
        self.register_buffer("pos_weight", as_factor("pos_weight", pos_weight))

    def losses(self, negative: Tensor, positive: Tensor, target: Tensor) -> Tensor:
        weight, pos_weight = self._factors(negative)
        if negative is positive:
            return binary_cross_entropy(negative, target, weight, pos_weight)
        loss = sigmoid_loss(negative, positive, target, of_positive=pos_weight)
        return loss if weight is None else loss * weight

    def _factors(self, logits: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return self._factor("weight", logits), self._factor("pos_weight", logits)

    def _factor(self, name: str, logits: Tensor) -> Tensor | None:
        factor = self._buffers[name]
        if factor is None:
            return None
        if not _broadcasts(factor.shape, logits.shape):
            raise ValueError(
                f"{name} must be broadcast to the shape of logits, {tuple(logits.shape)}, got "
                f"{tuple(factor.shape)}"
            )
        return follow(factor, logits)

    def _output_dtype(self, logits: Tensor, target: Tensor) -> torch.dtype:
        return output_dtype(logits, target)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the reduced loss; see the class for what the arguments mean."""
        if sample_weight is None and normalizer is None and reference_loss is None:
            value = self._in_one_call(logits, target)
            if value is not None:
                if self.is_watched:
                    with torch.no_grad():
                        call_hooks(self, self.samples(logits.detach(), target), None)
                return value
        return super().forward(
            logits,
            target,
            sample_weight=sample_weight,
            normalizer=normalizer,
            reference_loss=reference_loss,
        )

    def _in_one_call(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """torch's own loss to the last bit, where that is all there is to compute; else None."""
        reduction, weighter = self.reduction, self.acting_weighter
        if reduction not in ("mean", "sum") or self.has_margin or self.num_processes > 1:
            return None
        if not (weighter is None or weighter.inactive):
            return None
        check_binary_metadata(logits, target)
        # elsewhere it is not known, without waiting for a device, whether elements are ignored
        if not (is_readable(logits) and is_readable(target) and target.numel()):
            return None
        low, high = value_range(target)
        if 0 <= self.ignore_index <= 1 or not (low >= 0 and high <= 1):
            return None
        if weighter is not None:
            self._check_num_classes(weighter, 2)
            weighter.skip()
        loss = binary_cross_entropy(logits, target, *self._factors(logits), reduction)
        dtype = self._output_dtype(logits, target)
        return loss if loss.dtype == dtype else loss.to(dtype)

    def extra_repr(self) -> str:
        arguments = []
        for name in ("weight", "pos_weight"):
            factor = getattr(self, name)
            if factor is not None:
                shown = f"{factor.item():g}" if factor.ndim == 0 else f"<{tuple(factor.shape)}>"
                arguments.append(f"{name}={shown}")
        return ", ".join([*arguments, *self._arguments_repr()])


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(
        n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False)
    )
