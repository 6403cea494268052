"""A small batch takes a short way; here it is compared with the general one, and with formulas."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sampleweights as sw
from sampleweights.losses.few import loss_of_few
from sampleweights.weighters.base import _FORGOTTEN_AFTER

COUNTS = [50, 30, 20, 10]
WEIGHTERS: dict[str, Callable[[], sw.Weighter | None]] = {
    "none": lambda: None,
    "inactive": lambda: sw.OHEM(schedule=1.0),
    "classes": lambda: sw.ClassBalanced(COUNTS),
    "hardest": lambda: sw.OHEM(schedule=0.4),
    "easiest": lambda: sw.SelfPaced(schedule=0.4),
    "hardest of each class": lambda: sw.OHEM(schedule=0.4, per_class=True),
    "both": lambda: sw.Compose([sw.ClassBalanced(COUNTS), sw.OHEM(schedule=0.4)]),
}


def batch(size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    logits = 2 * torch.randn(size, 4, generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(4, (size,), generator=generator)


def generally(criterion: torch.nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = criterion(logits, target, sample_weight=torch.ones(len(target)))
    return loss


def focal(gamma: float, **arguments: object) -> torch.nn.Module:
    if gamma == 0:
        return sw.CrossEntropyLoss(**arguments)  # type: ignore[arg-type]
    return sw.FocalLoss(gamma, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 20, 64, 65, 200])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("name", WEIGHTERS)
def test_the_short_way_is_taken_and_agrees(
    name: str, gamma: float, reduction: str, size: int
) -> None:
    criterion = focal(gamma, weighter=WEIGHTERS[name](), reduction=reduction)
    logits, target = batch(size)
    assert loss_of_few(criterion, logits, target) is not None
    loss, expected = criterion(logits, target), generally(criterion, logits, target)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    found, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_and_its_gradient_are_those_of_the_formula(gamma: float) -> None:
    logits, target = batch(20)
    p = logits.softmax(1)[torch.arange(20), target]
    [expected] = torch.autograd.grad(((1 - p) ** gamma * -p.log()).mean(), logits)
    loss = sw.FocalLoss(gamma)(logits, target)
    wanted = sum((1 - q) ** gamma * -math.log(q) for q in p.tolist()) / 20
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)


@pytest.mark.parametrize("weighter", ["none", "hardest"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_it_differentiates_twice(gamma: float, weighter: str) -> None:
    criterion = focal(gamma, weighter=WEIGHTERS[weighter]())
    logits, target = batch(5)
    assert torch.autograd.gradcheck(lambda x: criterion(x, target), logits)
    assert torch.autograd.gradgradcheck(lambda x: criterion(x, target), logits)


@pytest.mark.parametrize("gap", [20.0, 60.0, 200.0, math.inf])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_no_nan_at_any_gap(gamma: float, right: bool, gap: float) -> None:
    logits = torch.tensor([[gap, 0.0], [1.0, 0.0]]).clamp(max=3e38).requires_grad_()
    target = torch.tensor([0 if right else 1, 0])
    loss = sw.FocalLoss(gamma)(logits, target)
    loss.backward()  # type: ignore[no-untyped-call]
    exact = logits.detach().double().requires_grad_()
    nll = F.cross_entropy(exact, target, reduction="none")
    expected = ((-torch.expm1(-nll.clamp(min=1e-300))) ** gamma * nll).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-30)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_float32_keeps_its_digits_where_p_is_nearly_one() -> None:
    logits, target = torch.tensor([[12.0, 0.0]], requires_grad=True), torch.tensor([0])
    nll = F.cross_entropy(logits, target, reduction="none")
    exact = nll.detach().double().requires_grad_()  # what float32 leaves of the cross-entropy
    expected = (torch.expm1(-exact) ** 2 * exact).sum()
    slope = torch.autograd.grad(expected, exact)[0].float()
    [wanted] = torch.autograd.grad(nll, logits, slope)
    loss = sw.FocalLoss()(logits, target)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], wanted, rtol=1e-6, atol=0)


def test_class_weights_and_plain_losses_are_torchs_to_the_last_bit() -> None:
    logits, target = batch(20, torch.float32)
    assert torch.equal(sw.CrossEntropyLoss()(logits, target), F.cross_entropy(logits, target))
    weighter = sw.ClassBalanced(COUNTS)
    weight = (weighter.class_weight / 20).float()
    expected = F.cross_entropy(logits, target, weight, reduction="sum")
    assert torch.equal(sw.CrossEntropyLoss(weighter=weighter)(logits, target), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda criterion, logits, target: (logits, target.masked_fill(target == 0, -100)),
        lambda criterion, logits, target: (logits[:0], target[:0]),
        lambda criterion, logits, target: (logits.bfloat16(), target),
        lambda criterion, logits, target: (logits.clone().unsqueeze(2), target.unsqueeze(1)),
        lambda criterion, logits, target: (logits, target.int()),
        lambda criterion, logits, target: (logits, F.one_hot(target, 4).to(logits)),
    ],
)
def test_other_batches_go_the_general_way(
    change: Callable[[object, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    criterion = sw.FocalLoss(weighter=sw.OHEM(schedule=0.5))
    logits, target = change(criterion, *batch(20))
    assert loss_of_few(criterion, logits, target) is None
    criterion(logits, target)


def test_bad_arguments_are_named_as_before() -> None:
    logits, target = batch(20)
    for criterion in (sw.CrossEntropyLoss(), sw.FocalLoss(weighter=sw.OHEM(schedule=0.5))):
        with pytest.raises(IndexError, match="class indices from 0 to 3"):
            criterion(logits, target + 3)
        with pytest.raises(ValueError, match="must have shape"):
            criterion(logits, target[:5])
    with pytest.raises(ValueError, match="made for 3 classes, logits have 4"):
        sw.CrossEntropyLoss(weighter=sw.ClassBalanced([1, 2, 3]))(logits, target)
    weighter = sw.ClassBalanced([1, 2, 3, 0])
    with pytest.raises(ValueError, match="class 3"):
        sw.CrossEntropyLoss(weighter=weighter)(logits, target)


def test_what_a_subclass_or_a_hook_adds_is_not_passed_over() -> None:
    logits, target = batch(20)

    class Doubled(sw.FocalLoss):
        def samples(self, logits: Tensor, target: Tensor) -> sw.losses.base.Samples:
            samples = super().samples(logits, target)
            return samples._replace(loss=2 * samples.loss)

    class All(sw.OHEM):
        def forward(
            self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
        ) -> Tensor:
            return torch.ones_like(loss)

    plain = sw.FocalLoss()(logits, target)
    torch.testing.assert_close(Doubled()(logits, target), 2 * plain)
    torch.testing.assert_close(sw.FocalLoss(weighter=All(schedule=0.5))(logits, target), plain)

    weighter, seen = sw.OHEM(schedule=0.5), []
    weighter.register_forward_hook(lambda module, args, weight: seen.append(weight))
    sw.FocalLoss(weighter=weighter)(logits, target)
    assert [int(weight.sum()) for weight in seen] == [10]
    criterion, batches = sw.FocalLoss(weighter=sw.OHEM(schedule=0.5)), []
    criterion.register_weighting_hook(lambda c, samples, weight: batches.append(weight))
    criterion(logits, target)
    assert [int(weight.sum()) for weight in batches] == [10]


@pytest.mark.parametrize("size", [20, 5000])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_what_is_added_to_class_weights_is_not_passed_over(gamma: float, size: int) -> None:
    class Doubled(sw.ClassBalanced):
        def forward(
            self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
        ) -> Tensor:
            return 2 * super().forward(loss, target, valid)

    logits, target = batch(size)
    counts = [1 + c for c in range(logits.shape[1])]
    hooked = sw.ClassBalanced(counts)
    hooked.register_forward_hook(lambda module, args, weight: 2 * weight)

    def loss(weighter: sw.Weighter) -> Tensor:
        criterion = sw.FocalLoss(gamma, weighter=weighter) if gamma else None
        value: Tensor = (criterion or sw.CrossEntropyLoss(weighter=weighter))(logits, target)
        return value

    once = loss(sw.ClassBalanced(counts))
    torch.testing.assert_close([loss(Doubled(counts)), loss(hooked)], [2 * once, 2 * once])


@pytest.mark.parametrize("name", WEIGHTERS)
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_watching_changes_no_bit(gamma: float, name: str) -> None:
    criterion = focal(gamma, weighter=WEIGHTERS[name]())
    logits, target = batch(20, torch.float32)
    alone = criterion(logits, target)
    [expected] = torch.autograd.grad(alone, logits)
    with criterion.recording() as batches:  # type: ignore[operator]
        watched = criterion(logits, target)
    assert len(batches) == 1
    assert torch.equal(watched, alone)
    assert torch.equal(torch.autograd.grad(watched, logits)[0], expected)


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_call_counts_once_towards_the_warning(fraction: float, ignored: bool) -> None:
    criterion = sw.FocalLoss(weighter=sw.OHEM(schedule=lambda epoch: 1.0 if epoch else fraction))
    criterion.weighter._warn_if_forgotten()  # type: ignore[union-attr, operator]
    logits, target = batch(20)
    if ignored:
        target[0] = -100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(_FORGOTTEN_AFTER - 1):
            criterion(logits, target)
    before = copy.deepcopy(criterion.weighter)
    assert before._calls_to_warning == 1  # type: ignore[union-attr]


def test_an_infinite_loss_that_is_dropped_adds_nothing() -> None:
    logits = torch.tensor([[-math.inf, 0.0], [1.0, 0.0]], requires_grad=True)
    target = torch.zeros(2, dtype=torch.int64)
    loss = sw.CrossEntropyLoss(weighter=sw.SelfPaced(schedule=0.5))(logits, target)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) / 2)


def test_tensors_kept_under_inference_mode_serve_training() -> None:
    logits, target = batch(23, torch.float32)
    criterion = sw.FocalLoss(weighter=sw.ClassBalanced(COUNTS))
    plain = sw.FocalLoss()
    with torch.inference_mode():
        expected = [c(logits, target).item() for c in (criterion, plain)]
    for c, value in zip((criterion, plain), expected, strict=True):
        loss = c(logits, target)
        loss.backward()
        assert loss.item() == value


def test_autocast_keeps_float32() -> None:
    logits, target = batch(20, torch.float32)
    for criterion in (sw.FocalLoss(), sw.FocalLoss(weighter=sw.OHEM(schedule=0.5))):
        expected = criterion(logits, target)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(criterion(logits, target), expected)
