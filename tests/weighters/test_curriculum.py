from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from properties import (
    falls_with_the_loss,
    keeps_or_drops,
    order_does_not_matter,
    rises_with_the_loss,
    scale_of_the_loss_does_not_matter,
)

import sampleweights as sw
from sampleweights.schedules import Constant, Linear, Sigmoid

BY_RANK = {order_does_not_matter, scale_of_the_loss_does_not_matter, keeps_or_drops}
EASIEST, HARDEST = {falls_with_the_loss, *BY_RANK}, {rises_with_the_loss, *BY_RANK}
CLAIMS = {
    "SelfPaced": EASIEST,
    "SelfPaced(Linear)": EASIEST,
    "SelfPaced(per_class)": EASIEST,
    "OHEM": HARDEST,
    "OHEM(0.25)": HARDEST,
    "OHEM(per_class)": HARDEST,
}


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
def test_follows_the_schedule(cls: type) -> None:
    weighter = cls(num_epochs=12)
    loss = torch.randperm(31, generator=torch.Generator().manual_seed(0)).float()
    for epoch in range(12):
        weighter.set_epoch(epoch)
        fraction = reference.sigmoid_fraction(epoch, 12)
        expected = reference.selected(loss.tolist(), fraction, largest=cls is sw.OHEM)
        assert weighter(loss).bool().tolist() == expected
        assert weighter.fraction.item() == pytest.approx(fraction, rel=1e-12)
        assert weighter.inactive == (epoch >= 6)


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
def test_per_class_equals_the_oracle(cls: type) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(40, generator=generator)
    target = torch.randint(4, (40,), generator=generator)
    valid = torch.rand(40, generator=generator) < 0.8
    weight = cls(schedule=0.3, per_class=True)(loss, target, valid)
    largest = cls is sw.OHEM
    expected = reference.selected(
        loss.tolist(), 0.3, largest=largest, valid=valid.tolist(), group=target.tolist()
    )
    assert weight.bool().tolist() == expected
    for c in target[valid].unique():
        kept = weight[(target == c) & valid].sum()
        assert kept == reference.kept_count(0.3, int(((target == c) & valid).sum()))


def test_easy_samples_of_each_class_leave_rare_classes_in() -> None:
    target = torch.tensor([0] * 95 + [1] * 5)
    loss = torch.rand(100, generator=torch.Generator().manual_seed(0)) + 2 * target
    balanced = sw.ClassBalanced([95, 5])
    easy = sw.SelfPaced(schedule=0.5, per_class=True)
    for weighter in (easy, sw.Compose([balanced, easy]), sw.Compose([easy, balanced])):
        kept = weighter(loss, target) > 0
        assert kept[target == 1].sum() == 3
        assert kept.sum() == 51


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
def test_nan_is_kept(cls: type) -> None:
    weight = cls(schedule=0.25)(torch.tensor([1.0, 9.0, math.nan, 0.1]))
    assert weight.tolist() == [0, 0, 1, 0]
    criterion = sw.CrossEntropyLoss(weighter=cls(schedule=0.25))
    logits = torch.randn(4, 3)
    logits[2, 0] = math.nan
    assert criterion(logits, torch.tensor([0, 1, 2, 0])).isnan()


def test_infinite_loss_of_weight_zero_adds_exactly_nothing() -> None:
    logits = torch.tensor([[0.0, -math.inf], [0.0, 1.0]], requires_grad=True)
    target = torch.tensor([1, 0])
    for criterion in (
        sw.CrossEntropyLoss(weighter=sw.SelfPaced(schedule=0.5)),
        sw.FocalLoss(gamma=0.5, weighter=sw.SelfPaced(schedule=0.5)),
    ):
        logits.grad = None
        value = criterion(logits, target)
        value.backward()
        plain = type(criterion)(**({"gamma": 0.5} if criterion.gamma else {}))
        expected = plain(logits.detach()[1:], target[1:]) / 2
        torch.testing.assert_close(value, expected)
        assert logits.grad[0].tolist() == [0, 0]
        assert logits.grad[1].isfinite().all()


def test_schedules_of_every_kind() -> None:
    assert sw.OHEM(schedule=0.25).schedule == Constant(0.25)
    assert sw.OHEM(schedule=1).inactive
    assert sw.OHEM(10).schedule == Sigmoid(10)
    own = sw.SelfPaced(schedule=lambda epoch: 0.1 * (epoch + 1))
    own.set_epoch(3)
    assert own.fraction == pytest.approx(0.4)
    for epoch in (np.int64(2), np.float32(2), 2.0, torch.tensor(2)):
        weighter = sw.OHEM(schedule=Linear(8))
        weighter.set_epoch(epoch)
        assert weighter.fraction == 0.75


def test_load_state_dict_restores_what_is_skipped() -> None:
    done, fresh = sw.OHEM(10), sw.OHEM(10)
    done.set_epoch(9)
    fresh.load_state_dict(done.state_dict())
    assert fresh.inactive
    fresh.load_state_dict(sw.OHEM(10).state_dict())
    assert not fresh.inactive
    assert fresh(torch.tensor([1.0, 2.0])).tolist() == [0, 1]


def test_a_checkpoint_holds_the_epoch_and_the_own_schedule_gives_the_fraction() -> None:
    saved, other, longer = sw.OHEM(10), sw.OHEM(schedule=0.25), sw.OHEM(40)
    saved.set_epoch(9)
    assert saved.state_dict() == {"epoch": torch.tensor(9_000_000)}
    other.load_state_dict(saved.state_dict())
    assert other(torch.rand(100)).sum() == 25
    longer.load_state_dict(saved.state_dict())
    assert longer.epoch == 9_000_000
    assert longer.fraction == Sigmoid(40)(9)
    assert not longer.inactive


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_fills_a_weighter_without_memory(assign: bool) -> None:
    saved = sw.SelfPaced(10)
    saved.set_epoch(2)
    weighter = sw.SelfPaced(10).to("meta")
    if not assign:
        weighter.to_empty(device="cpu")
    weighter.load_state_dict(saved.state_dict(), assign=assign)
    assert weighter.fraction == saved.fraction
    assert weighter(torch.arange(50.0)).equal(saved(torch.arange(50.0)))


def test_an_older_checkpoint_holds_the_epoch_as_a_float() -> None:
    weighter = sw.OHEM(10)
    weighter.load_state_dict({"epoch": torch.tensor(2.5, dtype=torch.float64)})
    assert weighter.epoch == 2_500_000
    assert weighter.fraction == Sigmoid(10)(2.5)
    meta = sw.OHEM(10).to("meta")
    meta.load_state_dict({"epoch": torch.tensor(9.0, dtype=torch.float64)}, assign=True)
    assert meta.inactive


def test_a_state_without_the_epoch_is_as_strict_as_torch() -> None:
    weighter = sw.OHEM(10)
    weighter.set_epoch(3)
    with pytest.raises(RuntimeError, match="Missing key"):
        weighter.load_state_dict({})
    weighter.load_state_dict({}, strict=False)
    assert weighter.epoch == 3_000_000


def calls(weighter: sw.Weighter, times: int = 21) -> None:
    for _ in range(times):
        weighter(torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
def test_a_forgotten_set_epoch_is_told_once(cls: type) -> None:
    weighter = cls(10)
    calls(weighter, 19)
    message = rf"{cls.__name__} was called 20 times .* fraction 0\.5 of epoch 0.*set_epoch\(epoch"
    with pytest.warns(UserWarning, match=message) as told:
        calls(weighter, 60)
    assert len(told) == 1
    late = cls(schedule=lambda epoch: 0.5 if epoch < 30 else 1.0)
    with pytest.warns(UserWarning, match=message):
        calls(late)


def test_nobody_is_told_who_did_not_forget() -> None:
    """Warnings are errors here."""
    told = sw.OHEM(10)
    told.set_epoch(0)
    evaluated = sw.OHEM(10).eval()
    loaded = sw.OHEM(10)
    loaded.load_state_dict(told.state_dict())
    constant = sw.OHEM(schedule=lambda epoch: 0.5)
    listed = sw.OHEM(schedule=lambda epoch: [0.5][int(epoch)])  # ends with the training
    for weighter in (told, evaluated, loaded, constant, listed, sw.OHEM(schedule=0.5)):
        calls(weighter)


def test_counting_calls_recompiles_nothing() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    weighter = sw.OHEM(100)
    compiled = torch.compile(weighter, fullgraph=True, backend=backend)
    for epoch in range(19):
        compiled(torch.rand(8))
        weighter(torch.rand(8))
        if epoch > 9:
            weighter.set_epoch(epoch)
    assert len(graphs) == 1


def test_built_in_inference_mode_it_trains() -> None:
    with torch.inference_mode():
        weighters = [sw.OHEM(10), sw.SelfPaced(10), sw.EffectiveNumber([3, 2, 1])]
        criterion = sw.CrossEntropyLoss(weighter=weighters)
    criterion.set_epoch(3)
    criterion.load_state_dict(criterion.state_dict())
    logits = torch.randn(4, 3, requires_grad=True)
    criterion(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert logits.grad is not None


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
def test_bad_arguments(cls: type) -> None:
    for kwargs, message in [
        ({}, f"{cls.__name__} takes either num_epochs or schedule"),
        ({"num_epochs": 10, "schedule": 0.5}, "either num_epochs or schedule"),
        ({"num_epochs": 0}, "num_epochs must be at least 1, got 0"),
        ({"schedule": 0.0}, r"fraction must be in \(0, 1\], got 0"),
        ({"schedule": "half"}, "schedule must be a callable or a fraction .*, got 'half'"),
        ({"schedule": lambda epoch: 2.0}, r"schedule must return .* got 2.0 at epoch 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            cls(**kwargs)
    for epoch in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="epoch must be finite and at least 0, got"):
            cls(10).set_epoch(epoch)
    with pytest.raises(TypeError, match="loss must be floating, got dtype torch.int64"):
        cls(10)(torch.tensor([1, 2]))


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
@pytest.mark.parametrize("target", [None, torch.rand(3), torch.zeros(2, dtype=torch.long)])
def test_per_class_needs_class_indices(cls: type, target: torch.Tensor | None) -> None:
    expected = rf"class indices of shape \(3,\) for {cls.__name__}\(per_class=True\), got"
    with pytest.raises(ValueError, match=expected):
        cls(10, per_class=True)(torch.rand(3), target)


def test_repr() -> None:
    assert repr(sw.OHEM(10, per_class=True)) == (
        "OHEM(schedule=Sigmoid(num_epochs=10), per_class=True)"
    )


def test_a_failed_move_leaves_the_weighter_as_it_was() -> None:
    weighter = sw.OHEM(schedule=0.5)

    def fails(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        weighter._apply(fails)
    assert weighter(torch.tensor([1.0, 2.0])).tolist() == [0, 1]
    empty = sw.OHEM(10).to("meta").to_empty(device="cpu")
    empty.load_state_dict(weighter.state_dict())
    assert empty(torch.tensor([1.0, 2.0])).tolist() == [0, 1]


def test_numbers_of_any_kind() -> None:
    for half in (np.float32(0.5), torch.tensor(0.5)):
        assert sw.OHEM(schedule=half).schedule == Constant(0.5)
    for call, message in [
        (lambda: sw.OHEM("10"), "num_epochs must be a number, got '10'"),
        (lambda: sw.OHEM(10).set_epoch(None), "epoch must be a number, got None"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


def test_float16_ranks_the_largest_number_below_infinity() -> None:
    loss = torch.tensor([65504, math.inf], dtype=torch.float16)
    assert sw.OHEM(schedule=0.5)(loss).tolist() == [0, 1]


@pytest.mark.parametrize("cls", [sw.OHEM, sw.SelfPaced])
def test_within_each_sample_equals_the_oracle(cls: type) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(7, 3, 5, generator=generator).mul(8).round()
    loss[1, 0, 2] = math.nan
    valid = torch.rand(7, 3, 5, generator=generator) < 0.6
    valid[4] = False
    weighter = cls(num_epochs=10, within="sample")
    for epoch in (0, 2, 9):
        weighter.set_epoch(epoch)
        weight = weighter(loss, None, valid)
        expected = [
            reference.selected(
                image.flatten().tolist(),
                reference.sigmoid_fraction(epoch, 10),
                largest=cls is sw.OHEM,
                valid=flags.flatten().tolist(),
            )
            for image, flags in zip(loss, valid, strict=True)
        ]
        assert weight.flatten(1).bool().tolist() == expected
        alone = torch.cat(
            [weighter(one, None, ok) for one, ok in zip(loss.split(1), valid.split(1), strict=True)]
        )
        assert alone.equal(weight)


def test_each_sample_or_each_class() -> None:
    with pytest.raises(ValueError, match=r"per_class must be False for OHEM\(within='sample'\)"):
        sw.OHEM(10, per_class=True, within="sample")
    assert repr(sw.OHEM(10, within="sample")) == (
        "OHEM(schedule=Sigmoid(num_epochs=10), within='sample')"
    )
