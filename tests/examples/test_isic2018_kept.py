"""What a report keeps of its runs gives the same tables and claims without the images."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_isic2018_training import made_results

from examples.isic2018 import data, decisions, kept
from examples.isic2018.__main__ import command, parse_arguments
from examples.isic2018.claims import claims_table
from examples.isic2018.official import DataError
from examples.isic2018.report import format_table
from examples.isic2018.results import METRICS, ROW, Results
from examples.isic2018.sources import LESION_NAMES
from examples.isic2018.training import MODEL, RESULT

ROOT = Path(__file__).parents[2]
SEEDS = {"none": 0, "class_balanced": 1, "ohem": 2, "none_posthoc": 0}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Of digits that pass for lesions: with the paper's numbers beside them, each counted once."""
    dataset = data.digits(2)
    dataset.class_names = LESION_NAMES
    dataset.table["group"] = np.arange(len(dataset.table))[::-1] // 2
    dataset.split = {
        seed: replace(split, sample_weight=np.ones(len(split.validation)))
        for seed, split in dataset.split.items()
    }
    return made_results(dataset, tmp_path / "runs", SEEDS)[0]


def test_tables_and_claims_are_those_of_the_runs(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kept"
    kept.keep(results, folder)
    decisions.write_labels(results, folder)
    again = kept.Kept(folder)
    table = format_table(results.summary(), "flat", "adam", results.paper)
    assert table.count("\n") == 1 + len(SEEDS)
    command(parse_arguments(["tables", "--kept", str(folder)]))
    printed = capsys.readouterr().out
    assert "Table 2: flat model, Adam" in printed
    assert table in printed
    claims = claims_table(results)
    assert "class-balanced weights raise BAcc and lower Acc | 8 of 8 |" in claims
    assert claims in printed
    assert printed.startswith("Mean of 2 splits; in brackets the paper's numbers.\n")
    for row, draws in results.bootstrap.items():
        for metric, values in draws.items():
            np.testing.assert_array_equal(values, again.bootstrap[row][metric])


def test_a_row_with_fewer_splits_is_named(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.keep(results, tmp_path)
    decisions.write_labels(results, tmp_path)
    metrics = pd.read_csv(tmp_path / kept.METRICS_FILE)
    lacks = (metrics["weighting"] == "ohem") & (metrics["split"] == 1)
    assert lacks.any()
    metrics[~lacks].to_csv(tmp_path / kept.METRICS_FILE, index=False)
    command(parse_arguments(["tables", "--kept", str(tmp_path)]))
    line = capsys.readouterr().out.splitlines()[0]
    assert "These rows have fewer than 2 splits" in line
    assert "flat, adam, ce, ohem (1)" in line


def test_tables_and_claims_of_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "docs" / "results" / "small-vgg16"
    both, flat = kept.Kept(folder), kept.Kept(folder, ["flat"])
    assert {row[0] for row in both.bootstrap} == {"flat", "hierarchical"}
    assert {row for row in both.bootstrap if row[0] == "flat"} == set(flat.bootstrap)
    for row, draws in flat.bootstrap.items():
        np.testing.assert_array_equal(draws["bacc"], both.bootstrap[row]["bacc"])
    command(parse_arguments(["tables", "--kept", str(folder), "--models", "flat"]))
    printed = capsys.readouterr().out
    assert "Table 2" in printed
    assert "Table 3" not in printed
    assert "class-balanced weights raise BAcc and lower Acc | 8 of 8 | 1 of 1 |" in printed


def test_a_model_of_which_nothing_is_kept_is_named(results: Results, tmp_path: Path) -> None:
    kept.keep(results, tmp_path)
    decisions.write_labels(results, tmp_path)
    metrics = pd.read_csv(tmp_path / kept.METRICS_FILE)
    metrics[metrics["model"] == "flat"].to_csv(tmp_path / kept.METRICS_FILE, index=False)
    with pytest.raises(DataError, match="has no row of --models hierarchical"):
        command(parse_arguments(["tables", "--kept", str(tmp_path), "--models", "hierarchical"]))


@pytest.mark.parametrize("name", ["small-vgg16", "fast-vgg16"])
def test_decisions_need_two_splits_without_weights(name: str) -> None:
    with pytest.raises(DataError, match="must hold runs .* without weights, .* of splits 0 and 1"):
        decisions.of_kept(ROOT / "docs" / "results" / name)


@pytest.mark.parametrize("name", ["metrics.csv", "predicted.npz", "labels.npz"])
def test_a_file_that_is_missing_is_named(results: Results, tmp_path: Path, name: str) -> None:
    kept.keep(results, tmp_path)
    decisions.write_labels(results, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"must hold {name}"):
        kept.Kept(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("fast-vgg16", 120), ("small-vgg16", 15)])
def test_the_page_has_what_the_command_prints(name: str, least: int) -> None:
    where = f"docs/results/{name}"
    command = [sys.executable, "-m", "examples.isic2018", "tables", "--kept", where]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len(rows) > least
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in page] == []


def test_what_is_kept_is_that_of_the_runs_beside_it() -> None:
    folder = ROOT / "docs" / "results" / "small-vgg16"
    metrics = pd.read_csv(folder / kept.METRICS_FILE).set_index([*ROW, "split"])
    paths = list(folder.glob(f"*/{RESULT}"))
    assert len(paths) >= 5
    with np.load(folder / kept.PREDICTED) as predicted:
        for path in paths:
            run = json.loads(path.read_text(encoding="utf-8"))
            row = [run[name] for name in [*ROW, "split"]]
            of_run = run["metrics"]["validation"]
            assert metrics.loc[tuple(row), [*METRICS]].to_dict() == pytest.approx(
                {name: of_run[name] for name in METRICS}, rel=1e-5
            )
            with np.load(path.with_name("predictions.npz")) as file:
                classes = file["validation_probabilities"].argmax(1)
            np.testing.assert_array_equal(predicted["-".join(map(str, row))], classes)


def test_kept_models_are_small_and_in_half_precision() -> None:
    paths = list((ROOT / "docs" / "results").glob(f"*/*/{MODEL}"))
    assert len(paths) in (0, 6)  # none in an sdist
    for path in paths:
        assert path.stat().st_size < 30e6
        state = torch.load(path, weights_only=True)
        kinds = {v.dtype for part in state.values() for v in part.values()}
        assert kinds <= {torch.float16, torch.int64}
