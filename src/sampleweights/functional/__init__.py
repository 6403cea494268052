"""Pure functions for the formulas of per-sample losses and class weights, without state."""

from sampleweights._checks import Normalize
from sampleweights.functional.binary import asymmetric_loss, binary_focal_loss
from sampleweights.functional.class_weights import class_balanced_weights, effective_number_weights
from sampleweights.functional.softmax import cross_entropy, focal_loss

__all__ = [
    "Normalize",
    "asymmetric_loss",
    "binary_focal_loss",
    "class_balanced_weights",
    "cross_entropy",
    "effective_number_weights",
    "focal_loss",
]
