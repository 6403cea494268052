from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sampleweights import schedules, selection
from sampleweights.selection import kept_count, select

losses = st.lists(
    st.floats(allow_nan=True, width=32) | st.sampled_from([0.0, -0.0, 1.0, math.inf]), max_size=24
)
fractions = st.floats(0, 1, exclude_min=True) | st.sampled_from([0.25, 0.5, 1.0])


@pytest.fixture(params=["on the host", "everywhere else"], autouse=True, scope="module")
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file runs both ways."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "on the host":
            patch.setattr(selection, "is_readable", lambda tensor: False)
        yield


@given(st.data(), losses, fractions, st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_equals_the_oracle(
    data: st.DataObject, loss: list[float], fraction: float, largest: bool, dtype: torch.dtype
) -> None:
    flags = st.lists(st.booleans(), min_size=len(loss), max_size=len(loss))
    classes = st.lists(st.integers(-2, 3), min_size=len(loss), max_size=len(loss))
    valid = data.draw(st.none() | flags)
    group = data.draw(st.none() | classes)
    keep = select(
        torch.tensor(loss, dtype=dtype),
        fraction,
        largest=largest,
        valid=None if valid is None else torch.tensor(valid, dtype=torch.bool),
        group=None if group is None else torch.tensor(group, dtype=torch.int64),
    )
    expected = reference.selected(loss, fraction, largest=largest, valid=valid, group=group)
    assert keep.tolist() == expected


@given(fractions, st.integers(0, 10**7))
def test_kept_count_equals_the_formula(fraction: float, num_valid: int) -> None:
    as_tensor = torch.tensor(fraction, dtype=torch.float64)
    expected = reference.kept_count(fraction, num_valid)
    assert kept_count(as_tensor, num_valid) == expected
    assert kept_count(as_tensor, torch.tensor(num_valid)) == expected


@given(st.integers(1, 40), st.integers(1, 30))
def test_kept_sets_are_nested_as_the_epoch_grows(size: int, num_epochs: int) -> None:
    loss = torch.rand(size, generator=torch.Generator().manual_seed(size)).mul(8).round()
    schedule = schedules.Sigmoid(num_epochs)
    before = torch.zeros(size, dtype=torch.bool)
    for epoch in range(num_epochs):
        keep = select(loss, schedule(epoch), largest=True)
        assert (keep | ~before).all()
        before = keep
    assert before.all() or num_epochs == 1


@given(st.integers(2, 60), st.floats(0.01, 0.99))
def test_hard_and_easy_partition_distinct_losses(size: int, fraction: float) -> None:
    count = math.floor(fraction * size + 0.5)
    other = math.floor((1 - fraction) * size + 0.5)
    # f M = k + 1/2 rounds up on both sides, and each keeps at least one
    assume(count + other == size and 0 < count < size)
    loss = torch.randperm(size, generator=torch.Generator().manual_seed(size)).double()
    hard = select(loss, fraction, largest=True)
    easy = select(loss, 1 - fraction, largest=False)
    assert (hard ^ easy).all()


def test_ties_go_to_the_lowest_position() -> None:
    for largest in (True, False):
        keep = select(torch.ones(6), 0.5, largest=largest)
        assert keep.tolist() == [True] * 3 + [False] * 3


def test_dense_losses_are_one_batch() -> None:
    loss = torch.arange(24.0).reshape(2, 3, 4)
    assert select(loss, 0.25, largest=True).nonzero()[:, 0].tolist() == [1] * 6


def test_a_large_batch_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(1_000_003, generator=generator).mul(1000).round()  # many ties
    keep = select(loss, 0.123456, largest=True)
    assert keep.sum() == reference.kept_count(0.123456, 1_000_003)
    threshold = loss[keep].min()
    assert (loss[~keep] <= threshold).all()
    at_threshold = (loss == threshold).nonzero()[:, 0]
    kept = keep[at_threshold]
    assert kept.equal(kept.sort(descending=True, stable=True).values)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("levels", [1, 7, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_and_small_batches_are_selected_alike(
    largest: bool, levels: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(levels)
    size = 20 * selection.LOOP_AT_MOST
    loss = torch.randint(levels, (size,), generator=generator).to(dtype)
    loss[5::100], loss[6::90], loss[7::80] = math.inf, -math.inf, math.nan
    valid = torch.rand(size, generator=generator) < 0.7
    classes = torch.randint(-1, 4, (size,), generator=generator)
    for mask in (valid, None, torch.zeros_like(valid), torch.ones_like(valid)):
        for group in (None, classes):
            for fraction in (1e-6, 0.01, 0.25, 0.999, 1.0):
                keep = select(loss, fraction, largest=largest, valid=mask, group=group)
                expected = reference.selected(
                    loss.tolist(),
                    fraction,
                    largest=largest,
                    valid=None if mask is None else mask.tolist(),
                    group=None if group is None else group.tolist(),
                )
                assert keep.tolist() == expected


@pytest.mark.parametrize("arrange", ["random", "sorted", "few values", "with NaN", "all NaN"])
def test_the_enclosed_threshold_is_the_threshold(arrange: str) -> None:
    values = np.random.default_rng(0).exponential(size=selection._SAMPLE_FROM + 7)
    if arrange == "sorted":
        values.sort()
    elif arrange == "few values":
        values = values.round()
    elif arrange == "with NaN":
        values[::3], values[::5] = math.nan, math.inf
    elif arrange == "all NaN":
        values[:] = math.nan
    size = values.size
    for m in (1, 2, size // 100, size // 3, size // 2, size - 1, size):
        expected = np.sort(values)[size - m]
        assert np.array_equal(selection._largest(values, m), expected, equal_nan=True)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "arrange", ["random", "few values", "all alike", "an outlier", "apart by group", "far classes"]
)
def test_the_threshold_of_each_group(arrange: str, dtype: torch.dtype, largest: bool) -> None:
    """Of as many samples as take several rounds of counting."""
    generator = torch.Generator().manual_seed(0)
    size = 6000
    loss = torch.randn(size, generator=generator, dtype=torch.float64).exp()
    group = torch.randint(3, (size,), generator=generator) ** 2
    if arrange == "few values":
        loss = loss.round(decimals=1)
    elif arrange == "all alike":
        loss = torch.ones(size)
    elif arrange == "an outlier":
        loss = 2.3 + 1e-6 * loss
        loss[7], loss[8], loss[9] = 1e30, -1e30, math.nan
    elif arrange == "apart by group":
        loss = loss * 1e-6 + 10.0**group
    elif arrange == "far classes":
        group = group * 10**8
    loss = loss.to(dtype)
    for fraction in (0.001, 0.3, 0.75):
        keep = select(loss, fraction, largest=largest, group=group)
        expected = reference.selected(
            loss.tolist(), fraction, largest=largest, group=group.tolist()
        )
        assert keep.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [100, 1500, 3000, 10**8])
def test_about_as_many_groups_as_samples(groups: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = torch.randn(3000, generator=generator, dtype=dtype)
    loss[::7], loss[1::50], loss[2::50] = 0.5, math.nan, -0.0
    group = torch.randint(-2, groups, (3000,), generator=generator)
    valid = torch.rand(3000, generator=generator) < 0.9
    for largest in (True, False):
        keep = select(loss, 0.3, largest=largest, valid=valid, group=group)
        expected = reference.selected(
            loss.tolist(), 0.3, largest=largest, valid=valid.tolist(), group=group.tolist()
        )
        assert keep.tolist() == expected


@pytest.mark.parametrize("grouped", [False, True])
def test_one_program_serves_every_batch_size(grouped: bool) -> None:
    class Select(torch.nn.Module):
        def forward(
            self, loss: torch.Tensor, valid: torch.Tensor, group: torch.Tensor
        ) -> torch.Tensor:
            return select(loss, 0.3, largest=True, valid=valid, group=group if grouped else None)

    def batch(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(size)
        loss = torch.rand(size, generator=generator)
        return loss, loss > 0.2, torch.randint(3, (size,), generator=generator)

    any_size = {0: torch.export.Dim("size")}
    program = torch.export.export(Select(), batch(7), dynamic_shapes=(any_size,) * 3)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(Select(), dynamic=True, fullgraph=True, backend=backend)
    for size in (5, 2, 3, 64, 65, 5000):
        expected = Select()(*batch(size))
        assert program.module()(*batch(size)).equal(expected)
        assert compiled(*batch(size)).equal(expected)
    assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_a_trace_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace cannot .*: use torch\.export"):
        torch.jit.trace(lambda loss: select(loss, 0.5, largest=True), torch.rand(4))


def test_losses_keep_their_graph_to_themselves() -> None:
    loss = torch.rand(5, requires_grad=True)
    assert not select(loss, 0.5, largest=True).requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_host_synchronisation() -> None:
    loss = torch.rand(1000, device="cuda")
    valid, group = loss > 0.1, (loss * 5).long()
    fraction = torch.tensor(0.3, dtype=torch.float64, device="cuda")
    expected = select(loss.cpu(), 0.3, largest=True, valid=valid.cpu(), group=group.cpu())
    torch.cuda.set_sync_debug_mode("error")
    try:
        keep = select(loss, fraction, largest=True, valid=valid, group=group)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert keep.cpu().equal(expected)
