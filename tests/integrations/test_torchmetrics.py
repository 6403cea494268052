"""The metric against a plain account, over batches, processes and a resume."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
import ranks
import torch
from torch import Tensor

import sampleweights as sw

pytest.importorskip("torchmetrics")

from sampleweights.integrations.torchmetrics import WeightingMetric

pytestmark = pytest.mark.filterwarnings("ignore")


def batches() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 3, generator=g), torch.randint(3, (n,), generator=g)) for n in (9, 4, 7)
    ]


def criterion() -> sw.CrossEntropyLoss:
    return sw.CrossEntropyLoss(weighter=[sw.ClassBalanced([8, 4, 2]), sw.OHEM(schedule=0.5)])


def account(ignored: int | None = None) -> dict[str, list[float]]:
    """(mean weight, share above 0) of each class, by hand."""
    weights: list[list[float]] = [[], [], []]
    loss = criterion()
    for logits, target in batches():
        if ignored is not None:
            target = target.masked_fill(target == ignored, -100)
        for y, w in zip(target.tolist(), loss._weigh(loss.samples(logits, target)), strict=True):
            if y >= 0:
                weights[y].append(float(w))
    return {
        "weight": [sum(w) / len(w) if w else float("nan") for w in weights],
        "kept": [sum(v > 0 for v in w) / len(w) if w else float("nan") for w in weights],
        "all": [w for of_class in weights for w in of_class],
    }


@pytest.mark.parametrize("ignored", [None, 1])
def test_it_agrees_with_an_account(ignored: int | None) -> None:
    metric, loss = WeightingMetric(3), criterion()
    metric.watch(loss)
    for logits, target in batches():
        loss(logits, target if ignored is None else target.masked_fill(target == ignored, -100))
    loss.eval()
    loss(*batches()[0])  # a validation counts for nothing
    expected, result = account(ignored), metric.compute()
    every = expected["all"]
    assert result["kept"].item() == pytest.approx(sum(w > 0 for w in every) / len(every))
    assert result["weight"].item() == pytest.approx(sum(every) / len(every))
    for name in ("weight", "kept"):
        values = result[f"{name}_per_class"].tolist()
        assert values == pytest.approx(expected[name], nan_ok=True)
    metric.reset()
    assert metric.sums.sum() == 0


def test_a_copy_is_not_watched() -> None:
    metric, loss = WeightingMetric(3), criterion()
    metric.watch(loss)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        other(*batches()[0])
        assert not other.is_watched
    assert metric.sums.sum() == 0
    loss(*batches()[0])
    assert metric.sums[:, 0].sum() == 9


def test_weights_of_dense_targets_and_of_no_classes() -> None:
    weight = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    metric = WeightingMetric()
    metric.update(weight)
    assert {k: v.item() for k, v in metric.compute().items()} == {"kept": 0.5, "weight": 1.0}
    metric = WeightingMetric(2)
    metric.update(
        weight, torch.tensor([[0, 0], [1, 1]]), torch.tensor([[True, True], [True, False]])
    )
    assert metric.compute()["kept_per_class"].tolist() == [0.5, 1.0]


def test_it_counts_beyond_what_float32_can() -> None:
    metric = WeightingMetric()
    metric.sums += torch.tensor([2.0**25, 2.0**25, 2.0**25])
    metric.update(torch.ones(3))
    assert metric.sums[0].tolist() == [2**25 + 3] * 3


def test_a_saved_metric_goes_on() -> None:
    whole, part = WeightingMetric(3), WeightingMetric(3)
    parts = batches()
    for logits, target in parts:
        whole.update(logits.exp()[:, 0], target)
    part.update(parts[0][0].exp()[:, 0], parts[0][1])
    resumed = WeightingMetric(3)
    resumed.load_state_dict(part.state_dict())
    for logits, target in parts[1:]:
        resumed.update(logits.exp()[:, 0], target)
    assert resumed.sums.equal(whole.sums)


def on_a_rank(rank: int, world_size: int, folder: str) -> None:
    metric = WeightingMetric(3)
    for logits, target in batches()[rank::world_size]:
        metric.update(logits.exp()[:, 0], target)
    torch.save(metric.compute(), f"{folder}/{rank}-of-{world_size}")


def test_processes_add_up(tmp_path: Path) -> None:
    on_a_rank(0, 1, str(tmp_path))
    ranks.run(on_a_rank, 2, str(tmp_path))
    one = torch.load(tmp_path / "0-of-1")
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}-of-2"), one)


def test_what_is_no_class_counts_for_none() -> None:
    metric = WeightingMetric(3)
    metric.update(torch.tensor([1.0, 0.0, 4.0]), torch.tensor([0, 2, -100]))
    result = metric.compute()
    assert result["kept_per_class"].tolist() == pytest.approx([1, math.nan, 0], nan_ok=True)
    assert result["weight_per_class"].tolist() == pytest.approx([1, math.nan, 0], nan_ok=True)
    assert (result["kept"].item(), result["weight"].item()) == (0.5, 0.5)
    # class 7 of 3 is an error, unless it is ignored
    valid = torch.tensor([True, False])
    metric.update(torch.ones(2), torch.tensor([1, 7]), valid)
    assert metric.compute()["kept_per_class"].tolist() == [1, 1, 0]
    with pytest.raises(IndexError, match="target must be from 0 to 2, .* got 7"):
        metric.update(torch.ones(2), torch.tensor([1, 7]))
    assert metric.sums[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3),), "target must hold class indices of shape .3,., got None"),
        ((torch.ones(3), torch.ones(3)), "target must hold class indices"),
        ((torch.ones(3), torch.ones(4).long()), "target must hold class indices"),
    ],
)
def test_wrong_inputs(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightingMetric(3).update(*arguments)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        WeightingMetric(0)
