from __future__ import annotations

import pytest
import torch
from torch import nn

import sampleweights as sw


def test_any_per_sample_loss() -> None:
    logits, target = torch.randn(6, requires_grad=True), torch.rand(6)
    for loss in (
        nn.BCEWithLogitsLoss(reduction="none"),
        nn.HuberLoss(reduction="none"),
        lambda a, b: (a - b) ** 2,
    ):
        each = loss(logits, target)
        hardest = each.topk(2).values.sum() / 6
        criterion = sw.WeightedLoss(loss, weighter=sw.OHEM(schedule=1 / 3))
        torch.testing.assert_close(criterion(logits, target), hardest)


def test_around_torchs_cross_entropy_it_is_ours() -> None:
    logits, target = torch.randn(8, 5), torch.randint(5, (8,))
    target[2] = -100
    weighter = [sw.EffectiveNumber([9, 8, 7, 6, 5]), sw.OHEM(schedule=0.5, per_class=True)]
    wrapped = sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none"), weighter=weighter)
    ours = sw.CrossEntropyLoss(weighter=weighter)
    torch.testing.assert_close(wrapped(logits, target), ours(logits, target))


def test_ignore_index_comes_from_the_criterion_or_the_argument() -> None:
    own = sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none", ignore_index=255))
    assert own.ignore_index == 255
    squared = sw.WeightedLoss(lambda a, b: (a - b) ** 2, ignore_index=-1)
    value = squared(torch.tensor([1.0, 7.0, 3.0]), torch.tensor([0.0, -1.0, 0.0]))
    assert value == 5
    nothing = squared(torch.tensor([1.0], requires_grad=True), torch.tensor([-1.0]))
    assert nothing == 0
    nothing.backward()


def test_modules_inside_are_submodules() -> None:
    inner = sw.CrossEntropyLoss(reduction="none", weighter=sw.OHEM(10))
    outer = sw.WeightedLoss(inner)
    outer.set_epoch(7)
    assert inner.weighter.inactive
    assert "criterion.weighter.epoch" in outer.state_dict()


def test_bad_criteria() -> None:
    for reduction in ("mean", "sum"):
        with pytest.raises(ValueError, match=f"reduction='none'.*HuberLoss.*{reduction}"):
            sw.WeightedLoss(nn.HuberLoss(reduction=reduction))
    with pytest.raises(ValueError, match="reduction='none'"):
        sw.WeightedLoss(sw.CrossEntropyLoss())
    with pytest.raises(TypeError, match="criterion must be a module or function .* got 'huber'"):
        sw.WeightedLoss("huber")
    with pytest.raises(ValueError, match=r"got a scalar for a target of shape \(3,\)"):
        sw.WeightedLoss(lambda a, b: (a - b).mean())(torch.zeros(3), torch.zeros(3))


def test_more_bad_criteria() -> None:
    with pytest.raises(TypeError, match="criterion must be a module or function"):
        sw.WeightedLoss(nn.CrossEntropyLoss)  # the class, not an instance
    with pytest.raises(ValueError, match="one value per sample, got float"):
        sw.WeightedLoss(lambda a, b: 1.0)(torch.zeros(3), torch.zeros(3))
    per_row = sw.WeightedLoss(lambda a, b: (a - b).square().mean(1), ignore_index=-1)
    with pytest.raises(ValueError, match=r"ignore_index needs .* \(3,\), got \(3, 2\)"):
        per_row(torch.zeros(3, 2), torch.zeros(3, 2))


def test_repr_rebuilds_the_call() -> None:
    criterion = sw.WeightedLoss(nn.L1Loss(reduction="none"), ignore_index=-1, reduction="sum")
    assert "ignore_index=-1, reduction='sum'" in repr(criterion)
