from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

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


def test_cleanlab_gets_probabilities_out_of_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for cleanlab: no package of the tests has it."""
    given_to: list[np.ndarray] = []

    def quality(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        given_to.append(probabilities)
        return probabilities[np.arange(len(labels)), labels]

    rank, filter_ = ModuleType("cleanlab.rank"), ModuleType("cleanlab.filter")
    monkeypatch.setattr(rank, "get_label_quality_scores", quality, raising=False)
    monkeypatch.setattr(filter_, "find_label_issues", lambda y, p: p.argmax(1) != y, raising=False)
    for name, module in (("cleanlab.rank", rank), ("cleanlab.filter", filter_)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cleanlab", ModuleType("cleanlab"))
    # labels that only a model that was trained on the same samples can know
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 64, generator=generator)
    given = torch.randint(0, 10, (40,), generator=generator)
    found = wrong_labels.cleanlab_finds(inputs, given, 40, 0)
    assert found is not None
    order, flagged = found
    assert flagged.float().mean() > 0.7  # in sample 0
    of_label = given_to[0][np.arange(40), given.numpy()]
    assert (np.diff(of_label[order.numpy()]) >= 0).all()
    assert np.allclose(given_to[0].sum(1), 1, atol=1e-5)
