"""Class counts to class weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import Normalize, as_number, check_normalize, check_power
from sampleweights._counts import as_class_counts


def _normalized(weight: Tensor, counts: Tensor, normalize: str | None, power: float) -> Tensor:
    weight = weight.pow(power).masked_fill(counts == 0, 0)
    if normalize == "samples":
        return weight * (counts.sum() / (counts * weight).sum())
    if normalize == "classes":
        return weight * ((counts > 0).sum() / weight.sum())
    return weight


def class_balanced_weights(
    class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
    normalize: Normalize | None = "samples",
    power: float = 1.0,
) -> Tensor:
    r"""Class weights by inverse class frequency.

    .. math:: w_c = (N / N_c)^{\text{power}}

    Shape:
        - class_counts: :math:`(C)`, whole numbers; tensor, list or numpy array; or a mapping or
          pandas Series whose keys are the class indices (a missing class counts 0).
        - Output: :math:`(C)`, float64, on the CPU; 0 for a class without samples, which takes no
          part in the normalisation.

    Args:
        class_counts: training samples of each class.
        normalize: "samples" (the mean weight over the training samples is 1; the result is then
            scikit-learn's "balanced"), "classes" (the weights sum to the number of classes) or
            None (no normalisation).
        power: exponent of the weights, at least 0, before they are normalised: 1 is the equation,
            0.5 its square root, 0 weights all classes alike.

    Raises:
        ValueError: counts that are negative, not whole, not finite, all zero or not 1-D; keys that
            are no class indices; unknown ``normalize``, a negative ``power``.

    Example:
        >>> from sampleweights.functional import class_balanced_weights
        >>> class_balanced_weights([90, 9, 1])
        tensor([ 0.3704,  3.7037, 33.3333], dtype=torch.float64)
        >>> class_balanced_weights([90, 9, 1], normalize=None)
        tensor([  1.1111,  11.1111, 100.0000], dtype=torch.float64)
        >>> class_balanced_weights([90, 9, 1], power=0.5)
        tensor([0.7816, 2.4715, 7.4146], dtype=torch.float64)

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 7.
    """
    check_normalize(normalize)
    power = check_power(power)
    counts = as_class_counts(class_counts).double()
    return _normalized(counts.sum() / counts, counts, normalize, power)  # Eq. 7


def effective_number_weights(
    class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
    beta: float | None = None,
    normalize: Normalize | None = "samples",
    power: float = 1.0,
) -> Tensor:
    r"""Class weights by the inverse effective number of samples.

    .. math::
        w_c = \left( \frac{1 - \beta}{1 - \beta^{N_c}} \right)^{\text{power}}, \quad
        \beta = (N - 1) / N

    Computed with ``expm1`` and ``log1p``. The relative error is below 1e-12 for counts up to 1e12.

    Shape:
        - class_counts: :math:`(C)`, whole numbers; tensor, list or numpy array; or a mapping or
          pandas Series whose keys are the class indices (a missing class counts 0).
        - Output: :math:`(C)`, float64, on the CPU; 0 for a class without samples, which takes no
          part in the normalisation.

    Args:
        class_counts: training samples of each class.
        beta: in [0, 1); None is (N - 1) / N, with N the number of training samples.
        normalize: "samples" (the mean weight over the training samples is 1), "classes" (the
            weights sum to the number of classes, as in Cui et al.) or None (no normalisation:
            the mean weight is about 1 / N).
        power: as in :func:`class_balanced_weights`.

    Raises:
        ValueError: bad counts as in :func:`class_balanced_weights`, ``beta`` outside [0, 1),
            unknown ``normalize``, a negative ``power``.

    Example:
        >>> from sampleweights.functional import effective_number_weights
        >>> effective_number_weights([90, 9, 1])
        tensor([ 0.4729,  3.2548, 28.1484], dtype=torch.float64)

    References:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eq. 2.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 8.
    """
    check_normalize(normalize)
    power = check_power(power)
    if beta is not None and not 0 <= as_number("beta", beta) < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    counts = as_class_counts(class_counts).double()
    one_minus_beta = 1 / counts.sum().item() if beta is None else 1 - beta
    # for beta = 0 the logarithm is -inf and every weight 1; the empty class, 0 * -inf, is masked
    log_beta = math.log1p(-one_minus_beta) if one_minus_beta < 1 else -math.inf
    weight = one_minus_beta / -torch.expm1(counts * log_beta)  # Eq. 8
    return _normalized(weight, counts, normalize, power)
