"""What the numbers show, and what follows from it.

A row is named only if its difference to the baseline is above 0 in intervals that hold for all rows
together, so that the best of many rows that are alike is not taken for better.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from sampleweights.compare.adjustment import TOLERANCE
from sampleweights.compare.statistics import POSTHOC, POSTHOC_FREE, Estimate, source_of

__all__ = ["Judgement", "is_adjusted"]

Comparison = Any  # sampleweights.compare.Comparison, which imports what imports this module

NOT_FITTED = "rare-class-not-fitted"
"""The check after which an adjustment at test time is not recommended."""


def is_adjusted(row: str) -> bool:
    """Whether a row was read off another one."""
    return source_of(row) != row


class Judgement:
    """Which rows are shown to do what, and which of them to take."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.metric: str = comparison.goal.metric
        self.simple = comparison.baseline + POSTHOC
        self.to_baseline: dict[str, Estimate] = comparison.differences(self.metric)
        self.beside: str = comparison.task.beside(self.metric)
        """What is told with the objective: accuracy, where a sample has one class."""
        self.trades: bool = comparison.task.trades and self.metric != self.beside
        """Whether a gain may cost accuracy, so that one at no loss is named too."""
        self.change: dict[str, Estimate] = comparison.differences(self.beside)
        """Of ``beside``, to the baseline."""
        self.helps = [
            row
            for row, by in self.to_baseline.items()
            if by.low > 0 and not (is_adjusted(row) and comparison.tau(row) == 0)  # the row itself
        ]
        self.not_fitted = NOT_FITTED in {found.code for found in comparison.checks}
        self.best, self.at_no_loss = self._recommend()
        self.unproven = self._unproven()
        """What to take where nothing is shown to help, which is what theory says; or None."""

    def value(self, row: str) -> float:
        return float(self.comparison.estimate(row, self.metric).value)

    def _recommend(self) -> tuple[str | None, str | None]:
        """The row for the objective, and the one for the objective at no loss of accuracy."""
        free_row = self.comparison.baseline + POSTHOC_FREE
        simple = self.simple if self.simple in self.helps else free_row
        best = self._preferred(self.helps, simple)
        if not self.trades:
            return best, best
        keeps = [row for row in self.helps if self.change[row].value >= -TOLERANCE]
        if best in keeps:
            return best, best
        free = self._preferred(keeps, free_row)
        if free in self.comparison.trained:  # a training is worth it: the best of those that help
            free = self._highest([row for row in keeps if row in self.comparison.trained])
        if best is not None and free is not None and self.value(free) >= self.value(best):
            best = free  # not shown to be better, but it costs less
        return best, free

    def _unproven(self) -> str | None:
        """The adjusted baseline for balanced accuracy, unless it is shown to be worse.

        Where classes are small, hardly anything can be shown; but that the logits of a fitted model
        have to be adjusted for equal class frequencies is known beforehand. Those of classes that
        are equal are left as they are.
        """
        simple = self.to_baseline.get(self.simple)
        if self.best is not None or self.metric != "balanced_accuracy" or simple is None:
            return None
        if len(set(self.comparison.class_counts)) == 1:
            return None
        return None if simple.high < 0 or not self.comparison.tau(self.simple) else self.simple

    def _preferred(self, rows: list[str], simple: str) -> str | None:
        """The adjusted baseline, which needs no training, unless a row is shown to beat it."""
        trained = [row for row in rows if not is_adjusted(row)]
        if self.not_fitted and trained:  # what is not learned, no adjustment brings back
            return self._highest(trained)
        if simple not in rows:
            return self._highest(rows)
        better = self.better_than(simple)
        return self._highest([row for row in rows if row in better]) or simple

    def _highest(self, rows: list[str]) -> str | None:
        """The best for the objective; among those that are as good, the best for ``beside``."""
        if not rows:
            return None
        slack = TOLERANCE if self.metric not in ("utility", "accuracy") else 0.0
        least = max(map(self.value, rows)) - slack
        as_good = [row for row in rows if self.value(row) >= least]
        return max(as_good, key=lambda row: self.comparison.estimate(row, self.beside).value)

    def better_than(self, simple: str) -> list[str]:
        """Rows that are shown to be better for the objective than the adjusted baseline.

        Or, of balanced accuracy, that are as good and lie above the curve: a row that is merely
        more accurate may be reached by a weaker adjustment as well.
        """
        found = self.comparison.differences(self.metric, simple)
        better = [row for row, by in found.items() if by.low > 0]
        if self.metric == "balanced_accuracy":
            better += [row for row, _ in self.above_curve if found[row].value >= 0]
        return better

    @cached_property
    def above_curve(self) -> list[tuple[str, Estimate]]:
        """Rows that help, and have both accuracies as no adjustment of the baseline has them."""
        comparison = self.comparison
        if comparison.baseline not in comparison.adjustable:
            return []
        rows = [row for row in self.helps if not row.startswith(self.simple)]
        found = [(row, comparison.above_frontier(row)) for row in rows]
        return sorted((f for f in found if f[1].low > 0), key=lambda f: -f[1].value)
