from __future__ import annotations

import math

import pytest
import torch

import sampleweights as sw


def test_order_is_meaning() -> None:
    loss = torch.tensor([1.0, 1.1, 1.2, 0.9])
    target = torch.tensor([1, 0, 0, 0])
    balanced, hard = sw.ClassBalanced([3, 1]), sw.OHEM(schedule=0.25)
    by_weighted = sw.Compose([balanced, hard])(loss, target)
    by_raw = sw.Compose([hard, balanced])(loss, target)
    assert by_weighted.tolist() == [2, 0, 0, 0]
    torch.testing.assert_close(by_raw, torch.tensor([0, 0, 2 / 3, 0]))


def test_each_weighter_sees_the_loss_times_the_weights_before_it() -> None:
    seen = []

    class Doubler(sw.Weighter):
        def forward(self, loss, target=None, valid=None):
            seen.append((loss.tolist(), target, valid))
            return torch.full_like(loss, 2.0)

    loss, valid = torch.tensor([1.0, 3.0]), torch.tensor([True, True])
    target = torch.tensor([0, 1])
    weight = sw.Compose([Doubler(), Doubler(), [Doubler()]])(loss, target, valid)
    assert weight.tolist() == [8, 8]
    assert [losses for losses, _, _ in seen] == [[1, 3], [2, 6], [4, 12]]
    assert all(t is target and v is valid for _, t, v in seen)


def test_what_one_drops_does_not_come_back_as_nan() -> None:
    loss = torch.tensor([math.inf, 1.0, 2.0])
    weight = sw.Compose([sw.SelfPaced(schedule=0.5), sw.OHEM(schedule=0.25)])(loss)
    assert weight.tolist() == [0, 0, 1]


def test_a_plain_list_works_everywhere() -> None:
    balanced, hard = sw.ClassBalanced([3, 1]), sw.OHEM(10)
    for criterion in (
        sw.CrossEntropyLoss(weighter=[balanced, hard]),
        sw.FocalLoss(weighter=(balanced, hard)),
        sw.WeightedLoss(torch.nn.CrossEntropyLoss(reduction="none"), weighter=[balanced, hard]),
    ):
        assert isinstance(criterion.weighter, sw.Compose)
        assert list(criterion.weighter.weighters) == [balanced, hard]


def test_inactive_when_all_are() -> None:
    both = sw.Compose([sw.OHEM(10), sw.SelfPaced(20)])
    both.set_epoch(5)
    assert not both.inactive
    both.set_epoch(10)
    assert both.inactive


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least one weighter, got none"):
        sw.Compose([])
    with pytest.raises(TypeError, match="must be a Weighter or a list of them, got str"):
        sw.CrossEntropyLoss(weighter="ohem")
    with pytest.raises(TypeError, match="got ABCMeta"):
        sw.Compose([sw.OHEM])
    with pytest.raises(ValueError, match=r"same number of classes, got \[2, 3\]"):
        sw.Compose([sw.ClassBalanced([3, 1]), sw.EffectiveNumber([3, 1, 1])])


def test_a_weighter_of_ones_own_in_a_criterion() -> None:
    class Halves(sw.Weighter):
        def forward(self, loss, target=None, valid=None):
            assert not loss.requires_grad
            return torch.full_like(loss, 0.5)

    logits = torch.randn(4, 3, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0])
    value = sw.CrossEntropyLoss(weighter=Halves())(logits, target)
    torch.testing.assert_close(value, sw.CrossEntropyLoss()(logits, target) / 2)


def test_a_weighter_with_parameters_gets_no_gradient() -> None:
    class Learned(sw.Weighter):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, loss, target=None, valid=None):
            return self.scale * loss

    weighter = Learned()
    logits = torch.randn(4, 3, requires_grad=True)
    sw.CrossEntropyLoss(weighter=weighter)(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert weighter.scale.grad is None


def test_a_weighter_that_returns_another_shape_is_an_error() -> None:
    class Scalar(sw.Weighter):
        def forward(self, loss, target=None, valid=None):
            return loss.mean()

    with pytest.raises(ValueError, match=r"one weight per sample, shape \(4,\), got \(\)"):
        sw.CrossEntropyLoss(weighter=Scalar())(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        sw.Weighter()
