"""What to do, in words for somebody who has not read the documentation, and the code for it.

All sentences follow from one judgement of what is shown, so that none contradicts another.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np

from sampleweights.compare.adjustment import TOLERANCE
from sampleweights.compare.report.judgement import Judgement, is_adjusted
from sampleweights.compare.report.recipes import action, code, plain
from sampleweights.compare.statistics import Estimate
from sampleweights.compare.task import WORDS

__all__ = ["Verdict", "further", "of"]

Comparison = Any  # sampleweights.compare.Comparison, which imports this module

MOST_FURTHER = 2
WORSE_CALIBRATION = 1.0
"""Points of the calibration error, which has no interval, from which on it is told."""


@dataclass(frozen=True)
class Recommendation:
    """What to do, what it brings, and the code for it."""

    row: str | None
    """The row behind it; None where nothing is shown to help."""
    what: str
    """What to do, a sentence."""
    effect: str
    """What it brings and costs, in sentences."""
    code: str
    """To paste, complete in itself; empty where nothing is to be done."""

    @property
    def text(self) -> str:
        return f"{self.what} {self.effect}".strip()


@dataclass(frozen=True)
class Verdict:
    """What `compare` recommends; ``print(verdict)`` shows it with its code."""

    best: Recommendation
    """For the objective."""
    at_no_loss: Recommendation
    """For the objective, without losing accuracy; ``best`` itself where that costs none."""
    unproven: Recommendation | None = None
    """What to do where nothing is shown to help and one has to decide.

    Of balanced accuracy it is the post-hoc adjustment that theory says; None where something is
    shown.
    """

    @property
    def choice(self) -> str | None:
        """The row to take if more samples cannot be had, ``row`` or else that of ``unproven``."""
        return self.best.row if self.unproven is None else self.unproven.row

    @property
    def row(self) -> str | None:
        """The row to take for the objective; None where nothing is shown to help."""
        return self.best.row

    @property
    def row_at_no_loss(self) -> str | None:
        """The row that brings most without losing accuracy; None where none is shown to."""
        return self.at_no_loss.row

    @property
    def code(self) -> str:
        """The code to paste, which does ``row``, or trains the baseline."""
        return self.best.code

    @property
    def parts(self) -> list[tuple[Recommendation, str]]:
        """Each recommendation, and its code but for the lines that were shown before."""
        other = self.unproven if self.at_no_loss is self.best else self.at_no_loss
        if other is None:
            return [(self.best, self.best.code)]
        lines, before = other.code.splitlines(), self.best.code.splitlines()
        while lines and before and lines[0] == before.pop(0):
            lines.pop(0)
        return [(self.best, self.best.code), (other, "\n".join(lines))]

    @property
    def text(self) -> str:
        """The sentences, without the code."""
        return " ".join(part.text for part, _ in self.parts)

    def __str__(self) -> str:
        blocks = []
        for part, lines in self.parts:
            blocks.append(textwrap.fill(part.text, 96, break_on_hyphens=False))
            blocks.append(textwrap.indent(lines, "    "))
        return "\n\n".join(filter(None, blocks))


def of(comparison: Comparison) -> Verdict:
    """The verdict on a comparison."""
    judged = Judgement(comparison)
    row, free = judged.best, judged.at_no_loss
    words = comparison.goal.words
    if row is None:
        none = Recommendation(None, *nothing_helps(judged), code(comparison, comparison.baseline))
        return Verdict(none, none, unproven(judged))
    effect = gain(judged, row)
    if row != free:
        effect += f", while accuracy goes {change(judged, row)}"
    effect += f". {no_loss(judged, row) if row == free else ''} {reason(judged, row)}"
    best = Recommendation(
        row,
        f"To raise {words}, {action(comparison, row)}.",
        " ".join(effect.split()),
        code(comparison, row),
    )
    if row == free:
        return Verdict(best, best)
    if free is None:
        nothing = f"Nothing tried here is shown to raise {words} at no loss of accuracy."
        return Verdict(best, Recommendation(None, nothing, "", ""))
    return Verdict(
        best,
        Recommendation(
            free,
            f"To lose {least_loss(judged, free)} accuracy, {action(comparison, free, after=row)}.",
            f"{gain(judged, free)}. {no_loss(judged, free)}",
            code(comparison, free),
        ),
    )


def gain(judged: Judgement, row: str) -> str:
    before, after = judged.value(judged.comparison.baseline), judged.value(row)
    by = judged.to_baseline[row]
    words = first_upper(judged.comparison.goal.words)
    if judged.metric == "utility":
        return f"{words} rises from {before:.4g} to {after:.4g} (by {by.low:.3g} to {by.high:.3g})"
    return (
        f"{words} rises from {before:.1f} to {after:.1f} % (by {by.low:.1f} to {by.high:.1f} "
        f"points)"
    )


def first_upper(words: str) -> str:
    return words[0].upper() + words[1:]


def change(judged: Judgement, row: str) -> str:
    """From what to what, after a verb."""
    rows = judged.comparison.baseline, row
    values = [judged.comparison.estimate(r, judged.beside).value for r in rows]
    by, text = judged.change[row], "from {:.1f} to {:.1f} %".format(*values)
    if by.shown:
        low, high = (round(end, 1) + 0.0 for end in (by.low, by.high))  # no -0.0
        text += f" (a change of {low:+.1f} to {high:+.1f} points)"
    return text


def least_loss(judged: Judgement, row: str) -> str:
    """Half a point counts as none, but where it is shown to be lost nobody says that it is not."""
    return "next to no" if judged.change[row].high < 0 else "no"


def no_loss(judged: Judgement, row: str) -> str:
    """What becomes of ``beside``: of accuracy, whether any is lost."""
    if judged.metric == judged.beside:
        return ""
    by, goes = judged.change[row], change(judged, row)
    if by.low > 0:
        return f"{first_upper(WORDS[judged.beside])} rises as well, {goes}."
    if not judged.trades:
        if by.shown and max(-by.low, by.high) < 1e-6:
            value = judged.comparison.estimate(row, judged.beside).value
            return f"{first_upper(WORDS[judged.beside])} stays at {value:.1f} %."
        return f"{first_upper(WORDS[judged.beside])} goes {goes}."
    if by.low >= -TOLERANCE or by.high < 0:
        return f"This costs {least_loss(judged, row)} accuracy, which goes {goes}."
    return f"No loss of accuracy is seen: it goes {goes}."


def reason(judged: Judgement, row: str) -> str:
    """Why this one, in a sentence; or nothing."""
    first, many = plain(judged.comparison), judged.comparison.task.many
    if judged.not_fitted:
        if is_adjusted(row):
            return (
                f"But {first} has not fitted its rare {many} yet, not even on the "
                "samples it was trained on, and no adjustment at test time helps those: train "
                "longer or with a weighting, and compare again."
            )
        return (
            f"An adjustment at test time is no substitute here: {first} has not fitted "
            f"its rare {many}, not even on the samples it was trained on."
        )
    if row.startswith(judged.simple) and not judged.better_than(row):
        text = "No other method tried here is shown to reach more"
        top = judged.comparison.ranking[0]
        if judged.metric == "utility" or judged.value(top) <= judged.value(row) + TOLERANCE:
            return f"{text}."
        reached = amount(judged.value(top), judged.metric)
        return (
            f'{text}: "{top}" reached {reached}, but that may be chance; more samples, or '
            f"more repeats of the comparison, may show whether it is."
        )
    other = not row.startswith(judged.simple)
    if other and judged.metric != judged.beside and judged.simple in judged.helps:
        value = judged.comparison.estimate(judged.simple, judged.metric).value
        beside = judged.comparison.estimate(judged.simple, judged.beside).value
        return (
            f"{first_upper(first)} whose logits are adjusted at test time reaches "
            f"{amount(value, judged.metric)} at an {WORDS[judged.beside]} of {beside:.1f} %."
        )
    return ""


def nothing_helps(judged: Judgement) -> tuple[str, str]:
    """What to do then, and how much could have been seen."""
    comparison, words = judged.comparison, judged.comparison.goal.words
    first = plain(comparison)
    if not judged.to_baseline:
        return "Only one way to train was given, so that there is nothing to choose from.", ""
    width = [(by.high - by.low) / 2 for by in judged.to_baseline.values() if by.shown]
    if not width:
        why = comparison.why_no_interval(judged.metric) or ""
        return f"Keep {first}: these data do not say what raises {words}.", why
    reached = amount(judged.value(comparison.baseline), judged.metric)
    differing = [half for half in width if half > 1e-9]  # not those that decide all alike
    if not differing:
        return f"Keep {first}: all that was tried here reaches the same {words}, {reached}.", ""
    what = f"Keep {first}: nothing tried here is shown to raise {words}."
    groups = comparison.num_groups
    among = "" if groups is None else f" in {groups:,} groups"
    samples = f"with {comparison.num_samples:,} samples{among}"
    top, unit = comparison.ranking[0], "" if judged.metric == "utility" else " points"
    digits = ".2g" if judged.metric == "utility" else ".1f"
    by = judged.to_baseline.get(top)  # the first of the table, and a reader asks why it is not it
    if by is not None and by.shown and by.value > 0:
        high = amount(judged.value(top), judged.metric)
        effect = (
            f'It reaches {reached}. "{top}" reached {high}, but that may be chance: {samples}, '
            f"the true difference may be anything from {by.low:+{digits}} to "
            f"{by.high:+{digits}}{unit}. More samples, or more repeats of the comparison, show it "
            f"more precisely."
        )
    else:
        half = f"{np.median(differing):{digits}}{unit}"
        effect = (
            f"It reaches {reached}; {samples}, differences below about {half} cannot be seen. More "
            f"samples, or more repeats of the comparison, show smaller ones."
        )
    if judged.not_fitted:
        effect += (
            f" First of all, train longer: {first} has not fitted its rare "
            f"{comparison.task.many}, not even on the samples it was trained on."
        )
    return what, effect


def unproven(judged: Judgement) -> Recommendation | None:
    """What theory says, where nothing is shown."""
    row = judged.unproven
    if row is None:
        return None
    comparison = judged.comparison
    return Recommendation(
        row,
        f"If you have to decide with these samples, follow theory: {action(comparison, row)}.",
        f"For balanced accuracy the logits of a model that has fitted all classes have to be "
        f"adjusted to equal class frequencies, however few the samples are. It reached "
        f"{amount(judged.value(row), judged.metric)}, which may be chance, too; accuracy goes "
        f"{change(judged, row)}.",
        code(comparison, row),
    )


def further(comparison: Comparison) -> list[str]:
    """What the verdict leaves open, in a few sentences, each with its numbers."""
    judged = Judgement(comparison)
    chosen = judged.best or comparison.baseline
    found = []
    above = judged.above_curve if judged.metric == "balanced_accuracy" else []
    others = [item for item in above if item[0] not in (chosen, judged.at_no_loss)]
    first = plain(comparison)
    for row, by in others[:MOST_FURTHER]:
        than = f"all adjustments of {first} that are as accurate"
        if comparison.estimate(row, "accuracy").value > comparison.frontier["accuracy"].max():
            than = f"the most accurate adjustment of {first}, which is less accurate"
        found.append(
            f"To {action(comparison, row)} is worth it too: at an accuracy of "
            f"{comparison.estimate(row, 'accuracy').value:.1f} % its balanced accuracy is "
            f"{by.value:.1f} points ({by.low:.1f} to {by.high:.1f}) above {than}."
        )
    counts = comparison.class_counts
    rare = comparison.class_names[counts.index(min(counts))]
    recall, precision = (
        [comparison.estimate(row, f"{metric}_{rare}") for row in (comparison.baseline, chosen)]
        for metric in ("recall", "precision")
    )
    if chosen != comparison.baseline:
        found.append(
            f'The rarest {comparison.task.one}, "{rare}" ({min(counts):,} samples): recall '
            f"{changed(*recall)}, precision {changed(*precision)}."
        )
        before, after = (
            comparison.estimate(row, "calibration_error").value
            for row in (comparison.baseline, chosen)
        )
        if after >= before + WORSE_CALIBRATION:
            found.append(
                f"If you use the probabilities: they are wrong by {after:.1f} instead of "
                f"{before:.1f} points on average ({WORDS['calibration_error']})."
            )
    return found


def amount(value: float, metric: str) -> str:
    return f"{value:.4g}" if metric == "utility" else f"{value:.1f} %"


def changed(before: Estimate, after: Estimate) -> str:
    def number(estimate: Estimate) -> str:
        return f"{estimate.value:.1f}" if math.isfinite(estimate.value) else "undefined"

    interval = f" ({after.low:.1f} to {after.high:.1f})" if after.shown else ""
    return f"from {number(before)} to {number(after)} %{interval}"
