"""Targets that are absent, and shapes that broadcast, on purpose or by accident."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw

NAN = math.nan


def roots(logits: Tensor, target: Tensor) -> Tensor:
    return (logits - target).abs().sqrt()


CRITERIA = {
    "mse": lambda **kw: sw.WeightedLoss(nn.MSELoss(reduction="none"), **kw),
    "bce": lambda **kw: sw.WeightedLoss(nn.BCEWithLogitsLoss(reduction="none"), **kw),
    "roots": lambda **kw: sw.WeightedLoss(roots, **kw),
    "focal": lambda **kw: sw.BinaryFocalLoss(**kw),
}


@pytest.mark.parametrize("weighter", [None, sw.OHEM(schedule=0.5)])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
@pytest.mark.parametrize("name", CRITERIA)
def test_a_missing_label_of_weight_zero_adds_nothing(
    name: str, reduction: str, weighter: Any
) -> None:
    logits = torch.tensor([0.5, 0.25, -1.0], requires_grad=True)
    weight = torch.tensor([1.0, 0.0, 2.0])
    criterion = CRITERIA[name](reduction=reduction, weighter=weighter)
    value = criterion(logits, torch.tensor([1.0, NAN, 0.0]), sample_weight=weight)
    [gradient] = torch.autograd.grad(value.sum(), logits)
    assert gradient[1] == 0
    assert gradient.isfinite().all()
    filled = criterion(logits, torch.tensor([1.0, 0.0, 0.0]), sample_weight=weight)
    assert value.equal(filled)


@pytest.mark.parametrize("weighter", [None, sw.OHEM(schedule=0.5), sw.SelfPaced(schedule=0.5)])
@pytest.mark.parametrize("name", CRITERIA)
def test_nan_as_ignore_index(name: str, weighter: Any) -> None:
    logits = torch.tensor([0.5, 0.25, -1.0, 2.0], requires_grad=True)
    target = torch.tensor([1.0, NAN, 0.0, 0.0])
    criterion = CRITERIA[name](ignore_index=NAN, weighter=weighter)
    value = criterion(logits, target)
    [gradient] = torch.autograd.grad(value, logits)
    assert gradient[1] == 0
    keep = [0, 2, 3]
    torch.testing.assert_close(value, CRITERIA[name](weighter=weighter)(logits[keep], target[keep]))


def test_a_nan_that_counts_is_not_hidden() -> None:
    for name, build in CRITERIA.items():
        value = build()(torch.zeros(2), torch.tensor([1.0, NAN]))
        assert value.isnan(), name


def test_missing_rows_of_probabilities() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    target = torch.randn(3, 4).softmax(1)
    target[1] = NAN
    for loss in (sw.CrossEntropyLoss(), sw.FocalLoss(), sw.CrossEntropyLoss(reduction="none")):
        value = loss(logits, target, sample_weight=torch.tensor([1.0, 0.0, 1.0]))
        [gradient] = torch.autograd.grad(value.sum(), logits)
        assert gradient.isfinite().all()
        assert (gradient[1] == 0).all()


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (3, 4), (3, 1, 5), (3, 4, 5)])
@pytest.mark.parametrize("loss", [sw.CrossEntropyLoss, sw.FocalLoss])
def test_one_weight_for_each_image_of_a_dense_loss(loss: Any, shape: tuple[int, ...]) -> None:
    logits, target = torch.randn(3, 2, 4, 5), torch.randint(2, (3, 4, 5))
    weight = torch.rand(shape)
    full = weight.reshape(*shape, *[1] * (3 - len(shape))).expand(3, 4, 5).clone()
    for reduction in ("mean", "weighted_mean", "sum", "none"):
        criterion = loss(reduction=reduction, weighter=sw.OHEM(schedule=0.5))
        value = criterion(logits, target, sample_weight=weight)
        torch.testing.assert_close(value, criterion(logits, target, sample_weight=full))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 5), (1, 4, 5), (3, 4, 5, 1), (4, 5)])
def test_weights_that_do_not_fit(shape: tuple[int, ...]) -> None:
    logits, target = torch.randn(3, 2, 4, 5), torch.randint(2, (3, 4, 5))
    with pytest.raises(ValueError, match=r"sample_weight must have .* shape \(3, 4, 5\), got \("):
        sw.CrossEntropyLoss()(logits, target, sample_weight=torch.ones(shape))


@pytest.mark.parametrize(
    ("logits", "target"), [((8, 1), (8,)), ((8,), (8, 1)), ((4, 1, 3), (4, 3)), ((8, 1), (1, 8))]
)
def test_losses_that_were_broadcast_are_told(
    logits: tuple[int, ...], target: tuple[int, ...]
) -> None:
    criterion = sw.WeightedLoss(lambda p, t: (p - t) ** 2)
    with pytest.raises(ValueError, match="criterion must return one value per sample") as error:
        criterion(torch.randn(logits), torch.randn(target))
    assert str(logits) in str(error.value)
    assert str(target) in str(error.value)


def test_alpha_for_each_label() -> None:
    torch.manual_seed(0)
    alpha = [0.25, 0.9, 0.5]
    for shape in ((6, 3), (6, 3, 4)):
        logits, target = torch.randn(shape), torch.randint(2, shape)
        value = sw.BinaryFocalLoss(alpha=torch.tensor(alpha), reduction="none")(logits, target)
        for c, a in enumerate(alpha):
            alone = sw.BinaryFocalLoss(alpha=a, reduction="none")(logits[:, c], target[:, c])
            torch.testing.assert_close(value[:, c], alone)
    assert "alpha=<3 labels>" in repr(sw.BinaryFocalLoss(alpha=alpha))
    with pytest.raises(ValueError, match=r"alpha must be a number, .* \(6, 2\), got \(3,\)"):
        sw.BinaryFocalLoss(alpha=alpha)(torch.randn(6, 2), torch.zeros(6, 2))
    for bad in ([0.5, 1.5], [[0.5]], [0.5, NAN], []):
        with pytest.raises(ValueError, match="alpha must"):
            sw.BinaryFocalLoss(alpha=bad)  # type: ignore[arg-type]


def test_binary_focal_loss_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = sw.BinaryFocalLoss()(torch.randn(4, 3).bfloat16(), torch.ones(4, 3))
    assert value.dtype == torch.float32


def test_counts_of_labels_are_told_apart_from_counts_of_classes() -> None:
    criterion = sw.BinaryFocalLoss(weighter=sw.ClassBalanced([5, 3, 8]))
    with pytest.raises(ValueError, match="counts of negatives and positives"):
        criterion(torch.randn(4, 3), torch.ones(4, 3))


def test_a_level_criterion_is_not_changed_by_the_hierarchy() -> None:
    level = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    sw.HierarchicalLoss(level, global_batch=True)
    assert not level.global_batch


class Uncopyable:
    """As torch's ProcessGroup: no copies, no pickles."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("cannot pickle a group")


def test_a_process_group_is_shared_by_copies() -> None:
    group: Any = Uncopyable()
    criterion = sw.CrossEntropyLoss(global_batch=True, process_group=group)
    assert copy.deepcopy(criterion).process_group is group
    assert pickle.loads(pickle.dumps(criterion)).process_group is None


@pytest.mark.parametrize("name", CRITERIA)
def test_a_missing_label_whose_weight_is_one_is_not_filled(name: str) -> None:
    """The weight of (sample, label), where as many labels as positions look like classes."""
    logits = torch.randn(2, 3, 3)
    target = torch.randint(2, (2, 3, 3)).float()
    target[0, 1] = NAN
    weight = torch.ones(2, 3)
    weight[0, 1] = 0
    criterion = CRITERIA[name](reduction="none")
    losses = criterion(logits, target, sample_weight=weight)
    assert losses[0, 1].eq(0).all()
    assert losses.isfinite().all()
    target[1, 2, 0] = NAN  # counts
    weight[1, 0] = 0
    assert criterion(logits, target, sample_weight=weight)[1, 2, 0].isnan()


def test_missing_probabilities_of_as_many_classes_as_positions() -> None:
    logits, target = torch.randn(2, 3, 3, requires_grad=True), torch.randn(2, 3, 3).softmax(1)
    target[0, :, 1] = NAN
    weight = torch.ones(2, 3)
    weight[0, 1] = 0
    for loss in (
        sw.CrossEntropyLoss(),
        sw.FocalLoss(),
        sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none")),
        sw.WeightedLoss(sw.FocalLoss(reduction="none")),
    ):
        [gradient] = torch.autograd.grad(loss(logits, target, sample_weight=weight), logits)
        assert gradient.isfinite().all()
        assert gradient[0, :, 1].eq(0).all()
        assert loss(logits, target, sample_weight=weight.roll(1, 1)).isnan()
    by_function = sw.WeightedLoss(lambda z, t: nn.functional.cross_entropy(z, t, reduction="none"))
    dense = torch.randn(2, 4, 3).softmax(1)
    dense[0, :, 1] = NAN  # no function tells, and only one reading fits
    assert by_function(torch.randn(2, 4, 3), dense, sample_weight=weight).isfinite()


def test_a_sample_weight_of_another_shape_is_named() -> None:
    target = torch.rand(2, 3, 4)
    for loss in (sw.BinaryFocalLoss(), sw.CrossEntropyLoss()):
        with pytest.raises(ValueError, match=r"sample_weight must .*, got \(5,\)"):
            loss(torch.randn(2, 3, 4), target, sample_weight=torch.ones(5))
