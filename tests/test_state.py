"""What decides a weight is what the buffers hold at the call, whoever wrote them."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import contracts
import pytest
import ranks
import torch
import torch.distributed as dist
from contracts import MARGINS, NUM_CLASSES, WEIGHTERS, compiled
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sampleweights as sw
from sampleweights.integrations.evaluation import without_weighters

OTHER_COUNTS = [2, 5, 11, 7, 60]
LOSSES: dict[str, Callable[..., Any]] = {
    "CrossEntropyLoss": sw.CrossEntropyLoss,
    "FocalLoss": sw.FocalLoss,
    "weighted_mean": partial(sw.CrossEntropyLoss, reduction="weighted_mean"),
    "WeightedLoss": partial(sw.WeightedLoss, nn.CrossEntropyLoss(reduction="none")),
}
STATEFUL = [name for name, weighter in WEIGHTERS.items() if list(weighter().buffers())]
PARTS = [*STATEFUL, *MARGINS]
PAIRS = [(p, loss) for p in PARTS for loss in LOSSES if p in WEIGHTERS or loss != "WeightedLoss"]
EPOCH = 4.25  # OHEM is not done, and what is deferred has begun


def batch(probabilities: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(40, NUM_CLASSES, generator=generator)
    target = torch.randint(NUM_CLASSES, (40,), generator=generator)
    return logits, nn.functional.one_hot(target, NUM_CLASSES).float() if probabilities else target


def build(part: str, loss: str = "CrossEntropyLoss") -> Any:
    if part in MARGINS:
        return LOSSES[loss](margin=MARGINS[part]())
    return LOSSES[loss](weighter=WEIGHTERS[part]())


def called(criterion: Any, probabilities: bool = False) -> Any:
    """A criterion at epoch 0 that has been called, so that whatever it keeps is kept."""
    criterion(*batch(probabilities))
    return criterion


def written(part: str, loss: str, monkeypatch: pytest.MonkeyPatch, epoch: float = EPOCH) -> Any:
    """What another process or checkpoint holds: other counts, a later epoch."""
    with monkeypatch.context() as patch:
        patch.setattr(contracts, "COUNTS", OTHER_COUNTS)
        criterion = build(part, loss)
    criterion.set_epoch(epoch)
    return criterion


def by_copy(ours: Tensor, theirs: Tensor) -> None:
    ours.copy_(theirs)


def by_data(ours: Tensor, theirs: Tensor) -> None:
    ours.data.copy_(theirs.data)


def by_new_data(ours: Tensor, theirs: Tensor) -> None:
    ours.data = theirs.data.clone()


def by_numpy(ours: Tensor, theirs: Tensor) -> None:
    ours.numpy()[...] = theirs.numpy()


@pytest.mark.parametrize("write", [by_copy, by_data, by_new_data, by_numpy])
@pytest.mark.parametrize(("part", "loss"), PAIRS)
@pytest.mark.parametrize("epoch", [EPOCH, 9])
def test_a_written_buffer_acts(
    part: str, loss: str, write: Any, epoch: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = written(part, loss, monkeypatch, epoch)
    for probabilities in (
        (False, True) if loss != "WeightedLoss" and "LDAM" not in part else (False,)
    ):
        if probabilities and "per_class" in repr(theirs):
            continue  # it needs class indices
        ours = called(build(part, loss), probabilities)
        before = ours(*batch(probabilities))
        with torch.no_grad():
            for own, other in zip(ours.buffers(), theirs.buffers(), strict=True):
                write(own, other)
        expected = theirs(*batch(probabilities))
        assert ours(*batch(probabilities)).equal(expected)
        constant = part in ("OHEM(0.25)",) or (epoch == 9 and part == "OHEM")
        assert constant or not before.equal(expected)


@pytest.mark.parametrize("part", PARTS)
def test_written_buffers_act_in_compiled_code(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the state_dict are all that must be written: some averages go through it."""
    ours = called(build(part, "FocalLoss"))
    run, graphs = compiled(ours)
    run(*batch())
    for epoch in (EPOCH, 9):
        theirs = written(part, "FocalLoss", monkeypatch, epoch)
        states = ours.state_dict().values(), theirs.state_dict().values()
        for own, other in zip(*states, strict=True):
            own.numpy()[...] = other.numpy()
        assert ours(*batch()).equal(theirs(*batch()))
        torch.testing.assert_close(run(*batch()), theirs(*batch()))
    assert len(graphs) == 1


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_an_average_of_models_computes_with_their_epoch(part: str, ema: bool) -> None:
    model = nn.ModuleDict({"layer": nn.Linear(2, 2), "criterion": build(part)})
    average = get_ema_multi_avg_fn(0.9) if ema else None
    averaged = AveragedModel(model, multi_avg_fn=average)
    for epoch in range(9):
        model["criterion"].set_epoch(epoch)
        called(averaged.module["criterion"])
        averaged.update_parameters(model)
    expected = model["criterion"](*batch())
    torch.testing.assert_close(averaged.module["criterion"](*batch()), expected)


@pytest.mark.parametrize("part", PARTS)
def test_an_average_that_mixes_floating_buffers_alone_does_not_mix_the_epoch(part: str) -> None:
    """As timm's does, through the state_dict."""
    model, averaged = build(part), called(build(part))
    for epoch in range(9):
        model.set_epoch(epoch)
        pairs = zip(averaged.state_dict().values(), model.state_dict().values(), strict=True)
        for own, other in pairs:
            own.lerp_(other, 0.1) if own.is_floating_point() else own.copy_(other)
    torch.testing.assert_close(averaged(*batch()), model(*batch()))


def test_an_average_keeps_a_class_without_samples_out() -> None:
    """An average of -inf and -inf may be NaN."""
    criterion = sw.CrossEntropyLoss(margin=sw.LogitAdjustment([5, 0, 3]))
    averaged = copy.deepcopy(criterion)
    for _ in range(3):
        for own, other in zip(averaged.buffers(), criterion.buffers(), strict=True):
            own.lerp_(other, 0.1) if own.is_floating_point() else own.copy_(other)
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, 2, 0])
    assert averaged(logits, target).equal(criterion(logits, target))
    adjusted = criterion.margin.posthoc(logits)
    assert averaged.margin.posthoc(logits).equal(adjusted)
    assert (adjusted[:, 1] == -torch.inf).all()


@pytest.mark.parametrize("part", PARTS)
def test_copies_act_on_their_own(part: str) -> None:
    criterion = called(build(part))
    before = criterion(*batch())
    file = io.BytesIO()
    torch.save(criterion, file)
    file.seek(0)
    copies = [copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))]
    copies.append(torch.load(file, weights_only=False))
    for twin in copies:
        assert called(twin)(*batch()).equal(before)
        twin.set_epoch(EPOCH)
        for name, buffer in twin.named_buffers():
            if name.endswith("class_weight"):
                buffer.data.mul_(2)
        assert criterion(*batch()).equal(before)


def test_the_counts_say_which_class_is_absent_at_the_call() -> None:
    for criterion in (
        sw.CrossEntropyLoss(weighter=sw.ClassBalanced([3, 1])),
        sw.CrossEntropyLoss(margin=sw.LogitAdjustment([3, 1])),
        sw.FocalLoss(margin=sw.LDAM([3, 1])),
    ):
        logits, target = torch.randn(3, 2), torch.tensor([0, 1, 0])
        criterion(logits, target)
        part: Any = criterion.weighter or criterion.margin
        part.class_counts.numpy()[1] = 0
        with pytest.raises(ValueError, match="got class 1, whose count is 0"):
            criterion(logits, target)
        part.class_counts.data.fill_(1)
        criterion(logits, target)


def test_a_schedule_of_ones_own_reaches_compiled_code() -> None:
    ours, theirs = (sw.OHEM(schedule=lambda epoch: [0.25, 0.5, 1.0][epoch]) for _ in range(2))
    run, graphs = compiled(ours)
    loss = torch.arange(8.0)
    for epoch in (0, 1, 2):
        theirs.set_epoch(epoch)
        for own, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            own.numpy()[...] = other.numpy()
        assert run(loss).equal(theirs(loss))
        assert ours(loss).equal(theirs(loss))
        assert theirs(loss).sum() == [2, 4, 8][epoch]
    assert len(graphs) == 1


class Table(sw.Weighter):
    """Looks its factor up, as a list wants it: by a whole number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.seen = [1.0, 2.0, 3.0], []

    def set_epoch(self, epoch: int) -> None:
        self.now = self.table[epoch]
        self.seen.append(epoch)

    def forward(self, loss: Tensor, target: Any = None, valid: Any = None) -> Tensor:
        return torch.full_like(loss, self.now)


def test_fractions_of_an_epoch_reach_only_who_takes_them() -> None:
    own, curriculum = Table(), sw.OHEM(4)
    listed = sw.SelfPaced(schedule=lambda epoch: [0.5, 0.75, 1.0][epoch])
    criterion = sw.CrossEntropyLoss(weighter=[own, sw.Deferred([curriculum, listed], 1)])
    model = nn.ModuleDict({"criterion": criterion})
    for epoch in (0, 0.5, 1, 1.25, 2.0):
        sw.weighters.base.set_epoch_below(model, epoch)
        assert curriculum.fraction == sw.schedules.Sigmoid(4)(epoch)
        assert listed.fraction == [0.5, 0.75, 1.0][int(epoch)]
    assert own.seen == [0, 0, 1, 1, 2]
    assert all(type(epoch) is int for epoch in own.seen)


# ---------------------------------------------------------------------------------------------
# Evaluation
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "loss"), PAIRS)
def test_an_evaluation_is_the_plain_loss_and_leaves_the_modules(part: str, loss: str) -> None:
    criterion, plain = build(part, loss), LOSSES[loss]()
    keys, before = set(criterion.state_dict()), criterion(*batch())
    with without_weighters(criterion):
        assert criterion(*batch()).equal(plain(*batch()))
        assert set(criterion.state_dict()) == keys
        assert not copy.deepcopy(criterion).evaluates
        criterion.set_epoch(0)
    assert criterion(*batch()).equal(before)


def test_a_class_that_only_the_evaluation_has_does_not_end_the_training() -> None:
    for part in (
        {"weighter": sw.ClassBalanced([3, 0, 2])},
        {"margin": sw.LogitAdjustment([3, 0, 2])},
        {"margin": sw.LDAM([3, 0, 2])},
    ):
        criterion = sw.CrossEntropyLoss(**part)  # type: ignore[arg-type]
        logits, target = torch.randn(2, 3), torch.tensor([0, 1])
        with without_weighters(criterion):
            expected = nn.functional.cross_entropy(logits, target)
            assert criterion(logits, target).equal(expected)
        with pytest.raises(ValueError, match="got class 1, whose count is 0"):
            criterion(logits, target)


# ---------------------------------------------------------------------------------------------
# Several processes
# ---------------------------------------------------------------------------------------------


def _receive(rank: int, world: int, folder: str) -> None:
    results = {}
    for part in PARTS:
        for global_batch in (False, True):
            criterion = build(part)
            criterion.global_batch = global_batch
            criterion(*batch(seed=rank))
            if rank == 0:
                with pytest.MonkeyPatch.context() as patch:
                    state = written(part, "CrossEntropyLoss", patch).state_dict()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # other counts than it was built with
                    criterion.load_state_dict(state)
            # nobody has told the others yet: they gather all the same, and none waits for ever
            criterion(*batch(seed=rank))
            if "LDAM" not in part and "per_class" not in repr(criterion):
                criterion(*(half.bfloat16() for half in batch(True, seed=rank)))
            for buffer in criterion.buffers():
                dist.broadcast(buffer, 0)
            results[part, global_batch] = criterion(*batch(seed=rank))
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_a_broadcast_acts_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks.run(_receive, 2, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    whole = [torch.cat(both) for both in zip(batch(), batch(seed=1), strict=True)]
    for (part, global_batch), value in first.items():
        criterion = written(part, "CrossEntropyLoss", monkeypatch)
        if global_batch:
            mean = (value + second[part, global_batch]) / 2
            torch.testing.assert_close(mean, criterion(*whole))
        else:
            torch.testing.assert_close(value, criterion(*batch()))
            torch.testing.assert_close(second[part, global_batch], criterion(*batch(seed=1)))


def test_a_schedule_or_start_that_is_assigned_acts_in_the_same_epoch() -> None:
    loss, target = torch.rand(20), torch.zeros(20, dtype=torch.int64)
    curriculum = sw.OHEM(schedule=0.5)
    assert curriculum(loss).sum() == 10
    curriculum.schedule = sw.schedules.Constant(0.1)
    assert curriculum(loss).sum() == 2
    assert curriculum.fraction == 0.1

    deferred = sw.Deferred(sw.ClassBalanced([3, 1]), start=10)
    deferred.set_epoch(4)
    assert deferred.inactive
    deferred.start = 3
    assert not deferred.inactive
    assert deferred(loss, target).equal(torch.full((20,), 2 / 3))
    with pytest.raises(ValueError, match="start must be finite"):
        deferred.start = -1
    assert deferred.start == 3


def test_what_is_deferred_can_be_replaced() -> None:
    deferred = sw.Deferred(sw.ClassBalanced([3, 1]), start=0)
    assert deferred.num_classes == 2
    assert not deferred.may_drop
    deferred.weighter = sw.OHEM(schedule=0.5)
    assert deferred.num_classes is None
    # the hardest half has the easiest of its samples kept, and not what was dropped
    both = sw.Compose([deferred, sw.SelfPaced(schedule=0.5)])
    assert both(torch.tensor([4.0, 3.0, 2.0, 1.0])).tolist() == [0, 1, 0, 0]


@pytest.mark.filterwarnings("ignore:ClassBalanced was built with")  # memory that nobody wrote
@pytest.mark.parametrize("assign", [False, True])
def test_a_hierarchy_that_was_on_the_meta_device_has_its_tree(assign: bool) -> None:
    tree = {"a": ["b", "c"], "d": ["e"]}
    logits, target = torch.randn(6, 2, 5), torch.tensor([0, 1, 2, 2, -100, 0])

    def on(device: str) -> sw.HierarchicalLoss:
        with torch.device(device):
            return sw.HierarchicalLoss(
                sw.CrossEntropyLoss(),
                taxonomy=sw.Taxonomy(tree),
                weighter=sw.Deferred(sw.ClassBalanced([5, 3, 1]), 2),
            )

    ours = on("cpu")
    ours.set_epoch(3)
    for other in (on("meta"), on("cpu").to("meta")):
        if not assign:
            other.to_empty(device="cpu")
        other.load_state_dict(ours.state_dict(), assign=assign)
        assert other(logits, target).equal(ours(logits, target))
