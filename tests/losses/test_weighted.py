from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sampleweights as sw


def test_any_per_sample_loss() -> None:
    logits, target = torch.randn(6, requires_grad=True), torch.rand(6)
    for loss in (
        nn.BCEWithLogitsLoss(reduction="none"),
        nn.HuberLoss(reduction="none"),
        lambda a, b: (a - b) ** 2,
    ):
        each = loss(logits, target)
        hardest = each.topk(2).values.sum() / 6
        criterion = sw.WeightedLoss(loss, weighter=sw.OHEM(schedule=1 / 3))
        torch.testing.assert_close(criterion(logits, target), hardest)


def test_around_torchs_cross_entropy_it_is_ours() -> None:
    logits, target = torch.randn(8, 5), torch.randint(5, (8,))
    target[2] = -100
    weighter = [sw.EffectiveNumber([9, 8, 7, 6, 5]), sw.OHEM(schedule=0.5, per_class=True)]
    wrapped = sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none"), weighter=weighter)
    ours = sw.CrossEntropyLoss(weighter=weighter)
    torch.testing.assert_close(wrapped(logits, target), ours(logits, target))


def test_ignore_index_comes_from_the_criterion_or_the_argument() -> None:
    own = sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none", ignore_index=255))
    assert own.ignore_index == 255
    squared = sw.WeightedLoss(lambda a, b: (a - b) ** 2, ignore_index=-1)
    value = squared(torch.tensor([1.0, 7.0, 3.0]), torch.tensor([0.0, -1.0, 0.0]))
    assert value == 5
    nothing = squared(torch.tensor([1.0], requires_grad=True), torch.tensor([-1.0]))
    assert nothing == 0
    nothing.backward()


class Inside(nn.Module):
    """A user's loss around torch's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss(reduction="none", **kwargs)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.cross_entropy(logits, target)


class InChannels(Inside):
    """As losses of segmentation return them: a channel of each position's loss, or several."""

    def __init__(self, channels: int) -> None:
        super().__init__(ignore_index=255)
        self.channels = channels

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = super().forward(logits, target.squeeze(1) if target.ndim > 3 else target)
        return loss[:, None].expand(-1, self.channels, -1, -1) / self.channels


class Flat(Inside):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().forward(logits, target).flatten()


def after(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    return functional.cross_entropy(logits, target, reduction="none", ignore_index=ignore_index)


@pytest.mark.parametrize("weighter", [None, sw.OHEM(schedule=0.5)])
@pytest.mark.parametrize(
    ("criterion", "ignored"),
    [
        (Inside(), -100),
        (Inside(ignore_index=255), 255),
        (Flat(ignore_index=255), 255),
        (InChannels(1), 255),
        (functools.partial(functional.cross_entropy, reduction="none"), -100),
        (functools.partial(functional.cross_entropy, reduction="none", ignore_index=255), 255),
        (after, 255),
        (functools.partial(after, ignore_index=7), 7),
    ],
)
def test_what_the_criterion_ignores_counts_nowhere(
    criterion: Callable[..., Tensor], ignored: int, weighter: Any
) -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[0, :3] = ignored
    each = functional.cross_entropy(logits, target, reduction="none", ignore_index=ignored)
    expected = each.sum() / 20
    if weighter is not None:
        expected = each.flatten().topk(10).values.sum() / 20
    ours = sw.WeightedLoss(criterion, weighter=weighter)
    torch.testing.assert_close(ours(logits, target), expected)


def test_channels_share_the_mark_of_their_position() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[0, :3] = 255
    each = functional.cross_entropy(logits, target, reduction="none", ignore_index=255)
    ours = sw.WeightedLoss(InChannels(3))
    for shape in ((2, 4, 4), (2, 1, 4, 4)):  # 3 channels of a third, of 20 positions
        torch.testing.assert_close(ours(logits, target.reshape(shape)), each.sum() / 60)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("package", "make", "channels"),
    [
        ("kornia.losses", lambda p: p.FocalLoss(0.5, reduction="none", ignore_index=255), 3),
        ("segmentation_models_pytorch", lambda p: soft_cross_entropy(p), 1),
    ],
)
def test_the_losses_of_other_packages(package: str, make: Any, channels: int) -> None:
    criterion = make(pytest.importorskip(package))
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[0, :3] = 255
    expected = criterion(logits, target).sum() / (20 * channels)
    torch.testing.assert_close(sw.WeightedLoss(criterion)(logits, target), expected)


def soft_cross_entropy(package: Any) -> Any:
    return package.losses.SoftCrossEntropyLoss(
        reduction="none", smooth_factor=0.0, ignore_index=255
    )


def test_losses_that_ignore_different_values_say_nothing() -> None:
    both = nn.Sequential(nn.NLLLoss(ignore_index=1), nn.NLLLoss(ignore_index=2))
    both.reduction = "none"
    assert sw.WeightedLoss(both).ignore_index is None


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="torch has it from 2.13 on")
@pytest.mark.parametrize("ignore_index", [None, -100, 7])
def test_around_torchs_linear_cross_entropy(ignore_index: int | None) -> None:
    """Its ``ignore_index`` is None and means -100."""
    head = nn.LinearCrossEntropyLoss(6, 3, reduction="none", ignore_index=ignore_index)
    hidden, target = torch.randn(10, 6), torch.tensor([0, 1, 2, 0, 1] * 2)
    ignored = -100 if ignore_index is None else ignore_index
    target[5:] = ignored
    each = functional.cross_entropy(head.linear(hidden)[:5], target[:5], reduction="none")
    counts = [1, 2, 3]
    balanced = each * torch.tensor([6 / 3 / n for n in counts])[target[:5]]
    for weighter, expected in (
        (None, each.sum() / 5),
        (sw.OHEM(schedule=0.4), each.topk(2).values.sum() / 5),
        (sw.ClassBalanced(counts), balanced.sum() / 5),
    ):
        for criterion in (head, nn.Sequential(head)):
            if criterion is not head:  # in a module of one's own
                criterion.forward = head.forward
            ours = sw.WeightedLoss(criterion, weighter=weighter)
            torch.testing.assert_close(ours(hidden, target), expected)


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="torch has it from 2.13 on")
def test_hidden_states_are_not_taken_for_logits() -> None:
    criterion = sw.WeightedLoss(nn.LinearCrossEntropyLoss(6, 3, reduction="none"))
    seen = []
    criterion.register_weighting_hook(lambda _, samples, weight: seen.append(samples.logits))
    criterion(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    assert seen == [None]


def test_modules_inside_are_submodules() -> None:
    inner = sw.CrossEntropyLoss(reduction="none", weighter=sw.OHEM(10))
    outer = sw.WeightedLoss(inner)
    outer.set_epoch(7)
    assert inner.weighter.inactive
    assert "criterion.weighter.epoch" in outer.state_dict()


def test_bad_criteria() -> None:
    for reduction in ("mean", "sum"):
        with pytest.raises(ValueError, match=f"reduction='none'.*HuberLoss.*{reduction}"):
            sw.WeightedLoss(nn.HuberLoss(reduction=reduction))
    with pytest.raises(ValueError, match="reduction='none'"):
        sw.WeightedLoss(sw.CrossEntropyLoss())
    with pytest.raises(TypeError, match="criterion must be a module or function .* got 'huber'"):
        sw.WeightedLoss("huber")
    with pytest.raises(ValueError, match=r"got a scalar for a target of shape \(3,\)"):
        sw.WeightedLoss(lambda a, b: (a - b).mean())(torch.zeros(3), torch.zeros(3))


def test_more_bad_criteria() -> None:
    with pytest.raises(TypeError, match="criterion must be a module or function"):
        sw.WeightedLoss(nn.CrossEntropyLoss)  # the class, not an instance
    with pytest.raises(ValueError, match="one value per sample, got float"):
        sw.WeightedLoss(lambda a, b: 1.0)(torch.zeros(3), torch.zeros(3))
    per_row = sw.WeightedLoss(lambda a, b: (a - b).square().mean(1), ignore_index=-1)
    with pytest.raises(ValueError, match=r"ignore_index needs .* \(3,\), got \(3, 2\)"):
        per_row(torch.zeros(3, 2), torch.zeros(3, 2))


def test_repr_rebuilds_the_call() -> None:
    criterion = sw.WeightedLoss(nn.L1Loss(reduction="none"), ignore_index=-1, reduction="sum")
    assert "ignore_index=-1, reduction='sum'" in repr(criterion)
