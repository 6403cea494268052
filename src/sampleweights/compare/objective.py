"""What a comparison should maximise: a metric, or the expected utility of decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.task import CLASSES, LABELS, WORDS, Task

__all__ = ["LABEL_OBJECTIVES", "OBJECTIVES", "Objective"]

OBJECTIVES = CLASSES.objectives
"""By name; a utility table is the other kind."""
LABEL_OBJECTIVES = LABELS.objectives
"""Of multi-label targets."""


@dataclass(frozen=True, eq=False)
class Objective:
    """A metric, and the table behind it where the metric is the utility."""

    metric: str
    """A name in METRICS, or ``utility``."""
    table: NDArray[np.float64] | None = None
    """(C, D), what decision d is worth for a sample of class c."""

    @classmethod
    def of(cls, given: Any, num_classes: int, task: Task = CLASSES) -> Objective:
        """What ``objective=`` means; the argument may also be one that is made already."""
        if isinstance(given, Objective) and (task is CLASSES or given.table is None):
            return given
        expected = f"objective must be one of {', '.join(map(repr, task.objectives))}"
        if task is CLASSES:
            expected += (
                f", or a utility table of shape ({num_classes}, D), a row for each class and a "
                f"column for each decision"
            )
        if isinstance(given, str):
            if given not in task.objectives:
                of = " for a multi-label target" * (task is LABELS)
                raise ValueError(f"{expected}{of}, got {given!r}")
            return cls(given)
        if task is LABELS:
            raise ValueError(
                f"{expected} for a multi-label target, got a utility table, which says what a "
                f"decision is worth where a sample has exactly one class"
            )
        try:
            table = np.asarray(given)
            table = table.astype(np.float64) if table.dtype.kind in "fiub" else table
        except ValueError:  # rows of different lengths
            raise ValueError(f"{expected}, got {given!r}") from None
        if table.dtype != np.float64:
            raise ValueError(f"{expected}, got values of dtype {table.dtype}")
        if table.ndim != 2 or len(table) != num_classes or table.shape[1] < 2:
            raise ValueError(f"{expected}, at least 2 of them, got shape {table.shape}")
        if not np.isfinite(table).all():
            raise ValueError(f"{expected}, got values that are not finite")
        return cls("utility", table)

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return WORDS.get(self.metric, "expected utility")
