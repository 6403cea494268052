"""The recall on the training part is that of the last pass, and watching it changes nothing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")
pytest.importorskip("joblib")

from sampleweights import OHEM, CrossEntropyLoss, FocalLoss, HierarchicalLoss, LogitAdjustment
from sampleweights.compare import compare, default_entries
from sampleweights.compare.training.fitted import Fitted

BATCHES = [7, 7, 3, 7, 7, 3, 7, 7, 3]
SIZE = 17


def batches(seed=0):
    generator = torch.Generator().manual_seed(seed)
    for size in BATCHES:
        logits = torch.randn(size, 3, generator=generator, requires_grad=True)
        yield logits, torch.randint(0, 3, (size,), generator=generator)


def counted(seen):
    """Recall of each class, counted one sample after the other."""
    logits, target = (torch.cat(parts).tolist() for parts in zip(*seen, strict=True))
    seen = list(zip(target, logits, strict=True))
    found = []
    for c in range(3):
        right = [row.index(max(row)) == c for target, row in seen[-SIZE:] if target == c]
        found.append(100 * sum(right) / len(right) if right else float("nan"))
    return found


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(),
        CrossEntropyLoss(weighter=OHEM(schedule=0.5)),
        CrossEntropyLoss(margin=LogitAdjustment(torch.tensor([5, 3, 1]))),
        FocalLoss(),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_the_recall_is_that_of_the_last_pass(criterion):
    fitted = Fitted(criterion, SIZE, 3)
    seen = list(batches())
    assert np.isnan(fitted.recall()).all()
    for number, (logits, target) in enumerate(seen, 1):
        criterion(logits, target)
        expected = counted(seen[:number])
        assert fitted.recall().tolist() == pytest.approx(expected, nan_ok=True)


def test_a_batch_larger_than_the_training_part():
    fitted = Fitted(criterion := nn.CrossEntropyLoss(), 5, 3)
    one_by_one = Fitted(alone := nn.CrossEntropyLoss(), 5, 3)
    for logits, target in batches():
        criterion(logits, target)
        for row, c in zip(logits, target, strict=True):
            alone(row[None], c[None])
    assert np.array_equal(fitted.recall(), one_by_one.recall(), equal_nan=True)


def test_loss_and_gradients_stay_what_they_are():
    for watched in (False, True):
        criterion = CrossEntropyLoss(weighter=OHEM(schedule=0.5))
        state = torch.get_rng_state()
        if watched:
            Fitted(criterion, SIZE, 3)
        found = []
        for logits, target in batches():
            loss = criterion(logits, target)
            loss.backward()
            found += [loss.detach(), logits.grad]
        assert torch.equal(state, torch.get_rng_state())
        assert list(criterion.state_dict()) == list(
            CrossEntropyLoss(weighter=OHEM(schedule=0.5)).state_dict()
        )
        before, alone = (alone, found) if watched else (None, found)  # noqa: F821
    assert all(torch.equal(one, other) for one, other in zip(before, alone, strict=True))


def test_only_training_counts():
    fitted = Fitted(criterion := nn.CrossEntropyLoss(), SIZE, 3)
    logits, target = next(iter(batches()))
    with torch.no_grad():
        criterion(logits, target)
    criterion(logits.detach(), target)
    criterion.eval()
    criterion(logits, target)
    assert np.isnan(fitted.recall()).all()
    criterion.train()
    criterion(input=logits, target=target)
    assert not np.isnan(fitted.recall()).all()
    fitted.remove()
    before = fitted.recall()
    criterion(-logits, target)
    assert np.array_equal(before, fitted.recall(), equal_nan=True)


def test_ignored_samples_do_not_count():
    fitted = Fitted(criterion := nn.CrossEntropyLoss(), SIZE, 3)
    logits = torch.eye(3)[[0, 0, 1, 2]].requires_grad_()
    criterion(logits, torch.tensor([0, -100, 1, 1]))
    assert fitted.recall().tolist() == pytest.approx([100, 50, np.nan], nan_ok=True)


def dense(criterion):
    criterion(torch.randn(2, 3, 4, requires_grad=True), torch.zeros(2, 4, dtype=torch.int64))


def mixed(criterion):
    criterion(torch.randn(2, 3, requires_grad=True), torch.full((2, 3), 1 / 3))


def other_classes(criterion):
    criterion(torch.randn(2, 4, requires_grad=True), torch.tensor([3, 0]))


def functional(criterion):
    torch.func.grad(lambda logits: criterion(logits, torch.tensor([1, 0])))(torch.randn(2, 3))


def by_vmap(criterion):
    torch.func.vmap(criterion)(torch.randn(2, 5, 3), torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize(
    "use",
    [
        dense, mixed, other_classes, by_vmap,
        pytest.param(functional, marks=pytest.mark.slow),  # which imports sympy
    ],
)  # fmt: skip
def test_what_is_no_class_of_a_sample_is_unknown(use):
    fitted = Fitted(criterion := nn.CrossEntropyLoss(), SIZE, 3)
    use(criterion)
    assert np.isnan(fitted.recall()).all()


def test_a_criterion_with_other_arguments_is_not_disturbed():
    fitted = Fitted(levels := HierarchicalLoss([CrossEntropyLoss()] * 2), SIZE, 3)
    levels([torch.randn(2, size, requires_grad=True) for size in (2, 3)], torch.zeros(2, 2).long())
    assert np.isnan(fitted.recall()).all()


def test_copies_are_watched():
    fitted = Fitted(criterion := CrossEntropyLoss(), SIZE, 3)
    seen = list(batches())
    for logits, target in seen:
        copy.deepcopy(criterion)(logits, target)
    assert fitted.recall().tolist() == counted(seen)
    pickle.loads(pickle.dumps(criterion))(*seen[0])  # in another process, which tells nobody
    assert fitted.recall().tolist() == counted(seen)


@pytest.mark.slow
def test_compiled_criteria_are_watched_without_compiling_again():
    counted_by = torch._dynamo.utils.counters
    losses, graphs = {}, {}
    for watched in (False, True):
        torch._dynamo.reset()
        counted_by.clear()
        criterion = CrossEntropyLoss(weighter=OHEM(schedule=0.5))
        fitted = Fitted(criterion, SIZE, 3) if watched else None
        compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
        seen = list(batches())
        losses[watched] = [compiled(logits, target) for logits, target in seen]
        graphs[watched] = counted_by["stats"]["unique_graphs"]
        assert not counted_by["graph_break"]
    assert fitted.recall().tolist() == counted(seen)
    assert losses[True] == losses[False]
    assert graphs[True] <= 2 * graphs[False]  # the hook is compiled as the criterion is, once


# --------------------------------------------------------------------------------------------
# In a comparison
# --------------------------------------------------------------------------------------------

TARGET = np.repeat([0, 1, 2], [60, 30, 12])
NAMES = ("no weighting", "balanced sampling")
ENTRIES = {name: default_entries()[name] for name in NAMES}


def compared(data, **options):
    options = {"entries": ENTRIES, "folds": 3, "num_epochs": 2, "workers": 1, **options}
    return compare(data, TARGET, progress=False, **options)


def constant(criterion, train, validation, sampler=None, seed=0):
    """Always predicts the first class: its recall is 100, that of the others 0."""
    logits = torch.tensor([[1.0, 0.0, 0.0]]).expand(len(train), 3).clone().requires_grad_()
    criterion(-logits, torch.from_numpy(TARGET[train])).backward()  # an earlier pass
    criterion(logits, torch.from_numpy(TARGET[train])).backward()
    return torch.zeros(len(validation), 3)


def silent(criterion, train, validation, sampler=None, seed=0):
    return torch.zeros(len(validation), 3)


def test_a_comparison_holds_it_for_each_run():
    comparison = compared(constant, repeats=2)
    assert list(comparison.train_recall) == list(NAMES)
    for recall in comparison.train_recall.values():
        assert recall.shape == comparison.counts.shape == (2, 3, 3)
        assert (recall == [100, 0, 0]).all()
    assert np.isnan(compared(silent).train_recall["no weighting"]).all()


def test_separate_features_are_fitted():
    features = np.eye(3)[TARGET] + np.random.default_rng(0).normal(size=(len(TARGET), 3)) / 100
    comparison = compared(features, num_epochs=40)
    for recall in comparison.train_recall.values():
        assert (recall > 90).all()


def test_it_is_kept(tmp_path):
    first = compared(constant, cache=tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    again = compared(constant, cache=tmp_path)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    for name in NAMES:
        assert np.array_equal(first.train_recall[name], again.train_recall[name])
