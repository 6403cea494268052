"""The class frequencies where a model is used, from samples without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import as_number, check_floating
from sampleweights._counts import as_class_counts
from sampleweights.functional.log_odds import classes_last

__all__ = ["PriorEstimate", "estimate_prior"]

_STEPS = 2000
_CLOSE = 1e-9


@dataclass(frozen=True, eq=False)
class PriorEstimate:
    """What :func:`~sampleweights.estimate_prior` found.

    Example:
        >>> from sampleweights import estimate_prior
        >>> import torch
        >>> print(estimate_prior(torch.tensor([2.0, -2.0, -2.0, 2.0]), [50, 50]))
        no shift is shown (p = 1): the prior is that of class_counts
    """

    prior: Tensor
    """The class frequencies, (C,) or (L, 2), in float64. Without a shift, those of class_counts."""
    shifted: Tensor
    """Whether a shift is shown, () or (L,), bool."""
    p_value: Tensor
    """The probability of so large a difference without a shift, () or (L,), float64."""
    most_likely: Tensor
    """The class frequencies that make the samples most likely, with a shift or without."""

    def __str__(self) -> str:
        if self.shifted.ndim:
            number = int(self.shifted.sum())
            return f"a shift is shown of {number} of {len(self.shifted)} labels"
        p_value = f"(p = {self.p_value.item():.2g})"
        if self.shifted:
            values = ", ".join(f"{value:.3g}" for value in self.prior.tolist())
            return f"a shift is shown {p_value}: the prior is [{values}]"
        return f"no shift is shown {p_value}: the prior is that of class_counts"


def estimate_prior(
    logits: Tensor,
    class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
    *,
    level: float = 0.05,
) -> PriorEstimate:
    r"""Estimate the class frequencies of samples without labels, if they have shifted.

    .. math::
        \pi_c \leftarrow \frac{1}{n} \sum_i \frac{q_{ic} \pi_c / p_c}
        {\sum_k q_{ik} \pi_k / p_k}, \quad q_i = \operatorname{softmax}(z_i),
        \quad p_c = N_c / N

    The model is used where the classes are more or less frequent than in its training, while each
    class looks the same. This iteration finds the frequencies :math:`\pi` that make the samples
    most likely; ``LogitAdjustment(class_counts).posthoc(logits, prior=estimate.prior)`` then moves
    the logits there. If nothing has shifted, an estimate only adds noise. So a likelihood-ratio
    test comes first, and without a shift the result is the prior of ``class_counts``.

    Shape:
        - logits: :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating. With two counts also one
          logit, the log-odds of class 1, :math:`(N)` or :math:`(N, 1, ...)`. With counts
          :math:`(L, 2)` the logit of each label, :math:`(N, L, ...)`.

    Args:
        logits: of samples from where the model will be used, calibrated
            (:class:`~sampleweights.Calibration`); they need no labels.
        class_counts: samples of each class among those that the probabilities were learnt from.
            After :meth:`Calibration.fit <sampleweights.Calibration.fit>` with biases, these are
            the samples of the calibration; otherwise, those of the training. As for
            :class:`~sampleweights.ClassBalanced`; or :math:`(L, 2)` for labels. A class without
            samples keeps the frequency 0.
        level: of the test, in (0, 1): the probability that a shift is seen where there is none.
            Each label has a test of its own.

    Returns:
        A :class:`~sampleweights.decisions.PriorEstimate` with ``prior``, ``shifted``, ``p_value``
        and ``most_likely``.

    Raises:
        TypeError: logits that are not floating.
        ValueError: logits that are not finite or of another number of classes; no samples; bad
            ``class_counts``; a level outside (0, 1).

    Note:
        The test of Saerens et al. takes the frequencies of the training for exact. Here they are
        those of N samples, so its statistic is divided by :math:`1 + n / N`: with a calibration on
        as few samples as are tested, it would otherwise see a shift in far more than 5 % of the
        cases without one. Samples in groups (several of one patient) make it see too many.

    Example:
        >>> import torch
        >>> from sampleweights import estimate_prior
        >>> generator = torch.Generator().manual_seed(0)
        >>> def logits(positives):  # of a perfect model, trained where 10 % were positive
        ...     is_positive = torch.rand(2000, generator=generator) < positives
        ...     feature = torch.randn(2000, generator=generator) + 2 * is_positive
        ...     return 2 * feature - 2 + torch.tensor(0.1 / 0.9).log()
        >>> print(estimate_prior(logits(0.7), [9000, 1000]))
        a shift is shown (p = 0): the prior is [0.31, 0.69]
        >>> print(estimate_prior(logits(0.1), [9000, 1000]))
        no shift is shown (p = 0.5): the prior is that of class_counts

    References:
        Saerens, Latinne & Decaestecker, Adjusting the Outputs of a Classifier to New a Priori
        Probabilities: A Simple Procedure, Neural Computation 2002.
        Alexandari et al., Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at
        Label Shift Adaptation, ICML 2020.
        Varadhan & Roland, Simple and Globally Convergent Methods for Accelerating the Convergence
        of Any EM Algorithm, Scandinavian Journal of Statistics 2008 (its steps).
    """
    level = as_number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    counts = as_class_counts(class_counts, labels=True)
    check_floating("logits", logits)
    per_class = classes_last(logits.detach(), counts, "class_counts")
    if logits.ndim == 0 or (counts.shape[-1] > 2 and logits.ndim == 1) or logits.numel() == 0:
        raise ValueError(f"logits must be those of many samples, got shape {tuple(logits.shape)}")
    if not per_class.isfinite().all():
        bad = per_class[~per_class.isfinite()][0].item()
        raise ValueError(f"logits must be finite, got {bad}")
    if per_class.device.type == "mps":  # no float64
        per_class = per_class.cpu()
    counts = counts.to(per_class.device)
    if counts.ndim == 2:
        samples = per_class.movedim(1, 0).flatten(1, -2)
        found = [_of_classes(of, at, level) for of, at in zip(samples, counts, strict=True)]
        names = [field.name for field in fields(PriorEstimate)]
        return PriorEstimate(*(torch.stack([getattr(of, name) for of in found]) for name in names))
    return _of_classes(per_class.flatten(0, -2), counts, level)


def _of_classes(logits: Tensor, counts: Tensor, level: float) -> PriorEstimate:
    """Of logits (n, C)."""
    trained = counts.double() / counts.sum()
    present = counts > 0
    log_q = logits.double().masked_fill(~present, -torch.inf).log_softmax(-1)
    density = log_q.exp() / trained.where(present, torch.ones_like(trained))  # q / p
    prior = _most_likely(density, trained)
    gained = 2 * (density @ prior).log().sum().clamp(min=0)
    statistic = gained / (1 + len(density) / counts.sum())
    freedom = (present.sum() - 1).double()
    chance = torch.special.gammaincc(freedom / 2, statistic / 2)
    chance = torch.where(freedom > 0, chance, 1.0)
    shifted = chance < level
    return PriorEstimate(torch.where(shifted, prior, trained), shifted, chance, prior)


def _most_likely(density: Tensor, prior: Tensor) -> Tensor:
    """The frequencies (C,) that make samples with densities (n, C) most likely.

    Where classes look alike, the steps of the iteration are so small that it would seem to have
    ended. So it goes on in the direction of two steps as far as their change of pace suggests
    (SQUAREM), unless the samples become less likely.
    """

    def step(prior: Tensor) -> Tensor:
        return prior * (density.T @ (density @ prior).reciprocal()) / len(density)

    for _ in range(_STEPS):
        one = step(prior)
        two = step(one)
        change, pace = one - prior, two - 2 * one + prior
        if change.abs().max() < _CLOSE:
            return two
        length = (change.norm() / pace.norm()).clamp(min=1)
        further = prior + 2 * length * change + length**2 * pace
        further = step(further.where(further > 0, two))
        gained = ((density @ further) / (density @ two)).log().sum()
        prior = further if gained >= 0 else two  # not where NaN
    return prior
