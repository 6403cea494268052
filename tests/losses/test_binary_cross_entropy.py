from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sampleweights as sw

NAN = math.nan
ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"pos_weight": torch.tensor([3.0, 0.1, 1.0])},
    {"weight": torch.rand(3)},
    {"weight": torch.rand(6, 1), "pos_weight": torch.tensor(7.0)},
]


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(2, (6, 3), generator=generator).to(dtype)


def value_and_grad(criterion: Any, logits: Tensor, *rest: Any, **options: Any) -> tuple[Any, Any]:
    leaf = logits.clone().requires_grad_()
    value = criterion(leaf, *rest, **options)
    value.sum().backward()
    return value, leaf.grad


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_it_is_torchs_own_to_the_last_bit(arguments: dict[str, Any], reduction: str) -> None:
    for dtype in (torch.float32, torch.float64):
        logits, target = batch(dtype)
        for each in (target, torch.rand_like(target)):
            theirs = value_and_grad(
                nn.BCEWithLogitsLoss(reduction=reduction, **arguments), logits, each
            )
            ours = value_and_grad(
                sw.BCEWithLogitsLoss(reduction=reduction, **arguments), logits, each
            )
            for a, b in zip(ours, theirs, strict=True):
                assert a.equal(b)
                assert a.dtype == b.dtype


def test_arguments_in_torchs_order_and_its_state() -> None:
    weight, pos_weight = torch.rand(3), torch.rand(3)
    logits, target = batch()
    ours = sw.BCEWithLogitsLoss(weight, None, None, "sum", pos_weight)
    theirs = nn.BCEWithLogitsLoss(weight, None, None, "sum", pos_weight)
    assert ours(logits, target).equal(theirs(logits, target))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    other = sw.BCEWithLogitsLoss(torch.ones(3), reduction="sum", pos_weight=torch.ones(3))
    other.load_state_dict(theirs.state_dict())
    assert other(logits, target).equal(theirs(logits, target))
    for name in ("size_average", "reduce"):
        with pytest.raises(ValueError, match=f"{name} must be None"):
            sw.BCEWithLogitsLoss(**{name: True})


@given(st.floats(-20, 20), st.floats(0, 1), st.floats(0.1, 10))
def test_equals_its_formula(logit: float, target: float, pos_weight: float) -> None:
    expected = reference.binary_cross_entropy(logit, target, pos_weight)
    tensors = [torch.tensor([v], dtype=torch.float64) for v in (logit, target, pos_weight)]
    criterion = sw.BCEWithLogitsLoss(pos_weight=tensors[2])
    assert criterion(*tensors[:2]).item() == pytest.approx(expected, rel=1e-7)
    moved = sw.BCEWithLogitsLoss(pos_weight=tensors[2], margin=sw.LogitAdjustment([30, 10]))
    expected = reference.binary_cross_entropy(logit - math.log(3), target, pos_weight)
    assert moved(*tensors[:2]).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(40,), (40, 3), (5, 3, 8)])
def test_class_balanced_is_pos_weight_times_the_documented_factor(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float64, generator=generator)
    target = (torch.rand(shape, generator=generator) < 0.2).double()
    negatives, positives = int((target == 0).sum()), int((target == 1).sum())
    pos_weight = torch.tensor(negatives / positives, dtype=torch.float64)
    factor = (negatives + positives) / (2 * negatives)
    weighter = sw.ClassBalanced([negatives, positives])
    theirs = value_and_grad(nn.BCEWithLogitsLoss(pos_weight=pos_weight), logits, target)
    ours = value_and_grad(sw.BCEWithLogitsLoss(weighter=weighter), logits, target)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b * factor)
    # without the factor, with either way to leave the normalisation out
    bare = sw.ClassBalanced([negatives, positives], normalize=None)
    share = negatives / (negatives + positives)
    ours = value_and_grad(sw.BCEWithLogitsLoss(weighter=bare), logits, target)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a * share, b)


def test_counts_of_each_label_are_a_pos_weight_of_each_label() -> None:
    torch.manual_seed(0)
    logits = torch.randn(60, 3, dtype=torch.float64)
    target = (torch.rand(60, 3) < torch.tensor([0.5, 0.2, 0.1])).double()
    counts = torch.stack([(target == 0).sum(0), (target == 1).sum(0)], 1)
    pos_weight = counts[:, 0] / counts[:, 1].double()
    theirs = nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction="none")(logits, target)
    criterion = sw.BCEWithLogitsLoss(weighter=sw.ClassBalanced(counts), reduction="none")
    factor = counts.sum(1) / (2 * counts[:, 0])
    torch.testing.assert_close(criterion(logits, target), theirs * factor)


def test_it_is_binary_focal_loss_without_focus() -> None:
    logits, target = batch(torch.float64)
    weighter = sw.ClassBalanced([30, 10])
    for margin in (None, sw.LDAM([30, 10])):
        for reduction in ("mean", "weighted_mean", "sum", "none"):
            options: dict[str, Any] = {
                "weighter": [weighter, sw.OHEM(schedule=0.5)],
                "margin": margin,
                "reduction": reduction,
            }
            for each in (target, target.long()):
                torch.testing.assert_close(
                    sw.BCEWithLogitsLoss(**options)(logits, each),
                    sw.BinaryFocalLoss(0, alpha=None, **options)(logits, each),
                )


@pytest.mark.parametrize("ignore_index", [-100, -1, NAN])
def test_elements_without_a_label_do_not_count(ignore_index: float) -> None:
    logits, target = batch()
    valid = torch.arange(18).reshape(6, 3) % 4 != 0
    given = target.masked_fill(~valid, ignore_index)
    expected = nn.BCEWithLogitsLoss()(logits[valid], target[valid])
    criterion = sw.BCEWithLogitsLoss(ignore_index=ignore_index)
    value, grad = value_and_grad(criterion, logits, given)
    torch.testing.assert_close(value, expected)
    assert grad[~valid].eq(0).all()
    assert grad[valid].ne(0).all()
    value, grad = value_and_grad(criterion, logits, torch.full_like(target, ignore_index))
    assert value == 0
    assert grad.eq(0).all()
    if ignore_index == ignore_index:
        torch.testing.assert_close(criterion(logits, given.long()), expected)


def test_a_label_may_be_the_mark() -> None:
    logits, target = batch()
    value = sw.BCEWithLogitsLoss(ignore_index=0)(logits, target)
    torch.testing.assert_close(value, -logits[target == 1].sigmoid().log().mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """torch's own gradient in bfloat16 is 0 at a logit of 8, and right in 1 - p."""
    logits, target = torch.tensor([8.0, -8.0, 0.5], dtype=dtype), torch.tensor([1.0, 0.0, 1.0])
    for reduction in ("mean", "sum", "none"):
        for options in ({}, {"weighter": sw.ClassBalanced([3, 1])}):
            criterion = sw.BCEWithLogitsLoss(reduction=reduction, **options)
            exact = value_and_grad(criterion, logits.double(), target.double())
            value, grad = value_and_grad(criterion, logits, target.to(dtype))
            assert value.dtype == dtype
            torch.testing.assert_close(value.double(), exact[0], rtol=5e-3, atol=0)
            torch.testing.assert_close(grad.double(), exact[1], rtol=5e-3, atol=0)
    assert value_and_grad(nn.BCEWithLogitsLoss(), logits.bfloat16(), target.bfloat16())[1][0] == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert sw.BCEWithLogitsLoss()(logits, target.to(dtype)).dtype == torch.float32


def test_infinite_logits_of_certain_labels_have_no_nan() -> None:
    logits = torch.tensor([math.inf, -math.inf, 1.0, -math.inf])
    target = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for options in ({}, {"weighter": sw.ClassBalanced([3, 1])}):
        value, grad = value_and_grad(sw.BCEWithLogitsLoss(**options), logits, target)
        assert value > 0
        assert value.isfinite()
        assert grad.isfinite().all()


def test_derivatives() -> None:
    logits, target = batch(torch.float64)
    logits.requires_grad_()
    for options in ({}, {"pos_weight": 3.0}, {"margin": sw.LDAM([30, 10]), "pos_weight": 3.0}):
        criterion = sw.BCEWithLogitsLoss(**options)
        for each in (target.long(), torch.rand(6, 3)):
            assert torch.autograd.gradcheck(lambda z, t=each, c=criterion: c(z, t), (logits,))
            assert torch.autograd.gradgradcheck(lambda z, t=each, c=criterion: c(z, t), (logits,))


def test_what_does_not_fit_is_named() -> None:
    logits, target = batch()
    for name, bad in (("pos_weight", torch.ones(4)), ("weight", torch.ones(2, 6, 3))):
        for options in ({}, {"weighter": sw.OHEM(schedule=0.5)}):
            with pytest.raises(ValueError, match=rf"{name} must be broadcast to .*\(6, 3\), got"):
                sw.BCEWithLogitsLoss(**{name: bad}, **options)(logits, target)
    with pytest.raises(TypeError, match="pos_weight must be a number, got 'many'"):
        sw.BCEWithLogitsLoss(pos_weight="many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape of logits, \(6, 3\), got \(6,\)"):
        sw.BCEWithLogitsLoss()(logits, target[:, 0])
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\], got values from 0.0 to 2"):
        sw.BCEWithLogitsLoss()(logits, 2 * target)
    with pytest.raises(ValueError, match="pos_weight= one value for each label"):
        sw.BCEWithLogitsLoss(weighter=sw.ClassBalanced([5, 3, 8]))(logits, target)


def test_reprs() -> None:
    assert repr(sw.BCEWithLogitsLoss()) == "BCEWithLogitsLoss()"
    text = "BCEWithLogitsLoss(pos_weight=3, reduction='sum')"
    assert repr(eval(text, vars(sw))) == text
    assert "pos_weight=<(3,)>" in repr(sw.BCEWithLogitsLoss(pos_weight=torch.ones(3)))
