"""Who watches a batch pass: order, removal, copies, compiled criteria."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
