"""Which weighting, margin or sampling is worth it on the data at hand (extra ``compare``)."""

from sampleweights.compare.checks import Found
from sampleweights.compare.comparing import compare
from sampleweights.compare.comparison import Comparison
from sampleweights.compare.label_comparison import LabelComparison
from sampleweights.compare.report.verdict import Verdict
from sampleweights.compare.statistics import LABEL_METRICS, METRICS, Estimate
from sampleweights.compare.training.entries import default_entries
from sampleweights.compare.training.head import Head
from sampleweights.compare.training.label_entries import default_label_entries

__all__ = [
    "LABEL_METRICS",
    "METRICS",
    "Comparison",
    "Estimate",
    "Found",
    "Head",
    "LabelComparison",
    "Verdict",
    "compare",
    "default_entries",
    "default_label_entries",
]
