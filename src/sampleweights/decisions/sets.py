"""Sets of classes that hold the truth with a chosen probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sampleweights._buffers import ExactBuffers
from sampleweights._checks import as_number, class_dim, on_cpu
from sampleweights._counts import as_class_counts
from sampleweights._eager import is_readable
from sampleweights.counting import shortened
from sampleweights.decisions.held_out import check_every_class, class_values, held_out
from sampleweights.functional.log_odds import beside, check_made_for, classes_last

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PredictionSets"]


class PredictionSets(ExactBuffers):
    r"""Sets of classes that hold the truth with a chosen probability: conformal prediction.

    .. math:: \{c : \log p_c - \log \pi_c \geq t\}, \quad p = \operatorname{softmax}(z)

    :meth:`fit` finds the threshold t on samples that were not trained on, so that the set of a new
    sample holds its class with the probability ``coverage``, whatever the model is. An uncertain
    sample gets a large set, and one that resembles nothing may get an empty one. With the class
    frequencies :math:`\pi` of the training set (``class_counts``) rare classes are covered almost
    as often as frequent ones. Without them, :math:`\pi` is 1 and the sets are smallest on average,
    but often miss the rare classes.

    Shape:
        - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating. With values
          of two classes also one logit, the log-odds of class 1, :math:`()`, :math:`(N)` or
          :math:`(N, 1, ...)`; with those of labels, :math:`(L, 2)`, :math:`(N, L, ...)`.
        - Output: the shape of ``logits``, bool: whether a class is in the set. Of one logit and of
          labels there is a last dimension of 2 besides: whether 0 and whether 1 is in the set.

    Args:
        threshold: the lowest score of a class in the set, :math:`()`; or one for each class,
            in the shape of ``log_prior``; or one for each label, :math:`(L)`.
        log_prior: the logarithm of the class frequencies, :math:`(C)` or :math:`(L, 2)`; zeros for
            none. Both are buffers: they are saved, moved and exported with a model.

    Raises:
        ValueError: shapes that do not fit; in the call, logits of another number of classes or,
            on the CPU, with NaN.

    Note:
        The probability is that over samples *and* fits: a set that was fitted on n samples covers
        ``coverage`` give or take about :math:`\sqrt{0.09 / n}` at 90 %. It holds for samples that
        come from where those of the fit came from. If several samples come from one patient, the
        fit knows less than it seems to.

    Example:
        >>> import torch
        >>> from sampleweights import PredictionSets
        >>> generator = torch.Generator().manual_seed(0)
        >>> target = torch.randint(3, (500,), generator=generator)
        >>> logits = torch.randn(500, 3, generator=generator)
        >>> logits[range(500), target] += 2
        >>> sets = PredictionSets.fit(logits, target, coverage=0.9)
        >>> sets(torch.tensor([[5.0, 0.0, 0.0], [1.0, 0.9, -3.0]]))
        tensor([[ True, False, False],
                [ True,  True, False]])

    References:
        Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, Springer 2005.
        Ding, Fermanian & Salmon, Conformal Prediction for Long-Tailed Classification, ICLR 2026,
        arXiv:2507.06867 (prevalence-adjusted softmax: the score with the class frequencies).
    """

    threshold: Tensor
    log_prior: Tensor

    def __init__(
        self, threshold: Tensor | float | Any, log_prior: Tensor | Sequence[float] | Any
    ) -> None:
        super().__init__()
        lowest = on_cpu("threshold", threshold).to(torch.float64, copy=True)
        prior = class_values("log_prior", log_prior)
        if lowest.shape not in (prior.shape, prior.shape[:-1]):
            raise ValueError(
                f"threshold must have shape {tuple(prior.shape[:-1])} or {tuple(prior.shape)} for "
                f"log_prior of shape {tuple(prior.shape)}, got {tuple(lowest.shape)}"
            )
        if lowest.isnan().any() or not prior.isfinite().all():
            raise ValueError("threshold must not be NaN and log_prior must be finite")
        self.register_buffer("threshold", lowest)
        self.register_buffer("log_prior", prior)

    @classmethod
    def fit(
        cls,
        logits: Tensor,
        target: Tensor,
        coverage: float = 0.9,
        class_counts: Tensor | Sequence[int] | Any | None = None,
        *,
        per_class: bool = False,
    ) -> Self:
        r"""Find the threshold on held-out samples.

        It is the score of the true class of one of n samples, the
        :math:`\lceil (n + 1) \cdot \text{coverage} \rceil`-th from above; with fewer samples than
        that, every class is in every set.

        Shape:
            - logits: :math:`(N, C)` or :math:`(N, C, d_1, ...)`; one logit :math:`(N)` or
              :math:`(N, 1, ...)`; or of labels :math:`(N, L, ...)`.
            - target: class indices, :math:`(N)` or :math:`(N, d_1, ...)`; of one logit and of
              labels 0 and 1, in the shape of ``logits``.

        Args:
            logits: of samples that the model was not trained on.
            target: the classes of the samples.
            coverage: the probability that the set holds the truth, in (0, 1); for labels, of each.
            class_counts: training samples of each class, as for
                :class:`~sampleweights.ClassBalanced`, for the score with their frequencies.
            per_class: whether each class has a threshold of its own, so that each is covered with
                this probability. A class needs ``coverage / (1 - coverage)`` samples, 9 at 90 %;
                one with fewer is in every set.

        Raises:
            ValueError: a coverage outside (0, 1); logits that are not finite; a target or counts
                that do not fit; a class without training samples in ``class_counts``; with
                ``per_class``, a class without a sample.
            IndexError: a class index out of range.
        """
        coverage = as_number("coverage", coverage)
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be above 0 and below 1, got {coverage}")
        of_class, classes = held_out(logits, target)
        num_classes = of_class.shape[-1]
        prior = of_class.new_zeros(of_class.shape[1:], dtype=torch.float64).cpu()
        if class_counts is not None:
            counts = as_class_counts(class_counts, labels=True)
            if counts.shape != prior.shape:
                raise ValueError(
                    f"class_counts must have shape {tuple(prior.shape)} for these logits and "
                    f"target, got {tuple(counts.shape)}"
                )
            if (counts == 0).any():
                raise ValueError(
                    "class_counts must hold at least one sample of each class for its frequency, "
                    "got 0: no set could leave this class out; without class_counts it can"
                )
            prior = (counts.double() / counts.sum(-1, keepdim=True)).log()
        score = _scores(of_class, prior).gather(-1, classes[..., None])[..., 0]
        if per_class:
            check_every_class(classes, num_classes, " for a threshold of its own")
            found = [
                torch.stack([_lowest(of[which == c], coverage) for c in range(num_classes)])
                for of, which in zip(_columns(score), _columns(classes), strict=True)
            ]
        else:
            found = [_lowest(of, coverage) for of in _columns(score)]
        threshold = torch.stack(found) if score.ndim == 2 else found[0]
        return cls(threshold, prior).to(logits.device)

    def forward(self, logits: Tensor) -> Tensor:
        """Return whether each class is in the set: bool."""
        of_two = check_made_for(logits, self.log_prior, type(self).__name__)
        score = _scores(classes_last(logits, self.log_prior, type(self).__name__), self.log_prior)
        if is_readable(score) and score.isnan().any():
            raise ValueError("logits must not hold NaN or infinity, nor only -infinity")
        threshold = self.threshold.to(score.device, score.dtype)
        if self.threshold.ndim == self.log_prior.ndim:
            threshold = beside(threshold, score)
        elif threshold.ndim:  # one for each label
            threshold = beside(threshold[:, None], score)
        inside = score >= threshold
        return inside if of_two else inside.movedim(-1, class_dim(logits))

    def extra_repr(self) -> str:
        threshold = self.threshold
        shown = shortened(threshold) if threshold.ndim else f"{threshold.item():.4g}"
        return f"threshold={shown}, log_prior={shortened(self.log_prior)}"


def _scores(per_class: Tensor, log_prior: Tensor) -> Tensor:
    """log p_c - log prior_c of logits (N, ..., C)."""
    log_prior = beside(log_prior.to(per_class.device, per_class.dtype), per_class)
    return per_class.log_softmax(-1) - log_prior


def _columns(of_labels: Tensor) -> Sequence[Tensor]:
    """Of each label, where there are several."""
    return [of_labels] if of_labels.ndim == 1 else of_labels.unbind(1)


def _lowest(score: Tensor, coverage: float) -> Tensor:
    """The score that so many of n samples reach, and a new one with this probability."""
    needed = math.ceil((len(score) + 1) * coverage - 1e-9)
    if needed > len(score):
        return score.new_tensor(-math.inf)
    return score.sort(descending=True).values[needed - 1]
