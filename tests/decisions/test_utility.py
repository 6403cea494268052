"""The decision of the highest expected utility, against plain Python."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sampleweights as sw


def softmax(row: list[float]) -> list[float]:
    exponential = [math.exp(z - max(row)) for z in row]
    return [e / sum(exponential) for e in exponential]


def expected(probability: list[float], table: list[list[float]]) -> list[float]:
    return [
        sum(p * of_class[d] for p, of_class in zip(probability, table, strict=True))
        for d in range(len(table[0]))
    ]


def best(values: list[float]) -> int:
    return max(range(len(values)), key=lambda d: values[d])


numbers = st.integers(-40, 40).map(lambda n: n / 8)  # whose softmax and sums keep them apart


@st.composite
def problems(draw: Any) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and a utility (C, D)."""
    classes, decisions, size = (draw(st.integers(low, 6)) for low in (2, 2, 1))
    rows = st.lists(numbers, min_size=classes, max_size=classes)
    table = st.lists(
        st.lists(st.integers(-9, 9), min_size=decisions, max_size=decisions),
        min_size=classes, max_size=classes,
    )  # fmt: skip
    return (
        torch.tensor(draw(st.lists(rows, min_size=size, max_size=size)), dtype=torch.float64),
        torch.tensor(draw(table), dtype=torch.float64),
    )


@given(problems())
def test_no_decision_is_expected_to_be_worth_more(problem: tuple[Tensor, Tensor]) -> None:
    logits, utility = problem
    for row, decision in zip(logits.tolist(), sw.decide(logits, utility).tolist(), strict=True):
        values = expected(softmax(row), utility.tolist())
        assert values[decision] >= max(values) - 1e-9


@given(problems())
def test_the_identity_is_argmax(problem: tuple[Tensor, Tensor]) -> None:
    logits, _ = problem
    for dtype in (torch.float64, torch.float32):
        z = logits.to(dtype)
        assert sw.decide(z, torch.eye(z.shape[1])).equal(z.argmax(1))


@given(problems(), st.lists(st.integers(-1000, 1000), min_size=6, max_size=6), st.integers(1, 9))
def test_constants_of_rows_and_a_factor_change_nothing(
    problem: tuple[Tensor, Tensor], constants: list[int], factor: int
) -> None:
    logits, utility = problem
    decision = sw.decide(logits, utility)
    moved = utility + torch.tensor(constants[: len(utility)], dtype=torch.float64)[:, None]
    assert sw.decide(logits, moved).equal(decision)
    assert sw.decide(logits, utility * 2**factor).equal(decision)


def test_a_large_constant_costs_no_digits() -> None:
    logits = torch.tensor([[0.0, 0.1], [0.1, 0.0]])
    table = np.array([[1e6 + 1, 1e6], [-1e6, -1e6 + 1]])
    assert sw.decide(logits, table).tolist() == [1, 0]


def test_one_logit_is_the_log_odds() -> None:
    utility = [[0.0, -1.0, -0.5], [-10.0, 0.0, -0.5]]
    z = torch.linspace(-6, 6, 60)
    both = sw.decide(torch.stack([torch.zeros_like(z), z], 1), utility)
    assert set(both.tolist()) == {0, 1, 2}
    assert sw.decide(z, utility).equal(both)
    assert sw.decide(z[:, None], utility).equal(both[:, None])
    assert sw.decide(z.reshape(-1, 1, 2), utility).equal(both.reshape(-1, 1, 2))
    assert sw.decide(z[3], utility).equal(both[3])
    # Elkan 2001, Eq. 2: positive where p exceeds the cost of a false alarm over the sum of costs
    for logit, decision in zip(z.tolist(), sw.decide(z, [[0, -1], [-10, 0]]).tolist(), strict=True):
        assert decision == (1 / (1 + math.exp(-logit)) > 1 / 11)


def test_labels_have_tables_of_their_own() -> None:
    tables = torch.tensor([[[0.0, -1], [-9, 0]], [[0, -9], [-1, 0]], [[0, -1], [-1, 0]]])
    z = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0)) * 2
    decision = sw.decide(z, tables)
    assert decision.shape == z.shape
    for label, table in enumerate(tables):
        assert decision[:, label].equal(sw.decide(z[:, label].reshape(-1), table).reshape(20, 4))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (3, 4, 2), (3, 4, 2, 5), (0, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    utility = [[0, 1, -1], [2, 0, 1], [1, 1, 3], [0, -5, 4]]
    dim = min(z.ndim - 1, 1)
    values = torch.einsum(
        "...c,cd->...d", z.softmax(dim).movedim(dim, -1), torch.tensor(utility) * 1.0
    )
    decision = sw.decide(z, utility)
    assert decision.dtype == torch.int64
    assert decision.equal(values.argmax(-1))


def test_many_samples_are_decided_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
    utility = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    decision = sw.decide(z, utility)
    monkeypatch.setattr("sampleweights.decisions.utility._AT_ONCE", 100)
    assert sw.decide(z, utility).equal(decision)
    compiled = torch.compile(sw.decide, backend="aot_eager", fullgraph=True)
    assert compiled(z, utility).equal(decision)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decided_in_float32(dtype: torch.dtype) -> None:
    z = (torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    utility = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    expected = sw.decide(z.float(), utility)
    assert sw.decide(z, utility.to(torch.float64)).equal(expected)
    with torch.autocast("cpu", torch.bfloat16):  # would run a matrix product in bfloat16
        assert sw.decide(z, utility).equal(expected)


def test_no_gradient_and_no_change_of_what_came() -> None:
    z = torch.randn(3, 2, requires_grad=True)
    utility = torch.eye(2, requires_grad=True)
    before = z.detach().clone()
    assert not sw.decide(z, utility).requires_grad
    assert z.detach().equal(before)
    assert utility.detach().equal(torch.eye(2))


def test_a_class_that_is_excluded_is_not_considered() -> None:
    adjustment = sw.LogitAdjustment([5, 0, 5])
    z = adjustment.posthoc(torch.zeros(1, 3))
    assert sw.decide(z, [[1, 0, 0], [0, 9, 0], [0, 0, 2]]).tolist() == [2]


@pytest.mark.parametrize(
    ("utility", "message"),
    [
        ([[1, 0], [0, 1], [0, 0]], "utility was made for 3 classes, logits have 4"),
        ([[1.0], [0.0], [0.0], [0.0]], "at least 2 decisions"),
        ([1, 0, 0, 0], "utility must be a table"),
        ([[1, 0], [0]], "utility must be numbers"),
        ([["a", "b"]] * 4, "utility must be numbers"),
        ([[1j, 0]] * 4, "utility must be a table of numbers"),
        ([[1, math.inf]] * 4, "utility must be finite, got inf"),
        ([[1, math.nan]] * 4, "utility must be finite, got nan"),
        (torch.zeros(2, 3, 2), "utility of labels must have shape"),
        (torch.zeros(3, 2, 2), "utility was made for 3 labels"),
    ],
)
def test_bad_tables(utility: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sw.decide(torch.zeros(5, 4), utility)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_logits(bad: float) -> None:
    z = torch.zeros(5, 4)
    sw.decide(z, torch.eye(4))
    z[2, 3] = bad
    with pytest.raises(ValueError, match="logits must not hold NaN or infinity"):
        sw.decide(z, torch.eye(4))
    with pytest.raises(ValueError, match="nor only -infinity"):
        sw.decide(torch.full((2, 4), -math.inf), torch.eye(4))
    with pytest.raises(TypeError, match="logits must be floating"):
        sw.decide(torch.zeros(5, 4, dtype=torch.int64), torch.eye(4))
    with pytest.raises(ValueError, match="for 2 classes, logits have 4, and not one logit"):
        sw.decide(torch.zeros(5, 4), torch.eye(2))


def test_logits_that_are_no_tensor_and_a_table_beyond_the_dtype() -> None:
    with pytest.raises(TypeError, match="logits must be a tensor, got ndarray"):
        sw.decide(torch.zeros(2, 2).numpy(), [[1, 0], [0, 1]])
    for large in (1e39, 1e308):
        with pytest.raises(ValueError, match=r"utility must differ .* what torch.float32 holds"):
            sw.decide(torch.zeros(2, 2), [[large, -large], [0, 1]])


@pytest.mark.slow
def test_in_a_graph_for_every_batch_size() -> None:
    table = [[0.0, 1.0, 0.2], [1.0, 0.0, 0.1]]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 2, generator=generator)

    class Decides(torch.nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return sw.decide(logits, table)

    batch = torch.export.Dim("batch", min=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, which change with its version
        exported = torch.export.export(Decides(), (logits,), dynamic_shapes=({0: batch},)).module()
    compiled = torch.compile(Decides(), backend="aot_eager", fullgraph=True, dynamic=True)
    for size in (60, 7):
        part = logits[:size]
        assert exported(part).equal(sw.decide(part, table))
        assert compiled(part).equal(sw.decide(part, table))
