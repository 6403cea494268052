"""The probability of the target as the weight of its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from sampleweights._checks import check_floating
from sampleweights.weighters.base import Weighter

__all__ = ["Confidence"]


class Confidence(Weighter):
    r"""Weighs each sample by the probability that the model gives its target, detached.

    .. math:: w_j = \exp(-\ell_j)

    With cross-entropy this is :math:`p(y_j)`: what the model finds implausible counts little, such
    as wrong labels, or tokens of an answer that the model would have put in other words. The
    gradient of a token is then bounded by :math:`p (1 - p)`. It is dynamic fine-tuning (DFT) of
    language models, and the opposite of focal loss, which counts hard samples more. The
    weights are not normalised: with ``reduction="mean"`` the loss becomes smaller, with
    ``"weighted_mean"`` it is divided by their sum.

    In a list it goes first, since weighters see the losses that those before them have weighted.

    Shape:
        - loss: :math:`(N, ...)`, floating, at least 0: cross-entropy without class weights and
          label smoothing, or the weight is no probability.
        - target: not used.
        - valid: the shape of ``loss``, bool; None means that every sample is valid.
        - Output: the shape and dtype of ``loss``, in [0, 1], 0 where not valid, detached.

    Raises:
        TypeError: a loss that is not floating.

    Example:
        >>> import torch
        >>> from sampleweights import Confidence, CrossEntropyLoss
        >>> Confidence()(torch.tensor([0.0, 0.6931, 5.0]))
        tensor([1.0000, 0.5000, 0.0067])
        >>> criterion = CrossEntropyLoss(weighter=Confidence())

    References:
        Wu et al., On the Generalization of SFT: A Reinforcement Learning Perspective with Reward
        Rectification, ICLR 2026, arXiv 2508.05629.
    """

    is_local = True
    is_elementwise = True

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        check_floating("loss", loss)
        weight = torch.exp(-loss.detach())
        return weight if valid is None else weight.masked_fill(~valid, 0)
