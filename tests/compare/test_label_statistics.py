"""Metrics of multi-label predictions, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from sampleweights.compare.statistics import (
    LABEL_METRICS,
    LabelPrediction,
    LabelStatistics,
    label_metrics_of_row,
)

NAMES = ["cat", "dog", "cow"]


def labels(size: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Target (N, 3) and logits (1, N, 3) of labels that half of, a fifth and a tenth have."""
    random = np.random.default_rng(seed)
    target = (random.random((size, 3)) < [0.5, 0.2, 0.1]).astype(np.int64)
    logits = 2 * target - 1.5 + random.standard_normal((size, 3))
    return target, logits[None].astype(np.float32).round(1)  # of which some are equal


def statistics(
    target: np.ndarray, rows: dict[str, np.ndarray], group: np.ndarray | None = None, folds: int = 5
) -> LabelStatistics:
    size = len(target)
    repeats = len(next(iter(rows.values())))
    fold = np.tile(np.arange(size) % folds, (repeats, 1))
    group = np.arange(size) if group is None else group
    names = [f"label {label}" for label in range(target.shape[1])]
    names[:3] = NAMES[: target.shape[1]]
    return LabelStatistics(
        target, group, fold, names, {n: LabelPrediction(z) for n, z in rows.items()}
    )


def test_values_are_those_of_scikit_learn() -> None:
    target, logits = labels()
    score, said = logits[0], logits[0] > 0
    found = statistics(target, {"a": logits})
    expected = {
        "average_precision": average_precision_score(target, score, average="macro"),
        "auroc": roc_auc_score(target, score, average="macro"),
        "macro_f1": f1_score(target, said, average="macro"),
        "micro_f1": f1_score(target, said, average="micro"),
        "balanced_accuracy": np.mean(
            [balanced_accuracy_score(t, s) for t, s in zip(target.T, said.T, strict=True)]
        ),
    }
    for c, name in enumerate(NAMES):
        of = target[:, c], said[:, c]
        expected |= {
            f"average_precision_{name}": average_precision_score(target[:, c], score[:, c]),
            f"auroc_{name}": roc_auc_score(target[:, c], score[:, c]),
            f"f1_{name}": f1_score(*of),
            f"recall_{name}": recall_score(*of),
            f"precision_{name}": precision_score(*of),
        }
    assert {*expected, "calibration_error"} == set(found.metrics)
    for metric, value in expected.items():
        assert found.estimate("a", metric).value == pytest.approx(100 * value), metric
    quick = label_metrics_of_row(LabelPrediction(logits), target == 1)
    for metric in LABEL_METRICS:
        assert found.estimate("a", metric).value == pytest.approx(quick[metric]), metric


def test_repeats_are_averaged() -> None:
    target, first = labels()
    second = first[:, ::-1]
    both = statistics(target, {"a": np.concatenate([first, second])})
    for metric in LABEL_METRICS:
        of_each = [
            statistics(target, {"a": one}).estimate("a", metric).value for one in (first, second)
        ]
        assert both.estimate("a", metric).value == pytest.approx(np.mean(of_each)), metric


def test_weights_of_samples_count_as_copies() -> None:
    target, logits = labels(100)
    weight = np.arange(100) % 3 + 1.0
    copies = np.repeat(np.arange(100), weight.astype(int))
    weighted = label_metrics_of_row(LabelPrediction(logits), target == 1, weight)
    copied = label_metrics_of_row(LabelPrediction(logits[:, copies]), target[copies] == 1)
    for metric in set(LABEL_METRICS) - {"calibration_error"}:  # whose chance is less
        assert weighted[metric] == pytest.approx(copied[metric]), metric


def test_calibrated_probabilities_have_no_calibration_error_and_shifted_ones_have() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(-1, 1.5, (1, 20_000, 2)).astype(np.float32)
    target = random.random((20_000, 2)) < 1 / (1 + np.exp(-logits[0]))
    error = label_metrics_of_row(LabelPrediction(logits), target)["calibration_error"]
    shifted = label_metrics_of_row(LabelPrediction(logits + 1), target)["calibration_error"]
    probability = 1 / (1 + np.exp(-logits[0].astype(float)))
    moved = 1 / (1 + np.exp(-logits[0].astype(float) - 1))
    assert error < 0.7
    assert shifted == pytest.approx(100 * (moved - probability).mean(), abs=1)


def test_adjusted_rows_are_ordered_as_before() -> None:
    target, logits = labels()
    shift = np.where(np.arange(400) % 5 == 0, 1.0, 0.5)[None, :, None].astype(np.float32)
    moved = LabelPrediction(logits + shift, logits)
    both = statistics(target, {"a": logits})
    both.add({"moved": moved}, {"moved": "a"})
    for metric in ("average_precision", "auroc"):
        assert both.difference("moved", "a", metric).value == 0
    assert both.difference("moved", "a", "macro_f1").value != 0


def test_the_same_row_twice_does_not_differ() -> None:
    target, logits = labels()
    found = statistics(target, {"a": logits, "b": logits.copy()})
    for metric in LABEL_METRICS:
        by = found.difference("a", "b", metric)
        assert by.value == 0
        assert metric == "calibration_error" or abs(by.low) + abs(by.high) < 1e-6


def test_a_rare_label_has_no_interval_of_what_is_ranked_and_says_why() -> None:
    target, logits = labels()
    target[:, 2] = np.arange(400) < 12
    found = statistics(target, {"a": logits})
    for metric in ("average_precision", "auroc", "average_precision_cow"):
        assert not found.estimate("a", metric).shown
        why = found.why_no_interval(metric)
        assert why is not None
        assert why.startswith("There are 12 samples with label 'cow'")
    assert found.estimate("a", "average_precision_dog").shown
    assert found.estimate("a", "macro_f1").shown
    target[:, 2] = np.arange(400) >= 12
    why = statistics(target, {"a": logits}).why_no_interval("auroc")
    assert why is not None
    assert why.startswith("There are 12 samples without label 'cow'")


def test_a_label_that_is_never_said_has_f1_0_and_no_precision() -> None:
    target, logits = labels()
    logits[..., 1] = -5
    found = statistics(target, {"a": logits})
    assert found.estimate("a", "f1_dog").value == 0
    assert np.isnan(found.estimate("a", "precision_dog").value)
    assert found.estimate("a", "recall_dog").high < 10


def test_unknown_metrics_are_refused() -> None:
    found = statistics(*[labels()[0], {"a": labels()[1]}])
    with pytest.raises(ValueError, match="metric must be one of"):
        found.estimate("a", "worst_recall")


SHARES = np.array([0.5, 0.2, 0.1, 0.06])
"""Of the labels; 1,000 samples have at least 60 positives, less what chance does."""
SHIFT = 1.6


def truth(metric: str) -> float:
    """Of normal scores around -0.8 and 0.8, in percent."""
    positive, negative = norm(SHIFT / 2), norm(-SHIFT / 2)
    right, wrong = SHARES * positive.sf(0), (1 - SHARES) * negative.sf(0)
    if metric == "macro_f1":
        return float(100 * np.mean(2 * right / (SHARES + right + wrong)))
    if metric == "micro_f1":
        return float(100 * 2 * right.sum() / (SHARES + right + wrong).sum())
    if metric == "balanced_accuracy":
        return float(100 * positive.sf(0))
    cut = np.linspace(-6, 6, 20_001)
    density = positive.pdf(cut) * (cut[1] - cut[0])
    if metric == "auroc":
        return float(100 * (density * negative.cdf(cut)).sum())
    areas = []
    for share in SHARES:
        hits, alarms = share * positive.sf(cut), (1 - share) * negative.sf(cut)
        areas.append((density * hits / (hits + alarms)).sum())
    return float(100 * np.mean(areas))


def drawn(random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels that come together, and scores that are right and wrong together."""
    common = random.standard_normal((size, 1))
    latent = 0.6 * common + 0.8 * random.standard_normal((size, 4))
    target = (latent > norm.isf(SHARES)).astype(np.int64)
    noise = 0.5 * random.standard_normal((size, 1)) + np.sqrt(0.75) * random.standard_normal(
        (size, 4)
    )
    return target, ((target - 0.5) * SHIFT + noise)[None].astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric", ["average_precision", "macro_f1", "auroc", "micro_f1", "balanced_accuracy"]
)
def test_intervals_hold_what_they_say(metric: str) -> None:
    random, held, runs, value = np.random.default_rng(1), 0, 800, truth(metric)
    for _ in range(runs):
        target, logits = drawn(random, 1000)
        estimate = statistics(target, {"a": logits}).estimate("a", metric)
        held += estimate.low <= value <= estimate.high
    assert 0.93 <= held / runs <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["average_precision", "macro_f1", "balanced_accuracy"])
def test_differences_of_rows_that_are_alike_hold_0(metric: str) -> None:
    random, held, runs = np.random.default_rng(2), 0, 400
    for _ in range(runs):
        target, logits = drawn(random, 1000)
        other = (target - 0.5) * SHIFT + random.standard_normal(target.shape)
        rows = {"a": logits, "b": other[None].astype(np.float32)}
        by = statistics(target, rows).difference("a", "b", metric)
        held += by.low <= 0 <= by.high
    assert held / runs >= 0.93
