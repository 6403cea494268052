"""Which weighting, margin or sampling is worth it on the data at hand (extra ``compare``)."""

from sampleweights.compare.comparing import compare
from sampleweights.compare.comparison import Comparison
from sampleweights.compare.entries import default_entries
from sampleweights.compare.statistics import METRICS, Estimate

__all__ = ["METRICS", "Comparison", "Estimate", "compare", "default_entries"]
