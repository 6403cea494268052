from __future__ import annotations

import math

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from sampleweights.schedules import Constant, Linear, Sigmoid


@given(st.integers(1, 1000), st.floats(0, 2))
def test_sigmoid_equals_eq_9(num_epochs: int, progress: float) -> None:
    epoch = progress * num_epochs
    expected = reference.sigmoid_fraction(epoch, num_epochs)
    assert math.isclose(Sigmoid(num_epochs)(epoch), expected, rel_tol=1e-12)


def test_the_papers_batch_of_20() -> None:
    counts = [reference.kept_count(Sigmoid(150)(epoch), 20) for epoch in range(150)]
    assert counts[0] == 10
    assert counts[74] == 19
    assert counts[75:] == [20] * 75


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 7, 10, 150, 250])
def test_everything_is_kept_for_exactly_the_second_half(num_epochs: int) -> None:
    for schedule in (Sigmoid(num_epochs), Linear(num_epochs)):
        for epoch in range(num_epochs):
            assert (schedule(epoch) == 1) == (epoch >= num_epochs / 2)


def test_linear() -> None:
    assert Linear(10, start=0.2)(2.5) == pytest.approx(0.6)


@pytest.mark.parametrize("num_epochs", [0, -1, 0.5, math.nan, math.inf])
@pytest.mark.parametrize("schedule", [Sigmoid, Linear])
def test_bad_num_epochs(schedule: type, num_epochs: float) -> None:
    with pytest.raises(ValueError, match=f"num_epochs must be at least 1, got {num_epochs}"):
        schedule(num_epochs)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, math.nan])
def test_bad_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got"):
        Constant(fraction)
    with pytest.raises(ValueError, match=r"start must be in \(0, 1\], got"):
        Linear(10, start=fraction)
