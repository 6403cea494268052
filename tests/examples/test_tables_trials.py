"""What is trained on one outer fold of a table, and how it is judged."""

from __future__ import annotations

import csv
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold

from examples.tables import running, trials
from examples.tables.reading import Table
from sampleweights.compare import default_entries


def made(size: int = 80) -> Table:
    features, target = make_classification(size, 4, weights=[0.8], random_state=0)
    return Table("made", features.astype(np.float32), target.astype(np.int64))


@pytest.fixture(scope="module")
def trial() -> trials.Trial:
    return trials.run(made(), 0)


def test_a_trial(trial: trials.Trial, tmp_path: Path) -> None:
    table = made()
    splitter = StratifiedKFold(5, shuffle=True, random_state=0)
    train, test = next(iter(splitter.split(table.features, table.target)))
    assert trial.test_target.tolist() == table.target[test].tolist()
    assert trial.comparison.target.tolist() == table.target[train].tolist()
    assert trial.train_counts.tolist() == np.bincount(table.target[train]).tolist()
    assert [*trial.test_logits] == [*default_entries(), *trials.BOOSTING]

    line = trials.judged(trial)
    target = table.target[test]
    for name, logits in trial.test_logits.items():
        scores = balanced_accuracy_score(target, logits.argmax(1))
        assert line[f"{name}: balanced_accuracy"] == pytest.approx(100 * scores, abs=0.006)
    moved = trial.test_logits["no weighting"] - np.log(trial.train_counts / len(train))
    scores = f1_score(target, moved.argmax(1), average="macro")
    assert line[f"{trials.TAU_1}: macro_f1"] == pytest.approx(100 * scores, abs=0.006)
    assert line["verdict: balanced_accuracy"] in trial.comparison.rows

    trial.save(tmp_path / "made.npz")
    assert trials.judged(trials.Trial.load(tmp_path / "made.npz")) == line


def test_the_test_part_is_not_trained_on() -> None:
    table = made(60)
    train, test = np.arange(0, 60, 2), np.arange(1, 60, 2)
    target = table.target.copy()
    target[test] = 1 - target[test]
    changed = Table("changed", table.features, target)
    before, after = (trials.trained(t, train, test, num_epochs=2) for t in (table, changed))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_large_tables_are_thinned_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "MOST_SAMPLES", 40)
    table = made()
    found = trials.thinned(table)
    assert found.features.shape == (40, 4)
    assert found.class_counts == pytest.approx(table.class_counts / 2, abs=1)
    rows = {(*row, label) for row, label in zip(table.features.tolist(), table.target, strict=True)}
    assert {(*r, c) for r, c in zip(found.features.tolist(), found.target, strict=True)} <= rows
    assert trials.thinned(found) is found


def test_shuffled_classes_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Found(Exception):
        pass

    def compared(features: np.ndarray, target: np.ndarray) -> None:
        given.append(target)
        raise Found

    monkeypatch.setattr(trials, "compared", compared)
    table = made()
    with pytest.raises(Found):
        trials.shuffled(table)
    assert np.bincount(given[0]).tolist() == table.class_counts.tolist()
    assert (given[0] != table.target).any()


class Here:
    """In the place of a pool of processes."""

    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def shutdown(self, cancel_futures: bool) -> None:
        pass

    def submit(self, function: object, *args: object) -> Here:
        self.result = lambda: function(*args)  # type: ignore[operator]
        made, made.result = Here(1), self.result
        return made


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "imbalanced" / "raw"
    folder.mkdir(parents=True)
    cells = [f"{n}.0" for n in range(1, 99) if n % 10]
    for name in ("wine", "sonar", "vowel", "titanic"):
        (folder / f"{name}.dat").write_text("1, a\n2, b\n")
    (folder / "ring.dat").write_text("".join(f"{c}, {c[0]}\n" for c in cells))
    called = []

    def one(path: Path, fold: int, kept: Path) -> dict[str, object]:
        if len(called) == 4:
            raise KeyboardInterrupt
        called.append((path.stem, fold))
        return {"table": path.stem, "fold": fold}

    monkeypatch.setattr(running, "one", one)
    monkeypatch.setattr(running, "ProcessPoolExecutor", Here)
    given = tmp_path, "development", tmp_path / "results.csv", tmp_path / "kept", 1
    with pytest.raises(KeyboardInterrupt):
        running.run_all(*given)
    first, called[:] = called[:], []
    while True:
        try:
            running.run_all(*given)
            break
        except KeyboardInterrupt:
            first += called
            called.clear()
    all_done = first + called
    names = running.of_half(["wine", "sonar", "vowel", "titanic"], "development")
    assert 0 < len(names) < 4  # the other half is not run
    assert sorted(all_done) == sorted((name, fold) for name in names for fold in range(5))
    assert {fold for _, fold in all_done[: len(names)]} == {0}
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(all_done)


def test_a_run_that_is_stopped_does_not_train_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "imbalanced" / "raw"
    folder.mkdir(parents=True)
    for name in ("wine", "sonar", "vowel", "titanic"):
        (folder / f"{name}.dat").write_text("1, a\n2, b\n")
    called, stopped = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            stopped.set()
            super().shutdown(wait=wait)

    def one(path: Path, fold: int, kept: Path) -> dict[str, object]:
        called.append((path.stem, fold))
        if len(called) == 1:
            raise KeyboardInterrupt
        stopped.wait(60)  # under way when the run is stopped
        return {"table": path.stem, "fold": fold}

    monkeypatch.setattr(running, "one", one)
    monkeypatch.setattr(running, "ProcessPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        running.run_all(tmp_path, "held-back", tmp_path / "results.csv", tmp_path / "kept", 1)
    assert 1 <= len(called) <= 2
