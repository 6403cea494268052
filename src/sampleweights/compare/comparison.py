"""The answer: metrics, differences, the frontier, and sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sampleweights.compare.adjustment import Choice, adjusted, choose_tau
from sampleweights.compare.checks import Found, find
from sampleweights.compare.checks.labels import suspicious_labels
from sampleweights.compare.frontier import curve_of, frontier_of
from sampleweights.compare.objective import Objective
from sampleweights.compare.report import table, verdict
from sampleweights.compare.statistics import (
    POSTHOC,
    POSTHOC_FREE,
    Estimate,
    Prediction,
    Statistics,
    metrics_of_row,
    source_of,
)
from sampleweights.compare.task import CLASSES, Task
from sampleweights.compare.training.entries import Recipe

__all__ = ["Comparison"]


@dataclass
class Comparison:
    """What `compare` found: a verdict, a table with intervals, a picture and a page.

    Metrics are in percent, a utility in the units of its table. Intervals hold 95 %; those of
    differences also contain what another training would have changed.
    """

    logits: Mapping[str, NDArray[np.float32]]
    """The logits out of fold of each row that was trained, of shape (repeats, N, C)."""
    adjustable: Sequence[str]
    """The rows that know nothing of the class frequencies; post-hoc adjustment is read off them."""
    target: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    fold: NDArray[np.int64]
    """The fold in which each sample was predicted, of shape (repeats, N)."""
    counts: NDArray[np.int64]
    """The class counts of the training parts, of shape (repeats, folds, C)."""
    class_names: list[str]
    seed: int = 0
    notes: list[str] = field(default_factory=list)
    """What the user must know before believing a row."""
    facts: dict[str, str] = field(default_factory=dict)
    """Versions, seed, hardware, time."""
    objective: str | ArrayLike | Objective = "balanced_accuracy"
    """What decides the verdict, as balanced_accuracy, accuracy, macro_f1, average_precision, or a
    utility table (C, D)."""
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """How each entry is told, and the code that builds it; by name alone where there is none."""
    num_epochs: int | None = None
    """Of each training."""
    train_recall: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """The recall of each class in the last pass over the training part, in percent, of shape
    (repeats, folds, C); NaN where a ``fit`` calls the criterion with anything but logits (N, C) and
    class indices."""
    never_told: Sequence[str] = ()
    """The rows that depend on the epoch and whose ``fit`` never called ``set_epoch``."""
    same_features: NDArray[np.int64] | None = None
    """A number for each sample that was given, which those with equal features share; or None."""
    ignore: Sequence[str] = ()
    """The codes of checks that are left out."""
    positions: NDArray[np.int64] | None = None
    """Of the samples (N,) among those that were given, some of which are only trained on."""
    given_counts: Sequence[Any] | None = None
    """Of each class (C,), of those that were given."""

    task: ClassVar[Task] = CLASSES
    _statistics_kind: ClassVar[type[Statistics]] = Statistics

    @cached_property
    def goal(self) -> Objective:
        """The objective, with its metric, its words and its table."""
        return Objective.of(self.objective, len(self.class_names), self.task)

    @property
    def trained(self) -> list[str]:
        return list(self.logits)

    @property
    def rows(self) -> list[str]:
        """All rows; one that was adjusted follows the one it was read off."""
        found = []
        for name in self.logits:
            found.append(name)
            if name in self.adjustable:
                found.append(name + POSTHOC)
                # of accuracy itself, nothing would be left to choose
                if name == self.baseline and self.goal.metric != "accuracy":
                    found.append(name + POSTHOC_FREE)
        return found

    @property
    def ranking(self) -> list[str]:
        """The rows, the best for the objective first; what has no value comes last."""
        value = {row: self.estimate(row, self.goal.metric).value for row in self.rows}
        return sorted(self.rows, key=lambda row: -np.nan_to_num(value[row], nan=-np.inf))

    @property
    def baseline(self) -> str:
        """The first row."""
        return self.trained[0]

    @property
    def class_counts(self) -> list[int]:
        counts: list[int] = np.bincount(self.target, minlength=len(self.class_names)).tolist()
        return counts if self.given_counts is None else list(self.given_counts)

    def members(self, c: int) -> NDArray[np.bool_]:
        """(N,), the samples of a class."""
        return np.equal(self.target, c)

    @property
    def num_samples(self) -> int:
        return len(self.target)

    @property
    def num_groups(self) -> int | None:
        return None if self.groups is None else len(np.unique(self.groups))

    @property
    def repeats(self) -> int:
        return len(self.fold)

    @property
    def folds(self) -> int:
        return int(self.fold.max()) + 1

    def adjusted(self, row: str, tau: float | NDArray[np.float64] = 1.0) -> NDArray[np.float32]:
        """Logits after post-hoc adjustment, by the class frequencies of each training part.

        Args:
            row: a row that was trained.
            tau: the strength; or one for each fold, (repeats, folds).
        """
        strength = np.broadcast_to(np.asarray(tau, np.float64), self.counts.shape[:2])
        return adjusted(self.logits[row], self.fold, self.counts, strength)

    def at_tau(self, row: str, tau: float) -> dict[str, float]:
        """The metrics of a trained row that is adjusted with one strength in all folds."""
        found = self._predicted(self.adjusted(row, tau))
        return metrics_of_row(found, self.target, len(self.class_names))

    @cached_property
    def _choices(self) -> dict[str, Choice]:
        found = {}
        for name in self.adjustable:
            inputs = self.logits[name], self.target, self.fold, self.counts
            best, free = choose_tau(*inputs, self.goal)
            found[name + POSTHOC] = best
            if name + POSTHOC_FREE in self.rows:
                found[name + POSTHOC_FREE] = free
        return found

    @property
    def taus(self) -> dict[str, NDArray[np.float64]]:
        """Of each post-hoc row the strength (repeats, folds), each chosen on the other folds."""
        return {row: choice.by_fold for row, choice in self._choices.items()}

    def tau(self, row: str) -> float:
        """The strength to use for a post-hoc row: the best on all samples."""
        if row not in self._choices:
            raise ValueError(f"row must be one of {list(self._choices)}, got {row!r}")
        return self._choices[row].overall

    def _predicted(
        self, logits: NDArray[np.float32], before: NDArray[np.float32] | None = None
    ) -> Any:
        """Of logits, and those before an adjustment if there was one."""
        return Prediction.of(logits, self.goal.table, self.target)

    @cached_property
    def _statistics(self) -> Statistics:
        group = np.arange(len(self.target))
        if self.groups is not None:
            group = np.unique(self.groups, return_inverse=True)[1]
        rows = {name: self._predicted(logits) for name, logits in self.logits.items()}
        found = self._statistics_kind(
            self.target, group, self.fold, self.class_names, rows, self.seed
        )
        source = {row: source_of(row) for row in self.taus}
        moved = {
            row: self._predicted(self.adjusted(source[row], tau), self.logits[source[row]])
            for row, tau in self.taus.items()
        }
        found.add(moved, source)
        return found

    def estimate(self, row: str, metric: str) -> Estimate:
        """A metric of a row, in percent.

        Args:
            row: one of ``rows``.
            metric: a key of `METRICS`; ``recall_``, ``precision_`` or ``average_precision_`` and
                the name of a class; or ``utility`` where it is the objective.
        """
        self._check_row("row", row)
        return self._statistics.estimate(row, metric)

    def difference(self, row: str, other: str, metric: str) -> Estimate:
        """A metric of a row minus that of another, in percentage points; paired."""
        self._check_row("row", row)
        self._check_row("other", other)
        return self._statistics.difference(row, other, metric)

    @cached_property
    def _differences(self) -> dict[tuple[str, str], dict[str, Estimate]]:
        return {}

    def differences(self, metric: str, other: str | None = None) -> dict[str, Estimate]:
        """A metric of all other rows minus that of one, the baseline by default.

        The intervals hold their truth together in 95 %, so that the best of many rows that are
        alike is not taken for better. Only post-hoc adjustment of the baseline, which is asked
        about before all others, has an interval of its own; and if it differs, that at no loss.
        """
        other = self.baseline if other is None else other
        self._check_row("other", other)
        if (metric, other) not in self._differences:
            rows = [row for row in self.rows if row != other]
            found = self._statistics.differences(rows, other, metric) if rows else {}
            for first in (self.baseline + POSTHOC, self.baseline + POSTHOC_FREE):
                if other == self.baseline and first in found:
                    found[first] = by = self._statistics.difference(first, other, metric)
                    if not (by.low > 0 or by.high < 0):
                        break
            self._differences[metric, other] = found
        return self._differences[metric, other]

    def why_no_interval(self, metric: str) -> str | None:
        """Why a metric is shown without an interval; None where it has one."""
        return self._statistics.why_no_interval(metric)

    def _check_row(self, name: str, row: str) -> None:
        if row not in self.rows:
            raise ValueError(f"{name} must be one of {self.rows}, got {row!r}")

    @cached_property
    def _curve(self) -> dict[float, Prediction]:
        return curve_of(self)

    @cached_property
    def frontier(self) -> pd.DataFrame | None:
        """Accuracy and balanced accuracy of the baseline, adjusted post hoc, by tau.

        Tau goes from 0 to 1, or to the one that is chosen for the baseline if that is higher.
        With ``balanced_accuracy_low`` and ``_high``, its 95 % interval. None where the baseline
        must not be adjusted, since its training knows the class frequencies already.
        """
        if self.baseline not in self.adjustable:
            return None
        return frontier_of(self, self._curve, self._statistics)

    @cached_property
    def _above(self) -> dict[str, Estimate]:
        rows = [row for row in self.rows if not row.startswith(self.baseline + POSTHOC)]
        rows.remove(self.baseline)
        return self._statistics.above_curve(rows, self._curve) if rows else {}

    def above_frontier(self, row: str) -> Estimate:
        """Balanced accuracy of a row minus that of the best tau with at least its accuracy.

        Above 0, no post-hoc adjustment of the baseline has both accuracies. Where no tau has the
        row's accuracy, the one with the highest accuracy is taken. The intervals of all rows hold
        their truth together in 95 %.

        Args:
            row: one that is not the baseline, nor read off it.
        """
        if self.baseline not in self.adjustable:
            raise ValueError(
                f"the baseline {self.baseline!r} must not be adjusted post hoc, since its training "
                f"knows the class frequencies already: there is no curve to compare with"
            )
        if row not in self._above:
            raise ValueError(f"row must be one of {list(self._above)}, got {row!r}")
        return self._above[row]

    def table(self) -> pd.DataFrame:
        """A line for each row: its metrics, and what they differ by from the baseline's.

        Columns are the metrics, and recall, precision and average precision of each class; of
        accuracy, balanced accuracy and the objective also ``_low`` and ``_high``, the ends of the
        interval, and ``_difference`` to the baseline with its ``_difference_low`` and
        ``_difference_high``, which hold for all rows together.
        """
        return table.frame(self)

    @cached_property
    def verdict(self) -> verdict.Verdict:
        """What to do, in two sentences, and the code for it."""
        return verdict.of(self)

    def advice(self) -> list[str]:
        """What the verdict leaves open: a few sentences, each with its numbers."""
        return verdict.further(self)

    @cached_property
    def checks(self) -> list[Found]:
        """What should be known before a row is believed; none of it is what was hoped for."""
        return find(self, self.ignore)

    def suspicious_labels(self) -> pd.DataFrame:
        """Samples whose label looks wrong, the most suspicious first.

        Columns are ``index`` of the sample, ``label`` and ``predicted`` (names of classes), and
        ``score``, the probability (0.5 to 1) that the label does not come from the sample. It
        follows from the logits out of fold of the baseline.
        """
        return self._suspicious.copy()

    @cached_property
    def _suspicious(self) -> pd.DataFrame:
        return suspicious_labels(self)

    def plot(self, axes: Any = None) -> Any:
        """Accuracy over balanced accuracy, with the frontier; matplotlib's axes."""
        from sampleweights.compare.report import picture  # matplotlib takes a second

        return picture.plot(self, axes)

    def write_page(self, path: str | Path) -> Path:
        """Write a self-contained HTML page."""
        from sampleweights.compare.report import page

        return page.write(self, Path(path))

    def __str__(self) -> str:
        return table.text(self)

    def __repr__(self) -> str:
        return (
            f"<Comparison of {len(self.rows)} rows on {self.num_samples} samples of "
            f"{len(self.class_names)} {self.task.many}>"
        )
