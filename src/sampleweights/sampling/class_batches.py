"""Batches with the same number of samples of each of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampleweights._checks import as_whole_number
from sampleweights.counting import class_indices
from sampleweights.sampling.epochs import EpochSampler
from sampleweights.sampling.table import generator

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ClassBatchSampler"]


class ClassBatchSampler(EpochSampler[list[int]]):
    """Draws batches of ``samples_per_class`` samples of each of ``classes_per_batch`` classes.

    Pass it as ``batch_sampler=`` of a DataLoader: for metric learning, whose losses need pairs of
    each class, and for weighters with ``per_class=True``, which select within each class of a
    batch.

    The sampler goes through the classes in random order, P at a time; fewer than P that remain are
    left out of this round. In the same way it goes through the samples of each class, m at a time,
    so that a sample is seen again only after most of its class. Of a class with fewer than m
    samples every batch holds each of them, some repeatedly. The order depends only on ``seed``
    and the epoch. Process r of R takes the batches r, r + R, ...: all processes together see
    exactly what one process alone would see. If ``num_batches`` is not a multiple of R, a few more
    are drawn, so that all processes have the same number.

    Call ``set_epoch`` before every epoch, as with :class:`WeightedSampler`; Lightning and
    Accelerate call it themselves.

    Args:
        targets: the class index of every sample, in the order of the data set, in the forms that
            :meth:`sampleweights.ClassBalanced.from_targets` takes.
        classes_per_batch: P, the number of different classes in a batch; None means every class
            that has samples.
        samples_per_class: m, the number of samples of each of them, at least 1.
        num_batches: the number of batches in an epoch, over all processes; None means as many as
            hold about N samples.
        seed: the random seed, at least 0, the same on every process.
        num_replicas: number of processes; None asks torch.distributed at each epoch. Pass 1 if
            something else distributes the batches, as Accelerate does.
        rank: the rank of this process; pass it together with ``num_replicas``.
        ignore_index: samples with this target are never drawn.

    Raises:
        TypeError, ValueError: an argument that does not fit; the message names it.

    Example:
        >>> from sampleweights import ClassBatchSampler
        >>> targets = [0, 0, 0, 0, 1, 1, 2, 2]
        >>> list(ClassBatchSampler(targets, classes_per_batch=2, samples_per_class=2))
        [[1, 3, 5, 4], [6, 7, 0, 2]]

    References:
        Hermans, Beyer & Leibe, In Defense of the Triplet Loss for Person Re-Identification, arXiv
        1703.07737, 2017, Sec. 2 (batches of P classes with K samples each).
    """

    drop_last = False

    def __init__(
        self,
        targets: Tensor | Sequence[int] | Iterable[Any] | Any,
        classes_per_batch: int | None,
        samples_per_class: int,
        num_batches: int | None = None,
        *,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        ignore_index: int = -100,
    ) -> None:
        target = class_indices(targets, ignore_index).numpy()
        order = np.argsort(target, kind="stable")
        order = order[target[order] != ignore_index]
        classes, starts = np.unique(target[order], return_index=True)
        self._members: list[NDArray[np.int64]] = np.split(order, starts[1:])
        self._classes: list[int] = classes.tolist()
        present = len(self._classes)
        if classes_per_batch is None:
            classes_per_batch = present
        self._num_classes = as_whole_number("classes_per_batch", classes_per_batch, 1)
        if self._num_classes > present:
            raise ValueError(
                f"classes_per_batch must be at most the number of classes that have samples "
                f"({present}), got {classes_per_batch}"
            )
        self._of_each = as_whole_number("samples_per_class", samples_per_class, 1)
        if num_batches is None:
            num_batches = max(len(order) // self.batch_size, 1)
        self.num_batches = as_whole_number("num_batches", num_batches, 1)
        super().__init__(seed, num_replicas, rank)
        self._orders: dict[int, tuple[tuple[int, int, int], NDArray[np.int64]]] = {}

    @property
    def classes_per_batch(self) -> int:
        """The number of different classes in a batch."""
        return self._num_classes

    @property
    def samples_per_class(self) -> int:
        """The number of samples of each class in a batch."""
        return self._of_each

    @property
    def batch_size(self) -> int:
        """The number of samples in a batch, ``classes_per_batch * samples_per_class``."""
        return self._num_classes * self._of_each

    @property
    def indices(self) -> Tensor:
        """The indices of the samples that have a class and can be drawn, ``(N,)`` int64."""
        return torch.from_numpy(np.sort(np.concatenate(self._members)))

    @property
    def sampler(self) -> Self:
        """This sampler, where Lightning and Accelerate look for what has an epoch to set."""
        return self

    # -----------------------------------------------------------------------------------------
    # The sequence
    # -----------------------------------------------------------------------------------------

    @property
    def _num_items(self) -> int:
        return self.num_batches

    def _parts(self, epoch: int, start: int, replicas: int, rank: int) -> Iterator[list[list[int]]]:
        left = max(self.num_batches - start, 0)
        stop = start + -(-left // replicas) * replicas
        seed = self.seed
        for place in range(start + rank, stop, replicas):
            yield [self._batch(seed, epoch, place)]

    def _batch(self, seed: int, epoch: int, place: int) -> list[int]:
        """One batch, which follows from its place alone: nothing is drawn to get there."""
        size, present = self._num_classes, len(self._classes)
        turn, part = divmod(place, present // size)
        order = self._order(seed, epoch, -1, turn, present)
        chosen = order[part * size : (part + 1) * size].tolist()
        parts = [self._samples(seed, epoch, position, turn) for position in chosen]
        batch: list[int] = np.concatenate(parts).tolist()
        return batch

    def _samples(self, seed: int, epoch: int, position: int, turn: int) -> NDArray[np.int64]:
        """The samples of a class in a round, whether it takes part in it or not."""
        members, count = self._members[position], self._of_each
        if len(members) < count:
            order = self._order(seed, epoch, self._classes[position], turn, len(members))
            return members[np.resize(order, count)]
        cycle, part = divmod(turn, len(members) // count)
        order = self._order(seed, epoch, self._classes[position], cycle, len(members))
        return members[order[part * count : (part + 1) * count]]

    def _order(self, seed: int, epoch: int, of: int, cycle: int, length: int) -> NDArray[np.int64]:
        """The random order of a class's samples, or (-1) of the classes; the last one is kept."""
        found = self._orders.get(of)
        if found is None or found[0] != (seed, epoch, cycle):
            order = generator(seed, epoch, of + 1, cycle).permutation(length)
            found = self._orders[of] = (seed, epoch, cycle), order
        return found[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}}
