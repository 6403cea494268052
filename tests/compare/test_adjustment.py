"""tau is the best on the other folds: against scikit-learn's metrics and a plain search."""

from __future__ import annotations

import numpy as np
import pytest

sklearn_metrics = pytest.importorskip("sklearn.metrics")
pytest.importorskip("pandas")
pytest.importorskip("tqdm")

from sampleweights.compare.adjustment import COARSE_TAUS, TAUS, adjusted, choose_tau  # noqa: E402
from sampleweights.compare.objective import Objective  # noqa: E402

PRIOR = np.array([0.7, 0.2, 0.1])
UTILITY = np.array([[1, 0, 0, 0.3], [-1, 1, 0, 0.3], [-6, 0, 2, 0.3]])


def softmax(logits):
    exponential = np.exp(logits.astype(float) - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


ORACLES = {
    "accuracy": lambda y, z: (y == z.argmax(1)).mean(),
    "balanced_accuracy": lambda y, z: sklearn_metrics.balanced_accuracy_score(y, z.argmax(1)),
    "macro_f1": lambda y, z: sklearn_metrics.f1_score(y, z.argmax(1), average="macro"),
    "average_precision": lambda y, z: sklearn_metrics.average_precision_score(
        np.eye(3)[y], softmax(z), average="macro"
    ),
    "utility": lambda y, z: UTILITY[y, (softmax(z) @ UTILITY).argmax(1)].mean(),
}


@pytest.fixture(scope="module")
def data():
    """Two repeats of three folds, with counts that differ from fold to fold."""
    generator = np.random.default_rng(1)
    target = generator.choice(3, 240, p=PRIOR)
    evidence = 2 * np.eye(3)[target] + generator.normal(size=(240, 3))
    noise = 0.5 * generator.normal(size=(2, 240, 3))
    logits = (evidence + noise + np.log(PRIOR)).astype(np.float32)
    fold = np.stack([generator.permutation(240) % 3 for _ in range(2)])
    counts = np.array([[np.bincount(target[f != k], minlength=3) for k in range(3)] for f in fold])
    counts[0, 1] += [0, 20, 0]
    return logits, target, fold, counts


def least_strong(taus, target, moved, inside, scores, allowed):
    """Class by class, in Python: the nearest to 1 of those like the best, then weakened."""
    hits = [
        [
            sum(((z[i].argmax(1) == c) & (target[i] == c)).sum() for i, z in pairs) / len(pairs)
            for c in range(3)
        ]
        for pairs in (list(zip(inside, of_tau, strict=True)) for of_tau in moved)
    ]
    size = [(target[inside[0]] == c).sum() for c in range(3)]

    def error(i, j):
        changed = [abs(a - b) + 0.5 for a, b in zip(hits[i], hits[j], strict=True)]
        return sum(n / m**2 for n, m in zip(changed, size, strict=True)) ** 0.5 / 3 / 2

    best = max(allowed, key=lambda i: (scores[i], -i))
    alike = [i for i in allowed if scores[i] >= scores[best] - error(i, best)]
    start = min(alike, key=lambda i: (abs(taus[i] - 1), i))
    enough = [i for i in allowed if scores[start] - scores[i] + error(i, start) <= 0.005]
    return taus[min([start, *enough])]


def search(taus, target, moved, inside, metric, least=-np.inf):
    """The smallest of the best, by hand; ``moved`` the logits (taus, repeats, N, C)."""
    slack = 0 if metric in ("accuracy", "utility") else 0.005

    def mean(score, of_tau):
        return np.mean([score(target[i], z[i]) for i, z in zip(inside, of_tau, strict=True)])

    scores = [mean(ORACLES[metric], of_tau) for of_tau in moved]
    accuracy = [mean(ORACLES["accuracy"], of_tau) for of_tau in moved]
    allowed = [i for i in range(len(taus)) if accuracy[i] >= accuracy[0] + least - 1e-9]
    best = max(scores[i] for i in allowed)
    if metric == "balanced_accuracy":
        return least_strong(taus, target, moved, inside, scores, allowed)
    return min(taus[i] for i in allowed if scores[i] >= best - slack - 1e-9)


@pytest.mark.parametrize("metric", ORACLES)
def test_the_best_on_the_other_folds(data, metric):
    logits, target, fold, counts = data
    objective = Objective.of(UTILITY if metric == "utility" else metric, 3)
    taus = COARSE_TAUS if metric == "average_precision" else TAUS
    shift = np.log(counts / counts.sum(-1, keepdims=True))  # (repeats, folds, C)
    by_sample = np.stack([shift[r][fold[r]] for r in range(2)])
    moved = np.stack([(logits - tau * by_sample).astype(np.float32) for tau in taus])
    best, free = choose_tau(logits, target, fold, counts, objective)
    for choice, least in ((best, -np.inf), (free, -0.005)):
        for repeat in range(2):
            for k in range(3):
                others = fold[repeat] != k
                of_repeat = moved[:, repeat, None]
                expected = search(taus, target, of_repeat, [others], metric, least)
                assert choice.by_fold[repeat, k] == expected
        everything = [np.ones(240, bool)] * 2
        assert choice.overall == search(taus, target, moved, everything, metric, least)


def test_a_fold_does_not_see_its_own_samples(data):
    logits, target, fold, counts = data
    objective = Objective.of("balanced_accuracy", 3)
    before, _ = choose_tau(logits, target, fold, counts, objective)
    changed = logits.copy()
    changed[0, fold[0] == 1] = np.random.default_rng(2).normal(size=(80, 3))
    after, _ = choose_tau(changed, target, fold, counts, objective)
    assert after.by_fold[0, 1] == before.by_fold[0, 1]
    assert after.by_fold[1].tolist() == before.by_fold[1].tolist()
    assert after.by_fold[0].tolist() != before.by_fold[0].tolist()


def test_equal_classes_need_no_adjustment(data):
    """All taus are alike then: the smallest is taken."""
    logits, target, fold, counts = data
    best, free = choose_tau(
        logits, target, fold, np.full_like(counts, 5), Objective.of("macro_f1", 3)
    )
    assert not best.by_fold.any()
    assert best.overall == free.overall == 0


def test_what_hardly_differs_is_not_paid_for_with_accuracy():
    """Balanced accuracy within 0.5 points of its best takes the smallest tau; accuracy does not."""
    # the margin of the logits decides at which tau a sample is called class 1
    tau_of_change = np.full(10_000, 9.0)
    target = np.repeat([0, 1], [9000, 1000])
    tau_of_change[9000:9200] = 0.13  # of class 1: right from tau 0.15 on, 20 points of recall
    tau_of_change[9200:9206] = 0.63  # 0.6 points more from tau 0.65 on: 0.3 of balanced accuracy
    tau_of_change[9206:9224] = 1.03  # 1.8 points more from tau 1.05 on: together 1.2
    fold = np.arange(10_000)[None] % 2
    counts = np.array([[np.bincount(target[fold[0] != k]) for k in range(2)]])
    odds = np.log(counts[0, :, 0] / counts[0, :, 1])[fold[0]]
    logits = np.stack([odds * tau_of_change, np.zeros(10_000)], 1)[None].astype(np.float32)
    for metric, expected in (("balanced_accuracy", 1.05), ("accuracy", 1.05)):
        best, _ = choose_tau(logits, target, fold, counts, Objective.of(metric, 2))
        assert best.overall == expected
    logits[0, 9206:9224, 0] = 99  # without the last ones
    for metric, expected in (("balanced_accuracy", 0.15), ("accuracy", 0.65)):
        best, _ = choose_tau(logits, target, fold, counts, Objective.of(metric, 2))
        assert best.overall == expected


def test_two_classes_are_not_taken_for_one_logit():
    logits = np.array([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]], np.float32)
    counts = np.array([[[30, 10], [20, 20]]])
    found = adjusted(logits, np.array([[0, 0, 1]]), counts, np.array([[1.0, 1.0]]))
    prior = np.log([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5]])
    assert found[0] == pytest.approx(logits[0] - prior, abs=1e-6)


def test_where_a_class_is_small_tau_is_1():
    """Seven of ten are right from 0.3 on, by chance; thousands are needed to choose that."""
    target = np.repeat([0, 1], [90, 10])
    fold = np.arange(100)[None] % 2
    counts = np.array([[np.bincount(target[fold[0] != k]) for k in range(2)]])
    tau_of_change = np.full(100, 9.0)
    tau_of_change[90:97] = 0.28
    tau_of_change[:2] = 0.9  # of class 0: 2.2 points of its recall are lost
    odds = np.log(counts[0, :, 0] / counts[0, :, 1])[fold[0]]
    logits = np.stack([odds * tau_of_change, np.zeros(100)], 1)[None].astype(np.float32)
    objective = Objective.of("balanced_accuracy", 2)
    best, free = choose_tau(logits, target, fold, counts, objective)
    assert best.overall == 1
    assert free.overall == 1  # seven more are right, and two less
    many = [np.tile(part, 100) for part in (logits[0].T, target, fold[0])]
    given = many[0].T[None], many[1], many[2][None], 100 * counts
    best, _ = choose_tau(*given, objective)
    assert best.overall == 0.3
