"""The paper's own models, trained from images to a report through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_files import lesion, make
from test_isic2018_training import run_command, same_result
from torch import Tensor

from examples.isic2018 import models
from examples.isic2018.training import CHECKPOINT, RESULT, Experiment

OPTIONS = [
    "--preset", "paper", "--weights", "random", "--size", 64, 64, "--epochs-flat", 2,
    "--epochs-hierarchical", 2, "--optimizers", "adam", "--losses", "ce", "--weightings", "ohem",
    "--splits", 1, "--workers", 1,
]  # fmt: skip


def convolutions(experiment: Experiment) -> list[Tensor]:
    return [p for p in experiment.encoder.parameters() if p.ndim == 4]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["flat", "hierarchical"])
def test_vgg16_is_trained_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    root = make(tmp_path / "isic", picture=lesion)
    command = ["--data-root", root, *OPTIONS, "--models", model, "--output"]
    step, steps, dies = Experiment.training_step, [], False
    seen: dict[str, Any] = {}

    def watched(self: Experiment, *arguments: Any) -> Tensor:
        steps.append(self.current_epoch)
        if dies and self.current_epoch == 1:
            raise KeyboardInterrupt
        if not seen:
            seen.update(experiment=self, before=[p.detach().clone() for p in convolutions(self)])
        return step(self, *arguments)

    monkeypatch.setattr(Experiment, "training_step", watched)
    run_command("train", *command, tmp_path / "whole")
    experiment = seen["experiment"]
    parts = [type(module) for module in experiment.model.modules()]
    attention = models.CBAM if model == "flat" else models.DynamicAttention
    assert attention in parts
    assert (torch.nn.LSTMCell in parts) == (model == "hierarchical")
    assert experiment.encoder.augment is not None
    assert len(seen["before"]) == 13  # the convolutions of VGG16
    for after, before in zip(convolutions(experiment), seen["before"], strict=True):
        assert not after.cpu().equal(before.cpu())
    in_an_epoch = steps.count(0)
    assert steps == [0] * in_an_epoch + [1] * in_an_epoch

    dies = True
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_command("train", *command, tmp_path / "killed")
    runs = tmp_path / "killed" / "isic2018" / "runs"
    [folder] = [path for path in runs.iterdir() if path.is_dir()]  # beside what they belong to
    assert (folder / CHECKPOINT).exists()
    assert not (folder / RESULT).exists()
    assert len(pd.read_csv(folder / "curves.csv")) == 1

    dies = False
    steps.clear()
    torch.rand(3)  # another state of the generator
    run_command("reproduce", *command, tmp_path / "killed")
    assert steps == [1] * in_an_epoch
    same_result(tmp_path / "whole" / "isic2018" / "runs" / folder.name, folder)
    metrics = json.loads((folder / RESULT).read_text())["metrics"]["validation"]
    report = (tmp_path / "killed" / "isic2018" / "report.md").read_text()
    assert "images of 64x64, vgg16 (random), end to end. 1 of 1 runs" in report
    row = re.search(r"\| CE    \| OHEM +\| +([\d.]+)", report)
    assert row is not None
    assert row[1] == f"{metrics['acc']:.1f}"
