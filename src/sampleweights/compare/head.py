"""``Head`` under the name that it had before ``compare`` was divided into rooms."""

from sampleweights.compare.training.head import Head

__all__ = ["Head"]
