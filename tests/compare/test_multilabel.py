"""A comparison for several labels of each sample, from the arrays to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import pandas as pd
from sklearn.metrics import average_precision_score, f1_score

import sampleweights as sw
from sampleweights.__main__ import main
from sampleweights.compare import (
    LABEL_METRICS,
    Comparison,
    LabelComparison,
    compare,
    default_label_entries,
)
from sampleweights.compare.adjustment import adjusted
from sampleweights.compare.label_adjustment import choose_label_tau
from sampleweights.compare.report.recipes import code
from sampleweights.compare.statistics import POSTHOC
from sampleweights.compare.training.entries import build, is_adjustable
from sampleweights.compare.training.fingerprint import fingerprint
from sampleweights.compare.training.fitted import FittedLabels
from sampleweights.compare.training.label_folds import label_counts

NAMES = ["sea", "sun", "snow"]
SIZE = 240


def scenes(size: int = SIZE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 6), and labels (N, 3) that two fifths to a seventh of the samples have."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((size, 6)).astype(np.float32)
    latent = features[:, :3] + 0.8 * random.standard_normal((size, 3))
    return features, (latent > [0.3, 0.8, 1.4]).astype(np.int64)


FEATURES, TARGET = scenes()


def rows(*names: str) -> dict[str, Any]:
    return {name: default_label_entries()[name] for name in names}


def compared(data: Any = FEATURES, target: Any = TARGET, **options: Any) -> LabelComparison:
    entries = rows("no weighting", "ClassBalanced")
    found = compare(
        data, target,
        **{"entries": entries, "folds": 3, "num_epochs": 3, "workers": 1, "progress": False,
           "class_names": NAMES, **options},
    )  # fmt: skip
    assert isinstance(found, LabelComparison)
    return found


@pytest.fixture(scope="module")
def usual() -> LabelComparison:
    return compared(num_epochs=12)


def recorded(sharp: float, shift: float = 0.0, **options: Any) -> LabelComparison:
    """Of logits that are made up: those of the second row follow the labels more or less."""
    _, target = scenes(900)
    random = np.random.default_rng(5)
    noise = random.standard_normal((2, 1, 900, 3)) + 0.5 * random.standard_normal((1, 1, 900, 3))
    steep = np.array([1.0, sharp])[:, None, None, None]
    logits = (steep * 2 * (target - 0.5) + noise - shift).astype(np.float32)
    fold = np.arange(900)[None] % 5
    return LabelComparison(
        dict(zip(["no weighting", "other"], logits, strict=True)), ["no weighting"], target, None,
        fold, label_counts(target, fold), NAMES, **options,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------
# From features to numbers
# --------------------------------------------------------------------------------------------


def test_numbers_are_scikit_learns_of_the_logits_out_of_fold(usual: LabelComparison) -> None:
    logits = usual.logits["no weighting"][0]
    assert logits.shape == (SIZE, 3)
    found = usual.table().loc["no weighting"]
    area = average_precision_score(TARGET, logits, average="macro")
    assert found["average_precision"] == pytest.approx(100 * area)
    assert found["macro_f1"] == pytest.approx(100 * f1_score(TARGET, logits > 0, average="macro"))
    assert found["f1_sun"] == pytest.approx(100 * f1_score(TARGET[:, 1], logits[:, 1] > 0))
    assert found["average_precision"] > 100 * TARGET.mean() + 20  # it has learnt


def test_the_table_has_all_metrics_and_differences(usual: LabelComparison) -> None:
    table = usual.table()
    for metric in LABEL_METRICS:
        assert metric in table
    for label in NAMES:
        for of in ("average_precision", "auroc", "f1", "recall", "precision"):
            assert f"{of}_{label}" in table
    for metric in ("average_precision", "macro_f1"):
        for end in ("low", "high", "difference", "difference_low", "difference_high"):
            assert f"{metric}_{end}" in table
    assert isinstance(usual, Comparison)


def test_the_default_rows_are_compared_and_agree_with_the_labels() -> None:
    found = compare(
        FEATURES, pd.DataFrame(TARGET, columns=NAMES), folds=2, num_epochs=2, workers=1,
        progress=False,
    )  # fmt: skip
    assert found.trained == list(default_label_entries())
    assert found.class_names == NAMES
    assert found.facts["samples"] == "240 with 3 labels"
    assert found.facts["objective"] == "average precision"
    assert found.class_counts == TARGET.sum(0).tolist()


def test_a_fit_of_ones_own_gets_indices_and_counts_of_negatives_and_positives() -> None:
    seen = []
    inputs, target = torch.from_numpy(FEATURES), torch.from_numpy(TARGET).float()

    def fit(criterion, train, validation, sampler=None, seed=0):
        criterion(torch.zeros(len(train), 3, requires_grad=True), target[train]).backward()
        assert not set(train) & set(validation)
        return inputs[validation, :3]

    def entry(class_counts: Any, num_epochs: int) -> nn.Module:
        seen.append(class_counts)
        return nn.BCEWithLogitsLoss()

    found = compared(fit, entries={"bce": entry})
    assert np.array_equal(found.logits["bce"][0], FEATURES[:, :3])
    for k in range(3):
        train = TARGET[found.fold[0] != k]
        expected = np.stack([len(train) - train.sum(0), train.sum(0)], 1)
        assert any(np.array_equal(counts, expected) for counts in seen)
        assert np.array_equal(found.counts[0, k], expected)


def test_logits_of_another_shape_are_refused() -> None:
    def fit(criterion, train, validation, sampler=None, seed=0):
        return torch.zeros(len(validation), 2)

    with pytest.raises(ValueError, match=r"fit must return finite logits of shape \(80, 3\)"):
        compared(fit)


def test_groups_stay_together_and_are_counted() -> None:
    groups = np.arange(SIZE) // 3
    found = compared(groups=groups)
    assert (found.fold[0] == found.fold[0][groups * 3]).all()
    assert found.num_groups == SIZE // 3


def test_folds_of_ones_own() -> None:
    own = np.arange(SIZE) // 80
    found = compared(folds=own)
    assert np.array_equal(found.fold[0], own)
    part = np.where(np.arange(SIZE) < 120, -1, 0)  # one half is only trained on
    single = compared(folds=part)
    assert len(single.target) == 120
    assert single.class_counts == TARGET.sum(0).tolist()
    assert "class_counts = [[240 - n, n] for n in positives]" in code(single, "ClassBalanced")
    with pytest.raises(ValueError, match="got none of class 'snow' in the training part"):
        compared(target=TARGET * [1, 1, 0] + (own == 1)[:, None] * [0, 0, 1], folds=own)


def test_it_is_reproducible_and_kept(tmp_path: Path) -> None:
    one = compared(cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 6
    other = compared(cache=tmp_path)
    fresh = compared()
    for row in one.trained:
        assert np.array_equal(one.logits[row], other.logits[row])
        assert np.array_equal(one.logits[row], fresh.logits[row])
    flipped = TARGET.copy()
    flipped[0] = 1 - flipped[0]
    assert len(list(tmp_path.glob("*.npz"))) == 6
    compared(target=flipped, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 12


def test_torchs_own_loss_is_trained_with_the_head() -> None:
    plain, weighted = (
        lambda n, epochs: nn.BCEWithLogitsLoss(),
        lambda n, epochs: nn.BCEWithLogitsLoss(pos_weight=n[:, 0] / n[:, 1]),
    )
    found = compared(entries={"bce": plain, "pos_weight": weighted})
    assert found.adjustable == ["bce"]
    recall = found.train_recall
    assert recall["pos_weight"].mean() > recall["bce"].mean()


# --------------------------------------------------------------------------------------------
# Objectives and post-hoc adjustment
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["average_precision", "auroc"])
def test_what_is_ranked_has_no_row_with_post_hoc_adjustment(objective: str) -> None:
    found = recorded(1.0, 1.5, objective=objective)
    assert found.rows == ["no weighting", "other"]
    assert found.frontier is None
    [sentence] = [line for line in found.advice() if "thresholds" in line]
    tau = choose_label_tau(
        found.logits["no weighting"], found.target, found.fold, found.counts
    ).overall
    assert f"{tau:.4g} * log(positives / negatives)" in sentence
    assert 'The objective "macro_f1" compares' in sentence


def test_macro_f1_has_them_and_moves_no_area() -> None:
    found = recorded(1.0, 1.5, objective="macro_f1")
    after = "no weighting" + POSTHOC
    assert found.rows == ["no weighting", after, "other"]
    assert found.differences("macro_f1")[after].low > 0
    for metric in ("average_precision", "auroc"):
        assert found.difference(after, "no weighting", metric).value == 0
    assert found.verdict.row == after
    assert "Average precision stays at" in str(found.verdict)


def test_tau_is_chosen_on_the_other_folds() -> None:
    found = recorded(1.0, 1.5, objective="macro_f1")
    logits, target, fold = found.logits["no weighting"], found.target, found.fold
    choice = choose_label_tau(logits, target, fold, found.counts)
    assert choice.by_fold.shape == (1, 5)
    for k in (0, 3):
        other = fold[0] != k
        scores = []
        taus = np.linspace(0, 1.5, 31).round(2)
        for tau in taus:
            moved = adjusted(logits, fold, found.counts, np.full((1, 5), tau))
            scores.append(f1_score(target[other], moved[0, other] > 0, average="macro"))
        first = taus[np.flatnonzero(np.array(scores) >= max(scores) - 0.005 - 1e-9)[0]]
        assert choice.by_fold[0, k] == first


def test_adjustment_subtracts_the_log_odds_of_each_label() -> None:
    found = recorded(1.0)
    moved = found.adjusted("no weighting", 0.7)
    for n in (0, 7, 899):
        counts = found.counts[0, found.fold[0, n]]
        shift = 0.7 * np.log(counts[:, 1] / counts[:, 0])
        expected = found.logits["no weighting"][0, n] - shift
        assert moved[0, n] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("balanced_accuracy", "objective must be one of 'average_precision', 'macro_f1', 'auroc'"),
        ([[1, 0], [0, 1]], "for a multi-label target, got a utility table"),
    ],
)
def test_other_objectives_are_refused(objective: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compared(objective=objective)


def test_auroc_is_no_objective_of_classes() -> None:
    with pytest.raises(ValueError, match="objective must be one of 'balanced_accuracy'"):
        compare(FEATURES, TARGET[:, 0], objective="auroc", progress=False)


# --------------------------------------------------------------------------------------------
# Verdict and checks
# --------------------------------------------------------------------------------------------


def test_without_a_difference_nothing_is_announced() -> None:
    found = recorded(1.0)
    assert found.verdict.row is None
    assert str(found.verdict).startswith("Keep ")
    assert "nothing tried here is shown to raise average precision" in " ".join(
        str(found.verdict).split()
    )


def test_a_difference_is_announced_with_what_becomes_of_macro_f1() -> None:
    found = recorded(2.0)
    said = " ".join(str(found.verdict).split())
    assert found.verdict.row == found.verdict.row_at_no_loss == "other"
    assert 'To raise average precision, train with "other". Average precision rises from' in said
    assert "Macro F1 rises as well" in said
    assert "accuracy" not in said


@pytest.mark.slow
def test_rows_that_are_alike_are_rarely_announced() -> None:
    named = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        target = (random.random((400, 3)) < [0.4, 0.25, 0.15]).astype(np.int64)
        fold = np.arange(400)[None] % 5
        logits = {
            name: (2 * target - 1 + random.standard_normal((1, 400, 3))).astype(np.float32)
            for name in "abcdef"
        }
        found = LabelComparison(
            logits, [], target, None, fold, label_counts(target, fold), NAMES, seed
        )
        named += found.verdict.row is not None
    assert named <= 7


@pytest.mark.parametrize("name", default_label_entries())
def test_the_code_to_paste_builds_what_the_entry_builds(name: str, usual: LabelComparison) -> None:
    entry = default_label_entries()[name]
    positives = torch.tensor(usual.class_counts)
    counts = torch.stack([SIZE - positives, positives], 1)
    full = compared(entries=rows("no weighting", name), num_epochs=2)
    space: dict[str, Any] = {}
    exec(code(full, name), space)
    assert fingerprint(space["criterion"]) == fingerprint(build(name, entry, counts, 2)[0])
    assert is_adjustable(name, entry, counts, 2) == (
        not name.startswith(("ClassBalanced", "LogitAdjustment"))
    )


def test_the_code_after_the_training_adjusts_and_that_of_many_labels_counts() -> None:
    found = recorded(1.0, 1.5, objective="macro_f1")
    logits = torch.randn(4, 3)
    text = code(found, "no weighting" + POSTHOC).splitlines()
    after = [line for line in text if "entries[" not in line]
    space: dict[str, Any] = {"logits": logits}
    exec("\n".join(after), space)
    positives = torch.tensor(found.class_counts)
    counts = torch.stack([900 - positives, positives], 1)
    tau = found.tau("no weighting" + POSTHOC)
    expected = sw.LogitAdjustment(counts, tau=round(tau, 4)).posthoc(logits)
    assert torch.equal(space["logits"], expected)

    many = LabelComparison(
        {"no weighting": np.zeros((1, 60, 30), np.float32)}, [], np.eye(60, 30, dtype=np.int64),
        None, np.zeros((1, 60), np.int64), np.ones((1, 1, 30, 2), np.int64), [*map(str, range(30))],
    )  # fmt: skip
    lines = code(many, "no weighting").replace("entries['no weighting']", "make")
    target = (torch.rand(60, 30) < 0.3).float()
    space = {"train_target": target, "make": lambda counts, epochs: counts}
    exec(lines, space)
    assert torch.equal(space["criterion"][:, 1], target.sum(0).long())
    assert torch.equal(space["criterion"].sum(1), torch.full((30,), 60))


def codes(comparison: LabelComparison) -> dict[str, str]:
    return {found.code: found.text for found in comparison.checks}


def test_checks_of_labels() -> None:
    assert codes(recorded(1.0)) == {}
    target = scenes(900)[1]
    few = recorded(1.0)
    few.target = target.copy()
    few.target[:, 2] = np.arange(900) < 12
    text = codes(few)["small-classes"]
    assert "Fewer than 20 samples have these labels: snow (12)" in text
    grouped = recorded(1.0)
    grouped.groups = np.arange(900) % 10
    assert {"few-groups", "small-classes"} <= set(codes(grouped))
    copies = recorded(1.0)
    copies.same_features = np.arange(900) // 2
    assert "of a sample in another fold" in codes(copies)["duplicates-across-folds"]
    silent = recorded(1.0, never_told=["other"], ignore=["small-classes"])
    assert set(codes(silent)) == {"epoch-never-told"}


def test_a_rare_label_that_is_not_fitted() -> None:
    def recall(*of: float) -> np.ndarray:
        return np.tile(np.array(of), (1, 5, 1))

    said = {"no weighting": recall(95, 90, 3), "other": recall(90, 90, 80)}
    better = recorded(2.0, train_recall=said)
    assert "no weighting has not fitted snow (3 %)" in codes(better)["rare-class-not-fitted"]
    assert "other can do so" in codes(better)["rare-class-not-fitted"]
    # it is ranked as well, so that a threshold is all that it needs
    assert codes(recorded(1.0, train_recall=said)) == {}
    nothing = recorded(1.0, train_recall=said | {"other": recall(90, 90, 5)})
    assert "No other method fits it" in codes(nothing)["rare-class-not-fitted"]
    blind = recorded(2.0, train_recall=said | {"no weighting": recall(60, 50, 3)})
    assert codes(blind) == {}


def test_of_many_labels_few_are_called_not_fitted_by_chance() -> None:
    random, size, number = np.random.default_rng(0), 500, 40
    target = (random.random((size, number)) < 0.1).astype(np.int64)
    fold = np.arange(size)[None] % 5
    logits = {
        name: (2 * target - 1 + random.standard_normal((1, size, number))).astype(np.float32)
        for name in ("no weighting", "other")
    }
    low, high = np.full((1, 5, number), 30.0), np.full((1, 5, number), 80.0)
    low[..., 0] = 90
    found = LabelComparison(
        logits, ["no weighting"], target, None, fold, label_counts(target, fold),
        [str(label) for label in range(number)], train_recall={"no weighting": low, "other": high},
    )  # fmt: skip
    by = [found.differences(f"average_precision_{label}")["other"] for label in range(1, number)]
    assert any(of.low > 0 for of in by)
    assert "rare-class-not-fitted" not in codes(found)


def test_the_last_pass_over_the_training_part_is_watched() -> None:
    criterion = sw.BinaryFocalLoss()
    watched = FittedLabels(criterion, size=4, num_classes=2)
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        logits = torch.randn(4, 2, generator=random, requires_grad=True)
        target = (torch.rand(4, 2, generator=random) < 0.5).float()
        for half in (slice(0, 2), slice(2, 4)):
            criterion(logits[half], target[half])
    with torch.no_grad():
        criterion(-logits, target)
    positive = target == 1
    expected = 100 * ((logits > 0) & positive).sum(0) / positive.sum(0)
    assert watched.recall() == pytest.approx(expected.numpy(), nan_ok=True)


def test_the_head_tells_what_it_has_fitted(usual: LabelComparison) -> None:
    for recall in usual.train_recall.values():
        assert recall.shape == (1, 3, 3)
        assert np.isfinite(recall).all()
    assert usual.train_recall["ClassBalanced"].mean() > usual.train_recall["no weighting"].mean()


# --------------------------------------------------------------------------------------------
# What is shown and written
# --------------------------------------------------------------------------------------------


def test_page_and_picture_speak_of_labels(usual: LabelComparison, tmp_path: Path) -> None:
    text = usual.write_page(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "2 ways to train, compared on 240 samples with 3 labels" in text
    assert "Average precision and F1 of each label" in text
    for word in ("classes", "class</", "balanced accuracy of each row"):
        assert word not in text
    axes = usual.plot()
    assert axes.get_xlabel() == "average precision (%)"
    assert axes.get_ylabel() == "macro F1 (%)"


def test_the_text_shows_average_precision_first(usual: LabelComparison) -> None:
    line = next(line for line in str(usual).splitlines() if "macro F1" in line and "   " in line)
    assert line.split("  ")[0] == ""
    assert line.split() == ["average", "precision", "macro", "F1"]
    assert repr(usual) == "<Comparison of 2 rows on 240 samples of 3 labels>"


@pytest.mark.parametrize("objective", ["average_precision", "macro_f1"])
def test_the_command_takes_an_archive_of_labels(
    objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "scenes.npz", features=FEATURES, target=TARGET, class_names=NAMES)
    command = [
        "compare", str(tmp_path / "scenes.npz"), "--output", str(tmp_path / "out"),
        "--objective", objective, "--folds", "2", "--num-epochs", "2", "--workers", "1",
        "--rows", "LogitAdjustment", "--no-progress",
    ]  # fmt: skip
    for _ in range(1 + (objective == "macro_f1")):  # its own files are replaced
        assert main(command) == 0
    out = capsys.readouterr().out
    assert "no weighting (baseline)" in out
    table = pd.read_csv(tmp_path / "out" / "table.csv", index_col="row")
    posthoc = ["no weighting + post-hoc"] * (objective == "macro_f1")
    assert list(table.index) == ["no weighting", *posthoc, "LogitAdjustment"]
    assert "average_precision_snow" in table
    for name in ("comparison.html", "comparison.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000


def test_the_command_refuses_rows_and_objectives_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "scenes.npz", features=FEATURES, target=TARGET)
    command = ["compare", str(tmp_path / "scenes.npz"), "--output", str(tmp_path / "out")]
    assert main([*command, "--rows", "FocalLoss"]) == 1
    assert "--rows must be of no weighting, ClassBalanced" in capsys.readouterr().err
    assert main([*command, "--objective", "balanced_accuracy"]) == 1
    assert "for a multi-label target, got 'balanced_accuracy'" in capsys.readouterr().err
