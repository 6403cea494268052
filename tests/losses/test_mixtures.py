"""The loss of a mixture of classes is the mixture of their losses: what mixup relies on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sampleweights as sw

COUNTS = [95, 5, 20]
LOSSES: dict[str, Callable[..., Any]] = {
    "ce": sw.CrossEntropyLoss,
    "ce(smoothing)": lambda **kw: sw.CrossEntropyLoss(label_smoothing=0.2, **kw),
    "ce(weight)": lambda **kw: sw.CrossEntropyLoss(torch.tensor([0.5, 2.0, 1.0]).double(), **kw),
    "ce(weight, smoothing)": lambda **kw: sw.CrossEntropyLoss(
        torch.tensor([0.5, 2.0, 1.0]).double(), label_smoothing=0.2, **kw
    ),
    "focal": lambda **kw: sw.FocalLoss(1.5, **kw),
    "focal(smoothing)": lambda **kw: sw.FocalLoss(1.5, label_smoothing=0.2, **kw),
    "focal(weight, smoothing)": lambda **kw: sw.FocalLoss(
        1.5, weight=torch.tensor([0.5, 2.0, 1.0]).double(), label_smoothing=0.2, **kw
    ),
}
WEIGHTERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "balanced": lambda: sw.ClassBalanced(COUNTS),
    "effective": lambda: sw.EffectiveNumber(COUNTS, beta=0.9, normalize=None),
    "list": lambda: [sw.ClassBalanced(COUNTS), [sw.EffectiveNumber(COUNTS)]],
    "list with one that keeps all": lambda: [sw.OHEM(schedule=1.0), sw.ClassBalanced(COUNTS)],
}


def batch(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    logits = 3 * torch.randn(6, 3, *shape, dtype=torch.float64)
    return logits, torch.randint(3, (6, *shape)), torch.randint(3, (6, *shape))


def one_hot(target: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()


def value_and_gradient(
    criterion: Any, logits: Tensor, mixture: list[tuple[float, Tensor]]
) -> list[Tensor]:
    leaf = logits.clone().requires_grad_()
    value = sum(share * criterion(leaf, target) for share, target in mixture)
    [gradient] = torch.autograd.grad(value.sum(), leaf)
    return [value.detach(), gradient]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighter", WEIGHTERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_mixture(loss: str, weighter: str, reduction: str) -> None:
    if "weight" in loss and weighter == "none" and reduction == "mean":
        return  # torch divides by the weights of the targets, or by N where they are probabilities
    for shape in ((), (4,)):
        logits, a, b = batch(*shape)
        criterion = LOSSES[loss](weighter=WEIGHTERS[weighter](), reduction=reduction)
        mixed = value_and_gradient(criterion, logits, [(1.0, 0.3 * one_hot(a) + 0.7 * one_hot(b))])
        parts = value_and_gradient(criterion, logits, [(0.3, a), (0.7, b)])
        if "weight" in loss and "smoothing" in loss:
            # smoothed torch weights: those of index and one-hot target are one; see below
            parts = value_and_gradient(criterion, logits, [(0.3, one_hot(a)), (0.7, one_hot(b))])
        for ours, expected in zip(mixed, parts, strict=True):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
@pytest.mark.parametrize("weighter", WEIGHTERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_one_hot_probabilities_are_the_indices(loss: str, weighter: str, reduction: str) -> None:
    if "weight" in loss and reduction in ("mean", "weighted_mean"):
        return  # see above
    logits, target, _ = batch(2)
    criterion = LOSSES[loss](weighter=WEIGHTERS[weighter](), reduction=reduction)
    index = value_and_gradient(criterion, logits, [(1.0, target)])
    probabilities = value_and_gradient(criterion, logits, [(1.0, one_hot(target))])
    for ours, expected in zip(probabilities, index, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_reported_case() -> None:
    criterion = sw.CrossEntropyLoss(weighter=sw.ClassBalanced([95, 5]))
    logits, a, b = torch.tensor([[-4.0, 4.0]]), torch.tensor([0]), torch.tensor([1])
    mixed = criterion(logits, torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(mixed, 0.5 * criterion(logits, a) + 0.5 * criterion(logits, b))
    assert abs(mixed.item() - 2.107) < 1e-3


@pytest.mark.parametrize("loss", [sw.CrossEntropyLoss, sw.FocalLoss])
def test_large_weights_neither_overflow_under_autocast_nor_in_half(loss: Any) -> None:
    weighter = sw.ClassBalanced([200_000, 9, 1], normalize=None)
    logits, target = torch.randn(8, 3), torch.randn(8, 3).softmax(1)
    expected = loss(weighter=weighter)(logits, target)
    assert expected.isfinite()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(weighter=weighter)(logits.bfloat16(), target.bfloat16())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0.05, atol=0)
    normalized = sw.ClassBalanced([200_000, 9, 1])
    half = loss(weighter=normalized)(logits.half(), target.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(
        half.float(), loss(weighter=normalized)(logits, target), rtol=0.02, atol=0
    )


def test_selection_ranks_what_the_class_weights_made() -> None:
    counts = [95, 5, 20]
    logits, target = torch.zeros(2, 3), torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    for weighter in (
        [sw.ClassBalanced(counts), sw.OHEM(schedule=0.5)],
        [sw.OHEM(schedule=0.5), sw.ClassBalanced(counts)],
    ):
        losses = sw.CrossEntropyLoss(weighter=weighter, reduction="none")(logits, target)
        assert (losses != 0).tolist() == [False, True]


def test_weighted_mean_divides_by_the_expected_weights() -> None:
    weighter = sw.ClassBalanced(COUNTS)
    logits, a, b = batch()
    target = 0.3 * one_hot(a) + 0.7 * one_hot(b)
    value = sw.CrossEntropyLoss(weighter=weighter, reduction="weighted_mean")(logits, target)
    total = sw.CrossEntropyLoss(weighter=weighter, reduction="sum")(logits, target)
    torch.testing.assert_close(value, total / (target @ weighter.class_weight).sum())


def test_other_numbers_of_classes_are_told() -> None:
    with pytest.raises(ValueError, match="weighter was made for 2 classes, logits have 3"):
        sw.CrossEntropyLoss(weighter=sw.ClassBalanced([1, 2]))(
            torch.randn(4, 3), torch.randn(4, 3).softmax(1)
        )
