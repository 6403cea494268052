"""The model that is trained where the data are frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sampleweights.compare.training.batched import Heads, OwnLoss, SharedLoss, is_shareable
from sampleweights.compare.training.label_batched import (
    SharedLabelLoss,
    is_shareable_of_labels,
)

__all__ = ["Head", "Trained", "Training"]

Index = NDArray[np.int64]


@dataclass
class Training:
    """What one head is trained with; see ``Head.__call__``."""

    criterion: Any
    train: Index
    validation: Index
    sampler: Any = None
    seed: int = 0

    def order(self, epoch: int, random: np.random.Generator) -> Index:
        """Tell the epoch to the criterion and the sampler, and take the samples of the epoch."""
        for part in (self.criterion, self.sampler):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if self.sampler is None:
            return random.permutation(self.train)
        return self.train[np.array([*self.sampler], dtype=np.int64)]

    @property
    def is_plain(self) -> bool:
        """Whether each pass sees as many samples as the training part has."""
        is_own = type(self.sampler).__module__.startswith("sampleweights.")
        return self.sampler is None or (is_own and len(self.sampler) == len(self.train))


@dataclass
class Trained:
    """What a training gives."""

    logits: NDArray[np.float32]
    """Of the validation samples (len(validation), C)."""
    target: Index
    predicted: Index
    """Of the samples of the last pass over the training part, with dropout."""


class Head:
    """Trains one hidden layer on standardised features: the ``fit`` of ``compare(features, ...)``.

    The features are standardised with the mean and deviation of the training samples, limited to
    10 deviations, and go through 256 hidden units with dropout to the logits. AdamW trains them
    with one cycle of the learning rate. Batch size and epochs follow from the number of samples,
    the learning rate from the number of features. The settings were
    checked on scikit-learn's digits, breast cancer and wine, on ``make_classification`` sets from
    300 x 16 to 100,000 x 64 and 3,000 x 2,048, on long-tailed thinnings (1 to 60) of these, and on
    the 10,015 x 1,488 features of the ISIC 2018 images.

    Features are read batch by batch, never copied as a whole, so that they may be a memory map. A
    seed gives the same logits on the same machine, and the global random state is left as it was.
    `together` trains many small heads at once.

    Shape:
        - features: :math:`(N, D)`, of any floating dtype; computed with in float32.
        - target: :math:`(N)`, class indices; of several labels zeros and ones, :math:`(N, L)`.
        - Output: :math:`(len(validation), C)`, the logits of the validation samples, float32.

    Args:
        features: one row for each sample.
        target: the class, or the labels, of each sample.
        num_classes: C, or of several labels L.
        num_epochs: passes over the training samples; None: 25 to 100, fewer the more samples.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> from sampleweights.compare.training.head import Head
        >>> target = np.arange(100) % 2
        >>> head = Head(np.eye(2, dtype=np.float32)[target], target, num_classes=2)
        >>> logits = head(nn.CrossEntropyLoss(), train=np.arange(80), validation=np.arange(80, 100))
        >>> logits.argmax(1).tolist() == target[80:].tolist()
        True
    """

    def __init__(
        self,
        features: NDArray[Any],
        target: Index,
        num_classes: int,
        num_epochs: int | None = None,
    ) -> None:
        # binary cross-entropy takes labels as floating numbers
        target = target.astype(np.float32) if target.ndim == 2 else target
        self.features, self.target, self.num_classes = features, target, num_classes
        size, dimension = features.shape
        self.num_features: int = dimension
        self.batch_size: int = min(max(2 ** round(math.log2(size / 64)), 32), 128)
        # steps matter, not epochs; but schedules of weighters need some epochs to take effect in
        self.num_epochs: int = num_epochs or min(max(2000 * self.batch_size // size, 25), 100)
        # what a step changes in a hidden unit grows with the number of its inputs
        self.learning_rate = min(max(1 / dimension, 3e-4), 3e-3)
        self.width, self.weight_decay = 256, 0.05
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(
        self,
        criterion: Any,
        train: Index,
        validation: Index,
        sampler: Any = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Train on some samples, and return the logits of others.

        Args:
            criterion: called with logits and targets; its ``set_epoch`` is called at the start of
                each epoch where it has one.
            train: indices of the training samples.
            validation: indices of the samples to predict.
            sampler: gives the order of an epoch as positions within ``train``; its ``set_epoch``
                is called likewise. None: every sample once, shuffled.
            seed: of the initial weights, the order and the dropout.
        """
        if isinstance(criterion, nn.Module):
            criterion = criterion.to(self.device)
        training = Training(criterion, train, validation, sampler, seed)

        # for criteria and samplers that draw from torch's global source
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            return self._train([training], OwnLoss(criterion), lambda: False)[0].logits

    def together(
        self, trainings: Sequence[Training], stop: Callable[[], bool] = lambda: False
    ) -> list[Trained]:
        """Several trainings at once, in a fraction of the time where they are small.

        Each gives the logits that a call of its own gives, up to rounding, and to the last bit
        the same ones whichever others it is trained with.

        Args:
            trainings: all of which `can_share`, and with as many `steps`.
            stop: asked at every step; ends the trainings with an `InterruptedError`.
        """
        criteria = [training.criterion.to(self.device) for training in trainings]
        shared = SharedLoss if self.target.ndim == 1 else SharedLabelLoss
        return self._train(trainings, shared(criteria, self.num_classes, self.device), stop)

    def can_share(self, training: Training) -> bool:
        """Whether it can be trained together with others: nothing in it draws from torch's source.

        And each pass sees as many samples as the training part has.
        """
        known = is_shareable if self.target.ndim == 1 else is_shareable_of_labels
        return training.is_plain and known(training.criterion)

    def steps(self, training: Training) -> int:
        """Optimizer steps in an epoch."""
        return -(-len(training.train) // self.batch_size)

    @property
    def num_together(self) -> int:
        """How many trainings to compute at once, so that what a step reads stays in the cache."""
        floats = self.width * (3 * self.batch_size + 4 * (self.num_features + self.num_classes))
        limit = 2**23 if self.device.type == "cpu" else 2**28
        return max(limit // (4 * floats), 1)

    @property
    def seconds(self) -> float:
        """About what a training takes on one core."""
        products = 6 * self.batch_size * self.width * (self.num_features + self.num_classes)
        steps = self.num_epochs * -(-len(self.target) // self.batch_size)
        return steps * (5e-4 + products / 2e10)

    def _train(
        self, trainings: Sequence[Training], loss_of: Any, stop: Callable[[], bool]
    ) -> list[Trained]:
        randoms = [np.random.default_rng(t.seed) for t in trainings]
        heads = Heads(
            randoms, self.batch_size, self.num_features, self.width, self.num_classes,
            self.weight_decay, self.device,
        )  # fmt: skip
        scales = [self._standardize(t.train) for t in trainings]
        mean, scale = (torch.stack(parts).unsqueeze(1) for parts in zip(*scales, strict=True))
        predicted: list[Tensor] = []
        several = max(2**18 // (len(trainings) * self.batch_size * self.num_features), 1)
        for epoch in range(self.num_epochs):
            orders = [
                training.order(epoch, random)
                for training, random in zip(trainings, randoms, strict=True)
            ]
            index, sizes = batches(orders, self.batch_size)
            loss_of.begin_epoch(torch.from_numpy(self.target[index]).to(self.device), sizes)
            kept = heads.draw_dropout(len(index))
            for step in range(len(index)):
                if stop():
                    raise InterruptedError("the training was stopped")
                if step % several == 0:  # of several steps at once, where they are small
                    rows = standardized(self._rows(index[step : step + several]), mean, scale)
                logits = heads.forward(rows[step % several], kept[step])
                if epoch == self.num_epochs - 1:
                    found = logits.detach()
                    predicted.append(found > 0 if self.target.ndim == 2 else found.argmax(2))
                gradient = loss_of.gradient(step, logits)
                progress = (epoch + (step + 0.5) / len(index)) / self.num_epochs
                heads.step(gradient, self.learning_rate * one_cycle(progress))
        trained = []
        for run, training in enumerate(trainings):
            result = self._predict(heads, run, training.validation, *scales[run])
            seen = [p[run, :n] for p, n in zip(predicted, sizes[:, run].tolist(), strict=True)]
            trained.append(Trained(result, self.target[orders[run]], torch.cat(seen).cpu().numpy()))
        return trained

    def _predict(
        self, heads: Heads, run: int, validation: Index, mean: Tensor, scale: Tensor
    ) -> NDArray[np.float32]:
        blocks = [
            heads.predict(run, standardized(self._rows(index), mean, scale))
            for index in parts(validation, 1024)
        ]
        return torch.cat(blocks).cpu().numpy()

    def _rows(self, index: Index) -> Tensor:
        return torch.from_numpy(np.asarray(self.features[index])).to(self.device).float()

    def _standardize(self, train: Index) -> tuple[Tensor, Tensor]:
        """Mean and 1 / deviation of the training rows, in two passes over them, in float64."""
        blocks = parts(np.sort(train), 1024)
        zero = torch.zeros(self.num_features, dtype=torch.float64, device=self.device)
        mean = sum((self._rows(index).double().sum(0) for index in blocks), zero) / len(train)
        square = sum(((self._rows(index) - mean).square().sum(0) for index in blocks), zero)
        deviation = (square / len(train)).sqrt()
        # a feature that is constant up to rounding becomes 0
        scale = torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, 0)
        return mean.float(), scale.float()


def standardized(rows: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Without the mean, over the deviation; what is 10 deviations away is limited."""
    return ((rows - mean) * scale).clamp_(-10, 10)


def parts(index: Index, size: int) -> list[Index]:
    """Parts of at most ``size`` and of nearly equal length, so that none is a short remainder."""
    return np.array_split(index, max(1, math.ceil(len(index) / size)))


def batches(orders: Sequence[Index], size: int) -> tuple[Index, Index]:
    """Batches of R orders that have as many of them, and their lengths (steps, R).

    The indices are of shape (steps, R, size); a batch that is shorter is followed by padding.
    """
    places = {n: places_of(n, size) for n in {len(order) for order in orders}}
    lengths = np.stack([places[len(order)][1] for order in orders], axis=1)
    index = np.empty((*lengths.shape, size), dtype=np.int64)
    for run, order in enumerate(orders):
        place, _ = places[len(order)]
        index[:, run] = order[place[:, :1]]
        index[:, run, : place.shape[1]] = order[place]
    return index, lengths


def places_of(number: int, size: int) -> tuple[Index, Index]:
    """Where the batches of an order of ``number`` samples are (steps, B), and their lengths."""
    of_each = parts(np.arange(number), size)
    lengths = np.array([len(part) for part in of_each])
    return np.stack([np.resize(part, lengths.max()) for part in of_each]), lengths


def one_cycle(progress: float) -> float:
    """The learning rate as a share of its peak: up in the first 30 % of the training, then down."""
    warm = 0.3
    if progress < warm:
        return 0.5 - 0.5 * math.cos(math.pi * progress / warm)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warm) / (1 - warm))
