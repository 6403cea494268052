"""Margins: logits in, logits out, moved by what the class counts say."""

from sampleweights.margins.base import Margin
from sampleweights.margins.ldam import LDAM
from sampleweights.margins.logit_adjustment import LogitAdjustment

__all__ = ["LDAM", "LogitAdjustment", "Margin"]
