"""Weights from the class frequencies of the training set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._buffers import Derived, follow
from sampleweights._checks import Normalize, check_power
from sampleweights._counts import as_class_counts
from sampleweights._eager import is_readable
from sampleweights.counting import FromCounts
from sampleweights.functional.class_weights import class_balanced_weights, effective_number_weights
from sampleweights.functional.log_odds import by_label, decision_logits
from sampleweights.functional.reference import look_up_valid
from sampleweights.reduction import nonzero
from sampleweights.weighters.base import Weighter

__all__ = ["ClassBalanced", "EffectiveNumber"]


_FEW = 4096
"""Classes; the division of more takes less than the comparison of their bytes."""


def _by_label(weights: Callable[..., Tensor], counts: Tensor, *settings: Any) -> Tensor:
    """The weights of the classes: of each label on its own, where ``counts`` has several."""
    if counts.ndim == 1:
        return weights(counts, *settings)
    return torch.stack([weights(of_label, *settings) for of_label in counts])


def _settings_repr(normalize: str | None, power: float) -> str:
    shown = "" if normalize == "samples" else f", normalize={normalize!r}"
    return shown if power == 1 else f"{shown}, power={power}"


class ClassFrequency(Weighter, FromCounts):
    """A weight per class, looked up."""

    may_drop = False  # the class of a valid sample has samples
    is_local = True
    is_elementwise = True
    class_weight: Tensor

    def __init__(self, class_counts: Any, class_weight: Tensor) -> None:
        super().__init__()
        self._keep("class_weight", class_counts, class_weight)
        self._over: Derived[Tensor] = Derived()

    @property
    def class_factor(self) -> Tensor:
        self.check_one_class()
        return self.class_weight

    def check_one_class(self) -> None:
        """Refuse the counts of labels where a sample has one class of many."""
        if self.class_weight.ndim == 2:
            raise ValueError(
                f"{type(self).__name__} has the counts of {len(self.class_weight)} labels, which "
                f"are for losses with a sigmoid, such as BCEWithLogitsLoss; for classes of which a "
                f"sample has one, give it class_counts of shape (C,)"
            )

    def weight_over(
        self, divisor: Tensor | float, logits: Tensor, is_eager: bool = False
    ) -> Tensor | None:
        """``class_weight / divisor`` for logits, kept from batch to batch: most have one size.

        None where a class has no samples, since one of those in the target is an error, and where
        a subclass or a hook adds to the weights. Who knows that this is eager says so, which saves
        asking again.
        """
        if not self._runs(ClassFrequency.forward):
            return None
        weight: Any = self._buffers["class_weight"]  # several times as fast as the attribute
        dtype = logits.dtype
        readable = weight.is_cpu and type(weight) is Tensor if is_eager else is_readable(weight)
        if self._lacks_a_class() if readable else self._absent:
            return None
        if isinstance(divisor, Tensor):
            return (follow(weight, logits) / nonzero(divisor)).to(dtype)
        if not readable or weight.numel() > _FEW:
            return follow((weight / divisor).to(dtype), logits)
        key = (divisor, dtype) if logits.is_cpu else (divisor, dtype, logits.device)
        return self._over.get(weight, key, lambda: follow((weight / divisor).to(dtype), logits))

    def without_class_weights(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> None:
        return None

    def calibrate(self, logits: Tensor) -> Tensor:
        r"""Correct the logits of a model trained with these weights, to calibrated probabilities.

        .. math:: z_c - \log w_c

        A model that was trained with class weights overestimates the odds of each class by the
        factor :math:`w_c`. This method removes the factor, so that the softmax of the result
        estimates the probabilities of the training distribution. It is exact for cross-entropy,
        and not exact for focal loss, which is not a proper loss.

        One logit is the log-odds of class 1 of two: :math:`z - \log (w_1 / w_0)`.

        Shape:
            - logits: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ...)`, floating. With two
              counts also one logit, :math:`()`, :math:`(N)` or :math:`(N, 1, ...)`; a single
              sample of two classes then is :math:`(1, 2)`. With counts :math:`(L, 2)` the logit
              of each label, :math:`(N, L, ...)`.
            - Output: the shape of ``logits``; their dtype, at least float32. A class without
              samples gets :math:`-\infty`, since its probability in the training distribution
              is 0.

        Raises:
            TypeError: logits that are not floating.
            ValueError: logits of another number of classes.

        Example:
            >>> import torch
            >>> from sampleweights import ClassBalanced
            >>> logits = torch.zeros(1, 2)  # undecided, to a model that was trained with weights
            >>> ClassBalanced([3, 1]).calibrate(logits).softmax(1)
            tensor([[0.7500, 0.2500]])
        """
        learnt = self.class_weight.log().masked_fill(self.class_weight == 0, torch.inf)
        return decision_logits(logits, -learnt, type(self).__name__)

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        name, num_classes = type(self).__name__, self.class_weight.shape[-1]
        if target is None:
            raise ValueError(f"target must be given for {name}, got None")
        class_weight = follow(self.class_weight.to(loss.dtype), loss)
        if class_weight.ndim == 2:
            return self._of_labels(class_weight, loss, target, valid)
        if target.is_floating_point():
            dim = min(loss.ndim, 1)
            if target.shape == loss.shape and num_classes == 2:  # probability of class 1 of two
                # not as a difference, in which the digits of the smaller weight are lost
                weight = (1 - target) * class_weight[0] + target * class_weight[1]
            elif target.shape == (*loss.shape[:dim], num_classes, *loss.shape[dim:]):
                # not @, which autocast would run in half precision
                weight = (target.movedim(dim, -1).to(loss.dtype) * class_weight).sum(-1)
            elif target.shape == loss.shape:
                raise ValueError(
                    f"target with one value for each loss (binary or multi-label) has two classes, "
                    f"but this {name} was made for {num_classes}: give it the two counts "
                    f"[negatives, positives], summed over the labels"
                )
            else:
                raise ValueError(
                    f"target with probabilities must have {num_classes} classes for this {name} "
                    f"and losses of shape {tuple(loss.shape)}, got shape {tuple(target.shape)}"
                )
            weight = weight.detach().to(loss.dtype)
            return weight if valid is None else weight.masked_fill(~valid, 0)
        if target.shape != loss.shape or target.is_complex():
            raise ValueError(
                f"target must hold class indices of shape {tuple(loss.shape)}, got "
                f"{target.dtype} {tuple(target.shape)}"
            )
        return self._look_up(class_weight, target, valid)

    def _of_labels(
        self, class_weight: Tensor, loss: Tensor, target: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Each label has two classes of its own; targets may be the probability of the second."""
        if target.shape != loss.shape or target.is_complex():
            raise ValueError(
                f"target must have one value for each loss, shape {tuple(loss.shape)}, got "
                f"{target.dtype} {tuple(target.shape)}"
            )
        if self.has_absent and not target.is_floating_point():
            self._check_binary_present(target, valid)
        target = target.to(loss.dtype)
        of_negative, of_positive = (by_label(class_weight[:, y], loss) for y in (0, 1))
        weight = (1 - target) * of_negative + target * of_positive
        weight = weight.detach()
        return weight if valid is None else weight.masked_fill(~valid, 0)

    def _look_up(self, class_weight: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        weight = look_up_valid(class_weight, target, valid)
        if self.has_absent:
            self._check_present(target, valid)
        return weight


class ClassBalanced(ClassFrequency):
    r"""Class weights by inverse class frequency, so that all classes have the same total weight.

    .. math:: w_j = (N / N_{y_j})^{\text{power}}, \quad \text{normalised}

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: class indices with the shape of ``loss``; or probabilities :math:`(N, C, ...)`,
          which get the expected weight; or, for two classes, the probability of class 1 with the
          shape of ``loss``.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, detached; 0 where not valid.

    Args:
        class_counts: training samples of each class: whole numbers, at least one of them positive,
            in a tensor, list or numpy array; or in a mapping or pandas Series whose keys are the
            class indices (a missing class counts 0), such as ``Series.value_counts()`` of pandas
            or polars. For
            binary and multi-label targets [negatives, positives], or a row of both for each label,
            :math:`(L, 2)`, for losses :math:`(N, L, ...)`: each label then has weights of its own.
        normalize: "samples" (default: the mean weight over the training samples is 1, so that
            the learning rate keeps its meaning; the weights are then scikit-learn's "balanced"),
            "classes" (the weights sum to the number of classes) or None (no normalisation).
        power: exponent of the weights, at least 0, before they are normalised. 1 is the equation
            as it stands, 0.5 its square root, a compromise with accuracy that many try first, and
            0 weights all classes alike.

    Raises:
        ValueError: bad ``class_counts``, ``normalize`` or ``power``; in the call, a missing target
            or one that does not fit, or one that holds a class whose count is 0 (on CUDA and in
            compiled code a device-side assertion, to avoid a synchronisation; not checked for
            probabilities).
        IndexError: a class index out of range (on CUDA torch's device-side assertion).

    Example:
        >>> import torch
        >>> from sampleweights import ClassBalanced
        >>> weighter = ClassBalanced([90, 9, 1])
        >>> weighter(torch.rand(3), torch.tensor([0, 0, 2]))
        tensor([ 0.3704,  0.3704, 33.3333])
        >>> ClassBalanced([90, 9, 1], power=0.5)(torch.rand(3), torch.tensor([0, 0, 2]))
        tensor([0.7816, 0.7816, 7.4146])

    References:
        Provost, Machine Learning from Imbalanced Data Sets 101, AAAI Workshops 2000.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 7.
    """

    def __init__(
        self,
        class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
        *,
        normalize: Normalize | None = "samples",
        power: float = 1.0,
    ) -> None:
        counts = as_class_counts(class_counts, labels=True)
        super().__init__(counts, _by_label(class_balanced_weights, counts, normalize, power))
        self.normalize = normalize
        self.power = check_power(power)

    def extra_repr(self) -> str:
        return super().extra_repr() + _settings_repr(self.normalize, self.power)


class EffectiveNumber(ClassFrequency):
    r"""Class weights by the inverse effective number of samples, which overlap within a class.

    .. math::
        w_j = \left( \frac{1 - \beta}{1 - \beta^{N_{y_j}}} \right)^{\text{power}}, \quad
        \beta = (N - 1) / N, \quad \text{normalised}

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: class indices with the shape of ``loss``; or probabilities :math:`(N, C, ...)`,
          which get the expected weight; or, for two classes, the probability of class 1 with the
          shape of ``loss``.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, detached; 0 where not valid.

    Args:
        class_counts: training samples of each class: whole numbers, at least one of them positive,
            in a tensor, list or numpy array; or in a mapping or pandas Series whose keys are the
            class indices (a missing class counts 0), such as ``Series.value_counts()`` of pandas
            or polars. For
            binary and multi-label targets [negatives, positives], or a row of both for each label,
            :math:`(L, 2)`, for losses :math:`(N, L, ...)`: each label then has weights of its own.
        beta: in [0, 1); None is (N - 1) / N, with N the number of training samples. 0 weights all
            classes alike; towards 1 they become the weights of :class:`ClassBalanced`.
        normalize: "samples" (default: the mean weight over the training samples is 1, so that
            the learning rate keeps its meaning), "classes" (the weights sum to the number of
            classes, as in Cui et al.) or None (no normalisation: the mean weight is about 1 / N,
            and every training step is smaller by this factor).
        power: as in :class:`ClassBalanced`.

    Raises:
        ValueError: bad ``class_counts``, ``beta``, ``normalize`` or ``power``; in the call, a
            missing target or one that does not fit, or one that holds a class whose count is 0 (on
            CUDA and in compiled code a device-side assertion; not checked for probabilities).
        IndexError: a class index out of range (on CUDA torch's device-side assertion).

    Example:
        >>> import torch
        >>> from sampleweights import EffectiveNumber
        >>> weighter = EffectiveNumber([90, 9, 1])
        >>> weighter(torch.rand(3), torch.tensor([0, 0, 2]))
        tensor([ 0.4729,  0.4729, 28.1484])

    References:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Eq. 2.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 8.
    """

    def __init__(
        self,
        class_counts: Tensor | Sequence[int] | Mapping[int, int] | Any,
        *,
        beta: float | None = None,
        normalize: Normalize | None = "samples",
        power: float = 1.0,
    ) -> None:
        counts = as_class_counts(class_counts, labels=True)
        weight = _by_label(effective_number_weights, counts, beta, normalize, power)
        super().__init__(counts, weight)
        self.beta = beta
        self.normalize = normalize
        self.power = check_power(power)

    def extra_repr(self) -> str:
        beta = "" if self.beta is None else f", beta={self.beta}"
        return super().extra_repr() + beta + _settings_repr(self.normalize, self.power)
