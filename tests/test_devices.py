"""A criterion that was built on the CPU works with the batches of any device, as torch's own do.

The meta device stands for the others: it computes shapes and devices alone, and refuses to be mixed
with the CPU as they do. Where there is a GPU, the values are compared, too.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contracts import LOSSES, MARGINS, NUM_CLASSES, NUM_EPOCHS, PAIRS, WEIGHTERS, compiled

import sampleweights as sw

slow = pytest.mark.slow
DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]


def build(loss: str, weighter: str | None, **options: Any) -> Any:
    entry = LOSSES[loss]
    return entry.build(weighter=None if weighter is None else entry.weighter(weighter), **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("loss", "weighter"), PAIRS)
def test_a_criterion_follows_its_batch(loss: str, weighter: str | None, device: str) -> None:
    criterion = build(loss, weighter)
    criterion.set_epoch(2.5)
    logits, target = LOSSES[loss].batch()
    expected = criterion(logits, target)
    before = {name: buffer.clone() for name, buffer in criterion.named_buffers()}
    leaf = logits.to(device).requires_grad_()
    value = criterion(leaf, target.to(device))
    value.backward()
    assert value.device.type == leaf.grad.device.type == device
    if device != "meta":
        torch.testing.assert_close(value.cpu(), expected)
    for name, buffer in criterion.named_buffers():  # stays where it is
        assert buffer.equal(before[name])
    assert criterion(logits, target).equal(expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "weighter",
    [
        name if name in ("ClassBalanced", "Compose(Deferred)") else pytest.param(name, marks=slow)
        for name in WEIGHTERS
    ],
)
def test_in_one_graph(weighter: str, device: str) -> None:
    criterion = build("FocalLoss", weighter)
    run, graphs = compiled(criterion)
    logits, target = (tensor.to(device) for tensor in LOSSES["FocalLoss"].batch())
    for epoch in (0, 2.5, NUM_EPOCHS - 1):
        criterion.set_epoch(epoch)
        assert run(logits, target).device.type == device
    assert len(graphs) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_probabilities(device: str) -> None:
    logits, target = torch.randn(6, NUM_CLASSES), torch.rand(6, NUM_CLASSES).softmax(1)
    for name in (*WEIGHTERS, *MARGINS):
        part = {"weighter": WEIGHTERS[name]()} if name in WEIGHTERS else {"margin": MARGINS[name]()}
        if "per_class" in repr(part) or "LDAM" in name or "HardNegativeMining" in name:
            continue  # they need class indices
        criterion = sw.FocalLoss(weight=torch.ones(NUM_CLASSES), **part)
        criterion.set_epoch(5)
        assert criterion(logits.to(device), target.to(device)).device.type == device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", WEIGHTERS)
def test_a_weighter_alone(name: str, device: str) -> None:
    weighter, loss, target = WEIGHTERS[name](), torch.rand(8), torch.arange(8) % NUM_CLASSES
    weighter.set_epoch(5)
    weight = weighter(loss.to(device), target.to(device))
    assert weight.device.type == device
    assert weight.shape == loss.shape
    if device != "meta":
        torch.testing.assert_close(weight.cpu(), weighter(loss, target))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("counts", [[9, 1], [[9, 1], [3, 2]], [9, 0, 4]])
def test_decisions(counts: list[int], device: str) -> None:
    shapes = [(5,), (5, 1), (5, 2)] if counts == [9, 1] else [(5, len(counts))]
    for shape in shapes:
        logits = torch.randn(shape)
        for decide in (
            sw.LogitAdjustment(counts).posthoc,
            sw.ClassBalanced(counts).calibrate,
            sw.EffectiveNumber(counts).calibrate,
        ):
            value = decide(logits.to(device))
            assert value.device.type == device
            if device != "meta":
                torch.testing.assert_close(value.cpu(), decide(logits))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_the_cpu_after_the_criterion_was_moved() -> None:
    logits, target = torch.randn(6, NUM_CLASSES), torch.arange(6) % NUM_CLASSES
    for name in (*WEIGHTERS, *MARGINS):
        part = {"weighter": WEIGHTERS[name]()} if name in WEIGHTERS else {"margin": MARGINS[name]()}
        criterion = sw.FocalLoss(**part)
        expected = criterion(logits, target)
        torch.testing.assert_close(criterion.to("cuda")(logits, target), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_the_leaves_of_a_taxonomy(device: str) -> None:
    tree = sw.Taxonomy({"a": ["a0", "a1"], "b": ["b0"]})
    logits = torch.randn(4, tree.num_levels, tree.num_nodes)
    assert tree.leaf_log_probs(logits.to(device)).device.type == device
    assert tree.level_targets(torch.tensor([0, 2]).to(device)).device.type == device


def test_a_class_without_samples_is_still_an_error_elsewhere() -> None:
    criterion = sw.CrossEntropyLoss(weighter=sw.ClassBalanced([9, 0, 4]))
    assert criterion(torch.zeros(2, 3, device="meta"), torch.zeros(2, device="meta").long()).is_meta
    with pytest.raises(ValueError, match="got class 1, whose count is 0"):
        criterion(torch.zeros(2, 3), torch.tensor([1, 2]))


def test_what_is_kept_of_an_evaluation_serves_a_training() -> None:
    """Tensors made under inference_mode cannot be saved for a backward pass."""
    for criterion in (
        sw.CrossEntropyLoss(weighter=sw.ClassBalanced([3, 1])),
        sw.CrossEntropyLoss(margin=sw.LogitAdjustment([3, 1])),
        sw.BCEWithLogitsLoss(weighter=sw.ClassBalanced([3, 1])),
    ):
        is_binary = isinstance(criterion, sw.BCEWithLogitsLoss)
        logits = torch.randn((4,) if is_binary else (4, 2), requires_grad=True)
        target = torch.tensor([0, 1, 0, 1])
        with torch.inference_mode():
            expected = criterion(logits, target).item()
        value = criterion(logits, target)
        value.backward()
        assert value.item() == expected
        assert logits.grad is not None
