"""The answer: metrics, differences, the frontier, and sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sampleweights.compare.report import advice
from sampleweights.compare.statistics import (
    METRICS,
    POSTHOC,
    Estimate,
    Prediction,
    Statistics,
    metrics_of_row,
)
from sampleweights.margins import LogitAdjustment

__all__ = ["Comparison"]

TAUS = np.linspace(0, 1.5, 31)


@dataclass
class Comparison:
    """What `compare` found: a table with intervals, a picture, a page and advice.

    Metrics are in percent. Intervals are 95 % intervals of a paired bootstrap over samples (over
    groups where there are groups); those of differences also contain what another training
    would have changed.
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
    train_recall: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """The recall of each class on the training part, in percent, of shape (repeats, folds, C).

    Of each row that was trained, as its last pass over the training part showed it; NaN where a
    ``fit`` does not call the criterion with logits (N, C) and class indices.
    """

    @property
    def trained(self) -> list[str]:
        return list(self.logits)

    @property
    def rows(self) -> list[str]:
        """All rows; one that was adjusted follows the one it was read off."""
        both = [(n, n + POSTHOC) if n in self.adjustable else (n,) for n in self.logits]
        return [name for names in both for name in names]

    @property
    def baseline(self) -> str:
        """The first row."""
        return self.trained[0]

    @property
    def class_counts(self) -> list[int]:
        counts: list[int] = np.bincount(self.target, minlength=len(self.class_names)).tolist()
        return counts

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

    def adjusted(self, row: str, tau: float = 1.0) -> NDArray[np.float32]:
        """Logits after post-hoc adjustment, by the class frequencies of each training part."""
        logits = self.logits[row].copy()
        for repeat, of_repeat in enumerate(self.fold):
            for fold, counts in enumerate(self.counts[repeat]):
                inside = of_repeat == fold
                adjustment = LogitAdjustment(torch.from_numpy(counts), tau=tau)
                part = torch.from_numpy(logits[repeat, inside])
                logits[repeat, inside] = adjustment.posthoc(part).numpy()
        return logits

    @cached_property
    def _statistics(self) -> Statistics:
        group = np.arange(len(self.target))
        if self.groups is not None:
            group = np.unique(self.groups, return_inverse=True)[1]
        rows = {name: Prediction.of(logits) for name, logits in self.logits.items()}
        found = Statistics(self.target, group, self.fold, self.class_names, rows, self.seed)
        found.add({name + POSTHOC: Prediction.of(self.adjusted(name)) for name in self.adjustable})
        return found

    def estimate(self, row: str, metric: str) -> Estimate:
        """A metric of a row, in percent.

        Args:
            row: one of ``rows``.
            metric: accuracy, balanced_accuracy, macro_f1, worst_recall, calibration_error, or
                ``recall_`` and the name of a class.
        """
        self._check_row("row", row)
        return self._statistics.estimate(row, metric)

    def difference(self, row: str, other: str, metric: str) -> Estimate:
        """A metric of a row minus that of another, in percentage points; paired."""
        self._check_row("row", row)
        self._check_row("other", other)
        return self._statistics.difference(row, other, metric)

    def _check_row(self, name: str, row: str) -> None:
        if row not in self.rows:
            raise ValueError(f"{name} must be one of {self.rows}, got {row!r}")

    @cached_property
    def frontier(self) -> pd.DataFrame:
        """Accuracy and balanced accuracy of the baseline, adjusted post hoc, by tau (0 to 1.5)."""
        rows = []
        for tau in TAUS:
            row = Prediction.of(self.adjusted(self.baseline, tau))
            found = metrics_of_row(row, self.target, len(self.class_names))
            rows.append({"tau": tau, **found})
        return pd.DataFrame(rows, columns=["tau", "accuracy", "balanced_accuracy"])

    def above_frontier(self, row: str) -> Estimate:
        """Balanced accuracy of a row minus that of the best tau with at least its accuracy.

        Above 0, no post-hoc adjustment of the baseline has both accuracies. Where no tau has the
        row's accuracy, the one with the highest accuracy is taken.
        """
        self._check_row("row", row)
        curve = self.frontier
        accuracy = self.estimate(row, "accuracy").value
        least = min(accuracy, curve["accuracy"].max()) - 1e-9  # two sums may round differently
        tau = float(
            curve.loc[curve.loc[curve["accuracy"] >= least, "balanced_accuracy"].idxmax(), "tau"]
        )
        name = f"{self.baseline}, tau {tau:.2f}"
        if name not in self._statistics.names:
            self._statistics.add({name: Prediction.of(self.adjusted(self.baseline, tau))})
        return self._statistics.difference(row, name, "balanced_accuracy")

    def table(self) -> pd.DataFrame:
        """A line for each row: its metrics, and what they differ by from the baseline's.

        Columns are the metrics and the recall of each class; of accuracy and balanced accuracy
        also ``_low`` and ``_high``, the ends of the interval, and ``_difference`` to the baseline
        with its ``_difference_low`` and ``_difference_high``.
        """
        lines = []
        for row in self.rows:
            line: dict[str, float] = {}
            for metric in [*METRICS, *(f"recall_{name}" for name in self.class_names)]:
                own = self.estimate(row, metric)
                line[metric] = own.value
                if metric in ("accuracy", "balanced_accuracy"):
                    by = self.difference(row, self.baseline, metric)
                    line |= {f"{metric}_low": own.low, f"{metric}_high": own.high}
                    line |= {f"{metric}_difference": by.value}
                    line |= {
                        f"{metric}_difference_low": by.low,
                        f"{metric}_difference_high": by.high,
                    }
            lines.append(line)
        return pd.DataFrame(lines, index=pd.Index(self.rows, name="row"))

    def advice(self) -> list[str]:
        """Sentences that are computed from the rows, with the interval behind each."""
        return advice.sentences(self)

    def plot(self, axes: Any = None) -> Any:
        """Accuracy over balanced accuracy, with the frontier; matplotlib's axes."""
        from sampleweights.compare.report import picture  # matplotlib takes a second

        return picture.plot(self, axes)

    def write_page(self, path: str | Path) -> Path:
        """Write a self-contained HTML page."""
        from sampleweights.compare.report import page

        return page.write(self, Path(path))

    def __str__(self) -> str:
        lines = [f"{'':32}{'accuracy':>26}{'balanced accuracy':>26}"]
        for row in self.rows:
            acc, bacc = (self.estimate(row, m) for m in ("accuracy", "balanced_accuracy"))
            lines.append(f"{row:32}{acc!s:>26}{bacc!s:>26}")
        return "\n".join([*lines, "", *self.advice(), *self.notes])

    def __repr__(self) -> str:
        return (
            f"<Comparison of {len(self.rows)} rows on {self.num_samples} samples of "
            f"{len(self.class_names)} classes>"
        )
