"""The baseline with each strength of post-hoc adjustment: the curve that costs no training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from sampleweights.compare.adjustment import TAUS
from sampleweights.compare.statistics import POSTHOC, Prediction, Statistics

__all__ = ["curve_of", "frontier_of"]

Comparison = Any  # sampleweights.compare.Comparison, which imports this module


def curve_of(comparison: Comparison) -> dict[float, Prediction]:
    """The baseline, adjusted with each strength; its decisions alone."""
    found = {}
    for tau in TAUS.tolist():  # as far as tau is chosen, so that no choice is above the curve
        row = Prediction.of(
            comparison.adjusted(comparison.baseline, tau), comparison.goal.table, comparison.target
        )
        found[tau] = replace(row, probability=None)
    return found


def frontier_of(
    comparison: Comparison, curve: dict[float, Prediction], statistics: Statistics
) -> pd.DataFrame:
    """The points of a curve up to tau 1, or up to the chosen one, as `Comparison.frontier`."""
    last = max(1.0, comparison.tau(comparison.baseline + POSTHOC))
    curve = {tau: row for tau, row in curve.items() if tau <= last + 1e-9}
    names = {f"{comparison.baseline}, tau {tau:g}": row for tau, row in curve.items()}
    statistics.add(names, trained_as=dict.fromkeys(names, comparison.baseline))
    balanced = [statistics.estimate(name, "balanced_accuracy") for name in names]
    return pd.DataFrame(
        {
            "tau": list(curve),
            "accuracy": [statistics.estimate(name, "accuracy").value for name in names],
            "balanced_accuracy": [found.value for found in balanced],
            "balanced_accuracy_low": [found.low for found in balanced],
            "balanced_accuracy_high": [found.high for found in balanced],
        }
    )
