"""Labels for points that lie close to each other, moved apart so that each can be read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["place"]

Floats = NDArray[np.float64]

_DISTANCES = (7.0, 14.0, 24.0, 38.0, 56.0, 78.0, 104.0)  # of a label's edge from its point
_DIRECTIONS = 16
_KEPT = 700  # positions of all labels together, so that the table of all pairs stays small
_GAP = 2.5
_AT_ONCE = 2**20  # pairs of a box and a point
# what is not to happen costs most, what is only less handsome costs least
_OUTSIDE, _ON_LABEL, _ON_DOT, _LEADER_ON_LABEL, _CROSSING = 300.0, 200.0, 40.0, 30.0, 12.0
_STRAIGHT, _CLOSE, _PASSING, _ON_LINE, _FAR = 5.0, 6.0, 9.0, 0.25, 0.06


def place(sizes: Floats, anchors: Floats, area: Floats, dots: Floats, lines: Floats) -> Floats:
    """Where the centre of each label goes, all lengths in points of 1/72 inch.

    Each label has some positions around its point, and each position a cost: what it covers, how
    far it is, and which others it meets there. From several orders, one label after the other takes
    its best position until none moves; the arrangement that costs least is taken.

    Args:
        sizes: (N, 2), width and height of each label.
        anchors: (N, 2), the point that each label belongs to.
        area: (left, bottom, right, top) in which the labels must stay.
        dots: (M, 2), markers that no label or leader should cover.
        lines: (L, 2), points along lines that labels should rather not cover.

    Returns:
        (N, 2), the centre of each label. The same for the same input.
    """
    if len(sizes) == 0:
        return np.zeros((0, 2))
    centre, owner = _positions(sizes, anchors)
    half = sizes[owner] / 2 + _GAP
    near = _nearest(centre, sizes[owner] / 2, anchors[owner])
    cost = _own_cost(centre, half, near, anchors[owner], area, dots, lines)
    kept = max(_KEPT // len(sizes), 20)  # the best of each label
    keep = np.concatenate(
        [np.flatnonzero(owner == i)[np.argsort(cost[owner == i], kind="stable")[:kept]]
         for i in range(len(sizes))]
    )  # fmt: skip
    centre, owner, half, near, cost = centre[keep], owner[keep], half[keep], near[keep], cost[keep]
    pair = _pair_cost(centre, half, near, anchors[owner])
    pair[owner[:, None] == owner[None, :]] = 0
    members = [np.flatnonzero(owner == i) for i in range(len(sizes))]
    random = np.random.default_rng(0)
    best, least = np.zeros(len(sizes), np.int64), np.inf
    for _ in range(12):
        chosen = np.array([m[0] for m in members])
        placed = np.zeros(len(members), bool)
        for sweep in range(30):
            before = chosen.copy()
            for i in random.permutation(len(members)):
                others = chosen[placed & (np.arange(len(members)) != i)]
                total = cost[members[i]] + pair[np.ix_(members[i], others)].sum(1)
                chosen[i] = members[i][total.argmin()]
                placed[i] = True
            if sweep and (chosen == before).all():
                break
        total_cost = cost[chosen].sum() + pair[np.ix_(chosen, chosen)].sum() / 2
        if total_cost < least:
            best, least = chosen, float(total_cost)
    found: Floats = centre[best]
    return found


def _positions(sizes: Floats, anchors: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """All positions of all labels: in each direction, at each distance, and whose they are."""
    angle = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
    unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    # a label to the right begins at its point, one above is centred over it
    attach = np.clip(1.5 * unit, -1, 1)[None, None] * sizes[:, None, None] / 2
    reach = unit[None, None] * np.array(_DISTANCES)[None, :, None, None]
    centre = anchors[:, None, None] + attach + reach
    owner = np.repeat(np.arange(len(sizes)), _DIRECTIONS * len(_DISTANCES))
    return centre.reshape(-1, 2), owner


def _nearest(centre: Floats, half: Floats, anchor: Floats) -> Floats:
    """The point of each label that is nearest to its own: where the leader begins."""
    return np.clip(anchor, centre - half, centre + half)


def _inside(points: Floats, centre: Floats, half: Floats) -> NDArray[np.bool_]:
    """(K, P): whether each box holds each point."""
    inside: NDArray[np.bool_] = _closer(points, centre, half, 0)
    inside &= _closer(points, centre, half, 1)
    return inside


def _closer(points: Floats, centre: Floats, half: Floats, axis: int) -> NDArray[np.bool_]:
    """(K, P), on one axis: much faster than both at once, and half of the memory."""
    apart = points[None, :, axis] - centre[:, None, axis]
    closer: NDArray[np.bool_] = np.abs(apart, out=apart) < half[:, None, axis]
    return closer


def _count(points: Floats, centre: Floats, half: Floats) -> NDArray[np.int64]:
    """(K,): how many points each box holds; of many points, a part of the boxes at a time."""
    parts = range(0, len(centre), max(1, _AT_ONCE // max(len(points), 1)))
    step = parts.step
    counts = [_inside(points, centre[i : i + step], half[i : i + step]).sum(1) for i in parts]
    return np.concatenate(counts)


def _own_cost(
    centre: Floats, half: Floats, near: Floats, anchor: Floats, area: Floats, dots: Floats,
    lines: Floats,
) -> Floats:  # fmt: skip
    outside = (centre - half < area[:2]).any(1) | (centre + half > area[2:]).any(1)
    cost: Floats = _OUTSIDE * outside + _FAR * np.hypot(*(near - anchor).T)
    cost += _ON_DOT * _inside(dots, centre, half + 3).sum(1)
    cost += _ON_LINE * _count(lines, centre, half)
    # a long leader straight to the side or up seems to be a part of an interval
    by = np.abs(near - anchor)
    cost += _STRAIGHT * ((by.min(1) < 3) & (by.max(1) > 12))
    # a label close to another marker seems to belong to it, as does a leader that passes one
    own = np.hypot(*(dots[None] - anchor[:, None]).transpose(2, 0, 1)) < 1e-6
    gap = np.maximum(np.abs(dots[None] - centre[:, None]) - half[:, None], 0)
    cost += _CLOSE * (np.maximum(1 - np.hypot(*gap.transpose(2, 0, 1)) / 16, 0) * ~own).sum(1)
    way = anchor - near
    to = dots[None] - near[:, None]
    t = (to * way[:, None]).sum(-1) / np.maximum((way**2).sum(-1), 1e-9)[:, None]
    beside = to - np.clip(t, 0, 1)[..., None] * way[:, None]
    cost += _PASSING * ((np.hypot(*beside.transpose(2, 0, 1)) < 5) & ~own).sum(1)
    return cost


def _pair_cost(centre: Floats, half: Floats, near: Floats, anchor: Floats) -> Floats:
    """(K, K): what it costs when two positions are taken together."""
    on_label = np.ones((len(centre), len(centre)), bool)
    for axis in (0, 1):
        apart = np.abs(centre[:, None, axis] - centre[None, :, axis])
        on_label &= apart < half[:, None, axis] + half[None, :, axis] - _GAP
    cost = _ON_LABEL * on_label.astype(np.float64)
    covered = np.zeros(cost.shape, bool)  # the leader of the first by the label of the second
    for t in np.linspace(0, 1, 9):
        covered |= _inside(near + t * (anchor - near), centre, half).T
    cost += _LEADER_ON_LABEL * (covered + covered.T.astype(np.float64))

    def side(a: Floats, b: Floats, p: Floats) -> Floats:
        """(K, K): on which side of each line from a to b each p is."""
        way = (b - a)[:, None]
        to = p[None] - a[:, None]
        return np.sign(way[..., 0] * to[..., 1] - way[..., 1] * to[..., 0])

    across = side(near, anchor, near) * side(near, anchor, anchor) < 0
    return cost + _CROSSING * (across & across.T)
