"""The data map: confidence over variability, a dot for each sample, as axes or as SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sampleweights._checks import is_index, on_cpu

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888"]
_COLOURS += ["#ee8833", "#775533", "#bb99dd"]
_CORRECTNESS = ["#c8501e", "#d99a55", "#a0a0a0", "#6fa3cf", "#2a6fb0"]
_MOST_DOTS = 4000


def check_labels(
    target: Tensor | Sequence[int] | Any, class_names: Sequence[str] | None, num_samples: int
) -> tuple[Tensor, dict[int, str]]:
    """Class indices on the CPU, and the name of each class that occurs; below 0 is no class."""
    label = on_cpu("target", target)
    if label.shape != (num_samples,):
        raise ValueError(f"target must have shape ({num_samples},), got {tuple(label.shape)}")
    if not is_index(label):
        raise TypeError(f"target must hold class indices (integer), got dtype {label.dtype}")
    label = label.long()
    classes = [c for c in np.unique(label.numpy()).tolist() if c >= 0]
    if class_names is None:
        return label, {c: str(c) for c in classes}
    class_names = list(class_names)
    if classes and classes[-1] >= len(class_names):
        raise ValueError(f"class_names must name {classes[-1] + 1} classes, got {len(class_names)}")
    return label, {c: str(class_names[c]) for c in classes}


def draw(
    scores: dict[str, Tensor],
    target: Tensor | Sequence[int] | None,
    class_names: Sequence[str] | None,
    ax: Axes | None,
) -> Axes:
    """With matplotlib: a colour for each class, or for the correctness."""
    import matplotlib.pyplot as plt

    if ax is None:
        ax = plt.subplots(figsize=(6, 4.5), layout="constrained")[1]
    scores = {name: value.cpu() for name, value in scores.items()}
    x, y = scores["variability"], scores["confidence"]
    dots: dict[str, Any] = {"s": 8, "alpha": 0.6, "linewidths": 0, "rasterized": True}
    if target is None:
        drawn = ax.scatter(x, y, c=scores["correctness"], vmin=0, vmax=1, **dots)
        ax.figure.colorbar(drawn, ax=ax, label="correctness")
    else:
        label, names = check_labels(target, class_names, len(x))
        for c, name in names.items():
            of_class = label == c
            ax.scatter(x[of_class], y[of_class], label=name, **dots)
        ax.legend(markerscale=2)
    ax.set(xlabel="variability", ylabel="confidence", xlim=(0, 0.5), ylim=(-0.02, 1.02))
    return ax


def svg(scores: dict[str, Tensor], label: Tensor, names: dict[int, str]) -> str:
    """A figure of at most 4,000 samples of the named classes, "" where none was judged.

    Each class has a colour, as long as the colours suffice; else they show the correctness.
    """
    named = torch.isin(label, torch.tensor(list(names), dtype=label.dtype))
    known = (scores["confidence"].isfinite() & named).nonzero()[:, 0]
    if len(known) == 0:
        return ""
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    chosen = known[order[:_MOST_DOTS]]
    if 1 < len(names) <= len(_COLOURS):
        legend = list(zip(names.values(), _COLOURS, strict=False))
        group = np.searchsorted(list(names), label[chosen].numpy())
    else:
        legend = [(f"right in {25 * i} % of the epochs", c) for i, c in enumerate(_CORRECTNESS)]
        group = (scores["correctness"][chosen] * 4).round().int().numpy()
    x, y = scores["variability"][chosen] / 0.5, scores["confidence"][chosen]
    width, height, left, below = 640, 400, 46, 40
    dots = "".join(
        f'<circle cx="{left + px * (width - left - 8):.1f}" '
        f'cy="{8 + (1 - py) * (height - below - 8):.1f}" r="2" '
        f'fill="{legend[g][1]}" fill-opacity=".55"/>'
        for px, py, g in zip(x.tolist(), y.tolist(), group.tolist(), strict=True)
    )
    bottom = height - below
    axes = f'<path d="M{left} 8V{bottom}H{width - 8}" fill="none" stroke="var(--quiet)"/>'
    text = 'font-size="13" fill="currentColor"'
    ticks = "".join(
        f'<text x="{left - 6}" y="{12 + (1 - v) * (bottom - 8):.0f}" text-anchor="end" {text}>{v:g}'
        f'</text><text x="{left + v * (width - left - 8):.0f}" y="{bottom + 16}" '
        f'text-anchor="{"end" if v == 1 else "middle"}" {text}>{v / 2:g}</text>'
        for v in (0, 0.5, 1)
    )
    key = "".join(
        f'<span class="key"><span class="dot" style="background:{colour}"></span>'
        f"{html.escape(name)}</span> "
        for name, colour in legend
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="data map">'
        f"{axes}{ticks}"
        f'<text x="{(left + width) / 2}" y="{height - 6}" text-anchor="middle" {text}>variability'
        f'</text><text transform="translate(13 {bottom / 2}) rotate(-90)" text-anchor="middle" '
        f"{text}>confidence</text>{dots}</svg><figcaption>{key}<br>"
        f'<span class="quiet">Data map of {len(chosen):,} samples: mean probability of the label '
        "over the epochs, and its standard deviation. Top left: easy; bottom left: hard, or "
        "labelled wrongly; right: ambiguous.</span></figcaption></figure>"
    )
