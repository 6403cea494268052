"""Counts the training samples of each class, for weights and margins that depend on the counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from sampleweights._buffers import Derived, ExactBuffers
from sampleweights._checks import class_dim, is_index
from sampleweights._eager import is_readable
from sampleweights.functional.log_odds import by_label
from sampleweights.functional.reference import by_class, look_up_valid
from sampleweights.targets import is_data_set, pieces, refuse_dtype

if TYPE_CHECKING:
    from typing_extensions import Self

# 255 counted as a class would give 256 of them without a word
VOID = (
    "; 255 often marks what has no label: pass ignore_index=255 to leave it out, or "
    "num_classes=256 if it is a class"
)


def count_classes(
    targets: Iterable[Any] | Any, num_classes: int | None = None, ignore_index: float = -100
) -> Tensor:
    """Count the class indices in an array, or in an iterable of arrays or of samples.

    The rules are those of :meth:`sampleweights.ClassBalanced.from_targets`.
    """
    counts = torch.zeros(num_classes or 0, dtype=torch.int64)
    one_hot: dict[tuple[int, int], set[int]] | None = None
    for labels in pieces(targets):
        if labels.numel() == 0:  # an empty list has a floating dtype
            continue
        is_missing = labels.isnan() if ignore_index != ignore_index else labels == ignore_index
        if one_hot is None or one_hot:
            flat = labels.ndim == 1 and isinstance(targets, DataLoader)
            found = {} if flat else _hot(labels, ~is_missing)
            before = found if one_hot is None else one_hot
            one_hot = {key: before[key] | found[key] for key in before.keys() & found}
        indices = labels[~is_missing]
        if not is_index(indices) and not ((indices == 0) | (indices == 1)).all():
            refuse_dtype(indices)  # 0 and 1 are what sigmoid losses take
        indices = indices.long()
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
    for (dim, size), positions in (one_hot or {}).items():
        if len(positions) > 1:
            raise ValueError(
                f"targets must hold class indices, got a single 1 among {size} values along "
                f"dimension {dim} everywhere, as one-hot labels have: pass their "
                f"argmax({dim}); if they are labels of which a sample may have several, pass "
                f"the counts [negatives, positives] to the constructor"
            )
    return counts


def _hot(labels: Tensor, is_valid: Tensor) -> dict[tuple[int, int], set[int]]:
    """Where classes may lie for labels that are one-hot there: dimension, size and classes.

    Samples may be ignored, but not some of the values of a sample, as those of many labels are.
    """
    labels = labels.masked_fill(~is_valid, 0)
    dims = {labels.ndim - 1} if labels.ndim < 3 else {0, 1, labels.ndim - 1}
    dims = {dim for dim in dims if dim >= 0 and labels.shape[dim] > 1}
    if not dims or not ((labels == 0) | (labels == 1)).all():
        return {}
    found = {}
    for dim in sorted(dims):
        present = is_valid.any(dim)
        is_hot = (labels.sum(dim) == 1) & is_valid.all(dim)
        if (is_hot | ~present).all():
            found[dim, labels.shape[dim]] = set(labels.argmax(dim)[present].tolist())
    return found


def class_indices(targets: Iterable[Any] | Any, ignore_index: int | None = None) -> Tensor:
    """The class index of every sample, ``(N,)`` int64, read as ``count_classes`` reads targets.

    Where ``ignore_index`` is given, samples may have it instead of a class.

    The order is that of the data set, so a DataLoader must not shuffle.
    """
    if isinstance(targets, DataLoader) and not isinstance(targets.sampler, SequentialSampler):
        raise ValueError(
            f"targets must come in the order of the data set, got a DataLoader with "
            f"{type(targets.sampler).__name__}: pass the data set or its class indices"
        )
    found = [labels for labels in pieces(targets) if labels.numel()]
    for labels in found:
        if labels.ndim > 1 and labels.shape[1:].numel() > 1:
            raise ValueError(
                f"targets must hold one class index for each sample, got shape "
                f"{tuple(labels.shape)}"
            )
        if not is_index(labels) and not ((labels == 0) | (labels == 1)).all():
            refuse_dtype(labels)
    if not found:
        raise ValueError("targets must hold at least one class index, got none")
    indices = torch.cat([labels.reshape(-1).long() for labels in found])
    data: Any = targets.dataset if isinstance(targets, DataLoader) else targets
    if is_data_set(data) and len(data) != len(indices):
        raise ValueError(
            f"targets must hold one class index for each sample, got {len(indices)} for "
            f"{len(data)} samples"
        )
    labels = indices if ignore_index is None else indices[indices != ignore_index]
    if labels.numel() == 0:
        raise ValueError("targets must hold at least one class index, got none")
    if (low := int(labels.min())) < 0:
        raise ValueError(
            f"targets must hold class indices from 0, got {low}; leave a sample without a class "
            f"out of the data set"
        )
    return indices


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
        self._has_absent: Derived[bool] = Derived()
        self._find_absent()

    @property
    def has_absent(self) -> bool:
        """Whether a class has no samples, so that its appearance in a target is an error."""
        if is_readable(self.class_counts):
            return self._lacks_a_class()
        # as it was when built or loaded: it decides whether there is an error, not the weight
        return bool(self._absent)

    def _lacks_a_class(self) -> bool:
        """``has_absent`` where the counts are readable."""
        counts: Any = self._buffers["class_counts"]
        return self._has_absent.get(counts, None, lambda: bool((counts == 0).any()))

    @classmethod
    def from_targets(
        cls,
        targets: Tensor | Sequence[int] | Iterable[Any] | Any,
        num_classes: int | None = None,
        *,
        ignore_index: float = -100,
        **settings: Any,
    ) -> Self:
        """Count the classes of the training targets.

        Args:
            targets: class indices of the whole training set, in any shape and container; or an
                iterable of them (masks of different sizes, a data set, a DataLoader, a generator),
                which is read once. Booleans, and floating arrays that hold only 0 and 1, are labels
                of a sigmoid loss: the counts are then [negatives, positives]. In a tuple of two
                the second element is counted, as in ``(inputs, target)``; in a longer one the only
                element behind the first that is a number or an array. In a dict, or a table of
                several columns, what is called "label", "labels" or "target" is counted. Select
                anything else yourself: ``(batch["mask"] for batch in loader)``. Of a DataLoader
                the data set behind it is counted, each sample once, whatever the loader draws or
                drops. A data set with ``targets`` or ``labels`` is not read sample by sample if
                the first and the last sample of each class have these labels.
            num_classes: the number of classes; None takes the largest index plus 1.
            ignore_index: the index that is not counted; NaN leaves out missing labels.
            settings: the keyword arguments of the constructor.

        Raises:
            TypeError: an unknown keyword argument.
            ValueError: targets that are not class indices or out of range; one-hot labels, missing
                values, tuples such as ``(inputs, target, index)``, and a DataLoader whose sampler
                chooses in an unknown way, which all could be counted wrongly; a largest index of
                255, which often marks pixels without a label, with neither ``ignore_index=255``
                nor ``num_classes=256``.

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
