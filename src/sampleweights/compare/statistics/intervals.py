"""Metrics of rows with intervals that know of samples and of trainings.

A difference between two rows is uncertain for two reasons: other samples would have been
predicted otherwise, and other random numbers would have trained other models. The first is the sum
of the squared influences of the samples, or of the groups (the infinitesimal jackknife: a bootstrap
without resampling). How much wider the second makes the intervals is known from how much the
differences vary from fold to fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.statistics.contrasts import Contrast, intervals
from sampleweights.compare.statistics.curve import Above, Both, Curve
from sampleweights.compare.statistics.estimates import Estimate, of_mean, of_part, quantile
from sampleweights.compare.statistics.metrics import (
    METRICS,
    RANKED,
    Part,
    Prediction,
    areas_of,
    metrics_of_row,
    names_of,
    parts_of,
    same,
    unit_of,
)
from sampleweights.compare.statistics.samples import Influence, Samples

FEWEST = 20
"""Samples of a class below which average precision and AUROC have no honest interval."""
NAN = float("nan")
WITHOUT = {
    "worst_recall": "The worst recall has no interval: the lowest of several numbers is low by "
    "chance too. Look at the recall of each class.",
    "calibration_error": "The calibration error has no interval: what chance adds to it is "
    "subtracted, and what remains is too uncertain near 0 for an honest one.",
}


class Statistics:
    """Metrics of rows that predict the same samples.

    Args:
        target: (N,), classes.
        group: (N,), 0 to G - 1: what is drawn as a whole.
        fold: (repeats, N), 0 to K - 1: who was predicted by one model.
        class_names: C names.
        rows: by name, of the rows that were trained.
        seed: of the random numbers with which simultaneous intervals are computed.
        weight: (N,), of the samples in the metrics; None for 1 each.
    """

    samples_kind: ClassVar[type[Samples]] = Samples
    of_class: ClassVar[dict[str, str]] = {
        "recall": "recall", "precision": "precision", "average_precision": "average_precision",
    }  # fmt: skip
    """What begins the names of the metrics of each class, and the kind of metric that each is."""

    def __init__(
        self,
        target: NDArray[np.int64],
        group: NDArray[np.int64],
        fold: NDArray[np.int64],
        class_names: Sequence[str],
        rows: Mapping[str, Any],
        seed: int = 0,
        weight: NDArray[np.float64] | None = None,
    ) -> None:
        weight = np.ones(len(target)) if weight is None else weight
        self.samples = self.samples_kind(target, group, fold, weight, len(class_names))
        self.class_names, self.seed = list(class_names), seed
        self._rows: dict[str, Any] = {}
        self._training: dict[str, str] = {}
        self._influences: dict[tuple[str, str], Influence] = {}
        self._estimates: dict[tuple[str, str], Estimate] = {}
        self.add(rows)

    # -----------------------------------------------------------------------------------------
    # What is asked for
    # -----------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return list(self._rows)

    @property
    def metrics(self) -> list[str]:
        with_utility = all(row.utility is not None for row in self._rows.values())
        return names_of(self.class_names, with_utility)

    def add(self, rows: Mapping[str, Any], trained_as: Mapping[str, str] | None = None) -> None:
        """Take in rows, to ask for them later.

        Args:
            rows: by name.
            trained_as: of rows that were read off others, the name of the row that was trained.
        """
        self._rows |= rows
        self._training |= {name: (trained_as or {}).get(name, name) for name in rows}

    def why_no_interval(self, metric: str) -> str | None:
        """Why no interval of a metric is shown, in a sentence; None where there is one."""
        family, c = self._family(metric)
        if metric in WITHOUT:
            return WITHOUT[metric]
        if self.samples.num_groups < 2:
            return "All samples are in one group: that others vary cannot be seen."
        if metric in ("accuracy", "utility"):
            return None
        support, groups = self.samples.support, self.samples.groups_of_class
        of_class = [c] if c is not None else np.flatnonzero(support).tolist()
        rare = min(of_class, key=lambda c: (groups[c], support[c]))
        if groups[rare] == 1 < support[rare]:
            return f"All samples of {self.class_names[rare]} are in one group."
        if family in RANKED and groups[rare] < FEWEST:
            number, what = groups[rare], "samples" if self.samples.alone else "groups"
            return (
                f"{self.class_names[rare]} has {number} {what}: with fewer than {FEWEST}, an "
                f"interval would not hold what it says."
            )
        return None

    def estimate(self, row: str, metric: str) -> Estimate:
        """A row's metric, with the interval of the samples."""
        if (row, metric) not in self._estimates:
            family, c = self._family(metric)
            if metric in WITHOUT:
                self._estimates[row, metric] = Estimate(self._value(row, metric), NAN, NAN)
            elif family in RANKED:
                self._rank(row)
            elif family == "utility":
                self._estimates[row, metric] = self._utility(row)
            else:
                parts = self._parts(row, family, c)
                self._estimates[row, metric] = self._estimate(metric, parts)
        return self._estimates[row, metric]

    def difference(self, row: str, other: str, metric: str) -> Estimate:
        """A row's metric minus another's, paired, with the interval of samples and trainings."""
        return self.differences([row], other, metric)[row]

    def differences(self, rows: Sequence[str], other: str, metric: str) -> dict[str, Estimate]:
        """Metrics of rows minus another's, paired, with the intervals of samples and trainings.

        The intervals of all ``rows`` hold their truth together in 95 %.
        """
        self._family(metric)
        if metric in WITHOUT:
            base, own = self.estimate(other, metric), [self.estimate(r, metric) for r in rows]
            return {
                row: Estimate(of.value - base.value, NAN, NAN)
                for row, of in zip(rows, own, strict=True)
            }
        contrasts = [self._contrast(row, other, metric) for row in rows]
        unit, found = unit_of(metric), {}
        shown = self.why_no_interval(metric) is None
        ends = intervals(contrasts, self.seed) if shown else [(NAN, NAN)] * len(rows)
        for row, of, (low, high) in zip(rows, contrasts, ends, strict=True):
            found[row] = Estimate(unit * of.influence.value, unit * low, unit * high)
        return found

    def above_curve(
        self, rows: Sequence[str], curve: Mapping[float, Prediction]
    ) -> dict[str, Estimate]:
        """Balanced accuracy of rows minus that of a curve where it has their accuracy.

        A row is compared with every adjustment of at least its accuracy; one that is more accurate
        than all of them, with the most accurate. The intervals of all ``rows`` hold their truth
        together in 95 %.

        Args:
            rows: names.
            curve: by tau, the predictions of one row, adjusted post hoc.
        """

        def both(row: Prediction) -> Both:
            accuracy, balanced = (
                self.samples.influence(self._parts_of(row, metric))
                for metric in ("accuracy", "balanced_accuracy")
            )
            return accuracy, balanced

        share = self.samples.size > 0
        share = share / share.sum()
        points = [curve[tau] for tau in sorted(curve)]
        line, shown = Curve([both(row) for row in points]), {}
        found = []
        for row in rows:
            of = Above(both(self._rows[row]), line, self._training[row])
            difference = self._right(self._rows[row]) - self._right(points[of.nearest])
            found.append(of.of_few(*self.samples.few(difference, share)))
        ends = intervals([of.contrast for of in found], self.seed)
        known = self.why_no_interval("balanced_accuracy") is None
        for row, of, (low, high) in zip(rows, found, ends, strict=True):
            low, high = of.widened(low, high) if known else (NAN, NAN)
            shown[row] = Estimate(100 * of.contrast.influence.value, 100 * low, 100 * high)
        return shown

    # -----------------------------------------------------------------------------------------
    # How it is found
    # -----------------------------------------------------------------------------------------

    def _family(self, metric: str) -> tuple[str, int | None]:
        """What kind of metric it is, and of which class: recall_NAME is a recall."""
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {self.metrics}, got {metric!r}")
        for prefix, family in self.of_class.items():
            name = metric.removeprefix(f"{prefix}_")
            if name != metric and name in self.class_names:
                return family, self.class_names.index(name)
        return metric, None

    def _parts(self, row: str, family: str, c: int | None = None) -> list[list[Part]]:
        """What a metric is the mean of, of each repeat."""
        found = self._parts_of(self._rows[row], family)
        return found if c is None else [[parts[c]] for parts in found]

    def _value(self, row: str, metric: str) -> float:
        """Without an interval, in percent."""
        of = self.samples.target, self.samples.num_classes, self.samples.weight
        [value] = metrics_of_row(self._rows[row], *of, [metric]).values()
        return value

    def _areas_of(self, row: Any, repeat: int) -> tuple[list[Part], list[Part]]:
        of = self.samples.target, self.samples.weight, self.samples.num_classes
        return areas_of(row, repeat, *of)

    def _parts_of(self, row: Any, family: str) -> list[list[Part]]:
        of = self.samples.target, self.samples.weight, self.samples.num_classes
        return [parts_of(row, repeat, family, *of) for repeat in self.samples.repeats]

    def _rank(self, row: str) -> None:
        """Sorting takes most of the time: all metrics that need it are found together."""
        both = [self._areas_of(self._rows[row], repeat) for repeat in self.samples.repeats]
        for which, metric in enumerate(RANKED):
            parts = [of_repeat[which] for of_repeat in both]
            self._influences[row, metric] = self.samples.influence(parts)
            self._estimates[row, metric] = self._estimate(metric, parts)
            if metric in self.of_class:
                for c, name in enumerate(self.class_names):
                    only = [[of_repeat[c]] for of_repeat in parts]
                    self._estimates[row, f"{metric}_{name}"] = self._estimate(
                        f"{metric}_{name}", only
                    )

    def _estimate(self, metric: str, parts: list[list[Part]]) -> Estimate:
        (family, only), unit = self._family(metric), unit_of(metric)
        means = np.mean([[part.value for part in of] for of in parts], axis=0)
        known = np.flatnonzero(np.isfinite(means)).tolist()
        value = float(np.mean(means[known])) if known else NAN
        if not known or self.why_no_interval(metric) is not None:
            return Estimate(unit * value, NAN, NAN)
        covariance = self.samples.covariance([[of[p] for p in known] for of in parts])
        variance = covariance.diagonal()
        ends = []
        for p, of_part_alone in zip(known, variance, strict=True):
            if family in RANKED:
                units = int(self.samples.groups_of_class[p if only is None else only])
            else:
                units = self.samples.groups_among(parts[0][p].index)
            ends.append(of_part(family, means[p], of_part_alone, units, self.samples.alone))
        scale = np.sqrt(np.where(variance > 0, variance, 1))
        correlation = np.where(np.eye(len(known)), 1, covariance / scale / scale[:, None])
        low, high = of_mean(means[known].tolist(), ends, correlation)
        return Estimate(unit * value, unit * low, unit * high)

    def _utility(self, row: str) -> Estimate:
        influence, few = self._influence(row, "utility"), self._few_utilities(self._rows[row])
        of, center = Contrast(influence, row, *few), influence.value + few[0]
        if self.why_no_interval("utility") is not None:
            return Estimate(influence.value, NAN, NAN)
        half = quantile(of.freedom) * np.sqrt(of.samples_alone + of.added)
        worth = self._rows[row].worth
        low, high = float(center - half), float(center + half)
        if worth is not None:  # no decisions earn less or more
            least, most = (self.samples.size @ worth / self.samples.size.sum()).tolist()
            low, high = max(low, least), min(high, most)
        return Estimate(influence.value, low, high)

    def _influence(self, row: str, metric: str) -> Influence:
        if (row, metric) not in self._influences:
            if metric in RANKED:
                self._rank(row)
            else:
                found = self.samples.influence(self._parts(row, *self._family(metric)))
                if metric not in METRICS:  # of each class: many, and quickly found again
                    return found
                self._influences[row, metric] = found
        return self._influences[row, metric]

    def _right(self, row: Prediction) -> NDArray[np.float64]:
        """(N,), the share of repeats in which a sample is predicted right."""
        right: NDArray[np.float64] = (row.predicted == self.samples.target).mean(0)
        return right

    def _shares(self, family: str, c: int | None) -> NDArray[np.float64] | None:
        """(C,), how much each recall counts in a metric; None if it is no mean of recalls."""
        size, share = self.samples.size, None
        if family == "accuracy":
            share = size / size.sum()
        elif family == "balanced_accuracy":
            share = (size > 0) / (size > 0).sum()
        elif family == "recall":
            share = np.arange(len(size)) == c
        return None if share is None else share.astype(np.float64)

    def _few_utilities(
        self, row: Prediction, other: Prediction | None = None
    ) -> tuple[float, float, float]:
        """As `Samples.few`, in units of what a decision can change in each class.

        A decision that costs much in a class of few samples may have been wrong in none of them.
        """
        target, size = self.samples.target, self.samples.size
        if row.worth is None or row.utility is None:
            return 0.0, 0.0, float(max(self.samples.num_groups - 1, 1))
        most, earned = row.worth[:, 1] - row.worth[:, 0], row.utility.mean(0)
        if other is None:
            most, earned = most / 2, earned - row.worth.mean(1)[target]
        elif other.utility is not None:
            earned = earned - other.utility.mean(0)
        share = np.divide(earned, most[target], out=0 * earned, where=most[target] > 0)
        return self.samples.few(share, most * size / size.sum())

    def _contrast(self, row: str, other: str, metric: str) -> Contrast:
        influence = self._influence(row, metric) - self._influence(other, metric)
        training, (family, c) = self._training[row], self._family(metric)
        if same(self._rows[row], self._rows[other]):
            return Contrast(influence, training)
        share = self._shares(family, c)
        if share is not None:
            difference = self._right(self._rows[row]) - self._right(self._rows[other])
            return Contrast(influence, training, *self.samples.few(difference, share))
        if family == "utility":
            few = self._few_utilities(self._rows[row], self._rows[other])
            return Contrast(influence, training, *few)
        groups = self.samples.groups_of_class
        freedom = groups[groups > 0].min() if c is None else groups[c]
        return Contrast(influence, training, freedom=float(max(freedom - 1, 1)))
