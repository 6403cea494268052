"""What a tensor subclass brings along stays outside: buffers, counts and losses are plain."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw


class Tagged(Tensor):
    """Passes its class on, as MONAI's MetaTensor does, and answers as torchvision's Mask does."""

    @property
    def dtype(self) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return super().dtype

    @property
    def ndim(self) -> int:
        with torch._C.DisableTorchFunctionSubclass():
            return super().ndim


def tag(values: Any) -> Tensor:
    return torch.as_tensor(values).as_subclass(Tagged)


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "plain": sw.CrossEntropyLoss,
    "weight=": lambda: sw.CrossEntropyLoss(tag([1.0, 2.0, 3.0])),
    "class weights": lambda: sw.CrossEntropyLoss(weighter=sw.ClassBalanced(tag([5, 2, 1]))),
    "from targets": lambda: sw.FocalLoss(weighter=sw.EffectiveNumber.from_targets(tag([0, 1, 2]))),
    "OHEM": lambda: sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5)),
    "margin": lambda: sw.CrossEntropyLoss(margin=sw.LogitAdjustment(tag([5, 2, 1]))),
    "wrapped": lambda: sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none")),
}


def test_the_subclass_is_passed_on_by_torch() -> None:
    assert type(tag([1.0]) * 2) is Tagged
    assert (
        type(nn.CrossEntropyLoss(tag([1.0, 2.0]))(torch.zeros(1, 2), torch.tensor([0]))) is Tagged
    )


@pytest.mark.parametrize("name", LOSSES)
def test_buffers_are_plain(name: str) -> None:
    criterion = LOSSES[name]()
    assert {type(buffer) for buffer in criterion.buffers()} <= {Tensor}
    assert type(criterion(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))) is Tensor
    state = io.BytesIO()
    torch.save(criterion.state_dict(), state)
    assert b"Tagged" not in state.getvalue()


def test_alpha_and_the_sampler_are_plain() -> None:
    assert type(sw.BinaryFocalLoss(alpha=tag([0.2, 0.3])).alpha) is Tensor
    plain, tagged = (sw.WeightedSampler(make([1.0, 2.0, 3.0])) for make in (torch.tensor, tag))
    assert list(plain) == list(tagged)
    assert b"Tagged" not in pickle.dumps(tagged)
    tagged.set_weights(tag([1.0, 1.0, 1.0]))
    assert type(tagged.weights) is type(tagged.state_dict()["weight"]) is Tensor


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
@pytest.mark.parametrize("name", LOSSES)
def test_inputs_may_be_of_a_subclass(name: str) -> None:
    """Compiled in one graph as well; nn.CrossEntropyLoss takes them there."""
    generator = torch.Generator().manual_seed(0)
    criterion = LOSSES[name]()
    calls = [criterion]
    if name in ("plain", "OHEM") and hasattr(torch.compiler, "set_stance"):  # torch 2.6
        torch.compiler.reset()
        calls += [torch.compile(criterion, backend="eager", fullgraph=True, dynamic=False)]
    for logits in (
        torch.randn(4, 3, generator=generator),
        torch.randn(2, 3, 2, generator=generator),
    ):
        target = torch.tensor([0, 1, 2, 0]).reshape(logits.shape[:1] + logits.shape[2:])
        logits.requires_grad_()
        expected = criterion(logits, target)
        [slope] = torch.autograd.grad(expected, logits)
        for call in calls:
            for given in (logits, logits.as_subclass(Tagged)):
                loss = call(given, tag(target))
                torch.testing.assert_close(loss.as_subclass(Tensor), expected)
                [gradient] = torch.autograd.grad(loss, logits)
                torch.testing.assert_close(gradient.as_subclass(Tensor), slope)


@pytest.mark.parametrize("package", ["monai.data", "torchvision.tv_tensors"])
@pytest.mark.filterwarnings("ignore")
def test_real_subclasses(package: str) -> None:
    make = {"monai.data": "MetaTensor", "torchvision.tv_tensors": "Mask"}[package]
    wrap = getattr(pytest.importorskip(package), make)
    torch.compiler.reset()
    criterion = sw.CrossEntropyLoss(
        weighter=[sw.ClassBalanced(wrap(torch.tensor([5, 2, 1]))), sw.OHEM(schedule=0.5)]
    )
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    expected = criterion(logits, target)
    assert type(expected) is Tensor
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    for call in (criterion, compiled):
        assert float(call(wrap(logits), wrap(target))) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("target", "call"),
    [
        (torch.zeros(2, 1, 4, 4), r"\.squeeze\(1\)\.long\(\)"),
        (torch.zeros(2, 4, 4), r"\.long\(\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), r"\.squeeze\(1\)"),
    ],
)
def test_label_maps_with_a_channel_or_floating(target: Tensor, call: str) -> None:
    for wrap in (lambda t: t, tag):
        with pytest.raises(ValueError, match=f"for class indices pass target{call}$"):
            sw.CrossEntropyLoss()(torch.zeros(2, 3, 4, 4), wrap(target))
    with pytest.raises(ValueError, match=r"got \(2, 1\); .* target\.squeeze\(1\)$"):
        sw.CrossEntropyLoss()(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got \(3,\)$"):
        sw.CrossEntropyLoss()(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


def test_what_computes_by_itself_is_left_as_it_is() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        loss = sw.CrossEntropyLoss()(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    assert isinstance(loss, FakeTensor)
    assert np.shape(loss) == ()
