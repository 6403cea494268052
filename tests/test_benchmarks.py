from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import __main__ as benchmarks
from benchmarks import deciding, losses, measure, sampling, selection

pytestmark = pytest.mark.filterwarnings("ignore")  # of other libraries, where they are installed


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments, "--seconds", "0"])
    monkeypatch.setattr(benchmarks, "keep_freed_memory", lambda: None)
    benchmarks.main()


def test_losses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(monkeypatch, "--shapes", "20x7", "--save", "--output", str(tmp_path), "--device", "cpu")
    out = capsys.readouterr().out
    for name in ("CrossEntropyLoss", "FocalLoss"):
        for weighter in losses.weighters(7):
            assert f"| {name} | {weighter} |" in out
    report = json.loads((tmp_path / "cpu-losses.json").read_text())
    assert report["environment"].keys() >= {"hardware", "torch", "date", "sampleweights"}
    [table] = report["tables"]
    assert all(len(row) == len(table["columns"]) and row[4] > 0 for row in table["rows"])
    assert (tmp_path / "cpu-losses.md").read_text().count(
        "| FocalLoss |"
    ) == 9  # 7 weighters, 2 margins


def test_training(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="compare needs its extra")
    from benchmarks import training

    monkeypatch.setattr(training, "TABLES", [(60, 3, 2)])
    monkeypatch.setattr(training, "EPOCHS", 1)
    run(monkeypatch, "training", "--device", "cpu")
    [row] = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "| 60 |" in line]
    number = len(training.default_entries()) * training.FOLDS
    assert row[1:3] == ["3", str(number)]


@pytest.mark.slow  # starts processes
def test_selection_and_distributed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "SIZES", [20, 5000])
    # the processes import by name, and opacus 1.6 installs a package of that name, too
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    run(monkeypatch, "selection", "distributed", "--device", "cpu")
    out = capsys.readouterr().out
    assert "| 5,000 |" in out
    # 4 bytes of loss, 8 of target and 1 of validity for each of 64 samples, and two numbers
    assert f"| {64 * 13 + 16:,} |" in out


def test_sampling(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SIZES", [20, 5000])
    monkeypatch.setattr(sampling, "MULTINOMIAL", 5000)
    run(monkeypatch, "sampling", "--device", "cpu")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "| yes" in line]
    assert [row[0] for row in rows] == ["| 20", "| 5,000"]
    assert float(rows[0][4]) > 0
    assert rows[1][4] == "-"


def test_deciding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "SIZES", [(100, 7, 3)])
    run(monkeypatch, "deciding", "--device", "cpu")
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 100 |")]
    assert row.startswith("| 100 | 7 | 3 | ")


def test_comparing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    comparing = pytest.importorskip("benchmarks.comparing")
    monkeypatch.setattr(comparing, "SIZES", [400])
    run(monkeypatch, "comparing", "--device", "cpu")
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 400 |")]
    assert all(float(cell) >= 0 for cell in row.strip("| ").split(" | ")[1:])


def test_an_unknown_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "loses")


def test_peak_memory_counts_what_is_held_at_once() -> None:
    logits = torch.randn(100, 1000, requires_grad=True)
    target = torch.zeros(100, dtype=torch.long)
    peak = measure.peak_memory(lambda: F.cross_entropy(logits, target).backward(), "cpu")
    # the log-probabilities, and the gradients with regard to them and to the logits
    assert 3 * logits.nbytes <= peak < 3.1 * logits.nbytes
