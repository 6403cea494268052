"""A comparison with any numbers: what its picture and its page read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from sampleweights.compare.objective import Objective
from sampleweights.compare.report.verdict import Recommendation
from sampleweights.compare.statistics import Estimate
from sampleweights.compare.task import CLASSES, Task
from sampleweights.compare.training.entries import Recipe

NAN = math.nan
VERDICT = Recommendation(
    "no weighting + post-hoc",
    "Adjust the plain model post hoc with τ = 0.8.",
    "It costs 3 points of accuracy.",
    "criterion = sw.CrossEntropyLoss()",
)

# like those of ten rows on 10,015 images of seven classes: close to each other
POINTS = {
    "no weighting": (63.2, 82.4),
    "no weighting + post-hoc": (69.2, 79.0),
    "ClassBalanced": (71.3, 75.2),
    "EffectiveNumber": (71.6, 77.0),
    "FocalLoss": (63.8, 82.2),
    "FocalLoss + post-hoc": (69.6, 78.4),
    "OHEM": (65.0, 82.3),
    "OHEM + post-hoc": (70.9, 78.9),
    "SelfPaced per class": (63.0, 81.4),
    "SelfPaced per class + post-hoc": (68.1, 78.6),
    "EffectiveNumber + OHEM": (71.5, 77.3),
    "LogitAdjustment": (68.8, 79.5),
    "LDAM + deferred weights": (70.2, 80.0),
    "balanced sampling": (68.9, 77.3),
}


@dataclass
class FakeComparison:
    """``points``: balanced accuracy and accuracy of each row; other metrics are made up."""

    points: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(POINTS))
    class_counts: list[int] = field(default_factory=lambda: [6705, 1113, 1099, 514, 327, 142, 115])
    class_names: list[str] = field(default_factory=list)
    num_groups: int | None = None
    repeats: int = 1
    notes: list[str] = field(default_factory=list)
    folds: int = 5
    verdict: Any = field(
        default_factory=lambda: SimpleNamespace(
            text="Adjust the plain model post hoc with τ = 0.8. It costs 3 points of accuracy.",
            row="no weighting + post-hoc",
            row_at_no_loss=None,
            parts=[(VERDICT, VERDICT.code)],
        )
    )
    checks: list[Any] = field(default_factory=list)
    adjustable: list[str] = field(default_factory=lambda: ["no weighting", "FocalLoss", "OHEM"])
    recipes: dict[str, Recipe] = field(default_factory=dict)
    objective: str = "balanced_accuracy"
    num_epochs: int = 30
    task: Task = CLASSES
    half: float = 1.0
    """Half of the width of the intervals of differences; NaN for none."""
    above: dict[str, float] = field(default_factory=dict)
    """Of rows that are above the curve, by how much; all others are 3 points below it."""

    def __post_init__(self) -> None:
        self.class_names = self.class_names or [f"class {c}" for c in range(len(self.class_counts))]
        self.rows = list(self.points)
        self.trained = [row for row in self.rows if " + post-hoc" not in row]
        self.goal = Objective.of(self.objective, len(self.class_counts))
        self.baseline, self.num_samples = self.rows[0], sum(self.class_counts)
        self.facts = {"torch": "2.13", "time": "1 min <2 s>"}
        tau = np.linspace(0, 1, 21)
        x, y = self.points[self.baseline]
        balanced = x + 8.6 * tau - 2.6 * tau**2
        self.frontier: Any = pd.DataFrame(
            {"tau": tau, "accuracy": y - 1.2 * tau - 2.2 * tau**2, "balanced_accuracy": balanced,
             "balanced_accuracy_low": balanced - 1.4, "balanced_accuracy_high": balanced + 1.4}
        )  # fmt: skip

    def estimate(self, row: str, metric: str) -> Estimate:
        balanced, accuracy = self.points[row]
        value = {"accuracy": accuracy, "balanced_accuracy": balanced}.get(metric, balanced - 20)
        if metric.startswith("recall_"):
            value += 10 * (self.class_names.index(metric.removeprefix("recall_")) % 3)
        return Estimate(value, value - 1.4, value + 1.4)

    def tau(self, row: str) -> float:
        return 0.8

    def difference(self, row: str, other: str, metric: str) -> Estimate:
        value = self.estimate(row, metric).value - self.estimate(other, metric).value
        return Estimate(value, value - self.half, value + self.half)

    def differences(self, metric: str, other: str | None = None) -> dict[str, Estimate]:
        other = other or self.baseline
        return {row: self.difference(row, other, metric) for row in self.rows if row != other}

    def above_frontier(self, row: str) -> Estimate:
        value = self.above.get(row, -3.0)
        return Estimate(value, value - 1, value + 1)

    @property
    def ranking(self) -> list[str]:
        return sorted(self.rows, key=lambda row: -self.estimate(row, self.goal.metric).value)

    def why_no_interval(self, metric: str) -> str | None:
        return "It has none." if metric == "worst_recall" else None

    def advice(self) -> list[str]:
        return [f"“{self.rows[-1]}” does not beat post-hoc adjustment: -0.9 (-2.1 to 0.3)."]
