from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sampleweights as sw

GAMMAS = [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 5.0]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
rows = st.lists(st.floats(-8, 8), min_size=2, max_size=6)


def gradient(criterion: Any, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    criterion(leaf, target).backward()
    return leaf.grad


@given(rows, st.sampled_from(GAMMAS), st.sampled_from([0.0, 0.1]), st.data())
def test_equals_eq_6(row: list[float], gamma: float, smoothing: float, data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(row) - 1))
    criterion = sw.FocalLoss(gamma, label_smoothing=smoothing)
    value = criterion(torch.tensor([row], dtype=torch.float64), torch.tensor([target]))
    expected = reference.focal(row, target, gamma, smoothing)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-14)


@given(rows, st.sampled_from(GAMMAS[1:]), st.integers(0, 10))
def test_probabilities(row: list[float], gamma: float, seed: int) -> None:
    t = torch.rand(len(row), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    t = t / t.sum()
    value = sw.FocalLoss(gamma)(torch.tensor([row], dtype=torch.float64), t[None])
    expected = reference.focal_of_probabilities(row, t.tolist(), gamma)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_one_hot_probabilities_equal_indices(gamma: float) -> None:
    logits, target = torch.randn(6, 5, dtype=torch.float64), torch.randint(5, (6,))
    one_hot = nn.functional.one_hot(target, 5).double()
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    criterion = sw.FocalLoss(gamma, weight=weight, reduction="sum")
    torch.testing.assert_close(criterion(logits, one_hot), criterion(logits, target))


def test_gamma_zero_is_cross_entropy_to_the_last_bit() -> None:
    logits, target = torch.randn(6, 5, 3), torch.randint(5, (6, 3))
    for kwargs in ({}, {"weight": torch.rand(5)}, {"label_smoothing": 0.1}, {"reduction": "sum"}):
        assert sw.FocalLoss(0, **kwargs)(logits, target).equal(
            nn.CrossEntropyLoss(**kwargs)(logits, target)
        )


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize(
    "kwargs", [{}, {"label_smoothing": 0.1}, {"weight": torch.rand(4).double()}]
)
def test_first_and_second_derivatives(gamma: float, kwargs: dict[str, Any]) -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    criterion = sw.FocalLoss(gamma, **kwargs)
    for target in (torch.tensor([0, 3, -100]), torch.randn(3, 4).double().softmax(1)):
        assert torch.autograd.gradcheck(lambda z, t=target: criterion(z, t), (logits,))
        assert torch.autograd.gradgradcheck(lambda z, t=target: criterion(z, t), (logits,))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_finite_everywhere(gamma: float, dtype: torch.dtype) -> None:
    gaps = torch.tensor([0, 1e-3, 0.5, 5, 8, 12, 17, 40, 89, 104, 750, 1e4])
    logits = torch.zeros(2 * len(gaps), 3)
    logits[:, 0] = torch.cat([gaps, -gaps])
    target = torch.zeros(len(logits), dtype=torch.long)
    weighted = sw.FocalLoss(gamma, weight=torch.tensor([0.1, 1, 10.0]).to(dtype))
    for criterion in (sw.FocalLoss(gamma), weighted, sw.FocalLoss(gamma, label_smoothing=0.1)):
        for each in (target, nn.functional.one_hot(target, 3).to(dtype)):
            leaf = logits.to(dtype).requires_grad_()
            (grad,) = torch.autograd.grad(criterion(leaf, each), leaf, create_graph=True)
            (second,) = torch.autograd.grad(grad.sum(), leaf)
            assert grad.isfinite().all()
            assert second.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS[1:])  # 0 is torch's own cross-entropy
def test_bf16_gradient_is_within_one_percent(gamma: float) -> None:
    for gap in (0.5, 1, 2, 3, 4, 5, 6, 7, 8):
        logits = torch.tensor([[gap, 0.0, 0.0]], dtype=torch.bfloat16)
        target = torch.tensor([0])
        exact = gradient(sw.FocalLoss(gamma), logits.double(), target)
        ours = gradient(sw.FocalLoss(gamma), logits, target).double()
        assert ((ours - exact).norm() / exact.norm()).item() < 1e-2
        value = sw.FocalLoss(gamma)(logits, target).item()
        assert value == pytest.approx(sw.FocalLoss(gamma)(logits.double(), target).item(), rel=1e-2)


@pytest.mark.parametrize("gap", [12, 15])
def test_float32_keeps_its_digits_where_p_is_nearly_one(gap: float) -> None:
    logits = torch.tensor([[gap, 0.0, 0.0]])
    exact = reference.focal(logits[0].tolist(), 0, 2.0)
    assert sw.FocalLoss(2.0)(logits, torch.tensor([0])).item() == pytest.approx(exact, rel=0.1)


def test_p_t_never_sees_class_weights_or_smoothing() -> None:
    logits, target = torch.randn(8, 4, dtype=torch.float64), torch.randint(4, (8,))
    weight = torch.tensor([0.1, 10, 1, 3], dtype=torch.float64)
    plain = sw.FocalLoss(2.0, reduction="none")(logits, target)
    weighted = sw.FocalLoss(2.0, weight=weight, reduction="none")(logits, target)
    torch.testing.assert_close(weighted, weight[target] * plain)
    factor = plain / nn.CrossEntropyLoss(reduction="none")(logits, target)
    for kwargs in ({"label_smoothing": 0.2}, {"label_smoothing": 0.2, "weight": weight}):
        cross_entropy = nn.CrossEntropyLoss(reduction="none", **kwargs)(logits, target)
        focal = sw.FocalLoss(2.0, reduction="none", **kwargs)(logits, target)
        torch.testing.assert_close(focal, factor * cross_entropy)


def test_mean_with_class_weights_divides_as_torch_does() -> None:
    logits, target = torch.randn(8, 4), torch.randint(4, (8,))
    target[0] = -100
    weight = torch.tensor([0.1, 10, 1, 3])
    losses = sw.FocalLoss(2.0, weight=weight, reduction="none")(logits, target)
    expected = losses.sum() / weight[target[1:]].sum()
    torch.testing.assert_close(sw.FocalLoss(2.0, weight=weight)(logits, target), expected)


def test_no_one_hot_is_ever_built() -> None:
    """Beyond what cross-entropy allocates itself, only one value per sample."""
    logits, target = torch.randn(512, 300, requires_grad=True), torch.randint(300, (512,))
    weight = torch.rand(300)

    class LargeTensors(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.numel() >= logits.numel():
                large.append(str(func))
            return out

    built = []
    for criterion in (nn.CrossEntropyLoss(), sw.FocalLoss(2.0), sw.FocalLoss(2.0, weight=weight)):
        logits.grad = None
        large: list[str] = []
        with LargeTensors():
            criterion(logits, target).backward()
        built.append(large)
    assert len(built[0]) >= 3  # log-probabilities, and two steps of the backward pass
    assert built[1] == built[0]
    assert built[2] == built[0]


@given(st.floats(-8, 8), st.floats(0, 1), st.sampled_from(GAMMAS), st.none() | st.floats(0, 1))
def test_binary_equals_its_formula(
    logit: float, target: float, gamma: float, alpha: float | None
) -> None:
    criterion = sw.BinaryFocalLoss(gamma, alpha=alpha)
    value = criterion(
        torch.tensor([logit], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    )
    expected = reference.binary_focal(logit, target, gamma, alpha)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_binary_targets_of_any_dtype_agree(gamma: float, alpha: float | None) -> None:
    logits, target = torch.randn(4, 3, dtype=torch.float64), torch.randint(2, (4, 3))
    criterion = sw.BinaryFocalLoss(gamma, alpha=alpha)
    expected = criterion(logits, target.double())
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float32):
        torch.testing.assert_close(criterion(logits, target.to(dtype)), expected)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_binary_derivatives_and_finiteness(gamma: float) -> None:
    criterion = sw.BinaryFocalLoss(gamma)
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    for target in (torch.randint(2, (3, 2)), torch.rand(3, 2, dtype=torch.float64)):
        assert torch.autograd.gradcheck(lambda z, t=target: criterion(z, t), (logits,))
        assert torch.autograd.gradgradcheck(lambda z, t=target: criterion(z, t), (logits,))
    for dtype in FLOATS:
        extreme = torch.tensor([0, 1e-3, 5, 17, 40, 104, 750, 1e4])
        for target in (torch.ones(16), torch.zeros(16, dtype=torch.long), torch.full((16,), 0.5)):
            grad = gradient(criterion, torch.cat([extreme, -extreme]).to(dtype), target)
            assert grad.isfinite().all()


def test_binary_ignores_elements() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    target = torch.tensor([[0, 1, -100], [1, 1, 0], [-100, -100, -100], [0, 0, 1]])
    valid = target != -100
    for each in (target, target.float()):
        losses = sw.BinaryFocalLoss(reduction="none")(logits, each)
        expected = sw.BinaryFocalLoss(reduction="none")(logits, each.clamp(min=0))
        torch.testing.assert_close(losses, expected * valid)
        mean = sw.BinaryFocalLoss()(logits, each)
        torch.testing.assert_close(mean, losses.sum() / valid.sum())


def test_binary_elements_are_samples_for_weighters() -> None:
    logits, target = torch.randn(8, 3), torch.randint(2, (8, 3))
    losses = sw.BinaryFocalLoss(reduction="none")(logits, target)
    hard = sw.BinaryFocalLoss(reduction="none", weighter=sw.OHEM(schedule=0.25))(logits, target)
    assert (hard != 0).sum() == 6
    assert losses[hard != 0].min() >= losses[hard == 0].max()
    balanced = sw.ClassBalanced([90, 10])
    weighted = sw.BinaryFocalLoss(reduction="none", weighter=balanced)(logits, target)
    torch.testing.assert_close(weighted, balanced.class_weight.float()[target] * losses)
    with pytest.raises(ValueError, match="made for 3 classes, logits have 2"):
        sw.BinaryFocalLoss(weighter=sw.ClassBalanced([1, 2, 3]))(logits, target)


@pytest.mark.parametrize("cls", [sw.FocalLoss, sw.BinaryFocalLoss])
@pytest.mark.parametrize("gamma", [-1, -1e-9, math.nan, math.inf])
def test_bad_gamma(cls: type, gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be finite and at least 0, got"):
        cls(gamma)


def test_bad_binary_arguments() -> None:
    logits = torch.randn(4, 3)
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\] or None, got"):
            sw.BinaryFocalLoss(alpha=alpha)
    criterion = sw.BinaryFocalLoss()
    with pytest.raises(ValueError, match=r"shape of logits, \(4, 3\), got \(4,\)"):
        criterion(logits, torch.zeros(4))
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\], got values from 0 to 2"):
        criterion(logits, torch.tensor([[0, 1, 2]] * 4))
    with pytest.raises(TypeError, match="logits must be floating"):
        criterion(logits.long(), torch.zeros(4, 3))


def test_reprs_rebuild_the_call() -> None:
    for text in (
        "FocalLoss(gamma=1.0, label_smoothing=0.1)",
        "BinaryFocalLoss(gamma=2.0, alpha=None, reduction='sum')",
    ):
        assert repr(eval(text, vars(sw))) == text


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_weight_zero_times_an_infinite_loss_has_no_gradient(gamma: float) -> None:
    inf = math.inf
    logits = torch.tensor([[0, 1, -inf], [0, 1, 2]])
    for kwargs, target in [
        ({}, torch.tensor([2, 1])),
        ({"label_smoothing": 0.1}, torch.tensor([0, 1])),
        ({"label_smoothing": 0.1, "weight": torch.ones(3)}, torch.tensor([2, 1])),
    ]:
        leaf = logits.clone().requires_grad_()
        criterion = sw.FocalLoss(gamma, **kwargs)
        criterion(leaf, target, sample_weight=torch.tensor([0.0, 1.0])).backward()
        assert leaf.grad[0].eq(0).all()
        assert leaf.grad[1].isfinite().all()
        assert criterion(logits, target).isinf()
    for target in (torch.tensor([1, 1]), torch.tensor([1.0, 1.0])):
        leaf = torch.tensor([-inf, 0.0]).requires_grad_()
        criterion = sw.BinaryFocalLoss(gamma)
        criterion(leaf, target, sample_weight=torch.tensor([0.0, 1.0])).backward()
        assert leaf.grad[0] == 0
        assert leaf.grad[1].isfinite()


def test_binary_integer_targets_keep_float64() -> None:
    logits, target = torch.randn(20, dtype=torch.float64), torch.arange(20) % 2
    value = sw.BinaryFocalLoss(alpha=0.1, reduction="none")(logits, target)
    expected = sw.BinaryFocalLoss(alpha=0.1, reduction="none")(logits, target.double())
    torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("gamma", ["2", None, torch.ones(2)])
def test_gamma_that_is_no_number(gamma: object) -> None:
    with pytest.raises(TypeError, match="gamma must be a number, got"):
        sw.FocalLoss(gamma)


def test_smoothing_leaves_a_loss_where_p_rounds_to_one() -> None:
    logits = torch.tensor([[18.0] + [0.0] * 9])
    criterion = sw.FocalLoss(0.1, label_smoothing=0.1)
    expected = reference.focal(logits[0].tolist(), 0, 0.1, 0.1)
    assert criterion(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)
    exact = gradient(criterion, logits.double(), torch.tensor([0]))
    ours = gradient(criterion, logits, torch.tensor([0]))
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["index", "one-hot", "mixed"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", [0.05, 0.5, 1.0, 2.0, 5.0])
def test_smoothed_values_and_gradients_at_any_gap(
    gamma: float, dtype: torch.dtype, kind: str
) -> None:
    gaps = torch.tensor([0, 1e-3, 0.5, 5, 8, 12, 17, 18, 25, 40, 60, 88, 100])
    logits = torch.zeros(2 * len(gaps), 4)
    logits[:, 0] = torch.cat([gaps, -gaps])
    logits = logits.to(dtype)
    target = torch.zeros(len(logits), dtype=torch.long)
    p = nn.functional.one_hot(target, 4).to(dtype)
    if kind == "mixed":
        p = (0.75 * p + 0.0625).to(dtype)
    criterion = sw.FocalLoss(gamma, label_smoothing=0.1, reduction="none")
    leaf = logits.clone().requires_grad_()
    losses = criterion(leaf, target if kind == "index" else p)
    [grad] = torch.autograd.grad(losses.sum(), leaf)
    wide = logits.double().requires_grad_()
    others = torch.stack([wide[:, [k for k in range(4) if k != c]].logsumexp(1) for c in range(4)])
    log_q = others.T - wide.logsumexp(1, keepdim=True)
    nll = -wide.log_softmax(1)
    cost = (gamma * log_q).exp() * (0.9 * nll + 0.1 * nll.mean(1, keepdim=True))
    exact = (p.double() * cost).sum(1)
    [exact_grad] = torch.autograd.grad(exact.sum(), wide)
    # float16 ends at 6e-8, float32 and bfloat16 at 1e-45
    tiny = torch.finfo(dtype).smallest_normal
    epsilon = max(4 * torch.finfo(dtype).eps, 1e-12)
    tolerance = {"rtol": max(epsilon, 5e-5 if dtype.itemsize == 4 else 0), "atol": tiny}
    torch.testing.assert_close(losses.double(), exact.detach(), **tolerance)
    size = exact_grad.abs().amax(1, keepdim=True) + tiny / tolerance["rtol"]
    assert ((grad.double() - exact_grad).abs() <= tolerance["rtol"] * size).all()


LABEL_COUNTS = [[30, 10], [2, 38], [20, 20]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "build",
    [sw.LogitAdjustment, sw.LDAM, lambda c: sw.LDAM(c, 1.0, 3.0)],
    ids=["LogitAdjustment", "LDAM", "LDAM(scale)"],
)
def test_one_logit_with_a_margin_is_two_of_which_the_first_is_0(
    build: Any, dtype: torch.dtype
) -> None:
    logits, target = torch.randn(8, 3, dtype=dtype), torch.randint(2, (8, 3))
    both = torch.stack([torch.zeros_like(logits), logits], 1)
    for gamma, reduction in ((0.0, "none"), (2.0, "none"), (2.0, "mean")):
        kw = {"reduction": reduction}
        expected = sw.FocalLoss(gamma, margin=build([30, 10]), **kw)(both, target)
        criterion = sw.BinaryFocalLoss(gamma, alpha=None, margin=build([30, 10]), **kw)
        for labels in (target, target.bool(), target.to(dtype)):
            torch.testing.assert_close(criterion(logits, labels), expected)
        per_label = sw.BinaryFocalLoss(gamma, alpha=None, margin=build(LABEL_COUNTS), **kw)
        rows = [
            sw.FocalLoss(gamma, margin=build(counts), **kw)(both[..., label], target[:, label])
            for label, counts in enumerate(LABEL_COUNTS)
        ]
        expected = torch.stack(rows, -1)
        expected = expected.mean() if reduction == "mean" else expected
        for labels in (target, target.to(dtype)):
            torch.testing.assert_close(per_label(logits, labels), expected)


def test_the_margin_of_probabilities_is_the_mixture_of_both_labels() -> None:
    logits, p = torch.randn(8, 3, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64)
    for margin in (sw.LogitAdjustment([30, 10]), sw.LDAM(LABEL_COUNTS, scale=2.0)):
        criterion = sw.BinaryFocalLoss(margin=margin, reduction="none")
        negative = criterion(logits, torch.zeros(8, 3, dtype=torch.long))
        positive = criterion(logits, torch.ones(8, 3, dtype=torch.long))
        torch.testing.assert_close(criterion(logits, p), (1 - p) * negative + p * positive)
        logits.requires_grad_()
        assert torch.autograd.gradcheck(lambda z, c=criterion: c(z, p), (logits,))


def test_a_margin_of_ones_own_moves_one_logit_too() -> None:
    class Temperature(sw.Margin):
        def forward(self, logits: Tensor, target: Any = None, valid: Any = None) -> Tensor:
            return logits / 2

    logits, target = torch.randn(8, 3), torch.randint(2, (8, 3))
    ours = sw.BinaryFocalLoss(margin=Temperature())(logits, target)
    torch.testing.assert_close(ours, sw.BinaryFocalLoss()(logits / 2, target))


@pytest.mark.parametrize("build", [sw.LogitAdjustment, sw.LDAM])
def test_margins_of_one_logit_ignore_elements_and_keep_the_dtype(build: Any) -> None:
    logits, target = torch.randn(4, 3), torch.tensor([[0, 1, -100], [1, -100, 0]] * 2)
    valid = target != -100
    for dtype in FLOATS:
        criterion = sw.BinaryFocalLoss(margin=build([30, 10]), reduction="none")
        losses = criterion(logits.to(dtype), target)
        assert losses.dtype == dtype
        assert (losses[~valid] == 0).all()
        expected = criterion(logits.to(dtype)[valid], target[valid])
        assert losses[valid].equal(expected)
    without_effect = build([30, 10], 0)  # tau, max_margin
    plain = sw.BinaryFocalLoss()(logits, target)
    assert sw.BinaryFocalLoss(margin=without_effect)(logits, target).equal(plain)


@pytest.mark.parametrize("build", [sw.LogitAdjustment, sw.LDAM])
def test_a_label_without_positives_has_none_in_the_target(build: Any) -> None:
    criterion = sw.BinaryFocalLoss(margin=build([[30, 0], [0, 30]]))
    logits = torch.randn(2, 2, requires_grad=True)
    for target in (torch.tensor([[0, 1], [0, -100]]), torch.tensor([[0.0, 1], [0, 1]])):
        value = criterion(logits, target)
        [grad] = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert grad.isfinite().all()
        for wrong, got in ((1, [0, 0]), (0, [0, 1])):
            bad = target.clone()
            bad[tuple(got)] = wrong
            with pytest.raises(ValueError, match=f"no negatives, got {wrong}"):
                criterion(logits, bad)


def test_wrong_margins_of_one_logit() -> None:
    logits, target = torch.randn(4, 3), torch.randint(2, (4, 3))
    with pytest.raises(TypeError, match="margin must be a Margin, got float"):
        sw.BinaryFocalLoss(margin=0.5)
    for build in (sw.LogitAdjustment, sw.LDAM):
        with pytest.raises(ValueError, match=r"must be \[negatives, positives\].* got 3 classes"):
            sw.BinaryFocalLoss(margin=build([3, 2, 1]))(logits, target)
        labels = build([[3, 2], [1, 1]])
        with pytest.raises(ValueError, match=r"2 labels need .* \(N, 2, ...\), got \(4, 3\)"):
            sw.BinaryFocalLoss(margin=labels)(logits, target)
        for loss in (sw.CrossEntropyLoss, sw.FocalLoss):
            with pytest.raises(
                ValueError, match="counts of 2 labels, which are for losses with a sig"
            ):
                loss(margin=labels)(logits[:, :2], target[:, 0])


def test_label_counts_weigh_each_label_on_its_own() -> None:
    logits, target = torch.randn(8, 3), torch.randint(2, (8, 3))
    for cls in (sw.ClassBalanced, sw.EffectiveNumber):
        weighter = cls(LABEL_COUNTS)
        losses = sw.BinaryFocalLoss(reduction="none", weighter=weighter)(logits, target)
        for label, counts in enumerate(LABEL_COUNTS):
            one = sw.BinaryFocalLoss(reduction="none", weighter=cls(counts))
            expected = one(logits[:, label], target[:, label])
            torch.testing.assert_close(losses[:, label], expected)
        probability = sw.BinaryFocalLoss(reduction="none", weighter=weighter)
        torch.testing.assert_close(probability(logits, target.float()), losses)
        assert repr(eval(repr(weighter), vars(sw))) == repr(weighter)
        with pytest.raises(
            ValueError, match="counts of 3 labels, which are for losses with a sigmoid"
        ):
            sw.CrossEntropyLoss(weighter=[weighter, sw.OHEM(10)])
        with pytest.raises(ValueError, match=r"3 labels need .* \(N, 3, ...\), got \(8,\)"):
            sw.BinaryFocalLoss(weighter=weighter)(logits[:, 0], target[:, 0])
