"""gains.json: what each weighting gained over none, and whether the plain model was fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score
from test_isic2018_training import a_run, made_results

from examples.isic2018 import data, gains, results
from examples.isic2018.training import execute, restored

SEEDS = {"none": 0, "class_balanced": 1, "none_posthoc": 0}


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.digits(2)


def test_gains_are_differences_of_means_with_intervals(
    digits: data.Dataset, tmp_path: Path
) -> None:
    found, summary = made_results(digits, tmp_path, SEEDS)
    rows = gains.gains(found)
    assert list(rows) == ["no weights", "ClassBalanced", "post-hoc, tau 1", "post-hoc, tau 0.5"]
    for weighting in SEEDS:
        row, name = summary.loc[("flat", "adam", "ce", weighting)], gains.NAMES[weighting]
        for metric, ours in (("bacc", "balanced_accuracy"), ("acc", "accuracy")):
            value, low, high = rows[name][ours]
            assert value == pytest.approx(row[metric], abs=0.01)
            assert low < value < high
            if weighting == "none":
                assert f"{ours} gain" not in rows[name]
                continue
            plain = summary.loc[("flat", "adam", "ce", "none"), metric]
            gain, low, high = rows[name][f"{ours} gain"]
            assert gain == pytest.approx(row[metric] - plain, abs=0.02)
            assert low < gain < high


def test_half_of_the_adjustment_is_the_formula(digits: data.Dataset, tmp_path: Path) -> None:
    found, _ = made_results(digits, tmp_path, {"none": 0})
    balanced = []
    for run in found.runs:
        split, target = digits.split[run.split], digits.target.numpy()
        counts = np.bincount(target[split.train], minlength=7)
        scores = np.log(found.probabilities(run)) - 0.5 * np.log(counts / counts.sum())
        balanced.append(recall_score(target[split.validation], scores.argmax(1), average="macro"))
    [value, _, _] = gains.gains(found)["post-hoc, tau 0.5"]["balanced_accuracy"]
    assert value == pytest.approx(100 * np.mean(balanced), abs=0.01)


def test_without_a_plain_run_there_is_no_gain(digits: data.Dataset, tmp_path: Path) -> None:
    found, _ = made_results(digits, tmp_path, {"ohem": 0})
    assert gains.gains(found) == {}
    assert gains.sentence(gains.summary(found, "report", with_recall=True)) == ""


@pytest.mark.slow
def test_recall_on_the_training_part(digits: data.Dataset, tmp_path: Path) -> None:
    run = a_run(weighting="none")
    execute(run, digits, tmp_path / run.name)
    found = results.Results([run], tmp_path, {"flat": digits})
    experiment = restored(run, digits, tmp_path / run.name)
    rows = torch.as_tensor(digits.split[0].train)
    encoder, model = experiment.encoder.eval(), experiment.model.eval()
    with torch.no_grad():
        views = [model(encoder(view)) for view in digits.inputs[rows].unbind(1)]
    logits = [view["logits"] if isinstance(view, dict) else view for view in views]
    predicted = sum(each.softmax(1) for each in logits).argmax(1)
    expected = 100 * recall_score(digits.target[rows], predicted, average=None)
    [recall] = gains.train_recall(found).values()
    assert list(recall) == digits.classes
    assert list(recall.values()) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("recall", "said"), [(80.0, "so try post-hoc"), (20.0, "has not fitted")])
def test_the_rarest_class_decides(recall: float, said: str) -> None:
    half = {"accuracy gain": [-0.5, -1, 0], "balanced_accuracy gain": [3.25, 1, 5]}
    found: dict[str, Any] = {
        "class_counts": {"common": 90, "rare": 9},
        "train_recall": {"no weights": {"common": 0.0, "rare": recall}},
        "rows": {"post-hoc, tau 0.5": half},
    }
    text = gains.sentence(found)
    assert said in text
    assert f"{recall:.0f} % of the 9 training images of the rarest class, rare." in text
    assert "its accuracy changes by -0.5 and its balanced accuracy changes by +3.2" in text
