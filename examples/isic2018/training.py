"""One run: a model, an optimiser, a loss and a weighting, on one split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn

import sampleweights as sw
from examples.isic2018.data import CLASSES, Split

LOSSES = ["ce", "focal"]
OPTIMIZERS = ["adam", "sgd"]
# the five of the paper, built from the training counts and the number of epochs
WEIGHTINGS: dict[str, Callable[[list[int], int], sw.Weighter | None]] = {
    "none": lambda counts, epochs: None,
    "class_balanced": lambda counts, epochs: sw.ClassBalanced(counts),
    "effective_number": lambda counts, epochs: sw.EffectiveNumber(counts),
    "self_paced": lambda counts, epochs: sw.SelfPaced(epochs),
    "ohem": lambda counts, epochs: sw.OHEM(epochs),
}


@dataclass(frozen=True)
class Recipe:
    """What is the same for every row of a table."""

    epochs: int
    batch_size: int
    learning_rate: dict[str, float]
    weight_decay: float = 0.0
    gamma: float = 1.0


def build_criterion(
    loss: str, weighting: str, counts: list[int], epochs: int, gamma: float
) -> sw.CrossEntropyLoss | sw.FocalLoss:
    weighter = WEIGHTINGS[weighting](counts, epochs)
    if loss == "focal":
        return sw.FocalLoss(gamma, weighter=weighter)
    return sw.CrossEntropyLoss(weighter=weighter)


def build_optimizer(name: str, model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate[name], recipe.weight_decay
    if name == "adam":
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)
    return torch.optim.SGD(
        model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=decay
    )


def train(
    model: nn.Module,
    criterion: sw.CrossEntropyLoss | sw.FocalLoss,
    optimizer: torch.optim.Optimizer,
    split: Split,
    recipe: Recipe,
    generator: torch.Generator,
) -> None:
    inputs, target = split.train_inputs, split.train_target
    halfway = [recipe.epochs // 2, recipe.epochs * 3 // 4]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, halfway, gamma=0.1)
    model.train()
    for epoch in range(recipe.epochs):
        criterion.set_epoch(epoch)
        order = torch.randperm(len(inputs), generator=generator)
        views = torch.randint(inputs.shape[1], (len(inputs),), generator=generator)
        for index in torch.split(order, recipe.batch_size):
            optimizer.zero_grad()
            loss = criterion(model(inputs[index, views[index]]), target[index])
            loss.backward()
            optimizer.step()
        scheduler.step()


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Probabilities (N, C), averaged over the views of each sample."""
    model.eval()
    return torch.stack([model(view).softmax(1) for view in inputs.unbind(1)]).mean(0)


def evaluate(probabilities: Tensor, split: Split) -> dict[str, float]:
    """The paper's metrics, in percent; a class that is never predicted has precision 0."""
    predicted, target = probabilities.argmax(1).numpy(), split.target.numpy()
    weight = split.sample_weight.numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(
        target, predicted, labels=range(len(CLASSES)), zero_division=0, sample_weight=weight
    )
    metrics = {
        "acc": np.average(predicted == target, weights=weight),
        "bacc": recall.mean(),
        "mean_precision": precision.mean(),
        "mean_f1": f1.mean(),
    }
    for name, values in (("recall", recall), ("precision", precision), ("f1", f1)):
        metrics |= {f"{name}_{c}": value for c, value in zip(CLASSES, values, strict=True)}
    return {name: 100 * float(value) for name, value in metrics.items()}


def run(
    build_model: Callable[[Split], nn.Module],
    split: Split,
    recipe: Recipe,
    *,
    optimizer: str,
    loss: str,
    weighting: str,
    seed: int,
) -> dict[str, float]:
    torch.manual_seed(seed)  # the weights and the dropout of the model
    model = build_model(split)
    counts = split.train_target.bincount(minlength=len(CLASSES)).tolist()
    criterion = build_criterion(loss, weighting, counts, recipe.epochs, recipe.gamma)
    # the order of the samples is the same for every row of the table
    generator = torch.Generator().manual_seed(seed)
    train(model, criterion, build_optimizer(optimizer, model, recipe), split, recipe, generator)
    return evaluate(predict(model, split.inputs), split)
