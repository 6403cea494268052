"""Targets of several labels: how they are read, and how they are dealt into folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("pandas")
pytest.importorskip("sklearn")

import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.preprocessing import MultiLabelBinarizer

from sampleweights.compare.inputs.multilabel import has_labels, labels, read_target
from sampleweights.compare.training.label_folds import (
    check_label_parts,
    folds_of_labels,
    label_counts,
)

TARGET = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    "given",
    [
        TARGET,
        TARGET.astype(bool),
        TARGET.astype(np.float32),
        TARGET.astype(np.uint8),
        TARGET.tolist(),
        torch.from_numpy(TARGET),
        torch.from_numpy(TARGET).to(torch.bfloat16),
        csr_matrix(TARGET),
        pd.DataFrame(TARGET),
    ],
    ids=lambda given: f"{type(given).__name__}-{getattr(given, 'dtype', '')}",
)
def test_zeros_and_ones_of_any_kind(given: object) -> None:
    assert has_labels(given)
    found, names = read_target(given)
    assert found.dtype == np.int64
    assert found.tolist() == TARGET.tolist()
    assert names == ["0", "1", "2"]


@pytest.mark.parametrize("sparse", [False, True])
def test_what_multilabelbinarizer_gives(sparse: bool) -> None:
    binarizer = MultiLabelBinarizer(sparse_output=sparse)
    given = binarizer.fit_transform([["cat", "dog"], ["cow"], [], ["cat", "cow"]])
    found, names = labels(given, binarizer.classes_)
    assert names == ["cat", "cow", "dog"]
    assert found.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]


def test_columns_of_a_data_frame_are_the_names() -> None:
    frame = pd.DataFrame(TARGET, columns=["sea", "sun", "snow"])
    assert labels(frame)[1] == ["sea", "sun", "snow"]
    assert labels(frame, ["a", "b", "c"])[1] == ["a", "b", "c"]
    assert labels(frame, {"sea": "Meer", "sun": "Sonne", "snow": "Schnee"})[1][0] == "Meer"
    assert labels(TARGET, {0: "x", 1: "y", 2: "z", 3: "more"})[1] == ["x", "y", "z"]


def test_one_column_is_a_target_of_classes() -> None:
    assert not has_labels(TARGET[:, 0])
    assert not has_labels(TARGET[:, :1])
    assert not has_labels([["a"], ["b", "c"]])
    with pytest.raises(ValueError, match=r"target must have shape \(N,\)"):
        read_target(TARGET[:, :1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (2, "got 2 for sample 1 (counted from 0), label 'sun'"),
        (-1, "labels that are unknown are not supported"),
        (np.nan, "labels that are unknown are not supported"),
        (0.5, "got 0.5 for sample 1"),
    ],
)
def test_other_values_are_refused(change: float, said: str) -> None:
    values = TARGET.astype(type(change))
    values[1, 1] = change
    with pytest.raises(ValueError, match=r"0 and 1 of shape \(N, L\)") as error:
        labels(pd.DataFrame(values, columns=["sea", "sun", "snow"]))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("given", "names", "said"),
    [
        (TARGET.astype(str), None, "got '0' for sample 0"),
        (TARGET | [0, 1, 0], None, "got all of them with '1': leave its column out"),
        (TARGET * [1, 0, 1], ["a", "b", "c"], "got none with 'b': leave its column out"),
        (np.eye(3), None, r"exactly one for each sample: these are classes.*argmax\(1\)"),
        (TARGET, ["a", "b"], "one name for each of the 3 classes of target .* got 2 names"),
        (TARGET, ["a", "b", "a"], "class_names must differ from each other, got a, b, a"),
        (TARGET, {0: "a"}, "class_names must have a name for each of the classes of target"),
        (TARGET, "abc", "class_names must be a list of names"),
        (TARGET[None], None, "target must have shape"),
    ],
)
def test_what_is_no_target_of_labels_is_refused(given: object, names: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        labels(given, names)  # type: ignore[arg-type]


def rare(size: int = 300, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.random((size, 5)) < [0.5, 0.2, 0.1, 0.05, 0.04]).astype(np.int64)


NAMES = list("abcde")


def test_each_label_is_spread_over_the_folds() -> None:
    target = rare()
    fold = folds_of_labels(target, None, NAMES, 5, 3, 0)
    assert fold.shape == (3, 300)
    for of_repeat in fold:
        sizes = np.bincount(of_repeat)
        assert sizes.max() - sizes.min() <= 2
        for column in target.T:
            inside = np.bincount(of_repeat, column, 5)
            assert abs(inside - column.sum() / 5).max() <= 2
    assert not np.array_equal(fold[0], fold[1])
    assert np.array_equal(fold, folds_of_labels(target, None, NAMES, 5, 3, 0))
    assert np.array_equal(fold[1:], folds_of_labels(target, None, NAMES, 5, 2, 1))


def test_groups_stay_together() -> None:
    target, groups = rare(), np.arange(300) // 4
    fold = folds_of_labels(target, groups, NAMES, 3, 1, 0)
    assert (fold[0] == fold[0][groups * 4]).all()
    for column in target.T:
        inside = np.bincount(fold[0], column, 3)
        assert abs(inside - column.sum() / 3).max() <= 6


def test_counts_are_those_of_the_training_parts() -> None:
    target = rare(50)
    fold = np.random.default_rng(0).integers(0, 3, (2, 50))
    counts = label_counts(target, fold)
    assert counts.shape == (2, 3, 5, 2)
    for r in range(2):
        for k in range(3):
            part = target[fold[r] != k]
            assert counts[r, k].tolist() == [
                [int((c == 0).sum()), int((c == 1).sum())] for c in part.T
            ]


def test_too_few_samples_of_a_label_are_refused() -> None:
    target = rare()
    target[:, 2] = np.arange(300) < 3
    said = r"every label must have at least as many samples .* \(5\), got 3 with 'c'"
    with pytest.raises(ValueError, match=said):
        folds_of_labels(target, None, NAMES, 5, 1, 0)
    target[:, 2] = np.arange(300) >= 3
    with pytest.raises(ValueError, match="got 3 without 'c'"):
        folds_of_labels(target, None, NAMES, 5, 1, 0)
    target[:, 2] = np.arange(300) < 30
    with pytest.raises(ValueError, match="groups .* got 3 with 'c'"):
        folds_of_labels(target, np.arange(300) // 10, NAMES, 5, 1, 0)


def test_a_label_that_is_in_one_fold_alone_is_refused() -> None:
    fold = np.arange(5)[None] // 2
    target = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [0, 0]])
    said = "all samples with 'a' fall into fold 0, so that there is none to train on"
    with pytest.raises(ValueError, match=said):
        check_label_parts(target, fold, ["a", "b"])
    with pytest.raises(ValueError, match="all samples without 'a' fall into fold 0"):
        check_label_parts(1 - target, fold, ["a", "b"])
