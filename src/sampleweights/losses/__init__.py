"""Losses: one value for each sample, weighted by a weighter and reduced to a scalar."""

from sampleweights.losses.asymmetric import AsymmetricLoss
from sampleweights.losses.binary_cross_entropy import BCEWithLogitsLoss
from sampleweights.losses.cross_entropy import CrossEntropyLoss
from sampleweights.losses.focal import BinaryFocalLoss, FocalLoss
from sampleweights.losses.hierarchical import HierarchicalLoss
from sampleweights.losses.linear import LinearCrossEntropyLoss
from sampleweights.losses.weighted import WeightedLoss

__all__ = [
    "AsymmetricLoss",
    "BCEWithLogitsLoss",
    "BinaryFocalLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "HierarchicalLoss",
    "LinearCrossEntropyLoss",
    "WeightedLoss",
]
