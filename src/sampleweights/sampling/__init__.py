"""Samplers: which samples an epoch sees, and how often."""

from sampleweights.sampling.weighted import WeightedSampler

__all__ = ["WeightedSampler"]
