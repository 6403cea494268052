from __future__ import annotations

import pytest
import torch
from torch import nn

import sampleweights as sw
from examples import quickstart


def test_ours_trains_to_the_same_model_as_torchs_and_weights_help() -> None:
    torchs = quickstart.recall_per_class(nn.CrossEntropyLoss())
    assert quickstart.recall_per_class(sw.CrossEntropyLoss()) == torchs
    balanced = quickstart.recall_per_class(
        sw.CrossEntropyLoss(weighter=sw.ClassBalanced(quickstart.COUNTS))
    )
    assert balanced[2] > torchs[2] + 0.3


def test_main(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "NUM_EPOCHS", 1)
    quickstart.main()
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert torch.get_default_dtype() == torch.float32
