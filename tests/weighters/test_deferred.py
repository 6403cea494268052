from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from properties import PROPERTIES
from torch import Tensor

import sampleweights as sw

# at epoch 0 every weight is 1
CLAIMS = {"Deferred": set(PROPERTIES), "Deferred(nested)": set(PROPERTIES)}

COUNTS = [80, 15, 5]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, generator=generator)
    return logits, torch.randint(3, (40,), generator=generator)


CRITERIA: dict[str, Any] = {
    "CrossEntropyLoss": sw.CrossEntropyLoss,
    "FocalLoss": sw.FocalLoss,
}


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("name", CRITERIA)
def test_no_weights_before_start_and_the_weighters_after_it(name: str, probabilities: bool) -> None:
    logits, target = batch()
    if probabilities:
        target = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    for reduction in ("mean", "weighted_mean", "sum", "none"):
        plain = CRITERIA[name](reduction=reduction)
        weighted = CRITERIA[name](weighter=sw.ClassBalanced(COUNTS), reduction=reduction)
        deferred = CRITERIA[name](
            weighter=sw.Deferred(sw.ClassBalanced(COUNTS), 8), reduction=reduction
        )
        for epoch in (0, 7, 7.99, 8, 8.5, 9, 0):
            deferred.set_epoch(epoch)
            other = plain if epoch < 8 else weighted
            results = []
            for criterion in (deferred, other):
                leaf = logits.clone().requires_grad_()
                value = criterion(leaf, target)
                value.sum().backward()
                results.append((value, leaf.grad))
            if epoch < 8:
                assert results[0][0].equal(results[1][0])
                assert results[0][1].equal(results[1][1])
            else:
                torch.testing.assert_close(results[0], results[1])


class Called(sw.ClassBalanced):
    calls = 0

    def forward(self, *args: Any) -> Tensor:
        self.calls += 1
        return super().forward(*args)


def test_before_start_nothing_of_it_is_called() -> None:
    inner = Called(COUNTS)
    criterion = sw.FocalLoss(weighter=sw.Deferred(inner, 2))
    assert criterion.weighter.inactive
    criterion(*batch())
    criterion.weighter(torch.rand(3))  # and it needs no target
    assert inner.calls == 0
    criterion.set_epoch(2)
    assert not criterion.weighter.inactive
    criterion(*batch())
    assert inner.calls == 1


def test_before_start_ignored_samples_have_weight_0() -> None:
    valid = torch.tensor([True, False, True])
    weighter = sw.Deferred(sw.ClassBalanced(COUNTS), 2)
    assert weighter(torch.rand(3).half(), valid=valid).equal(valid.half())


def test_in_a_list_the_others_weigh_from_the_first_epoch_on() -> None:
    logits, target = batch()
    mixed = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
    classes, hard = sw.ClassBalanced(COUNTS), sw.OHEM(schedule=0.25)
    for of_target in (target, mixed):
        for order in (1, -1):
            criterion = sw.CrossEntropyLoss(weighter=[sw.Deferred(classes, 8), hard][::order])
            alone = sw.CrossEntropyLoss(weighter=hard)
            assert criterion(logits, of_target).equal(alone(logits, of_target))
            criterion.set_epoch(8)
            both = sw.CrossEntropyLoss(weighter=[classes, hard][::order])
            torch.testing.assert_close(criterion(logits, of_target), both(logits, of_target))


def test_in_itself_the_later_start_decides() -> None:
    loss, target = torch.rand(40), batch()[1]
    inner = sw.ClassBalanced(COUNTS)
    for first, second in ((2, 5), (5, 2)):
        weighter = sw.Deferred(sw.Deferred(inner, first), second)
        for epoch in range(8):
            weighter.set_epoch(epoch)
            assert weighter.inactive == (epoch < 5)
            expected = torch.ones(40) if epoch < 5 else inner(loss, target)
            assert weighter(loss, target).equal(expected)


def test_the_epoch_reaches_what_it_defers() -> None:
    weighter = sw.Deferred([sw.ClassBalanced(COUNTS), sw.OHEM(10)], 2)
    inner: Any = weighter.weighter
    weighter.set_epoch(3.5)
    assert inner.weighters[1].epoch == 3_500_000
    weighter.set_epoch(1)
    assert inner.weighters[1].epoch == 1_000_000
    only = sw.Deferred(sw.OHEM(10), 2)
    only.set_epoch(5)
    assert only.inactive  # as OHEM is, from half of its training on


def test_after_loading_the_own_start_decides() -> None:
    saved = sw.Deferred(sw.OHEM(10), 4)
    saved.set_epoch(3)
    assert set(saved.state_dict()) == {"epoch", "weighter.epoch"}
    earlier, later = sw.Deferred(sw.OHEM(40), 2), sw.Deferred(sw.OHEM(40), 4)
    later.set_epoch(9)
    earlier.load_state_dict(saved.state_dict())
    later.load_state_dict(saved.state_dict())
    assert not earlier.inactive
    assert earlier.weighter.fraction == sw.schedules.Sigmoid(40)(3)  # type: ignore[union-attr]
    assert later.inactive
    empty = sw.Deferred(sw.OHEM(10), 2).to("meta")
    empty.load_state_dict(saved.state_dict(), assign=True)
    assert not empty.inactive
    curriculum = sw.OHEM(10)
    curriculum.set_epoch(3)
    assert empty(torch.arange(9.0)).equal(curriculum(torch.arange(9.0)))


def test_what_it_defers_shows() -> None:
    weighter = sw.Deferred(sw.ClassBalanced(COUNTS), 160)
    assert weighter.num_classes == 3
    assert not weighter.may_drop
    assert sw.Deferred(sw.OHEM(10), 5).may_drop
    assert sw.Deferred(sw.OHEM(10), 5).num_classes is None
    assert "start=160" in repr(weighter)
    assert "ClassBalanced" in repr(weighter)
    for criterion in (sw.CrossEntropyLoss(weighter=weighter), sw.FocalLoss(weighter=weighter)):
        with pytest.raises(ValueError, match="3 classes, logits have 7"):  # not at epoch 160
            criterion(torch.rand(2, 7), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="same number of classes"):
        sw.Compose([weighter, sw.ClassBalanced([1, 2])])


@pytest.mark.parametrize("weighter", [sw.ClassBalanced(COUNTS), sw.OHEM(10)])
def test_compiles_once(weighter: sw.Weighter) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    criterion = sw.CrossEntropyLoss(weighter=sw.Deferred(weighter, 3))
    compiled = torch.compile(criterion, fullgraph=True, backend=backend)
    for _ in range(2):
        for epoch in range(10):
            criterion.set_epoch(epoch)
            torch.testing.assert_close(compiled(*batch()), criterion(*batch()))
    assert len(graphs) == 1  # the epoch is an input


@pytest.mark.parametrize("name", [*CRITERIA, "alone"])
def test_a_forgotten_set_epoch_is_told_once(name: str) -> None:
    weighter = sw.Deferred(sw.ClassBalanced(COUNTS), 160)
    logits, target = batch()
    use: Any = weighter
    if name in CRITERIA:
        use = CRITERIA[name](weighter=weighter)
    else:
        logits = torch.rand(40)

    def calls(times: int) -> None:
        for _ in range(times):
            use(logits, target)

    calls(19)
    message = r"Deferred was called 20 times .* still 1, as before epoch 160.*set_epoch\(epoch"
    with pytest.warns(UserWarning, match=message) as told:
        calls(30)
    assert len(told) == 1


def test_nobody_is_told_who_did_not_forget() -> None:
    """Warnings are errors here."""
    told = sw.Deferred(sw.ClassBalanced(COUNTS), 9)
    told.set_epoch(0)
    loaded = sw.Deferred(sw.ClassBalanced(COUNTS), 9)
    loaded.load_state_dict(told.state_dict())
    evaluated = sw.Deferred(sw.ClassBalanced(COUNTS), 9).eval()
    for weighter in (told, loaded, evaluated, sw.Deferred(sw.ClassBalanced(COUNTS), 0)):
        criterion = sw.CrossEntropyLoss(weighter=weighter).train(weighter.training)
        for _ in range(21):
            criterion(torch.zeros(1, 3), torch.tensor([0]))


def test_bad_arguments() -> None:
    inner = sw.ClassBalanced(COUNTS)
    for start in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="start must be finite and at least 0, got"):
            sw.Deferred(inner, start)
    with pytest.raises(TypeError, match="start must be a number, got 'late'"):
        sw.Deferred(inner, "late")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weighter must be a Weighter or a list of them, got int"):
        sw.Deferred(3, 8)  # type: ignore[arg-type]
    for epoch in (-1, math.nan):
        with pytest.raises(ValueError, match="epoch must be finite and at least 0"):
            sw.Deferred(inner, 8).set_epoch(epoch)
