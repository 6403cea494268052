from __future__ import annotations

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

import sampleweights as sw
from sampleweights.reduction import reduce, weigh

samples = st.lists(
    st.tuples(
        st.floats(0, 100),
        st.floats(0, 10, allow_subnormal=False) | st.just(0.0),
        st.booleans(),
    ),
    max_size=20,
)


@given(samples, st.sampled_from(["mean", "weighted_mean", "sum"]))
def test_equals_the_paper(samples: list[tuple[float, float, bool]], reduction: str) -> None:
    loss = [x if v else 0.0 for x, _, v in samples]
    weight = [w for _, w, _ in samples]
    valid = [v for _, _, v in samples]
    value = reduce(
        torch.tensor(loss, dtype=torch.float64),
        torch.tensor(weight, dtype=torch.float64),
        valid=torch.tensor(valid, dtype=torch.bool),
        reduction=reduction,
    )
    expected = reference.reduced(loss, weight, valid, reduction)
    # below 1e-300 products are subnormal, which hold fewer digits
    assert math.isclose(value.item(), expected, rel_tol=1e-12, abs_tol=1e-300)


def test_weight_zero_times_infinity_is_zero_in_value_and_gradient() -> None:
    for bad in (math.inf, math.nan):
        loss = torch.tensor([1.0, bad], requires_grad=True)
        value = reduce(loss, torch.tensor([1.0, 0.0]))
        value.backward()
        assert value == 0.5
        assert loss.grad.tolist() == [0.5, 0.0]


def test_nan_that_counts_is_not_hidden() -> None:
    assert reduce(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 1.0])).isnan()


def test_a_learned_weight_gets_the_loss_as_gradient_also_at_zero() -> None:
    weight = torch.tensor([0.0, 2.0, 0.0], requires_grad=True)
    weigh(torch.tensor([3.0, 5.0, math.inf]), weight).sum().backward()
    assert weight.grad.tolist() == [3.0, 5.0, 0.0]


def test_half_precision_sums_neither_overflow_nor_stall() -> None:
    loss = torch.full((100_000,), 3.0, dtype=torch.float16)
    assert reduce(loss) == 3
    assert reduce(loss, torch.full_like(loss, 2.0)) == 6
    assert reduce(torch.ones(4096, dtype=torch.bfloat16), reduction="sum") == 4096


def test_nothing_that_counts_gives_zero_with_a_graph() -> None:
    for reduction in ("mean", "weighted_mean", "sum"):
        loss = torch.zeros(3, requires_grad=True)
        for weight, valid in [(torch.zeros(3), None), (None, torch.zeros(3, dtype=torch.bool))]:
            value = reduce(loss, weight, valid=valid, reduction=reduction)
            assert value == 0
            value.backward()
            assert loss.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reduction": "average"}, "reduction must be one of .*'mean'.*, got 'average'"),
        ({"reduction": "sum", "normalizer": 3}, "needs reduction 'mean' or 'weighted_mean'"),
        ({"reduction": "none", "normalizer": 3}, "got reduction='none'"),
        ({"normalizer": 0}, "normalizer must be positive and finite, got 0"),
        ({"normalizer": math.nan}, "normalizer must be positive and finite, got nan"),
        ({"normalizer": torch.ones(2)}, r"no dimensions, got shape \(2,\)"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reduce(torch.ones(3), **kwargs)


LOGITS = torch.randn(64, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.arange(64) ** 2 % 7
COUNTS = torch.bincount(TARGET, minlength=7).tolist()
WEIGHT = torch.linspace(0.1, 3, 64, dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("how", ["plain", "class weights", "sample weights", "OHEM of the whole"])
def test_micro_batches_add_up(how: str, gamma: float, reduction: str) -> None:
    """As docs/faq.md has it: where no weight depends on the other samples of the micro-batch."""
    present = [n for n in COUNTS if n]
    weighter, weight = None, torch.ones(64, dtype=torch.float64)
    if how == "class weights":
        weighter = sw.ClassBalanced(COUNTS)
        weight = torch.tensor([64 / len(present) / COUNTS[c] for c in TARGET.tolist()])
    elif how == "sample weights":
        weight = WEIGHT
    elif how == "OHEM of the whole":
        with torch.no_grad():
            losses = sw.FocalLoss(gamma, reduction="none")(LOGITS, TARGET)
        weight = sw.OHEM(schedule=0.25)(losses)
    criterion = sw.FocalLoss(gamma, weighter=weighter, reduction=reduction)
    given = None if weighter is not None or how == "plain" else weight
    whole, parts = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    criterion(whole, TARGET, sample_weight=given).backward()
    normalizer = 64 if reduction == "mean" else float(weight.sum())
    for part in torch.arange(64).split(10):
        criterion(
            parts[part],
            TARGET[part],
            sample_weight=None if given is None else given[part],
            normalizer=normalizer,
        ).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_curricula_rank_within_a_micro_batch() -> None:
    """So they do not add up, and no page may say so."""
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25))
    whole, parts = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    order = torch.nn.functional.cross_entropy(LOGITS, TARGET, reduction="none").argsort()
    criterion(whole, TARGET).backward()
    for part in order.split(16):  # all of the hardest are in the last
        criterion(parts[part], TARGET[part], normalizer=64).backward()
    assert (whole.grad.any(1) != parts.grad.any(1)).sum() == 24
