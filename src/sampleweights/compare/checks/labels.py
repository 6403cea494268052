"""Labels that look wrong to models that have not seen them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from sampleweights.compare.checks.base import Check

__all__ = ["SuspiciousLabels", "chance_of_wrong", "share_at_random", "suspicious_labels"]

Floats = NDArray[np.float64]

TEMPERATURES = np.geomspace(0.2, 100, 45)  # at 100 the model says nothing
SHARES = np.r_[0, np.geomspace(0.002, 0.5, 50)]
SURE = 5.5
"""Gain in log-likelihood; by chance, that of clean labels is as large in one data set of 1,000."""
FEW = 0.005
"""The share of listed labels below which nothing is said."""
ENOUGH = 20_000, 2_000_000
"""Samples, and logits, from which temperature and share are estimated."""


def share_at_random(
    logits: NDArray[np.floating], target: NDArray[np.int64], drawn: Floats | None = None
) -> tuple[float, float, float]:
    """How many labels are drawn at random, not what the logits (N, C) out of fold explain.

    Classes that lie among each other make a model unsure, labels that were mistaken contradict
    where it is sure. So the probability of a label is taken to be ``(1 - e) p + e q``, where p
    is the softmax of the logits at a temperature (Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017), and e is the share of labels that were drawn with the chances q of the
    classes (C,), all alike unless given. Share and temperature are those of the highest likelihood.

    Returns:
        The share e, the temperature, and what e adds to the log-likelihood.
    """
    step = max(-(-len(target) // ENOUGH[0]), -(-logits.size // ENOUGH[1]))
    logits, target = logits[::step].astype(np.float64), target[::step]
    label, classes = np.arange(len(target)), logits.shape[1]
    chance = np.full(len(target), 1 / classes) if drawn is None else drawn[target]
    likelihood = np.empty((len(TEMPERATURES), len(SHARES)))
    for i, temperature in enumerate(TEMPERATURES):
        own = softmax(logits / temperature, axis=1)[label, target]
        own = np.maximum(own, 1e-12)  # or one label would decide the temperature without a share
        for j, share in enumerate(SHARES):
            likelihood[i, j] = np.log((1 - share) * own + share * chance).sum()
    best = np.unravel_index(np.argmax(likelihood), likelihood.shape)
    gain = likelihood[best] - likelihood[:, 0].max()
    return float(SHARES[best[1]]), float(TEMPERATURES[best[0]]), float(gain)


def chance_of_wrong(
    logits: NDArray[np.floating], target: NDArray[np.int64]
) -> tuple[Floats, float]:
    """The probability of each label (N,) to be drawn at random, and the gain that stands for it.

    Wrong labels are drawn among all classes alike, so that a label of a rare class is doubted
    more, or as often as the classes are; whichever is more likely.
    """
    counts = np.bincount(target, minlength=logits.shape[1])
    kinds = np.full(len(counts), 1 / len(counts)), counts / counts.sum()
    found = [(*share_at_random(logits, target, drawn), drawn) for drawn in kinds]
    share, temperature, gain, drawn = max(found, key=lambda of_kind: of_kind[2])
    probability = softmax(logits.astype(np.float64) / temperature, axis=1)
    own = (1 - share) * probability[np.arange(len(target)), target]
    at_random: Floats = share * drawn[target]
    return at_random / np.maximum(own + at_random, np.finfo(np.float64).tiny), gain


def suspicious_labels(comparison: Any) -> pd.DataFrame:
    """The labels of a `Comparison` that are more likely mistaken than not, the likeliest first.

    There are none where mistaken labels explain no more than unsure models do.
    """
    # as they are: logits at equal class frequencies put more right labels than wrong ones on the
    # list of ISIC 2018 (docs/samples.md)
    logits, target = comparison.logits[comparison.baseline].mean(0), comparison.target
    score, gain = chance_of_wrong(logits, target)
    predicted = logits.argmax(1)
    index = np.flatnonzero((score > 0.5) & (predicted != target) & (gain > SURE))
    index = index[np.argsort(-score[index], kind="stable")]
    names = np.array(comparison.class_names)
    positions = np.arange(len(target)) if comparison.positions is None else comparison.positions
    return pd.DataFrame(
        {
            "index": positions[index],
            "label": names[target[index]],
            "predicted": names[predicted[index]],
            "score": score[index],
        }
    )


class SuspiciousLabels(Check):
    """Wrong labels are what mining and high weights fall upon."""

    code = "suspicious-labels"
    title = "Labels that look wrong"

    def sentence(self, comparison: Any) -> str | None:
        found, size = len(comparison.suspicious_labels()), comparison.num_samples
        if found < FEW * size:
            return None
        return (
            f"{found:,} of {size:,} labels ({100 * found / size:.1f} %) look wrong: models that "
            f"have not seen these samples are sure of another class. Hard-example mining and large "
            f"class weights train on wrong labels most of all, and the metrics count them as right."
            f" Look at the samples in comparison.suspicious_labels() (the command writes "
            f"suspicious_labels.csv) and correct the labels before you decide between the methods."
        )
