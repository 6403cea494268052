"""The bar shows how many runs are done, and how long the others take."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("tqdm")

import joblib
import tqdm

from sampleweights.compare import compare, default_entries

TARGET = np.repeat([0, 1], [30, 20])
FEATURES = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
ROWS = {name: default_entries()[name] for name in ("no weighting", "OHEM")}


def fit(criterion, train, validation, sampler=None, seed=0):
    return torch.zeros(len(validation), 2)


def bars(capsys, data, **options):
    """What the bar said, one after the other."""
    options = {"entries": ROWS, "folds": 2, "num_epochs": 1, "workers": 1, **options}
    compare(data, TARGET, **options)
    found = re.findall(r"(\d+) of (\d+) runs in \S+, about (\S+) left", capsys.readouterr().err)
    assert len(found) > 1
    return found


@pytest.mark.parametrize("data", [fit, FEATURES], ids=["own", "heads"])
def test_from_no_run_to_all(capsys, data):
    found = bars(capsys, data)
    assert found[0] == ("0", "4", "?")
    assert found[-1] == ("4", "4", "00:00")


def test_on_a_cluster(capsys):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        found = bars(capsys, fit)
    assert found[0] == ("0", "4", "?")
    assert found[-1] == ("4", "4", "00:00")


def test_kept_runs_took_no_time(capsys, monkeypatch, tmp_path):
    """Each new run takes ten seconds by the clock of the bar; four of eight are kept."""
    monkeypatch.setenv("NOW", "1000")  # nothing that a digest of the training would see
    new = tqdm.tqdm.__init__

    def with_clock(bar, *args, **options):
        new(bar, *args, **{**options, "mininterval": 0, "miniters": 1})
        bar._time = lambda: float(os.environ["NOW"])
        bar.start_t = bar.last_print_t = 1000.0

    def slow(criterion, train, validation, sampler=None, seed=0):
        os.environ["NOW"] = str(float(os.environ["NOW"]) + 10)
        return torch.zeros(len(validation), 2)

    monkeypatch.setattr(tqdm.tqdm, "__init__", with_clock)
    one = {"no weighting": ROWS["no weighting"]}
    bars(capsys, slow, folds=4, cache=tmp_path, entries=one)
    monkeypatch.setenv("NOW", "1000")
    found = bars(capsys, slow, folds=4, cache=tmp_path)
    assert found[0][:2] == ("4", "8")
    left = {done: left for done, _, left in found}
    assert [left[done] for done in "5678"] == ["00:30", "00:20", "00:10", "00:00"]


def test_no_bar_without_progress(capsys):
    compare(FEATURES, TARGET, entries=ROWS, folds=2, num_epochs=1, workers=1, progress=False)
    assert capsys.readouterr().err == ""
