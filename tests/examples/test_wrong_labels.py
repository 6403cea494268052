from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples import wrong_labels


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wrong_labels", "--seeds", "1", "--epochs", "2"])
    wrong_labels.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == [name for name in wrong_labels.WEIGHTINGS for _ in range(2)]
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        assert int(after[3]) <= int(before[3])  # it only takes samples off the list


def test_the_page(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    wrong_labels.page(str(tmp_path / "page.html"), 60, 0.05, 2)
    assert "5% of the labels changed" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_thinned_digits() -> None:
    inputs, label, given, classes = wrong_labels.thinned(60, 0.05, 0)
    counts = label.bincount(minlength=10)[classes]
    assert (counts[0].item(), counts[-1].item()) == (174, 3)
    assert (given != label).sum() == round(0.05 * len(inputs))
    assert given.unique().tolist() == list(range(10))
