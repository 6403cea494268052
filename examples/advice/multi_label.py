"""Which loss for labels of which some are rare, and where to put the threshold?

Each picture shows three of scikit-learn's digits side by side, and its labels say which digits are
there. The digits are drawn with frequencies that fall by a factor of 40 from the first to the last,
so the labels are positive in 72 to 2 % of the 1,500 pictures of the training. 3,000 pictures are
the test set, and the digits of the sets are disjoint. Values are macro averages over the ten
labels: average precision, and F1 with the threshold 0.5 and with the threshold of each label that
is best for F1 on 700 pictures of a validation set. In the second half of the columns, one of the
ten labels of every tenth picture is wrong, at random, in the training and the validation set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from torch import Tensor, nn

import sampleweights as sw
from examples.advice.table import Table

EPOCHS = 20
SIZES = {"train": 1500, "validation": 700, "test": 3000}
Criterion = Callable[[Tensor, Tensor], Tensor]

CRITERIA: dict[str, Callable[[Tensor], Criterion]] = {
    "`BCEWithLogitsLoss()`": lambda counts: sw.BCEWithLogitsLoss(),
    "`BCEWithLogitsLoss(pos_weight=...)`": lambda counts: sw.BCEWithLogitsLoss(
        pos_weight=counts[:, 0] / counts[:, 1]
    ),
    "`BCEWithLogitsLoss(weighter=ClassBalanced(counts))`": lambda counts: sw.BCEWithLogitsLoss(
        weighter=sw.ClassBalanced(counts)
    ),
    "`BCEWithLogitsLoss(weighter=ClassBalanced(counts, power=0.5))`": lambda counts: (
        sw.BCEWithLogitsLoss(weighter=sw.ClassBalanced(counts, power=0.5))
    ),
    "`BCEWithLogitsLoss(weighter=ClassBalanced(counts.sum(0)))`": lambda counts: (
        sw.BCEWithLogitsLoss(weighter=sw.ClassBalanced(counts.sum(0)))
    ),
    "`BCEWithLogitsLoss(weighter=OHEM(schedule=0.25))`": lambda counts: sw.BCEWithLogitsLoss(
        weighter=sw.OHEM(schedule=0.25)
    ),
    "`BinaryFocalLoss()`": lambda counts: sw.BinaryFocalLoss(),
    "`BinaryFocalLoss(alpha=None)`": lambda counts: sw.BinaryFocalLoss(alpha=None),
    "`BinaryFocalLoss(weighter=OHEM(schedule=0.25))`": lambda counts: sw.BinaryFocalLoss(
        weighter=sw.OHEM(schedule=0.25)
    ),
    "`AsymmetricLoss()`": lambda counts: sw.AsymmetricLoss(),
}


def pictures(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs (N, 192) and labels (N, 10) of each set."""
    pixels, digits = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32)
    generator = np.random.default_rng(seed)
    frequency = 40.0 ** (-np.arange(10) / 9)
    frequency /= frequency.sum()
    order = generator.permutation(len(digits))
    parts = dict(zip(SIZES, np.array_split(order, 3), strict=True))
    result = {}
    for name, size in SIZES.items():
        shown = generator.choice(10, (size, 3), p=frequency)
        of_digit = [parts[name][digits[parts[name]] == digit] for digit in range(10)]
        rows = np.array([[generator.choice(of_digit[d]) for d in picture] for picture in shown])
        label = torch.zeros(size, 10).scatter_(1, torch.from_numpy(shown), 1.0)
        result[name] = inputs[torch.from_numpy(rows)].flatten(1), label
    return result


def thresholds(label: NDArray[np.float32], score: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each label the score from which on F1 is highest."""
    best = []
    for truth, values in zip(label.T, score.T, strict=True):
        precision, recall, threshold = precision_recall_curve(truth, values)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best.append(threshold[f1[:-1].argmax()])
    return np.array(best)


def with_wrong_labels(label: Tensor, seed: int) -> Tensor:
    """One label of every tenth picture is changed."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(label), generator=generator)[: len(label) // 10]
    changed = label.clone()
    columns = torch.randint(0, label.shape[1], rows.shape, generator=generator)
    changed[rows, columns] = 1 - changed[rows, columns]
    return changed


def trained(
    inputs: Tensor, label: Tensor, criterion: Criterion, seed: int, epochs: int
) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(label)).split(32):
            optimizer.zero_grad()
            criterion(model(inputs[index]), label[index]).backward()
            optimizer.step()
    return model


def run(seeds: int = 5, epochs: int = EPOCHS) -> Table:
    values: dict[str, dict[str, list[float]]] = {name: {} for name in CRITERIA}
    for seed in range(seeds):
        data = pictures(seed)
        truth = data["test"][1].numpy()
        for labels in ("right", "some wrong"):
            inputs, label = data["train"]
            held_inputs, held_label = data["validation"]
            if labels == "some wrong":
                label, held_label = (
                    with_wrong_labels(label, seed),
                    with_wrong_labels(held_label, seed),
                )
            counts = torch.stack([(label == 0).sum(0), (label == 1).sum(0)], 1)
            for name, criterion in CRITERIA.items():
                model = trained(inputs, label, criterion(counts), seed, epochs)
                with torch.no_grad():
                    score = model(data["test"][0]).sigmoid().numpy()
                    held_out = model(held_inputs).sigmoid().numpy()
                chosen = thresholds(held_label.numpy(), held_out)
                for column, value in {
                    "AP": average_precision_score(truth, score),
                    "F1 at 0.5": f1_score(truth, score >= 0.5, average="macro", zero_division=0),
                    "F1, chosen thresholds": f1_score(
                        truth, score >= chosen, average="macro", zero_division=0
                    ),
                }.items():
                    values[name].setdefault(f"{labels}: {column}", []).append(100 * float(value))
    return Table("multi-label", "criterion", values)
