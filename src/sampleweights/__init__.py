"""Composable losses and per-sample weights for PyTorch.

logits, target -> criterion: loss per sample -> weighter: weight per sample
               -> reduction: one scalar
"""

from sampleweights import functional, schedules, selection
from sampleweights.datasets import WithIndex
from sampleweights.decisions import Calibration, PredictionSets, decide, estimate_prior
from sampleweights.history import LossHistory
from sampleweights.losses import (
    AsymmetricLoss,
    BCEWithLogitsLoss,
    BinaryFocalLoss,
    CrossEntropyLoss,
    FocalLoss,
    HierarchicalLoss,
    LinearCrossEntropyLoss,
    WeightedLoss,
)
from sampleweights.margins import LDAM, LogitAdjustment, Margin
from sampleweights.sampling import ClassBatchSampler, WeightedSampler
from sampleweights.selective import selective_loss
from sampleweights.taxonomy import Taxonomy
from sampleweights.weighters import (
    OHEM,
    ClassBalanced,
    Compose,
    Confidence,
    Deferred,
    EffectiveNumber,
    HardNegativeMining,
    SelfPaced,
    Weighter,
)

__version__ = "0.1.0"

__all__ = [
    "LDAM",
    "OHEM",
    "AsymmetricLoss",
    "BCEWithLogitsLoss",
    "BinaryFocalLoss",
    "Calibration",
    "ClassBalanced",
    "ClassBatchSampler",
    "Compose",
    "Confidence",
    "CrossEntropyLoss",
    "Deferred",
    "EffectiveNumber",
    "FocalLoss",
    "HardNegativeMining",
    "HierarchicalLoss",
    "LinearCrossEntropyLoss",
    "LogitAdjustment",
    "LossHistory",
    "Margin",
    "PredictionSets",
    "SelfPaced",
    "Taxonomy",
    "WeightedLoss",
    "WeightedSampler",
    "Weighter",
    "WithIndex",
    "decide",
    "estimate_prior",
    "functional",
    "schedules",
    "selection",
    "selective_loss",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
