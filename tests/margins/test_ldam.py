"""LDAM against Cao et al., restated in plain Python."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from contracts import COUNTS, indices, logits

import sampleweights as sw


@pytest.mark.parametrize("max_margin", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.5, 30.0])
def test_the_equation(max_margin: float, scale: float) -> None:
    z, target = logits(12, 5).double(), indices(12)
    criterion = sw.CrossEntropyLoss(margin=sw.LDAM(COUNTS, max_margin, scale), reduction="none")
    expected = [
        reference.ldam(row, y, COUNTS, max_margin, scale)
        for row, y in zip(z.tolist(), target.tolist(), strict=True)
    ]
    assert criterion(z, target).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_rarest_class_has_the_largest_margin() -> None:
    margin = sw.LDAM([1600, 100, 0])
    moved = margin(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert moved.tolist() == [[-0.25, 0, 0], [0, -0.5, 0]]


def test_gradient_is_zero_sum_and_scaled() -> None:
    z, target = logits(12, 5).double().requires_grad_(), indices(12)
    sw.CrossEntropyLoss(margin=sw.LDAM(COUNTS, scale=3.0), reduction="sum")(z, target).backward()
    moved = sw.LDAM(COUNTS, scale=3.0)(z.detach(), target)
    expected = 3 * (moved.softmax(1) - torch.nn.functional.one_hot(target, 5))
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_margin": -0.1}, ValueError, "max_margin must be finite and at least 0, got -0.1"),
        ({"max_margin": math.inf}, ValueError, "max_margin must be finite and at least 0, got inf"),
        ({"max_margin": "0.5"}, TypeError, "max_margin must be a number"),
        ({"scale": 0}, ValueError, "scale must be finite and above 0, got 0"),
        ({"scale": math.nan}, ValueError, "scale must be finite and above 0, got nan"),
        ({"class_counts": [0, 0]}, ValueError, "class_counts must hold at least one sample"),
    ],
)
def test_wrong_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sw.LDAM(**{"class_counts": [3, 1], **arguments})


def test_wrong_targets() -> None:
    margin, z = sw.LDAM([3, 1]), torch.zeros(4, 2)
    with pytest.raises(ValueError, match="target must be given for LDAM, got None"):
        margin(z)
    with pytest.raises(ValueError, match=r"target with class indices must have shape \(4,\)"):
        margin(z, torch.zeros(3, dtype=torch.long))
    for module in (margin, sw.CrossEntropyLoss(margin=margin), sw.FocalLoss(margin=margin)):
        with pytest.raises(ValueError, match="target must hold class indices for LDAM"):
            module(z, torch.full((4, 2), 0.5))


def test_label_smoothing_with_an_absent_class_is_finite() -> None:
    criterion = sw.CrossEntropyLoss(margin=sw.LDAM([5, 0, 9]), label_smoothing=0.1)
    assert criterion(torch.randn(4, 3), torch.tensor([0, 2, 2, 0])).isfinite()


def test_half_precision_is_moved_in_float32() -> None:
    z = torch.tensor([[2500.0, 2490.0]], dtype=torch.float16, requires_grad=True)
    loss = sw.CrossEntropyLoss(margin=sw.LDAM([100, 1600], scale=30.0))(z, torch.tensor([1]))
    expected = reference.ldam([2500.0, 2490.0], 1, [100, 1600], 0.5, 30.0)
    assert loss.dtype == torch.float16
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    [grad] = torch.autograd.grad(loss, z)
    assert grad.tolist() == [[30.0, -30.0]]


def test_the_gradient_of_bfloat16_is_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(200, 10, generator=generator).bfloat16()  # cosines
    target = torch.randint(10, (200,), generator=generator)
    criterion = sw.CrossEntropyLoss(margin=sw.LDAM(range(1, 11), scale=30.0), reduction="none")
    grads = []
    for dtype in (torch.bfloat16, torch.float64):
        leaf = z.clone().to(dtype).requires_grad_()
        criterion(leaf, target).sum().backward()
        grads.append(leaf.grad)
    assert grads[0].dtype == torch.bfloat16
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=2**-8, atol=1e-4)


def test_margins_of_labels() -> None:
    margin = sw.LDAM([[1600, 100], [1, 81], [0, 5]])
    zero = torch.zeros(1, 3)
    negative, positive = margin.binary(zero)
    assert negative.tolist() == [pytest.approx([0.25, 0.5, 0.0])]
    assert positive.tolist() == [pytest.approx([-0.5, -0.5 / 3, -0.5])]
