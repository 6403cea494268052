"""Resampled metrics against metrics of copies."""

from __future__ import annotations

import numpy as np

from examples.isic2018.bootstrap import RESAMPLES, interval, resample


def test_a_sample_of_weight_three_counts_like_three_copies() -> None:
    generator = np.random.default_rng(0)
    target, row = generator.integers(0, 3, 100), generator.integers(0, 3, 100)
    weight = generator.integers(1, 4, 100)
    copies = np.repeat(np.arange(100), weight)
    rows = {"row": row, "same": row}
    found = resample(target, np.arange(100), rows, 3, weight.astype(float), 5)
    many = {name: of[copies] for name, of in rows.items()}
    copied = resample(target[copies], copies, many, 3, np.ones(len(copies)), 5)
    for metric in ("accuracy", "balanced_accuracy"):
        draws = found["row"][metric]
        assert draws.shape == (RESAMPLES,)
        np.testing.assert_allclose(draws, copied["row"][metric])
        np.testing.assert_array_equal(draws, found["same"][metric])


def test_the_first_draw_is_the_metric_of_the_drawn_groups() -> None:
    generator = np.random.default_rng(1)
    target, row = generator.integers(0, 3, 60), generator.integers(0, 3, 60)
    group = np.arange(60) // 3
    found = resample(target, group, {"row": row}, 3, np.ones(60), 7)["row"]
    drawn = np.random.default_rng(7).integers(0, 20, 20)
    index = np.concatenate([np.flatnonzero(group == g) for g in drawn])
    right = (row == target)[index]
    recalls = [right[target[index] == c].mean() for c in range(3)]
    np.testing.assert_allclose(found["accuracy"][0], 100 * right.mean())
    np.testing.assert_allclose(found["balanced_accuracy"][0], 100 * np.mean(recalls))


def test_an_interval_is_centred_at_its_value() -> None:
    draws = np.arange(101.0)
    found = interval(60.0, draws)
    assert (found.value, found.low, found.high) == (60, 12.5, 107.5)
