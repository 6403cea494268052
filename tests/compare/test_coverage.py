"""Intervals hold the truth as often as they say: simulations, hence slow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")

from scipy.special import ndtri

from sampleweights.compare.statistics import Prediction, Statistics
from sampleweights.compare.training.protocol import folds_of

pytestmark = pytest.mark.slow
SETS = 400
CHANCE = 1.96 * np.sqrt(0.95 * 0.05 / SETS)
"""What 400 sets may miss a coverage by: 2.1 points."""


def is_honest(hits: Sequence[bool], at_most: float = 0.97) -> bool:
    """93 to 97 %, as far as 400 sets tell."""
    return bool(0.93 - CHANCE <= np.mean(hits) <= at_most + CHANCE)


def predicted(generator, target, right, num_classes: int) -> Prediction:
    other = (target + generator.integers(1, num_classes, right.shape)) % num_classes
    # the confidence differs: rows that are alike in all are the same row
    return Prediction(np.where(right, target, other), generator.uniform(0.5, 1, right.shape))


def world(
    generator, sizes, recalls, *, varying=0.0, repeats=1, groups=None, folds=5
) -> tuple[Statistics, list[str]]:
    """Rows that are right with known probabilities, on the same hard samples and groups.

    Args:
        sizes: of the classes.
        recalls: (rows, C).
        varying: of each row, or of all, the deviation of its trainings, in normal quantiles.
    """
    rows, num_classes, size = len(recalls), len(sizes), sum(sizes)
    target = np.repeat(np.arange(num_classes), sizes)
    names = [f"class {c}" for c in range(num_classes)]
    varying = np.broadcast_to(varying, rows)
    if groups is None:
        group, shared = np.arange(size), 0.0
        order = np.concatenate([generator.permutation(n) for n in sizes])
        fold = np.stack([(order + generator.integers(folds)) % folds for _ in range(repeats)])
        fold = np.stack([f[generator.permutation(size)] if repeats > 1 else f for f in fold])
    else:
        group, shared = np.unique(generator.integers(0, groups, size), return_inverse=True)[1], 0.2
        folds = min(folds, group.max() + 1)
        fold = np.stack(
            [(generator.permutation(group.max() + 1) % folds)[group] for _ in range(repeats)]
        )
    hard = np.sqrt(shared) * generator.normal(size=group.max() + 1)[group]
    hard = hard + np.sqrt(0.4) * generator.normal(size=size)
    found = {}
    for row, (recall, deviation) in enumerate(zip(np.asarray(recalls), varying, strict=True)):
        luck = hard + np.sqrt(0.6 - shared) * generator.normal(size=(repeats, size))
        edge = ndtri(recall)[target] * np.sqrt(1 + deviation**2)
        training = deviation * generator.normal(size=(repeats, folds))
        right = luck < edge + np.take_along_axis(training, fold, 1)
        found[str(row)] = predicted(generator, target, right, num_classes)
    return Statistics(target, group, fold, names, found), names


def coverage(sizes, recalls, pair, metrics, sets=SETS, **kind) -> dict[str, list[bool]]:
    """How often intervals of a difference hold it."""
    generator = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {metric: [] for metric in metrics}
    difference = np.asarray(recalls[pair[0]]) - np.asarray(recalls[pair[1]])
    true = {
        "accuracy": 100 * difference @ np.asarray(sizes) / sum(sizes),
        "balanced_accuracy": 100 * difference.mean(),
    }
    for _ in range(sets):
        found, _ = world(generator, sizes, recalls, **kind)
        for metric, held in hits.items():
            by = found.difference(str(pair[0]), str(pair[1]), metric)
            held.append(by.low <= true[metric] <= by.high)
    return hits


BOTH = ("accuracy", "balanced_accuracy")
SIZES, PLAIN, OTHER = (350, 100, 50), [0.8, 0.8, 0.8], [0.8, 0.7, 0.9]

# --------------------------------------------------------------------------------------------
# Single numbers
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("few", [3, 4, 5, 10, 20])
def test_balanced_accuracy_and_f1_with_a_small_class(few):
    """Of samples drawn at random, of 5 to 20 in the small class; of 3 and 4 of fixed number."""
    generator = np.random.default_rng(few)
    sizes = np.array([300, 100, few])
    share = sizes / sizes.sum()
    joint = share[:, None] * (np.full((3, 3), 0.05) + 0.85 * np.eye(3))
    f1 = 2 * joint.diagonal() / (joint.sum(0) + joint.sum(1))
    true = {"accuracy": 90, "balanced_accuracy": 90, "macro_f1": 100 * f1.mean()}
    hits: dict[str, list[bool]] = {metric: [] for metric in true}
    for _ in range(SETS):
        target = np.repeat([0, 1, 2], sizes)
        if few >= 5:
            drawn = generator.choice(3, sizes.sum() - 3, p=share)
            target = np.concatenate([[0, 1, 2], drawn])
        right = generator.random((1, len(target))) < 0.9
        row = predicted(generator, target, right, 3)
        fold = np.zeros((1, len(target)), np.int64)
        found = Statistics(target, np.arange(len(target)), fold, ["a", "b", "c"], {"row": row})
        for metric, held in hits.items():
            estimate = found.estimate("row", metric)
            assert estimate.low <= estimate.value <= estimate.high
            held.append(estimate.low <= true[metric] <= estimate.high)
    assert is_honest(hits["accuracy"])
    assert is_honest(hits["balanced_accuracy"])
    if few >= 5:
        assert is_honest(hits["macro_f1"])


@pytest.mark.parametrize("groups", [5, 8, 12, 50, 200])
def test_single_numbers_of_groups(groups):
    generator = np.random.default_rng(groups)
    hits: dict[str, list[bool]] = {metric: [] for metric in BOTH}
    for _ in range(SETS):
        found, _ = world(generator, SIZES, [PLAIN], groups=groups)
        for metric, held in hits.items():
            estimate = found.estimate("0", metric)
            held.append(estimate.low <= 80 <= estimate.high)
    for metric, held in hits.items():
        assert is_honest(held), (metric, np.mean(held))


def scores(generator, target, noise, num_classes: int) -> Prediction:
    logits = 1.2 * np.eye(num_classes)[target] + noise
    return Prediction.of(logits[None])


@pytest.mark.parametrize("few", [20, 60])
def test_areas_and_their_differences(few):
    """Two rows that are alike, from the same features with noise of their own."""
    generator = np.random.default_rng(few)
    sizes = (300, 100, few)

    def both(sizes: Sequence[int]) -> tuple[np.ndarray, list[Prediction]]:
        target = np.repeat([0, 1, 2], sizes)
        shared = generator.normal(size=(len(target), 3))
        return target, [
            scores(generator, target, shared + 0.5 * generator.normal(size=shared.shape), 3)
            for _ in range(2)
        ]

    target, [row, _] = both([1000 * size for size in sizes])
    fold = np.zeros((1, len(target)), np.int64)
    large = Statistics(target, np.arange(len(target)), fold, ["a", "b", "c"], {"row": row})
    hits: dict[str, list[bool]] = {}
    for _ in range(SETS):
        target, rows = both(sizes)
        fold = generator.permutation(len(target))[None] % 5
        found = Statistics(
            target, np.arange(len(target)), fold, ["a", "b", "c"], {"0": rows[0], "1": rows[1]}
        )
        for metric in ("average_precision", "auroc", "average_precision_c"):
            true, estimate = large.estimate("row", metric).value, found.estimate("0", metric)
            hits.setdefault(metric, []).append(estimate.low <= true <= estimate.high)
            by = found.difference("1", "0", metric)
            hits.setdefault(f"{metric}, difference", []).append(by.low <= 0 <= by.high)
    for metric, held in hits.items():
        assert is_honest(held, at_most=0.985 if "difference" in metric else 0.97), (
            metric,
            np.mean(held),
        )


# --------------------------------------------------------------------------------------------
# Differences
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("varying", [0.15, 0.4])
@pytest.mark.parametrize(
    ("rows", "repeats"), [(2, 1), (10, 1), (2, 3)], ids=["two", "ten", "repeats"]
)
def test_differences_of_trainings_that_vary(rows, repeats, varying):
    recalls = [PLAIN, OTHER] * (rows // 2)
    hits = coverage(SIZES, recalls, (1, 0), BOTH, varying=varying, repeats=repeats)
    for metric, held in hits.items():
        assert is_honest(held), (metric, np.mean(held))


def test_differences_of_trainings_that_do_not_vary():
    """What no data set shows to be the case: intervals are a little wider than they need be."""
    for metric, held in coverage(SIZES, [PLAIN, OTHER], (1, 0), BOTH).items():
        assert is_honest(held, at_most=0.985), (metric, np.mean(held))


@pytest.mark.parametrize("times", [2, 4, 10])
def test_a_row_whose_trainings_vary_more_than_the_others(times):
    varying = [0.05, 0.05, 0.05, 0.05 * times]
    hits = coverage(SIZES, [PLAIN] * 4, (3, 0), BOTH, varying=varying)
    for metric, held in hits.items():
        assert is_honest(held, at_most=0.98), (metric, np.mean(held))


@pytest.mark.parametrize("groups", [5, 8, 12, 50, 200])
def test_differences_of_groups(groups):
    hits = coverage(SIZES, [PLAIN, OTHER], (1, 0), BOTH, varying=0.2, groups=groups)
    for metric, held in hits.items():
        assert is_honest(held), (metric, np.mean(held))


@pytest.mark.parametrize("few", [4, 5, 10, 20])
def test_differences_with_a_small_class(few):
    """So few samples hold little: intervals are too wide rather than too narrow."""
    recalls = [[0.9, 0.8, 0.9], [0.9, 0.8, 0.5]]
    hits = coverage((300, 100, few), recalls, (1, 0), ("balanced_accuracy",), varying=0.1)
    assert np.mean(hits["balanced_accuracy"]) >= 0.93 - CHANCE


@pytest.mark.parametrize("varying", [0.0, 0.2])
def test_of_fourteen_equal_rows_next_to_none_is_called_a_gain(varying):
    generator = np.random.default_rng(0)
    names, gains = [str(row) for row in range(1, 14)], {metric: [] for metric in BOTH}
    for _ in range(200):
        found, _ = world(generator, SIZES, [PLAIN] * 14, varying=varying)
        for metric, announced in gains.items():
            together = found.differences(names, "0", metric)
            announced.append(any(by.low > 0 for by in together.values()))
    for metric, announced in gains.items():
        assert np.mean(announced) <= 0.05, metric


@pytest.mark.parametrize("strengths", [[0.5], [0.0, 0.2, 0.5, 0.8, 1.0]])
def test_rows_on_the_curve_are_seldom_called_above_or_below(strengths):
    """Other trainings of the same model, adjusted: their true distance to the curve is 0."""
    generator = np.random.default_rng(1)
    share, size = np.array([0.6, 0.3, 0.1]), 1000
    prior, called = np.log(share), []
    for _ in range(200):
        target = np.concatenate([[0, 1, 2], generator.choice(3, size - 3, p=share)])
        fold = generator.permutation(size)[None] % 5
        score = 1.2 * (1.2 * np.eye(3)[target] + generator.normal(size=(size, 3))) + prior
        logits = [
            score
            + 0.6 * generator.normal(size=(size, 3))
            + 0.1 * generator.normal(size=(5, 3))[fold[0]]
            for _ in range(len(strengths) + 1)
        ]
        base = logits[0]
        rows = {"base": Prediction.of(base[None])}
        for tau, other in zip(strengths, logits[1:], strict=True):
            rows[str(tau)] = Prediction.of((other - tau * prior)[None])
        found = Statistics(target, np.arange(size), fold, ["a", "b", "c"], rows)
        curve = {tau: Prediction.of((base - tau * prior)[None]) for tau in np.arange(11) / 10}
        by = found.above_curve(list(rows)[1:], curve).values()
        called.append(any(of.low > 0 or of.high < 0 for of in by))
    assert np.mean(called) <= 0.05


# --------------------------------------------------------------------------------------------
# With models that were trained
# --------------------------------------------------------------------------------------------


def trained(features, target, fold, generator, width: int) -> np.ndarray:
    """Out-of-fold logits of ridge regression on random features: models that differ by chance."""
    logits = np.zeros((*fold.shape, 3), np.float32)
    for repeat, of_repeat in enumerate(fold):
        for number in range(of_repeat.max() + 1):
            projection = generator.normal(size=(features.shape[1], width))
            hidden = np.tanh(features @ projection / np.sqrt(features.shape[1]))
            hidden = np.c_[hidden, np.ones(len(hidden))]
            inside = of_repeat != number
            gram = hidden[inside].T @ hidden[inside] + 0.1 * np.eye(width + 1)
            coefficient = np.linalg.solve(gram, hidden[inside].T @ np.eye(3)[target[inside]])
            logits[repeat, ~inside] = 4 * hidden[~inside] @ coefficient
    return logits


@pytest.mark.parametrize(("size", "width"), [(300, 30), (1000, 15)])
def test_intervals_of_equal_criteria_hold_zero(size, width):
    """In the second kind trainings vary: the spread of the samples alone would hold it in 85 %."""
    generator = np.random.default_rng(0)
    metrics = (*BOTH, "macro_f1", "auroc", "average_precision")
    hits: dict[str, list[bool]] = {metric: [] for metric in metrics}
    for _ in range(200):
        target = np.repeat([0, 1, 2], [size * 7 // 10, size * 2 // 10, size // 10])
        centers = 0.8 * generator.normal(size=(3, 20))
        features = centers[target] + generator.normal(size=(len(target), 20))
        names = ["a", "b", "c"]
        fold = folds_of(target, None, names, 5, 1, int(generator.integers(2**20)))
        rows = {
            str(i): Prediction.of(trained(features, target, fold, generator, width))
            for i in range(3)
        }
        found = Statistics(target, np.arange(len(target)), fold, names, rows)
        for metric, held in hits.items():
            for row in ("1", "2"):
                by = found.difference(row, "0", metric)
                held.append(by.low <= 0 <= by.high)
    for metric, held in hits.items():
        assert is_honest(held, at_most=0.98), (metric, np.mean(held))


def test_no_gain_is_announced_while_few_samples_hide_a_loss():
    """A row that saves a little, and loses 15 % of a class of few samples that are worth much."""
    generator = np.random.default_rng(0)
    utility, sure = np.array([[0.0, -1.0], [-60.0, -1.0]]), np.array([[0.0, -9.0], [0.0, 9.0]])
    for positives in (6, 20):
        target, gains, held = np.repeat([0, 1], [1000, positives]), [], []
        true = (0.02 * 1000 - 0.15 * 0.97 * 59 * positives) / len(target)
        for _ in range(200):
            luck, more = generator.random((2, len(target)))
            careful = luck < np.where(target == 1, 0.97, 0.05)
            bold = careful & (more >= np.where(target == 1, 0.15, 0.02 / 0.05))
            rows = {
                name: Prediction.of(sure[treated.astype(int)][None], utility, target)
                for name, treated in [("careful", careful), ("bold", bold)]
            }
            fold = generator.permutation(len(target))[None] % 5
            found = Statistics(target, np.arange(len(target)), fold, ["x", "y"], rows)
            by = found.difference("bold", "careful", "utility")
            gains.append(by.low > 0)
            held.append(by.low <= true <= by.high)
        assert np.mean(gains) <= 0.025, positives
        assert np.mean(held) >= 0.93 - CHANCE, positives
