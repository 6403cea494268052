"""How much of its training part a training has learnt: the recall of each class, watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sampleweights._eager import is_eager

__all__ = ["Fitted", "FittedLabels", "recall_of", "recall_of_labels"]


class Fitted:
    """Watches a criterion: what was predicted for the last ``size`` training samples it saw.

    As many samples as the training part has are its last pass, so that the recall is that of the
    trained model, with the dropout and the augmentation of the training. A call counts in
    training mode and with gradients, with logits ``(N, C)`` and class indices ``(N,)``. Loss and
    gradients stay what they are. Samples are kept on the device, in a ring that compiled code
    can write as well, so that no step waits for the device and nothing is compiled twice.

    Args:
        criterion: what is watched; copies of it, also compiled ones, are watched with it.
        size: samples of the training part.
        num_classes: C.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sampleweights.compare.training.fitted import Fitted
        >>> criterion = nn.CrossEntropyLoss()
        >>> fitted = Fitted(criterion, size=3, num_classes=2)
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]], requires_grad=True)
        >>> loss = criterion(logits, torch.tensor([0, 0, 1]))
        >>> fitted.recall().tolist()
        [50.0, 100.0]
    """

    def __init__(self, criterion: nn.Module, size: int, num_classes: int) -> None:
        self.num_classes = num_classes
        self._seen = torch.full((size,), -1)
        """Class times C plus predicted class, in the order of the ring; negative: nothing yet."""
        self._next = torch.zeros(1, dtype=torch.int64)
        self._handle = criterion.register_forward_pre_hook(self._watch, with_kwargs=True)

    def remove(self) -> None:
        """Watch no more."""
        self._handle.remove()

    def recall(self) -> NDArray[np.float64]:
        """Recall of each class (C,) in percent; NaN of a class that was not seen."""
        target, predicted = np.divmod(self._seen.cpu().numpy(), self.num_classes)
        return recall_of(target, predicted, self.num_classes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fitted:
        return self  # a copy of the criterion trains for the same run

    def _watch(
        self, criterion: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        if not (criterion.training and torch.is_grad_enabled()):
            return
        given = [*args, *kwargs.values()]
        if len(given) < 2 or not all(type(value) in (Tensor, nn.Parameter) for value in given[:2]):
            return
        logits, target = given[:2]
        if logits.ndim != 2 or logits.shape[1] != self.num_classes or not logits.requires_grad:
            return
        if not self._is_known(logits, target):
            return
        if target.device != logits.device:
            return
        if torch.compiler.is_compiling() or is_eager():
            self._add(logits, target)

    def _is_known(self, logits: Tensor, target: Tensor) -> bool:
        """Whether a target is of classes, and not probabilities, as those of mixup."""
        return target.shape == logits.shape[:1] and not target.is_floating_point()

    def _code(self, logits: Tensor, target: Tensor) -> Tensor:
        """What is kept of each sample."""
        return torch.add(logits.argmax(1), target, alpha=self.num_classes)

    def _add(self, logits: Tensor, target: Tensor) -> None:
        if self._seen.device != logits.device:
            self._seen, self._next = self._seen.to(logits.device), self._next.to(logits.device)
        size = len(self._seen)
        if len(target) > size:
            logits, target = logits[-size:], target[-size:]
        place = (self._next + torch.arange(len(target), device=target.device)) % size
        self._seen.index_copy_(0, place, self._code(logits, target))
        self._next.add_(len(target))


class FittedLabels(Fitted):
    """The same of multi-label targets: logits and targets (N, L), of zeros and ones.

    Args:
        criterion: what is watched.
        size: samples of the training part.
        num_classes: L.
    """

    def __init__(self, criterion: nn.Module, size: int, num_classes: int) -> None:
        super().__init__(criterion, size, num_classes)
        self._seen = torch.full((size, num_classes), -1, dtype=torch.int8)
        """2 for a positive, and 1 for one that is predicted."""

    def recall(self) -> NDArray[np.float64]:
        """The share of the positives of each label (L,) that is predicted, in percent."""
        seen = self._seen.cpu().numpy()
        return recall_of_labels(seen >= 2, seen == 3)

    def _is_known(self, logits: Tensor, target: Tensor) -> bool:
        return target.shape == logits.shape

    def _code(self, logits: Tensor, target: Tensor) -> Tensor:
        return 2 * (target > 0.5).to(torch.int8) + (logits > 0).to(torch.int8)


def recall_of(
    target: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Recall of each class (C,) in percent; NaN of a class that was not seen."""
    known = (target >= 0) & (target < num_classes)  # others are ignored by the criterion
    total = np.bincount(target[known], minlength=num_classes)
    right = np.bincount(target[known & (target == predicted)], minlength=num_classes)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = 100 * right / total
    return found


def recall_of_labels(target: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """The share of the positives of each label (L,) that is predicted, in percent; of (N, L)."""
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = 100 * (target * predicted).sum(0) / target.sum(0)
    return found
