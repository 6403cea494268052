"""Folds of one's own: labels, splitters, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")

from sklearn import model_selection

from sampleweights import CrossEntropyLoss
from sampleweights.compare import compare, default_entries

RANDOM = np.random.default_rng(0)
TARGET = RANDOM.permutation(np.repeat([0, 1, 2], [60, 40, 20]))
FEATURES = RANDOM.normal(size=(120, 4)).astype(np.float32)
FEATURES[:, 0] += TARGET
HOSPITAL = np.array(["A", "B", "C"])[np.arange(120) % 3]
ROWS = {name: default_entries()[name] for name in ("no weighting", "ClassBalanced")}


class Spy:
    """A training that notes what it was given, and predicts the true class."""

    def __init__(self, target=TARGET):
        self.target, self.runs = target, []

    def __call__(self, criterion, train, validation, sampler=None, seed=0):
        self.runs.append((train.tolist(), validation.tolist()))
        logits = torch.zeros(len(validation), 3)
        logits[torch.arange(len(validation)), self.target[validation]] = 1.0 + seed % 2
        return logits


def compared(folds, data=None, target=TARGET, **options):
    options = {"entries": ROWS, "num_epochs": 2, "progress": False, "workers": 1, **options}
    return compare(Spy(target) if data is None else data, target, folds=folds, **options)


def runs_of(folds, **options):
    """Training and validation part of each fold of the first row."""
    spy = Spy()
    compared(folds, spy, entries={"row": lambda n, e: CrossEntropyLoss()}, **options)
    return spy.runs


# --------------------------------------------------------------------------------------------
# What is trained on what
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        HOSPITAL, [*HOSPITAL], pd.Series(HOSPITAL), np.arange(120) % 3, torch.arange(120) % 3,
        (np.arange(120) % 3).astype(float), pd.Series(HOSPITAL, dtype="category"),
    ],
)  # fmt: skip
def test_each_label_is_a_fold(labels):
    expected = [
        (np.flatnonzero(np.arange(120) % 3 != k).tolist(), list(range(k, 120, 3))) for k in range(3)
    ]
    assert runs_of(labels) == expected


@pytest.mark.parametrize(
    "splitter",
    [
        model_selection.KFold(4, shuffle=True, random_state=3),
        model_selection.StratifiedKFold(4),
        model_selection.GroupKFold(3),
        model_selection.StratifiedGroupKFold(3),
        model_selection.LeaveOneGroupOut(),
        model_selection.PredefinedSplit(np.arange(120) % 5 - 1),
        model_selection.TimeSeriesSplit(4),
        model_selection.TimeSeriesSplit(4, max_train_size=30, gap=3),
        model_selection.RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0),
        model_selection.KFold(3, shuffle=True, random_state=np.random.RandomState(0)),
    ],
)
def test_a_splitter_decides_who_is_trained_on(splitter):
    grouped = "Group" in type(splitter).__name__
    groups = HOSPITAL if grouped else None
    found = runs_of(splitter, groups=groups)
    expected = splitter.split(FEATURES, TARGET, groups)
    assert found == [(sorted(train.tolist()), sorted(part.tolist())) for train, part in expected]


def test_a_splitter_gets_the_features():
    class ByFirstFeature:
        def get_n_splits(self, features, target, groups):
            return 2

        def split(self, features, target, groups):
            np.testing.assert_array_equal(features, FEATURES)
            low = features[:, 0] < np.median(features[:, 0])
            yield np.flatnonzero(low), np.flatnonzero(~low)
            yield np.flatnonzero(~low), np.flatnonzero(low)

    comparison = compared(ByFirstFeature(), FEATURES)
    low = FEATURES[:, 0] < np.median(FEATURES[:, 0])
    assert (comparison.fold[0] == low).all()
    assert comparison.facts["protocol"].startswith("2 folds of ByFirstFeature, 1 repeat,")


def test_class_counts_are_those_of_each_training_part():
    splitter = model_selection.TimeSeriesSplit(4)
    comparison = compared(splitter)
    expected = [
        np.bincount(TARGET[train], minlength=3).tolist() for train, _ in splitter.split(TARGET)
    ]
    assert comparison.counts[0].tolist() == expected


def test_repeats_of_a_splitter_are_repeats():
    splitter = model_selection.RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)
    comparison = compared(splitter, FEATURES)
    assert comparison.repeats == 2
    assert comparison.folds == 3
    splits = [part for _, part in splitter.split(FEATURES)]
    for repeat in range(2):
        for k in range(3):
            found = np.flatnonzero(comparison.fold[repeat] == k)
            assert found.tolist() == splits[3 * repeat + k].tolist()


# --------------------------------------------------------------------------------------------
# Samples that are never validated
# --------------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_samples_that_are_validated():
    fold = np.where(np.arange(120) < 40, -1, np.arange(120) % 4)
    comparison = compared(fold, FEATURES)
    assert comparison.num_samples == 80
    assert comparison.facts["samples"] == "120 of 3 classes, 80 of them validated"
    assert comparison.target.tolist() == TARGET[40:].tolist()
    right = comparison.logits["no weighting"][0].argmax(1) == TARGET[40:]
    assert comparison.estimate("no weighting", "accuracy").value == pytest.approx(
        100 * right.mean()
    )
    # the code to paste is for a training on all of them
    assert comparison.class_counts == [60, 40, 20]
    assert comparison.verdict.text


def test_copies_of_samples_that_are_only_trained_on_are_told():
    features = FEATURES.copy()
    features[[100, 110]] = features[[0, 0]]  # sample 0 is only trained on
    fold = np.where(np.arange(120) < 40, -1, np.arange(120) % 5)  # and 100 and 110 in one fold
    [found] = [
        check
        for check in compared(fold, features).checks
        if check.code == "duplicates-across-folds"
    ]
    assert found.text.startswith("2 of 80 samples")


def test_suspicious_labels_are_numbered_as_they_were_given():
    random = np.random.default_rng(1)
    target = random.permutation(np.repeat([0, 1, 2], 100))
    wrong = np.array([150, 170, 190, 210])
    labels = target.copy()
    labels[wrong] = (target[wrong] + 1) % 3
    sure = np.linspace(1, 9, 300)[random.permutation(300)]
    sure[wrong] = 9

    def fit(criterion, train, validation, sampler=None, seed=0):
        return np.eye(3)[target[validation]] * sure[validation, None]

    fold = np.where(np.arange(300) < 100, -1, np.arange(300) % 4)
    comparison = compared(fold, fit, labels)
    assert sorted(comparison.suspicious_labels()["index"]) == wrong.tolist()


def test_a_single_fold_is_predicted_by_several_models():
    """Train on hospital A, and test on hospital B: no model sees a sample of B."""
    for folds in (
        np.where(HOSPITAL == "B", 0, -1),
        model_selection.PredefinedSplit(np.where(HOSPITAL == "B", 0, -1)),
        model_selection.ShuffleSplit(1, test_size=40, random_state=0),
    ):
        runs = runs_of(folds)
        assert len(runs) == 5
        assert len({tuple(train) for train, _ in runs}) == 1
        train, validated = runs[0][0], sorted(row for _, part in runs for row in part)
        assert len(validated) == 40
        assert not {*train} & {*validated}
        if not isinstance(folds, model_selection.ShuffleSplit):
            assert validated == list(range(1, 120, 3))
            assert train == [i for i in range(120) if i % 3 != 1]
    assert compared(np.where(HOSPITAL == "B", 0, -1)).facts["protocol"].startswith("1 split of")


# --------------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------------

LATE = np.sort(TARGET)[::-1]  # class 0 comes last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": HOSPITAL[:9]}, r"folds must have shape \(120,\), .* got \(9,\)"),
        ({"folds": np.zeros((120, 2))}, r"folds must have shape \(N,\), .* got shape \(120, 2\)"),
        ({"folds": np.where(HOSPITAL == "A", np.nan, 1)}, "folds must have no missing values"),
        ({"folds": "hospital"}, "folds must be their number, an array .* got 'hospital'"),
        ({"folds": np.zeros(120)}, r"folds must have at least two labels, .* got 0 for all"),
        ({"folds": np.full(120, -1)}, r"folds must have at least two labels, .* got -1 for all"),
        ({"folds": HOSPITAL, "repeats": 2}, "repeats must be 1 with folds .* got 2: give a split"),
        (
            {"folds": HOSPITAL, "groups": np.arange(120) // 2 + 100},
            r"folds must not divide a group, got group 100, 101, 103, 104, 106 and 35 more both in "
            r"the training and in the validation part of fold 'A'",
        ),
        (
            {"folds": model_selection.KFold(4), "groups": ["p1"] * 31 + ["p2"] * 89},
            r"got group 'p1' both in .* fold 0: give folds that keep groups together",
        ),
        (
            {"folds": np.where(TARGET == 2, 0, np.arange(120) % 3)},
            r"folds must leave samples of every class .* class '2' in the training part of fold 0",
        ),
        (
            {"folds": np.where(TARGET == 2, -1, np.arange(120) % 3)},
            r"folds must validate samples of every class, got none of class '2'",
        ),
        (
            {"folds": model_selection.TimeSeriesSplit(3), "target": LATE},
            r"samples of every class to train on, got none of class '0' in .* of fold 0",
        ),
        (
            {"folds": model_selection.ShuffleSplit(3, random_state=0)},
            "folds must validate no sample twice .* got a ShuffleSplit, which does: give KFold",
        ),
        (
            {"folds": model_selection.PredefinedSplit(np.arange(100) % 3)},
            r"folds must be of the 120 samples of target, got a PredefinedSplit of 100",
        ),
        (
            {"folds": model_selection.GroupKFold(3)},
            r"folds: GroupKFold cannot split these samples: The 'groups' parameter should not",
        ),
        (
            {"folds": np.where(np.isin(np.arange(120), [0, 1, 2]), 0, -1)},
            r"folds: the validation part of a single fold is divided into 5, and every class must",
        ),
    ],
)  # fmt: skip
def test_folds_that_cannot_be_compared_on(options, message):
    with pytest.raises(ValueError, match=message):
        compared(**options)


def test_a_number_of_folds_is_a_whole_number():
    with pytest.raises(TypeError, match="folds must be a whole number, got 2.5"):
        compared(2.5)
    assert len(runs_of(np.int64(3))) == 3


# --------------------------------------------------------------------------------------------
# Kept runs
# --------------------------------------------------------------------------------------------


def test_runs_are_kept_for_the_same_folds_only(tmp_path):
    def number(folds):
        compared(folds, cache=tmp_path)
        return len([*tmp_path.glob("*.npz")])

    assert number(HOSPITAL) == 6
    assert number(np.arange(120) % 3) == 6  # the same folds under other names
    assert number(np.arange(120) // 40) == 12
    # the same validation parts, and fewer samples to train on
    before = number(np.where(np.arange(120) < 24, -1, np.arange(120) // 24))
    assert number(model_selection.TimeSeriesSplit(4)) == before + 8


def test_leaving_one_group_out_has_intervals():
    """Each fold is a group: what trainings do cannot be told from what groups do."""
    groups = np.arange(120) % 12
    comparison = compared(model_selection.LeaveOneGroupOut(), FEATURES, groups=groups)
    by = comparison.difference("ClassBalanced", "no weighting", "accuracy")
    assert by.low < by.value < by.high
    assert np.isfinite([by.low, by.high]).all()
