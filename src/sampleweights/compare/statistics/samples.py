"""Samples, groups and folds: what moves a metric, summed over what is drawn as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sampleweights.compare.statistics.metrics import Part, mean_of_known


@dataclass(frozen=True)
class Influence:
    """A metric of a row, and what moves it; of each repeat, since each has models of its own."""

    value: float
    by_group: NDArray[np.float32]
    """(repeats, G)"""
    by_fold: NDArray[np.float64]
    """(repeats, K)"""

    def __add__(self, other: Influence) -> Influence:
        return Influence(
            self.value + other.value, self.by_group + other.by_group, self.by_fold + other.by_fold
        )

    def __sub__(self, other: Influence) -> Influence:
        return self + other * -1

    def __mul__(self, factor: float) -> Influence:
        by_group = np.float32(factor) * self.by_group
        return Influence(factor * self.value, by_group, factor * self.by_fold)


@dataclass(frozen=True)
class Samples:
    """Who is in which class, group and fold."""

    target: NDArray[np.int64]
    """(N,)"""
    group: NDArray[np.int64]
    """(N,), 0 to G - 1."""
    fold: NDArray[np.int64]
    """(repeats, N), 0 to K - 1."""
    weight: NDArray[np.float64]
    """(N,)"""
    num_classes: int

    @cached_property
    def num_groups(self) -> int:
        return int(self.group.max()) + 1

    @cached_property
    def num_folds(self) -> int:
        return int(self.fold.max()) + 1

    @property
    def repeats(self) -> range:
        return range(len(self.fold))

    @cached_property
    def alone(self) -> bool:
        """Whether each sample is a group of its own."""
        return self.num_groups == len(self.target)

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """(C,), samples of each class."""
        return np.bincount(self.target, minlength=self.num_classes)

    @cached_property
    def size(self) -> NDArray[np.float64]:
        """(C,), the weight of the samples of each class."""
        return np.bincount(self.target, self.weight, self.num_classes).astype(np.float64)

    @cached_property
    def _cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each sample its class and group as one number, and the class of each such number."""
        cell, of_sample = np.unique(self.target * self.num_groups + self.group, return_inverse=True)
        return of_sample, cell // self.num_groups

    @cached_property
    def groups_of_class(self) -> NDArray[np.int64]:
        """(C,), groups that have samples of each class."""
        return np.bincount(self._cells[1], minlength=self.num_classes)

    def groups_among(self, index: NDArray[np.int64]) -> int:
        """How many groups some samples are from."""
        return len(index) if self.alone else len(np.unique(self.group[index]))

    def influence(self, parts: Sequence[Sequence[Part]]) -> Influence:
        """Of a metric that is the mean of parts, by repeat."""
        by_group = np.zeros((len(parts), self.num_groups), np.float32)
        by_fold = np.zeros((len(parts), self.num_folds))
        for repeat, of_repeat in enumerate(parts):
            known = [part for part in of_repeat if np.isfinite(part.value)]
            index = np.concatenate([np.arange(0), *(part.index for part in known)])
            amount = np.concatenate([np.zeros(0), *(part.influence for part in known)])
            amount /= max(len(known), 1)
            by_group[repeat] = np.bincount(self.group[index], amount, self.num_groups)
            by_fold[repeat] = np.bincount(self.fold[repeat, index], amount, self.num_folds)
        value = np.mean([mean_of_known(part.value for part in of_repeat) for of_repeat in parts])
        return Influence(float(value), by_group, by_fold)

    def covariance(self, parts: Sequence[Sequence[Part]]) -> NDArray[np.float64]:
        """(P, P), of the parts of a metric averaged over the repeats."""
        number, size = len(parts[0]), self.num_groups
        rows = np.concatenate(
            [np.full(len(of.index), p) for of_repeat in parts for p, of in enumerate(of_repeat)]
        )
        index = np.concatenate([of.index for of_repeat in parts for of in of_repeat])
        amount = np.concatenate([of.influence for of_repeat in parts for of in of_repeat])
        where = self.group[index]
        if len(index) > number * size / 4:
            dense = np.bincount(rows * size + where, amount, number * size).astype(np.float64)
            found = dense.reshape(number, size) @ dense.reshape(number, size).T
        else:
            sparse = csr_array((amount, (rows, where)), shape=(number, size))
            found = (sparse @ sparse.T).toarray()
        averaged: NDArray[np.float64] = found / len(parts) ** 2
        return averaged

    def few(
        self, difference: NDArray[np.float64], share: NDArray[np.float64]
    ) -> tuple[float, float, float]:
        """What is to be added to the difference of two shares, since some classes are small.

        Few samples, all of them alike, never show what another would do. Two samples more in each
        class, one for each of the two rows, make up for that: Bonett and Price, Adjusted Wald
        confidence interval for a difference of binomial proportions based on paired data, Journal
        of Educational and Behavioral Statistics 2012.

        Args:
            difference: (N,), of each sample, from -1 to 1.
            share: (C,), the weight of each class in the metric.

        Returns:
            What to add to the difference, what to add to its variance, and the degrees of freedom
            with which that variance is known.
        """
        cell, class_of = self._cells
        size = self.size
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(self.target, self.weight * difference, self.num_classes) / size
            square = np.bincount(self.target, self.weight * difference**2, self.num_classes) / size
            around = self.weight * (difference - mean[self.target])
            of_cell = np.bincount(cell, around) / size[class_of]
            variance = np.bincount(class_of, of_cell**2, self.num_classes)
            number = np.where(variance > 0, (square - mean**2) / variance, self.groups_of_class)
            square = (number * square + 1) / (number + 1)
            smaller = mean * number / (number + 1)
            wider = (square - smaller**2) / (number + 1)
            freedom = np.inf
            if not self.alone:
                parts = share**2 * wider
                freedom = np.nansum(parts) ** 2 / np.nansum(parts**2 / (self.groups_of_class - 1))
                freedom = min(freedom, self.num_groups - 1)
        return (
            float(np.nansum(share * (smaller - mean))),
            float(np.nansum(share**2 * (wider - variance))),
            float(freedom),
        )
