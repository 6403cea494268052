"""Labels for points that lie close to each other, moved apart so that each can be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Label", "draw_labels", "place"]

Floats = NDArray[np.float64]

_DIRECTIONS = np.arange(24) * np.pi / 12
_DISTANCES = np.array([2.5, 5, 8, 12, 16, 21, 27, 34, 42, 52, 64, 80, 100, 125, 160])
_GAP = 2.0  # between a label and all that it must not touch
_SWEEPS = 4
# what must not be, what could be misread, and what is only less handsome; the rest is distance
_TOUCHES, _MISLEADS, _ON_LINE = 1e4, 200.0, 0.6


class Label(NamedTuple):
    """Words beside a point of the axes."""

    text: str
    point: Floats
    """In data coordinates, (2,)."""
    radius: float
    """Of what is drawn at the point, in points of 1/72 inch."""
    color: str
    """Of the leader."""
    weight: str = "normal"


def draw_labels(axes: Any, labels: Sequence[Label], lines: Sequence[Floats]) -> None:
    """Write each label near its point, with a leader where it is not beside it.

    Args:
        axes: matplotlib's Axes, of a figure whose layout is done.
        labels: what to write; none touches the point of another.
        lines: (L, 2) each, in data coordinates, which labels should rather not cover.
    """
    points = 72 / axes.figure.dpi

    def to_points(values: Any) -> Floats:
        found: Floats = axes.transData.transform(np.reshape(values, (-1, 2))) * points
        return found

    style: dict[str, Any] = {"fontsize": 9.5, "linespacing": 0.95, "parse_math": False}
    sizes, anchors = np.zeros((len(labels), 2)), to_points([label.point for label in labels])
    for i, label in enumerate(labels):
        artist = axes.text(0, 0, label.text, weight=label.weight, **style)
        box = artist.get_window_extent()
        # with other dots per inch, letters are some percent wider
        sizes[i] = 1.03 * box.width * points, box.height * points
        artist.remove()
    along = [
        a + (b - a) * t
        for line in map(to_points, lines)
        for a, b in itertools.pairwise(line)
        if np.isfinite([a, b]).all()
        for t in np.arange(0, 1, 6 / max(np.hypot(*(b - a)), 6))
    ]
    area = np.array(axes.bbox.extents) * points
    dots = np.column_stack([anchors, [label.radius for label in labels]])
    centres = place(sizes, anchors, area, dots, np.reshape(along, (-1, 2)).astype(np.float64))
    for label, anchor, centre, size in zip(labels, anchors, centres, sizes, strict=True):
        start = np.clip((anchor - centre) / size + 0.5, 0, 1)
        artist = axes.annotate(
            label.text, tuple(label.point), weight=label.weight, xytext=tuple(centre - anchor),
            textcoords="offset points", ha="center", va="center", annotation_clip=False,
            multialignment="right" if centre[0] < anchor[0] else "left",
            arrowprops={
                "arrowstyle": "-", "color": label.color, "linewidth": 0.8, "shrinkA": 0.5,
                "shrinkB": label.radius, "relpos": tuple(start),
            },
            **style,
        )  # fmt: skip
        artist.set_in_layout(False)
        gap = np.linalg.norm(np.maximum(np.abs(anchor - centre) - size / 2, 0))
        artist.arrow_patch.set_visible(gap - label.radius > 3)  # closer, it needs no leader


def place(sizes: Floats, anchors: Floats, area: Floats, dots: Floats, lines: Floats) -> Floats:
    """Where the centre of each label goes, all lengths in points of 1/72 inch.

    One label after the other takes the place that costs least: near its point, touching no dot and
    no other label, with a leader that passes no other dot, label or leader. A few sweeps let the
    first ones answer to the last ones.

    Args:
        sizes: (N, 2), width and height of each label.
        anchors: (N, 2), the point that each label belongs to.
        area: (left, bottom, right, top) in which the labels must stay.
        dots: (M, 3), centre and radius of what no label may touch and no leader pass.
        lines: (L, 2), points along lines that labels should rather not cover.

    Returns:
        (N, 2), the centre of each label. The same for the same input.
    """
    placed = np.zeros(len(sizes), bool)
    centres, starts = anchors.astype(np.float64), anchors.astype(np.float64)
    # labels in a crowd choose first: the others find room elsewhere
    near = np.hypot(*(anchors[:, None] - anchors[None]).transpose(2, 0, 1)) < 60
    places = [_places(*label, area, dots, lines) for label in zip(sizes, anchors, strict=True)]
    for i in [*np.argsort(-near.sum(1), kind="stable")] * _SWEEPS:
        placed[i] = False
        centre, start, own = places[i]
        cost, half, other = own.copy(), sizes[i] / 2 + _GAP, sizes[placed] / 2
        touching = np.abs(centre[:, None] - centres[placed]) < half + other
        cost += _TOUCHES * touching.all(-1).sum(1)
        # whose leader passes which label, and which leaders cross
        begin, end = starts[placed], anchors[placed]
        cost += _MISLEADS * _passes(start, anchors[i], centres[placed], other).sum(1)
        cost += _MISLEADS * _passes(begin, end, centre, half).sum(0)
        cost += _MISLEADS * _cross(start, anchors[i], begin, end).sum(1)
        best = int(cost.argmin())
        centres[i], starts[i], placed[i] = centre[best], start[best], True
    return centres


def _places(
    size: Floats, anchor: Floats, area: Floats, dots: Floats, lines: Floats
) -> tuple[Floats, Floats, Floats]:
    """Places (K, 2) of one label, where its leader starts (K, 2), and their costs (K,)."""
    unit = np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)], 1)
    # a label to the right begins at its point, one above is centred over it
    attach = np.clip(1.5 * unit, -1, 1) * size / 2
    own = np.hypot(*(dots[:, :2] - anchor).T)
    radius = dots[own < 1e-6, 2].max(initial=0.0)
    reach = radius + _DISTANCES[:, None, None]
    centre = (anchor + attach + unit * reach).reshape(-1, 2)
    half = size / 2 + _GAP
    centre = centre[((centre - half >= area[:2]) & (centre + half <= area[2:])).all(1)]
    if len(centre) == 0:  # it is larger than the area
        centre = (area[None, :2] + area[None, 2:]) / 2
    start = np.clip(anchor, centre - size / 2, centre + size / 2)
    cost: Floats = np.hypot(*(start - anchor).T)
    gap = np.maximum(np.abs(dots[None, :, :2] - centre[:, None]) - size / 2, 0)
    cost += _TOUCHES * (np.hypot(*gap.transpose(2, 0, 1)) < dots[:, 2] + _GAP).sum(1)
    # a leader may come closer to another dot only at its own end, where the two overlap
    apart = np.minimum(dots[:, 2] + _GAP, own - 1e-6)
    cost += _MISLEADS * (_distance(start, anchor, dots[:, :2]) < apart).sum(1)
    inside = [np.abs(lines[:, i] - centre[:, i, None]) < size[i] / 2 + _GAP for i in (0, 1)]
    return centre, start, cost + _ON_LINE * (inside[0] & inside[1]).sum(1)


def _distance(start: Floats, end: Floats, points: Floats) -> Floats:
    """(K, M): how far each point is from each leader."""
    way = end - start
    to = points[None] - start[:, None]
    along = (to * way[:, None]).sum(-1) / np.maximum((way**2).sum(-1), 1e-9)[:, None]
    found: Floats = np.linalg.norm(to - np.clip(along, 0, 1)[..., None] * way[:, None], axis=-1)
    return found


def _passes(start: Floats, end: Floats, centre: Floats, half: Floats) -> NDArray[np.bool_]:
    """(K, M): whether each leader passes each label, looked at along its way."""
    way = start + np.linspace(0, 1, 10)[:, None, None] * (end - start)
    apart = [np.abs(way[..., None, i] - centre[:, i]) < half[..., i] for i in (0, 1)]
    return np.asarray((apart[0] & apart[1]).any(0))


def _cross(start: Floats, end: Floats, begin: Floats, to: Floats) -> NDArray[np.bool_]:
    """(K, M): whether each leader from start to end crosses each one from begin to ``to``."""

    def side(a: Floats, b: Floats, p: Floats) -> Floats:
        way, off = b - a, p - a
        return np.sign(way[..., 0] * off[..., 1] - way[..., 1] * off[..., 0])

    a, c, d = start[:, None], begin[None], to[None]
    b = np.broadcast_to(end, start.shape)[:, None]
    across = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return np.asarray(across)
