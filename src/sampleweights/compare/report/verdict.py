"""What to do, in words for somebody who has not read the documentation, and the code for it.

What is said follows from what is shown: a method is named only if its difference to the baseline
is above 0 in intervals that hold for all methods together. A second sentence can therefore not
contradict the first.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sampleweights.compare.report.recipes import action, code, is_plain
from sampleweights.compare.statistics import METRICS, POSTHOC, POSTHOC_FREE, Estimate

__all__ = ["Verdict", "further", "of"]

Comparison = Any  # sampleweights.compare.Comparison, which imports this module

NO_LOSS = 0.5
"""Points of accuracy that count as none, as in the choice of tau."""
NOT_FITTED = "rare-class-not-fitted"
"""The check after which an adjustment at test time is not recommended."""
MOST_FURTHER = 2


@dataclass(frozen=True)
class Verdict:
    """What `compare` recommends.

    ``print(verdict)`` shows both sentences, each with its code.
    """

    best: str
    """What to do for the objective."""
    at_no_loss: str | None
    """What to do without losing accuracy; None where ``best`` says it, or accuracy is all."""
    row: str | None
    """The row behind ``best``; None where nothing is shown to help."""
    row_at_no_loss: str | None
    """The row behind ``at_no_loss``; ``row`` where that costs no accuracy."""
    code: str
    """To paste: what does ``row``, or the baseline."""
    code_at_no_loss: str | None
    """To paste, as a whole: what does ``row_at_no_loss``, where it is another row."""

    @property
    def text(self) -> str:
        """The sentences, without the code."""
        return " ".join(filter(None, (self.best, self.at_no_loss)))

    def __str__(self) -> str:
        parts = [filled(self.best), indented(self.code)]
        if self.at_no_loss is not None:
            parts.append(filled(self.at_no_loss))
        if self.other_lines:
            parts.append(indented(self.other_lines))
        return "\n\n".join(parts)

    @property
    def other_lines(self) -> str:
        """Of ``code_at_no_loss`` what ``code`` does not begin with too, or nothing."""
        lines, before = (self.code_at_no_loss or "").splitlines(), self.code.splitlines()
        while lines and before and lines[0] == before.pop(0):
            lines.pop(0)
        return "\n".join(lines)


def filled(sentence: str) -> str:
    return textwrap.fill(sentence, 96, break_on_hyphens=False)


def indented(lines: str) -> str:
    return textwrap.indent(lines, "    ")


def of(comparison: Comparison) -> Verdict:
    """The verdict on a comparison."""
    judged = Judgement(comparison)
    row, free = judged.best, judged.at_no_loss
    if row is None:
        plain = code(comparison, comparison.baseline)
        return Verdict(judged.nothing_helps, None, None, None, plain, None)
    words, with_accuracy = comparison.goal.words, judged.metric != "accuracy"
    best = f"For the highest {words}, {action(comparison, row)}: {judged.gain(row)}"
    if row == free:
        best += f". {judged.no_loss(row)}" if with_accuracy else "."
    else:
        best += f", while accuracy goes {judged.accuracy(row)}."
    best = f"{best} {judged.reason(row)}".strip()
    code_at_no_loss = at_no_loss = None
    if free is None:
        at_no_loss = (
            f"Without losing more than {NO_LOSS} points of accuracy, nothing tried here is shown "
            f"to raise {words}."
        )
    elif free != row:
        code_at_no_loss = code(comparison, free)
        at_no_loss = (
            f"To lose no accuracy, {action(comparison, free, after=row)}: {judged.gain(free)}. "
            f"{judged.no_loss(free)}"
        )
    return Verdict(best, at_no_loss, row, free, code(comparison, row), code_at_no_loss)


class Judgement:
    """Which rows are shown to do what, and the clauses that say it."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.metric: str = comparison.goal.metric
        self.simple = comparison.baseline + POSTHOC
        self.to_baseline: dict[str, Estimate] = comparison.differences(self.metric)
        self.accuracy_change: dict[str, Estimate] = comparison.differences("accuracy")
        self.helps = [row for row, by in self.to_baseline.items() if by.low > 0]
        self.not_fitted = NOT_FITTED in {found.code for found in getattr(comparison, "checks", [])}
        self.best, self.at_no_loss = self._recommend()

    def value(self, row: str) -> float:
        return float(self.comparison.estimate(row, self.metric).value)

    # -----------------------------------------------------------------------------------------
    # What is shown
    # -----------------------------------------------------------------------------------------

    def _recommend(self) -> tuple[str | None, str | None]:
        """The row for the objective, and the one for the objective at no loss of accuracy."""
        best = self._preferred(self.helps, self.simple)
        if self.metric == "accuracy":
            return best, best
        keeps = [row for row in self.helps if self.accuracy_change[row].value >= -NO_LOSS]
        if best in keeps:
            return best, best
        free = self._preferred(keeps, self.comparison.baseline + POSTHOC_FREE)
        if best is not None and free is not None and self.value(free) >= self.value(best):
            best = free  # not shown to be better, but it costs less
        return best, free

    def _preferred(self, rows: list[str], simple: str) -> str | None:
        """The adjusted baseline, which needs no training, unless a row is shown to beat it."""
        trained = [row for row in rows if not row.endswith((POSTHOC, POSTHOC_FREE))]
        if self.not_fitted and trained:  # what is not learned, no adjustment brings back
            return self._highest(trained)
        if simple not in rows:
            return self._highest(rows)
        better = self.better_than(simple)
        return self._highest([row for row in rows if row in better]) or simple

    def _highest(self, rows: list[str]) -> str | None:
        return max(rows, key=self.value) if rows else None

    def better_than(self, simple: str) -> list[str]:
        """Rows that are shown to be better for the objective than the adjusted baseline.

        Or as good, and shown to be more accurate: by at least what counts as a loss.
        """
        found = self.comparison.differences(self.metric, simple)
        better = [row for row, by in found.items() if by.low > 0]
        as_good = [row for row, by in found.items() if by.value >= 0]
        if self.metric == "balanced_accuracy":
            better += [row for row, _ in self.above_curve if row in as_good]
        if self.metric != "accuracy":
            accuracy = self.comparison.differences("accuracy", simple)
            better += [
                row for row in as_good if accuracy[row].low > 0 and accuracy[row].value >= NO_LOSS
            ]
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

    # -----------------------------------------------------------------------------------------
    # What is said
    # -----------------------------------------------------------------------------------------

    def gain(self, row: str) -> str:
        before, after = self.value(self.comparison.baseline), self.value(row)
        by = self.to_baseline[row]
        words = self.comparison.goal.words
        if self.metric == "utility":
            return (
                f"{words} rises from {before:.4g} to {after:.4g} (by {by.low:.3g} to {by.high:.3g})"
            )
        return (
            f"{words} rises from {before:.1f} to {after:.1f} % (by {by.low:.1f} to {by.high:.1f} "
            f"points)"
        )

    def accuracy(self, row: str) -> str:
        """From what to what, after a verb."""
        values = [
            self.comparison.estimate(r, "accuracy").value for r in (self.comparison.baseline, row)
        ]
        change, text = self.accuracy_change[row], "from {:.1f} to {:.1f} %".format(*values)
        if change.shown:
            text += f" (a change of {change.low:+.1f} to {change.high:+.1f} points)"
        return text

    def no_loss(self, row: str) -> str:
        if self.accuracy_change[row].low > 0:
            return f"Accuracy rises as well, {self.accuracy(row)}."
        if self.accuracy_change[row].low >= -NO_LOSS:
            return f"This costs no accuracy, which goes {self.accuracy(row)}."
        return f"No loss of accuracy is seen: it goes {self.accuracy(row)}."

    def reason(self, row: str) -> str:
        """Why this one, in a sentence; or nothing."""
        adjusted = row.endswith((POSTHOC, POSTHOC_FREE))
        if self.not_fitted:
            if adjusted:
                return (
                    "But plain training has not fitted its rare classes yet, not even on the "
                    "samples it was trained on, and no adjustment at test time helps those: train "
                    "longer or with a weighting, and compare again."
                )
            return (
                "An adjustment at test time is no substitute here: plain training has not fitted "
                "its rare classes, not even on the samples it was trained on."
            )
        if row == self.simple and not self.better_than(row):
            return "No other method tried here is shown to reach more."
        if not adjusted and self.metric != "accuracy" and self.simple in self.helps:
            value = self.comparison.estimate(self.simple, self.metric).value
            accuracy = self.comparison.estimate(self.simple, "accuracy").value
            return (
                f"Plain training whose logits are adjusted at test time reaches "
                f"{amount(value, self.metric)} at an accuracy of {accuracy:.1f} %."
            )
        return ""

    @property
    def nothing_helps(self) -> str:
        comparison, words = self.comparison, self.comparison.goal.words
        if not self.to_baseline:
            return "Only one way to train was given, so that there is nothing to choose from."
        plain = "plain training" if is_plain(comparison) else f'"{comparison.baseline}"'
        width = [(by.high - by.low) / 2 for by in self.to_baseline.values() if by.shown]
        if not width:
            why = comparison.why_no_interval(self.metric) or ""
            return f"These data do not say what raises {words}: keep {plain}. {why}".strip()
        half = float(np.median(width))
        reached = amount(self.value(comparison.baseline), self.metric)
        unseen = f"{half:.2g}" if self.metric == "utility" else f"{half:.1f} points"
        groups = comparison.num_groups
        among = "" if groups is None else f" in {groups:,} groups"
        text = (
            f"Nothing tried here is shown to raise {words} above the {reached} of {plain}: keep "
            f"it. With {comparison.num_samples:,} samples{among}, differences below about {unseen} "
            f"cannot be seen; more samples, or more repeats of the comparison, show smaller ones."
        )
        if self.not_fitted:
            text += (
                " First of all, train longer: plain training has not fitted its rare classes, not "
                "even on the samples it was trained on."
            )
        return text


def further(comparison: Comparison) -> list[str]:
    """What the verdict leaves open, in a few sentences, each with its numbers."""
    judged = Judgement(comparison)
    chosen = judged.best or comparison.baseline
    found = []
    above = judged.above_curve if judged.metric == "balanced_accuracy" else []
    others = [item for item in above if item[0] not in (chosen, judged.at_no_loss)]
    for row, by in others[:MOST_FURTHER]:
        found.append(
            f"To {action(comparison, row)} is worth it too: at an accuracy of "
            f"{comparison.estimate(row, 'accuracy').value:.1f} % its balanced accuracy is "
            f"{by.value:.1f} points ({by.low:.1f} to {by.high:.1f}) above all adjustments of plain "
            f"training that are as accurate."
        )
    counts = comparison.class_counts
    rare = comparison.class_names[counts.index(min(counts))]
    recall, precision = (
        [comparison.estimate(row, f"{metric}_{rare}") for row in (comparison.baseline, chosen)]
        for metric in ("recall", "precision")
    )
    if chosen != comparison.baseline:
        found.append(
            f"The rarest class, {rare} ({min(counts):,} samples): recall {changed(*recall)}, "
            f"precision {changed(*precision)}."
        )
        by = comparison.difference(chosen, comparison.baseline, "calibration_error")
        if by.low > 0:
            before, after = (
                comparison.estimate(row, "calibration_error").value
                for row in (comparison.baseline, chosen)
            )
            found.append(
                f"If you use the probabilities, mind that they fit worse: the "
                f"{METRICS['calibration_error']} rises from {before:.1f} to {after:.1f} %."
            )
    return found


def amount(value: float, metric: str) -> str:
    return f"{value:.4g}" if metric == "utility" else f"{value:.1f} %"


def changed(before: Estimate, after: Estimate) -> str:
    def number(estimate: Estimate) -> str:
        return f"{estimate.value:.1f}" if math.isfinite(estimate.value) else "undefined"

    interval = f" ({after.low:.1f} to {after.high:.1f})" if after.shown else ""
    return f"from {number(before)} to {number(after)} %{interval}"
