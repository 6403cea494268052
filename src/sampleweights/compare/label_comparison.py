"""The answer for multi-label targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sampleweights.compare.adjustment import Choice
from sampleweights.compare.comparison import Comparison
from sampleweights.compare.label_adjustment import choose_label_tau
from sampleweights.compare.objective import Objective
from sampleweights.compare.statistics import (
    POSTHOC,
    Estimate,
    LabelPrediction,
    LabelStatistics,
    Statistics,
    label_metrics_of_row,
)
from sampleweights.compare.task import LABELS, Task

__all__ = ["LabelComparison"]


@dataclass(repr=False)
class LabelComparison(Comparison):
    """What `compare` found for a target (N, L); see `Comparison`.

    Each label is predicted where its logit is above 0. ``logits`` are (repeats, N, L), ``target``
    (N, L), ``counts`` (repeats, folds, L, 2), the negatives and the positives of each label, and
    ``train_recall`` (repeats, folds, L). Metrics are those of `LABEL_METRICS`, and of each label
    ``average_precision_NAME``, ``auroc_NAME``, ``f1_NAME``, ``recall_NAME`` and ``precision_NAME``.
    """

    objective: str | ArrayLike | Objective = "average_precision"
    """What decides the verdict, as average_precision, macro_f1 or auroc."""

    task: ClassVar[Task] = LABELS
    _statistics_kind: ClassVar[type[Statistics]] = LabelStatistics

    @property
    def rows(self) -> list[str]:
        """All rows; those that are adjusted only where the threshold of a label matters."""
        if self.goal.metric != "macro_f1":
            return self.trained
        after = {name: [name + POSTHOC] * (name in self.adjustable) for name in self.trained}
        return [row for name in self.trained for row in (name, *after[name])]

    @property
    def class_counts(self) -> list[int]:
        """The positives of each label."""
        if self.given_counts is not None:  # [negatives, positives]
            return [positives for _, positives in self.given_counts]
        positives: list[int] = self.target.sum(0).tolist()
        return positives

    @property
    def num_given(self) -> int:
        """Samples, with those that are only trained on."""
        return self.num_samples if self.given_counts is None else sum(self.given_counts[0])

    def members(self, c: int) -> NDArray[np.bool_]:
        of: NDArray[np.bool_] = self.target[:, c] == 1
        return of

    def at_tau(self, row: str, tau: float) -> dict[str, float]:
        found = LabelPrediction(self.adjusted(row, tau))
        return label_metrics_of_row(found, self.target == 1)

    @cached_property
    def _choices(self) -> dict[str, Choice]:
        inputs = self.target, self.fold, self.counts
        adjusted = [name for name in self.adjustable if name + POSTHOC in self.rows]
        return {name + POSTHOC: choose_label_tau(self.logits[name], *inputs) for name in adjusted}

    def _predicted(
        self, logits: NDArray[np.float32], before: NDArray[np.float32] | None = None
    ) -> LabelPrediction:
        return LabelPrediction(logits, before)

    @property
    def frontier(self) -> pd.DataFrame | None:
        """None: post-hoc adjustment moves thresholds, and leaves average precision as it is."""
        return None

    def above_frontier(self, row: str) -> Estimate:
        raise ValueError("a multi-label target has no curve of post-hoc adjustment")

    def advice(self) -> list[str]:
        return [*super().advice(), *self._thresholds()]

    def _thresholds(self) -> list[str]:
        """What a threshold of its own for each label does to the row that is recommended."""
        row = self.verdict.row or self.baseline
        if self.goal.metric == "macro_f1" or row not in self.adjustable:
            return []
        choice = choose_label_tau(self.logits[row], self.target, self.fold, self.counts)
        if choice.overall == 0:
            return []
        before, after = (
            label_metrics_of_row(LabelPrediction(logits), self.target == 1, metrics=["macro_f1"])
            for logits in (self.logits[row], self.adjusted(row, choice.by_fold))
        )
        return [
            f"Macro F1 depends on the thresholds, and {self.goal.words} does not: subtract "
            f"{choice.overall:.4g} * log(positives / negatives) of each label from its logit at "
            f'test time, and macro F1 of "{row}" goes from {before["macro_f1"]:.1f} to '
            f"{after['macro_f1']:.1f} %, while {self.goal.words} stays as it is. "
            f'The objective "macro_f1" compares all rows with such thresholds.'
        ]

    def suspicious_labels(self) -> pd.DataFrame:
        """Empty: of several labels, which of them look wrong is not found."""
        return pd.DataFrame(columns=["index", "label", "predicted", "score"])
