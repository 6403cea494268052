"""The small models of this example: a network for digits, and a head on frozen features."""

from __future__ import annotations

from torch import nn

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
