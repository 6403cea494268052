"""Decisions from the predictions that docs/results/small keeps."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

import sampleweights as sw
from examples.isic2018 import __main__ as command
from examples.isic2018 import decisions
from examples.isic2018.decisions import MEL, UTILITY, Part
from examples.isic2018.official import CLASSES, DataError


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return decisions.of_kept(decisions.KEPT)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_labels_are_those_of_the_predictions(parts: list[Part]) -> None:
    for part in parts:
        accuracy = accuracy_score(part.target, part.logits["none"].argmax(1))
        assert 100 * accuracy == pytest.approx({0: 80.93, 1: 80.53}[part.seed], abs=0.01)


def test_nothing_is_fitted_on_lesions_that_are_judged(parts: list[Part]) -> None:
    with np.load(decisions.KEPT / decisions.LABELS) as labels:
        for part in parts:
            own, other = labels[f"group{part.seed}"], labels[f"group{1 - part.seed}"]
            shared = np.isin(other, own)
            assert shared.any()
            assert len(part.held_out_target) == (~shared).sum()
            assert part.held_out["none"].shape == ((~shared).sum(), len(CLASSES))


def test_the_table_of_the_dermatologists_is_in_the_order_of_the_targets() -> None:
    assert UTILITY.shape == (7, 7)
    by_name = {name: dict(zip(CLASSES, row, strict=True))
               for name, row in zip(CLASSES, UTILITY, strict=True)}  # fmt: skip
    assert by_name["MEL"] == {"AKIEC": -4, "BCC": -3, "BKL": -5, "DF": -5, "MEL": 5, "NV": -5,
                              "VASC": -5}  # fmt: skip
    assert by_name["BCC"] == {"AKIEC": -2, "BCC": 3, "BKL": -4, "DF": -4, "MEL": -2, "NV": -4,
                              "VASC": -4}  # fmt: skip
    assert by_name["NV"]["MEL"] == -3


def test_utility_against_weights_and_argmax(parts: list[Part]) -> None:
    """What the network without weights brings when it decides by utility, by hand."""
    by_utility, by_argmax, weighted = [], [], []
    for part in parts:
        expected = part.logits["none"].double().softmax(1).numpy() @ UTILITY
        for found, decision in (
            (by_utility, expected.argmax(1)),
            (by_argmax, part.logits["none"].argmax(1).numpy()),
            (weighted, part.logits["effective_number"].argmax(1).numpy()),
        ):
            recall = recall_score(part.target, decision, average=None)
            found.append([
                UTILITY[part.target, decision].mean(),
                100 * accuracy_score(part.target, decision),
                100 * balanced_accuracy_score(part.target, decision),
                100 * recall[MEL], 100 * recall[CLASSES.index("BCC")],
            ])  # fmt: skip
    gain = np.mean(by_utility, 0) - np.mean(by_argmax, 0)
    assert gain[[1, 3, 4]] == pytest.approx([-0.5, 16.5, 4.4], abs=0.1)
    over = np.mean(by_utility, 0) - np.mean(weighted, 0)
    assert over[:2] == pytest.approx([0.31, 7.7], abs=0.05)

    rows = decisions.rows(parts)
    assert len(rows) == 16
    found = decisions.metrics(parts, rows["no weights", "raw", "utility"])
    for column, value in zip(decisions.COLUMNS, np.mean(by_utility, 0), strict=True):
        assert found[column][0] == pytest.approx(value)
        assert found[column].shape == (1 + decisions.RESAMPLES,)
    plain = decisions.metrics(parts, rows["no weights", "raw", "argmax"])
    shown = decisions.estimate(found["MEL"] - plain["MEL"])
    assert (shown.low, shown.high) == pytest.approx((12.9, 20.2), abs=0.3)


def test_drawing_lesions_draws_their_images_together() -> None:
    part = Part(0, np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), np.ones(7, np.int64), {}, {},
                torch.zeros(0))  # fmt: skip
    values = part.drawn_means(np.array([1.0, 2.0, 3.0, 10.0]))
    assert values[0] == 4
    assert set(values[1:].round(6)) == {2.0, 4.0, 10.0}  # the first lesion twice, both, the second
    alone = part.drawn_means(np.array([1.0, 2.0, 3.0, 10.0]), np.array([True, False, True, True]))
    assert alone[0] == pytest.approx(14 / 3)


def test_sets_with_the_prevalence_score(parts: list[Part]) -> None:
    covered, size = [], []
    for part in parts:
        sets = sw.PredictionSets.fit(part.held_out["none"], part.held_out_target, 0.9, part.counts)
        inside = sets(part.logits["none"]).numpy()
        hit = inside[np.arange(len(inside)), part.target]
        covered.append(mean([hit[part.target == c].mean() for c in range(7)]))
        size.append(inside.sum(1).mean())
    assert mean(covered) >= 0.86
    assert mean(size) <= 1.6


@pytest.mark.slow
def test_em_recovers_dirichlet_priors(parts: list[Part]) -> None:
    """600 lesions at other frequencies, calibrated on others of the same network."""
    generator, lost, gained = np.random.default_rng(0), [], []
    for draw in range(40):
        part = parts[draw % 2]
        lesions = generator.permutation(part.group.max() + 1)
        fit = np.isin(part.group, lesions[: len(lesions) // 2])
        logits, target = part.logits["none"], torch.from_numpy(part.target)
        calibration = sw.Calibration.fit(logits[fit], target[fit])
        counts = target[fit].bincount(minlength=7)
        prior = generator.dirichlet(np.ones(7))
        rest = np.flatnonzero(~fit)
        chosen = [
            generator.choice(rest[part.target[rest] == c])
            for c in generator.choice(7, 600, p=prior)
        ]
        z, adjustment = calibration(logits[chosen]), sw.LogitAdjustment(counts)
        estimate = sw.estimate_prior(z, counts)
        right = [
            100 * (adjustment.posthoc(z, p).argmax(1) == target[chosen]).double().mean().item()
            for p in (prior, estimate.prior, None)
        ]
        lost.append(right[0] - right[1])
        plain = 100 * (z.argmax(1) == target[chosen]).double().mean().item()
        gained.append(right[1] - plain)
    assert mean(lost) < 3
    assert mean(gained) > 5


def test_the_macro_f1_of_the_table(parts: list[Part]) -> None:
    decision = parts[0].logits["none"].argmax(1).numpy()
    expected = 100 * f1_score(parts[0].target, decision, average="macro")
    assert decisions.macro_f1(decision, parts[0].target) == pytest.approx(expected)


def test_a_command_prints_the_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(decisions, "HALVES", 1)
    monkeypatch.setattr(decisions, "RESAMPLES", 50)
    monkeypatch.setattr(sys, "argv", ["isic2018", "decisions"])
    command.main()
    text = capsys.readouterr().out
    assert re.search(r"\| no weights \| raw \| utility \| 0\.51 .* \| 80\.3 .* \| 54\.5 ", text)
    assert len(re.findall(r"^\| (?:no weights|post-hoc|EffectiveNumber|OHEM) \|", text, re.M)) == 31
    assert len(re.findall(r"^\| (?:raw|calibrated) \| -?0", text, re.M)) == 6
    monkeypatch.setattr(sys, "argv", ["isic2018", "decisions", "--kept", str(tmp_path)])
    with pytest.raises(SystemExit, match="must hold labels.npz"):
        command.main()
    with pytest.raises(DataError):
        decisions.of_kept(tmp_path)


def made_results(folder: Path, size: int = 240) -> SimpleNamespace:
    """Two splits of made-up images, two of each lesion, and a test set for the second one."""
    generator = np.random.default_rng(0)
    target = np.arange(size) // 2 % 7
    table = pd.DataFrame({"lesion": np.arange(size) // 2, "image": np.arange(size)})
    splits = {
        seed: SimpleNamespace(
            train=np.arange(180, size), validation=np.arange(60 * seed, 60 * seed + 120)
        )
        for seed in (0, 1)
    }
    test = SimpleNamespace(target=torch.from_numpy(target[:70]), table=table[:70])
    main = [
        SimpleNamespace(row=("flat", "adam", "ce", weighting), weighting=weighting, split=seed,
                        name=f"{weighting}-{seed}")
        for weighting in ("none", "ohem")
        for seed in (0, 1)
    ]  # fmt: skip

    def predicted(of: np.ndarray) -> np.ndarray:
        scores = generator.random((len(of), 7)).astype(np.float32)
        scores[np.arange(len(of)), of] += 1
        return scores / scores.sum(1, keepdims=True)

    for run in main:
        (folder / run.name).mkdir(parents=True)
        arrays = {"validation_probabilities": predicted(target[splits[run.split].validation])}
        if run.split == 1:
            arrays["test_probabilities"] = predicted(target[:70])
        np.savez(folder / run.name / "predictions.npz", **arrays)

    def probabilities(run: Any) -> np.ndarray:
        with np.load(folder / run.name / "predictions.npz") as file:
            return file["validation_probabilities"]

    dataset = SimpleNamespace(
        is_the_papers=True, target=torch.from_numpy(target), table=table, classes=CLASSES,
        split=splits, test=test,
    )  # fmt: skip
    return SimpleNamespace(main=main, dataset=dataset, folder=folder, probabilities=probabilities)


def test_runs_of_a_report_are_decided_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "HALVES", 2)
    monkeypatch.setattr(decisions, "RESAMPLES", 20)
    results = made_results(tmp_path / "runs")
    parts = decisions.of_results(results)
    assert [part.seed for part in parts] == [0, 1]
    assert [len(part.held_out_target) for part in parts] == [60, 60]  # of 120, half are shared
    text = "\n".join(decisions.section(parts))
    assert "| no weights | calibrated | utility |" in text
    assert "EffectiveNumber" not in text  # which did not run
    decisions.write_labels(results, tmp_path)
    with np.load(tmp_path / decisions.LABELS) as labels:
        assert labels["target1"].tolist() == parts[1].target.tolist()

    [test] = decisions.of_test(results)  # the models of the second split alone were evaluated
    assert test.seed == 1
    assert test.logits["none"].shape == (70, 7)
    assert test.held_out["ohem"].shape == (120, 7)
    assert "| OHEM | raw | argmax |" in "\n".join(decisions.section([test]))

    results.dataset.target = torch.zeros(240, dtype=torch.int64)  # nothing could be calibrated
    assert decisions.of_results(results) == []
    results.dataset.is_the_papers = False  # the digits
    assert decisions.of_results(results) == decisions.of_test(results) == []
