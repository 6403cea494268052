"""A data set whose samples say where they stand in it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

__all__ = ["WithIndex"]


class WithIndex(Dataset[Any]):
    """Adds to each sample of a data set its index, for example for :class:`LossHistory`.

    A sample ``(image, target)`` becomes ``(image, target, index)``, a dict gets the key "index",
    and any other sample becomes ``(sample, index)``. The length, and attributes such as ``classes``
    and ``targets``, are those of the data set. Wrap the whole data set before you split it, so that
    a sample has the same index in every part.

    Args:
        dataset: a data set with ``__getitem__`` and ``__len__``. The samples of a stream have no
            place: let it yield an index of its own.

    Raises:
        TypeError: a stream, or what is no data set; in the call, an index that is no whole number.
        IndexError: an index out of range.
        ValueError: a sample that has a key "index" already.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from sampleweights import WithIndex
        >>> dataset = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> for images, target, index in DataLoader(WithIndex(dataset), batch_size=2):
        ...     print(target, index)
        tensor([0, 1]) tensor([0, 1])
        tensor([1]) tensor([2])
    """

    def __init__(self, dataset: Any) -> None:
        has_both = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        if not has_both or isinstance(dataset, IterableDataset):
            raise TypeError(
                f"dataset must have __getitem__ and __len__, got {type(dataset).__name__}; the "
                f"samples of a stream have no index: let it yield one"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        index = self._place(index)
        return _with(self.dataset[index], index)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch, which a DataLoader asks for at once."""
        places = [self._place(index) for index in indices]
        together = getattr(self.dataset, "__getitems__", None)
        if callable(together):
            samples = together(places)
        else:
            samples = [self.dataset[index] for index in places]
        return [_with(sample, index) for sample, index in zip(samples, places, strict=True)]

    def _place(self, index: Any) -> int:
        try:
            place = operator.index(index)
        except TypeError:
            raise TypeError(f"index must be a whole number, got {index!r}") from None
        size = len(self)
        if not -size <= place < size:  # so that iter(), which has no other sign, ends
            raise IndexError(f"index must be from {-size} to {size - 1}, got {place}")
        return place % size

    def __getattr__(self, name: str) -> Any:
        # not the special ones, which decide what the wrapper is; nor before there is a data set
        if name.startswith("__") or name == "dataset":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)

    def __repr__(self) -> str:
        return f"WithIndex({self.dataset!r})"


def _with(sample: Any, index: int) -> Any:
    if isinstance(sample, Mapping):
        if "index" in sample:
            raise ValueError(
                f"samples must have no key 'index' for WithIndex, got {list(sample)}: use the "
                f"data set as it is, or rename its key"
            )
        return {**sample, "index": index}
    return (*sample, index) if isinstance(sample, (tuple, list)) else (sample, index)


def without_index(dataset: Any) -> Any:
    """The data set with the samples as they were, also inside a part or a chain of data sets."""
    if isinstance(dataset, WithIndex):
        return without_index(dataset.dataset)
    if type(dataset) is Subset:
        inner = without_index(dataset.dataset)
        return dataset if inner is dataset.dataset else Subset(inner, dataset.indices)
    if type(dataset) is ConcatDataset:
        parts = [without_index(part) for part in dataset.datasets]
        same = all(a is b for a, b in zip(parts, dataset.datasets, strict=True))
        return dataset if same else ConcatDataset(parts)
    return dataset
