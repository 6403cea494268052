"""What a sample is to be given, one class or any number of labels, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sampleweights.compare.statistics import LABEL_METRICS, METRICS

__all__ = ["CLASSES", "LABELS", "WORDS", "Task"]

WORDS = {**LABEL_METRICS, **METRICS, "recall": "recall", "precision": "precision", "f1": "F1"}
"""Of the metrics, and of those of each class or label."""


@dataclass(frozen=True)
class Task:
    """The words and metrics of a kind of target."""

    one: str
    """What a column of the logits is of."""
    many: str
    of: str
    """Between the samples and the number of classes or labels."""
    objectives: tuple[str, ...]
    """By name, the default first."""
    metrics: Mapping[str, str]
    """Names and words, in the order of the table."""
    of_each: tuple[str, ...]
    """What begins the names of the metrics of each class or label."""
    shown: tuple[str, str]
    """The metrics of the short table, beside the objective."""
    axes: tuple[str, str]
    """The metrics of the picture, to the right and upwards."""
    chart: tuple[str, str]
    """Of each class or label, the metric of the dots and that of the ticks."""
    trades: bool
    """Whether accuracy is what a gain may cost."""

    @property
    def title(self) -> str:
        """What the picture shows."""
        right, upwards = (WORDS[metric] for metric in self.axes)
        return f"{upwards[0].upper()}{upwards[1:]} over {right}"

    def beside(self, metric: str) -> str:
        """What is told with a metric: accuracy; of labels macro F1, or average precision."""
        right, upwards = self.axes
        return right if metric == upwards and not self.trades else upwards


CLASSES = Task(
    "class", "classes", "of",
    ("balanced_accuracy", "accuracy", "macro_f1", "average_precision"), METRICS,
    of_each=("recall", "precision", "average_precision"),
    shown=("accuracy", "balanced_accuracy"), axes=("balanced_accuracy", "accuracy"),
    chart=("recall", "precision"), trades=True,
)  # fmt: skip
LABELS = Task(
    "label", "labels", "with", ("average_precision", "macro_f1", "auroc"), LABEL_METRICS,
    of_each=("average_precision", "auroc", "f1", "recall", "precision"),
    shown=("average_precision", "macro_f1"), axes=("average_precision", "macro_f1"),
    chart=("average_precision", "f1"), trades=False,
)  # fmt: skip
