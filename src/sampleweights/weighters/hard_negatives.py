"""Hard negative mining: all positives, and some of the hardest negatives for each of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sampleweights._checks import as_number, as_whole_number, check_floating
from sampleweights._eager import is_tracing
from sampleweights.selection import ascending_key
from sampleweights.weighters.base import Weighter, Within, check_positions, check_within

__all__ = ["HardNegativeMining"]


class HardNegativeMining(Weighter):
    r"""Hard negative mining: weight 1 for positives and for the hardest negatives, in a ratio.

    .. math::
        w_j = [\, y_j \ne b \,] + [\, y_j = b,\ \ell_j \ \text{among the}\ m\ \text{highest of the
        negatives} \,], \quad m = \max(\lfloor r P + 1/2 \rfloor, m_{\min})

    with :math:`b` the background and :math:`P` the number of positives, in each sample (image) on
    its own. Of fewer than m negatives all are kept. Ties are broken by index, ignored positions are
    neither kept nor counted, and a NaN loss is always kept, so that divergence is not hidden. As in
    SSD, a sample without positives keeps no negatives, unless ``min_negatives`` says so.

    Shape:
        - loss: :math:`(N, ...)`, floating: a loss for each anchor, pixel or label of a sample.
        - target: the shape of ``loss``: class indices, or 0 and 1 of any dtype (what lies between
          counts as positive).
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, 0 or 1, detached.

    Args:
        ratio: r, the number of negatives for each positive, positive and finite; SSD's is 3.
        background: the class index of the negatives, 0 also for targets of 0 and 1.
        min_negatives: the least number of negatives of each sample, so that images without an
            object count, too.
        within: "sample" counts and ranks in each sample of a dense loss; "batch" does so in the
            whole batch, also if there is one loss for each sample.

    Raises:
        TypeError, ValueError: an argument that does not fit; in the call, a target of another shape
            than the losses, or ``within="sample"`` with one loss for each sample.

    Example:
        >>> import torch
        >>> from sampleweights import HardNegativeMining
        >>> loss = torch.tensor([[0.2, 0.9, 0.1, 0.5, 0.7], [0.3, 0.8, 0.6, 0.4, 0.2]])
        >>> target = torch.tensor([[7, 0, 0, 0, 0], [0, 0, 0, 0, 0]])  # the second: background only
        >>> HardNegativeMining(ratio=3)(loss, target)
        tensor([[1., 1., 0., 1., 1.],
                [0., 0., 0., 0., 0.]])
        >>> HardNegativeMining(ratio=1, min_negatives=2)(loss, target)
        tensor([[1., 1., 0., 0., 1.],
                [0., 1., 1., 0., 0.]])

    Note:
        SSD divides the sum by the number of positives of the batch: pass
        ``normalizer=(target != 0).sum().clamp(min=1)`` in the criterion's call.
        ``reduction="weighted_mean"`` divides by the number of kept positions.

    References:
        Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, Sec. 2.2.
    """

    def __init__(
        self,
        ratio: float = 3.0,
        *,
        background: int = 0,
        min_negatives: int = 0,
        within: Within = "sample",
    ) -> None:
        super().__init__()
        self.ratio = as_number("ratio", ratio)
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"ratio must be positive and finite, got {self.ratio}")
        self.background = as_whole_number("background", background, 0)
        self.min_negatives = as_whole_number("min_negatives", min_negatives, 0)
        check_within(within)
        self.within = within

    @property
    def is_local(self) -> bool:  # type: ignore[override]
        return self.within == "sample"

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        check_floating("loss", loss)
        if target is None or target.shape != loss.shape:
            came = "None" if target is None else f"shape {tuple(target.shape)}"
            raise ValueError(
                f"target must hold a class index, or 0 or 1, for each loss, shape "
                f"{tuple(loss.shape)}, for HardNegativeMining, got {came}"
            )
        if self.within == "sample":
            check_positions(loss, "HardNegativeMining")
        is_negative = target == self.background
        is_positive = ~is_negative
        if valid is not None:
            is_negative, is_positive = is_negative & valid, is_positive & valid

        def rows(values: Tensor) -> Tensor:
            return values.flatten(1) if self.within == "sample" else values.reshape(1, -1)

        allowed = self._allowed(rows(is_positive).sum(1, keepdim=True))
        keep = _hardest(rows(loss.detach()), rows(is_negative), allowed).reshape(loss.shape)
        return (keep | is_positive).to(loss.dtype)

    def _allowed(self, positives: Tensor) -> Tensor:
        exact = positives.to(torch.float32 if positives.is_mps else torch.float64)
        return (self.ratio * exact + 0.5).floor().clamp(min=self.min_negatives)

    def extra_repr(self) -> str:
        return (
            f"ratio={self.ratio:g}, background={self.background}"
            + (f", min_negatives={self.min_negatives}" if self.min_negatives else "")
            + (f", within={self.within!r}" if self.within != "sample" else "")
        )


def _hardest(loss: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """Mark the ``count`` (N, 1) highest losses of each row that are ``among``, and every NaN."""
    if is_tracing():
        raise RuntimeError("torch.jit.trace cannot record a selection: use torch.export instead")
    if loss.dtype.itemsize < 4:
        loss = loss.float()
    key = ascending_key(loss, largest=True)
    # behind -inf, so that only what may be kept has the first ranks
    order = key.masked_fill(~among, torch.iinfo(key.dtype).max).sort(dim=1, stable=True).indices
    place = torch.arange(loss.shape[1], device=loss.device).expand_as(order)
    rank = torch.zeros_like(order).scatter(1, order, place)
    return among & ((rank < count) | loss.isnan())
