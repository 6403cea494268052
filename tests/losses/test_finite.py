"""Finite logits give no NaN, and a loss that fits is finite: up to 1e30, and all of float16.

Softmax losses without label smoothing hold to the end of every dtype.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sampleweights as sw

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
GAMMAS = [0.0, 0.05, 0.5, 1.0, 2.0, 5.0]
NUM_CLASSES = 3
MARGINS: dict[str, Any] = {
    "-": lambda counts: None,
    "LogitAdjustment": sw.LogitAdjustment,
    "LDAM": sw.LDAM,
    "LDAM(scale)": lambda counts: sw.LDAM(counts, scale=30.0),
}
WEIGHTERS: dict[str, Any] = {
    "-": lambda counts: None,
    "ClassBalanced": sw.ClassBalanced,
    "OHEM": lambda counts: sw.OHEM(schedule=0.5),
    "SelfPaced": lambda counts: sw.SelfPaced(schedule=0.5),
}
parts = st.lists(
    st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]) | st.floats(-1, 1),
    min_size=4 * NUM_CLASSES,
    max_size=4 * NUM_CLASSES,
)


@st.composite
def logits(draw: st.DrawFn, room: float = 1.0) -> Tensor:
    """Up to the largest number of the dtype; with room for a factor in at least float32."""
    dtype = draw(st.sampled_from(DTYPES))
    largest = min(torch.finfo(dtype).max, computed_max(dtype) / room)
    exponent = draw(st.sampled_from([0, 0, 1, 2, 4]) | st.floats(0, math.log2(largest)))
    values = torch.tensor(draw(parts), dtype=torch.float64) * (largest * 2.0**-exponent)
    return values.clamp(-largest, largest).to(dtype).reshape(4, NUM_CLASSES)


def computed_max(dtype: torch.dtype) -> float:
    return torch.finfo(torch.promote_types(dtype, torch.float32)).max


def targets(dtype: torch.dtype, kind: str, counts: list[int]) -> Tensor:
    present = torch.tensor([c for c, n in enumerate(counts) if n])
    target = present[torch.arange(4) % len(present)]
    if kind == "index":
        return target
    one_hot = nn.functional.one_hot(target, NUM_CLASSES).to(dtype)
    return one_hot if kind == "one-hot" else (one_hot + one_hot.flip(0)) / 2


def value_and_grad(criterion: Any, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.clone().requires_grad_()
    value = criterion(leaf, target)
    [grad] = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


@given(
    st.data(),
    st.sampled_from(GAMMAS),
    st.sampled_from(list(MARGINS)),
    st.sampled_from(["index", "one-hot", "mixed"]),
    st.sampled_from([0.0, 0.1]),
)
def test_softmax_losses(
    data: st.DataObject, gamma: float, margin: str, kind: str, smoothing: float
) -> None:
    scale = 30.0 if margin == "LDAM(scale)" else 1.0
    z = data.draw(logits(room=1e8 if scale > 1 or smoothing else 1))
    counts = data.draw(st.sampled_from([[50, 9, 1], [50, 0, 9]]))
    if "LDAM" in margin:
        kind = "index"
    if margin == "LogitAdjustment" and 0 in counts:
        smoothing = 0.0  # an error, since its loss would be infinite
    target = targets(z.dtype, kind, counts)
    criterion = sw.FocalLoss(
        gamma, margin=MARGINS[margin](counts), label_smoothing=smoothing, reduction="none"
    )
    losses, grad = value_and_grad(criterion, z, target)
    assert not losses.isnan().any()
    assert (losses >= 0).all()
    assert not grad.isnan().any()
    if not smoothing:  # its gradient is as large as its loss
        assert grad.isfinite().all()
    # what differs by more than the dtype holds is infinite to whoever computes in it
    differences = NUM_CLASSES * scale * (z.double().amax(1) - z.double().amin(1) + 99)
    for row, y, loss, difference in zip(
        z.tolist(), targets(z.dtype, "index", counts).tolist(), losses, differences, strict=True
    ):
        if difference > computed_max(z.dtype):
            continue
        if margin != "-" or kind == "mixed":
            expected = scale * (max(row) - min(row) + 99)  # at least the loss
        else:
            expected = reference.focal(row, y, gamma, smoothing)
        if expected < 0.99 * torch.finfo(z.dtype).max:
            assert loss.isfinite()
    criterion.reduction = data.draw(st.sampled_from(["mean", "weighted_mean", "sum"]))
    criterion.weighter = data.draw(st.sampled_from(list(WEIGHTERS.values())))(counts)
    value, grad = value_and_grad(criterion, z, target)
    assert not value.isnan()
    assert not grad.isnan().any()


@given(
    st.data(),
    st.sampled_from(GAMMAS),
    st.sampled_from(list(MARGINS)),
    st.sampled_from(["index", "float", "mixed"]),
    st.sampled_from([None, 0.25, 1.0]),
)
def test_binary_losses(
    data: st.DataObject, gamma: float, margin: str, kind: str, alpha: float | None
) -> None:
    z = data.draw(logits(room=1e8))
    counts = data.draw(st.sampled_from([[50, 9], [[50, 1], [3, 7], [1, 1]], [50, 0]]))
    label = torch.arange(4 * NUM_CLASSES).reshape(4, NUM_CLASSES) % 2
    if margin != "-" and counts == [50, 0]:
        label = torch.zeros_like(label)
    target = label if kind == "index" else label.to(z.dtype)
    if kind == "mixed" and (margin == "-" or counts != [50, 0]):
        target = target / 2
    criterion = sw.BinaryFocalLoss(
        gamma, alpha=alpha, margin=MARGINS[margin](counts), reduction="none"
    )
    losses, grad = value_and_grad(criterion, z, target)
    assert not losses.isnan().any()
    assert (losses >= 0).all()
    assert grad.isfinite().all()
    if margin == "-":  # a loss is at most log 2 above its logit
        assert losses[z.abs() < 0.99 * torch.finfo(z.dtype).max].isfinite().all()
    criterion.reduction = data.draw(st.sampled_from(["mean", "weighted_mean", "sum"]))
    criterion.weighter = sw.OHEM(schedule=0.5)
    value, grad = value_and_grad(criterion, z, target)
    assert not value.isnan()
    assert not grad.isnan().any()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_what_is_too_large_for_its_dtype_is_infinite_as_in_torch(reduction: str) -> None:
    z = torch.tensor([[40000.0, -40000.0]], dtype=torch.float16)
    for target in (torch.tensor([1]), torch.tensor([0])):
        ours = value_and_grad(sw.CrossEntropyLoss(reduction=reduction), z, target)
        theirs = value_and_grad(nn.CrossEntropyLoss(reduction=reduction), z, target)
        for our, their in zip(ours, theirs, strict=True):
            assert our.equal(their)
    assert sw.CrossEntropyLoss()(z, torch.tensor([1])) == math.inf  # 80,000
    assert sw.CrossEntropyLoss()(z.bfloat16(), torch.tensor([1])) == 79872
    assert sw.FocalLoss()(z / 2, torch.tensor([1])) == 40000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [None, torch.tensor([2.0, 1.0])])
def test_a_probability_of_0_costs_nothing(dtype: torch.dtype, weight: Any) -> None:
    """Where the difference of the logits is inf in the dtype, torch has 0 * inf."""
    largest = torch.finfo(dtype).max
    z = torch.tensor([[largest, -largest], [0.0, 0.0]], dtype=torch.float64).to(dtype)
    target = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=dtype)
    weight = None if weight is None else weight.to(dtype)
    assert nn.functional.cross_entropy(z, target).isnan()
    for gamma in (0.0, 2.0):
        losses, grad = value_and_grad(
            sw.FocalLoss(gamma, weight=weight, reduction="none"), z, target
        )
        mean = 1.0 if weight is None else 1.5
        expected = [0, 0.5**gamma * mean * math.log(2)]
        assert losses.tolist() == pytest.approx(expected, rel=1e-2)
        assert grad.isfinite().all()
        assert grad[0].eq(0).all()
    # where nothing may be read, as on a GPU
    each = torch.func.vmap(sw.CrossEntropyLoss(weight, reduction="none"))(z, target)
    torch.testing.assert_close(each, sw.CrossEntropyLoss(weight, reduction="none")(z, target))
