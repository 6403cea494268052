from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from examples.advice import __main__ as command
from examples.advice import multi_label, noisy_labels, rare_classes, two_classes
from examples.advice.table import FOLDER, Table


@pytest.mark.parametrize("name", command.TRIALS)
def test_the_saved_table_is_that_of_the_saved_values(name: str) -> None:
    saved = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert saved == f"{Table.load(name)}\n"


def test_a_cell_is_mean_and_standard_deviation() -> None:
    table = Table("", "row", {"a": {"x": [1.0, 3.0]}, "b": {"y": [2.0]}})
    assert str(table).splitlines()[2:] == ["| a | 2.0 ± 1.4 |  |", "| b |  | 2.0 |"]


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(seeds: int) -> Table:
        return rare_classes.run(seeds, epochs=[1])

    monkeypatch.setitem(command.TRIALS, "rare-classes", run)
    monkeypatch.setattr(sys, "argv", ["advice", "rare-classes", "--seeds", "1"])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (FOLDER / "rare-classes.md").read_text().splitlines()[0]
    assert lines[2].startswith("| 1 | 0.0 | 0.0 |")


def test_five_classes() -> None:
    inputs, target, test_inputs, test_target = rare_classes.five_classes(0)
    assert target.bincount().tolist() == rare_classes.COUNTS
    assert len(inputs) + len(test_inputs) == 1797
    assert test_target.unique().tolist() == list(range(5))


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_wrong_digits(share: float) -> None:
    right = noisy_labels.wrong_digits(6, 0, 0)
    given = noisy_labels.wrong_digits(6, share, 0)
    assert torch.equal(right[0], given[0])
    assert torch.equal(right[3], given[3])
    assert (right[1] != given[1]).sum() == round(share * len(right[1]))
    assert sorted(right[1].bincount().tolist())[::9] == [15, 90]


@pytest.mark.slow
def test_noisy_labels() -> None:
    table = noisy_labels.run(seeds=1, epochs=1)
    assert list(table.values) == list(noisy_labels.WEIGHTERS)
    assert {len(row) for row in table.values.values()} == {4}


def test_thresholds_are_best_for_f1() -> None:
    generator = np.random.default_rng(0)
    label = (generator.random((30, 3)) < 0.2).astype(np.float32)
    score = (generator.random((30, 3)) + 0.4 * label).astype(np.float32)
    chosen = multi_label.thresholds(label, score)
    for truth, values, threshold in zip(label.T, score.T, chosen, strict=True):
        best = max(f1_score(truth, values >= value) for value in values)
        assert f1_score(truth, values >= threshold) == best


def test_pictures() -> None:
    data = multi_label.pictures(0)
    for inputs, label in data.values():
        assert inputs.shape[1] == 192
        assert label.sum(1).min() >= 1
        assert label.sum(1).max() == 3
    label = data["train"][1]
    assert (multi_label.with_wrong_labels(label, 0) != label).sum() == len(label) // 10


@pytest.mark.slow
def test_multi_label() -> None:
    table = multi_label.run(seeds=1, epochs=1)
    assert list(table.values) == list(multi_label.CRITERIA)
    assert {len(row) for row in table.values.values()} == {6}


def test_the_cheapest_threshold() -> None:
    generator = np.random.default_rng(0)
    target = generator.random(300) < 0.05
    logits = generator.normal(size=300) + 2 * target
    costs = [two_classes.cost(target, logits >= threshold) for threshold in logits]
    assert two_classes.cost(target, logits >= two_classes.cheapest(target, logits)) == min(costs)


def test_cost() -> None:
    target, alarm = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert two_classes.cost(target, alarm) == 1000 * (100 + 1) / 4


def test_one_of_a_thousand_is_positive() -> None:
    ((_, target, truth),) = two_classes.samples([200_000], 0)
    assert target.mean().item() == pytest.approx(0.001, rel=0.2)
    assert (1 / (1 + np.exp(-truth))).mean() == pytest.approx(0.001, rel=0.1)


@pytest.mark.slow
def test_two_classes() -> None:
    table = two_classes.run(seeds=1, epochs=1, scale=0.1)
    assert list(table.values) == [*two_classes.METHODS, "the true probabilities"]
    assert {len(row) for row in table.values.values()} == {8}
