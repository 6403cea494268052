"""Weighted sampling: how often a sample is drawn, instead of its weight in the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sampleweights._checks import as_number, as_whole_number
from sampleweights.counting import class_indices
from sampleweights.sampling.epochs import EpochSampler
from sampleweights.sampling.table import Table, as_weight, generator, without_replacement

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["WeightedSampler"]

CHUNK = 2**16
"""Places that share a random generator. A sequence is drawn chunk by chunk: the first index is
there at once, memory is that of one chunk, and resuming draws nothing that was seen before."""


SETTINGS = ("num_samples", "seed", "epoch", "num_replicas", "rank")
"""What may be assigned to; it acts from the next epoch on."""


class WeightedSampler(EpochSampler[int]):
    r"""Draws indices with given probabilities, for example to oversample rare classes.

    .. math:: p_i = w_i / \sum_j w_j

    Every process draws the same sequence from ``seed`` and the epoch, and takes its own part of it
    (rank, rank + num_replicas, ...). All processes together therefore see exactly what one process
    alone would see. If ``num_samples`` is not a multiple of ``num_replicas``, a few more indices
    are drawn, so that all processes have the same number; without replacement the first indices
    are repeated.

    Call :meth:`set_epoch` before every epoch, as with torch's ``DistributedSampler``. Otherwise
    every epoch sees the same indices, and a warning says so. Lightning, Accelerate and the Hugging
    Face Trainer call it themselves.

    Args:
        weight: ``(N,)``, any container of positive and finite numbers, which need not sum to 1.
            Leave samples that must never be drawn out of the data set.
        num_samples: the number of indices in an epoch, over all processes; None means N.
        replacement: whether an index may be drawn more than once within an epoch. If False, each
            index is drawn from the indices that are left.
        seed: the random seed, at least 0, the same on every process.
        num_replicas: number of processes; None asks torch.distributed at each epoch. Pass 1 if
            something else distributes the batches, as Accelerate and the Hugging Face Trainer do.
        rank: the rank of this process; pass it together with ``num_replicas``.

    Raises:
        TypeError, ValueError: an argument that does not fit; the message names it.

    Example:
        >>> from sampleweights import WeightedSampler
        >>> list(WeightedSampler([1, 1, 2], num_samples=10))
        [0, 0, 2, 2, 0, 2, 2, 2, 2, 1]
        >>> [list(WeightedSampler([1, 1, 2], 10, num_replicas=2, rank=rank)) for rank in (0, 1)]
        [[0, 2, 0, 2, 2], [0, 2, 2, 2, 1]]

    References:
        Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR
        2020 (``from_targets``). Chen and Asau, On Generating Random Variates from an Empirical
        Distribution, AIIE Transactions 1974 (the table). Efraimidis and Spirakis, Weighted Random
        Sampling with a Reservoir, Information Processing Letters 2006 (without replacement).
    """

    def __init__(
        self,
        weight: Tensor | Sequence[float] | Any,
        num_samples: int | None = None,
        *,
        replacement: bool = True,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        self._built_with = self._weight = as_weight(weight)
        size = len(self._weight)
        self.num_samples = (
            size if num_samples is None else as_whole_number("num_samples", num_samples, 1)
        )
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement must be True or False, got {replacement!r}")
        if not replacement and self.num_samples > size:
            raise ValueError(
                f"num_samples must be at most the number of weights ({size}) for "
                f"replacement=False, got {self.num_samples}"
            )
        self._replacement = replacement
        super().__init__(seed, num_replicas, rank)
        self._table = Table(self._weight) if replacement else None

    def __setattr__(self, name: str, value: Any) -> None:
        # torch's sampler takes `sampler.weights = ...`, and what does nothing here has to say so
        if type(self) is WeightedSampler and not name.startswith("_") and name not in SETTINGS:
            instead = "call set_weights(weight)" if "weight" in name else f"it has {SETTINGS}"
            raise AttributeError(f"WeightedSampler has no attribute {name!r} to set: {instead}")
        super().__setattr__(name, value)

    @classmethod
    def from_targets(
        cls,
        targets: Tensor | Sequence[int] | Iterable[Any] | Any,
        power: float = 0.0,
        **settings: Any,
    ) -> Self:
        r"""Draw each class, with N_c samples, with a probability proportional to N_c ** ``power``.

        .. math:: p_i = \frac{1}{N_{y_i}} \frac{N_{y_i}^q}{\sum_c N_c^q}

        Args:
            targets: the class index of every sample, in the order of the data set, in the forms
                that :meth:`sampleweights.ClassBalanced.from_targets` takes.
            power: q; 0 (the default) draws all classes equally often, 1/2 draws them by the square
                root of their counts, 1 draws them by their counts.
            settings: the keyword arguments of the constructor.

        Raises:
            ValueError: targets that are not one class index for each sample; a DataLoader that
                shuffles.

        Example:
            >>> from sampleweights import WeightedSampler
            >>> sampler = WeightedSampler.from_targets([0, 0, 0, 1])
            >>> sampler.importance_weight([0, 3])
            tensor([1.5000, 0.5000])

        References:
            Kang et al., ICLR 2020, Eq. 1.
        """
        power = as_number("power", power)
        if not math.isfinite(power):
            raise ValueError(f"power must be finite, got {power}")
        target = class_indices(targets)
        return cls((target.bincount().double() ** (power - 1))[target], **settings)

    @property
    def replacement(self) -> bool:
        """Whether an index may be drawn more than once within an epoch."""
        return self._replacement

    @property
    def weights(self) -> Tensor:
        """A copy of the weights, ``(N,)`` float64."""
        return torch.from_numpy(self._weight.copy())

    def set_weights(self, weight: Tensor | Sequence[float] | Any) -> None:
        """Draw with other weights from the next epoch on, for example by the losses of this one.

        They must be the same on every process. They are part of the state.

        Args:
            weight: as in the constructor, for the same samples.

        Raises:
            ValueError: weights that do not fit.
            RuntimeError: a call within an epoch, whose sequence could not be resumed.

        Example:
            >>> from sampleweights import WeightedSampler
            >>> sampler = WeightedSampler([1, 1, 2], num_samples=10)
            >>> first = list(sampler)
            >>> sampler.set_epoch(1)
            >>> sampler.set_weights([8, 1, 1])
            >>> list(sampler)
            [2, 0, 0, 0, 0, 0, 0, 0, 2, 0]
        """
        position = self.state_dict()["position"]
        if 0 < position < self.num_samples:
            raise RuntimeError(
                f"set_weights must be called between epochs, got position {position} of "
                f"{self.num_samples} in epoch {self.epoch}: call set_epoch of the next one first"
            )
        values = self._fitting(weight)
        self._table = self._table_of(values)
        self._weight = values

    def state_dict(self) -> dict[str, Any]:
        """Return ``seed``, ``epoch``, and the ``position`` in the whole sequence.

        After :meth:`set_weights` the weights are in it as well.
        The state is the same on every process, and you may continue with another number of
        processes. A DataLoader with workers draws ahead of the training: in this case set
        ``position`` to the number of samples that all processes have trained on in the epoch.
        """
        own = {} if self._weight is self._built_with else {"weight": torch.from_numpy(self._weight)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where the state was saved.

        The weights are those of the constructor, unless the state has those of
        :meth:`set_weights`. A stateful loader calls this after ``set_epoch``: the state of an epoch
        that is over then leaves the new epoch as it is.
        """
        weight = self._built_with
        if "weight" in state_dict:
            weight = self._fitting(state_dict["weight"])
        table = self._table_of(weight)  # may raise, and so may the next line: nothing has changed
        super().load_state_dict(state_dict)
        self._weight, self._table = weight, table

    def importance_weight(self, index: Tensor | Sequence[int]) -> Tensor:
        r"""Return the ``sample_weight`` that keeps the expected loss equal to the mean loss.

        .. math:: 1 / (N p_i)

        The expectation of the loss times this weight, over the draws, is the mean loss of the data
        set, and the same holds for the gradient. Sampling then only changes the variance of the
        gradient.

        Args:
            index: the indices of the samples, as the sampler gave them, in any shape.

        Returns:
            The weights, of torch's default dtype, on the device of ``index`` (which is
            synchronised if it is not the CPU).

        Raises:
            ValueError: ``replacement=False``, where the probabilities change with every draw.
        """
        if self._table is None:
            raise ValueError(
                "importance_weight needs replacement=True: without replacement the probability "
                "of a sample changes with every draw"
            )
        index = torch.as_tensor(index)
        weight = torch.from_numpy(self._weight)[index.cpu()]
        scaled = self._table.total / len(self._weight) / weight
        return scaled.to(index.device, torch.get_default_dtype())

    # -----------------------------------------------------------------------------------------
    # The sequence
    # -----------------------------------------------------------------------------------------

    def _fitting(self, weight: Any) -> NDArray[np.float64]:
        values = as_weight(weight)
        if len(values) != len(self._weight):
            raise ValueError(
                f"weight must have one value for each of the {len(self._weight)} samples, got "
                f"{len(values)}"
            )
        return values

    def _table_of(self, weight: NDArray[np.float64]) -> Table | None:
        if weight is self._weight:
            return self._table
        return Table(weight) if self.replacement else None

    @property
    def _num_items(self) -> int:
        return self.num_samples

    def _parts(self, epoch: int, start: int, replicas: int, rank: int) -> Iterator[list[int]]:
        for indices in self._chunks(epoch, start, replicas, rank):
            piece: list[int] = indices.tolist()
            yield piece

    def _chunks(self, epoch: int, start: int, replicas: int, rank: int) -> Iterator[NDArray[Any]]:
        left = max(self.num_samples - start, 0)
        stop = start + -(-left // replicas) * replicas
        order, table = None, self._table
        if table is None:
            order = without_replacement(self._weight, self.num_samples, generator(self.seed, epoch))
        for chunk in range(start // CHUNK, -(-stop // CHUNK)):
            begin, end = max(start, chunk * CHUNK), min(stop, (chunk + 1) * CHUNK)
            first = begin + (start + rank - begin) % replicas
            if table is not None:
                uniform = generator(self.seed, epoch, chunk).random(end - chunk * CHUNK)
                yield table.find(uniform[first - chunk * CHUNK :: replicas])
            elif order is not None:
                yield order[np.arange(first, end, replicas) % self.num_samples]
