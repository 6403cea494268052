"""Calibration: what maximum likelihood means, and what it never does."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sampleweights as sw


def made(size: int = 600, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are too sure and favour the last class."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (size,), generator=generator)
    logits = 2 * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    logits[range(size), target] += 2
    return logits + torch.linspace(0, 2, classes, dtype=torch.float64), target


def nll(logits: Tensor, target: Tensor) -> float:
    return F.cross_entropy(logits.double(), target).item()


def test_the_equations_of_the_maximum() -> None:
    """The mean probability of a class is its frequency; the mean logit of the truth is expected."""
    logits, target = made()
    calibration = sw.Calibration.fit(logits, target)
    probability = calibration(logits).softmax(1)
    frequency = target.bincount() / len(target)
    torch.testing.assert_close(probability.mean(0), frequency.double(), rtol=0, atol=1e-7)
    right = logits.gather(1, target[:, None]).mean()
    torch.testing.assert_close((probability * logits).sum(1).mean(), right, rtol=0, atol=1e-7)
    assert calibration.temperature > 1.5
    assert calibration.bias.sum().abs() < 1e-12
    assert calibration.bias.diff().lt(0).all()  # what favoured the last class


def test_a_temperature_alone_against_a_search() -> None:
    logits, target = made()
    found = sw.Calibration.fit(logits, target, bias=False).temperature.item()
    low, high = 0.1, 10.0  # the likelihood has one maximum in 1 / T
    for _ in range(100):
        third = (high - low) / 3
        a, b = low + third, high - third
        low, high = (low, b) if nll(logits / a, target) < nll(logits / b, target) else (a, high)
    assert found == pytest.approx((low + high) / 2, rel=1e-5)


def test_one_logit_is_platt_scaling() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    logits, target = made(classes=2)
    z = logits[:, 1] - logits[:, 0]
    platt = linear_model.LogisticRegression(C=1e12, tol=1e-10).fit(z[:, None].numpy(), target)
    found = sw.Calibration.fit(z, target)
    assert 1 / found.temperature.item() == pytest.approx(platt.coef_.item(), rel=1e-4)
    assert found.bias.diff().item() == pytest.approx(platt.intercept_.item(), abs=1e-4)


cells = st.integers(-24, 24).map(lambda n: n / 4)


@settings(max_examples=40)
@given(st.data(), st.booleans())
def test_never_less_likely_than_without(data: Any, bias: bool) -> None:
    classes = data.draw(st.integers(2, 4))
    size = data.draw(st.integers(classes, 12))
    rows = st.lists(cells, min_size=classes, max_size=classes)
    drawn = data.draw(st.lists(rows, min_size=size, max_size=size))
    more = data.draw(st.lists(st.integers(0, classes - 1), min_size=size - classes,
                              max_size=size - classes))  # fmt: skip
    logits, target = torch.tensor(drawn), torch.tensor([*range(classes), *more])
    calibration = sw.Calibration.fit(logits, target, bias=bias)
    assert nll(calibration(logits), target) <= nll(logits, target) + 1e-6
    if not bias:
        assert calibration.bias.eq(0).all()
        assert calibration(logits).argmax(1).equal(logits.argmax(1))


def test_a_perfect_and_a_useless_model() -> None:
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    perfect = 5.0 * F.one_hot(target).float()
    for logits in (perfect, -perfect, torch.zeros(6, 3)):
        for bias in (True, False):
            calibration = sw.Calibration.fit(logits, target, bias=bias)
            assert calibration(logits).isfinite().all()
            spread = (logits - logits.mean(1, keepdim=True)).std().item() or 1
            assert 0.009 * spread <= calibration.temperature <= 110 * spread
            assert nll(calibration(logits), target) <= nll(logits, target) + 1e-6


@pytest.mark.parametrize("factor", [1e-6, 1e3, 1e8])
@pytest.mark.parametrize("bias", [True, False])
def test_the_scale_of_the_logits_is_no_matter(factor: float, bias: bool) -> None:
    logits, target = made()
    found = sw.Calibration.fit(logits * factor, target, bias=bias)
    expected = sw.Calibration.fit(logits, target, bias=bias)
    torch.testing.assert_close(found.temperature / factor, expected.temperature, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.bias, expected.bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize("offset", [50.0, -2000.0, -1e4])
def test_biases_undo_what_is_added_to_a_class(offset: float) -> None:
    """However much: the likelihood has one maximum, and a temperature at a bound is not it."""
    logits, target = made()
    moved = logits + offset * F.one_hot(torch.tensor(1), 4)
    found, expected = sw.Calibration.fit(moved, target), sw.Calibration.fit(logits, target)
    assert found.temperature.item() == pytest.approx(expected.temperature.item(), rel=1e-5)
    torch.testing.assert_close(
        found(moved).softmax(1), expected(logits).softmax(1), rtol=0, atol=1e-6
    )


def test_rare_classes_need_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    frequency = 1 / torch.arange(1, 301)
    target = torch.multinomial(frequency, 2000, replacement=True, generator=generator)
    target[:300] = torch.arange(300)
    logits = torch.randn(2000, 300, generator=generator)
    logits[range(2000), target] += 2
    looks = []
    step = torch.optim.LBFGS.step

    def counted(self: Any, closure: Any) -> Any:
        return step(self, lambda: (looks.append(0), closure())[1])

    monkeypatch.setattr(torch.optim.LBFGS, "step", counted)
    calibration = sw.Calibration.fit(logits, target)
    assert 0 < len(looks) < 60  # and not hundreds
    probability = calibration(logits.double()).softmax(1).mean(0)
    torch.testing.assert_close(probability, target.bincount() / 2000, rtol=0, atol=1e-7,
                               check_dtype=False)  # fmt: skip


def test_what_was_known_is_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 3, generator=generator)
    bias = torch.tensor([0.5, -0.7, 0.2])
    target = torch.multinomial((logits / 2.5 + bias).softmax(1), 1, generator=generator)[:, 0]
    found = sw.Calibration.fit(logits, target)
    assert found.temperature.item() == pytest.approx(2.5, rel=0.05)
    torch.testing.assert_close(found.bias.float(), bias, rtol=0, atol=0.05)


def test_one_logit_is_the_second_of_two() -> None:
    logits, target = made(classes=2)
    z = logits[:, 1] - logits[:, 0]
    by_class, by_odds = sw.Calibration.fit(logits, target), sw.Calibration.fit(z, target)
    torch.testing.assert_close(by_odds.temperature, by_class.temperature)
    torch.testing.assert_close(by_odds.bias, by_class.bias)
    moved = by_class(logits)
    torch.testing.assert_close(by_odds(z), moved[:, 1] - moved[:, 0])
    torch.testing.assert_close(by_odds(z[:, None])[:, 0], by_odds(z))
    for of, y in (
        (z[:, None], target),
        (z[:, None], target[:, None]),
        (z, target.bool()),
        (z, target.double()),
    ):
        torch.testing.assert_close(sw.Calibration.fit(of, y).bias, by_odds.bias)
    assert by_odds(z[0]).shape == ()


def test_labels_are_calibrated_each_for_itself() -> None:
    pairs = [made(classes=2, seed=seed) for seed in range(3)]
    z = torch.stack([logits[:, 1] - logits[:, 0] for logits, _ in pairs], 1)
    target = torch.stack([target for _, target in pairs], 1)
    together = sw.Calibration.fit(z, target)
    assert together.temperature.shape == (3,)
    assert together.bias.shape == (3, 2)
    for label in range(3):
        alone = sw.Calibration.fit(z[:, label], target[:, label])
        torch.testing.assert_close(
            together.temperature[label], alone.temperature, rtol=1e-4, atol=0
        )
        torch.testing.assert_close(together(z)[:, label], alone(z[:, label]), rtol=0, atol=1e-3)
    dense = z.reshape(100, 6, 3).movedim(1, 2), target.reshape(100, 6, 3).movedim(1, 2)
    torch.testing.assert_close(sw.Calibration.fit(*dense).bias, together.bias)
    assert together(dense[0]).shape == dense[0].shape


def test_dense_logits() -> None:
    logits, target = made(600)
    dense = logits.reshape(100, 6, 4).movedim(2, 1)
    found = sw.Calibration.fit(dense, target.reshape(100, 6))
    calibration = sw.Calibration.fit(logits, target)
    torch.testing.assert_close(found.bias, calibration.bias)
    torch.testing.assert_close(found(dense).movedim(1, 2).reshape(-1, 4), calibration(logits))
    torch.testing.assert_close(calibration(logits[0]), calibration(logits)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype: torch.dtype) -> None:
    logits, target = made()
    calibration = sw.Calibration.fit(logits.to(dtype), target).to(dtype)
    assert calibration.bias.dtype == torch.float64  # not rounded
    moved = calibration(logits.to(dtype))
    assert moved.dtype == torch.float32
    assert calibration(logits).dtype == torch.float64
    expected = logits.to(dtype).float() / calibration.temperature.float() + calibration.bias.float()
    assert moved.equal(expected)


def test_it_is_saved_copied_and_printed() -> None:
    logits, target = made()
    calibration = sw.Calibration.fit(logits, target)
    file = io.BytesIO()
    torch.save(nn.Sequential(nn.Identity(), calibration).state_dict(), file)
    file.seek(0)
    other = sw.Calibration(1.0, torch.zeros(4))
    nn.Sequential(nn.Identity(), other).load_state_dict(torch.load(file, weights_only=True))
    for same in (other, copy.deepcopy(calibration)):
        assert same(logits).equal(calibration(logits))
    text = repr(sw.Calibration(1.5, [0.25, -0.25]))
    assert text == "Calibration(temperature=1.5, bias=[0.25, -0.25])"
    assert repr(eval(text, {"Calibration": sw.Calibration})) == text
    labels = repr(sw.Calibration([1.0, 2.0], [[0.0, 0.0], [0.5, -0.5]]))
    assert repr(eval(labels, {"Calibration": sw.Calibration})) == labels


def test_gradient_flows_and_nothing_that_came_is_changed() -> None:
    logits, target = made()
    before = logits.clone()
    with torch.inference_mode():
        calibration = sw.Calibration.fit(logits.clone(), target)
    assert sw.Calibration.fit(logits, target).bias.equal(calibration.bias)
    assert logits.equal(before)
    z = logits.clone().requires_grad_()
    calibration(z).sum().backward()
    torch.testing.assert_close(z.grad, (1 / calibration.temperature).expand_as(logits))


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(3, 3), [0, 1, 1], "at least one sample of each class .* got none of class 2"),
        (torch.zeros(3), [1, 1, 1], "got none of class 0"),
        (torch.zeros(2, 2), [[0, 1], [1, 1]], "got none of class 0 of label 1"),
        (torch.zeros(0, 3), [], "target must hold at least one sample"),
        (torch.tensor([[0.0, math.nan], [0, 0]]), [0, 1], "logits must be finite, got nan"),
        (torch.tensor([[0.0, math.inf], [0, 0]]), [0, 1], "logits must be finite, got inf"),
        (torch.zeros(2, 3), [[0, 1, 2], [0, 0, 0]], "must hold 0 and 1, got 2"),
        (torch.zeros(3, 2), [[0, 1], [1, 0], [0, 1]], r"pass target.argmax\(1\)"),
        (torch.zeros(2, 3), [0, 1, 2], "target with class indices must have shape"),
        (torch.zeros(3), 0, "logits must be those of many samples"),
    ],
)
def test_bad_samples(logits: Tensor, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sw.Calibration.fit(logits, torch.tensor(target, dtype=torch.int64))


def test_other_bad_input() -> None:
    with pytest.raises(IndexError, match="class indices from 0 to 2, got 3"):
        sw.Calibration.fit(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(TypeError, match="logits must be floating"):
        sw.Calibration.fit(torch.zeros(2, 3).long(), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="target must be a tensor"):
        sw.Calibration.fit(torch.zeros(2, 3), [0, 1])  # type: ignore[arg-type]
    for temperature in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be finite and above 0"):
            sw.Calibration(temperature, [0, 0])
    with pytest.raises(ValueError, match="bias must be finite"):
        sw.Calibration(1, [0, math.nan])
    for bias in (0.0, [0.0], [[0.0, 0, 0]]):
        with pytest.raises(ValueError, match=r"bias must have shape \(C,\) or \(L, 2\)"):
            sw.Calibration(1, bias)
    with pytest.raises(ValueError, match="bias must be real numbers, got dtype torch.complex"):
        sw.Calibration(1, [1j, 0])
    with pytest.raises(ValueError, match="target of one logit must have the shape of logits"):
        sw.Calibration.fit(torch.zeros(5), torch.tensor([[0], [1], [0], [1], [1]]))
    with pytest.raises(ValueError, match="temperature must have shape"):
        sw.Calibration(1, [[0, 0], [0, 0]])
    with pytest.raises(ValueError, match="Calibration was made for 3 classes, logits have 4"):
        sw.Calibration(1, [0, 0, 0])(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="Calibration was made for 2 labels"):
        sw.Calibration([1, 1], [[0, 0], [0, 0]])(torch.zeros(2, 3))
