"""A module that holds what is ours scripts, saves and loads, as one that holds torch's does."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from contracts import LOSSES, MARGINS, WEIGHTERS
from torch import Tensor, nn

import sampleweights as sw

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)


class Own(sw.Weighter):
    """A user's weighter, with what TorchScript cannot read: an annotation, a property."""

    scale: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.note: dict[str, Any] = {"a": 1, "b": None}

    @property
    def what(self) -> str:
        return f"{type(self)!r}"

    def forward(self, loss: Tensor, *_: Any, **__: Any) -> Tensor:
        return loss.new_ones(loss.shape)


HELD = {
    **{f"{name} loss": loss.build for name, loss in LOSSES.items()},
    **{f"{name} weighter": make for name, make in WEIGHTERS.items()},
    **{f"{name} margin": make for name, make in MARGINS.items()},
    "weighted loss": lambda: sw.WeightedLoss(lambda a, b: a - b, weighter=[Own(), sw.OHEM(9)]),
    "a user's weighter": Own,
    "LossHistory": lambda: sw.LossHistory(3),
    "Taxonomy": lambda: sw.Taxonomy({"a": ["b", "c"]}),
}


@pytest.mark.parametrize("name", HELD)
def test_what_its_forward_does_not_call_may_be_held(name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.held = HELD[name]()

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images)

    model, images = Model(), torch.randn(4, 3)
    keys = list(model.state_dict())
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(images), model(images), rtol=0, atol=0)
    assert list(model.state_dict()) == keys  # and the module is as it was


def test_a_forward_that_calls_a_criterion_is_an_error() -> None:
    """Not a model that computes something else."""

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = sw.CrossEntropyLoss()

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return self.criterion(logits, target)

    with pytest.raises((RuntimeError, ValueError)):
        torch.jit.script(Called())
