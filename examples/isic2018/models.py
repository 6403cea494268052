"""The small models of this example: a network for digits, and a head on frozen features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.isic2018.data import CLASSES, Split


def digits_network(split: Split) -> nn.Module:
    """A small convolutional network for 8x8 images, trained end to end."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(32 * 4 * 4, len(CLASSES)),
    )


class Standardize(nn.Module):
    """Features to mean 0 and standard deviation 1 over the training split, outliers clipped."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        deviation, mean = torch.std_mean(features, dim=(0, 1))
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp(min=1e-5))

    def forward(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).clamp(-8, 8)


def head(split: Split) -> nn.Module:
    """One hidden layer on frozen features."""
    return nn.Sequential(
        Standardize(split.train_inputs),
        nn.Dropout(0.2),
        nn.Linear(split.train_inputs.shape[-1], 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, len(CLASSES)),
    )
