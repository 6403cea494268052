"""The closed form is what counting every set gives."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest

from examples.wrong_labels.shapley import knn_shapley


def worth(
    chosen: tuple[int, ...], j: int, points: list[float], label: list[int], k: int
) -> Fraction:
    """The share of j's label among the k nearest of a set; places that nobody takes are wrong."""
    nearest = sorted(chosen, key=lambda i: abs(points[i] - points[j]))[:k]
    return Fraction(sum(label[i] == label[j] for i in nearest), k)


def by_enumeration(points: list[float], label: list[int], k: int, group: list[int]) -> list[float]:
    """Shapley values, by their definition, of samples that predict each other."""
    size = len(points)
    value = [Fraction(0)] * size
    for j in range(size):
        players = [i for i in range(size) if group[i] != group[j]]
        for i in players:
            others = [p for p in players if p != i]
            for number in range(len(others) + 1):
                for chosen in combinations(others, number):
                    more = worth((*chosen, i), j, points, label, k)
                    gain = more - worth(chosen, j, points, label, k)
                    value[i] += gain / (len(players) * comb(len(others), number))
    return [float(v / size) for v in value]


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@pytest.mark.parametrize("grouped", [False, True])
def test_values_of_few_samples(k: int, grouped: bool) -> None:
    random = np.random.default_rng(k)
    points = random.permutation([0.0, 1.0, 2.3, 4.1, 7.7, 13.0, 27.2])  # no distance twice
    label = random.integers(0, 2, 7)
    group = np.array([0, 0, 1, 2, 2, 3, 4]) if grouped else np.arange(7)
    found = knn_shapley(points[:, None], label, k, group if grouped else None)
    expected = by_enumeration(points.tolist(), label.tolist(), k, group.tolist())
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(expected).max() > 0


def test_values_add_up_to_what_all_samples_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.wrong_labels.shapley.BLOCK", 7)
    random = np.random.default_rng(0)
    features, label = random.normal(size=(60, 3)), random.integers(0, 3, 60)
    distance = np.linalg.norm(features[:, None] - features, axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argsort(1)[:, :5]
    found = knn_shapley(features, label, 5)
    assert found.sum() == pytest.approx((label[nearest] == label[:, None]).mean())
