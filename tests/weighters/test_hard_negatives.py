"""Hard negative mining: which positions of which sample are kept, against plain Python and SSD."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import pytest
import reference
import torch
from contracts import compiled
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    keeps_or_drops,
    order_does_not_matter,
    rises_with_the_loss,
    scale_of_the_loss_does_not_matter,
)
from torch import Tensor

import sampleweights as sw
from sampleweights.losses import base

CLAIMS = {
    "HardNegativeMining(batch)": {
        order_does_not_matter,
        scale_of_the_loss_does_not_matter,
        rises_with_the_loss,
        keeps_or_drops,
    }
}

values = st.floats(allow_nan=True, width=32) | st.sampled_from([0.0, -0.0, 1.0, math.inf, math.nan])


@given(
    st.data(),
    st.integers(0, 4),
    st.integers(0, 9),
    st.sampled_from([0.25, 1.0, 3, 2.5]) | st.floats(1e-3, 20),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from(["sample", "batch"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_the_oracle(
    data: st.DataObject,
    rows: int,
    size: int,
    ratio: float,
    least: int,
    background: int,
    within: Any,
    dtype: torch.dtype,
) -> None:
    def drawn(kind: Any) -> list[list[Any]]:
        row = st.lists(kind, min_size=size, max_size=size)
        table: list[list[Any]] = data.draw(st.lists(row, min_size=rows, max_size=rows))
        return table

    loss, target, valid = drawn(values), drawn(st.integers(0, 2)), drawn(st.booleans())
    weighter = sw.HardNegativeMining(
        ratio, background=background, min_negatives=least, within=within
    )
    weight = weighter(
        torch.tensor(loss, dtype=dtype).reshape(rows, size),
        torch.tensor(target, dtype=torch.int64).reshape(rows, size),
        torch.tensor(valid, dtype=torch.bool).reshape(rows, size),
    )
    if within == "batch":
        loss, target, valid = ([list(chain(*table))] for table in (loss, target, valid))
    options = {"background": background, "least": least}
    expected = [
        reference.hard_negatives(losses, classes, ratio, valid=flags, **options)
        for losses, classes, flags in zip(loss, target, valid, strict=True)
    ]
    assert weight.flatten().bool().tolist() == list(chain(*expected))


@given(st.integers(1, 5), st.integers(2, 30), st.integers(1, 4))
def test_each_image_keeps_its_positives_and_a_ratio_of_negatives(
    images: int, size: int, ratio: int
) -> None:
    """And what one image keeps does not depend on the others."""
    generator = torch.Generator().manual_seed(size)
    loss = torch.rand(images, size, generator=generator)
    target = torch.randint(-3, 3, (images, size), generator=generator).clamp(min=0)
    weighter = sw.HardNegativeMining(ratio)
    weight = weighter(loss, target)
    is_positive = target > 0
    assert weight[is_positive].all()
    positives = is_positive.sum(1)
    negatives = (weight.bool() & ~is_positive).sum(1)
    assert negatives.equal(torch.minimum(ratio * positives, size - positives))
    for image in range(images):
        kept = weight[image].bool() & ~is_positive[image]
        left = ~weight[image].bool()
        if kept.any() and left.any():
            assert loss[image][kept].min() >= loss[image][left].max()
        alone = weighter(loss[image : image + 1], target[image : image + 1])
        assert alone.equal(weight[image : image + 1])


def test_of_a_sample_without_positives() -> None:
    loss = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.9, 0.4, 0.3, 0.2]])
    target = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]])
    for least, expected in ((0, 0), (1, 1), (3, 3), (9, 4)):
        weight = sw.HardNegativeMining(2, min_negatives=least)(loss, target)
        assert weight[0].sum() == expected
        assert weight[1].tolist() == [1, 1, 1, float(least >= 3)]


def test_ignored_positions_are_neither_kept_nor_counted() -> None:
    criterion = sw.CrossEntropyLoss(
        ignore_index=255, reduction="none", weighter=sw.HardNegativeMining(1)
    )
    logits = torch.zeros(1, 3, 6)
    logits[0, 0] = torch.tensor([0.0, 0.0, 0.0, 1.0, -9.0, -8.0])
    target = torch.tensor([[1, 255, 0, 0, 255, 0]])  # the hardest negative is ignored
    assert (criterion(logits, target) != 0).tolist() == [[True, False, False, False, False, True]]


def test_nan_is_never_hidden() -> None:
    loss = torch.tensor([[math.nan, 0.5, 0.7, 0.1], [math.nan, 0.5, 0.7, 0.1]])
    target = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0]])
    for dtype in (torch.float16, torch.float32, torch.float64):
        weight = sw.HardNegativeMining(1)(loss.to(dtype), target)
        assert weight.tolist() == [[1, 0, 0, 0], [1, 0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.float16])
def test_many_labels(dtype: torch.dtype) -> None:
    """(N, L) labels of 0 and 1: of each sample its positive labels and the hardest negative."""
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.5], [0.0, 3.0, -1.0, -2.0]])
    target = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]]).to(dtype)
    weighter = sw.HardNegativeMining(1)
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert weighter(torch.nn.functional.softplus(logits), target).equal(expected)
    if dtype != torch.bool:
        each = sw.BinaryFocalLoss(gamma=0, alpha=None, reduction="none", weighter=weighter)
        assert (each(logits, target) != 0).equal(expected != 0)


def ssd(losses: Tensor, target: Tensor, ratio: int) -> Tensor:
    """The loss of SSD, by a sort of each image, and divided by the number of positives."""
    total = losses.new_zeros(())
    for of_image, classes in zip(losses, target, strict=True):
        positive = classes > 0
        negatives = of_image[~positive].sort(descending=True).values
        total = total + of_image[positive].sum() + negatives[: ratio * int(positive.sum())].sum()
    return total / max(1, int((target > 0).sum()))


@pytest.mark.parametrize("ratio", [1, 3, 100])
def test_the_loss_of_ssd(ratio: int) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(-60, 5, (4, 300), generator=generator).clamp(min=0)
    target[2] = 0
    logits = torch.randn(4, 5, 300, generator=generator, dtype=torch.float64, requires_grad=True)
    criterion = sw.CrossEntropyLoss(weighter=sw.HardNegativeMining(ratio))
    ours = criterion(logits, target, normalizer=(target > 0).sum().clamp(min=1))
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    theirs = ssd(losses, target, ratio)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True) for value in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_the_loss_of_torchvision() -> None:
    detection = pytest.importorskip("torchvision.models.detection.ssd")
    boxes = pytest.importorskip("torchvision.models.detection.anchor_utils").DefaultBoxGenerator
    part = torch.nn.Identity()
    model = detection.SSD(part, boxes([[2]]), (300, 300), num_classes=5, head=part)
    assert model.neg_to_pos_ratio == 3
    generator = torch.Generator().manual_seed(0)
    matched = torch.randint(-60, 4, (3, 200), generator=generator).clamp(min=-1)
    matched[1] = -1  # an image without an object
    labels = torch.tensor([1, 2, 3, 4])
    corners = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    logits = torch.randn(3, 200, 5, generator=generator)
    theirs = model.compute_loss(
        [{"labels": labels, "boxes": corners.expand(4, 4)}] * 3,
        {"cls_logits": logits, "bbox_regression": torch.zeros(3, 200, 4)},
        [corners.expand(200, 4)] * 3,
        matched,
    )["classification"]
    target = torch.where(matched < 0, 0, labels[matched])
    criterion = sw.CrossEntropyLoss(weighter=sw.HardNegativeMining(ratio=3))
    ours = criterion(logits.mT, target, normalizer=(target != 0).sum())
    torch.testing.assert_close(ours, theirs)


def test_in_a_list_it_ranks_the_weighted_losses() -> None:
    loss = torch.tensor([[1.0, 1.0, 0.9, 0.8]])
    target = torch.tensor([[1, 0, 0, 0]])
    sample = sw.HardNegativeMining(2)
    assert sw.Compose([sw.ClassBalanced([3, 1]), sample])(loss, target).tolist() == [
        pytest.approx([2, 2 / 3, 2 / 3, 0])
    ]
    # what the first has dropped is neither kept nor counted by the second
    both = sw.Compose([sw.OHEM(schedule=0.5, within="sample"), sample])
    assert both(loss, target).tolist() == [[1, 1, 0, 0]]


def test_one_program_serves_every_size() -> None:
    criterion = sw.CrossEntropyLoss(weighter=sw.HardNegativeMining(2))
    program, graphs = compiled(criterion, dynamic=True)
    for images, size in ((3, 20), (4, 30), (5, 7)):
        logits, target = torch.randn(images, 4, size), torch.randint(4, (images, size))
        torch.testing.assert_close(program(logits, target), criterion(logits, target))
    assert len(graphs) == 1


def test_processes_do_not_gather_what_each_sample_decides(monkeypatch: Any) -> None:
    """So that the positions of a sample are there, and nothing crosses the wire."""

    def gathers(*arguments: Any) -> None:
        raise AssertionError("gathered")

    monkeypatch.setattr(base, "world_size", lambda group: 2)
    monkeypatch.setattr(base, "_weigh_globally", gathers)
    logits, target = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    local = [sw.ClassBalanced([2, 2, 2]), sw.Deferred(sw.HardNegativeMining(), 3)]
    for weighter in (local, sw.OHEM(schedule=0.5, within="sample")):
        criterion = sw.CrossEntropyLoss(weighter=weighter, global_batch=True)
        expected = sw.CrossEntropyLoss(weighter=weighter)._weigh(criterion.samples(logits, target))
        assert criterion._weigh(criterion.samples(logits, target)).equal(expected)
    for weighter in ([*local, sw.OHEM(5)], sw.HardNegativeMining(within="batch")):
        criterion = sw.CrossEntropyLoss(weighter=weighter, global_batch=True)
        with pytest.raises(AssertionError, match="gathered"):
            criterion._weigh(criterion.samples(logits, target))


def test_repr() -> None:
    assert repr(sw.HardNegativeMining()) == "HardNegativeMining(ratio=3, background=0)"
    weighter = sw.HardNegativeMining(0.5, background=9, min_negatives=4, within="batch")
    assert repr(eval(repr(weighter), vars(sw))) == repr(weighter)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ratio": 0}, ValueError, "ratio must be positive and finite, got 0"),
        ({"ratio": math.nan}, ValueError, "ratio must be positive and finite, got nan"),
        ({"ratio": "3:1"}, TypeError, "ratio must be a number, got '3:1'"),
        ({"background": -100}, ValueError, "background must be at least 0, got -100"),
        ({"min_negatives": 0.5}, TypeError, "min_negatives must be a whole number, got 0.5"),
        ({"within": "image"}, ValueError, r"within must be one of \['batch', 'sample'\], got 'im"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sw.HardNegativeMining(**arguments)


def test_bad_calls() -> None:
    weighter, loss = sw.HardNegativeMining(), torch.rand(2, 3)
    for target, came in ((None, "None"), (torch.rand(2, 5, 3), r"shape \(2, 5, 3\)")):
        with pytest.raises(ValueError, match=rf"for each loss, shape \(2, 3\), .* got {came}"):
            weighter(loss, target)
    for flat in (weighter, sw.OHEM(5, within="sample")):
        with pytest.raises(ValueError, match=r"shape \(N, \.\.\.\), .* got \(3,\): .*'batch'"):
            flat(loss[0], torch.tensor([0, 1, 0]))
    with pytest.raises(TypeError, match=r"loss must be floating, got dtype torch\.int64"):
        weighter(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3))
