"""The samples whose labels are changed: digits, thinned digits, or those of a file of features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from sampleweights.compare.inputs.archives import read_npz

RATIO = 60
"""How many times as many samples the most frequent of the thinned digits has as the rarest."""
SHARE_OF_RARE = 0.4
"""Of the classes; these are called rare."""


@dataclass
class Samples:
    """Samples, their right labels, and the labels that they are given."""

    features: NDArray[np.float32]
    """(N, D)"""
    label: NDArray[np.int64]
    """(N,), the right ones"""
    given: NDArray[np.int64]
    """(N,)"""
    groups: NDArray[np.int64] | None = None
    """(N,), such as the lesions of which these are images."""

    @property
    def changed(self) -> NDArray[np.bool_]:
        """(N,)"""
        return self.given != self.label

    @property
    def rare(self) -> NDArray[np.bool_]:
        """(N,), the samples of the rarest classes; none where all classes are alike."""
        counts = np.bincount(self.label)
        if counts.max() < 2 * counts.min():
            return np.zeros(len(self.label), bool)
        return np.isin(self.label, counts.argsort()[: round(SHARE_OF_RARE * len(counts))])


def samples_of(
    data: str, noise: str, share: float, seed: int, features: Path | None = None
) -> Samples:
    """The samples of one run: ``digits``, ``thinned`` digits, or those of a file of features."""
    # other labels are changed, and other digits kept, in each run
    random = np.random.default_rng([seed, round(1000 * share)])
    groups = None
    if features is not None:
        arrays = read_npz(features)
        inputs, label = arrays["features"], np.unique(arrays["target"], return_inverse=True)[1]
        if "groups" in arrays:
            groups = np.unique(arrays["groups"], return_inverse=True)[1]
    else:
        inputs, label = load_digits(return_X_y=True)
        kept = thinned(label, random) if data == "thinned" else np.arange(len(label))
        inputs, label = (inputs[kept] / 16).astype(np.float32), label[kept]
    return Samples(inputs, label, with_changed(label, noise, share, random), groups)


def thinned(label: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Positions of digits: 174 of one class, fewer of each other one, 3 of the last."""
    classes = random.permutation(10)
    counts = [round(174 * RATIO ** (-place / 9)) for place in range(10)]
    pairs = zip(classes, counts, strict=True)
    return np.concatenate([random.permutation(np.flatnonzero(label == c))[:n] for c, n in pairs])


def with_changed(
    label: NDArray[np.int64], noise: str, share: float, random: np.random.Generator
) -> NDArray[np.int64]:
    """Labels (N,) of which a share is that of another class.

    Of each other class with the same chance (``uniform``), or as often as it is (``frequent``).
    """
    counts, given = np.bincount(label), label.copy()
    chosen = random.permutation(len(label))[: round(share * len(label))]
    if noise == "uniform":
        given[chosen] += random.integers(1, len(counts), len(chosen))
        return given % len(counts)
    for i in chosen:
        chance = counts.astype(float)
        chance[label[i]] = 0
        given[i] = random.choice(len(counts), p=chance / chance.sum())
    return given
