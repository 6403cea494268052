"""The same loss and gradient as the plain call, from a graph of the kept samples only."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw
from sampleweights import selective_loss

TREE = sw.Taxonomy({"a": ["a0", "a1"], "b": ["b0", "b1"]})
COUNTS = [9, 5, 2, 1]


def convolutions(outputs: int, *, dense: bool = False) -> nn.Module:
    torch.manual_seed(0)
    head = [] if dense else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, outputs, 1), *head)


def images(size: int = 12) -> Tensor:
    return torch.randn(size, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def indices(*shape: int) -> Tensor:
    target = torch.randint(4, shape, generator=torch.Generator().manual_seed(2))
    target.view(-1)[1] = -100
    return target


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


WEIGHTERS: dict[str, Any] = {
    "OHEM": lambda: sw.OHEM(schedule=0.3),
    "OHEM(per_class)": lambda: sw.OHEM(schedule=0.3, per_class=True),
    "SelfPaced": lambda: sw.SelfPaced(schedule=0.3),
    "Compose": lambda: sw.Compose([sw.ClassBalanced(COUNTS), sw.OHEM(schedule=0.3)]),
    "ClassBalanced": lambda: sw.ClassBalanced(COUNTS),
    "inactive": lambda: sw.OHEM(schedule=1.0),
    "none": lambda: None,
}
LOSSES: dict[str, Any] = {
    "CrossEntropyLoss": sw.CrossEntropyLoss,
    "CrossEntropyLoss(weight)": lambda **kw: sw.CrossEntropyLoss(torch.linspace(1, 2, 4), **kw),
    "FocalLoss(dense)": sw.FocalLoss,
    "HierarchicalLoss": lambda **kw: sw.HierarchicalLoss(sw.FocalLoss(), taxonomy=TREE, **kw),
}


@pytest.mark.parametrize("weighter", WEIGHTERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_plain_call(loss: str, weighter: str) -> None:
    dense = "dense" in loss
    model: nn.Module = convolutions(4, dense=dense)
    if "Hier" in loss:
        model = nn.Sequential(convolutions(12), nn.Unflatten(1, (2, 6)))
    inputs, target = images(), indices(12, 6, 6) if dense else indices(12)
    sample_weight = torch.rand(target.shape, generator=torch.Generator().manual_seed(3))
    for reduction, extra in itertools.product(
        ("mean", "weighted_mean", "sum"),
        ({}, {"sample_weight": sample_weight}, {"normalizer": 5.0}),
    ):
        if reduction == "sum" and "normalizer" in extra:
            continue
        criterion = LOSSES[loss](weighter=WEIGHTERS[weighter](), reduction=reduction)
        expected = criterion(model(inputs), target, **extra)
        value = selective_loss(model, criterion, inputs, target, **extra)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            gradients(model, value), gradients(model, expected), rtol=1e-5, atol=1e-6
        )


class Counting(nn.Module):
    """Remembers how many samples went through, and how many of them with a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.seen: list[tuple[int, bool]] = []

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        self.seen.append((len(x), torch.is_grad_enabled()))
        logits: Tensor = self.linear(x) * scale
        return logits


def test_only_the_kept_samples_have_a_graph() -> None:
    model, target = Counting(), torch.randint(4, (16,))
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(num_epochs=10))
    for inputs in (torch.randn(16, 5), (torch.randn(16, 5), 2.0), {"x": torch.randn(16, 5)}):
        model.seen.clear()
        criterion.set_epoch(0)
        selective_loss(model, criterion, inputs, target).backward()
        assert model.seen == [(16, False), (8, True)]
        criterion.set_epoch(9)
        selective_loss(model, criterion, inputs, target).backward()
        assert model.seen[2:] == [(16, True)]


def test_running_statistics_move_once() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    selective_loss(model, criterion, torch.randn(16, 5), torch.randint(4, (16,)))
    assert model[1].num_batches_tracked == 1
    before = model[1].running_mean.clone()
    model.eval()
    selective_loss(model, criterion, torch.randn(16, 5), torch.randint(4, (16,)))
    assert model[1].running_mean.equal(before)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 4)

    def features(self, inputs: Tensor) -> Tensor:
        return self.norm(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


FUNCTIONS: dict[str, Any] = {
    "the module": lambda model: model,
    "a function": lambda model: lambda inputs: model(inputs),
    "a method that calls modules": lambda model: lambda x: model.head(model.features(x)),
    "a bound method": lambda model: model.forward,
    "a partial": lambda model: functools.partial(model),
    "in a module that is not in training": lambda model: (
        nn.Sequential(model).eval().requires_grad_(True)
    ),
}


@pytest.mark.parametrize("how", FUNCTIONS)
def test_running_statistics_move_once_however_the_model_is_called(how: str) -> None:
    model = Backbone()
    called = FUNCTIONS[how](model)
    model.train()  # also inside of one that is not
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    selective_loss(called, criterion, torch.randn(16, 5), torch.randint(4, (16,)))
    assert model.norm.num_batches_tracked == 1
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_function_that_fails_leaves_nothing_behind() -> None:
    model = Backbone()

    def fails(inputs: Tensor) -> Tensor:
        model(inputs)
        raise RuntimeError("no logits")

    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    with pytest.raises(RuntimeError, match="no logits"):
        selective_loss(fails, criterion, torch.randn(16, 5), torch.randint(4, (16,)))
    assert model.norm.num_batches_tracked == 0
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_nothing_kept_is_zero_with_its_graph() -> None:
    model = nn.Linear(5, 4)
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    for target in (torch.full((6,), -100), torch.zeros(0, dtype=torch.long)):
        model.zero_grad()
        loss = selective_loss(model, criterion, torch.randn(len(target), 5), target)
        loss.backward()
        assert loss.item() == 0
        assert model.weight.grad is not None
        assert (model.weight.grad == 0).all()


def test_what_does_not_fit() -> None:
    inputs, target = torch.randn(6, 3, 6, 6), torch.zeros(6, dtype=torch.long)
    with pytest.raises(ValueError, match="reduction='none'"):
        selective_loss(convolutions(4), sw.CrossEntropyLoss(reduction="none"), inputs, target)
    levels = sw.HierarchicalLoss(sw.FocalLoss(weighter=sw.OHEM(schedule=0.5)), taxonomy=TREE)
    with pytest.raises(ValueError, match="no weighters on single levels"):
        selective_loss(convolutions(12), levels, inputs, target)
