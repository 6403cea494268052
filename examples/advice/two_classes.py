"""Two classes, of which one is rare: 0.1 % positives.

The samples have 20 features, and the log-odds of a positive are a fixed function of them, a linear
one and a bent one. 60,000 samples train (about 60 positives), 60,000 choose thresholds, and 200,000
test. A linear model is trained until it converges, a small network for 10 epochs or 40. A missed
positive costs 100, a false alarm 1, so a calibrated probability of 1 / 101 is the threshold of
least cost. Costs are those of 1,000 samples: never to raise an alarm costs about 100. Raw
probabilities are the sigmoid of the logits; corrected ones are without what the weights or the
sampler put into the odds (for focal loss from a logistic regression on the validation set).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve
from torch import Tensor, nn

import sampleweights as sw
from examples.advice.table import Table

SIZES = {"train": 60_000, "validation": 60_000, "test": 200_000}
SHARE = 0.001
COST_FN, COST_FP = 100.0, 1.0
THRESHOLD = COST_FP / (COST_FP + COST_FN)
EPOCHS, BATCH = 10, 512
Logits = NDArray[np.float64]


@dataclass
class Method:
    """How to train, and how to make probabilities of the logits."""

    criterion: Callable[[Tensor], nn.Module]
    """of the counts (negatives, positives)"""
    power: float | None = None
    """of a WeightedSampler"""
    correct: Callable[[Tensor, Tensor], Tensor] = lambda logits, counts: logits
    """of logits and counts: logits whose sigmoid is the probability"""
    platt: bool = False
    """whether a logistic regression on the validation set makes the probabilities instead"""
    epochs: int = EPOCHS
    converged: bool = False
    """whether to train a linear model, by L-BFGS to the end, instead of the network"""


def plain() -> nn.Module:
    return sw.BinaryFocalLoss(gamma=0, alpha=None)


def balanced(counts: Tensor) -> nn.Module:
    return sw.BinaryFocalLoss(gamma=0, alpha=None, weighter=sw.ClassBalanced(counts))


def calibrated(logits: Tensor, counts: Tensor) -> Tensor:
    return sw.ClassBalanced(counts).calibrate(logits)


METHODS = {
    "linear, no weighting": Method(lambda counts: plain(), converged=True),
    "linear, ClassBalanced": Method(balanced, correct=calibrated, converged=True),
    "no weighting": Method(lambda counts: plain()),
    "no weighting, 40 epochs": Method(lambda counts: plain(), epochs=40),
    "ClassBalanced": Method(balanced, correct=calibrated),
    "balanced sampling": Method(
        lambda counts: plain(),
        power=0.0,
        correct=calibrated,
    ),
    "square-root sampling": Method(
        lambda counts: plain(),
        power=0.5,
        correct=lambda logits, counts: logits - (counts[0] / counts[1]).log() / 2,
    ),
    "BinaryFocalLoss()": Method(lambda counts: sw.BinaryFocalLoss(), platt=True),
}


def samples(sizes: list[int], seed: int) -> list[tuple[Tensor, Tensor, Logits]]:
    """Inputs (N, 20), targets (N,) and the true log-odds of every sample, for each size."""
    task = np.random.default_rng(0)
    linear = task.normal(size=20)
    first, second = task.normal(size=(20, 4)) / 20**0.5, task.normal(size=4)

    def score(inputs: NDArray[np.float64]) -> Logits:
        bent = np.tanh(1.5 * inputs @ first) @ second
        return np.asarray(3.5 * inputs @ linear / np.linalg.norm(linear) + bent)

    known = score(task.normal(size=(200_000, 20)))
    low, high = -30.0, 0.0
    for _ in range(25):  # the intercept with which a share of SHARE is positive
        middle = (low + high) / 2
        if (1 / (1 + np.exp(-known - middle))).mean() > SHARE:
            high = middle
        else:
            low = middle
    generator = np.random.default_rng([1, seed])
    result = []
    for size in sizes:
        inputs = generator.normal(size=(size, 20))
        truth = score(inputs) + low
        target = generator.random(size) < 1 / (1 + np.exp(-truth))
        result.append((torch.tensor(inputs).float(), torch.tensor(target).float(), truth))
    return result


def trained(inputs: Tensor, target: Tensor, method: Method, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    criterion = method.criterion(target.long().bincount(minlength=2))
    if method.converged:
        model = nn.Sequential(nn.Linear(20, 1), nn.Flatten(0))
        steps = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            steps.zero_grad()
            loss: Tensor = criterion(model(inputs), target)
            loss.backward()
            return loss

        steps.step(closure)
        return model
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    sampler = None
    if method.power is not None:
        sampler = sw.WeightedSampler.from_targets(target.long(), power=method.power, seed=seed)
    for epoch in range(min(epochs, method.epochs)):
        if sampler is None:
            order = torch.randperm(len(target))
        else:
            sampler.set_epoch(epoch)
            order = torch.tensor(list(sampler))
        for index in order.split(BATCH):
            optimizer.zero_grad()
            criterion(model(inputs[index]), target[index]).backward()
            optimizer.step()
    return model


def cost(target: NDArray[np.bool_], alarm: NDArray[np.bool_]) -> float:
    """Of 1,000 samples."""
    missed, false = (target & ~alarm).sum(), (~target & alarm).sum()
    return float(1000 * (COST_FN * missed + COST_FP * false) / len(target))


def cheapest(target: NDArray[np.bool_], logits: Logits) -> float:
    """The threshold of least cost on these samples."""
    order = np.argsort(-logits, kind="stable")
    found, false = np.cumsum(target[order]), np.cumsum(~target[order])
    costs = COST_FN * (target.sum() - found) + COST_FP * false
    return float(logits[order][costs.argmin()])


def judged(
    target: NDArray[np.bool_], raw: Logits, corrected: Logits, threshold: float
) -> dict[str, float]:
    """The columns of the table."""
    at = np.log(THRESHOLD / (1 - THRESHOLD))
    precision, recall, _ = precision_recall_curve(target, raw)
    probability = 1 / (1 + np.exp(-corrected))
    return {
        "AP, %": 100 * float(average_precision_score(target, raw)),
        "precision at recall 50 %": 100 * float(precision[recall >= 0.5].max()),
        "mean probability, raw, %": 100 * float((1 / (1 + np.exp(-raw))).mean()),
        "corrected, %": 100 * float(probability.mean()),
        "cost: raw at 0.5": cost(target, raw >= 0),
        "raw at 1/101": cost(target, raw >= at),
        "corrected at 1/101": cost(target, corrected >= at),
        "best on validation": cost(target, raw >= threshold),
    }


def run(seeds: int = 5, epochs: int = 1000, scale: float = 1.0) -> Table:
    """At most so many epochs, and the three sets times ``scale``: less of both for a test."""
    values: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        sizes = [int(size * scale) for size in SIZES.values()]
        train, validation, test = samples(sizes, seed)
        counts = train[1].long().bincount(minlength=2)
        held, truth = validation[1].numpy() > 0, test[1].numpy() > 0
        reached = {}
        for name, method in METHODS.items():
            model = trained(train[0], train[1], method, epochs, seed)
            with torch.no_grad():
                held_logits, logits = model(validation[0]).double(), model(test[0]).double()
            corrected = method.correct(logits, counts).numpy()
            if method.platt:
                line = LogisticRegression(C=1e6).fit(held_logits[:, None].numpy(), held)
                corrected = line.decision_function(logits[:, None].numpy())
            threshold = cheapest(held, held_logits.numpy())
            reached[name] = judged(truth, logits.numpy(), corrected, threshold)
        reached["the true probabilities"] = judged(
            truth, test[2], test[2], cheapest(held, validation[2])
        )
        for name, row in reached.items():
            for column, value in row.items():
                values.setdefault(name, {}).setdefault(column, []).append(value)
    return Table("two-classes", "training", values)
