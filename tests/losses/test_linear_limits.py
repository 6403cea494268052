"""LinearCrossEntropyLoss at its limits: what learns besides, what may not be, and what says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import sampleweights as sw
from sampleweights import distributed

N, D, C = 12, 4, 5
WEIGHTERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "Confidence": sw.Confidence,
    "OHEM": lambda: sw.OHEM(schedule=0.5),
}


def batch() -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(N, D, requires_grad=True), torch.randint(C, (N,)), nn.Linear(D, C)


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
@pytest.mark.parametrize("weighter", WEIGHTERS)
@pytest.mark.parametrize("freezes", [False, True])
def test_weights_of_samples_learn(freezes: bool, weighter: str, reduction: str) -> None:
    hidden, target, head = batch()
    if freezes:
        head.requires_grad_(False)
        hidden = hidden.detach()
    found, right = (torch.linspace(0, 2, N).requires_grad_() for _ in range(2))
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        head, weighter=WEIGHTERS[weighter](), reduction=reduction, chunk_size=5
    )
    criterion(hidden, target, sample_weight=found).sum().backward()
    nll = F.cross_entropy(head(hidden), target, reduction="none").detach()
    weight = torch.ones(N)
    if weighter == "Confidence":
        weight = torch.exp(-nll)
    if weighter == "OHEM":
        weight = (nll >= nll.sort().values[N // 2]).float()
    divisor: Any = {"mean": N, "weighted_mean": (weight * right).sum()}.get(reduction, 1)
    ((weight * right * nll).sum() / divisor).backward()
    torch.testing.assert_close(found.grad, right.grad)


def test_a_normalizer_learns() -> None:
    hidden, target, head = batch()
    normalizer = torch.tensor(3.0, requires_grad=True)
    loss = sw.LinearCrossEntropyLoss.from_linear(head)(hidden, target, normalizer=normalizer)
    loss.backward()
    torch.testing.assert_close(normalizer.grad, -loss.detach() / 3)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothed_focal_loss_keeps_its_digits_where_p_is_nearly_one(
    weighted: bool, gamma: float
) -> None:
    smoothing, eye = 0.1, nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        eye.weight.copy_(torch.eye(3))
    weight = torch.tensor([2.0, 1.0, 0.5]) if weighted else None
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        eye, gamma=gamma, label_smoothing=smoothing, weight=weight, reduction="sum"
    )
    for gap in (3.0, 8.0, 12.0, 16.0):
        hidden = torch.tensor([[gap, 0.3, 0.1]], requires_grad=True)
        criterion(hidden, torch.tensor([0])).backward()
        logits = hidden.detach().double().requires_grad_()
        log_p, w = logits.log_softmax(1)[0], torch.ones(3) if weight is None else weight
        loss = -(1 - smoothing) * w[0] * log_p[0] - smoothing * (w * log_p).mean()
        (log_p[1:].exp().sum() ** gamma * loss).backward()
        assert hidden.grad is not None
        assert logits.grad is not None
        error = (hidden.grad.double() - logits.grad).abs().max()
        assert error <= 2e-6 * logits.grad.abs().max()


@pytest.mark.parametrize("weighter", WEIGHTERS)
def test_no_second_derivative(weighter: str) -> None:
    hidden, target, head = batch()
    criterion = sw.LinearCrossEntropyLoss.from_linear(head, weighter=WEIGHTERS[weighter]())
    with pytest.raises(RuntimeError, match=r"no second derivative.*CrossEntropyLoss"):
        torch.autograd.grad(criterion(hidden, target), hidden, create_graph=True)


@pytest.mark.parametrize("weighter", WEIGHTERS)
def test_a_graph_that_is_kept_does_not_share_its_gradients(weighter: str) -> None:
    hidden, target, head = batch()
    states = hidden * 1
    states.register_hook(lambda gradient: gradient.mul_(2))
    head.weight.register_hook(lambda gradient: gradient.mul_(3))
    loss = sw.LinearCrossEntropyLoss.from_linear(head, weighter=WEIGHTERS[weighter]())(
        states, target
    )
    found = []
    for _ in range(3):
        loss.backward(retain_graph=True)
        leaves: list[Tensor] = [hidden, *head.parameters()]
        found.append([])
        for leaf in leaves:
            assert leaf.grad is not None
            found[-1].append(leaf.grad.clone())
            leaf.grad.zero_()
    torch.testing.assert_close(found[1:], [found[0]] * 2, rtol=0, atol=0)


def test_what_is_changed_before_the_backward_pass_is_noticed() -> None:
    hidden, target, head = batch()
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        head, weight=torch.ones(C), weighter=sw.OHEM(schedule=0.5)
    )
    assert criterion.weight is not None
    for changed in (target, criterion.weight):
        loss = criterion(hidden, target)
        changed.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "none"])
@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 1])
@pytest.mark.parametrize("name", ["list", "Deferred", "SelfPaced"])
def test_a_forgotten_epoch_is_told_once(
    name: str, chunk_size: int | None, is_watched: bool, reduction: str
) -> None:
    hidden, target, head = batch()
    deferred = sw.Deferred(sw.ClassBalanced([1, 2, 3, 4, 5]), start=5)
    weighter: Any = {"list": [sw.Confidence(), deferred], "Deferred": deferred}.get(name)
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        head, weighter=weighter or sw.SelfPaced(10), chunk_size=chunk_size, reduction=reduction
    )
    if is_watched:
        criterion.register_weighting_hook(lambda *_: None)
    told = []
    for _ in range(45):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            criterion(hidden, target)
        told.append(len(caught))
    assert told == [0] * 19 + [1] + [0] * 25


def test_the_meta_device_has_shapes() -> None:
    with torch.device("meta"):
        head, hidden = nn.Linear(D, C), torch.zeros(2, 3, D, requires_grad=True)
        target = torch.zeros(2, 3, dtype=torch.long)
    for weighter in WEIGHTERS.values():
        for reduction, shape in (("mean", ()), ("none", (2, 3))):
            criterion = sw.LinearCrossEntropyLoss.from_linear(
                head, weighter=weighter(), reduction=reduction
            )
            loss = criterion(hidden, target)
            assert loss.is_meta
            assert loss.shape == shape
            loss.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.is_meta


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(D, C)
        self.criterion = sw.LinearCrossEntropyLoss.from_linear(self.head)

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.criterion(hidden, target)
        return loss


def _on_fake_tensors(model: Model, hidden: Tensor, target: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(hidden), mode.from_tensor(target))


STAGES: dict[str, Callable[..., Any]] = {
    "torch.func": lambda model, hidden, target: torch.func.grad(model)(hidden, target),
    "vmap": lambda model, *inputs: torch.func.vmap(model)(*(x[None] for x in inputs)),
    "trace": lambda model, *inputs: torch.jit.trace(model, inputs),
    "export": lambda model, *inputs: torch.export.export(model, inputs, strict=False),
    "fake": _on_fake_tensors,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:FutureWarning")
@pytest.mark.parametrize("stage", STAGES)
def test_what_cannot_know_the_rows_is_told_so(stage: str) -> None:
    hidden, target, _ = batch()
    with pytest.raises(RuntimeError, match="exported, traced, transformed by torch.func"):
        STAGES[stage](Model(), hidden.detach(), target)


def test_a_weight_that_a_hook_computes_is_refused() -> None:
    from torch.nn.utils import prune

    head = prune.l1_unstructured(nn.Linear(D, C), "weight", 0.3)
    with pytest.raises(TypeError, match=r"weight as a parameter or a parametrization.*prune"):
        sw.LinearCrossEntropyLoss.from_linear(head)


def test_a_parametrized_weight_learns() -> None:
    hidden, target, _ = batch()
    gradients = []
    for is_fused in (True, False):
        torch.manual_seed(1)
        head = nn.utils.parametrizations.weight_norm(nn.Linear(D, C))
        fused = sw.LinearCrossEntropyLoss.from_linear(head)
        loss = fused(hidden, target) if is_fused else F.cross_entropy(head(hidden), target)
        loss.backward()
        gradients.append([parameter.grad for parameter in head.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_weighter_that_several_processes_share_gathers_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Own(sw.Weighter):
        is_elementwise = True  # and not local: its chunks would be gathered, of each process others

        def forward(
            self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
        ) -> Tensor:
            return torch.exp(-loss)

    def gather(loss: Tensor, target: Tensor, valid: Tensor | None, group: Any) -> Any:
        gathered.append(len(loss))
        return SimpleNamespace(loss=loss, target=target, valid=valid, own=slice(None))

    gathered: list[int] = []
    hidden, target, head = batch()
    monkeypatch.setattr(distributed, "gather", gather)
    monkeypatch.setattr(sw.LinearCrossEntropyLoss, "num_processes", 2)
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        head, weighter=Own(), global_batch=True, chunk_size=5, reduction="sum"
    )
    criterion(hidden, target).backward()
    assert gathered == [N]


def test_a_weighter_of_other_classes_is_named_where_all_is_ignored() -> None:
    hidden, target, head = batch()
    criterion = sw.LinearCrossEntropyLoss.from_linear(head, weighter=sw.ClassBalanced([1, 2]))
    with pytest.raises(ValueError, match="weighter was made for 2 classes"):
        criterion(hidden, torch.full_like(target, -100))


def test_repr_shows_the_chunk() -> None:
    assert "chunk_size=7" in repr(sw.LinearCrossEntropyLoss(D, C, chunk_size=7))
