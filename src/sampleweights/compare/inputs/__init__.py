"""From files and arguments to features, targets, groups and names."""

from sampleweights.compare.inputs.checking import Inputs, check
from sampleweights.compare.inputs.loading import load

__all__ = ["Inputs", "check", "load"]
