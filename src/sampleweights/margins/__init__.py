"""Margins: adjust the logits before the loss, by the class counts."""

from sampleweights.margins.base import Margin
from sampleweights.margins.ldam import LDAM
from sampleweights.margins.logit_adjustment import LogitAdjustment

__all__ = ["LDAM", "LogitAdjustment", "Margin"]
