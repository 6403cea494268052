"""CrossEntropyLoss against torch.nn.CrossEntropyLoss, argument by argument."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn

import sampleweights as sw

C = 5
SHAPES = [(), (6,), (6, 3), (2, 3, 4)]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def batch(
    shape: tuple[int, ...], dtype: torch.dtype, *, probabilities: bool = False
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dims = (C,) if shape == () else (shape[0], C, *shape[1:])
    logits = (2 * torch.randn(dims, generator=generator)).to(dtype)
    if probabilities:
        target = torch.randn(dims, generator=generator).softmax(0 if shape == () else 1).to(dtype)
    else:
        target = torch.randint(C, shape, generator=generator)
    return logits, target


def value_and_grad(criterion: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = criterion(leaf, target)
    value.sum().backward()
    return value.detach(), leaf.grad


def assert_equals_torch(logits: Tensor, target: Tensor, **kwargs: Any) -> None:
    """To the last bit; but torch loses digits when it smooths in float16 and bfloat16."""
    ours = value_and_grad(sw.CrossEntropyLoss(**kwargs), logits, target)
    theirs = value_and_grad(nn.CrossEntropyLoss(**kwargs), logits, target)
    loose = logits.dtype.itemsize < 4 and kwargs.get("label_smoothing")
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == their.dtype
        assert our.shape == their.shape
        if loose:
            torch.testing.assert_close(our, their, rtol=2e-2, atol=5e-3)
        else:
            assert our.equal(their)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("probabilities", [False, True])
def test_drop_in(shape: tuple[int, ...], dtype: torch.dtype, probabilities: bool) -> None:
    logits, target = batch(shape, dtype, probabilities=probabilities)
    class_weight = torch.linspace(0.5, 2, C).to(dtype)
    for weight, smoothing, reduction in itertools.product(
        [None, class_weight], [0.0, 0.1, 1.0], ["mean", "sum", "none"]
    ):
        kwargs = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
        assert_equals_torch(logits, target, **kwargs)
        if not probabilities and shape != ():
            for ignore_index in (-100, 2):
                some = target.clone()
                some.view(-1)[::4] = ignore_index
                assert_equals_torch(logits, some, ignore_index=ignore_index, **kwargs)


def test_value_equals_eq_5() -> None:
    logits, target = batch((6,), torch.float64)
    for smoothing in (0.0, 0.1):
        losses = sw.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)(logits, target)
        expected = [
            reference.cross_entropy(z, t, smoothing)
            for z, t in zip(logits.tolist(), target.tolist(), strict=True)
        ]
        assert losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_constructor_is_torchs_with_more() -> None:
    ours = list(inspect.signature(sw.CrossEntropyLoss).parameters.values())
    theirs = list(inspect.signature(nn.CrossEntropyLoss).parameters.values())
    for our, their in zip(ours, theirs, strict=False):
        assert (our.name, our.default, our.kind) == (their.name, their.default, their.kind)
    assert all(extra.kind == extra.KEYWORD_ONLY for extra in ours[len(theirs) :])
    by_position = sw.CrossEntropyLoss(torch.ones(3), None, 1, None, "sum", 0.1)
    assert (by_position.ignore_index, by_position.reduction) == (1, "sum")
    assert by_position.label_smoothing == 0.1


def test_state_dict_is_torchs() -> None:
    weight = torch.ones(3)
    for args in ((), (weight,)):
        ours, theirs = sw.CrossEntropyLoss(*args), nn.CrossEntropyLoss(*args)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_every_integer_dtype_is_a_class_index(dtype: torch.dtype) -> None:
    logits, target = batch((6, 3), torch.float32)
    expected = nn.CrossEntropyLoss()(logits, target)
    assert sw.CrossEntropyLoss()(logits, target.to(dtype)).equal(expected)
    weighter = sw.ClassBalanced([5, 4, 3, 2, 1])
    criterion = sw.CrossEntropyLoss(weighter=[weighter, sw.OHEM(schedule=0.5, per_class=True)])
    assert criterion(logits, target.to(dtype)).equal(criterion(logits, target))


@pytest.mark.parametrize("weight", [None, torch.linspace(0.5, 2, C)])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nothing_that_counts_is_zero_with_its_graph(
    weight: Tensor | None, reduction: str, smoothing: float
) -> None:
    for weighter in (None, sw.OHEM(10), sw.ClassBalanced([1] * C)):
        criterion = sw.CrossEntropyLoss(
            weight, reduction=reduction, label_smoothing=smoothing, weighter=weighter
        )
        cases = [
            (torch.randn(0, C), torch.zeros(0, dtype=torch.long)),
            (torch.randn(0, C, 4), torch.zeros(0, 4, dtype=torch.long)),
            (torch.randn(2, C, 0), torch.zeros(2, 0, dtype=torch.long)),
            (torch.randn(4, C), torch.full((4,), -100)),
            (torch.randn(2, C, 3), torch.full((2, 3), -100)),
            (torch.randn(C), torch.tensor(-100)),
            (torch.randn(0, C), torch.zeros(0, C)),
        ]
        for logits, target in cases:
            value, grad = value_and_grad(criterion, logits, target)
            assert value.item() == 0
            assert value.dtype == logits.dtype
            assert (grad == 0).all()


def test_class_weights_of_zero_for_all_that_is_there() -> None:
    logits, target = batch((6,), torch.float32)
    weight = torch.ones(C)
    weight[target] = 0
    assert nn.CrossEntropyLoss(weight)(logits, target).isnan()
    value, grad = value_and_grad(sw.CrossEntropyLoss(weight), logits, target)
    assert value == 0
    assert (grad == 0).all()


def test_torchs_class_weights_beside_weighters() -> None:
    logits, target = batch((6,), torch.float64)
    target[0] = -100
    weight = torch.linspace(0.5, 2, C, dtype=torch.float64)
    valid = target != -100
    class_weight = weight[target.clamp(0)] * valid
    losses = sw.CrossEntropyLoss(reduction="none")(logits, target)
    balanced = sw.ClassBalanced([1, 2, 3, 4, 5])
    w = balanced(losses, target, valid)
    weighted = (w * class_weight * losses).sum()
    for reduction, denominator in [
        ("mean", valid.sum()),  # Eq. 3
        ("weighted_mean", (w * class_weight).sum()),
        ("sum", 1),
    ]:
        criterion = sw.CrossEntropyLoss(weight, reduction=reduction, weighter=balanced)
        torch.testing.assert_close(criterion(logits, target), weighted / denominator)
    # without a weighter, torch's denominator, also for a weighted mean and with sample weights
    for reduction in ("mean", "weighted_mean"):
        criterion = sw.CrossEntropyLoss(weight, reduction=reduction)
        expected = nn.CrossEntropyLoss(weight)(logits, target)
        torch.testing.assert_close(criterion(logits, target), expected)
        ones = torch.ones_like(losses)
        torch.testing.assert_close(criterion(logits, target, sample_weight=ones), expected)


@pytest.mark.parametrize("weighter", [None, sw.ClassBalanced([5, 4, 3, 2, 1])])
def test_micro_batches_with_a_common_normalizer_are_the_full_batch(
    weighter: sw.Weighter | None,
) -> None:
    for cls in (sw.CrossEntropyLoss, sw.FocalLoss):
        criterion = cls(weighter=weighter)
        logits, target = batch((12,), torch.float32)
        target[5] = -100
        full, micro = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        criterion(full, target).backward()
        num_valid = (target != -100).sum()
        for part in (slice(0, 1), slice(1, 7), slice(7, 12)):
            criterion(micro[part], target[part], normalizer=num_valid).backward()
        assert micro.grad.equal(full.grad)


def test_sample_weight_is_multiplied_in_and_may_be_learned() -> None:
    logits, target = batch((6,), torch.float32)
    losses = nn.CrossEntropyLoss(reduction="none")(logits, target)
    sample_weight = torch.tensor([0, 1, 2, 0.5, 0, 3], requires_grad=True)
    value = sw.CrossEntropyLoss()(logits, target, sample_weight=sample_weight)
    torch.testing.assert_close(value, (sample_weight * losses).mean())
    value.backward()
    torch.testing.assert_close(sample_weight.grad, losses / 6)
    integer = torch.tensor([0, 1, 2, 3, 0, 3])
    value = sw.CrossEntropyLoss(reduction="weighted_mean")(logits, target, sample_weight=integer)
    torch.testing.assert_close(value, (integer * losses).sum() / 9)


def test_autocast() -> None:
    logits, target = batch((6,), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        for criterion in (
            sw.CrossEntropyLoss(),
            sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5)),
            sw.FocalLoss(),
        ):
            assert criterion(logits, target).isfinite()


LOGITS, TARGET = batch((4,), torch.float32)


@pytest.mark.parametrize(
    ("logits", "target", "error", "message"),
    [
        (LOGITS, TARGET[:3], ValueError, r"shape \(4,\) for logits of shape \(4, 5\), got \(3,\)"),
        (LOGITS, torch.zeros(4, 6), ValueError, r"shape of logits, \(4, 5\), got \(4, 6\)"),
        (LOGITS, torch.zeros(4, 5).long(), ValueError, r"shape \(4,\) .* got \(4, 5\)"),
        (LOGITS, TARGET.float(), ValueError, r"shape of logits, \(4, 5\), got \(4,\)"),
        (LOGITS, TARGET.bool(), TypeError, r"integer\) or probabilities .* got dtype torch.bool"),
        (LOGITS.long(), TARGET, TypeError, "logits must be floating, got dtype torch.int64"),
        (torch.tensor(1.0), torch.tensor(0), ValueError, r"\(N, C, d1, ...\), got \(\)"),
        (LOGITS[0], TARGET[:2], ValueError, r"shape \(\) for logits of shape \(5,\), got \(2,\)"),
        (LOGITS, TARGET.clone().fill_(5), IndexError, r"from 0 to 4 or ignore_index .*, got 5"),
        (LOGITS, TARGET.clone().fill_(-1), IndexError, r"ignore_index \(-100\), got -1"),
    ],
)
@pytest.mark.parametrize("weighter", [None, sw.OHEM(10)])
def test_bad_inputs_that_torch_refuses_too(
    logits: Tensor, target: Tensor, error: type, message: str, weighter: sw.Weighter | None
) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError, NotImplementedError)):
        nn.CrossEntropyLoss()(logits, target)
    for criterion in (sw.CrossEntropyLoss(weighter=weighter), sw.FocalLoss(weighter=weighter)):
        with pytest.raises(error, match=message):
            criterion(logits, target)


def test_one_sample_may_have_a_target_of_one_element_as_in_newer_torch() -> None:
    expected = nn.CrossEntropyLoss()(LOGITS[0], TARGET[0])
    for weighter in (None, sw.OHEM(10)):
        value = sw.CrossEntropyLoss(weighter=weighter)(LOGITS[0], TARGET[:1])
        assert value.equal(expected)


def test_other_bad_arguments() -> None:
    for kwargs, message in [
        ({"label_smoothing": 1.5}, r"label_smoothing must be in \[0, 1\], got 1.5"),
        ({"reduction": "avg"}, "reduction must be one of .*, got 'avg'"),
        ({"size_average": True}, r"size_average must be None \(deprecated by torch\), got True"),
        ({"reduce": False}, "reduce must be None"),
        ({"weight": torch.ones(2, 2)}, r"weight must have shape \(C,\), got \(2, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            sw.CrossEntropyLoss(**kwargs)
    for weighter in (None, sw.OHEM(10)):
        for wrong in (1, 4, 6):
            for cls in (sw.CrossEntropyLoss, sw.FocalLoss):
                with pytest.raises(
                    ValueError, match=rf"weight must have shape \(5,\).*\({wrong},\)"
                ):
                    cls(weight=torch.ones(wrong), weighter=weighter)(LOGITS, TARGET)
        with pytest.raises(IndexError, match="from 0 to 4.* got 9"):
            sw.CrossEntropyLoss(torch.ones(5), weighter=weighter)(LOGITS, TARGET.clone().fill_(9))
        ignoring = sw.CrossEntropyLoss(ignore_index=2, weighter=weighter)
        with pytest.raises(ValueError, match="ignore_index must be negative .* got 2"):
            ignoring(LOGITS, LOGITS.softmax(1))
        with pytest.raises(ValueError, match=r"sample_weight .* shape \(4,\), got \(3,\)"):
            sw.CrossEntropyLoss(weighter=weighter)(LOGITS, TARGET, sample_weight=torch.ones(3))
        with pytest.raises(ValueError, match="normalizer must be positive"):
            sw.CrossEntropyLoss(weighter=weighter)(LOGITS, TARGET, normalizer=0)


def test_repr_rebuilds_the_call() -> None:
    text = "CrossEntropyLoss(ignore_index=255, reduction='sum', label_smoothing=0.1)"
    assert repr(eval(text, vars(sw))) == text
    assert repr(sw.CrossEntropyLoss()) == "CrossEntropyLoss()"


def test_class_156_of_a_uint8_target_is_not_minus_100() -> None:
    logits = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([156, 3, 156], dtype=torch.uint8)
    expected = nn.CrossEntropyLoss(reduction="none")(logits, target)
    for criterion in (
        sw.CrossEntropyLoss(reduction="none"),
        sw.CrossEntropyLoss(reduction="none", weighter=sw.ClassBalanced([1] * 200)),
        sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none"), reduction="none"),
        sw.FocalLoss(0.0, weight=torch.ones(200), reduction="none"),
    ):
        torch.testing.assert_close(criterion(logits, target), expected)


def test_output_dtypes_are_torchs() -> None:
    logits, target = batch((6,), torch.bfloat16)
    soft = torch.rand(6, C).softmax(1)
    for kwargs in ({}, {"label_smoothing": 0.1}):
        for each in (target, soft, soft.double()):
            for autocast in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    expected = nn.CrossEntropyLoss(**kwargs)(logits, each).dtype
                    assert sw.CrossEntropyLoss(**kwargs)(logits, each).dtype == expected
                    assert sw.FocalLoss(**kwargs)(logits, each).dtype == expected
                    hard = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5), **kwargs)
                    assert hard(logits, each).dtype == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_weights_keep_the_dtype_of_the_logits_under_autocast(dtype: torch.dtype) -> None:
    logits, target = batch((6,), dtype)
    criterion = sw.CrossEntropyLoss(weighter=sw.ClassBalanced(range(1, C + 1)))
    expected = criterion(logits, target)
    for half in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", half):
            value = criterion(logits, target)
        assert value.dtype == dtype
        assert torch.equal(value, expected)


def test_weights_are_not_rounded_to_half_precision() -> None:
    logits, target = torch.zeros(2, 2, dtype=torch.float16), torch.tensor([0, 1])
    rare = sw.CrossEntropyLoss(weighter=sw.ClassBalanced([10**9, 1], normalize=None))
    value = rare(logits[:1], target[:1])  # a weight of 1 beside one of 1e9, which is inf in float16
    assert value.item() == pytest.approx(math.log(2), rel=1e-3)
    tiny = sw.EffectiveNumber([10**9, 10], normalize=None)
    assert sw.CrossEntropyLoss(weighter=tiny)(logits, target).isfinite()
    large = sw.CrossEntropyLoss()(logits, target, sample_weight=torch.tensor([1e5, 0]))
    assert large.item() == pytest.approx(5e4 * math.log(2), rel=1e-3)


def test_a_changing_normalizer_compiles() -> None:
    torch._dynamo.reset()
    logits, target = batch((6,), torch.float32)
    for criterion in (sw.CrossEntropyLoss(), sw.FocalLoss(weighter=sw.OHEM(schedule=0.5))):
        compiled = torch.compile(criterion, fullgraph=True, backend="eager")
        for normalizer in (4, 5, 6, 7.5, 8.5, torch.tensor(9)):
            value = compiled(logits, target, normalizer=normalizer)
            torch.testing.assert_close(value, criterion(logits, target, normalizer=normalizer))


@pytest.mark.parametrize("normalizer", [0, -2.0, float("nan"), float("inf"), 1j, True])
@pytest.mark.parametrize("weighter", [None, sw.ClassBalanced([5, 4, 3, 2, 1])])
def test_a_normalizer_that_cannot_be_one(normalizer: Any, weighter: Any) -> None:
    logits, target = batch((6,), torch.float32)
    with pytest.raises(ValueError, match="normalizer must be"):
        sw.CrossEntropyLoss(weighter=weighter)(logits, target, normalizer=torch.tensor(normalizer))


def test_what_is_no_tensor_is_told() -> None:
    for args, kwargs, message in [
        ((LOGITS, TARGET.tolist()), {}, "target must be a tensor, got list"),
        ((LOGITS.numpy(), TARGET), {}, "logits must be a tensor, got ndarray"),
        ((LOGITS, TARGET), {"sample_weight": [1.0] * 4}, "sample_weight must be a tensor, got li"),
    ]:
        with pytest.raises(TypeError, match=message):
            sw.CrossEntropyLoss()(*args, **kwargs)
    with pytest.raises(TypeError, match="weight must be a tensor, got list"):
        sw.CrossEntropyLoss([1.0, 2.0])
    with pytest.raises(TypeError, match="label_smoothing must be a number, got 'a'"):
        sw.CrossEntropyLoss(label_smoothing="a")
