"""What the numbers say, in sentences; every sentence has its interval."""

from __future__ import annotations

from typing import Any

from sampleweights.compare.statistics import METRICS, POSTHOC, Estimate

__all__ = ["sentences"]

Comparison = Any  # sampleweights.compare.Comparison, which imports this module


def sentences(comparison: Comparison) -> list[str]:
    """The advice, the most important first; none of it where there is only one row."""
    if len(comparison.rows) < 2:
        return []
    return [*best(comparison), *worth_training(comparison), *price(comparison)]


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def highest(comparison: Comparison, metric: str) -> str:
    sign = -1 if metric == "calibration_error" else 1
    found: str = max(comparison.rows, key=lambda r: sign * comparison.estimate(r, metric).value)
    return found


def best(comparison: Comparison) -> list[str]:
    """Which row has the highest balanced accuracy, and which can not be told from it."""
    baseline, row = comparison.baseline, highest(comparison, "balanced_accuracy")
    value = comparison.estimate(row, "balanced_accuracy")
    if row == baseline:
        return [
            f"No row has a higher balanced accuracy than {baseline}, {value}: these data do not "
            f"show that anything else helps."
        ]
    gain = comparison.difference(row, baseline, "balanced_accuracy")
    cost = comparison.difference(row, baseline, "accuracy")
    text = (
        f"{row} has the highest balanced accuracy, {value}; that is {gain.signed} against "
        f"{baseline}, at {cost.signed} accuracy."
    )
    if gain.low <= 0:
        text += f" The interval holds 0: these data do not show that it helps over {baseline}."
    alike = [
        other
        for other in comparison.rows
        if other != row and comparison.difference(row, other, "balanced_accuracy").low <= 0
    ]
    if alike:
        others = len(comparison.rows) - 1
        if len(alike) == others:
            text += " No other row can be told apart from it"
        elif len(alike) <= 4:
            text += f" {listed(alike)} can not be told apart from it"
        else:
            text += f" {len(alike)} of the other {others} rows can not be told apart from it"
        text += ": the interval of the difference holds 0."
    return [text]


def worth_training(comparison: Comparison) -> list[str]:
    """Which rows lie above the frontier, and whether one subtraction at test time would do."""
    baseline = comparison.baseline
    if baseline not in comparison.adjustable:
        return []
    found = []
    simple = baseline + POSTHOC
    above: list[tuple[str, Estimate]] = []
    below: list[tuple[str, Estimate]] = []
    for row in comparison.rows:
        if row in (baseline, simple):
            continue
        by = comparison.above_frontier(row)
        (above if by.low > 0 else below).append((row, by))
    for row, by in sorted(above, key=lambda item: -item[1].value):
        found.append(
            f"{row} is above the curve of post-hoc adjustment: {by.signed} balanced accuracy "
            f"over every adjustment of at least its accuracy. It is worth its training."
        )
    gain = comparison.difference(simple, baseline, "balanced_accuracy")
    cost = comparison.difference(simple, baseline, "accuracy")
    if below:
        what = "No other row" if above else "No row"
        largest, by = max(below, key=lambda item: item[1].value)
        text = (
            f"{what} is clearly above the curve of post-hoc adjustment; the nearest is {largest} "
            f"with {by.signed} balanced accuracy."
            if len(below) > 1
            else f"{largest} is not clearly above the curve of post-hoc adjustment: {by.signed} "
            f"balanced accuracy."
        )
        if not above and gain.low > 0:
            text += (
                f" One subtraction from the logits of {baseline} at test time, which needs no "
                f"training, brings {gain.signed} balanced accuracy at {cost.signed} accuracy, and "
                f"no row is shown to be better."
            )
        found.append(text)
    trained = [row for row in comparison.trained if row not in comparison.adjustable]
    if trained:
        row = max(trained, key=lambda r: comparison.estimate(r, "balanced_accuracy").value)
        by = comparison.difference(row, simple, "balanced_accuracy")
        acc = comparison.difference(row, simple, "accuracy")
        verb = "beats" if by.low > 0 else "loses to" if by.high < 0 else "does not beat"
        found.append(
            f"{row}, the best row that was trained with class frequencies, {verb} post-hoc "
            f"adjustment of {baseline} on these data: {by.signed} balanced accuracy, "
            f"{acc.signed} accuracy."
        )
    return found


def price(comparison: Comparison) -> list[str]:
    """What it costs: accuracy, probabilities; and who gains, the rarest class."""
    found = []
    accurate, baseline = highest(comparison, "accuracy"), comparison.baseline
    value = comparison.estimate(accurate, "accuracy")
    why = f"it has the highest accuracy, {value}"
    if accurate != baseline and comparison.difference(accurate, baseline, "accuracy").low <= 0:
        accurate, value = baseline, comparison.estimate(baseline, "accuracy")
        why = f"no row has a clearly higher accuracy than its {value}"
    found.append(
        f"If test samples come with the frequencies of these data and every error costs the same, "
        f"take {accurate}: {why}."
    )
    counts = comparison.class_counts
    rare = comparison.class_names[counts.index(min(counts))]
    metric = f"recall_{rare}"
    row = highest(comparison, metric)
    if row != comparison.baseline:
        by = comparison.difference(row, comparison.baseline, metric)
        found.append(
            f"The rarest class, {rare} ({min(counts)} samples), has a recall of "
            f"{comparison.estimate(comparison.baseline, metric)} with {comparison.baseline}; "
            f"{row} has the highest, {by.signed}."
        )
    metric = "calibration_error"
    calibrated = highest(comparison, metric)
    row = highest(comparison, "balanced_accuracy")
    if row != calibrated:
        found.append(
            f"If probabilities are used, mind the {METRICS[metric]}: "
            f"{comparison.estimate(row, metric)} with {row}, "
            f"{comparison.estimate(calibrated, metric)} with {calibrated}."
        )
    return found
