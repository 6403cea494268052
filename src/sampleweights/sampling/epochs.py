"""Samplers of epochs: one sequence for each seed and epoch, which all processes divide."""

from __future__ import annotations

import itertools
import operator
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch.utils.data import Sampler

from sampleweights._checks import as_whole_number
from sampleweights.sampling.splitting import checked_place, processes, warn_if_divided_again

Item = TypeVar("Item")


class EpochSampler(Sampler[Item]):
    """A sequence of items (indices, or batches of them) that only seed and epoch decide.

    Every process takes the items rank, rank + num_replicas, ... of it. Where it was within an epoch
    is its state.
    """

    def __init__(self, seed: int, num_replicas: int | None, rank: int | None) -> None:
        self.seed = as_whole_number("seed", seed, 0)
        self.num_replicas, self.rank = checked_place(num_replicas, rank)
        self.epoch = 0
        self._is_used = self._epoch_is_set = self._epoch_is_to_come = False
        self._start_at(0)

    @property
    @abstractmethod
    def _num_items(self) -> int:
        """The items of an epoch, over all processes."""

    @abstractmethod
    def _parts(self, epoch: int, start: int, replicas: int, rank: int) -> Iterator[list[Item]]:
        """The items start + rank, start + rank + replicas, ... of an epoch, in pieces."""

    def __len__(self) -> int:
        """Return how many of an epoch this process sees: indices, or batches.

        After a state was loaded within an epoch, these are those that are left.
        """
        left = max(self._num_items - self._begin, 0)
        return -(-left // processes(self.num_replicas, self.rank)[0])

    def __iter__(self) -> Iterator[Item]:
        return itertools.chain.from_iterable(self._pieces())

    def set_epoch(self, epoch: int) -> None:
        """Start the sequence of an epoch, from its beginning.

        The epoch of a loaded state continues at its position.
        """
        epoch = as_whole_number("epoch", epoch, 0)
        if epoch != self.epoch:
            self._start_at(0)
        self.epoch = epoch
        self._epoch_is_set = self._epoch_is_to_come = True

    def state_dict(self) -> dict[str, Any]:
        """Return ``seed``, ``epoch``, and the ``position`` in the whole sequence.

        The state is the same on every process, and you may continue with another number of
        processes. A DataLoader with workers draws ahead of the training: in this case set
        ``position`` to what all processes have trained on in the epoch, in samples for a sampler of
        indices and in batches for a sampler of batches.
        """
        start, replicas, given, pending = self._progress
        position = start + replicas * (given - operator.length_hint(pending))
        return {"seed": self.seed, "epoch": self.epoch, "position": position}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where the state was saved.

        A stateful loader calls this after ``set_epoch``: the state of an epoch that is over then
        leaves the new epoch as it is.
        """
        if missing := {"seed", "epoch", "position"} - set(state_dict):
            raise ValueError(f"state_dict must hold {sorted(missing)}, got {sorted(state_dict)}")
        seed, epoch = (as_whole_number(name, state_dict[name], 0) for name in ("seed", "epoch"))
        position = as_whole_number("position", state_dict["position"], 0)
        if position >= self._num_items and self._epoch_is_to_come and epoch < self.epoch:
            epoch, position = self.epoch, 0
        self._start_at(position)
        self.seed, self.epoch = seed, epoch

    def _start_at(self, position: int) -> None:
        self._start = self._begin = position  # of the next pass, and of the last one that began
        self._progress: tuple[int, int, int, Iterator[Item]] = (position, 1, 0, iter(()))

    def _pieces(self) -> Iterator[Iterator[Item]]:
        """The items of this process, piece by piece.

        What is left of a piece, its iterator knows: counting here would cost more than drawing.
        """
        name = type(self).__name__
        if self._is_used and not self._epoch_is_set:
            warnings.warn(
                f"every pass sees the indices of epoch {self.epoch} again: call "
                f"set_epoch(epoch) of {name} before every epoch",
                stacklevel=2,
            )
        start, self._start = self._start, 0
        if start >= self._num_items and not self._epoch_is_set:
            warnings.warn(
                f"nothing is left of epoch {self.epoch}, at whose end the state was saved: call "
                f"set_epoch(epoch) of {name} before every epoch",
                stacklevel=2,
            )
        self._is_used, self._epoch_is_to_come = True, False
        self._begin = start
        replicas, rank = processes(self.num_replicas, self.rank)
        if replicas > 1:
            warn_if_divided_again(name, replicas)
        given = 0
        for piece in self._parts(self.epoch, start, replicas, rank):
            given += len(piece)
            pending = iter(piece)
            self._progress = (start, replicas, given, pending)
            yield pending
        self._begin = 0
