"""The model that is trained where the data are frozen features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Head"]

Index = NDArray[np.int64]


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

    Shape:
        - features: :math:`(N, D)`, of any floating dtype; computed with in float32.
        - target: :math:`(N)`, class indices.
        - Output: :math:`(len(validation), C)`, the logits of the validation samples, float32.

    Args:
        features: one row for each sample.
        target: the class of each sample.
        num_classes: C.
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
        self.features, self.target, self.num_classes = features, target, num_classes
        size, dimension = features.shape
        self.batch_size = min(max(2 ** round(math.log2(size / 64)), 32), 128)
        # steps matter, not epochs; but schedules of weighters need some epochs to take effect in
        self.num_epochs = num_epochs or min(max(2000 * self.batch_size // size, 25), 100)
        # what a step changes in a hidden unit grows with the number of its inputs
        self.learning_rate = min(max(1 / dimension, 3e-4), 3e-3)
        self.width, self.dropout, self.weight_decay = 256, 0.5, 0.05
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
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self._train(criterion, train, sampler)
        with torch.inference_mode():
            logits = torch.cat([model(self._rows(index)) for index in parts(validation, 1024)])
        return logits.cpu().numpy()

    def _train(self, criterion: Any, train: Index, sampler: Any) -> nn.Module:
        # no batch norm: its statistics would depend on the sampler, and fail on a batch of one
        model = nn.Sequential(
            self._standardize(train),
            nn.Linear(self.features.shape[1], self.width),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.width, self.num_classes),
        ).to(self.device)
        if isinstance(criterion, nn.Module):
            criterion = criterion.to(self.device)
        optimizer = torch.optim.AdamW(
            model.parameters(), weight_decay=self.weight_decay, fused=True
        )
        for epoch in range(self.num_epochs):
            for part in (criterion, sampler):
                if hasattr(part, "set_epoch"):
                    part.set_epoch(epoch)
            order = torch.randperm(len(train)) if sampler is None else torch.tensor([*sampler])
            batches = parts(train[order.numpy()], self.batch_size)
            for step, index in enumerate(batches):
                progress = (epoch + (step + 0.5) / len(batches)) / self.num_epochs
                optimizer.param_groups[0]["lr"] = self.learning_rate * one_cycle(progress)
                target = torch.from_numpy(self.target[index]).to(self.device)
                loss = criterion(model(self._rows(index)), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return model.eval()

    def _rows(self, index: Index) -> Tensor:
        return torch.from_numpy(np.asarray(self.features[index])).to(self.device).float()

    def _standardize(self, train: Index) -> Standardize:
        """Mean and deviation of the training rows, in two passes over them, in float64."""
        blocks = parts(np.sort(train), 1024)
        zero = torch.zeros(self.features.shape[1], dtype=torch.float64, device=self.device)
        mean = sum((self._rows(index).double().sum(0) for index in blocks), zero) / len(train)
        square = sum(((self._rows(index) - mean).square().sum(0) for index in blocks), zero)
        return Standardize(mean, (square / len(train)).sqrt())


class Standardize(nn.Module):
    """Subtracts the mean and divides by the deviation; limits what is 10 deviations away."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        # a feature that is constant up to rounding becomes 0
        scale = torch.where(deviation > 1e-6 * mean.abs(), 1 / deviation, 0)
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) * self.scale).clamp_(-10, 10)


def parts(index: Index, size: int) -> list[Index]:
    """Parts of at most ``size`` and of nearly equal length, so that none is a short remainder."""
    return np.array_split(index, max(1, math.ceil(len(index) / size)))


def one_cycle(progress: float) -> float:
    """The learning rate as a share of its peak: up in the first 30 % of the training, then down."""
    warm = 0.3
    if progress < warm:
        return 0.5 - 0.5 * math.cos(math.pi * progress / warm)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warm) / (1 - warm))
