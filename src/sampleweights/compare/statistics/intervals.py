"""Intervals of metrics that know of samples and of trainings.

A difference between two rows is uncertain for two reasons: other samples would have been
predicted otherwise, and other random numbers would have trained other models. A bootstrap over the
samples (or groups of them) sees the first alone. How much wider the second makes the intervals is
estimated from how much the differences vary from fold to fold, over all pairs of rows together.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import norm, t

from sampleweights.compare.statistics.metrics import (
    BINS,
    METRICS,
    Prediction,
    columns,
    mean_of_known,
    metrics_of,
    ranked,
)

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, in percent or percentage points.

    The ends are NaN where no honest interval exists.
    """

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def __str__(self) -> str:
        return self._text("")

    @property
    def signed(self) -> str:
        """With a sign before each number, as differences are written."""
        return self._text("+")

    @property
    def bounded(self) -> Estimate:
        """Its interval cut to what a metric can be, 0 to 100; a difference can be negative."""
        if not self.shown:
            return self
        return replace(self, low=max(self.low, 0.0), high=min(self.high, 100.0))

    def _text(self, sign: str) -> str:
        # adding 0 makes -0.0 a 0.0
        value, low, high = (
            format(round(number, 1) + 0.0, f"{sign}.1f")
            for number in (self.value, self.low, self.high)
        )
        return f"{value} ({low} to {high})" if self.shown else value


class Statistics:
    """Metrics of rows that predict the same samples.

    Args:
        target: (N,), classes.
        group: (N,), 0 to G - 1: what is drawn as a whole.
        fold: (repeats, N), 0 to K - 1: who was predicted by one model.
        class_names: C names.
        rows: by name, of the rows that were trained: those whose differences tell how much a
            training varies.
        seed: of the resamples.
        weight: (N,), of the samples in the metrics; None for 1 each.
    """

    def __init__(
        self,
        target: NDArray[np.int64],
        group: NDArray[np.int64],
        fold: NDArray[np.int64],
        class_names: Sequence[str],
        rows: Mapping[str, Prediction],
        seed: int = 0,
        weight: NDArray[np.float64] | None = None,
    ) -> None:
        self.target, self.group, self.fold, self.seed = target, group, fold, seed
        self.weight = np.ones(len(target)) if weight is None else weight
        self.num_classes = len(class_names)
        self.metrics = [
            *METRICS,
            *(f"recall_{name}" for name in class_names),
            *(f"precision_{name}" for name in class_names),
        ]
        self._ranked = {f"average_precision_{name}": i for i, name in enumerate(class_names)}
        self._exact: dict[str, dict[str, float]] = {}
        self._values: dict[str, NDArray[np.float64]] = {}
        self._draws: dict[str, NDArray[np.float64]] = {}
        self._without_fold: dict[str, NDArray[np.float64]] = {}
        self._fold_support = [
            self._collect(of_repeat, target, self.weight, self.num_classes).toarray()
            for of_repeat in fold
        ]
        self.add(rows)
        self._excess = self._excess_variance(list(rows))

    # -----------------------------------------------------------------------------------------
    # What is asked for
    # -----------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def add(
        self, rows: Mapping[str, Prediction], trained_as: Mapping[str, str] | None = None
    ) -> None:
        """Take in rows, to ask for them later.

        Args:
            rows: by name.
            trained_as: of rows that were read off others, the name of the row that was trained.
        """
        self._keep(rows)
        target, classes = self.target, self.num_classes
        support = np.bincount(target, self.weight, classes).astype(np.float64)
        sums = {}
        for name, row in rows.items():
            values, without, of_groups = [], [], []
            for predicted, confidence, fold, fold_support in zip(
                row.predicted, row.confidence, self.fold, self._fold_support, strict=True
            ):
                column, amount = columns(predicted, confidence, target, self.weight, classes)
                sample = np.tile(np.arange(len(target)), len(column) // len(target))
                width = 2 * classes + BINS
                of_groups.append(self._collect(self.group[sample], column, amount, width))
                of_fold = self._collect(fold[sample], column, amount, width).toarray()
                total = of_fold.sum(0)
                values.append(metrics_of(total, support, classes))
                without.append(metrics_of(total - of_fold, support - fold_support, classes))
            self._values[name] = np.mean(values, axis=0)
            self._without_fold[name] = np.stack(without)
            sums[name] = [of_group.T.tocsr() for of_group in of_groups]
        self._resample(sums)

    def _keep(self, rows: Mapping[str, Prediction]) -> None:
        for name, row in rows.items():
            of_class = ranked(row, self.target, self.num_classes, self.weight)
            exact = {metric: float(mean_of_known(v)) for metric, v in of_class.items()}
            for metric, c in self._ranked.items():
                exact[metric] = float(of_class["average_precision"][c])
            if row.utility is not None:
                exact["utility"] = float(np.average(row.utility.mean(0), weights=self.weight))
            self._exact[name] = exact

    def why_no_interval(self, metric: str) -> str | None:
        """Why no interval of a metric is shown, in a sentence; None where there is one."""
        if metric == "worst_recall":
            return (
                "The worst of several recalls has no interval: its estimate is too low by chance. "
                "Look at the recall of each class."
            )
        if metric in self._exact[self.names[0]]:
            return "Not yet."
        return None

    def estimate(self, row: str, metric: str) -> Estimate:
        """A row's metric, with the interval of the samples."""
        if metric in self._exact[row]:
            return Estimate(self._exact[row][metric], np.nan, np.nan)
        which = self._which(metric)
        draws = self._draws[row][:, :, which].mean(0)
        found = interval(self._values[row][which], draws, 0.0).bounded
        position = which - len(METRICS)
        if 0 <= position < self.num_classes and np.isfinite(found.value):
            # resampling a few that are right shows less
            size = len(np.unique(self.group[self.target == position]))
            low, high = wilson(found.value, size)
            found = replace(found, low=min(low, found.low), high=max(high, found.high))
        return found

    def difference(self, row: str, other: str, metric: str) -> Estimate:
        """A row's metric minus another's, paired, with the interval of samples and trainings."""
        if metric in self._exact[row]:
            return Estimate(self._exact[row][metric] - self._exact[other][metric], np.nan, np.nan)
        which = self._which(metric)
        value = self._values[row][which] - self._values[other][which]
        draws = self._draws[row][:, :, which] - self._draws[other][:, :, which]
        excess = self._excess[which] * variance(draws).mean() / len(draws)
        return interval(value, draws.mean(0), float(excess))

    def differences(self, rows: Sequence[str], other: str, metric: str) -> dict[str, Estimate]:
        """Differences of rows to another, all of which hold their truth together in 95 %."""
        return {row: self.difference(row, other, metric) for row in rows}

    def above_curve(
        self, rows: Sequence[str], curve: Mapping[float, Prediction], base: str | None = None
    ) -> dict[str, Estimate]:
        """Balanced accuracy of rows minus that of a curve where it has their accuracy.

        The intervals hold their truth together in 95 %.

        Args:
            rows: names.
            curve: by tau, the predictions of one row, adjusted post hoc.
            base: the trained row that ``curve`` is read off; the first by default.
        """
        names = {tau: f"curve, tau {tau:.6g}" for tau in curve}
        new = {names[tau]: row for tau, row in curve.items() if names[tau] not in self._values}
        if new:
            self.add(new)
        found = {}
        points = [self._values[name] for name in names.values()]
        accuracy = np.array([values[0] for values in points])
        balanced = np.array([values[1] for values in points])
        for row in rows:
            least = min(self._values[row][0], accuracy.max()) - 1e-9
            best = np.where(accuracy >= least, balanced, -np.inf).argmax()
            found[row] = self.difference(row, list(names.values())[best], "balanced_accuracy")
        return found

    def draws(self, row: str) -> dict[str, NDArray[np.float64]]:
        """Of each metric its values (resamples,), averaged over the repeats.

        The same samples are drawn for every row: differences of draws are paired.
        """
        mean = self._draws[row].mean(0, dtype=np.float64)
        return dict(zip(self.metrics, mean.T, strict=True))

    def _which(self, metric: str) -> int:
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {self.metrics}, got {metric!r}")
        return self.metrics.index(metric)

    # -----------------------------------------------------------------------------------------
    # Resampling
    # -----------------------------------------------------------------------------------------

    def _collect(
        self, row: NDArray[np.int64], column: NDArray[np.int64], amount: NDArray[np.float64],
        width: int,
    ) -> csr_array:  # fmt: skip
        return csr_array((amount, (row, column)), shape=(int(row.max()) + 1, width))

    def _resample(self, rows: Mapping[str, Sequence[csr_array]]) -> None:
        """Draw groups, the same ones for every row, and keep what each row's metrics become.

        To draw takes much longer than to add up, so that it is done once for all ``rows``, by
        name the sums (width, groups) of each repeat.
        """
        support = self._collect(self.group, self.target, self.weight, self.num_classes).T.tocsr()
        groups = support.shape[1]
        draws: dict[str, list[NDArray[np.float32]]] = {name: [] for name in rows}
        generator = np.random.default_rng(self.seed)
        step = max(1, 2**19 // groups)  # what is drawn stays in the cache
        for first in range(0, RESAMPLES, step):
            times = np.empty((groups, min(step, RESAMPLES - first)))
            for i in range(times.shape[1]):
                times[:, i] = np.bincount(generator.integers(0, groups, groups), minlength=groups)
            drawn = (support @ times).T
            for name, sums in rows.items():
                found = [metrics_of((of_row @ times).T, drawn, self.num_classes) for of_row in sums]
                draws[name].append(np.stack(found).astype(np.float32))
        for name, parts in draws.items():
            self._draws[name] = np.concatenate(parts, axis=1)

    def _excess_variance(self, rows: Sequence[str]) -> NDArray[np.float64]:
        """By metric: the variance of differences that trainings add, over that of the samples.

        The jackknife over folds sees both, since each fold has models of its own; the bootstrap
        sees the samples. A single pair has few folds, all pairs together have many.
        """
        seen = np.zeros((2, len(self.metrics)))
        if self.fold.max() == 0:  # one model predicted all: nothing tells how trainings vary
            return np.zeros(len(self.metrics))
        for one, other in itertools.combinations(rows, 2):
            without = self._without_fold[one] - self._without_fold[other]
            folds = without.shape[1]
            by_fold = (folds - 1) * without.var(1).mean(0)
            by_sample = variance(self._draws[one] - self._draws[other]).mean(0)
            known = np.isfinite(by_fold) & np.isfinite(by_sample)
            seen += np.where(known, [by_fold, by_sample], 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            excess = np.maximum(seen[0] / seen[1] - 1, 0)
        # that variance is itself estimated: quantiles of Student's t instead of the normal ones
        freedom = max(len(rows) - 1, 1) * (int(self.fold.max())) * len(self.fold)
        excess *= (t.ppf(0.975, freedom) / norm.ppf(0.975)) ** 2
        return np.where(seen[1] > 0, excess, 0)


def variance(draws: NDArray[np.floating]) -> NDArray[np.floating]:
    """Over the resamples (repeats, resamples, ...), but for those in which a class is absent."""
    known = np.isfinite(draws)
    number = np.maximum(known.sum(1), 1)
    mean = np.where(known, draws, 0).sum(1) / number
    spread: NDArray[np.floating] = (np.where(known, draws - mean[:, None], 0) ** 2).sum(1) / number
    return spread


def wilson(percent: float, size: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``size`` independent samples.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    share, z = min(max(percent / 100, 0.0), 1.0), float(norm.ppf(0.975))
    center = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return 100 * float(max(center - half, 0.0)), 100 * float(min(center + half, 1.0))


def interval(value: float, draws: NDArray[np.floating], excess: float) -> Estimate:
    """Percentiles of the draws around the value.

    The draws are moved to have the value as their mean, since resampling adds to some metrics (a
    calibration error) and takes from others (the worst recall); and they are moved apart by a
    variance that they do not have.
    """
    draws = draws[np.isfinite(draws)].astype(np.float64)
    if not np.isfinite(value) or not len(draws):
        return Estimate(float(value), float("nan"), float("nan"))
    spread, center = draws.var(), draws.mean()
    wider = np.sqrt(1 + excess / spread) if spread > 0 else 1.0
    bias = center - value
    if bias**2 <= 9 * spread / len(draws):  # as much as the number of resamples explains
        bias = 0.0
    low, high = np.percentile(center - bias + wider * (draws - center), [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
