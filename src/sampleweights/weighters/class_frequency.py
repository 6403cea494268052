"""Weights from the class frequencies of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sampleweights._checks import Normalize, as_class_counts, is_index, on_cpu
from sampleweights._eager import is_readable
from sampleweights.functional.class_weights import class_balanced_weights, effective_number_weights
from sampleweights.functional.reference import look_up_valid
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ClassBalanced", "EffectiveNumber"]


def count_classes(
    targets: Tensor | Sequence[int] | Any, num_classes: int | None, ignore_index: int
) -> Tensor:
    """How many of ``targets`` (class indices, any shape) there are of each class."""
    indices = on_cpu("targets", targets).reshape(-1)
    if indices.numel() == 0:
        raise ValueError("targets must hold at least one class index, got none")
    if not is_index(indices):
        raise ValueError(f"targets must be class indices (integer), got dtype {indices.dtype}")
    indices = indices.long()
    indices = indices[indices != ignore_index]
    if indices.numel() == 0:
        raise ValueError("targets must hold at least one class index, got none")
    if indices.min() < 0 or (num_classes is not None and indices.max() >= num_classes):
        limit = "" if num_classes is None else f" to {num_classes - 1}"
        raise ValueError(
            f"targets must hold class indices from 0{limit} or ignore_index ({ignore_index}), "
            f"got {indices.min().item()} to {indices.max().item()}"
        )
    return torch.bincount(indices, minlength=num_classes or 0)


class ClassFrequency(Weighter):
    """A weight per class, looked up."""

    class_counts: Tensor
    class_weight: Tensor

    def __init__(self, class_counts: Tensor, class_weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("class_counts", class_counts)
        self.register_buffer("class_weight", class_weight)
        self.num_classes = class_counts.numel()
        self._find_absent()

    @property
    def class_factor(self) -> Tensor:
        return self.class_weight

    def without_class_weights(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> None:
        return None

    @property
    def has_absent(self) -> bool:
        """Whether a class has no samples, so that its appearance in a target is an error."""
        return bool(self._absent)

    def _find_absent(self) -> None:
        self._absent = tuple(int(c) for c in (self.class_counts == 0).nonzero())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.class_counts.is_meta:
            self._find_absent()

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        name, num_classes = type(self).__name__, self.class_weight.numel()
        if target is None:
            raise ValueError(f"target must be given for {name}, got None")
        class_weight = self.class_weight.to(loss.dtype)
        if target.is_floating_point():
            dim = min(loss.ndim, 1)
            if target.shape == loss.shape and num_classes == 2:  # probability of class 1 of two
                weight = class_weight[0] + target * (class_weight[1] - class_weight[0])
            elif target.shape == (*loss.shape[:dim], num_classes, *loss.shape[dim:]):
                weight = target.movedim(dim, -1).to(loss.dtype) @ class_weight
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

    def _look_up(self, class_weight: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
        weight = look_up_valid(class_weight, target, valid)
        if self._absent:
            self._check_present(target, valid)
        return weight

    def _check_present(self, target: Tensor, valid: Tensor | None) -> None:
        wrong = look_up_valid((self.class_counts == 0).float(), target, valid) != 0
        if is_readable(target):
            if wrong.any():
                raise ValueError(
                    f"target must hold classes that class_counts has samples of, got class "
                    f"{target[wrong][0].item()}, whose count is 0"
                )
        else:  # nothing waits for the device; the assertion fails there
            torch._assert_async(
                ~wrong.any(),
                f"target holds a class with class_counts 0, one of {list(self._absent)}",
            )

    def _counts_repr(self) -> str:
        counts: list[int] = self.class_counts.tolist()
        if len(counts) > 12:
            return f"class_counts=[{', '.join(map(str, counts[:4]))}, ...] ({len(counts)} classes)"
        return f"class_counts={counts}"


class ClassBalanced(ClassFrequency):
    r"""Inverse class frequency: every class counts as much as every other.

    .. math:: w_j = N / N_{y_j}, \quad \text{normalised}

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: class indices with the shape of ``loss``; or probabilities :math:`(N, C, ...)`,
          which get the expected weight; or, for two classes, the probability of class 1 with the
          shape of ``loss``.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, detached; 0 where not valid.

    Args:
        class_counts: training samples of each class: tensor, list or numpy array of whole
            numbers, at least one of them positive.
        normalize: "samples" (default: the mean weight over the training samples is 1, so that
            the learning rate keeps its meaning; the weights are then scikit-learn's "balanced"),
            "classes" (the weights sum to the number of classes) or None (the bare equation).

    Raises:
        ValueError: bad ``class_counts`` or ``normalize``; in the call, a missing target or one
            that does not fit, or one that holds a class whose count is 0 (on CUDA and in compiled
            code a device-side assertion, so that nothing waits for the device; not checked for
            probabilities).
        IndexError: a class index out of range (on CUDA torch's device-side assertion).

    Example:
        >>> import torch
        >>> from sampleweights import ClassBalanced
        >>> weighter = ClassBalanced([90, 9, 1])
        >>> weighter(torch.rand(3), torch.tensor([0, 0, 2]))
        tensor([ 0.3704,  0.3704, 33.3333])

    References:
        Provost, Machine Learning from Imbalanced Data Sets 101, AAAI Workshops 2000.
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 7.
    """

    def __init__(
        self,
        class_counts: Tensor | Sequence[int] | Any,
        *,
        normalize: Normalize | None = "samples",
    ) -> None:
        counts = as_class_counts(class_counts)
        super().__init__(counts, class_balanced_weights(counts, normalize))
        self.normalize = normalize

    @classmethod
    def from_targets(
        cls,
        targets: Tensor | Sequence[int] | Any,
        num_classes: int | None = None,
        *,
        ignore_index: int = -100,
        normalize: Normalize | None = "samples",
    ) -> Self:
        """Count the classes of the training targets (class indices of any shape, any container).

        Args:
            targets: class indices of the whole training set.
            num_classes: how many classes there are; None takes the largest index plus 1.
            ignore_index: the index that is not counted.
            normalize: as in the constructor.

        Raises:
            ValueError: targets that are not class indices or out of range.

        Example:
            >>> from sampleweights import ClassBalanced
            >>> ClassBalanced.from_targets([0, 0, 0, 1])
            ClassBalanced(class_counts=[3, 1])
        """
        return cls(count_classes(targets, num_classes, ignore_index), normalize=normalize)

    def extra_repr(self) -> str:
        normalize = "" if self.normalize == "samples" else f", normalize={self.normalize!r}"
        return self._counts_repr() + normalize


class EffectiveNumber(ClassFrequency):
    r"""Inverse effective number of samples: a class counts by what it adds that is new.

    .. math::
        w_j = \frac{1 - \beta}{1 - \beta^{N_{y_j}}}, \quad \beta = (N - 1) / N, \quad
        \text{normalised}

    Shape:
        - loss: :math:`(N, ...)`, floating.
        - target: class indices with the shape of ``loss``; or probabilities :math:`(N, C, ...)`,
          which get the expected weight; or, for two classes, the probability of class 1 with the
          shape of ``loss``.
        - valid: the shape of ``loss``, bool.
        - Output: the shape and dtype of ``loss``, detached; 0 where not valid.

    Args:
        class_counts: training samples of each class: tensor, list or numpy array of whole
            numbers, at least one of them positive.
        beta: in [0, 1); None is (N - 1) / N, with N the number of training samples. 0 weights all
            classes alike; towards 1 the weights become those of :class:`ClassBalanced`.
        normalize: "samples" (default: the mean weight over the training samples is 1, so that
            the learning rate keeps its meaning), "classes" (the weights sum to the number of
            classes, as in Cui et al.) or None (the bare equation, whose mean is about 1 / N: every
            step shrinks by that).

    Raises:
        ValueError: bad ``class_counts``, ``beta`` or ``normalize``; in the call, a missing target
            or one that does not fit, or one that holds a class whose count is 0 (on CUDA and in
            compiled code a device-side assertion; not checked for probabilities).
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
        class_counts: Tensor | Sequence[int] | Any,
        *,
        beta: float | None = None,
        normalize: Normalize | None = "samples",
    ) -> None:
        counts = as_class_counts(class_counts)
        super().__init__(counts, effective_number_weights(counts, beta, normalize))
        self.beta = beta
        self.normalize = normalize

    @classmethod
    def from_targets(
        cls,
        targets: Tensor | Sequence[int] | Any,
        num_classes: int | None = None,
        *,
        ignore_index: int = -100,
        beta: float | None = None,
        normalize: Normalize | None = "samples",
    ) -> Self:
        """Count the classes of the training targets (class indices of any shape, any container).

        Args:
            targets: class indices of the whole training set.
            num_classes: how many classes there are; None takes the largest index plus 1.
            ignore_index: the index that is not counted.
            beta: as in the constructor.
            normalize: as in the constructor.

        Raises:
            ValueError: targets that are not class indices or out of range.

        Example:
            >>> from sampleweights import EffectiveNumber
            >>> EffectiveNumber.from_targets([0, 0, 0, 1], beta=0.9)
            EffectiveNumber(class_counts=[3, 1], beta=0.9)
        """
        counts = count_classes(targets, num_classes, ignore_index)
        return cls(counts, beta=beta, normalize=normalize)

    def extra_repr(self) -> str:
        beta = "" if self.beta is None else f", beta={self.beta}"
        normalize = "" if self.normalize == "samples" else f", normalize={self.normalize!r}"
        return self._counts_repr() + beta + normalize
