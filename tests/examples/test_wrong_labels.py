"""The comparison of scores that find wrong labels: its samples, its trainings and its tables."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from examples.wrong_labels.__main__ import main, page, parse_arguments
from examples.wrong_labels.results import KEPT, TRAININGS, cell, measured, tables
from examples.wrong_labels.samples import Samples, samples_of, with_changed
from examples.wrong_labels.trainings import PLAIN, Watched, out_of_fold, trained
from sampleweights import CrossEntropyLoss

ROOT = Path(__file__).parents[2]


def quality(
    labels: np.ndarray, probabilities: np.ndarray, method: str = "self_confidence"
) -> np.ndarray:
    own = probabilities[np.arange(len(labels)), labels]
    return own if method == "self_confidence" else own - probabilities.max(1)


@pytest.fixture
def cleanlab(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: no package of the tests has it."""
    rank, filter_ = ModuleType("cleanlab.rank"), ModuleType("cleanlab.filter")
    monkeypatch.setattr(rank, "get_label_quality_scores", quality, raising=False)
    monkeypatch.setattr(
        filter_, "find_label_issues", lambda y, p, n_jobs: p.argmax(1) != y, raising=False
    )
    for name, module in (("cleanlab.rank", rank), ("cleanlab.filter", filter_)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cleanlab", ModuleType("cleanlab"))


def few(seed: int = 0) -> Samples:
    """Labels that only a model that was trained on the same samples can know."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(60, 64)).astype(np.float32)
    return Samples(features, np.arange(60) % 3, random.integers(0, 3, 60), np.arange(60) // 2)


# --------------------------------------------------------------------------------------------
# Samples
# --------------------------------------------------------------------------------------------


def test_the_thinned_digits() -> None:
    samples = samples_of("thinned", "uniform", 0.05, 0)
    counts = np.sort(np.bincount(samples.label))
    assert (counts[0], counts[-1]) == (3, 174)
    assert samples.changed.sum() == round(0.05 * len(samples.label))
    assert samples.rare.sum() == counts[:4].sum()
    assert not samples_of("digits", "uniform", 0.05, 0).rare.any()


@pytest.mark.parametrize("noise", ["uniform", "frequent"])
def test_labels_change_to_every_other_class(noise: str) -> None:
    label = np.repeat([0, 1, 2], [6000, 3000, 1000])
    given = with_changed(label, noise, 0.5, np.random.default_rng(0))
    assert (given != label).sum() == 5000
    found = np.bincount(given[(label == 0) & (given != 0)], minlength=3)
    assert found[1] / found.sum() == pytest.approx(0.5 if noise == "uniform" else 0.75, abs=0.03)


def test_features_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    target, groups = np.array(["a", "c"] * 20), np.arange(40) // 4 * 10
    np.savez(path, features=np.eye(40, dtype=np.float32), target=target, groups=groups)
    samples = samples_of("features", "uniform", 0.1, 0, path)
    assert samples.label.tolist() == [0, 1] * 20
    assert samples.groups is not None
    assert samples.groups.tolist() == [i // 4 for i in range(40)]
    assert samples.changed.sum() == 4


# --------------------------------------------------------------------------------------------
# Trainings
# --------------------------------------------------------------------------------------------


def test_the_history_is_told_which_samples_come() -> None:
    watched = Watched(CrossEntropyLoss(), 10, 2, 0)
    logits, target = torch.randn(10, 3), torch.arange(10) % 3
    for epoch in range(2):
        watched.set_epoch(epoch)
        order = torch.tensor([*watched])
        for index in order.split(4):
            watched(logits[index], target[index])
    scores = watched.history.scores()
    assert sorted(order.tolist()) == list(range(10))
    others = logits.scatter(1, target[:, None], -torch.inf).amax(1)
    margin = logits.gather(1, target[:, None])[:, 0] - others
    torch.testing.assert_close(scores["area_under_margin"], margin)


def test_trainings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = few()
    found = trained(samples, 30, 0, tmp_path)
    given = samples.given
    # the history saw the labels, the logits out of fold did not
    assert found["area_under_margin"].mean() > 0.5
    assert (found["logits"].argmax(1) == given).mean() < 0.6
    monkeypatch.setattr("examples.wrong_labels.trainings.history_of", None)
    again = trained(samples, 30, 0, tmp_path)
    assert all((again[name] == found[name]).all() for name in found)
    assert len([*tmp_path.iterdir()]) == 1


def test_groups_are_held_out_as_a_whole() -> None:
    samples = few()
    comparison = out_of_fold(samples, 1, 0)
    of_group = comparison.fold[0].reshape(30, 2)
    assert (of_group[:, 0] == of_group[:, 1]).all()
    rare = samples_of("thinned", "uniform", 0.05, 0)
    assert np.bincount(rare.given).min() < 10
    assert out_of_fold(rare, 1, 0).logits[PLAIN].shape == (1, len(rare.given), 10)


# --------------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cleanlab")
def test_what_is_found_is_counted() -> None:
    samples = samples_of("digits", "uniform", 0.05, 0)
    number, size = int(samples.changed.sum()), len(samples.label)
    # a model that knows the right labels, and a margin that finds one of two
    logits = 8 * np.eye(10, dtype=np.float32)[samples.label]
    margin = np.ones(size, np.float32)
    margin[np.flatnonzero(samples.changed)[: number // 2]] = -1
    found = {"logits": logits, "adjusted_logits": logits, "mean_loss": -margin}
    for name in ("adjusted_margin", "area_under_margin", "confidence", "knn_shapley"):
        found[name] = margin
    line = measured(samples, found)
    assert line["changed"] == line["compare: hits"] == line["compare: flagged"] == number
    assert line["compare: ap"] == line["cleanlab, self_confidence: ap"] == 100
    assert line["adjusted margin: flagged"] == line["adjusted margin: right"] == number // 2
    assert number // 2 <= line["adjusted margin: hits"] < number * 0.6
    assert line["cleanlab, self_confidence: right"] == number
    assert {name.rpartition(":")[0] for name in line} >= {*TRAININGS}


def test_differences_are_those_of_pairs() -> None:
    values, base = np.array([3.0, 5.0, 10.0]), np.array([2.0, 3.0, 7.0])
    # 1, 2, 3: deviation 1, quantile of Student's t with 2 degrees of freedom 4.303
    assert cell(values, base) == "6.0 (+2.0 ± 2.5)"
    assert cell(base, base) == "4.0"


@pytest.mark.slow
@pytest.mark.usefixtures("cleanlab")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels, target = load_digits(n_class=3, return_X_y=True)
    np.savez(tmp_path / "digits.npz", features=pixels, target=target)
    options = ["--features", str(tmp_path / "digits.npz"), "--seeds", "2", "--epochs", "2"]
    folders = ["--kept", str(tmp_path / "kept"), "--cache", str(tmp_path / "cache")]
    main(parse_arguments(["run", *options, *folders]))
    printed = capsys.readouterr().out
    assert printed == tables(tmp_path / "kept") + "\n"
    assert "features, frequent" in printed
    for name in TRAININGS:
        assert f"| {name} |" in printed


def test_cleanlab_is_asked_for_before_the_trainings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(SystemExit, match="pip install cleanlab"):
        main(parse_arguments(["run", "--kept", str(tmp_path), "--cache", str(tmp_path)]))


def test_the_page_has_what_the_command_prints() -> None:
    printed = tables().splitlines()
    kept = KEPT.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert [line for line in printed if line not in kept] == []
    text = (ROOT / "docs" / "samples.md").read_text(encoding="utf-8")
    part = text[text.index("## Does it find wrong labels?") :].splitlines()
    rows = [line for line in part if line.startswith("| ")]
    assert len(rows) > 12
    assert [row for row in rows if row not in printed] == []
    for path in KEPT.glob("*.csv"):
        assert path.stat().st_size < 10_000


def test_the_page_of_one_training(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    page(str(tmp_path / "page.html"), 2)
    assert "5% of the labels changed" in (tmp_path / "page.html").read_text(encoding="utf-8")
