"""Weighters: loss and target to one weight per sample."""

from sampleweights.weighters.base import Weighter
from sampleweights.weighters.class_frequency import ClassBalanced, EffectiveNumber
from sampleweights.weighters.compose import Compose
from sampleweights.weighters.confidence import Confidence
from sampleweights.weighters.curriculum import OHEM, SelfPaced
from sampleweights.weighters.deferred import Deferred
from sampleweights.weighters.hard_negatives import HardNegativeMining

__all__ = [
    "OHEM",
    "ClassBalanced",
    "Compose",
    "Confidence",
    "Deferred",
    "EffectiveNumber",
    "HardNegativeMining",
    "SelfPaced",
    "Weighter",
]
