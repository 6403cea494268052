"""Who watches a batch pass: order, removal, copies, compiled criteria."""

from __future__ import annotations

import contextlib
import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import sampleweights as sw


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(8, 3, requires_grad=True), torch.randint(3, (8,))


def test_any_number_in_order_until_removed() -> None:
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    calls: list[str] = []

    def hook(name: str) -> Any:
        def seen(of: Any, samples: Any, weight: Tensor | None) -> None:
            assert of is criterion
            assert weight is not None
            assert weight.sum() == 4
            assert samples.loss.shape == (8,)
            calls.append(name)

        return seen

    handles = [criterion.register_weighting_hook(hook(name)) for name in "abc"]
    criterion(*batch())
    handles[1].remove()
    criterion(*batch())
    assert "".join(calls) == "abcac"
    for handle in handles:
        handle.remove()
    criterion(*batch())
    assert len(calls) == 5
    assert not criterion.is_watched


def test_a_hook_may_remove_itself() -> None:
    criterion = sw.CrossEntropyLoss()
    calls: list[Any] = []

    def once(of: Any, samples: Any, weight: Any) -> None:
        calls.append(weight)
        handle.remove()

    handle = criterion.register_weighting_hook(once)
    value = criterion(*batch())
    torch.testing.assert_close(value, criterion(*batch()))
    assert calls == [None]


def test_copies_and_pickles_have_none() -> None:
    criterion = sw.FocalLoss()
    criterion.register_weighting_hook(lambda *_: None)  # cannot be pickled
    for other in (copy.copy(criterion), copy.deepcopy(criterion)):
        assert not other.is_watched
    assert not pickle.loads(pickle.dumps(criterion)).is_watched
    assert criterion.is_watched


def test_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="hook must be callable, got 3"):
        sw.CrossEntropyLoss().register_weighting_hook(3)  # type: ignore[arg-type]
    watching = sw.LossHistory(8).record(nn.CrossEntropyLoss(), torch.arange(8))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"criterion must be a loss of sampleweights, got Cross"):
        watching.__enter__()


# torch itself looks at .grad where a graph ends
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("weighter", [None, sw.OHEM(schedule=0.5)])
def test_a_watched_compiled_criterion_compiles_once(weighter: Any) -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    criterion, history = sw.CrossEntropyLoss(weighter=weighter), sw.LossHistory(8)
    compiled = torch.compile(criterion, backend=backend)
    calls: list[int] = []
    criterion.register_weighting_hook(lambda *_: calls.append(len(calls)))
    counts = []
    for _ in range(12):
        with history.record(criterion, torch.arange(8)):
            value = compiled(*batch())
        counts.append(len(graphs))
    assert len(calls) == 12
    assert counts[-1] == counts[1]
    history.end_epoch()
    assert history.times.tolist() == [12] * 8
    torch.testing.assert_close(value, sw.CrossEntropyLoss(weighter=weighter)(*batch()))


@pytest.mark.filterwarnings("ignore:`torch.cpu.amp.autocast:FutureWarning")  # of torch 2.4 itself
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("weighter", [None, sw.ClassBalanced([3, 2, 1]), sw.OHEM(schedule=0.5)])
def test_a_checkpointed_batch_is_seen_once(weighter: Any, use_reentrant: bool) -> None:
    torch.manual_seed(0)
    criterion, head = sw.CrossEntropyLoss(weighter=weighter), nn.Linear(4, 3)
    inputs, target = torch.randn(8, 4, requires_grad=True), torch.randint(3, (8,))

    def train(history: sw.LossHistory | None, backward_inside: bool = False) -> Tensor:
        head.zero_grad()
        watching = contextlib.nullcontext()
        if history is not None:
            watching = history.record(criterion, torch.arange(8))
        with watching:
            value = checkpoint(
                lambda x: criterion(head(x), target), inputs, use_reentrant=use_reentrant
            )
            if backward_inside:
                value.backward()
        if not backward_inside:
            value.backward()
        assert head.weight.grad is not None
        return head.weight.grad.clone()

    plain, history, seen = train(None), sw.LossHistory(8), []
    criterion.register_weighting_hook(lambda *_: seen.append(None))
    for inside in (False, True):
        assert train(history, inside).equal(plain)
    assert len(seen) == 2
    history.end_epoch()
    assert history.times.tolist() == [2] * 8


def test_hooks_see_no_graph() -> None:
    seen: list[Any] = []
    for weighter in (None, sw.OHEM(schedule=0.5)):
        criterion = sw.CrossEntropyLoss(weighter=weighter)
        criterion.register_weighting_hook(lambda c, samples, weight: seen.append(samples))
        criterion(*batch())
    for samples in seen:
        assert not samples.loss.requires_grad
        assert not samples.logits.requires_grad


@pytest.mark.parametrize("weighter", [None, sw.ClassBalanced([3, 2, 1]), sw.OHEM(schedule=0.5)])
@pytest.mark.parametrize("inside", [False, True])
def test_recording_leaves_a_compiled_graph_whole(weighter: Any, inside: bool) -> None:
    criterion = sw.CrossEntropyLoss(weighter=weighter)
    head = nn.Linear(3, 3)

    def step(logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = criterion(head(logits), target)
        return value

    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    train = torch.compile(step if inside else criterion, backend=backend, fullgraph=True)
    logits, target = batch()
    expected = (step if inside else criterion)(logits, target)
    expected_gradient = torch.autograd.grad(expected, logits)[0]
    history, other = sw.LossHistory(8), sw.LossHistory(8)
    watched: Any = criterion if inside else train
    for _ in range(5):
        with history.record(watched, torch.arange(8)):
            value = train(logits, target)
        assert value.equal(expected)
        assert torch.autograd.grad(value, logits)[0].equal(expected_gradient)
    assert len(graphs) == 1
    with history.record(watched, torch.arange(8)), other.record(watched, torch.arange(8)):
        train(logits, target)
    assert not criterion.is_watched
    for one, times in ((history, 6), (other, 1)):
        one.end_epoch()
        assert one.times.tolist() == [times] * 8
