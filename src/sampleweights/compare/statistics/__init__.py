"""From logits out of fold to metrics and their intervals."""

from sampleweights.compare.statistics.estimates import Estimate
from sampleweights.compare.statistics.intervals import Statistics
from sampleweights.compare.statistics.metrics import (
    METRICS,
    POSTHOC,
    POSTHOC_FREE,
    Prediction,
    metrics_of_row,
    source_of,
)

__all__ = [
    "METRICS",
    "POSTHOC",
    "POSTHOC_FREE",
    "Estimate",
    "Prediction",
    "Statistics",
    "metrics_of_row",
    "source_of",
]
