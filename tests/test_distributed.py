"""The averaged gradient of several processes against one process on the concatenated batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import sampleweights as sw

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

NUM_CLASSES, FEATURES, TREE = 4, 6, {"a": ["a0", "a1"], "b": {"c": ["c0"], "d": ["d0"]}}
COUNTS = [40, 20, 8, 2]
PARTS = {2: [(9, 3), (0, 12)], 3: [(5, 0, 7), (4, 4, 4)]}  # samples of each rank; one has none

WEIGHTERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "ClassBalanced": lambda: sw.ClassBalanced(COUNTS),
    "SelfPaced": lambda: sw.SelfPaced(schedule=0.4),
    "OHEM": lambda: sw.OHEM(schedule=0.4),
    "OHEM(per_class)": lambda: sw.OHEM(schedule=0.4, per_class=True),
    "OHEM(sample)": lambda: sw.OHEM(schedule=0.4, within="sample"),
    "HardNegativeMining": lambda: sw.HardNegativeMining(0.5, min_negatives=1),
    "HardNegativeMining(batch)": lambda: sw.HardNegativeMining(0.5, within="batch"),
    "Compose": lambda: sw.Compose([sw.EffectiveNumber(COUNTS), sw.OHEM(schedule=0.4)]),
}
CLASS_WEIGHT = torch.linspace(0.5, 2, NUM_CLASSES)
LOSSES: dict[str, Callable[..., Any]] = {
    "CrossEntropyLoss": sw.CrossEntropyLoss,
    "CrossEntropyLoss(weight)": lambda **kw: sw.CrossEntropyLoss(
        CLASS_WEIGHT, label_smoothing=0.1, **kw
    ),
    "CrossEntropyLoss(probabilities)": sw.CrossEntropyLoss,
    "CrossEntropyLoss(margin)": lambda **kw: sw.CrossEntropyLoss(margin=sw.LDAM(COUNTS), **kw),
    "FocalLoss(dense)": sw.FocalLoss,
    "BinaryFocalLoss": sw.BinaryFocalLoss,
    "HierarchicalLoss": lambda **kw: sw.HierarchicalLoss(
        sw.CrossEntropyLoss(), taxonomy=sw.Taxonomy(TREE), **kw
    ),
    "HierarchicalLoss(level weighters)": lambda **kw: sw.HierarchicalLoss(
        sw.FocalLoss(weighter=sw.OHEM(schedule=0.5)), taxonomy=sw.Taxonomy(TREE), **kw
    ),
    "WeightedLoss": lambda **kw: sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none"), **kw),
}


@dataclass(frozen=True)
class Case:
    loss: str
    weighter: str
    reduction: str
    sizes: tuple[int, ...]
    ignored: bool = False
    """All samples of the last rank are ignored."""
    sample_weight: bool = False
    normalizer: float | None = None
    reference: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The logits of one sample."""
        if self.loss.startswith("Hier"):
            return (3, 8)
        return (NUM_CLASSES, 2) if "dense" in self.loss else (NUM_CLASSES,)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features, targets and sample weights of the whole batch."""
        g = torch.Generator().manual_seed(0)
        n = sum(self.sizes)
        features = torch.randn(n, FEATURES, generator=g)
        per_sample = (2,) if "dense" in self.loss else ()
        target = torch.randint(NUM_CLASSES, (n, *per_sample), generator=g)
        if self.loss == "BinaryFocalLoss":
            target = torch.randint(2, (n, NUM_CLASSES), generator=g)
        weight = torch.rand(target.shape, generator=g)
        if "probabilities" in self.loss:
            target = torch.rand(n, NUM_CLASSES, generator=g).softmax(1)
        else:
            target[1] = -100
            if self.ignored:
                target[n - self.sizes[-1] :] = -100
        return features, target, weight

    def model(self) -> nn.Module:
        torch.manual_seed(1)
        size = torch.Size(self.shape)
        return nn.Sequential(nn.Linear(FEATURES, size.numel()), nn.Unflatten(1, size))

    def criterion(self, **kwargs: Any) -> Any:
        weighter = WEIGHTERS[self.weighter]()
        return LOSSES[self.loss](weighter=weighter, reduction=self.reduction, **kwargs)

    def run(self, model: nn.Module, criterion: Any, part: slice) -> dict[str, Any]:
        features, target, sample_weight = (tensor[part] for tensor in self.batch())
        logits = model(features)
        reference = 2 * sample_weight if self.reference else None
        value = criterion(
            logits,
            target,
            sample_weight=sample_weight if self.sample_weight else None,
            normalizer=self.normalizer,
            reference_loss=reference,
        )
        value.backward()
        weight = criterion._weigh(criterion.samples(logits.detach(), target), None, reference)
        return {
            "value": value.detach(),
            "weight": weight,
            "grad": [parameter.grad for parameter in model.parameters()],
        }


def fits(loss: str, weighter: str) -> bool:
    needs_indices = weighter == "OHEM(per_class)" and "probabilities" in loss
    other_classes = loss == "BinaryFocalLoss" and weighter in ("ClassBalanced", "Compose")
    if weighter in ("OHEM(sample)", "HardNegativeMining"):
        return loss in ("FocalLoss(dense)", "BinaryFocalLoss")
    if weighter == "HardNegativeMining(batch)":
        return loss in ("CrossEntropyLoss", "FocalLoss(dense)")
    # the easiest samples are those that the levels have dropped: no gradient to compare
    nothing_left = weighter == "SelfPaced" and "level weighters" in loss
    return not (needs_indices or other_classes or nothing_left)


def cases(world: int) -> Iterator[Case]:
    for loss, weighter in itertools.product(LOSSES, WEIGHTERS):
        if not fits(loss, weighter):
            continue
        for reduction, sizes in itertools.product(("mean", "weighted_mean", "sum"), PARTS[world]):
            yield Case(loss, weighter, reduction, sizes)
        if "probabilities" not in loss:
            yield Case(loss, weighter, "mean", PARTS[world][0], ignored=True)
        for reduction in ("mean", "weighted_mean"):
            yield Case(loss, weighter, reduction, PARTS[world][0], sample_weight=True)
        yield Case(loss, weighter, "mean", PARTS[world][0], normalizer=5.0)
        if "probabilities" not in loss:
            yield Case(loss, weighter, "weighted_mean", PARTS[world][0], reference=True)


def part_of(sizes: tuple[int, ...], rank: int) -> slice:
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def work(rank: int, world: int, folder: str) -> None:
    results = []
    for case in cases(world):
        model = DistributedDataParallel(case.model())
        criterion = case.criterion(global_batch=True)
        results.append(case.run(model, criterion, part_of(case.sizes, rank)))
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = str(tmp_path_factory.mktemp("ranks"))
    ranks.run(work, request.param, folder)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(request.param)]


def relative_error(got: list[Tensor], expected: list[Tensor]) -> float:
    a, b = torch.cat([t.flatten() for t in got]), torch.cat([t.flatten() for t in expected])
    return ((a - b).norm() / b.norm()).item()


def test_equals_one_process(results: list[list[dict[str, Any]]]) -> None:
    for case, *parts in zip(cases(len(results)), *results, strict=True):
        expected = case.run(case.model(), case.criterion(), slice(None))
        for rank in parts:
            assert relative_error(rank["grad"], expected["grad"]) < 1e-6, case
        values = torch.stack([rank["value"] for rank in parts])
        torch.testing.assert_close(values.mean(), expected["value"], msg=str(case))
        if expected["weight"] is not None:
            together = torch.cat([rank["weight"] for rank in parts])
            assert (together != 0).equal(expected["weight"] != 0), case
            torch.testing.assert_close(together, expected["weight"])


def test_every_case_has_a_gradient() -> None:
    for case in cases(2):
        grads = case.run(case.model(), case.criterion(), slice(None))["grad"]
        assert torch.cat([grad.flatten() for grad in grads]).norm() > 1e-3, case


ACCUMULATED = Case("FocalLoss(dense)", "OHEM(per_class)", "mean", (9, 3))


def accumulate(rank: int, world: int, folder: str) -> None:
    model = DistributedDataParallel(ACCUMULATED.model())
    criterion = ACCUMULATED.criterion(global_batch=True)
    with model.no_sync():
        ACCUMULATED.run(model, criterion, part_of((2, 4), rank))
    result = ACCUMULATED.run(model, criterion, part_of(ACCUMULATED.sizes, rank))
    torch.save(result, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_gradients_accumulate(tmp_path: Path) -> None:
    ranks.run(accumulate, 2, str(tmp_path))
    model = ACCUMULATED.model()
    ACCUMULATED.run(model, ACCUMULATED.criterion(), slice(6))
    expected = ACCUMULATED.run(model, ACCUMULATED.criterion(), slice(None))
    for rank in range(2):
        grad = torch.load(tmp_path / f"{rank}.pt")["grad"]
        assert relative_error(grad, expected["grad"]) < 1e-6


SHARDED = Case("HierarchicalLoss", "Compose", "weighted_mean", (9, 3))


def shard(rank: int, world: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    model = SHARDED.model()
    mesh = dist.device_mesh.init_device_mesh("cpu", (world,))
    fully_shard(model, mesh=mesh)
    result = SHARDED.run(model, SHARDED.criterion(global_batch=True), part_of((9, 3), rank))
    torch.save([grad.full_tensor() for grad in result["grad"]], f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_sharded_parameters(tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed.fsdp", reason="torch without distributed")
    if not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("torch without fully_shard")
    ranks.run(shard, 2, str(tmp_path))
    expected = SHARDED.run(SHARDED.model(), SHARDED.criterion(), slice(None))
    for rank in range(2):
        assert relative_error(torch.load(tmp_path / f"{rank}.pt"), expected["grad"]) < 1e-6


def die(rank: int, world: int, folder: str) -> None:
    case = Case("CrossEntropyLoss", "OHEM", "mean", (9, 3))
    if rank == 0:
        try:
            case.run(case.model(), case.criterion(global_batch=True), part_of((9, 3), rank))
        except RuntimeError as error:
            Path(folder, "error").write_text(str(error))


@pytest.mark.slow
def test_a_rank_that_dies_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    ranks.run(die, 2, str(tmp_path))
    assert (tmp_path / "error").read_text()


SELECTIVE = Case("FocalLoss(dense)", "OHEM", "mean", (9, 3))


def select(rank: int, world: int, folder: str) -> None:
    model = DistributedDataParallel(SELECTIVE.model())
    criterion = sw.FocalLoss(weighter=sw.OHEM(schedule=0.05), global_batch=True)
    features, target, _ = (tensor[part_of(SELECTIVE.sizes, rank)] for tensor in SELECTIVE.batch())
    sw.selective_loss(model, criterion, features, target).backward()
    torch.save([parameter.grad for parameter in model.parameters()], f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_selective_backpropagation_even_if_a_rank_keeps_nothing(tmp_path: Path) -> None:
    ranks.run(select, 2, str(tmp_path))
    model = SELECTIVE.model()
    criterion = sw.FocalLoss(weighter=sw.OHEM(schedule=0.05))
    features, target, _ = SELECTIVE.batch()
    logits = model(features)
    kept = criterion._weigh(criterion.samples(logits, target))
    assert (kept[9:] == 0).all()
    criterion(logits, target).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for rank in range(2):
        assert relative_error(torch.load(tmp_path / f"{rank}.pt"), expected) < 1e-6


def groups(rank: int, world: int, folder: str) -> None:
    pairs = [dist.new_group([0]), dist.new_group([1, 2])]
    case = Case("CrossEntropyLoss", "OHEM", "mean", (5, 4, 3))
    criterion = case.criterion(global_batch=True, process_group=pairs[min(rank, 1)])
    result = case.run(case.model(), criterion, part_of(case.sizes, rank))
    torch.save(result, f"{folder}/{rank}.pt")


@pytest.mark.slow  # three processes
def test_a_group_is_a_batch_of_its_own(tmp_path: Path) -> None:
    ranks.run(groups, 3, str(tmp_path))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    case = Case("CrossEntropyLoss", "OHEM", "mean", (5, 4, 3))
    alone = case.run(case.model(), case.criterion(), slice(5))
    pair = case.run(case.model(), case.criterion(), slice(5, 12))
    assert relative_error(parts[0]["grad"], alone["grad"]) < 1e-6
    averaged = [(a + b) / 2 for a, b in zip(parts[1]["grad"], parts[2]["grad"], strict=True)]
    assert relative_error(averaged, pair["grad"]) < 1e-6


def test_one_process_needs_no_group() -> None:
    case = Case("CrossEntropyLoss", "OHEM", "mean", (9, 3))
    results = [
        case.run(case.model(), case.criterion(global_batch=flag), slice(None))
        for flag in (True, False)
    ]
    assert results[0]["value"].equal(results[1]["value"])


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="process_group must be None without global_batch"):
        sw.CrossEntropyLoss(process_group=object())
