from __future__ import annotations

import math
from functools import partial

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    keeps_or_drops,
    order_does_not_matter,
    rises_with_the_loss,
    scale_of_the_loss_does_not_matter,
)

import sampleweights as sw

BY_RANK = {order_does_not_matter, scale_of_the_loss_does_not_matter}
CLAIMS = {
    "Compose": {rises_with_the_loss, *BY_RANK},
    "Compose(nested)": BY_RANK,
    "Compose(Deferred)": {rises_with_the_loss, keeps_or_drops, *BY_RANK},
}


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
    assert all(t is target and v.tolist() == [True, True] for _, t, v in seen)


def test_what_an_earlier_one_drops_is_not_valid_for_the_later_ones() -> None:
    loss = torch.arange(8.0)
    hard, easy = sw.OHEM(schedule=0.5), sw.SelfPaced(schedule=0.5)
    assert sw.Compose([hard, easy])(loss).tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert sw.Compose([easy, hard])(loss).tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert sw.Compose([hard, [easy, hard]])(loss).tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    valid = torch.arange(8) < 6
    assert sw.Compose([hard, easy])(loss, valid=valid).tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


fractions = st.sampled_from([0.2, 0.5, 1.0])


@given(st.data(), st.lists(st.floats(0, 9, width=32), min_size=1, max_size=24))
def test_equals_the_oracle(data: st.DataObject, losses: list[float]) -> None:
    size, counts = len(losses), [6, 3, 1]
    target = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    valid = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    weighters: list[sw.Weighter] = []
    weighers: list[reference.Weigher] = []
    kinds = st.lists(st.tuples(st.integers(0, 2), fractions, st.booleans()), min_size=1, max_size=3)
    for kind, fraction, per_class in data.draw(kinds):
        if kind == 2:
            weighters.append(sw.ClassBalanced(counts, normalize=None))
            by_class = [float(weight) for weight in reference.class_balanced(counts)]
            weighers.append(
                lambda _, valid, by_class=by_class: [
                    by_class[t] * v for t, v in zip(target, valid, strict=True)
                ]
            )
        else:
            cls = (sw.SelfPaced, sw.OHEM)[kind]
            weighters.append(cls(schedule=fraction, per_class=per_class))
            weighers.append(
                partial(
                    lambda seen, valid, **how: [
                        float(keep) for keep in reference.selected(seen, valid=valid, **how)
                    ],
                    fraction=fraction,
                    largest=kind == 1,
                    group=target if per_class else None,
                )
            )
    weight = sw.Compose(weighters)(
        torch.tensor(losses, dtype=torch.float64), torch.tensor(target), torch.tensor(valid)
    )
    expected = reference.composed(weighers, losses, valid)
    assert [w * v for w, v in zip(weight.tolist(), valid, strict=True)] == pytest.approx(expected)


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
