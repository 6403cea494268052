"""What is trained: one head on all samples, whose history is kept, and five out of fold."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

import sampleweights as sw
from examples.wrong_labels.samples import Samples
from examples.wrong_labels.shapley import knn_shapley
from sampleweights.compare import Comparison, Head, compare, default_entries

PLAIN = "no weighting"
WEIGHTINGS: dict[str, Callable[[Sequence[int]], dict[str, Any]]] = {
    PLAIN: lambda counts: {},
    "ClassBalanced": lambda counts: {"weighter": sw.ClassBalanced(counts)},
    "LogitAdjustment": lambda counts: {"margin": sw.LogitAdjustment(counts)},
}
OF_HISTORY = ["area_under_margin", "adjusted_margin", "confidence", "mean_loss"]
NEIGHBOURS = 5
"""Of the Euclidean distance; of 3, 5, 10 and 20 chosen on the digits."""


class Watched:
    """A criterion that keeps a history, and the order in which samples come to it."""

    def __init__(self, criterion: sw.CrossEntropyLoss, size: int, epochs: int, seed: int) -> None:
        self.criterion, self.history = criterion, sw.LossHistory(size, epochs)
        self.size, self.seed = size, seed

    def set_epoch(self, epoch: int) -> None:
        self.criterion.set_epoch(epoch)
        self.order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        self.come = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.order.tolist())

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        index = torch.from_numpy(self.order[self.come : self.come + len(target)])
        self.come += len(target)
        with self.history.record(self.criterion, index):
            loss: Tensor = self.criterion(logits, target)
        if self.come == self.size:
            self.history.end_epoch()
        return loss


def history_of(samples: Samples, epochs: int, seed: int, weighting: str = PLAIN) -> sw.LossHistory:
    """The history of a training on all samples, with the head of ``compare``."""
    counts = np.bincount(samples.given).tolist()
    head = Head(samples.features, samples.given, len(counts), epochs)
    everything = np.arange(len(samples.given))
    criterion = sw.CrossEntropyLoss(**WEIGHTINGS[weighting](counts))
    watched = Watched(criterion, len(everything), epochs, seed)
    head(watched, everything, everything[:1], watched, seed)
    return watched.history


def out_of_fold(samples: Samples, epochs: int, seed: int) -> Comparison:
    """Five trainings of the same head, each of which predicts samples that it has not seen."""
    folds: int | NDArray[np.int64] = 5
    if np.bincount(samples.given).min() < 5:  # compare makes no folds of so few
        folds = np.empty(len(samples.given), np.int64)
        splitter = StratifiedKFold(5, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some folds are without the rarest class
            for fold, (_, held_out) in enumerate(splitter.split(samples.given, samples.given)):
                folds[held_out] = fold
    return compare(
        samples.features,
        samples.given,
        groups=samples.groups,
        entries={PLAIN: default_entries()[PLAIN]},
        folds=folds,
        num_epochs=epochs,
        seed=seed,
        workers=1,
        progress=False,
    )


def trained(
    samples: Samples, epochs: int, seed: int, folder: Path, weightings: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """What the trainings say of each sample, and what its neighbours say; kept in a folder.

    Logits out of fold (N, C) are ``logits``, and ``adjusted_logits`` at equal class frequencies.
    """
    digest = hashlib.sha256(samples.features.tobytes() + samples.given.tobytes())
    digest.update(repr((epochs, seed, *weightings)).encode())
    path = folder / f"{digest.hexdigest()[:16]}.npz"
    if path.exists():
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    found = {}
    for weighting in (PLAIN, *weightings):
        scores = history_of(samples, epochs, seed, weighting).scores()
        of = "" if weighting == PLAIN else f" {weighting}"
        found.update({name + of: scores[name].numpy() for name in OF_HISTORY})
    comparison = out_of_fold(samples, epochs, seed)
    found["logits"] = comparison.logits[PLAIN][0]
    found["adjusted_logits"] = comparison.adjusted(PLAIN)[0]
    found["knn_shapley"] = knn_shapley(samples.features, samples.given, NEIGHBOURS, samples.groups)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **found)  # type: ignore[arg-type]
    part.replace(path)
    return found
