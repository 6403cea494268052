"""Entries are tried before the first training, and what fails in another process is told well."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")

from sampleweights import CrossEntropyLoss, WeightedSampler
from sampleweights.compare import compare, default_entries

TARGET = np.repeat([0, 1, 2], [60, 30, 12])
FEATURES = np.random.default_rng(0).normal(size=(len(TARGET), 4)).astype(np.float32)


def never(criterion, train, validation, sampler=None, seed=0):
    raise AssertionError("was trained")


def compared(data=FEATURES, **options):
    options = {"num_epochs": 2, "folds": 3, "progress": False, "workers": 1, **options}
    return compare(data, TARGET, **options)


class Two(nn.Module):
    def forward(self, logits, target, index):
        return logits.sum()


class Detached(nn.Module):
    def forward(self, logits, target):
        return logits.detach().sum()


class Number(nn.Module):
    def forward(self, logits, target):
        return 1.0


def no_seed(target):
    return WeightedSampler.from_targets(target)


def of_batches(target, seed):
    return [[0, 1], [2, 3]]


def beyond(target, seed):
    return [0, len(target)]


SEED = (
    r"entries\['row'\]: make_sampler\(target, seed=0\) must give a sampler, got TypeError: .*seed"
)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            lambda n, e: CrossEntropyLoss(label_smoothing=7),
            r"entries\['row'\] cannot be built with class_counts=\[40, 20, 8\] and num_epochs=2: "
            r"ValueError: label_smoothing .* \(.*test_entries.py, line \d+\)",
        ),
        (lambda n: CrossEntropyLoss(), r"\['row'\] cannot be built .* TypeError: .* takes 1"),
        (lambda n, e: random.choice([]), r"cannot be built .* \(.*test_entries.py, line \d+\)"),
        (lambda n, e: (CrossEntropyLoss(), no_seed), SEED),
        (
            lambda n, e: (CrossEntropyLoss(), of_batches),
            r"make_sampler\(target, seed=0\) must give positions from 0 to 67, .* got \[0, 1\]",
        ),
        (lambda n, e: (CrossEntropyLoss(), beyond), r"must give positions from 0 to 67, .* got 68"),
        (lambda n, e: (CrossEntropyLoss(), lambda t, seed: 5), "must give a sampler, got TypeErr"),
        (
            lambda n, e: nn.CrossEntropyLoss(reduction="none"),
            r"entries\['row'\] must build a criterion that gives one loss for a batch, got shape "
            r"\(64,\)",
        ),
        (
            lambda n, e: Two(),
            r"gives one loss for a batch, got TypeError: .*'index', for logits \(64, 3\) and "
            r"target \(64,\)",
        ),
        (lambda n, e: Detached(), "got one without a gradient"),
        (lambda n, e: Number(), "got 1.0"),
    ],
)  # fmt: skip
def test_what_a_head_cannot_be_trained_with_is_told_first(entry, message, monkeypatch):
    from sampleweights.compare.training.head import Head

    monkeypatch.setattr(Head, "_train", never)
    entries = {"no weighting": default_entries()["no weighting"], "row": entry}
    with pytest.raises(ValueError, match=message):
        compared(entries=entries)


def test_a_sampler_without_a_seed_is_told_before_the_first_training_of_ones_own():
    entries = {"row": lambda n, e: (CrossEntropyLoss(), no_seed)}
    with pytest.raises(ValueError, match=SEED):
        compared(never, entries=entries)


def test_a_fit_of_ones_own_may_call_the_criterion_as_it_likes():
    def fit(criterion, train, validation, sampler=None, seed=0):
        criterion(torch.zeros(2, 3), torch.zeros(2).long(), index=torch.arange(2))
        assert sampler == [[0, 1], [2, 3]]
        return torch.zeros(len(validation), 3)

    compared(fit, entries={"row": lambda n, e: (Two(), of_batches)})


def test_trying_an_entry_changes_nothing(tmp_path):
    """One criterion for all runs, which counts its calls, and the global source of torch."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, logits, target):
            self.calls += 1
            return nn.functional.cross_entropy(logits, target)

    shared, state = Counts(), torch.get_rng_state()
    calls = []

    def fit(criterion, train, validation, sampler=None, seed=0):
        calls.append(criterion.calls)
        return torch.zeros(len(validation), 3)

    compared(fit, entries={"row": lambda n, e: shared})
    compared(entries={"row": lambda n, e: (shared, None)[0]})
    assert calls == [0, 0, 0]
    assert torch.equal(torch.get_rng_state(), state)


def fails(criterion, train, validation, sampler=None, seed=0):
    [][seed]


def test_an_error_of_another_process_is_one_sentence_and_the_users_own_lines():
    def raised(workers):
        with pytest.raises(RuntimeError) as found:
            compared(fails, workers=workers)
        return found.value

    there = raised(2)
    sentence = (
        r"fit failed in row 'no weighting', repeat 0, fold ., with IndexError: list index out"
    )
    assert re.match(sentence, str(there))
    assert re.match(sentence, str(raised(1)))
    trace = str(there.__cause__).splitlines()
    assert trace[:2] == ["in another process", "Traceback (most recent call last):"]
    assert trace[2].endswith("in fails")
    assert trace[-1] == "IndexError: list index out of range"
    assert len(trace) < 8
    assert there.__cause__.__cause__ is None


@pytest.mark.parametrize("entry", [CrossEntropyLoss(), None, "OHEM"])
def test_an_entry_is_a_function(entry):
    with pytest.raises(TypeError, match=r"entries\['row'\] must be a function of class_counts and"):
        compared(entries={"row": entry})
