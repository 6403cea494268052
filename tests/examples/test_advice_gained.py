"""The documentation quotes the tables that ``python -m examples.advice.gained`` prints."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from examples.advice import gained

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUOTING = [
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("index", "tour", "choosing", "faq")),
    *sorted((DOCS / "methods").glob("*.md")),
]
REPRODUCTION = (DOCS / "reproduction.md").read_text(encoding="utf-8")
DECISIONS = (DOCS / "results" / "decisions.md").read_text(encoding="utf-8")
TABLES = (DOCS / "results" / "tables" / "held-back.md").read_text(encoding="utf-8")
"""What ``python -m examples.isic2018 decisions`` prints."""
NUMBER = r"([+-]?\d+\.\d)"
INTERVAL = rf"{NUMBER} (?:points? )?\((?:interval )?{NUMBER} to {NUMBER}\)"


def intervals(text: str) -> set[tuple[float, ...]]:
    text = " ".join(text.split())
    return {tuple(float(n) for n in numbers) for numbers in re.findall(INTERVAL, text)}


@pytest.mark.parametrize("name", gained.pages())
def test_what_the_pages_include_is_what_the_command_prints(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["gained"])
    gained.main()
    page = (gained.FOLDER / name).read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    assert f"results/advice/gained/{name}" in (DOCS / "choosing.md").read_text(encoding="utf-8")


def test_the_table_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    of_paper = gained.SHORT["frozen"]  # a recipe of its own, in choosing.md
    lines = [line for line in gained.summary() if not line.startswith(f"| {of_paper} ")]
    assert len(lines) > 3
    assert [line for line in readme if line in lines] == lines


def test_every_interval_of_the_pages_was_printed() -> None:
    printed = intervals("\n".join([*gained.pages().values(), REPRODUCTION, DECISIONS, TABLES]))
    quoted = {page.name: intervals(page.read_text(encoding="utf-8")) for page in QUOTING}
    assert len(quoted["choosing.md"]) > 5
    assert quoted["README.md"]
    unknown = {name: found - printed for name, found in quoted.items() if found - printed}
    assert not unknown


def test_digits_are_those_of_the_page() -> None:
    page = (DOCS / "running-the-example.md").read_text(encoding="utf-8")
    [table] = re.findall(r"^## Without the images\n(.*?)^## ", page, re.M | re.S)
    said = {
        gained.PLAIN.get(name, name): [float(balanced), float(accuracy)]
        for name, accuracy, balanced in re.findall(
            r"^\| CE +\| (.+?) +\| ([\d.]+) +\| ([\d.]+)", table, re.M
        )
    }
    rows = gained.load("digits")["rows"]
    assert {*rows} - {*said} == {"post-hoc, tau 0.5"}
    for name, values in said.items():
        found = [rows[name][metric][0] for metric in gained.METRICS]
        assert found == pytest.approx(values, abs=0.051)


def test_end_to_end_is_the_mean_of_the_saved_runs() -> None:
    runs: dict[str, list[dict[str, float]]] = {}
    for path in DOCS.glob("results/small/flat-*/result.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        runs.setdefault(run["weighting"].replace("_", ""), []).append(run["metrics"]["validation"])
    rows = gained.load("end-to-end")["rows"]
    names = {re.sub(r"\W", "", name).lower().replace("noweights", "none"): name for name in rows}
    assert len(runs) == 9
    for weighting, splits in runs.items():
        row = rows[names[weighting]]
        for metric, theirs in (("balanced_accuracy", "bacc"), ("accuracy", "acc")):
            mean = fmean(split[theirs] for split in splits)
            assert row[metric][0] == pytest.approx(mean, abs=0.01)


def test_frozen_maps_are_the_mean_of_four_tables() -> None:
    row = gained.of_reproduction()["EffectiveNumber"]
    assert row["accuracy"] == [pytest.approx(fmean([75.7, 73.9, 74.5, 72.6]), abs=0.2)]
    assert row["accuracy gain"][0] < 0 < row["balanced_accuracy gain"][0]
    assert all(len(values) == 1 for values in row.values())


@pytest.mark.slow
def test_a_comparison_becomes_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparing = pytest.importorskip("sampleweights.compare")
    short = functools.partial(comparing.compare, folds=2, num_epochs=1, workers=1)
    monkeypatch.setattr(comparing, "compare", short)
    target = np.repeat([0, 1, 2], [40, 20, 10])
    features = np.random.default_rng(0).normal(size=(70, 4)) + target[:, None]
    path = tmp_path / "features.npz"
    names = ["common", "less common", "rare"]
    groups = np.arange(70)
    np.savez(path, features=features, target=target, groups=groups, class_names=names)
    found = json.loads(json.dumps(gained.of_comparison(path)))
    assert found["class_counts"] == dict(zip(names, [40, 20, 10], strict=True))
    plain = found["rows"]["no weights"]
    for name, row in found["rows"].items():
        for metric in gained.METRICS:
            assert 0 <= row[metric][0] <= 100
            if name != "no weights":
                gain = row[metric][0] - plain[metric][0]
                assert row[f"{metric} gain"][0] == pytest.approx(gain, abs=0.02)
    assert {*gained.SUMMARY} <= {*found["rows"]}
