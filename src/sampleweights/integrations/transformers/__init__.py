"""For the Trainer of Hugging Face transformers: a loss function, a callback, and a Trainer."""

from sampleweights.integrations.transformers.callbacks import EpochCallback
from sampleweights.integrations.transformers.loss import LossFunction
from sampleweights.integrations.transformers.trainer import WeightingTrainer

__all__ = ["EpochCallback", "LossFunction", "WeightingTrainer"]
