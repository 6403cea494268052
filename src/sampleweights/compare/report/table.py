"""The table of a comparison, for programs and for the terminal."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from sampleweights.compare.statistics import Estimate

__all__ = ["frame", "metrics", "number", "text"]

Comparison = Any  # sampleweights.compare.Comparison, which imports this module


def metrics(comparison: Comparison) -> dict[str, str]:
    """The metrics that are shown, the objective among them, and their words."""
    goal = comparison.goal
    return {**comparison.task.metrics, goal.metric: goal.words}


def frame(comparison: Comparison) -> pd.DataFrame:
    """A line for each row; see `Comparison.table`."""
    classes = [
        f"{metric}_{name}" for metric in comparison.task.of_each for name in comparison.class_names
    ]
    lines = []
    for row in comparison.rows:
        line: dict[str, float] = {}
        for metric in [*metrics(comparison), *classes]:
            own = comparison.estimate(row, metric)
            line[metric] = own.value
            if metric in (*comparison.task.shown, comparison.goal.metric):
                by = comparison.differences(metric).get(row, Estimate(0.0, 0.0, 0.0))
                line |= {f"{metric}_low": own.low, f"{metric}_high": own.high}
                line |= {f"{metric}_difference": by.value}
                line |= {
                    f"{metric}_difference_low": by.low,
                    f"{metric}_difference_high": by.high,
                }
        lines.append(line)
    return pd.DataFrame(lines, index=pd.Index(comparison.rows, name="row"))


def text(comparison: Comparison) -> str:
    """The whole answer for a terminal: the verdict first, then what should be known with it."""
    said = [*comparison.advice(), *comparison.notes, *map(str, comparison.checks)]
    below = [textwrap.fill(sentence, 96, break_on_hyphens=False) for sentence in said]
    parts = [str(comparison.verdict), metrics_of_rows(comparison), "\n".join(below)]
    return "\n\n".join(filter(None, parts))


def metrics_of_rows(comparison: Comparison) -> str:
    """The metrics by which one chooses, the best row for the objective first."""
    words = metrics(comparison)
    shown = list(dict.fromkeys([*comparison.task.shown, comparison.goal.metric]))
    names = {
        row: f"{row} (baseline)" if row == comparison.baseline else row
        for row in comparison.ranking
    }
    width = max(map(len, names.values())) + 2
    columns = [
        [words[metric], *(number(comparison.estimate(row, metric), metric) for row in names)]
        for metric in shown
    ]
    lines = [f"{name:{width}}" for name in ["", *names.values()]]
    for cells in columns:
        wide = max(24, max(map(len, cells)) + 2)  # a utility may have long numbers
        lines = [f"{line}{cell:>{wide}}" for line, cell in zip(lines, cells, strict=True)]
    return "\n".join(lines)


def number(estimate: Estimate, metric: str) -> str:
    """As estimates are written, but for the units of a utility."""
    if metric != "utility":
        return str(estimate)
    interval = f" ({estimate.low:.3g} to {estimate.high:.3g})" if estimate.shown else ""
    return f"{estimate.value:.3g}{interval}"
