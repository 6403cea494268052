"""Counts the training samples of each class, for weights and margins that depend on the counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from sampleweights._buffers import ExactBuffers
from sampleweights._checks import class_dim, is_index, on_cpu
from sampleweights._eager import is_readable
from sampleweights.functional.log_odds import by_label
from sampleweights.functional.reference import by_class, look_up_valid

if TYPE_CHECKING:
    from typing_extensions import Self

# 255 counted as a class would give 256 of them without a word
VOID = (
    "; 255 often marks what has no label: pass ignore_index=255 to leave it out, or "
    "num_classes=256 if it is a class"
)


def count_classes(
    targets: Iterable[Any] | Any, num_classes: int | None = None, ignore_index: int = -100
) -> Tensor:
    """Count the class indices in an array, or in an iterable of arrays or of samples.

    The rules are those of :meth:`sampleweights.ClassBalanced.from_targets`.
    """
    counts = torch.zeros(num_classes or 0, dtype=torch.int64)
    for indices in _pieces(targets):
        if indices.numel() == 0:  # an empty list has a floating dtype
            continue
        if not is_index(indices):
            raise ValueError(f"targets must be class indices (integer), got dtype {indices.dtype}")
        indices = indices.reshape(-1).long()
        indices = indices[indices != ignore_index]
        if indices.numel() == 0:
            continue
        low, high = (int(value) for value in indices.aminmax())
        if low < 0 or (num_classes is not None and high >= num_classes):
            limit = "" if num_classes is None else f" to {num_classes - 1}"
            raise ValueError(
                f"targets must hold class indices from 0{limit} or ignore_index ({ignore_index}), "
                f"got {low} to {high}{VOID if high == 255 else ''}"
            )
        total, counts = counts, torch.bincount(indices, minlength=counts.numel())
        counts[: total.numel()] += total
    if not counts.any():
        raise ValueError("targets must hold at least one class index, got none")
    if num_classes is None and counts.numel() == 256:
        raise ValueError(f"targets must hold class indices, got 0 to 255{VOID}")
    return counts


def class_indices(targets: Iterable[Any] | Any) -> Tensor:
    """The class index of every sample, ``(N,)`` int64, read as ``count_classes`` reads targets.

    The order is that of the data set, so a DataLoader must not shuffle.
    """
    if isinstance(targets, DataLoader) and not isinstance(targets.sampler, SequentialSampler):
        raise ValueError(
            f"targets must come in the order of the data set, got a DataLoader with "
            f"{type(targets.sampler).__name__}: pass the data set or its class indices"
        )
    pieces = [piece for piece in _pieces(targets) if piece.numel()]
    for piece in pieces:
        if not is_index(piece):
            raise ValueError(f"targets must be class indices (integer), got dtype {piece.dtype}")
        if piece.ndim > 1:
            raise ValueError(
                f"targets must hold one class index for each sample, got shape {tuple(piece.shape)}"
            )
    if not pieces:
        raise ValueError("targets must hold at least one class index, got none")
    indices = torch.cat([piece.reshape(-1).long() for piece in pieces])
    if (low := int(indices.min())) < 0:
        raise ValueError(
            f"targets must hold class indices from 0, got {low}; leave a sample without a class "
            f"out of the data set"
        )
    return indices


def _pieces(targets: Iterable[Any] | Any) -> Iterator[Tensor]:
    """The class indices, one tensor after the other, so that no two need to be in memory."""
    if isinstance(targets, Mapping):
        raise ValueError(
            f"targets must be class indices, got {type(targets).__name__}: counts go to the "
            f"constructor"
        )
    if hasattr(targets, "__array__"):  # a tensor, a numpy array, a pandas Series
        yield on_cpu("targets", targets)
        return
    try:
        items = iter(targets)
    except TypeError:
        yield on_cpu("targets", targets)
        return
    numbers = []  # one conversion for all of them: one for each takes microseconds
    for item in items:
        target = item if isinstance(item, Number) else _target_of(item)
        if isinstance(target, Number):
            numbers.append(target)
            continue
        if numbers:  # the order is that of the samples
            yield on_cpu("targets", numbers)
            numbers = []
        yield on_cpu("targets", target)
    yield on_cpu("targets", numbers)


def _target_of(item: Any) -> Any:
    """The target in a sample or batch: the last of (inputs, target), or what a dict names so."""
    if isinstance(item, tuple) or (isinstance(item, list) and _ends_in_array(item)):
        item = item[-1]
    if isinstance(item, Mapping):
        for name in ("labels", "target"):
            if name in item:
                return item[name]
        raise ValueError(
            f"targets in dicts must have the key 'labels' or 'target', got {list(item)}"
        )
    return item


def _ends_in_array(batch: list[Any]) -> bool:
    """Whether this is the list that a DataLoader makes of tuples, and not a list of numbers."""
    return bool(batch) and hasattr(batch[-1], "__array__") and not isinstance(batch[-1], Number)


def shortened(per_class: Tensor) -> str:
    """Up to twelve values for a repr, else the first four."""
    if per_class.ndim == 2:
        if len(per_class) <= 4:
            return f"[{', '.join(map(shortened, per_class))}]"
        return f"[{', '.join(map(shortened, per_class[:2]))}, ...] ({len(per_class)} labels)"
    values = [round(value, 4) for value in per_class.tolist()]
    if len(values) > 12:
        return f"[{', '.join(map(str, values[:4]))}, ...] ({len(values)} classes)"
    return str(values)


class FromCounts(ExactBuffers):
    """Base of what has one value per class, made of class counts, both in buffers.

    ``(C,)``, or ``(L, 2)`` where each of L labels has its negatives and positives.
    """

    class_counts: Tensor
    num_classes: int | None

    def _keep(self, name: str, class_counts: Tensor, per_class: Tensor) -> None:
        with torch.inference_mode(False):  # built under it, the buffers could never be loaded into
            self.register_buffer("class_counts", class_counts.clone())
            self.register_buffer(name, per_class.clone())
        self._per_class = name
        self.num_classes = class_counts.shape[-1]
        self._find_absent()

    @property
    def has_absent(self) -> bool:
        """Whether a class has no samples, so that its appearance in a target is an error."""
        return bool(self._absent)

    @classmethod
    def from_targets(
        cls,
        targets: Tensor | Sequence[int] | Iterable[Any] | Any,
        num_classes: int | None = None,
        *,
        ignore_index: int = -100,
        **settings: Any,
    ) -> Self:
        """Count the classes of the training targets.

        Args:
            targets: class indices of the whole training set, in any shape and container; or an
                iterable of them (masks of different sizes, a dataset, a DataLoader, a generator),
                which is read once. In a tuple, or in a list that ends in a tensor or an array,
                only the last element is counted, as in ``(inputs, target)``. In a dict, only the
                value of "labels" or else "target" is counted. Select anything else yourself:
                ``(batch["mask"] for batch in loader)``.
            num_classes: the number of classes; None takes the largest index plus 1.
            ignore_index: the index that is not counted.
            settings: the keyword arguments of the constructor.

        Raises:
            TypeError: an unknown keyword argument.
            ValueError: targets that are not class indices or out of range; a largest index of 255,
                which often marks pixels without a label, with neither ``ignore_index=255`` nor
                ``num_classes=256``.

        Example:
            >>> import torch
            >>> from sampleweights import EffectiveNumber
            >>> EffectiveNumber.from_targets([0, 0, 0, 1], beta=0.9)
            EffectiveNumber(class_counts=[3, 1], beta=0.9)
            >>> masks = [torch.tensor([[0, 0], [1, 255]]), torch.tensor([[0, 255]])]
            >>> EffectiveNumber.from_targets(masks, ignore_index=255)
            EffectiveNumber(class_counts=[3, 1])
        """
        cls([1], **settings)  # a wrong setting fails here, not after the counting
        return cls(count_classes(targets, num_classes, ignore_index), **settings)

    def _find_absent(self) -> None:
        self._absent = tuple(int(c) for c in (self.class_counts == 0).nonzero()[:, -1])

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("class_counts", self._per_class):
            built, loaded = getattr(self, name), state.get(prefix + name)
            if loaded is None or loaded.is_meta or built.is_meta or loaded.shape != built.shape:
                continue
            rtol = 0 if name == "class_counts" else 1e-6  # MPS keeps the weights in float32
            if not torch.allclose(loaded.cpu().double(), built.cpu().double(), rtol, atol=0):
                warnings.warn(
                    f"{type(self).__name__} was built with {name} {shortened(built)}, the "
                    f"state_dict has {shortened(loaded)}: the loaded ones are used",
                    stacklevel=2,
                )
                break  # other counts have other weights
        super()._load_from_state_dict(state, prefix, *args)
        if not self.class_counts.is_meta:
            self._find_absent()

    def _check_present(self, target: Tensor, valid: Tensor | None) -> None:
        absent = self.class_counts == 0
        if target.is_floating_point():
            wrong = (target != 0) & by_class(absent, target)
        else:
            wrong = look_up_valid(absent.float(), target, valid) != 0
        if is_readable(target):
            if wrong.any():
                if target.is_floating_point():
                    first = wrong.movedim(class_dim(target), -1).nonzero()[0, -1]
                else:
                    first = target[wrong][0]
                raise ValueError(
                    f"target must hold classes that class_counts has samples of, got class "
                    f"{first.item()}, whose count is 0"
                )
        else:  # nothing waits for the device; the assertion fails there
            torch._assert_async(
                ~wrong.any(),
                f"target holds a class with class_counts 0, one of {list(self._absent)}",
            )

    def _check_binary_present(self, target: Tensor, valid: Tensor | None) -> None:
        """The same of the negatives and positives in a binary or multi-label target."""
        absent = self.class_counts == 0
        no_negative, no_positive = (by_label(absent[..., y], target) for y in (0, 1))
        wrong = ((target != 1) & no_negative) | ((target != 0) & no_positive)
        if valid is not None:
            wrong = wrong & valid
        expected = (
            "target must be 0 where class_counts has no positives, and 1 where it has no negatives"
        )
        if not is_readable(target):
            torch._assert_async(~wrong.any(), expected)
        elif wrong.any():
            raise ValueError(f"{expected}, got {target[wrong][0].item()}")

    def extra_repr(self) -> str:
        return f"class_counts={shortened(self.class_counts)}"
