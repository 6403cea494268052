"""Weighters see the loss minus that of a reference model; the value is that of the loss alone."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from contracts import LOSSES, PAIRS, WEIGHTERS, WITHIN_SAMPLE
from torch import Tensor, nn

import sampleweights as sw

Batch = tuple[Any, Any, Tensor, Tensor, Tensor, Tensor]


def build(loss: str, weighter: str | None, **kwargs: Any) -> Batch:
    """A criterion, its batch, the losses without weights, those of a reference, what is valid."""
    entry = LOSSES[loss]
    logits, target = entry.batch()
    losses = entry.build(reduction="none")(logits, target)
    generator = torch.Generator().manual_seed(5)
    other = 2 * losses.mean() * torch.rand(losses.shape, generator=generator)
    criterion = entry.build(
        weighter=None if weighter is None else entry.weighter(weighter), **kwargs
    )
    return criterion, logits, target, losses, other, target != -100


@pytest.mark.parametrize(("loss", "weighter"), PAIRS)
class TestPair:
    def test_weights_are_those_of_the_difference(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target, losses, other, valid = build(loss, weighter, reduction="none")
        other[~valid] = torch.nan
        value = criterion(logits, target, reference_loss=other)
        expected = losses
        if weighter is not None:
            difference = torch.where(valid, losses - other, 0)
            expected = losses * criterion.weighter(difference, target, valid)
        torch.testing.assert_close(value, expected)

    def test_zeros_change_nothing(self, loss: str, weighter: str | None) -> None:
        for reduction in ("mean", "weighted_mean", "sum", "none"):
            criterion, logits, target, losses, _, _ = build(loss, weighter, reduction=reduction)
            for epoch in (0, 3):
                criterion.set_epoch(epoch)
                results = []
                for zeros in (None, torch.zeros_like(losses)):
                    leaf = logits.clone().requires_grad_()
                    value = criterion(leaf, target, reference_loss=zeros)
                    value.sum().backward()
                    results.append((value, leaf.grad))
                torch.testing.assert_close(results[0], results[1])
                if weighter is not None and "OHEM" in weighter:  # to the last bit
                    assert results[0][0].equal(results[1][0])
                    assert results[0][1].equal(results[1][1])

    def test_no_gradient_flows_to_it(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target, _, other, _ = build(loss, weighter)
        other.requires_grad_()
        logits.requires_grad_()
        criterion(logits, target, reference_loss=other).backward()
        assert other.grad is None

    def test_its_shape_and_dtype_are_checked(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target, losses, other, _ = build(loss, weighter)
        expected = str(tuple(losses.shape)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=rf"reference_loss must have .* shape {expected}, got"):
            criterion(logits, target, reference_loss=other[:1])
        with pytest.raises(TypeError, match="reference_loss must be floating, got dtype"):
            criterion(logits, target, reference_loss=other.long())
        with pytest.raises(TypeError, match="reference_loss must be a tensor, got list"):
            criterion(logits, target, reference_loss=other.tolist())


@pytest.mark.parametrize("largest", [True, False])
def test_ranks_by_the_difference_as_the_oracle_does(largest: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(200, 5, generator=generator), torch.arange(200) % 5
    target[::7] = -100
    other = 3 * torch.rand(200, generator=generator)
    losses = sw.CrossEntropyLoss(reduction="none")(logits, target)
    difference = (losses - other).tolist()
    assert min(difference) < 0 < max(difference)
    for per_class in (False, True):
        weighter = (sw.OHEM if largest else sw.SelfPaced)(schedule=0.3, per_class=per_class)
        criterion = sw.CrossEntropyLoss(weighter=weighter, reduction="none")
        kept = reference.selected(
            difference,
            0.3,
            largest=largest,
            valid=(target != -100).tolist(),
            group=target.tolist() if per_class else None,
        )
        value = criterion(logits, target, reference_loss=other)
        assert value.equal(losses * torch.tensor(kept))


def test_class_weights_before_a_curriculum_multiply_the_difference() -> None:
    """Also one below 0, which a rare class then makes smaller still."""
    losses, other = torch.tensor([1.0, 1.2, 2.0, 0.5]), torch.tensor([1.5, 1.3, 1.0, 0.4])
    target = torch.tensor([1, 0, 0, 1])
    seen = []

    class Seen(sw.Weighter):
        def forward(self, loss: Tensor, target: Any = None, valid: Any = None) -> Tensor:
            seen.append(loss)
            return torch.ones_like(loss)

    criterion = sw.WeightedLoss(
        lambda logits, target: logits, weighter=[sw.ClassBalanced([3, 1], normalize=None), Seen()]
    )
    criterion(losses, target, reference_loss=other)
    torch.testing.assert_close(seen[0], torch.tensor([4.0, 4 / 3, 4 / 3, 4.0]) * (losses - other))
    hard = sw.WeightedLoss(
        lambda logits, target: logits,
        weighter=[sw.ClassBalanced([3, 1], normalize=None), sw.OHEM(schedule=0.75)],
        reduction="none",
    )
    weighted = hard(losses, target, reference_loss=other)
    torch.testing.assert_close(weighted, torch.tensor([0.0, 1.6, 8 / 3, 2.0]))


def test_class_frequency_alone_does_not_see_it() -> None:
    criterion, logits, target, _, other, _ = build("CrossEntropyLoss", "ClassBalanced")
    torch.testing.assert_close(
        criterion(logits, target, reference_loss=other), criterion(logits, target)
    )


def test_probabilities_compare_the_weighted_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=generator)
    target = torch.rand(20, 3, generator=generator).softmax(1)
    weighters = [sw.ClassBalanced([9, 5, 1]), sw.OHEM(schedule=0.25)]
    weighted = sw.CrossEntropyLoss(weighter=weighters[0], reduction="none")(logits, target)
    other = 2 * torch.rand(20, generator=generator)
    criterion = sw.CrossEntropyLoss(weighter=weighters, reduction="none")
    kept = sw.selection.select(weighted - other, 0.25, largest=True)
    torch.testing.assert_close(criterion(logits, target, reference_loss=other), weighted * kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_subtracted_in_float32(dtype: torch.dtype) -> None:
    """In half precision these differences would all be 0."""
    losses = torch.full((4,), 8.0, dtype=dtype)
    other = 8 - torch.tensor([1e-4, 3e-4, 2e-4, 0.0])
    criterion = sw.WeightedLoss(
        lambda logits, target: logits, weighter=sw.OHEM(schedule=0.25), reduction="none"
    )
    value = criterion(losses, torch.zeros(4), reference_loss=other)
    assert value.dtype == dtype
    assert value.tolist() == [0, 8, 0, 0]


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss", "HierarchicalLoss"])
def test_selective_backpropagation(name: str) -> None:
    criterion, logits, target, _, other, _ = build(name, "OHEM(0.25)")
    torch.manual_seed(0)
    inputs = torch.randn(len(logits), 4)
    model = nn.Sequential(nn.Linear(4, logits[0].numel()), nn.Unflatten(1, logits.shape[1:]))
    results = []
    for extra in ({}, {"reference_loss": other}):
        expected = criterion(model(inputs), target, **extra)
        value = sw.selective_loss(model, criterion, inputs, target, **extra)
        torch.testing.assert_close(value, expected)
        parameters = list(model.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters)
        )
        results.append(value)
    assert results[0] != results[1]
    criterion.weighter = sw.OHEM(schedule=1.0)
    value = sw.selective_loss(model, criterion, inputs, target, reference_loss=other)
    torch.testing.assert_close(value, criterion(model(inputs), target))


def test_hooks_see_the_loss_alone() -> None:
    criterion, logits, target, losses, other, _ = build("FocalLoss", "OHEM(0.25)")
    seen = []
    with criterion.register_weighting_hook(lambda c, samples, weight: seen.append(samples.loss)):
        criterion(logits, target, reference_loss=other)
    torch.testing.assert_close(seen[0], losses)


def test_compiles_whole() -> None:
    for name in ("OHEM(0.25)", "Compose"):
        criterion, logits, target, _, other, _ = build("CrossEntropyLoss", name)
        torch._dynamo.reset()
        compiled = torch.compile(criterion, fullgraph=True, backend="eager")
        torch.testing.assert_close(
            compiled(logits, target, reference_loss=other),
            criterion(logits, target, reference_loss=other),
        )


def test_every_weighter_is_there() -> None:
    assert {weighter for _, weighter in PAIRS} == {None, *WEIGHTERS, *WITHIN_SAMPLE}
