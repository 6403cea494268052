"""Does post-hoc adjustment help before the plain model has fitted the rare classes?

The digits of scikit-learn become five classes of 800 (the digits 0 to 4), 280 (5 and 6), 100, 36
and 12 samples; all others are the test set. A small network trains for few or for many epochs.
While it predicts no rare class even on the samples that it is trained on, its logits say little
about these classes, and no subtraction afterwards can bring them out. Class weights change what it
learns first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

import sampleweights as sw
from examples.advice.table import Table

COUNTS = [800, 280, 100, 36, 12]
EPOCHS = [3, 12, 24, 48, 96]
Weighter = sw.Weighter | list[sw.Weighter] | None
WEIGHTERS: dict[str, Callable[[int], Weighter]] = {
    "none": lambda epochs: None,
    "EffectiveNumber": lambda epochs: sw.EffectiveNumber(COUNTS),
    "EffectiveNumber, then OHEM": lambda epochs: [
        sw.EffectiveNumber(COUNTS),
        sw.OHEM(num_epochs=epochs),
    ],
    "OHEM, then EffectiveNumber": lambda epochs: [
        sw.OHEM(num_epochs=epochs),
        sw.EffectiveNumber(COUNTS),
    ],
}
TAUS = [0.1 * i for i in range(16)]


def five_classes(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and targets for the training, then for the test."""
    pixels, digits = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32)
    target = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 3, 4])[torch.tensor(digits)]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target), generator=generator)
    of_class = [order[target[order] == c] for c in range(5)]
    train = torch.cat([index[:n] for index, n in zip(of_class, COUNTS, strict=True)])
    test = torch.cat([index[n:] for index, n in zip(of_class, COUNTS, strict=True)])
    return inputs[train], target[train], inputs[test], target[test]


def trained(
    inputs: Tensor, target: Tensor, weighter: Weighter, epochs: int, seed: int
) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    criterion = sw.CrossEntropyLoss(weighter=weighter)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    steps = epochs * -(-len(target) // 32)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps)
    for epoch in range(epochs):
        criterion.set_epoch(epoch)
        for index in torch.randperm(len(target)).split(32):
            optimizer.zero_grad()
            criterion(model(inputs[index]), target[index]).backward()
            optimizer.step()
            decay.step()
    return model


def run(seeds: int = 5, epochs: list[int] = EPOCHS) -> Table:
    margin = sw.LogitAdjustment(COUNTS)
    values: dict[str, dict[str, list[float]]] = {}
    for count in epochs:
        row: dict[str, list[float]] = {}
        for seed in range(seeds):
            inputs, target, test_inputs, test_target = five_classes(seed)
            reached: dict[str, float] = {}
            for name, weighter in WEIGHTERS.items():
                model = trained(inputs, target, weighter(count), count, seed)
                with torch.no_grad():
                    logits, test_logits = model(inputs), model(test_inputs)

                def balanced(logits: Tensor, truth: Tensor = test_target) -> float:
                    return 100 * float(balanced_accuracy_score(truth, logits.argmax(1)))

                if name == "none":
                    for c, title in ((3, "36"), (4, "12")):
                        recall = (logits.argmax(1)[target == c] == c).float().mean().item()
                        reached[f"training recall, class of {title}"] = 100 * recall
                reached[name] = balanced(test_logits)
                if name == "none":
                    reached["post-hoc, tau 1"] = balanced(margin.posthoc(test_logits))
                    reached["post-hoc, best tau"] = max(
                        balanced(sw.LogitAdjustment(COUNTS, tau=tau).posthoc(test_logits))
                        for tau in TAUS
                    )
            for name, value in reached.items():
                row.setdefault(name, []).append(value)
        values[str(count)] = row
    return Table("rare-classes", "epochs", values)
