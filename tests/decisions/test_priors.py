"""Other class frequencies: logits that are moved there, and frequencies that are estimated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sampleweights as sw
from sampleweights.decisions import PriorEstimate

counts = st.lists(st.integers(1, 10_000), min_size=2, max_size=6)
CENTERS = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0.7, 0.7, 0.7]]).double()


def drawn(prior: Any, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, 3) around their class's center, and the classes (N,)."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.multinomial(torch.as_tensor(prior).double(), size, True, generator=generator)
    noise = torch.randn(size, 3, generator=generator, dtype=torch.float64)
    return CENTERS[target] + noise, target


def perfect(features: Tensor, prior: Any) -> Tensor:
    """The logits of the true probabilities, for a training with this prior."""
    distance = (features[:, None] - CENTERS).square().sum(-1)
    return torch.as_tensor(prior).double().log() - distance / 2


# ---------------------------------------------------------------------------------------------
# posthoc(logits, prior=)
# ---------------------------------------------------------------------------------------------


@given(counts, st.integers(0, 2**31))
def test_the_prior_of_the_training_gives_the_logits_back(counts: list[int], seed: int) -> None:
    z = 5 * torch.randn(4, len(counts), generator=torch.Generator().manual_seed(seed))
    prior = torch.tensor(counts).double() / sum(counts)
    assert sw.LogitAdjustment(counts).posthoc(z, prior).equal(z)
    torch.testing.assert_close(sw.LogitAdjustment(counts).posthoc(z, prior.tolist()), z)


@given(counts, st.lists(st.floats(0.01, 1), min_size=6, max_size=6), st.sampled_from([0, 0.5, 1.0]))
def test_the_formula(counts: list[int], prior: list[float], tau: float) -> None:
    prior = [p / sum(prior[: len(counts)]) for p in prior[: len(counts)]]
    z = torch.linspace(-1, 1, len(counts)).double()[None]
    for value, moved, n, p in zip(
        z[0].tolist(),
        sw.LogitAdjustment(counts, tau).posthoc(z, prior)[0].tolist(),
        counts, prior, strict=True,
    ):  # fmt: skip
        expected = value - tau * math.log(n / sum(counts)) + math.log(p)
        assert moved == pytest.approx(expected, abs=1e-10)


def test_a_uniform_prior_decides_as_without_one() -> None:
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    adjustment = sw.LogitAdjustment([50, 30, 15, 5])
    moved = adjustment.posthoc(z, np.full(4, 0.25))
    torch.testing.assert_close(moved.softmax(1), adjustment.posthoc(z).softmax(1))


def test_bayes_by_hand() -> None:
    """Of 10 % trained and 50 % now, even odds become 9 to 1."""
    adjustment = sw.LogitAdjustment([90, 10])
    assert adjustment.posthoc(torch.tensor([0.0]), [0.5, 0.5]).sigmoid().item() == pytest.approx(
        0.9
    )
    labels = sw.LogitAdjustment([[90, 10], [50, 50]])
    moved = labels.posthoc(torch.zeros(1, 2), [[0.5, 0.5], [0.2, 0.8]]).sigmoid()
    assert moved[0].tolist() == pytest.approx([0.9, 0.8])


def test_classes_that_are_not_there() -> None:
    z = torch.zeros(1, 3)
    moved = sw.LogitAdjustment([5, 5, 5]).posthoc(z, [0.5, 0.5, 0.0])
    assert moved[0, 2] == -math.inf
    moved = sw.LogitAdjustment([5, 5, 0]).posthoc(z, [0.2, 0.3, 0.5])  # never learnt
    assert moved[0, 2] == -math.inf
    assert moved[0, :2].isfinite().all()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.6], "prior must hold frequencies of at least 0 that sum to 1"),
        ([1.5, -0.5], "prior must hold frequencies of at least 0 that sum to 1"),
        ([math.nan, 1], "prior must hold frequencies of at least 0 that sum to 1"),
        ([30, 70], "prior must hold frequencies of at least 0 that sum to 1"),
        ([0.2, 0.3, 0.5], r"prior must have one frequency for each class, shape \(2,\)"),
        (0.5, r"prior must have one frequency for each class, shape \(2,\), got shape \(\)"),
        ([True, False], "prior must hold frequencies, got dtype torch.bool"),
        ("half", "prior must be numbers"),
    ],
)
def test_bad_priors(prior: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sw.LogitAdjustment([3, 1]).posthoc(torch.zeros(4, 2), prior)


# ---------------------------------------------------------------------------------------------
# estimate_prior
# ---------------------------------------------------------------------------------------------

TRAINED = [0.6, 0.25, 0.1, 0.05]
COUNTS = [60_000, 25_000, 10_000, 5_000]


def em(rows: list[list[float]], trained: list[float], steps: int = 3000) -> list[float]:
    """The iteration of Saerens et al., in plain Python."""
    prior = list(trained)
    for _ in range(steps):
        total = [0.0] * len(prior)
        for row in rows:
            top = max(row)
            weight = [
                math.exp(z - top) * p / t for z, p, t in zip(row, prior, trained, strict=True)
            ]
            for c, w in enumerate(weight):
                total[c] += w / sum(weight)
        prior = [t / len(rows) for t in total]
    return prior


def test_against_plain_python() -> None:
    features, _ = drawn([0.1, 0.2, 0.3, 0.4], 60, 0)
    z = perfect(features, TRAINED)
    found = sw.estimate_prior(z, COUNTS)
    expected = em(z.tolist(), TRAINED)
    assert found.most_likely.tolist() == pytest.approx(expected, abs=1e-4)
    assert found.prior.equal(found.most_likely)
    assert found.shifted
    ratios = [
        sum(q * p / t for q, p, t in zip(row, expected, TRAINED, strict=True))
        for row in z.softmax(1).tolist()
    ]
    statistic = 2 * sum(map(math.log, ratios)) / (1 + 60 / 100_000)
    assert found.p_value.item() == pytest.approx(chi2_of_3(statistic), rel=1e-3)


def chi2_of_3(x: float) -> float:
    """The upper tail of chi-square with three degrees of freedom."""
    return math.erfc(math.sqrt(x / 2)) + math.sqrt(2 * x / math.pi) * math.exp(-x / 2)


def test_dirichlet_priors_are_recovered() -> None:
    """Of 600 samples without labels: almost as accurate as with the true frequencies."""
    generator, lost = np.random.default_rng(0), []
    adjustment = sw.LogitAdjustment(COUNTS)
    for seed in range(30):
        prior = generator.dirichlet(np.ones(4))
        features, target = drawn(prior, 600, seed)
        z = perfect(features, TRAINED)
        estimate = sw.estimate_prior(z, COUNTS)
        accuracy = [
            (adjustment.posthoc(z, p).argmax(1) == target).double().mean().item()
            for p in (prior / prior.sum(), estimate.prior)
        ]
        lost.append(accuracy[0] - accuracy[1])
    assert sum(lost) / len(lost) < 0.01
    assert max(lost) < 0.03


@pytest.mark.slow
def test_without_a_shift_it_says_so_and_gives_the_prior_of_the_training() -> None:
    seen = []
    for seed in range(200):
        features, _ = drawn(TRAINED, 300, seed)
        estimate = sw.estimate_prior(perfect(features, TRAINED), COUNTS)
        seen.append(bool(estimate.shifted))
        if not estimate.shifted:
            assert estimate.prior.tolist() == TRAINED
            assert "no shift is shown" in str(estimate)
            assert not estimate.most_likely.equal(estimate.prior)
        else:
            assert "a shift is shown" in str(estimate)
    assert 2 <= sum(seen) <= 21  # 5 % of 200, and their chance


@pytest.mark.slow
def test_a_calibration_on_few_samples_is_no_shift() -> None:
    """The frequencies among them are uncertain too; the test alone would see a shift in 40 %."""
    seen, uncorrected = [], []
    for seed in range(100):
        features, target = drawn(TRAINED, 800, seed)
        z = 1.5 * perfect(features, TRAINED) + torch.tensor([0.5, 0.0, -0.5, 0.5])
        fit, rest = slice(0, 400), slice(400, 800)
        calibration = sw.Calibration.fit(z[fit], target[fit])
        known = target[fit].bincount(minlength=4)
        seen.append(bool(sw.estimate_prior(calibration(z[rest]), known).shifted))
        exact = sw.estimate_prior(calibration(z[rest]), known * 10**6)
        uncorrected.append(bool(exact.shifted))
    assert sum(seen) <= 12
    assert sum(uncorrected) >= 20


def test_it_says_that_there_is_no_shift() -> None:
    estimate = sw.estimate_prior(perfect(drawn(TRAINED, 300, 0)[0], TRAINED), COUNTS)
    assert not estimate.shifted
    assert estimate.prior.tolist() == TRAINED
    assert "no shift is shown" in str(estimate)


def test_one_logit_and_labels() -> None:
    features, _ = drawn([0.3, 0.7, 0, 0], 500, 0)
    z = perfect(features, [0.9, 0.1, 1, 1])[:, :2]
    both = sw.estimate_prior(z, [900, 100])
    odds = z[:, 1] - z[:, 0]
    for of in (odds, odds[:, None]):
        alone = sw.estimate_prior(of, [900, 100])
        torch.testing.assert_close(alone.prior, both.prior)
        torch.testing.assert_close(alone.p_value, both.p_value)
    assert both.prior[1] == pytest.approx(0.7, abs=0.07)
    as_trained = perfect(drawn([0.9, 0.1, 0, 0], 500, 1)[0], [0.9, 0.1, 1, 1])
    still = as_trained[:, 1] - as_trained[:, 0]
    labels = sw.estimate_prior(torch.stack([odds, still], 1), [[900, 100]] * 2)
    assert isinstance(labels, PriorEstimate)
    assert labels.shifted.tolist() == [True, False]
    torch.testing.assert_close(labels.prior[0], both.prior)
    assert labels.prior[1].tolist() == [0.9, 0.1]
    assert str(labels) == "a shift is shown of 1 of 2 labels"
    moved = sw.LogitAdjustment([[900, 100]] * 2).posthoc(
        torch.stack([odds, still], 1), labels.prior
    )
    assert moved.shape == (500, 2)


def test_absent_classes_dense_and_half() -> None:
    features, _ = drawn([0.2, 0.3, 0.5, 0], 400, 0)
    z = perfect(features, [0.4, 0.3, 0.3, 1])
    z[:, 3] = 50
    found = sw.estimate_prior(z, [400, 300, 300, 0])
    alone = sw.estimate_prior(z[:, :3], [400, 300, 300])
    torch.testing.assert_close(found.prior[:3], alone.prior)
    torch.testing.assert_close(found.p_value, alone.p_value)
    assert found.prior[3] == 0
    dense = z[:, :3].reshape(100, 4, 3).movedim(2, 1)
    torch.testing.assert_close(sw.estimate_prior(dense, [4, 3, 3]).most_likely, alone.most_likely)
    half = sw.estimate_prior(z[:, :3].half(), [400, 300, 300])
    assert half.prior.dtype == torch.float64
    torch.testing.assert_close(half.prior, alone.prior, rtol=0, atol=1e-3)


def test_bad_samples() -> None:
    for level in (0, 1, -1, math.nan):
        with pytest.raises(ValueError, match="level must be above 0 and below 1"):
            sw.estimate_prior(torch.zeros(3, 2), [1, 1], level=level)
    with pytest.raises(ValueError, match="logits must be finite, got nan"):
        sw.estimate_prior(torch.full((3, 2), math.nan), [1, 1])
    with pytest.raises(ValueError, match="logits must be finite, got -inf"):
        sw.estimate_prior(torch.tensor([[0.0, -math.inf]]), [1, 1])
    for shape in ((0, 3), (3,), ()):
        with pytest.raises(ValueError, match="logits"):
            sw.estimate_prior(torch.zeros(shape), [1, 1, 1])
    with pytest.raises(ValueError, match="class_counts was made for 3 classes, logits have 2"):
        sw.estimate_prior(torch.zeros(4, 2), [1, 1, 1])
    with pytest.raises(TypeError, match="logits must be floating"):
        sw.estimate_prior(torch.zeros(4, 2).long(), [1, 1])


def test_classes_that_look_alike_are_told_apart_to_the_end() -> None:
    """At the maximum no class would make the samples more likely (Karush, Kuhn and Tucker)."""
    generator = torch.Generator().manual_seed(7)
    trained = torch.tensor([500, 300, 150, 50])
    true = torch.tensor([0.05, 0.15, 0.3, 0.5])
    target = torch.multinomial(true, 5000, replacement=True, generator=generator)
    feature = torch.randn(5000, 4, generator=generator, dtype=torch.float64)
    feature[range(5000), target] += 0.1
    logits = 0.1 * feature + (trained / 1000).log()
    found = sw.estimate_prior(logits, trained).most_likely
    ratio = logits.softmax(1) / (trained / 1000)
    gradient = (ratio / (ratio @ found)[:, None]).mean(0)
    assert found.sum().item() == pytest.approx(1)
    assert gradient.max() < 1 + 1e-5
    assert (found * (gradient - 1).abs()).max() < 1e-6


def test_frequencies_come_with_their_classes() -> None:
    """value_counts(normalize=True) has the most frequent class first."""
    adjustment = sw.LogitAdjustment([5, 3, 2])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = adjustment.posthoc(logits, prior=[0.1, 0.2, 0.7])
    assert adjustment.posthoc(logits, prior={2: 0.7, 1: 0.2, 0: 0.1}).equal(expected)
    zero = adjustment.posthoc(logits, prior={1: 0.2, 0: 0.8})
    assert zero[:, 2].eq(-math.inf).all()
    with pytest.raises(ValueError, match="prior with keys must have class indices"):
        adjustment.posthoc(logits, prior={"MEL": 0.7, "NV": 0.3})
    pandas = pytest.importorskip("pandas")
    frequency = pandas.Series([0] + [1] * 2 + [2] * 7).value_counts(normalize=True)
    assert adjustment.posthoc(logits, prior=frequency).equal(expected)


def test_logits_that_are_no_tensor() -> None:
    with pytest.raises(TypeError, match="logits must be a tensor, got ndarray"):
        sw.estimate_prior(torch.zeros(2, 2).numpy(), [1, 1])
