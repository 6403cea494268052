"""Intervals of the metrics of multi-label targets, as those of classes are found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.statistics.contrasts import Contrast
from sampleweights.compare.statistics.intervals import FEWEST, WITHOUT, Statistics
from sampleweights.compare.statistics.label_metrics import (
    LABEL_METRICS,
    label_areas,
    label_metrics_of_row,
    label_parts,
)
from sampleweights.compare.statistics.metrics import RANKED, Part
from sampleweights.compare.statistics.samples import Samples

SHARES = {"recall": np.array([0.0, 1.0]), "balanced_accuracy": np.array([0.5, 0.5])}
"""How much the negatives and the positives of a label count in a metric that is a mean of both."""


@dataclass(frozen=True)
class LabelSamples(Samples):
    """Who has which labels, and is in which group and fold; ``target`` is (N, L)."""

    @cached_property
    def of_label(self) -> list[Samples]:
        """Of each label, the samples as two classes: those without it, and those with it."""
        columns = np.asarray(self.target, np.int64).T
        return [Samples(column, self.group, self.fold, self.weight, 2) for column in columns]

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """(L,), samples of each label, with it or without it, whichever are fewer."""
        return np.array([of.support.min() for of in self.of_label])

    @cached_property
    def groups_of_class(self) -> NDArray[np.int64]:
        """(L,), the same of groups."""
        return np.array([of.groups_of_class.min() for of in self.of_label])

    def few_of_labels(
        self, difference: NDArray[np.float64], share: NDArray[np.float64]
    ) -> tuple[float, float, float]:
        """As ``few``, of the mean over labels.

        Args:
            difference: (N, L), of each sample and label, from -1 to 1.
            share: (2,), of the negatives and the positives of each label.
        """
        columns = zip(self.of_label, difference.T, strict=True)
        shift, added, freedom = np.array([of.few(column, share) for of, column in columns]).T
        # what chance does in two labels is not related, where it is only what few samples hide
        return float(shift.mean()), float(added.sum()) / len(added) ** 2, float(freedom.min())


class LabelStatistics(Statistics):
    """Metrics of rows that predict the same labels; see `Statistics`.

    Args:
        target: (N, L), of zeros and ones.
        class_names: L names.
    """

    samples: LabelSamples
    samples_kind = LabelSamples
    of_class: ClassVar[dict[str, str]] = {
        "average_precision": "average_precision", "auroc": "auroc", "f1": "macro_f1",
        "recall": "recall", "precision": "precision",
    }  # fmt: skip

    @property
    def metrics(self) -> list[str]:
        named = [f"{prefix}_{name}" for prefix in self.of_class for name in self.class_names]
        return [*LABEL_METRICS, *named]

    def why_no_interval(self, metric: str) -> str | None:
        family, c = self._family(metric)
        if metric in WITHOUT:
            return WITHOUT[metric]
        if self.samples.num_groups < 2:
            return "All samples are in one group: that others vary cannot be seen."
        if metric == "micro_f1":
            return None
        support, groups = self.samples.support, self.samples.groups_of_class
        of_labels = range(len(support)) if c is None else [c]
        rare = min(of_labels, key=lambda label: (groups[label], support[label]))
        of, name = self.samples.of_label[rare], self.class_names[rare]
        side = "without" if of.groups_of_class[0] < of.groups_of_class[1] else "with"
        if groups[rare] == 1 < support[rare]:
            return f"All samples {side} label {name!r} are in one group."
        if family in RANKED and groups[rare] < FEWEST:
            what = "samples" if self.samples.alone else "groups"
            return (
                f"There are {groups[rare]} {what} {side} label {name!r}: with fewer than {FEWEST}, "
                f"an interval would not hold what it says."
            )
        return None

    @cached_property
    def _target(self) -> NDArray[np.bool_]:
        return np.asarray(self.samples.target, bool)

    def _value(self, row: str, metric: str) -> float:
        of = self._rows[row], self._target, self.samples.weight
        [value] = label_metrics_of_row(*of, [metric]).values()
        return value

    def _areas_of(self, row: Any, repeat: int) -> tuple[list[Part], list[Part]]:
        return label_areas(row, repeat, self._target, self.samples.weight)

    def _parts(self, row: str, family: str, c: int | None = None) -> list[list[Part]]:
        if c is None:
            return super()._parts(row, family)
        only, of = self._rows[row].of_label(c), (self._target[:, [c]], self.samples.weight)
        return [label_parts(only, repeat, family, *of) for repeat in self.samples.repeats]

    def _parts_of(self, row: Any, family: str) -> list[list[Part]]:
        of = self._target, self.samples.weight
        return [label_parts(row, repeat, family, *of) for repeat in self.samples.repeats]

    def _contrast(self, row: str, other: str, metric: str) -> Contrast:
        influence = self._influence(row, metric) - self._influence(other, metric)
        (family, c), training = self._family(metric), self._training[row]
        one, two = self._rows[row], self._rows[other]
        if np.array_equal(one.logits, two.logits):
            return Contrast(influence, training)
        if family in SHARES:
            right = [(of.predicted == self._target).mean(0) for of in (one, two)]
            difference = right[0] - right[1]
            if c is None:
                few = self.samples.few_of_labels(difference, SHARES[family])
            else:
                few = self.samples.of_label[c].few(difference[:, c], SHARES[family])
            return Contrast(influence, training, *few)
        groups = self.samples.groups_of_class
        freedom = groups.min() if c is None else groups[c]
        if metric == "micro_f1":
            freedom = self.samples.num_groups
        return Contrast(influence, training, freedom=float(max(freedom - 1, 1)))
