"""A page about single samples: which were needed most and least, which are labelled wrongly."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sampleweights.history import LossHistory

__all__ = ["write_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #888; --loss: #2a6fb0; --kept: #d9822b;
        --background: light-dark(#fff, #16181c); --card: light-dark(#f6f7f9, #20242a); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem;
       background: var(--background); }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; } p, figcaption { max-width: 46rem; }
nav a { margin-right: .8rem; } .quiet { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .7rem; }
.card { background: var(--card); border-radius: .5rem; overflow: hidden; font-size: .75rem; }
.card img { display: block; width: 100%; height: auto; }
.card div { padding: .35rem .5rem .5rem; overflow-wrap: anywhere; line-height: 1.35; }
.card svg { display: block; width: 100%; height: 2.6rem; margin-top: .25rem; }
figure { margin: 1rem 0; } figure svg { width: 100%; max-width: 46rem; height: auto; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .3em; }
"""
_COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888"]

_STRIPS = {
    "Most important": "the highest total weight; among equals the highest mean loss",
    "Least needed": "the lowest total weight; among equals the lowest mean loss",
    "Probably mislabelled": "the lowest area under the margin: another class was preferred, and "
    "by much, in most epochs",
}


def write_page(
    path: str | Path,
    history: LossHistory,
    image: Callable[[int], Any],
    target: Tensor | Sequence[int],
    class_names: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    per_class: int = 8,
    title: str = "Which samples matter",
) -> None:
    """Write one HTML file, with everything in it, about the samples of a history.

    For each class the most important samples, those that were needed least and those that are
    probably mislabelled, each with its image, scores and trajectory; and the data map.

    Args:
        path: the file.
        history: with ``num_epochs`` given, for trajectories.
        image: from the position of a sample to its picture: a path to a file, the bytes of a PNG
            or JPEG, or a PIL image (which is made small).
        target: (num_samples,), class indices.
        class_names: a name for each class.
        names: a name for each sample; None for its position.
        per_class: how many samples of each kind and class.
        title: of the page.

    Raises:
        ValueError: lengths that do not fit.
    """
    label = torch.as_tensor(target).cpu().long()
    size = history.num_samples
    for name, sequence in (("target", label), ("names", names)):
        if sequence is not None and len(sequence) != size:
            raise ValueError(f"{name} must have {size} values, got {len(sequence)}")
    if len(label) and int(label.max()) >= len(class_names):
        raise ValueError(
            f"class_names must name {int(label.max()) + 1} classes, got {len(class_names)}"
        )
    scores = {name: value.cpu().double() for name, value in history.scores().items()}
    orders = {
        "Most important": _order(-scores["importance"], -scores["mean_loss"]),
        "Least needed": _order(scores["importance"], scores["mean_loss"]),
        "Probably mislabelled": _order(scores["area_under_margin"]),
    }
    ceiling = (
        float(history.losses[history.losses.isfinite()].float().quantile(0.99))
        if (history.losses.isfinite().any() and history.losses.numel() < 2**24)
        else float(scores["mean_loss"].nan_to_num().max())
    )

    def card(i: int) -> str:
        name = str(i) if names is None else names[i]
        lines = [
            f"<b>{html.escape(name)}</b>",
            f"weight {scores['importance'][i]:.3g}, kept {scores['kept'][i]:.0%}",
            f"loss {scores['mean_loss'][i]:.2f}, right {scores['correctness'][i]:.0%}",
            f"margin {scores['area_under_margin'][i]:.2f}",
        ]
        picture = f'<img src="{_embed(image(i))}" alt="sample {html.escape(name)}" loading="lazy">'
        trajectory = _trajectory(history.losses[:, i], history.weights[:, i], ceiling)
        return f'<div class="card">{picture}<div>{"<br>".join(lines)}{trajectory}</div></div>'

    seen = scores["importance"].isfinite()
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{int(seen.sum()):,} samples, {int(history.epochs)} epochs. A card shows a sample's "
        "total weight over the training and in how many of its presentations that weight was above "
        "0, its mean loss, how often it was classified as labelled, and its mean margin (the logit "
        "of its label less the highest other one). The curve is its loss over the epochs; orange "
        "marks are the epochs in which it counted.</p>",
        "<nav>"
        + "".join(
            f'<a href="#class{c}">{html.escape(name)}</a>' for c, name in enumerate(class_names)
        )
        + "</nav>",
        _data_map(scores, label, class_names),
    ]
    for c, class_name in enumerate(class_names):
        of_class = seen & (label == c)
        parts.append(
            f'<h2 id="class{c}">{html.escape(class_name)} '
            f'<span class="quiet">{int(of_class.sum()):,} samples</span></h2>'
        )
        for strip, meaning in _STRIPS.items():
            chosen = [i for i in orders[strip] if of_class[i]][:per_class]
            if strip == "Probably mislabelled":
                chosen = [i for i in chosen if scores["area_under_margin"][i] < 0]
            if chosen:
                parts.append(f'<h3>{strip} <span class="quiet">{meaning}</span></h3>')
                parts.append(f'<div class="cards">{"".join(map(card, chosen))}</div>')
    Path(path).write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        + "\n".join(parts)
        + "</html>\n"
    )


def _order(*keys: Tensor) -> list[int]:
    """Positions by the first key, then the second; what has none comes last."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[key.nan_to_num(math.inf)[order].argsort(stable=True)]
    positions: list[int] = order.tolist()
    return positions


def _embed(picture: Any) -> str:
    if isinstance(picture, (str, Path)):
        picture = Path(picture).read_bytes()
    if not isinstance(picture, bytes):
        small = picture.convert("RGB")
        small.thumbnail((240, 240))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
        picture = file.getvalue()
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _trajectory(losses: Tensor, weights: Tensor, ceiling: float) -> str:
    """Loss over epochs as a line, epochs with a weight above 0 as marks under it."""
    if not losses.isfinite().any():
        return ""
    width, height = 120.0, 32.0
    step = width / max(len(losses) - 1, 1)
    points, marks = [], []
    for epoch, (loss, weight) in enumerate(zip(losses.tolist(), weights.tolist(), strict=True)):
        x = epoch * step
        if loss == loss:
            y = (height - 5) * (1 - min(loss / max(ceiling, 1e-6), 1)) + 1
            points.append(f"{x:.1f},{y:.1f}")
        if weight > 0:
            marks.append(f"M{x:.1f} {height - 2.5}v2.5")
    return (
        f'<svg viewBox="-1 0 {width + 2} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="loss over epochs"><polyline points="{" ".join(points)}" fill="none" '
        'stroke="var(--loss)" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
        f'<path d="{"".join(marks)}" stroke="var(--kept)" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def _data_map(scores: dict[str, Tensor], label: Tensor, class_names: Sequence[str]) -> str:
    """Confidence over variability of at most 4,000 samples, a colour for each class."""
    known = scores["confidence"].isfinite().nonzero()[:, 0]
    if len(known) == 0:
        return ""
    chosen = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:4000]]
    x, y = scores["variability"][chosen] / 0.5, scores["confidence"][chosen]
    width, height, left, below = 640, 400, 46, 40
    dots = "".join(
        f'<circle cx="{left + px * (width - left - 8):.1f}" '
        f'cy="{8 + (1 - py) * (height - below - 8):.1f}" r="2" '
        f'fill="{_COLOURS[c % len(_COLOURS)]}" fill-opacity=".55"/>'
        for px, py, c in zip(x.tolist(), y.tolist(), label[chosen].tolist(), strict=True)
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
    names = "".join(
        f'<span style="white-space:nowrap;margin-right:.8em"><span class="dot" '
        f'style="background:{_COLOURS[c % len(_COLOURS)]}"></span>{html.escape(name)}</span> '
        for c, name in enumerate(class_names)
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="data map">'
        f"{axes}{ticks}"
        f'<text x="{(left + width) / 2}" y="{height - 6}" text-anchor="middle" {text}>variability'
        f'</text><text transform="translate(13 {bottom / 2}) rotate(-90)" text-anchor="middle" '
        f"{text}>confidence</text>{dots}</svg><figcaption>{names}<br>"
        f'<span class="quiet">Data map of {len(chosen):,} samples: mean probability of the label '
        "over the epochs, and its standard deviation. Top left: easy; bottom left: hard, or "
        "labelled wrongly; right: ambiguous.</span></figcaption></figure>"
    )
