"""Metrics against scikit-learn, and intervals against formulas written out."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")

from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from sampleweights.compare.statistics import (
    METRICS,
    Estimate,
    Prediction,
    Statistics,
    metrics_of_row,
)
from sampleweights.compare.statistics.metrics import areas, f1_scores
from sampleweights.compare.training.protocol import folds_of

NAMES = ["a", "b", "c"]


def made(size: int, seed: int, repeats: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, folds and logits."""
    generator = np.random.default_rng(seed)
    target = np.repeat([0, 1, 2], [size * 7 // 10, size * 2 // 10, size // 10])
    fold = folds_of(target, None, NAMES, 5, repeats, seed)
    logits = generator.normal(size=(repeats, len(target), 3)).astype(np.float32)
    logits[:, np.arange(len(target)), target] += 1
    return target, fold, logits


def statistics_of(target, fold, rows, group=None, weight=None) -> Statistics:
    group = np.arange(len(target)) if group is None else group
    found = {name: Prediction.of(logits) for name, logits in rows.items()}
    return Statistics(target, group, fold, NAMES, found, weight=weight)


# --------------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------------


def scikit_learns(target, logits, weight=None) -> dict[str, float]:
    """One repeat, in percent."""
    exponential = np.exp(logits.astype(np.float64))
    probability = (exponential / exponential.sum(-1, keepdims=True)).astype(np.float32)
    predicted, of = logits.argmax(-1), {"sample_weight": weight}
    recall = recall_score(target, predicted, average=None, **of)
    precision = precision_score(target, predicted, average=None, **of)
    ranked = [average_precision_score(target == c, probability[:, c], **of) for c in range(3)]
    return {
        name: 100 * value
        for name, value in {
            "accuracy": accuracy_score(target, predicted, **of),
            "balanced_accuracy": balanced_accuracy_score(target, predicted, **of),
            "macro_f1": f1_score(target, predicted, average="macro", **of),
            "average_precision": np.mean(ranked),
            "auroc": np.mean(
                [roc_auc_score(target == c, probability[:, c], **of) for c in range(3)]
            ),
            "worst_recall": recall.min(),
            "recall_b": recall[1],
            "precision_c": precision[2],
            "average_precision_a": ranked[0],
        }.items()
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(weighted):
    target, fold, logits = made(200, 0, repeats=2)
    weight = np.random.default_rng(0).uniform(0.1, 3, 200) if weighted else None
    found = statistics_of(target, fold, {"row": logits, "other": logits[..., ::-1]}, weight=weight)
    both = [scikit_learns(target, of, weight) for of in logits]
    for metric in both[0]:
        expected = np.mean([of[metric] for of in both])
        assert found.estimate("row", metric).value == pytest.approx(expected, rel=1e-6)
        other = found.estimate("other", metric).value
        by = found.difference("other", "row", metric).value
        assert by == pytest.approx(other - expected, abs=1e-4)
    named = metrics_of_row(Prediction.of(logits), target, 3, weight)
    assert list(named) == list(METRICS)
    for metric in METRICS:
        assert named[metric] == pytest.approx(found.estimate("row", metric).value)
    assert list(metrics_of_row(Prediction.of(logits), target, 3, metrics=["auroc"])) == ["auroc"]


def test_ties_of_scores_are_scikit_learns():
    generator = np.random.default_rng(3)
    positive, score = generator.random(300) < 0.3, generator.integers(0, 8, 300) / 8
    weight = generator.uniform(0.5, 2, 300)
    precision, auroc = areas(score, positive, weight)
    of = {"sample_weight": weight}
    assert precision.value == pytest.approx(average_precision_score(positive, score, **of))
    assert auroc.value == pytest.approx(roc_auc_score(positive, score, **of))


def test_without_probabilities_there_is_no_ranking():
    target, fold, logits = made(200, 0)
    row = Prediction(logits.argmax(-1), np.full((1, 200), 0.8))
    found = Statistics(target, np.arange(200), fold, NAMES, {"row": row, "other": row})
    assert math.isnan(found.estimate("row", "auroc").value)
    assert math.isnan(found.difference("row", "other", "average_precision").value)
    assert found.estimate("row", "accuracy").shown


def test_a_decision_maximises_the_expected_utility():
    utility = np.array([[1.0, 0.0, 0.4], [-5.0, 2.0, 0.4]])  # two classes, a third decision
    logits = np.array([[[2.0, 0.0], [0.2, 0.0], [0.0, 3.0]]])
    target = np.array([0, 1, 0])
    earned = []
    for (one, two), c in zip(logits[0], target, strict=True):
        p = math.exp(one) / (math.exp(one) + math.exp(two))
        expected = [p * utility[0, d] + (1 - p) * utility[1, d] for d in range(3)]
        earned.append(utility[c, expected.index(max(expected))])
    row = Prediction.of(logits, utility, target)
    assert row.utility.tolist() == [earned]
    assert row.predicted.tolist() == [[0, 0, 1]]
    fold = np.zeros((1, 3), np.int64)
    found = Statistics(target, np.arange(3), fold, ["x", "y"], {"row": row})
    assert found.estimate("row", "utility").value == pytest.approx(np.mean(earned))  # no percent
    with pytest.raises(ValueError, match="target must be given with utility, got None"):
        Prediction.of(logits, utility)


def gaps(target, probability) -> list[float]:
    confidence, right = probability.max(-1), probability.argmax(-1) == target
    edges = np.linspace(0, 1, 16)
    inside = [(confidence > low) & (confidence <= high) for low, high in itertools.pairwise(edges)]
    return [float((right[i] * 1.0 - confidence[i]).sum()) for i in inside]


def test_calibration_error_is_the_mean_gap_where_chance_adds_nothing():
    """To the large gaps of a model that is too sure of itself, and to those of a certain one."""
    target, _, logits = made(30_000, 1)
    logits *= 3
    probability = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    expected = 100 * sum(map(abs, gaps(target, probability))) / len(target)
    found = metrics_of_row(Prediction.of(logits), target, 3, metrics=["calibration_error"])
    assert found["calibration_error"] == pytest.approx(expected, abs=0.1)
    sure = Prediction(logits.argmax(-1), np.ones((1, len(target))))
    wrong = 100 - 100 * accuracy_score(target, logits[0].argmax(-1))
    found = metrics_of_row(sure, target, 3, metrics=["calibration_error"])
    assert found["calibration_error"] == pytest.approx(wrong)


def test_a_calibrated_model_has_next_to_no_calibration_error():
    """600 samples: chance alone makes the plain error 4 %; and 10 % too much stays 10 %."""
    generator = np.random.default_rng(0)
    found = {0.0: [], 0.1: []}
    plain = []
    for _ in range(200):
        confidence = generator.uniform(0.4, 0.95, 600)
        for too_sure, errors in found.items():
            right = generator.random(600) < confidence - too_sure
            target = np.zeros(600, np.int64)
            row = Prediction(np.where(right, 0, 1)[None], confidence[None])
            of = metrics_of_row(row, target, 2, metrics=["calibration_error"])
            errors.append(of["calibration_error"])
            if not too_sure:
                edge = np.ceil(confidence * 15).astype(int) - 1
                plain.append(np.abs(np.bincount(edge, right - confidence)).sum() / 6)
    assert np.mean(plain) > 3.5
    assert np.mean(found[0.0]) < 1.7
    assert np.mean(np.array(found[0.0]) < 0.3) > 0.45
    assert np.mean(found[0.1]) == pytest.approx(10, abs=0.7)


# --------------------------------------------------------------------------------------------
# Influences
# --------------------------------------------------------------------------------------------


def derivatives(value, size: int) -> np.ndarray:
    """Of a function of the weights (size,), a number or several, by each weight."""
    step = 1e-5
    return np.array(
        [
            (value(1 + step * np.eye(size)[i]) - value(1 - step * np.eye(size)[i])) / (2 * step)
            for i in range(size)
        ]
    )


def spread_out(part, size: int) -> np.ndarray:
    return np.bincount(part.index, part.influence, size)


@pytest.mark.parametrize("tied", [False, True])
def test_influences_on_areas_are_derivatives_of_scikit_learns(tied):
    generator = np.random.default_rng(5)
    positive, score = generator.random(60) < 0.4, generator.normal(size=60)
    score = np.round(score, 1) if tied else score
    for part, metric in zip(
        areas(score, positive, np.ones(60)), (average_precision_score, roc_auc_score), strict=True
    ):
        expected = derivatives(lambda w, m=metric: m(positive, score, sample_weight=w), 60)
        np.testing.assert_allclose(spread_out(part, 60), expected, atol=1e-7)


def test_the_variance_of_the_auroc_is_delongs():
    """Its placement values by brute force."""
    generator = np.random.default_rng(6)
    positive = np.repeat([True, False], [30, 70])
    score = generator.normal(size=100) + positive
    pairs = np.array([[float(a > b) for b in score[~positive]] for a in score[positive]])
    expected = pairs.mean(1).var() / 30 + pairs.mean(0).var() / 70
    influence = areas(score, positive, np.ones(100))[1].influence
    assert (influence**2).sum() == pytest.approx(expected)


def test_influences_on_f1_are_derivatives_of_scikit_learns():
    target, _, logits = made(60, 2)
    predicted = logits[0].argmax(-1)
    expected = derivatives(lambda w: f1_score(target, predicted, average=None, sample_weight=w), 60)
    for c, part in enumerate(f1_scores(predicted, target, np.ones(60), 3)):
        np.testing.assert_allclose(spread_out(part, 60), expected[:, c], atol=1e-7)


# --------------------------------------------------------------------------------------------
# Intervals of single numbers
# --------------------------------------------------------------------------------------------


def wilson(right: float, size: float, z: float = 1.959964) -> tuple[float, float]:
    """The ends are the shares p at which (share - p)^2 = z^2 p (1 - p) / size."""
    share = right / size
    low, high = sorted(
        np.roots([1 + z * z / size, -2 * share - z * z / size, share * share]).real.tolist()
    )
    return 100 * low, 100 * high


def test_shares_have_wilsons_interval():
    target, fold, logits = made(200, 4)
    found = statistics_of(target, fold, {"row": logits})
    predicted = logits[0].argmax(-1)
    for metric, of in (
        ("accuracy", (predicted == target)),
        ("recall_b", (predicted == target)[target == 1]),
        ("precision_a", (predicted == target)[predicted == 0]),
    ):
        estimate = found.estimate("row", metric)
        expected = wilson(of.sum(), len(of))
        assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-5)


def test_distances_of_recalls_are_squared_and_added():
    target, fold, logits = made(200, 4)
    predicted = logits[0].argmax(-1)
    recall = [(predicted == target)[target == c] for c in range(3)]
    ends = [wilson(of.sum(), len(of)) for of in recall]
    value = 100 * np.mean([of.mean() for of in recall])
    low, high = (
        math.sqrt(
            sum((100 * of.mean() - end[i]) ** 2 for of, end in zip(recall, ends, strict=True))
        )
        / 3
        for i in (0, 1)
    )
    found = statistics_of(target, fold, {"row": logits}).estimate("row", "balanced_accuracy")
    assert astuple(found) == pytest.approx((value, value - low, value + high), rel=1e-5)


def test_few_samples_that_are_all_right_do_not_make_certain():
    target, _, logits = made(300, 6)
    rare = np.concatenate([np.flatnonzero(target < 2), np.flatnonzero(target == 2)[:5]])
    target, logits = target[rare], np.eye(3, dtype=np.float32)[target[rare]][None]
    fold = folds_of(target, None, NAMES, 5, 1, 0)
    found = statistics_of(target, fold, {"row": logits})
    recall = found.estimate("row", "recall_c")
    assert recall.value == recall.high == 100
    assert recall.low == pytest.approx(56.6, abs=0.1)  # Wilson's interval of 5 of 5
    balanced = found.estimate("row", "balanced_accuracy")
    assert balanced.value == balanced.high == 100
    assert 100 - 43.4 / 3 - 1 < balanced.low < 100 - 43.4 / 3


def test_groups_count_as_a_whole():
    """Samples that are copies of each other are worth no more than one of them."""
    target, fold, logits = made(100, 3)
    once = statistics_of(target, fold, {"row": logits, "other": logits[..., ::-1]})
    copies = np.repeat(np.arange(len(target)), 9)
    rows = {"row": logits[:, copies], "other": logits[:, copies, ::-1]}
    many = statistics_of(target[copies], fold[:, copies], rows, group=copies)
    for metric in ("accuracy", "balanced_accuracy", "recall_b", "macro_f1"):
        # quantiles of t, of 70, 20 and 10 groups
        one, nine = once.estimate("row", metric), many.estimate("row", metric)
        assert nine.value == pytest.approx(one.value)
        assert one.high - one.low <= nine.high - nine.low < 1.2 * (one.high - one.low)
        one, nine = (of.difference("other", "row", metric) for of in (once, many))
        assert one.high - one.low <= 1.001 * (nine.high - nine.low) < 1.2 * (one.high - one.low)


def test_a_sample_of_weight_three_counts_like_three_copies():
    target, fold, logits = made(100, 7)
    weight = np.random.default_rng(1).integers(1, 4, 100)
    copies, alone = np.repeat(np.arange(100), weight), np.arange(100)
    group = alone // 2  # samples of two each, so that both have groups
    rows = {"row": logits, "other": logits[..., ::-1]}
    weighted = statistics_of(target, fold, rows, group=group, weight=weight.astype(float))
    many = {name: of[:, copies] for name, of in rows.items()}
    copied = statistics_of(target[copies], fold[:, copies], many, group=group[copies])
    for metric in weighted.metrics:
        one, other = weighted.estimate("row", metric), copied.estimate("row", metric)
        if metric != "calibration_error":  # from which chance is subtracted: of copies it is less
            assert astuple(one) == pytest.approx(astuple(other), rel=1e-5, nan_ok=True), metric
        one, other = (of.difference("row", "other", metric) for of in (weighted, copied))
        if metric != "calibration_error":
            assert astuple(one) == pytest.approx(astuple(other), rel=1e-4, nan_ok=True), metric


def test_where_no_interval_is_honest_none_is_shown():
    target, fold, logits = made(150, 5)  # 15 samples of class c
    found = statistics_of(target, fold, {"one": logits, "other": logits[..., ::-1]})
    for metric, why in (
        ("worst_recall", "Look at the recall of each class"),
        ("calibration_error", "no interval"),
        ("auroc", "c has 15 samples: with fewer than 20"),
        ("average_precision", "c has 15 samples"),
        ("average_precision_c", "c has 15 samples"),
    ):
        assert why in found.why_no_interval(metric)
        for estimate in (found.estimate("one", metric), found.difference("one", "other", metric)):
            assert not estimate.shown
            assert np.isfinite(estimate.value)
            assert " to " not in str(estimate)
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "recall_c", "average_precision_a"):
        assert found.why_no_interval(metric) is None
        assert found.estimate("one", metric).shown
        assert found.difference("one", "other", metric).shown


def test_a_class_in_one_group_has_no_interval():
    target, fold, logits = made(200, 5)
    group = np.where(target == 2, 0, np.arange(200) % 19 + 1)
    found = statistics_of(target, fold, {"row": logits}, group=group)
    assert found.why_no_interval("recall_c") == "All samples of c are in one group."
    assert found.why_no_interval("balanced_accuracy") == "All samples of c are in one group."
    assert not found.estimate("row", "recall_c").shown
    assert found.estimate("row", "recall_b").shown
    one = statistics_of(target, fold * 0, {"row": logits}, group=group * 0)
    assert "All samples are in one group" in one.why_no_interval("accuracy")
    assert not one.estimate("row", "accuracy").shown


# --------------------------------------------------------------------------------------------
# Differences
# --------------------------------------------------------------------------------------------


def test_with_a_single_fold_the_interval_is_that_of_the_samples():
    target, _, logits = made(1000, 9)
    rows = {"one": logits, "other": logits[..., ::-1]}
    found = statistics_of(target, np.zeros((1, 1000), np.int64), rows)
    right = [(of[0].argmax(-1) == target).astype(float) for of in rows.values()]
    difference = right[0] - right[1]
    deviation = 100 * difference.std() / math.sqrt(1000)
    by = found.difference("one", "other", "accuracy")
    assert by.high - by.low == pytest.approx(2 * 1.96 * deviation, rel=0.01)
    bounds = [by.value + 1.96 * deviation, by.value - 1.96 * deviation]
    assert [by.high, by.low] == pytest.approx(bounds, abs=0.1)


def test_folds_that_differ_make_wider():
    """All of one fold right, or wrong: what a bad training does, and no sample."""
    target = np.zeros(500, np.int64)
    fold = np.arange(500)[None] % 5
    generator = np.random.default_rng(0)
    base = Prediction((generator.random((1, 500)) < 0.2).astype(np.int64), np.full((1, 500), 0.8))
    by_chance = (generator.random((1, 500)) < 0.2).astype(np.int64)
    by_fold = (generator.random((1, 500)) < 0.1 * fold).astype(np.int64)
    rows = {
        "base": base,
        "chance": Prediction(by_chance, np.full((1, 500), 0.7)),
        "fold": Prediction(by_fold, np.full((1, 500), 0.7)),
    }
    found = Statistics(target, np.arange(500), fold, ["x", "y"], rows)
    width = {
        row: (lambda by: by.high - by.low)(found.difference(row, "base", "accuracy"))
        for row in ("chance", "fold")
    }
    assert width["fold"] > 3 * width["chance"]


def test_equal_rows_differ_by_exactly_nothing():
    target, fold, logits = made(200, 2)
    found = statistics_of(target, fold, {"one": logits, "other": logits})
    for metric in ("accuracy", "balanced_accuracy", "auroc"):
        difference = found.difference("one", "other", metric)
        assert astuple(difference) == pytest.approx((0, 0, 0), abs=1e-9)


def test_a_class_of_few_samples_has_finite_intervals():
    target, _, logits = made(300, 4)
    rare = np.concatenate([np.flatnonzero(target < 2), np.flatnonzero(target == 2)[:3]])
    fold = folds_of(target[rare], None, NAMES, 3, 1, 0)
    rows = {"one": logits[:, rare], "other": logits[:, rare, ::-1]}
    found = statistics_of(target[rare], fold, rows)
    difference = found.difference("one", "other", "recall_c")
    assert np.isfinite(astuple(difference)).all()
    assert difference.high - difference.low > 20


def test_intervals_that_hold_together_are_wider():
    target, fold, logits = made(300, 8)
    generator = np.random.default_rng(0)
    rows = {
        str(i): logits + generator.normal(size=logits.shape).astype(np.float32) for i in range(14)
    }
    found = statistics_of(target, fold, rows)
    others = [str(i) for i in range(1, 14)]
    together = found.differences(others, "0", "accuracy")
    assert list(together) == others
    for row, by in together.items():
        alone = found.difference(row, "0", "accuracy")
        assert alone.value == by.value
        # between one interval of 1.96 deviations and 13 independent ones of 2.9, in a t of 4
        assert 1.2 < (by.high - by.low) / (alone.high - alone.low) < 2.2
    again = found.differences(others, "0", "accuracy")
    assert again == together
    twice = found.differences(["1", "1"], "0", "accuracy")  # the same thing twice is one thing
    width = twice["1"].high - twice["1"].low
    alone = found.difference("1", "0", "accuracy")
    assert width == pytest.approx(alone.high - alone.low, rel=0.25)
    assert found.differences([], "0", "accuracy") == {}


def test_rows_that_are_added_later_are_as_those_before():
    target, fold, logits = made(200, 0, repeats=2)
    both = {"one": logits, "two": logits[..., [0, 2, 1]]}
    together = statistics_of(target, fold, both)
    later = statistics_of(target, fold, {"one": logits})
    later.add({"two": Prediction.of(both["two"])}, trained_as={"two": "one"})
    assert later.names == ["one", "two"]
    for metric in together.metrics:
        for row in both:
            expected = astuple(together.estimate(row, metric))
            assert astuple(later.estimate(row, metric)) == pytest.approx(expected, nan_ok=True)
        expected = astuple(together.difference("two", "one", metric))
        assert astuple(later.difference("two", "one", metric)) == pytest.approx(
            expected, nan_ok=True
        )


def test_an_unknown_metric_is_named():
    target, fold, logits = made(100, 5)
    found = statistics_of(target, fold, {"row": logits})
    for ask in (
        lambda: found.estimate("row", "auc"),
        lambda: found.difference("row", "row", "utility"),  # no row has one
        lambda: found.why_no_interval("recall_d"),
    ):
        with pytest.raises(ValueError, match="metric must be one of .*, got '"):
            ask()


def test_an_estimate_without_an_interval_is_its_value():
    assert str(Estimate(12.34, math.nan, math.nan)) == "12.3"
    assert Estimate(1.0, math.nan, math.nan).signed == "+1.0"
    assert not Estimate(1.0, math.nan, math.nan).bounded.shown
    assert str(Estimate(99.0, 97.0, 101.0).bounded) == "99.0 (97.0 to 100.0)"


# --------------------------------------------------------------------------------------------
# Above the curve
# --------------------------------------------------------------------------------------------


def curve_of(logits, target) -> dict[float, Prediction]:
    prior = np.log(np.bincount(target) / len(target)).astype(np.float32)
    return {tau: Prediction.of(logits - np.float32(tau) * prior) for tau in np.arange(21) / 20}


def test_the_distance_to_the_curve_is_read_at_the_rows_accuracy():
    target, fold, logits = made(2000, 3)
    curve = curve_of(logits, target)
    found = statistics_of(target, fold, {"base": logits})
    points = np.array(
        [
            [metrics_of_row(row, target, 3)[m] for m in ("accuracy", "balanced_accuracy")]
            for row in curve.values()
        ]
    )
    found.add({"on": curve[0.5]}, trained_as={"on": "base"})
    better = logits.copy()
    better[0, np.arange(2000), target] += 0.5
    found.add({"above": Prediction.of(better)})
    by = found.above_curve(["on", "above"], curve)
    # a point of the curve is on it, or below another one that has more of both
    accuracy, balanced = points[10]
    expected = balanced - points[points[:, 0] >= accuracy, 1].max()
    assert by["on"].value == pytest.approx(expected, abs=0.2)
    assert by["on"].low <= 0 <= by["on"].high
    # more accurate than the whole curve: compared with its most accurate point
    own = found.estimate("above", "balanced_accuracy").value
    assert found.estimate("above", "accuracy").value > points[:, 0].max()
    assert by["above"].value == pytest.approx(own - points[points[:, 0].argmax(), 1], abs=1e-6)
    assert by["above"].low > 0


def test_an_empty_family_is_above_nothing():
    target, fold, logits = made(100, 3)
    found = statistics_of(target, fold, {"base": logits})
    assert found.above_curve([], curve_of(logits, target)) == {}


def test_a_utility_that_is_the_accuracy_has_its_intervals():
    target, fold, logits = made(300, 0)
    other = logits + np.random.default_rng(1).normal(size=logits.shape)
    rows = {name: Prediction.of(z, np.eye(3), target) for name, z in [("a", logits), ("b", other)]}
    found = Statistics(target, np.arange(300), fold, NAMES, rows)
    one, same = (found.difference("b", "a", metric) for metric in ("utility", "accuracy"))
    assert (one.value, one.low, one.high) == pytest.approx(
        (same.value / 100, same.low / 100, same.high / 100)
    )


@pytest.mark.parametrize("groups", [None, 30])
def test_what_few_samples_did_not_lose_is_not_called_safe(groups):
    """A decision that saves 10 of 1,000 a little, and loses none of 6 that are worth much."""
    target = np.repeat([0, 1], [1000, 6])
    utility = np.array([[0.0, -1.0], [-60.0, -1.0]])
    careful = np.arange(1006) % 20 == 0
    bold = careful & (np.arange(1006) % 50 > 0)
    sure = np.array([[0.0, -20.0], [0.0, 20.0]])
    rows = {
        name: Prediction.of(sure[((target == 1) | treated).astype(int)][None], utility, target)
        for name, treated in [("careful", careful), ("bold", bold)]
    }
    group = np.arange(1006) if groups is None else np.arange(1006) % groups
    found = Statistics(target, group, (group % 5)[None], ["x", "y"], rows)
    by, own = found.difference("bold", "careful", "utility"), found.estimate("bold", "utility")
    assert by.low < 0 < by.value < by.high
    # one or more of 6 may be lost the next time
    assert own.low < own.value - 60 / 1006
    assert own.low < own.value < own.high


def test_of_two_groups_many_rows_are_still_many():
    """Two groups differ in one way, in which all rows would correlate by 1 or -1."""
    target, _, logits = made(200, 0)
    group, generator = np.arange(200) % 2, np.random.default_rng(1)
    rows = {str(i): logits + generator.normal(size=logits.shape) for i in range(8)}
    found = statistics_of(target, group[None], rows, group=group)
    together = found.differences(list(rows)[1:], "0", "accuracy")
    for row, by in together.items():
        alone = found.difference(row, "0", "accuracy")
        assert by.high - by.low > 5 * (alone.high - alone.low)


def test_a_utility_is_not_said_to_be_more_than_the_best_decisions_earn():
    target = np.repeat([0, 1], [90, 4])
    utility = np.array([[0.0, -1.0], [-900.0, 2.0]])
    logits = np.where(np.eye(2)[target] == 1, 9.0, 0.0)[None]
    rows = {"right": Prediction.of(logits, utility, target)}
    rows["wrong"] = Prediction.of(-logits, utility, target)
    found = Statistics(target, np.arange(94), (np.arange(94) % 4)[None], ["x", "y"], rows)
    best = found.estimate("right", "utility")
    assert best.low < best.value == pytest.approx(best.high) == pytest.approx(8 / 94)
    worst = found.estimate("wrong", "utility")
    assert worst.high > worst.value
    assert worst.value == pytest.approx(worst.low) == pytest.approx(-(90 + 3600) / 94)
