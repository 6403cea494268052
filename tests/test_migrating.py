"""Every pair of docs/migrating.md: the same value and gradient as the real package's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import sampleweights as sw

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"
PACKAGES = {  # of each section: what to import, and the name that the page gives it
    "torch": ("torch", "torch"),
    "Margin losses": ("torch", "torch"),
    "torchvision": ("torchvision", "torchvision"),
    "timm": ("timm.loss", "timm"),
    "kornia": ("kornia", "kornia"),
    "MONAI": ("monai.losses", "monai"),
    "segmentation-models-pytorch": ("segmentation_models_pytorch", "smp"),
    "imbalanced-losses": ("imbalanced_losses", "imbalanced_losses"),
    "balanced-loss": ("balanced_loss", "balanced_loss"),
    "pytorch-focalloss": ("torch_focalloss", "torch_focalloss"),
    "scikit-learn": ("sklearn.utils", "sklearn"),
}


def pairs() -> list[Any]:
    cases = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0]
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL)):
            cases.append(pytest.param(title, code, id=f"{title}-{number + 1}"))
    return cases


def test_no_section_is_without_pairs() -> None:
    assert {case.values[0] for case in pairs()} == set(PACKAGES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("title", "code"), pairs())
def test_ours_is_theirs(title: str, code: str) -> None:
    module, name = PACKAGES[title]
    pytest.importorskip(module)
    torch.manual_seed(0)
    dense_target = torch.randint(7, (2, 8, 8))
    dense_target[:, :3, :4] = 255
    counts = [500, 200, 100, 50, 20, 10, 5]
    data: dict[str, Any] = {
        "logits": 2 * torch.randn(64, 7),
        "target": torch.randint(7, (64,)),
        "binary_logits": 2 * torch.randn(64, 7),
        "binary_target": torch.randint(2, (64, 7)).float(),
        "dense_logits": 2 * torch.randn(2, 7, 8, 8),
        "dense_target": dense_target,
        "class_counts": counts,
        "class_weight": torch.logspace(-1, 1, 7),
        "sample_weight": torch.rand(64),
    }
    package = importlib.import_module(module.partition(".")[0])
    names = {"np": np, "torch": torch, "nn": nn, "F": functional, "sw": sw, name: package, **data}
    leaves = [value.requires_grad_() for key, value in data.items() if key.endswith("logits")]
    exec(code, names)
    gradients = [
        torch.autograd.grad(names[side], leaves, allow_unused=True) for side in ("theirs", "ours")
    ]
    torch.testing.assert_close(names["ours"], names["theirs"], rtol=1e-5, atol=1e-7)
    for theirs, ours in zip(*gradients, strict=True):
        assert (theirs is None) == (ours is None)
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
