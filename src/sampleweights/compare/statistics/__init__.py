"""From logits out of fold to metrics and their intervals."""

from sampleweights.compare.statistics.intervals import Estimate, Statistics, interval
from sampleweights.compare.statistics.metrics import METRICS, POSTHOC, Prediction, metrics_of_row

__all__ = [
    "METRICS",
    "POSTHOC",
    "Estimate",
    "Prediction",
    "Statistics",
    "interval",
    "metrics_of_row",
]
