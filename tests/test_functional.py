"""Class counts to class weights, and the inputs of per-sample losses (values: tests/losses)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.autograd import forward_ad

import sampleweights as sw
from sampleweights.functional import (
    binary_focal_loss,
    class_balanced_weights,
    cross_entropy,
    effective_number_weights,
    focal_loss,
)

counts = st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any)
normalize = st.sampled_from(["samples", "classes", None])

ISIC = [1113, 6705, 514, 327, 1099, 115, 142]


@given(counts, normalize)
def test_class_balanced_equals_eq_7(counts: list[int], normalize: str | None) -> None:
    weight = class_balanced_weights(counts, normalize).tolist()
    expected = reference.normalized(reference.class_balanced(counts), counts, normalize)
    assert weight == pytest.approx([float(w) for w in expected], rel=1e-12)


@given(counts, normalize, st.none() | st.fractions(0, Fraction(999, 1000), max_denominator=1000))
def test_effective_number_equals_eq_8(
    counts: list[int], normalize: str | None, beta: Fraction | None
) -> None:
    weight = effective_number_weights(counts, None if beta is None else float(beta), normalize)
    exact = None if beta is None else Fraction(float(beta))
    expected = reference.normalized(reference.effective_number(counts, exact), counts, normalize)
    assert weight.tolist() == pytest.approx([float(w) for w in expected], rel=1e-12)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=8), st.none() | st.floats(0, 1 - 1e-9))
def test_effective_number_is_accurate_for_any_count(counts: list[int], beta: float | None) -> None:
    weight = effective_number_weights(counts, beta, None).tolist()
    with localcontext() as context:
        context.prec = 60
        total = Decimal(sum(counts))
        b = (total - 1) / total if beta is None else Decimal(beta)
        expected = [(1 - b) / (1 - b**n) for n in counts]
    assert weight == pytest.approx([float(w) for w in expected], rel=1e-12)


def test_the_papers_class_counts() -> None:
    balanced = class_balanced_weights(ISIC)
    expected = compute_class_weight(
        "balanced", classes=np.arange(7), y=np.repeat(np.arange(7), ISIC)
    )
    torch.testing.assert_close(balanced, torch.from_numpy(expected))
    # choices.md: N w is nearly N / n + 1/2 with the default beta
    bare = effective_number_weights(ISIC, normalize=None)
    total = sum(ISIC)
    for n, w in zip(ISIC, bare.tolist(), strict=True):
        assert total * w == pytest.approx(total / n + 0.5, rel=0.05)


@given(counts)
def test_mean_weight_over_the_training_samples_is_one(counts: list[int]) -> None:
    n = torch.tensor(counts, dtype=torch.float64)
    for weight in (class_balanced_weights(counts), effective_number_weights(counts)):
        assert ((n * weight).sum() / n.sum()).item() == pytest.approx(1, rel=1e-12)


def test_absent_classes_change_nothing_for_the_others() -> None:
    for weights in (class_balanced_weights, effective_number_weights):
        for how in ("samples", "classes", None):
            with_absent = weights([0, 10, 0, 100], normalize=how)
            without = weights([10, 100], normalize=how)
            assert with_absent[[0, 2]].tolist() == [0, 0]
            torch.testing.assert_close(with_absent[[1, 3]], without)


def test_beta_goes_from_no_weights_to_class_balanced() -> None:
    assert effective_number_weights([90, 9, 1], 0.0).tolist() == [1, 1, 1]
    near_one = effective_number_weights([90, 9, 1], math.nextafter(1, 0))
    torch.testing.assert_close(near_one, class_balanced_weights([90, 9, 1]))


def test_one_sample_alone() -> None:
    assert effective_number_weights([1]).tolist() == [1]
    assert effective_number_weights([1, 0], normalize=None).tolist() == [1, 0]


@pytest.mark.parametrize(
    "counts",
    [[3, 1], (3, 1), torch.tensor([3, 1]), torch.tensor([3.0, 1.0]), np.array([3, 1], np.uint8)],
)
def test_counts_of_any_kind(counts: object) -> None:
    assert class_balanced_weights(counts, None).tolist() == [4 / 3, 4]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, -1], "from 0 to 2\\*\\*53, got -1 for class 1"),
        ([3, 1.5], "whole numbers .*, got 1.5 for class 1"),
        ([0.67, 0.33], "whole numbers .*, got 0.67"),
        ([3, math.nan], "got nan for class 1"),
        ([3, math.inf], "got inf for class 1"),
        ([2**53, 1], "got 9007199254740992 for class 0"),
        ([0, 0], "at least one sample, got only zeros"),
        ([], r"shape \(C,\), got \(0,\)"),
        ([[3, 1]], r"shape \(C,\), got \(1, 2\)"),
        (3, r"shape \(C,\), got \(\)"),
        ([True, False], "whole numbers, got dtype torch.bool"),
        ("31", "class_counts must be numbers, got '31'"),
        ({"a": 3}, r"class indices \(from 0\) as keys, got 'a'"),
    ],
)
def test_bad_counts(counts: object, message: str) -> None:
    for weights in (class_balanced_weights, effective_number_weights):
        with pytest.raises(ValueError, match=message):
            weights(counts)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1 - 1e-17, 2.0, math.nan])
def test_bad_beta(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\), got"):
        effective_number_weights([3, 1], beta)


def test_bad_normalize() -> None:
    for weights in (class_balanced_weights, effective_number_weights):
        with pytest.raises(ValueError, match="normalize must be 'samples', 'classes' or None"):
            weights([3, 1], normalize="sum")


SOFTMAX = [cross_entropy, functools.partial(focal_loss, gamma=0.5), focal_loss]


@pytest.mark.parametrize("loss", SOFTMAX)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_on_the_meta_device(
    loss: Callable[..., Tensor], smoothing: float, dtype: torch.dtype
) -> None:
    for probabilities, weighted, shape in itertools.product(
        (False, True), (False, True), [(3,), (4, 3), (4, 3, 2)]
    ):
        results = []
        for device in ("cpu", "meta"):
            logits = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
            target = torch.zeros(shape, dtype=dtype, device=device)
            if not probabilities:
                target = target.sum(min(len(shape) - 1, 1)).long()
            weight = torch.ones(3, dtype=dtype, device=device) if weighted else None
            value = loss(logits, target, weight=weight, label_smoothing=smoothing)
            value.sum().backward()
            assert logits.grad is not None
            results.append((value.shape, value.dtype, logits.grad.dtype))
        assert results[0] == results[1]


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_class_indices_of_every_integer_dtype(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, generator=generator)
    target, weight = torch.tensor([2, 0, 1]), torch.tensor([1.0, 2.0, 3.0])
    other = target.to(getattr(torch, dtype))
    for loss, smoothing, index in itertools.product(SOFTMAX, (0.0, 0.1), (-100, 1, 100)):
        options = {"weight": weight, "label_smoothing": smoothing, "ignore_index": index}
        torch.testing.assert_close(loss(logits, other, **options), loss(logits, target, **options))
    with pytest.raises(IndexError, match="class indices from 0 to 2 .*, got 7"):
        focal_loss(logits, torch.tensor([0, 7, 1]).to(getattr(torch, dtype)))
    binary = other == 2
    torch.testing.assert_close(
        binary_focal_loss(logits[0], binary.to(getattr(torch, dtype))),
        binary_focal_loss(logits[0], binary),
    )


# torch 2.4's own gradcheck calls what torch 2.4 deprecates
@pytest.mark.filterwarnings("ignore:Please use `torch.vmap`:FutureWarning")
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("probabilities", [False, True])
def test_derivatives_of_every_mode(gamma: float, smoothing: float, probabilities: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randn(4, 3, dtype=torch.float64, generator=generator).softmax(1)
    if not probabilities:
        target = torch.tensor([0, 2, -100, 1])

    def loss(logits: Tensor) -> Tensor:
        return focal_loss(logits, target, gamma, label_smoothing=smoothing)

    assert torch.autograd.gradcheck(
        loss, logits, check_forward_ad=True, check_batched_grad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(loss, logits, check_fwd_over_rev=True, fast_mode=True)
    # forward over reverse without a graph of the gradient, whose tangent is the Hessian's product
    direction = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    gradient = torch.func.grad(lambda logits: loss(logits).sum())
    _, expected = torch.func.jvp(gradient, (logits.detach(),), (direction,))
    with forward_ad.dual_level():
        [dual] = torch.autograd.grad(loss(forward_ad.make_dual(logits, direction)).sum(), logits)
        tangent = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, expected)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)
def test_traced_code_keeps_nothing_of_the_batch_it_was_traced_with() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 8, 3, generator=generator)
    target = torch.randint(3, (2, 8), generator=generator)
    target[1, 0] = -100  # in the second batch alone
    for criterion in (sw.CrossEntropyLoss(), sw.FocalLoss(weighter=sw.ClassBalanced([5, 3, 2]))):
        traced = torch.jit.trace(criterion, (logits[0], target[0]))
        for batch in zip(logits, target, strict=True):
            torch.testing.assert_close(traced(*batch), criterion(*batch))
    with pytest.raises(RuntimeError, match="torch.jit.trace cannot record a selection"):
        torch.jit.trace(sw.CrossEntropyLoss(weighter=sw.OHEM(4)), (logits[0], target[0]))
