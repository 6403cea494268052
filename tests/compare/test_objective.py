"""What a comparison should maximise, and what is wrong with what is given."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("tqdm")

from sampleweights.compare import METRICS
from sampleweights.compare.objective import OBJECTIVES, Objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_by_name(name: str) -> None:
    made = Objective.of(name, 3)
    assert (made.metric, made.table, made.words) == (name, None, METRICS[name])
    assert Objective.of(made, 3) is made


@pytest.mark.parametrize("table", [[[1, 0, 0.2], [-1, 1, 0.2]], np.eye(2, dtype=bool), np.eye(2)])
def test_a_table_of_utilities(table: object) -> None:
    made = Objective.of(table, 2)
    assert made.metric == "utility"
    assert made.words == "expected utility"
    assert made.table is not None
    assert made.table.dtype == np.float64
    assert made.table.tolist() == np.asarray(table, float).tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("bacc", r"objective must be one of 'balanced_accuracy', .* got 'bacc'"),
        ("utility", r"shape \(2, D\), a row for each class and a column .* got 'utility'"),
        (np.eye(3), r"got shape \(3, 3\)"),
        ([1, 2], r"got shape \(2,\)"),
        ([[1], [2]], r"at least 2 of them, got shape \(2, 1\)"),
        ([[1, 0], [2]], r"objective must be one of"),
        ([["a", "b"], ["c", "d"]], r"got values of dtype <U1"),
        ([[1, np.nan], [0, 1]], r"got values that are not finite"),
        (None, r"got values of dtype object"),
    ],
)
def test_what_is_neither_is_said(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective.of(given, 2)
