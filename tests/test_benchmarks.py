from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks import __main__ as benchmarks


def test_one_shape(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--shapes", "20x7", "--seconds", "0"])
    benchmarks.main()
    out = capsys.readouterr().out
    for name in ("CrossEntropyLoss", "FocalLoss"):
        for weighter in benchmarks.weighters(7):
            assert f"| {name} | {weighter} |" in out


def test_peak_memory_counts_what_is_held_at_once() -> None:
    logits = torch.randn(100, 1000, requires_grad=True)
    target = torch.zeros(100, dtype=torch.long)
    peak = benchmarks.peak_memory(F.cross_entropy, logits, target)
    # the log-probabilities, and the gradients with regard to them and to the logits
    assert 3 * logits.nbytes <= peak < 3.1 * logits.nbytes
