"""Heads that are trained together give what each gives alone, whoever the others are."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")

import sampleweights as sw
from sampleweights.compare import compare, default_entries
from sampleweights.compare.training import running
from sampleweights.compare.training.batched import SharedLoss, is_shareable
from sampleweights.compare.training.entries import build
from sampleweights.compare.training.head import Head, Training

rng = np.random.default_rng(0)
TARGET = np.repeat([0, 1, 2], [64, 33, 12])
FEATURES = (rng.normal(size=(109, 6)) + 2 * np.eye(6)[TARGET]).astype(np.float32)
FOLD = np.arange(109) % 3
COUNTS = [48, 24, 9]


def training(entry: Any, fold: int, seed: int, num_epochs: int) -> Training:
    """A run as ``compare`` builds it."""
    train, validation = np.flatnonzero(fold != FOLD), np.flatnonzero(fold == FOLD)
    counts = torch.from_numpy(np.bincount(TARGET[train]))
    criterion, make_sampler = build("row", entry, counts, num_epochs)
    sampler = make_sampler and make_sampler(torch.from_numpy(TARGET[train]), seed=seed)
    return Training(criterion, train, validation, sampler, seed)


def trainings(num_epochs: int = 6) -> list[Training]:
    """The default rows on folds of 72 and 73 training samples."""
    runs = [(entry, fold) for entry in default_entries().values() for fold in range(3)]
    return [training(entry, k, seed, num_epochs) for seed, (entry, k) in enumerate(runs)]


# --------------------------------------------------------------------------------------------
# The head
# --------------------------------------------------------------------------------------------


def plain_torch(train: NDArray[Any], validation: NDArray[Any], seed: int, epochs: int) -> Tensor:
    """The head in torch's own layers, with the random numbers of ``Head``."""
    random = np.random.default_rng(seed)
    features = torch.from_numpy(FEATURES).double()
    mean, deviation = features[train].mean(0), features[train].std(0, correction=0)
    inputs = ((features - mean) / deviation).clamp(-10, 10).float()

    def layer(size: int, width: int) -> nn.Linear:
        linear, bound = nn.Linear(size, width), 1 / math.sqrt(size)
        linear.weight.data = (
            torch.from_numpy(random.uniform(-bound, bound, (size, width))).float().T
        )
        linear.bias.data = torch.from_numpy(random.uniform(-bound, bound, width)).float()
        return linear

    hidden, last = layer(6, 256), layer(256, 3)
    parameters = [*hidden.parameters(), *last.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05, foreach=False, fused=False)
    steps = math.ceil(len(train) / 32)
    scheduled = []
    for epoch in range(epochs):
        order = random.permutation(train)
        bits = np.frombuffer(random.bytes(steps * 32 * 32), np.uint8).reshape(steps, 32, 32)
        for step, index in enumerate(np.array_split(order, steps)):
            share = (epoch + (step + 0.5) / steps) / epochs
            angle = share / 0.3 if share < 0.3 else 1 + (share - 0.3) / 0.7
            scheduled.append(3e-3 * (0.5 - 0.5 * math.cos(math.pi * angle)))
            optimizer.param_groups[0]["lr"] = scheduled[-1]
            kept = torch.from_numpy(np.unpackbits(bits[step, : len(index)], axis=1))
            active = torch.relu(hidden(inputs[index])) * kept * 2
            loss = nn.functional.cross_entropy(last(active), torch.from_numpy(TARGET[index]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert max(scheduled) > 2.9e-3 > scheduled[-1]
    result: Tensor = last(torch.relu(hidden(inputs[validation]))).detach()
    return result


def test_a_head_is_what_torchs_layers_make_of_it() -> None:
    one = training(lambda n, e: sw.CrossEntropyLoss(), 1, 7, 12)
    found = Head(FEATURES, TARGET, 3, 12)(one.criterion, one.train, one.validation, seed=7)
    expected = plain_torch(one.train, one.validation, 7, 12)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=2e-4)


def test_every_default_row_gives_together_what_it_gives_alone() -> None:
    head = Head(FEATURES, TARGET, 3, 6)
    assert all(head.can_share(one) for one in trainings())
    together = head.together(trainings())
    for one, found in zip(trainings(), together, strict=True):
        alone = head(one.criterion, one.train, one.validation, one.sampler, one.seed)
        np.testing.assert_allclose(found.logits, alone, rtol=0, atol=1e-4)


def test_nobody_depends_on_the_others() -> None:
    head = Head(FEATURES, TARGET, 3, 3)
    together = head.together(trainings(3))
    for first in (0, 4, 11, 29):
        for size in (1, 3):
            part = head.together(trainings(3)[first : first + size])
            for one, other in zip(part, together[first : first + size], strict=True):
                assert np.array_equal(one.logits, other.logits)
                assert np.array_equal(one.predicted, other.predicted)


def test_the_last_pass_is_what_was_predicted_in_training() -> None:
    class Seen(nn.Module):
        """Cross-entropy that notes what it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.batches: list[tuple[Tensor, Tensor]] = []

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            self.batches.append((logits.detach().argmax(1), target))
            return nn.functional.cross_entropy(logits, target)

    head = Head(FEATURES, TARGET, 3, 4)
    one = training(lambda n, e: sw.CrossEntropyLoss(), 0, 5, 4)
    [found] = head.together([one])
    criterion = Seen()
    head(criterion, one.train, one.validation, seed=5)
    predicted, target = (torch.cat(parts) for parts in zip(*criterion.batches[-3:], strict=True))
    assert len(found.predicted) == len(one.train)
    assert found.predicted.tolist() == predicted.tolist()
    assert found.target.tolist() == target.tolist()


# --------------------------------------------------------------------------------------------
# The loss
# --------------------------------------------------------------------------------------------

CRITERIA: list[Callable[[], Any]] = [
    lambda: sw.CrossEntropyLoss(),
    lambda: sw.CrossEntropyLoss(label_smoothing=0.1),
    lambda: sw.CrossEntropyLoss(reduction="sum"),
    lambda: sw.CrossEntropyLoss(reduction="sum", weighter=sw.ClassBalanced(COUNTS)),
    lambda: sw.CrossEntropyLoss(reduction="weighted_mean", weighter=sw.ClassBalanced(COUNTS)),
    lambda: sw.CrossEntropyLoss(reduction="weighted_mean", weighter=sw.OHEM(schedule=0.4)),
    lambda: sw.CrossEntropyLoss(weighter=sw.OHEM(10)),
    lambda: sw.CrossEntropyLoss(weighter=sw.OHEM(10, per_class=True)),
    lambda: sw.CrossEntropyLoss(weighter=[sw.SelfPaced(4), sw.EffectiveNumber(COUNTS)]),
    lambda: sw.CrossEntropyLoss(weighter=sw.Deferred(sw.ClassBalanced(COUNTS), 2)),
    lambda: sw.CrossEntropyLoss(weighter=sw.Deferred(sw.ClassBalanced(COUNTS), 8)),
    lambda: sw.CrossEntropyLoss(margin=sw.LogitAdjustment(COUNTS, tau=0.5)),
    lambda: sw.CrossEntropyLoss(margin=sw.LDAM(COUNTS), weighter=sw.OHEM(10), label_smoothing=0.2),
    lambda: sw.FocalLoss(0.5, weighter=sw.EffectiveNumber(COUNTS)),
    lambda: sw.FocalLoss(3, margin=sw.LogitAdjustment([9, 24, 48]), label_smoothing=0.1),
]


@pytest.mark.parametrize("epoch", [0, 3, 9])
def test_the_sum_of_many_criteria(epoch: int) -> None:
    """The gradient is that of each criterion on its own batch; losses are tied."""
    criteria = [make() for make in CRITERIA]
    assert all(is_shareable(criterion) for criterion in criteria)
    generator = torch.Generator().manual_seed(epoch)
    sizes = [9 - (run % 3) for run in range(len(criteria))]
    logits = torch.randn(len(criteria), 9, 3, generator=generator)
    logits[:, 4:6] = logits[:, 2:4]
    target = torch.randint(3, (len(criteria), 9), generator=generator)
    target[:, 4:6] = target[:, 2:4]
    for criterion in criteria:
        criterion.set_epoch(epoch)
    shared = SharedLoss(criteria, 3, torch.device("cpu"))
    shared.begin_epoch(target.unsqueeze(0), np.array([sizes]))
    gradient = shared.gradient(0, logits)
    expected = torch.zeros_like(logits)
    for run, (make, size) in enumerate(zip(CRITERIA, sizes, strict=True)):
        criterion, part = make(), logits[run, :size].detach().requires_grad_()
        criterion.set_epoch(epoch)
        loss = criterion(part, target[run, :size])
        [expected[run, :size]] = torch.autograd.grad(loss, part)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert not gradient[1, sizes[1] :].any()


class Softer(sw.Margin):
    def forward(self, logits: Tensor, target: Any = None, valid: Any = None) -> Tensor:
        return logits / 2


class Half(sw.Weighter):
    def forward(self, loss: Tensor, target: Any = None, valid: Any = None) -> Tensor:
        return torch.full_like(loss, 0.5)


class Own(sw.CrossEntropyLoss):
    pass


def watched() -> nn.Module:
    criterion = sw.CrossEntropyLoss()
    criterion.register_weighting_hook(lambda *_: None)
    return criterion


def with_backward_hook() -> nn.Module:
    criterion = sw.CrossEntropyLoss()
    criterion.register_full_backward_hook(lambda *_: None)
    return criterion


def annealed() -> nn.Module:
    criterion = sw.FocalLoss(gamma=0.0)
    criterion.set_epoch = lambda epoch: setattr(criterion, "gamma", epoch)  # type: ignore[method-assign, assignment]
    return criterion


@pytest.mark.parametrize(
    "criterion",
    [
        lambda: nn.CrossEntropyLoss(),
        lambda: Own(),
        lambda: sw.CrossEntropyLoss(weight=torch.ones(3)),
        lambda: sw.CrossEntropyLoss(ignore_index=1),
        lambda: sw.CrossEntropyLoss(margin=sw.LDAM(COUNTS, scale=30)),
        lambda: sw.CrossEntropyLoss(margin=Softer()),
        lambda: sw.CrossEntropyLoss(weighter=[Half(), sw.OHEM(4)]),
        lambda: sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none")),
        lambda: sw.CrossEntropyLoss(reduction="none"),
        lambda: sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5, within="sample")),
        lambda: sw.CrossEntropyLoss(weighter=sw.ClassBalanced([48, 0, 9])),
        lambda: sw.CrossEntropyLoss(margin=sw.LogitAdjustment([48, 0, 9])),
        watched,
        with_backward_hook,
        annealed,
    ],
)
def test_what_is_trained_alone(criterion: Any) -> None:
    assert not is_shareable(criterion())


# --------------------------------------------------------------------------------------------
# The comparison
# --------------------------------------------------------------------------------------------

ROWS = ("no weighting", "OHEM", "LDAM + deferred weights", "balanced sampling")


def compared(names: tuple[str, ...] = ROWS, **options: Any) -> Any:
    entries = {**{name: default_entries()[name] for name in names}, **options.pop("own", {})}
    options = {"num_epochs": 3, "folds": 3, "progress": False, "workers": 1, **options}
    return compare(FEATURES, TARGET, entries=entries, **options)


def same(one: Any, other: Any, rows: tuple[str, ...] = ROWS) -> bool:
    return all(
        np.array_equal(one.logits[row], other.logits[row])
        and np.array_equal(one.train_recall[row], other.train_recall[row], equal_nan=True)
        for row in rows
    )


def test_neither_workers_nor_other_rows_change_a_bit() -> None:
    comparison = compared()
    assert same(comparison, compared(workers=2))
    assert same(comparison, compared(workers=5))
    assert same(comparison, compared(ROWS[2:]), ROWS[2:])


def test_a_row_of_ones_own_is_trained_alone() -> None:
    own: dict[str, Any] = {"torch": lambda n, e: nn.CrossEntropyLoss(1 / n.float())}
    comparison = compared(own=own, workers=2)
    assert same(comparison, compared())
    assert same(comparison, compared((), own=own), ("torch",))


def test_alone_is_as_together(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compared()
    monkeypatch.setattr(running, "FEWEST", 10**9)
    alone = compared()
    for row in ROWS:
        np.testing.assert_allclose(comparison.logits[row], alone.logits[row], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(comparison.train_recall[row], alone.train_recall[row])


def test_groups_whose_folds_differ_in_their_steps() -> None:
    groups = np.where(np.arange(109) < 40, 0, np.arange(109))
    groups[TARGET == 2] = np.arange(12) % 3 + 200
    comparison = compared(groups=groups, workers=2)
    sizes = {int(size) for size in comparison.counts.sum(-1).ravel()}
    assert len({math.ceil(size / 32) for size in sizes}) > 1  # what this test is about
    assert np.isfinite(comparison.logits["OHEM"]).all()
    assert same(comparison, compared(groups=groups))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_criterion_of_all_runs_is_one_of_each(workers: int) -> None:
    """Its epoch would be that of any of them; and it stays as it was."""
    shared = sw.CrossEntropyLoss(weighter=sw.Deferred(sw.ClassBalanced([64, 33, 12]), 1))
    before = shared.weighter.epoch.clone()
    seen: list[Any] = []

    class Seen(SharedLoss):
        def __init__(self, criteria: Any, *args: Any) -> None:
            seen.extend(criteria)
            super().__init__(criteria, *args)

    own: dict[str, Any] = {name: lambda n, e: shared for name in ("one", "other")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sampleweights.compare.training.head.SharedLoss", Seen)
        compared((), own=own, workers=workers)
    assert len(seen) == len({id(criterion) for criterion in seen}) == 6
    assert not any(criterion is shared for criterion in seen)
    assert torch.equal(shared.weighter.epoch, before)


@pytest.mark.parametrize("error", [None, "no loss"])
def test_a_criterion_that_was_trained_alone_is_watched_no_more(error: str | None) -> None:
    shared = nn.CrossEntropyLoss()

    class Fails(nn.Module):
        calls = 0

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 2:  # not yet where the entry is tried before the training
                raise ValueError(error)
            return nn.functional.cross_entropy(logits, target)

    failing = Fails()
    own: dict[str, Any] = {"row": lambda n, e: failing if error else shared}
    with pytest.raises(RuntimeError, match="no loss") if error else nullcontext():
        compared((), own=own)
    assert not shared._forward_pre_hooks
    assert not failing._forward_pre_hooks


@pytest.mark.parametrize(
    ("criterion", "why"),
    [
        (lambda: sw.CrossEntropyLoss(weighter=sw.ClassBalanced([5, 5])), "was made for 2 classes"),
        (lambda: sw.CrossEntropyLoss(weighter=sw.ClassBalanced([5, 0, 5])), "whose count is 0"),
        (lambda: sw.CrossEntropyLoss(reduction="none"), "one loss for a batch, got shape"),
    ],
)
def test_an_error_names_its_row(criterion: Any, why: str) -> None:
    own: dict[str, Any] = {"wrong": lambda n, e: criterion()}
    with pytest.raises(ValueError, match=rf"entries\['wrong'\].* {why}"):
        compared(own=own)


def test_a_criterion_may_change_the_logits_in_place() -> None:
    class InPlace(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            logits *= 2
            return nn.functional.cross_entropy(logits, target)

    class Doubled(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(2 * logits, target)

    rows: dict[str, Any] = {"in place": lambda n, e: InPlace()}
    other: dict[str, Any] = {"in place": lambda n, e: Doubled()}
    assert same(compared((), own=rows), compared((), own=other), ("in place",))


def test_stopped_it_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = running.keep

    def stopping(outcome: Any, path: Any) -> None:
        finished(outcome, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "keep", stopping)
        with pytest.raises(KeyboardInterrupt):
            compared(cache=tmp_path)
    [kept] = tmp_path.glob("*.npz")
    before = kept.stat().st_mtime_ns
    assert same(compared(cache=tmp_path), compared())
    assert kept.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*"))) == 12


def test_trainings_can_be_stopped() -> None:
    with pytest.raises(InterruptedError, match="was stopped"):
        Head(FEATURES, TARGET, 3, 3).together(trainings(3)[:2], stop=lambda: True)
    asked = iter([False, True])  # at each step: an epoch of many samples takes long
    with pytest.raises(InterruptedError, match="was stopped"):
        Head(FEATURES, TARGET, 3, 1).together(trainings(1)[:2], stop=lambda: next(asked))


@pytest.mark.parametrize(
    ("size", "dimension", "is_together"),
    [(846, 18, True), (4000, 64, True), (3000, 256, True), (10_015, 1488, False)],
)
def test_tables_that_fill_the_cache_are_left_to_processes(
    size: int, dimension: int, is_together: bool
) -> None:
    features = np.broadcast_to(np.zeros(1, dtype=np.float32), (size, dimension))
    head = Head(features, np.zeros(size, dtype=np.int64), 7)
    assert (head.num_together >= running.FEWEST) == is_together


def test_starting_imports_nothing_that_takes_long() -> None:
    code = """
import sys
import sampleweights.compare.cli
print([name for name in ("sklearn", "matplotlib.pyplot") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
