"""Prediction sets: their threshold in plain Python, and what they promise."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw


def made(size: int, seed: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    """A long tail."""
    generator = torch.Generator().manual_seed(seed)
    prior = torch.tensor([0.5**c for c in range(classes)])
    target = torch.multinomial(prior, size, replacement=True, generator=generator)
    logits = torch.randn(size, classes, generator=generator) + prior.log()
    logits[range(size), target] += 1.5
    return logits, target


def oracle(
    rows: list[list[float]], target: list[int], coverage: float, prior: list[float]
) -> float:
    """The highest t for which enough samples have log p_y - log prior_y >= t."""
    scores = []
    for row, y in zip(rows, target, strict=True):
        total = math.log(sum(math.exp(z) for z in row))
        scores.append(row[y] - total - math.log(prior[y]))
    needed = next(k for k in range(len(rows) + 2) if k + 1e-9 >= coverage * (len(rows) + 1))
    return -math.inf if needed > len(rows) else sorted(scores, reverse=True)[needed - 1]


@pytest.mark.parametrize("size", [1, 8, 9, 10, 57, 99])
@pytest.mark.parametrize("coverage", [0.1, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("counts", [None, [80, 10, 7, 3]])
def test_the_threshold(size: int, coverage: float, counts: list[int] | None) -> None:
    logits, target = made(size, 0)
    sets = sw.PredictionSets.fit(logits.double(), target, coverage, counts)
    prior = [1.0] * 4 if counts is None else [n / 100 for n in counts]
    expected = oracle(logits.tolist(), target.tolist(), coverage, prior)
    assert sets.threshold.item() == pytest.approx(expected, abs=1e-12)
    others, _ = made(20, 1)
    for row, inside in zip(others.tolist(), sets(others.double()).tolist(), strict=True):
        total = math.log(sum(math.exp(z) for z in row))
        scores = [z - total - math.log(p) for z, p in zip(row, prior, strict=True)]
        assert inside == [score >= expected - 1e-12 for score in scores]


@pytest.mark.parametrize("way", ["probability", "prevalence", "per_class"])
def test_sets_cover_what_they_promise(way: str) -> None:
    """Over 200 splits: as an average it is within its own error of the promise."""
    size, coverage, found = 400, 0.9, []
    logits, target = made(2000, 7)
    counts = target.bincount() if way == "prevalence" else None
    for seed in range(200):
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
        fit, rest = order[:size], order[size:]
        sets = sw.PredictionSets.fit(
            logits[fit], target[fit], coverage, counts, per_class=way == "per_class"
        )
        inside = sets(logits[rest])[range(len(rest)), target[rest]].float()
        found.append(inside.mean().item())
        assert found[-1] >= coverage - 3 / math.sqrt(size)
    assert sum(found) / len(found) >= coverage - 0.005


def test_prevalence_covers_rare_classes_and_per_class_each() -> None:
    logits, target = made(4000, 3)
    fit, rest = slice(0, 2000), slice(2000, 4000)
    counts = target.bincount()

    def covered(**options: Any) -> list[float]:
        sets = sw.PredictionSets.fit(logits[fit], target[fit], 0.9, **options)
        inside = sets(logits[rest])[range(2000), target[rest]]
        return [inside[target[rest] == c].float().mean().item() for c in range(4)]

    plain, prevalence, each = (
        covered(), covered(class_counts=counts), covered(per_class=True),
    )  # fmt: skip
    assert plain[3] < 0.6 < 0.75 < prevalence[3]
    assert min(each) > 0.83
    assert abs(sum(plain) / 4 - 0.9) > abs(sum(prevalence) / 4 - 0.9)


def test_per_class_is_a_threshold_for_each() -> None:
    logits, target = made(300, 0)
    sets = sw.PredictionSets.fit(logits, target, 0.8, per_class=True)
    for c in range(4):
        of = target == c
        alone = sw.PredictionSets.fit(logits[of], target[of], 0.8)
        assert sets.threshold[c].equal(alone.threshold)
    few = torch.cat([torch.arange(4), torch.zeros(40, dtype=torch.int64)])
    sets = sw.PredictionSets.fit(logits[:44], few, per_class=True)
    assert sets.threshold.isinf().tolist() == [False, True, True, True]
    assert sets(logits)[:, 1:].all()


def test_one_logit_and_labels_say_whether_0_and_1_are_inside() -> None:
    logits, target = made(500, 0, classes=2)
    z = logits[:, 1] - logits[:, 0]
    for options in ({}, {"class_counts": [900, 100]}, {"per_class": True}):
        by_class = sw.PredictionSets.fit(logits, target, 0.7, **options)
        by_odds = sw.PredictionSets.fit(z, target, 0.7, **options)
        torch.testing.assert_close(by_odds.threshold, by_class.threshold, rtol=0, atol=1e-6)
        others = made(300, 1, classes=2)[0]
        of = others[:, 1] - others[:, 0]
        assert by_odds(of).shape == (300, 2)
        assert by_odds(of).equal(by_class(others))
        assert by_odds(of[:, None]).equal(by_class(others)[:, None])
        if "class_counts" in options:
            options = {"class_counts": [[900, 100]] * 3}
        labels = sw.PredictionSets.fit(
            z[:, None].expand(-1, 3), target[:, None].expand(-1, 3), 0.7, **options
        )
        assert labels(of[:, None].expand(-1, 3)).equal(by_class(others)[:, None].expand(-1, 3, 2))


def test_dense_single_and_half() -> None:
    logits, target = made(600, 0)
    sets = sw.PredictionSets.fit(logits, target, 0.8, [8, 4, 2, 1])
    dense = logits.reshape(100, 6, 4).movedim(2, 1)
    found = sw.PredictionSets.fit(dense, target.reshape(100, 6), 0.8, [8, 4, 2, 1])
    assert found.threshold.equal(sets.threshold)
    assert found(dense).equal(sets(logits).reshape(100, 6, 4).movedim(2, 1))
    assert sets(logits[0]).equal(sets(logits)[0])
    half = logits.bfloat16()
    assert sets.to(torch.bfloat16)(half).equal(sets(half.float()))


def test_it_is_saved_and_printed() -> None:
    logits, target = made(600, 0)
    sets = sw.PredictionSets.fit(logits, target, 0.8, [8, 4, 2, 1])
    file = io.BytesIO()
    torch.save(nn.Sequential(sets).state_dict(), file)
    file.seek(0)
    other = sw.PredictionSets(0.0, torch.zeros(4))
    nn.Sequential(other).load_state_dict(torch.load(file, weights_only=True))
    assert other(logits).equal(sets(logits))
    text = repr(sw.PredictionSets(-0.5, [0.0, -2.0]))
    assert text == "PredictionSets(threshold=-0.5, log_prior=[0.0, -2.0])"
    assert repr(eval(text, {"PredictionSets": sw.PredictionSets})) == text


def test_bad_input() -> None:
    logits, target = made(20, 0)
    fit = sw.PredictionSets.fit
    for coverage in (0, 1, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="coverage must be above 0 and below 1, got"):
            fit(logits, target, coverage)
    with pytest.raises(TypeError, match="coverage must be a number"):
        fit(logits, target, "0.9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class_counts must have shape"):
        fit(logits, target, 0.9, [1, 2, 3])
    with pytest.raises(ValueError, match="class_counts must hold at least one sample of each"):
        fit(logits, target, 0.9, [1, 2, 3, 0])
    with pytest.raises(ValueError, match="got none of class 2"):
        fit(logits, target % 2, per_class=True)
    with pytest.raises(ValueError, match="logits must be finite, got nan"):
        fit(logits.masked_fill(target[:, None] == 0, math.nan), target)
    sets = fit(logits, target)
    with pytest.raises(ValueError, match="PredictionSets was made for 4 classes, logits have 3"):
        sets(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="logits must not hold NaN or infinity"):
        sets(torch.full((2, 4), math.nan))
    with pytest.raises(ValueError, match="log_prior must have shape"):
        sw.PredictionSets(0.0, 0.0)
    with pytest.raises(ValueError, match="threshold must have shape"):
        sw.PredictionSets([0.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="threshold must not be NaN"):
        sw.PredictionSets(math.nan, [0.0, 0.0])
