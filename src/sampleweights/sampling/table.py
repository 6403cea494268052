"""Drawing indices with given probabilities, fast for 10^8 of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sampleweights._checks import on_cpu

STREAM = 0x5A3D  # so that seed 0 gives other numbers than the user's own default_rng(0)
CHUNK = 2**16  # weights at a time, so that what is between takes little memory


def generator(*key: int) -> np.random.Generator:
    """Random numbers of their own for each key, the same on any machine."""
    return np.random.Generator(np.random.PCG64([STREAM, *key]))


class Table:
    """Cumulative weights, and for each of K equal parts of [0, 1) where to begin to look in them.

    A binary search among 10^8 values waits for memory a dozen times; from the right beginning it
    takes one step or two. K is a power of 2, so that no rounding parts a number from its part.
    """

    def __init__(self, weight: NDArray[np.float64]) -> None:
        with np.errstate(over="ignore"):
            # one after the other: the same sum on any processor, which weight.sum() is not
            self.cumulative = np.cumsum(weight)
        self.total = float(self.cumulative[-1])
        if not math.isfinite(self.total):
            raise ValueError(f"weight must have a finite sum, got {self.total}")
        size = len(weight)
        self.parts = 1 << (size - 1).bit_length()
        begin = np.zeros(self.parts + 1, np.int32 if size < 2**31 else np.int64)
        scale = self.parts / self.total
        for low in range(0, size, CHUNK):
            cumulative = self.cumulative[low : low + CHUNK]
            # the first part that begins at or after the end of each weight: from the next one on
            part = np.ceil(cumulative * scale)
            part += part / self.parts * self.total < cumulative
            np.minimum(part, self.parts, out=part)
            # of several weights that end in one part the last is written last
            begin[part.astype(np.int64)] = np.arange(low + 1, low + 1 + len(part))
        np.maximum.accumulate(begin, out=begin)
        # of numbers that the last weight ends before by rounding
        self.begin = np.minimum(begin, size - 1, out=begin)

    def find(self, uniform: NDArray[np.float64]) -> NDArray[Any]:
        """For each number of [0, 1) the first weight whose cumulative sum is above it."""
        index: NDArray[Any] = self.begin[(uniform * self.parts).astype(np.int64)]
        wanted = uniform * self.total
        rest = np.flatnonzero(self.cumulative[index] <= wanted)
        for _ in range(2):
            index[rest] = np.minimum(index[rest] + 1, len(self.cumulative) - 1)
            rest = rest[self.cumulative[index[rest]] <= wanted[rest]]
        found = np.searchsorted(self.cumulative, wanted[rest], side="right")
        index[rest] = np.minimum(found, len(self.cumulative) - 1)
        return index


def without_replacement(
    weight: NDArray[np.float64], count: int, generator: np.random.Generator
) -> NDArray[np.uint64]:
    """The first ``count`` indices, one drawn after the other: by exponential keys over the weights.

    The last bits of each key are the index: so numbers are sorted instead of positions, which is
    five times as fast, and there are no ties, which different processors may order differently.
    The other bits are at least the 24 of float32 for fewer than 2**28 samples.
    """
    keys = generator.standard_exponential(len(weight))
    with np.errstate(over="ignore"):
        keys /= weight
    bits = keys.view(np.uint64)
    width = np.uint64(len(bits).bit_length())
    bits >>= width
    bits <<= width
    bits |= np.arange(len(bits), dtype=np.uint64)
    if count < len(bits):
        bits.partition(count - 1)
        bits = bits[:count].copy()
    bits.sort()
    bits &= (np.uint64(1) << width) - np.uint64(1)
    return bits


def as_weight(weight: Any) -> NDArray[np.float64]:
    """A copy of the weights, or a ValueError that says what is wrong with them."""
    values = on_cpu("weight", weight)
    if values.ndim != 1 or values.numel() == 0:
        raise ValueError(
            f"weight must have shape (N,), a value for each sample, got {tuple(values.shape)}"
        )
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"weight must be numbers, got dtype {values.dtype}")
    numbers: NDArray[np.float64] = values.to(torch.float64, copy=True).numpy()
    if not (numbers.min() > 0 and numbers.max() < math.inf):  # NaN is neither
        first = np.flatnonzero(~((numbers > 0) & (numbers < math.inf)))[0]
        raise ValueError(
            f"weight must be positive and finite, got {numbers[first]} for sample {first}; leave "
            f"a sample that is never to be drawn out of the data set"
        )
    return numbers
