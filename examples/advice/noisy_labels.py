"""Which selection helps when labels are wrong?

The digits of scikit-learn, 900 for the training and the others for the test, as they are (about 90
of each class) and thinned to 90 of the most frequent class and 15 of the rarest. 20 or 40 % of the
training labels are changed to another class at random; the labels of the test are right. The values
are balanced accuracies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

import sampleweights as sw
from examples.advice.table import Table

EPOCHS = 60
PER_CLASS = 90
Weighter = sw.Weighter | None


def ramp(share: float) -> Callable[[float], float]:
    """All samples at first, 1 - share from the tenth epoch on."""
    return lambda epoch: 1 - share * min(epoch / 10, 1)


WEIGHTERS: dict[str, Callable[[float, list[int]], Weighter]] = {
    "no weighting": lambda share, counts: None,
    "`SelfPaced(num_epochs)`": lambda share, counts: sw.SelfPaced(num_epochs=EPOCHS),
    "`SelfPaced(num_epochs, per_class=True)`": lambda share, counts: sw.SelfPaced(
        num_epochs=EPOCHS, per_class=True
    ),
    "`SelfPaced(schedule=0.7, per_class=True)`": lambda share, counts: sw.SelfPaced(
        schedule=0.7, per_class=True
    ),
    "`SelfPaced(schedule=1 - share, per_class=True)`": lambda share, counts: sw.SelfPaced(
        schedule=1 - share, per_class=True
    ),
    "`SelfPaced(schedule=1 - share)`": lambda share, counts: sw.SelfPaced(schedule=1 - share),
    "the same, from 1 in the first 10 epochs": lambda share, counts: sw.SelfPaced(
        schedule=ramp(share)
    ),
    "`OHEM(num_epochs)`": lambda share, counts: sw.OHEM(num_epochs=EPOCHS),
    "`EffectiveNumber`": lambda share, counts: sw.EffectiveNumber(counts),
}


def wrong_digits(ratio: float, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and given labels for the training, inputs and right labels for the test."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, label = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(label), generator=generator)
    counts = [round(PER_CLASS * ratio ** (-place / 9)) for place in range(10)]
    train, test = [], []
    for c, count in zip(torch.randperm(10, generator=generator), counts, strict=True):
        of_class = order[label[order] == c]
        train.append(of_class[:count])
        test.append(of_class[PER_CLASS:])
    rows = torch.cat(train)
    given = label[rows]
    changed = torch.randperm(len(given), generator=generator)[: round(share * len(given))]
    given[changed] += torch.randint(1, 10, (len(changed),), generator=generator)
    return inputs[rows], given % 10, inputs[torch.cat(test)], label[torch.cat(test)]


def reached(data: tuple[Tensor, ...], weighter: Weighter, epochs: int, seed: int) -> float:
    """Balanced accuracy of a training, in percent."""
    inputs, given, test_inputs, test_label = data
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    criterion = sw.CrossEntropyLoss(weighter=weighter)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(epochs):
        criterion.set_epoch(epoch)
        for index in torch.randperm(len(given)).split(32):
            optimizer.zero_grad()
            criterion(model(inputs[index]), given[index]).backward()
            optimizer.step()
    with torch.no_grad():
        predicted = model(test_inputs).argmax(1)
    return 100 * float(balanced_accuracy_score(test_label, predicted))


def run(seeds: int = 5, epochs: int = EPOCHS) -> Table:
    values: dict[str, dict[str, list[float]]] = {name: {} for name in WEIGHTERS}
    for ratio, title in ((1, "alike"), (6, "6 : 1")):
        for share in (0.2, 0.4):
            for seed in range(seeds):
                data = wrong_digits(ratio, share, seed)
                counts = data[1].bincount(minlength=10).tolist()
                for name, weighter in WEIGHTERS.items():
                    value = reached(data, weighter(share, counts), epochs, seed)
                    values[name].setdefault(f"{title}, {share:.0%} wrong", []).append(value)
    return Table("noisy-labels", "weighter", values)
