"""From logits out of fold to metrics and their intervals."""

from sampleweights.compare.statistics.estimates import Estimate
from sampleweights.compare.statistics.intervals import Statistics
from sampleweights.compare.statistics.label_intervals import LabelStatistics
from sampleweights.compare.statistics.label_metrics import (
    LABEL_METRICS,
    LabelPrediction,
    label_metrics_of_row,
)
from sampleweights.compare.statistics.metrics import (
    METRICS,
    POSTHOC,
    POSTHOC_FREE,
    Prediction,
    metrics_of_row,
    source_of,
)

__all__ = [
    "LABEL_METRICS",
    "METRICS",
    "POSTHOC",
    "POSTHOC_FREE",
    "Estimate",
    "LabelPrediction",
    "LabelStatistics",
    "Prediction",
    "Statistics",
    "label_metrics_of_row",
    "metrics_of_row",
    "source_of",
]
