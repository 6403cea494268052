"""Samplers: which samples an epoch sees, and how often."""

from sampleweights.sampling.class_batches import ClassBatchSampler
from sampleweights.sampling.weighted import WeightedSampler

__all__ = ["ClassBatchSampler", "WeightedSampler"]
