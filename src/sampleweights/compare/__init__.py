"""Which weighting, margin or sampling is worth it on the data at hand (extra ``compare``)."""

from sampleweights.compare.checks import Found
from sampleweights.compare.comparing import compare
from sampleweights.compare.comparison import Comparison
from sampleweights.compare.report.verdict import Verdict
from sampleweights.compare.statistics import METRICS, Estimate
from sampleweights.compare.training.entries import default_entries
from sampleweights.compare.training.head import Head

__all__ = [
    "METRICS",
    "Comparison",
    "Estimate",
    "Found",
    "Head",
    "Verdict",
    "compare",
    "default_entries",
]
