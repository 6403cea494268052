from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import sampleweights as sw

GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 4.0]
CLIPS = [0.0, 0.05, 0.5]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def gradient(criterion: Any, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    criterion(leaf, target).backward()
    assert leaf.grad is not None
    return leaf.grad


@given(
    st.floats(-15, 15),
    st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    st.sampled_from(GAMMAS),
    st.sampled_from(GAMMAS),
    st.sampled_from([*CLIPS, 1e-6, 0.99]),
)
def test_equals_its_formula(
    logit: float, target: float, gamma_negative: float, gamma_positive: float, clip: float
) -> None:
    criterion = sw.AsymmetricLoss(gamma_negative, gamma_positive, clip)
    value = criterion(*(torch.tensor([v], dtype=torch.float64) for v in (logit, target)))
    expected = reference.asymmetric(logit, target, gamma_negative, gamma_positive, clip)
    assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-14)
    if target in (0, 1):
        value = criterion(torch.tensor([logit]).double(), torch.tensor([int(target)]))
        assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-14)


def test_without_focus_and_clip_it_is_binary_cross_entropy() -> None:
    logits, target = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    for each in (target, target.round()):
        torch.testing.assert_close(
            sw.AsymmetricLoss(0, 0, 0)(logits, each), nn.BCEWithLogitsLoss()(logits, each)
        )
        torch.testing.assert_close(
            sw.AsymmetricLoss(1.5, 1.5, 0)(logits, each),
            sw.BinaryFocalLoss(1.5, alpha=None)(logits, each),
        )


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_derivatives(gamma: float, clip: float) -> None:
    logits = torch.tensor([[-7.0, -1, 0.3], [2, 5, -0.7]], dtype=torch.float64, requires_grad=True)
    criterion = sw.AsymmetricLoss(gamma, 1.5, clip)
    for target in (torch.tensor([[0, 0, 1], [0, 1, 0]]), torch.rand(2, 3, dtype=torch.float64)):
        assert torch.autograd.gradcheck(lambda z, t=target: criterion(z, t), (logits,))
        assert torch.autograd.gradgradcheck(lambda z, t=target: criterion(z, t), (logits,))


@given(st.floats(-12, 12), st.sampled_from(GAMMAS), st.sampled_from(CLIPS))
def test_gradient_flows_through_the_factors(logit: float, gamma: float, clip: float) -> None:
    """The derivative that the paper's analysis of gradients draws."""
    p = 1 / (1 + math.exp(-logit))
    shifted = p - clip
    assume(abs(shifted) > 1e-3)
    expected = 0.0
    if shifted > 0:
        slope = shifted**gamma / (1 - shifted)
        if gamma:
            slope -= gamma * shifted ** (gamma - 1) * math.log(1 - shifted)
        expected = p * (1 - p) * slope
    criterion = sw.AsymmetricLoss(gamma, 1.0, clip)
    grad = gradient(criterion, torch.tensor([logit], dtype=torch.float64), torch.zeros(1))
    assert grad.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_finite_everywhere(gamma: float, dtype: torch.dtype) -> None:
    edge = math.log(0.05 / 0.95)  # where p - clip is 0
    sizes = [0, 1e-3, -edge, 5, 17, 40, 104, 750, 1e4, 6e4, math.inf]
    logits = torch.tensor([*sizes, *(-size for size in sizes)]).to(dtype)
    for clip in (0.0, 1e-6, 0.05, 1 - 1e-9):
        criterion = sw.AsymmetricLoss(gamma, gamma, clip)
        for target in (
            torch.ones_like(logits),
            torch.zeros_like(logits).long(),
            torch.full_like(logits, 0.5),
        ):
            leaf = logits.clone().requires_grad_()
            losses = sw.AsymmetricLoss(gamma, gamma, clip, reduction="none")(leaf, target)
            assert not losses.isnan().any()
            assert (losses >= 0).all()
            finite = leaf.isfinite()
            assert losses[finite].isfinite().all()
            [grad] = torch.autograd.grad(criterion(leaf, target), leaf, create_graph=True)
            assert grad.isfinite().all()
            [second] = torch.autograd.grad(grad.sum(), leaf)
            assert second.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    logits = torch.tensor([8.0, -8.0, 3.0, -1.0, 10.0], dtype=dtype)
    criterion = sw.AsymmetricLoss()
    for target in (torch.ones(5), torch.zeros(5), torch.tensor([1, 0, 1, 0, 0])):
        value, exact = criterion(logits, target), criterion(logits.double(), target)
        assert value.dtype == dtype
        torch.testing.assert_close(value.double(), exact, rtol=5e-3, atol=0)
        slope, exact = (
            gradient(criterion, logits, target),
            gradient(criterion, logits.double(), target),
        )
        torch.testing.assert_close(slope.double(), exact, rtol=5e-3, atol=1e-6)


def test_a_certain_negative_is_hardly_learned_and_an_easy_one_not_at_all() -> None:
    logits = torch.tensor([12.0, -4.0], dtype=torch.float64)
    losses = sw.AsymmetricLoss(reduction="none")(logits, torch.zeros(2))
    assert losses[0] < -math.log(0.05)
    assert losses[1] == 0
    slopes = gradient(sw.AsymmetricLoss(), logits, torch.zeros(2))
    assert slopes[0] < 1e-3
    assert slopes[1] == 0


def test_bad_arguments() -> None:
    for name in ("gamma_negative", "gamma_positive"):
        for bad in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be finite and at least 0, got"):
                sw.AsymmetricLoss(**{name: bad})
    for bad in (-0.1, 1e-7, 1, math.nan):
        with pytest.raises(ValueError, match=r"clip must be 0 or in \[1e-6, 1\), got"):
            sw.AsymmetricLoss(clip=bad)
    with pytest.raises(TypeError, match="clip must be a number, got None"):
        sw.AsymmetricLoss(clip=None)  # type: ignore[arg-type]


def test_the_repr_rebuilds_the_call() -> None:
    text = "AsymmetricLoss(gamma_negative=3.0, gamma_positive=0.0, clip=0.1, reduction='sum')"
    assert repr(eval(text, vars(sw))) == text


def test_where_the_peer_has_no_gradient_ours_has_one() -> None:
    """docs/methods/asymmetric.md; the pairs with equal values are in docs/migrating.md."""
    losses = pytest.importorskip("timm.loss")
    logits, target = torch.tensor([[-4.0, 3.0]]), torch.zeros(1, 2)
    theirs = losses.AsymmetricLossMultiLabel(gamma_neg=0.5)
    assert gradient(theirs, logits, target)[0, 0].isnan()
    assert gradient(sw.AsymmetricLoss(0.5), logits, target).isfinite().all()
    logits, target = torch.tensor([[-20.0]]), torch.ones(1, 1)
    assert gradient(losses.AsymmetricLossMultiLabel(), logits, target).abs() < 1e-6
    assert gradient(sw.AsymmetricLoss(), logits, target) == pytest.approx(-1, rel=1e-6)
    # a soft target interpolates the exponents there
    half = torch.full((1, 1), 0.5)
    assert not torch.allclose(
        losses.AsymmetricLossMultiLabel()(logits / 20, half), sw.AsymmetricLoss()(logits / 20, half)
    )
