"""Histories: what a training shows of each sample, and which samples matter."""

from sampleweights.history.history import LossHistory
from sampleweights.history.page import write_page

__all__ = ["LossHistory", "write_page"]
