"""From the logits of a trained model to decisions: costs, other frequencies, sets of classes."""

from sampleweights.decisions.calibration import Calibration
from sampleweights.decisions.priors import PriorEstimate, estimate_prior
from sampleweights.decisions.sets import PredictionSets
from sampleweights.decisions.utility import decide

__all__ = ["Calibration", "PredictionSets", "PriorEstimate", "decide", "estimate_prior"]
