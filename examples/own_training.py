"""Which weighting helps *your* training? A ``fit`` function for ``sampleweights.compare``.

A small convolutional network learns scikit-learn's digits, thinned to a long tail.

python -m examples.own_training
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sampleweights as sw
from sampleweights.compare import compare

NUM_EPOCHS = 15


def long_tailed_digits() -> tuple[Tensor, Tensor]:
    """Images of 8 x 8 pixels and their classes: 170 zeros, fewer and fewer, 5 nines."""
    digits = load_digits()
    counts = np.geomspace(170, 5, 10).round().astype(int).tolist()
    kept = np.concatenate([np.flatnonzero(digits.target == c)[:n] for c, n in enumerate(counts)])
    images = torch.from_numpy(digits.images[kept]).float().unsqueeze(1) / 16
    return images, torch.from_numpy(digits.target[kept])


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip


IMAGES, TARGET = long_tailed_digits()


def fit(
    criterion: Any,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    sampler: Any = None,
    seed: int = 0,
) -> Tensor:
    """Train on the samples ``train``, and return the logits of the samples ``validation``."""
    torch.manual_seed(seed)
    model = network()
    data = TensorDataset(IMAGES[train], TARGET[train])
    batches = DataLoader(data, batch_size=32, sampler=sampler, shuffle=sampler is None)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, NUM_EPOCHS * len(batches))
    for epoch in range(NUM_EPOCHS):
        criterion.set_epoch(epoch)  # for OHEM, SelfPaced and Deferred
        if sampler is not None:
            sampler.set_epoch(epoch)
        for images, target in batches:
            optimizer.zero_grad()
            criterion(model(images), target).backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        return model.eval()(IMAGES[validation])


# what is compared: functions of the class counts in the training part and the number of epochs
ENTRIES: dict[str, Any] = {
    "no weighting": lambda counts, epochs: sw.CrossEntropyLoss(),
    "ClassBalanced": lambda counts, epochs: sw.CrossEntropyLoss(weighter=sw.ClassBalanced(counts)),
    "OHEM": lambda counts, epochs: sw.CrossEntropyLoss(weighter=sw.OHEM(epochs)),
    "balanced sampling": lambda counts, epochs: (
        sw.CrossEntropyLoss(),
        sw.WeightedSampler.from_targets,
    ),
}


def main() -> None:
    print(compare(fit, TARGET, num_epochs=NUM_EPOCHS, entries=ENTRIES))


if __name__ == "__main__":
    main()
