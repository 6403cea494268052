"""The list that every public weighter, loss, margin and schedule must be in, with ways to build it.

A test fails while a public class is missing here; every entry is run through the contracts of
test_contracts.py, so a new class cannot dodge them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import sampleweights as sw

NUM_CLASSES = 5
COUNTS = [50, 20, 9, 4, 1]
NUM_EPOCHS = 10
TREE = {"a": ["a0", "a1"], "b": {"c": ["c0"], "d": ["d0", "d1"]}}

WEIGHTERS: dict[str, Callable[[], Any]] = {
    "ClassBalanced": lambda: sw.ClassBalanced(COUNTS),
    "ClassBalanced(None)": lambda: sw.ClassBalanced(COUNTS, normalize=None),
    "ClassBalanced(power)": lambda: sw.ClassBalanced(COUNTS, power=0.5),
    "EffectiveNumber": lambda: sw.EffectiveNumber(COUNTS),
    "EffectiveNumber(beta)": lambda: sw.EffectiveNumber(COUNTS, beta=0.9, normalize="classes"),
    "SelfPaced": lambda: sw.SelfPaced(NUM_EPOCHS),
    "SelfPaced(Linear)": lambda: sw.SelfPaced(schedule=sw.schedules.Linear(NUM_EPOCHS)),
    "SelfPaced(per_class)": lambda: sw.SelfPaced(NUM_EPOCHS, per_class=True),
    "OHEM": lambda: sw.OHEM(NUM_EPOCHS),
    "OHEM(0.25)": lambda: sw.OHEM(schedule=0.25),
    "OHEM(per_class)": lambda: sw.OHEM(NUM_EPOCHS, per_class=True),
    "HardNegativeMining(batch)": lambda: sw.HardNegativeMining(0.1, within="batch"),
    "Confidence": sw.Confidence,
    "Compose": lambda: sw.Compose([sw.ClassBalanced(COUNTS), sw.OHEM(NUM_EPOCHS, per_class=True)]),
    "Compose(nested)": lambda: sw.Compose(
        [sw.SelfPaced(NUM_EPOCHS), [sw.EffectiveNumber(COUNTS), sw.OHEM(NUM_EPOCHS)]]
    ),
    "Deferred": lambda: sw.Deferred(sw.EffectiveNumber(COUNTS), 3),
    "Deferred(nested)": lambda: sw.Deferred(
        [sw.ClassBalanced(COUNTS), sw.Deferred(sw.OHEM(schedule=0.25), 2)], 3
    ),
    "Compose(Deferred)": lambda: sw.Compose(
        [sw.Deferred(sw.ClassBalanced(COUNTS), 3), sw.OHEM(schedule=0.5)]
    ),
}

WITHIN_SAMPLE: dict[str, Callable[[], Any]] = {
    "OHEM(sample)": lambda: sw.OHEM(NUM_EPOCHS, within="sample"),
    "HardNegativeMining": lambda: sw.HardNegativeMining(0.5),
    "Compose(sample)": lambda: sw.Compose(
        [sw.Deferred(sw.HardNegativeMining(0.5, min_negatives=2), 3), sw.OHEM(10, within="sample")]
    ),
}
"""Those that choose among the positions of each sample, and so need several of them."""

ROOT = Path(__file__).parents[1]


def shown(page: str, name: str) -> dict[str, Any]:
    """What the code block that defines ``name`` on a page leaves."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [code] = [block for block in blocks if f"class {name}(" in block]
    module = sys.modules[f"shown_{name}"] = ModuleType(f"shown_{name}")  # for pickle
    module.__dict__.update(torch=torch, sw=sw, class_counts=[8, 4, 2])
    exec(code, module.__dict__)
    return module.__dict__


MARGINS: dict[str, Callable[[], Any]] = {
    "LogitAdjustment": lambda: sw.LogitAdjustment(COUNTS),
    "LogitAdjustment(tau)": lambda: sw.LogitAdjustment(COUNTS, 0.5),
    "LDAM": lambda: sw.LDAM(COUNTS),
    "LDAM(scale)": lambda: sw.LDAM(COUNTS, 1.0, 4.0),
}

CONTRACTED = {
    **WEIGHTERS,
    "docs/extending.md": lambda: shown("docs/extending.md", "Robust")["Robust"](),
}


@dataclass
class Loss:
    """A loss and a batch that it takes."""

    build: Callable[..., Any]
    batch: Callable[[], tuple[Any, Tensor]]
    num_classes: int | None = NUM_CLASSES
    """None where targets are no classes."""

    def weighter(self, name: str) -> Any:
        """The named weighter, or None where the loss has no classes or positions for it."""
        if name in WITHIN_SAMPLE and self.batch()[1].ndim < 2:
            return None
        weighter = (WEIGHTERS | WITHIN_SAMPLE)[name]()
        needs_classes = weighter.num_classes is not None or "per_class" in name
        return None if needs_classes and self.num_classes != NUM_CLASSES else weighter


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def logits(*shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=_generator())


def indices(*shape: int) -> Tensor:
    return torch.randint(NUM_CLASSES, shape, generator=_generator())


def _flat() -> tuple[Tensor, Tensor]:
    target = indices(12)
    target[3] = -100
    return logits(12, NUM_CLASSES), target


def _dense() -> tuple[Tensor, Tensor]:
    target = indices(2, 4, 3)
    target[0, 0] = -100
    return logits(2, NUM_CLASSES, 4, 3), target


def _binary() -> tuple[Tensor, Tensor]:
    return logits(8, 3), indices(8, 3) % 2


def _levels() -> tuple[Tensor, Tensor]:
    return logits(8, 3, 9), indices(8)


LOSSES: dict[str, Loss] = {
    "CrossEntropyLoss": Loss(sw.CrossEntropyLoss, _flat),
    "CrossEntropyLoss(smoothing)": Loss(
        lambda **kw: sw.CrossEntropyLoss(
            torch.linspace(0.5, 2, NUM_CLASSES), label_smoothing=0.1, **kw
        ),
        _flat,
    ),
    "CrossEntropyLoss(dense)": Loss(sw.CrossEntropyLoss, _dense),
    "FocalLoss": Loss(sw.FocalLoss, _flat),
    "FocalLoss(0.5, dense)": Loss(lambda **kw: sw.FocalLoss(0.5, **kw), _dense),
    "CrossEntropyLoss(margin)": Loss(
        lambda **kw: sw.CrossEntropyLoss(margin=sw.LDAM(COUNTS), **kw), _flat
    ),
    "FocalLoss(margin)": Loss(
        lambda **kw: sw.FocalLoss(margin=sw.LogitAdjustment(COUNTS), **kw), _dense
    ),
    "BinaryFocalLoss": Loss(sw.BinaryFocalLoss, _binary, num_classes=2),
    "BinaryFocalLoss(margin)": Loss(
        lambda **kw: sw.BinaryFocalLoss(margin=sw.LDAM([[50, 9], [1, 4], [3, 3]]), **kw),
        _binary,
        num_classes=2,
    ),
    "BCEWithLogitsLoss": Loss(sw.BCEWithLogitsLoss, _binary, num_classes=2),
    "BCEWithLogitsLoss(pos_weight)": Loss(
        lambda **kw: sw.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0, 0.5, 1.0]), **kw),
        _binary,
        num_classes=2,
    ),
    "BCEWithLogitsLoss(margin)": Loss(
        lambda **kw: sw.BCEWithLogitsLoss(
            pos_weight=2.0, margin=sw.LogitAdjustment([[50, 9], [1, 4], [3, 3]]), **kw
        ),
        _binary,
        num_classes=2,
    ),
    "AsymmetricLoss": Loss(sw.AsymmetricLoss, _binary, num_classes=2),
    "HierarchicalLoss": Loss(
        lambda **kw: sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=sw.Taxonomy(TREE), **kw),
        _levels,
    ),
    "WeightedLoss": Loss(
        lambda **kw: sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none"), **kw), _flat
    ),
    "WeightedLoss(Huber)": Loss(
        lambda **kw: sw.WeightedLoss(nn.HuberLoss(reduction="none"), **kw),
        lambda: (logits(9), logits(9).flip(0)),
        num_classes=None,
    ),
}

LOSSES["docs/extending.md"] = Loss(
    shown("docs/extending.md", "GeneralizedCrossEntropy")["GeneralizedCrossEntropy"], _flat
)

SCHEDULES: dict[str, Callable[[], Any]] = {
    "Sigmoid": lambda: sw.schedules.Sigmoid(NUM_EPOCHS),
    "Linear": lambda: sw.schedules.Linear(NUM_EPOCHS),
    "Constant": lambda: sw.schedules.Constant(0.3),
}

PAIRS = [
    (loss, weighter)
    for loss in LOSSES
    for weighter in [None, *WEIGHTERS, *WITHIN_SAMPLE]
    if weighter is None or LOSSES[loss].weighter(weighter) is not None
]


def compiled(criterion: Any, **options: Any) -> tuple[Any, list[Any]]:
    """The criterion compiled as one graph, and the list that every compilation adds to."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    return torch.compile(criterion, fullgraph=True, backend=backend, **options), graphs
