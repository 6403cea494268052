"""A page about single samples: the most important, the least needed and the mislabelled ones."""

from __future__ import annotations

import base64
import csv
import functools
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sampleweights.history.data_map import check_labels, svg
from sampleweights.history.history import LossHistory

__all__ = ["write_page"]

HOUSE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #888; --loss: #2a6fb0; --kept: #d9822b;
        --background: light-dark(#fff, #16181c); --card: light-dark(#f6f7f9, #20242a); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem;
       background: var(--background); }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; } p, figcaption { max-width: 46rem; }
.quiet { color: var(--quiet); }
figure { margin: 1rem 0; } figure svg { width: 100%; max-width: 46rem; height: auto; }
"""
_STYLE = """
nav { max-height: 12rem; overflow-y: auto; }
nav a, .key { display: inline-block; margin-right: .8rem; }
h2, nav, .key { overflow-wrap: anywhere; }
section { content-visibility: auto; contain-intrinsic-size: auto 60rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .7rem; }
.card { background: var(--card); border-radius: .5rem; overflow: hidden; font-size: .75rem; }
.card img { display: block; width: 100%; height: auto; }
.card div { padding: .35rem .5rem .5rem; overflow-wrap: anywhere; line-height: 1.35; }
.card svg { display: block; width: 100%; height: 2.6rem; margin-top: .25rem; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .3em; }
"""

_MEASURED = ("adjusted_margin", "area_under_margin", "correctness", "mean_loss")

_STRIPS = {
    "Most important": "the highest total weight; among equals the highest mean loss",
    "Least needed": "the lowest total weight; among equals the lowest mean loss",
    "Probably mislabelled": "the lowest adjusted margin, if below 0: over the epochs the model "
    "preferred another class",
}


def write_page(
    path: str | Path,
    history: LossHistory,
    image: Callable[[int], Any] | None = None,
    target: Tensor | Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    per_class: int = 8,
    suspicious: int = 48,
    title: str = "Which samples matter",
) -> None:
    """Write one self-contained HTML file about the samples of a history.

    It begins with one list of the probably mislabelled samples of all classes, the most suspicious
    first. The list ends where the ``adjusted_margin`` (see :meth:`LossHistory.scores
    <sampleweights.LossHistory.scores>`) is no longer below 0. A link on the page saves all of it as
    CSV, with the label and the class that was predicted. For each class it then shows the most
    important, the least needed and the probably mislabelled samples, each with its image, scores
    and trajectory. It also shows the data map.

    Args:
        path: the file, written as UTF-8.
        history: the history; it has trajectories if its ``num_epochs`` was given.
        image: a function from the position of a sample to its image: a path to a file, the bytes
            of a PNG or JPEG, a PIL image, or a tensor or array of shape (H, W), (C, H, W) or
            (H, W, C) with 1, 3 or 4 channels, uint8 or floating from 0 to 1. PIL images, tensors
            and arrays need pillow, which makes them small. None shows no images.
        target: (num_samples,), class indices; samples below 0 (ignored) are not shown. None shows
            all samples in one section.
        class_names: a name for each class; None uses the numbers of the classes.
        names: a name for each sample; None uses the positions of the samples.
        per_class: how many samples of each kind to show for each class.
        suspicious: how many samples to show in the list of all probably mislabelled ones.
        title: the title of the page.

    Raises:
        TypeError, ValueError: lengths that do not fit, a target without class indices, a class
            without a name, an image of another type.
        ImportError: an image that is a tensor or array, without pillow.
    """
    size = history.num_samples
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    if suspicious < 0:
        raise ValueError(f"suspicious must be at least 0, got {suspicious}")
    if names is not None and len(names) != size:
        raise ValueError(f"names must have {size} values, got {len(names)}")
    name_of = list(map(str, range(size) if names is None else names))
    if target is None:
        label, class_of = torch.zeros(size, dtype=torch.int64), {0: "All samples"}
    else:
        label, class_of = check_labels(target, class_names, size)
    scores = {name: value.cpu().double() for name, value in history.scores().items()}
    margin, shown = scores["adjusted_margin"], scores["importance"].isfinite() & (label >= 0)
    strips = {
        "Most important": (_order(-scores["importance"], -scores["mean_loss"]), shown),
        "Least needed": (_order(scores["importance"], scores["mean_loss"]), shown),
        "Probably mislabelled": (_order(margin), shown & (margin < 0)),
    }
    suspects = _order(margin)[: int((margin < 0).sum())]
    suspects = suspects[shown[suspects]]
    chosen = {
        strip: _first_of_each(order[where[order]], label, per_class)
        for strip, (order, where) in strips.items()
    }
    losses, weights = history.losses.cpu().numpy(), history.weights.cpu().numpy()
    ceiling = _ceiling(losses, scores["mean_loss"])
    table = {name: value.numpy() for name, value in scores.items()}

    names_of_classes = None if class_names is None else list(class_names)

    def plain_name(c: float) -> str:
        c = int(c)
        known = names_of_classes is not None and 0 <= c < len(names_of_classes)
        return str(names_of_classes[c]) if known and names_of_classes else str(c)

    def class_name(c: float) -> str:
        return html.escape(plain_name(c))

    def as_row(i: int) -> list[Any]:
        labelled = [plain_name(int(label[i]))] if target is not None else []
        measured = [f"{table[key][i]:.4g}" for key in _MEASURED]
        return [name_of[i], *labelled, plain_name(table["rival"][i]), *measured]

    @functools.cache  # a sample may be in several strips
    def card(i: int) -> str:
        name = html.escape(name_of[i])
        row = {key: float(values[i]) for key, values in table.items()}
        lines = [
            f"<b>{name}</b>",
            *([f"labelled {class_name(int(label[i]))}"] if target is not None else []),
            f"weight {row['importance']:.3g}, kept {row['kept']:.0%}",
            f"loss {row['mean_loss']:.2f}",
        ]
        if math.isfinite(row["area_under_margin"]):
            lines[-1] += f", right {row['correctness']:.0%}"
            place = "predicted" if row["correctness"] < 0.5 else "then"
            lines.append(f"{place} {class_name(row['rival'])}")
            lines.append(f"margin {row['area_under_margin']:.2f}")
            if row["adjusted_margin"] != row["area_under_margin"]:
                lines[-1] += f", adjusted {row['adjusted_margin']:.2f}"
        picture = ""
        if image is not None:
            source = _data_uri(f"image({i})", image(i))
            picture = f'<img src="{source}" alt="sample {name}" loading="lazy">'
        trajectory = _trajectory(losses[:, i].tolist(), weights[:, i].tolist(), ceiling)
        return f'<div class="card">{picture}<div>{"<br>".join(lines)}{trajectory}</div></div>'

    present, counts = np.unique(label[shown].numpy(), return_counts=True)
    class_of = {c: class_of[c] for c in present.tolist()}
    links = "".join(f'<a href="#class{c}">{html.escape(n)}</a> ' for c, n in class_of.items())
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{int(shown.sum()):,} samples, {int(history.epochs)} epochs. A card shows a sample's "
        "total weight over the training and in how many of its presentations that weight was above "
        "0, its mean loss, how often it was classified as labelled, the class that was predicted "
        "instead (or would be next), and its mean margin (the logit of its label less the highest "
        "other one). The adjusted "
        "margin leaves out what the label's class suffers for being rare. The curve is the loss "
        "over the epochs; orange marks are the epochs in which the sample counted.</p>",
        f"<nav>{links}</nav>" if len(class_of) > 1 else "",
        svg(scores, label, class_of),
    ]
    if suspicious and margin.isfinite().any():
        columns = ["sample", *(["labelled"] if target is not None else []), "predicted", *_MEASURED]
        save = _link_to_csv([columns, *map(as_row, suspects.tolist())])
        parts += _suspicious(suspects.tolist(), suspicious, int(shown.sum()), card, save)
    for (c, name), count in zip(class_of.items(), counts.tolist(), strict=True):
        parts.append(
            f'<section id="class{c}"><h2>{html.escape(name)} '
            f'<span class="quiet">{count:,} samples</span></h2>'
        )
        for strip, meaning in _STRIPS.items():
            if cards := "".join(map(card, chosen[strip].get(c, []))):
                parts.append(f'<h3>{strip} <span class="quiet">{meaning}</span></h3>')
                parts.append(f'<div class="cards">{cards}</div>')
        parts.append("</section>")
    write_document(path, title, _STYLE, parts)


def _link_to_csv(rows: list[list[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    encoded = base64.b64encode(file.getvalue().encode()).decode()
    return (
        f'<a download="suspicious.csv" href="data:text/csv;charset=utf-8;base64,{encoded}">Save '
        "the whole list as CSV</a>."
    )


def _suspicious(
    suspects: list[int], most: int, num_shown: int, card: Callable[[int], str], save: str
) -> list[str]:
    """The list over all classes: where it ends, and why."""
    count, first = len(suspects), suspects[:most]
    ends = "No label is suspicious: the adjusted margin of every sample is above 0."
    if count:
        ends = (
            f"{count:,} of {num_shown:,} samples ({count / num_shown:.1%}) have an adjusted margin "
            "below 0: over the epochs the model preferred another class to their label, beyond "
            "what it prefers frequent classes to rare ones. There the list ends. Not all of them "
            "are wrong: hard samples stand near its end."
        )
        if len(first) < count:
            ends += f" Shown are the first {len(first):,}."
        ends += f" {save}"
    cards = "".join(map(card, first))
    return [
        f'<section><h2 id="suspicious">Probably mislabelled <span class="quiet">{count:,} samples'
        f'</span></h2><p>{ends}</p><div class="cards">{cards}</div></section>'
    ]


def write_document(path: str | Path, title: str, style: str, parts: Sequence[str]) -> None:
    """Write one HTML file with everything in it; ``parts`` are HTML already."""
    Path(path).write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{HOUSE}{style}</style>"
        + "\n".join(parts)
        + "</html>\n",
        encoding="utf-8",  # as declared, whatever the locale
    )


def _order(*keys: Tensor) -> Tensor:
    """Positions by the first key, then the second; what has none comes last."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[key.nan_to_num(math.inf)[order].argsort(stable=True)]
    return order


def _first_of_each(order: Tensor, label: Tensor, count: int) -> dict[int, list[int]]:
    """The first ``count`` positions of ``order`` in each class: one sort, no loop over samples."""
    order = order[label[order].argsort(stable=True)]
    classes, starts = np.unique(label[order].numpy(), return_index=True)
    parts = np.split(order.numpy(), starts[1:])
    return {c: part[:count].tolist() for c, part in zip(classes.tolist(), parts, strict=False)}


def _ceiling(losses: np.ndarray, mean_loss: Tensor) -> float:
    """The top of the trajectories: what all but 1 % of the losses are below."""
    finite = losses[np.isfinite(losses)]
    if len(finite) == 0:
        return float(mean_loss.nan_to_num(0, 0, 0).max())
    every = len(finite) // 2**22 + 1  # enough for a percentile
    return float(np.quantile(finite[::every].astype(np.float32), 0.99))


def _data_uri(name: str, picture: Any) -> str:
    """A picture as it stands in ``src``; what is neither file nor bytes as a small JPEG."""
    if isinstance(picture, (str, Path)):
        picture = Path(picture).read_bytes()
    if isinstance(picture, (Tensor, np.ndarray)):
        picture = _from_array(name, picture)
    if not isinstance(picture, bytes):
        if not hasattr(picture, "thumbnail"):
            raise TypeError(
                f"{name} must be a path, bytes, a PIL image, a tensor or an array, got "
                f"{type(picture).__name__}"
            )
        small = picture.convert("RGB")
        small.thumbnail((240, 240))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
        picture = file.getvalue()
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _from_array(name: str, pixels: Tensor | np.ndarray) -> Any:
    """A PIL image. Channels that may be first or last: first in a tensor, last in an array."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"{name} is a {type(pixels).__name__}, which needs pillow: pip install pillow"
        ) from error
    shape, dtype = tuple(pixels.shape), pixels.dtype
    is_tensor = isinstance(pixels, Tensor)
    if isinstance(pixels, Tensor):
        pixels = pixels.detach().cpu()
        pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
    channels = [d for d in ((0, 2) if is_tensor else (2, 0)) if len(shape) == 3]
    channels = [d for d in channels if shape[d] in (1, 3, 4)]
    if 0 in shape or not (len(shape) == 2 or channels):
        raise ValueError(
            f"{name} must have shape (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels, got "
            f"{shape}"
        )
    if channels:
        pixels = np.moveaxis(pixels, channels[0], 2)
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = float(pixels.min()), float(pixels.max())
        if not -1e-3 <= low <= high <= 1 + 1e-3:
            raise ValueError(
                f"{name} must be from 0 to 1, got {low:.3g} to {high:.3g}: undo its normalization"
            )
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise TypeError(f"{name} must be uint8 or floating, got dtype {dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _trajectory(losses: list[float], weights: list[float], ceiling: float) -> str:
    """Loss over epochs as a line, epochs with a weight above 0 as marks under it."""
    if not any(map(math.isfinite, losses)):
        return ""
    width, height = 120.0, 32.0
    step = width / max(len(losses) - 1, 1)
    points, marks = [], []
    for epoch, (loss, weight) in enumerate(zip(losses, weights, strict=True)):
        x = epoch * step
        if math.isfinite(loss):
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
