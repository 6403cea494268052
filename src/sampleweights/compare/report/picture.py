"""The picture: accuracy over balanced accuracy, and the curve that costs no training."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from sampleweights.compare.report.labels import place

__all__ = ["BASELINE", "TRAINED", "plot", "trained_row"]

TRAINED, BASELINE = "#3a80c4", "#d9822b"  # blue and orange, seen on a light and on a dark ground
_TAUS = (0.0, 0.5, 1.0, 1.5)
_MOST_NAMES = 16  # of more rows the labels are numbers, and a list says what they mean
_RADIUS, _EDGE = 4.0, 1.6  # of a marker, in points
_INDENT = 34.0  # how far what stands over and under the axes begins left of them
_LINK: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (1, 1.6))}


def trained_row(comparison: Any, row: str) -> str:
    """The row whose training a row is read from: itself, or the one that it follows."""
    before = comparison.rows[: comparison.rows.index(row) + 1]
    return str([name for name in before if name in comparison.trained][-1])


def size(comparison: Any, width: float = 5.6, height: float = 6.0) -> tuple[float, float]:
    """Width and height of a figure in inches: higher where the names of the rows stand below."""
    rows = len(comparison.rows)
    lines = 0 if rows <= _MOST_NAMES else -(-rows // _columns(width))
    return width, height + 0.19 * lines


def plot(comparison: Any, axes: Any = None) -> Any:
    """Draw accuracy over balanced accuracy, a point for each row, with 95 % intervals.

    The curve is post-hoc adjustment of the baseline as tau goes from 0 to 1.5: a weighting is worth
    its training only above it. Colours of text and ground come from matplotlib's settings, so that
    ``plt.style.context("dark_background")`` gives a dark picture.

    Args:
        comparison: a Comparison.
        axes: matplotlib's Axes to draw on, of a figure with ``layout="constrained"``, which makes
            room for the words around them; None for new ones.

    Returns:
        The axes.
    """
    if axes is None:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=size(comparison), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    rows = list(comparison.rows)
    spans = {
        row: np.array(
            [
                [e.value, e.low, e.high]
                for e in (comparison.estimate(row, m) for m in ("balanced_accuracy", "accuracy"))
            ]
        )
        for row in rows
    }
    shown = [row for row in rows if np.isfinite(spans[row][:, 0]).all()]
    curve = comparison.frontier[["tau", "balanced_accuracy", "accuracy"]]
    frontier = curve.dropna().to_numpy(float)
    drawn = np.concatenate([frontier[:, 1:], *(spans[row].T for row in shown), np.zeros((0, 2))])
    _set_limits(axes, drawn)
    _draw_frontier(axes, frontier, comparison.baseline)
    lines = [frontier[:, 1:]] * 3  # a label on the curve is worse than one on an interval
    for row in shown:
        lines += _draw_row(axes, comparison, row, spans)
    axes.set(xlabel="balanced accuracy (%)", ylabel="accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    many = len(rows) > _MOST_NAMES
    _draw_key(axes, comparison, rows if many else [])
    curve_of = comparison.baseline if len(frontier) else None
    _draw_title(axes, curve_of, [row for row in rows if row not in shown])

    axes.figure.draw_without_rendering()  # from here on the layout is known, and so are lengths
    texts = [str(rows.index(row) + 1) if many else _short(row) for row in shown]
    anchors = [tuple(spans[row][:, 0]) for row in shown]
    colours = [_colour(comparison, row) for row in shown]
    taus = _TAUS if len(frontier) else ()
    texts += [f"τ = {tau:g}" for tau in taus]
    anchors += [_at(frontier, tau) for tau in taus]
    _draw_labels(axes, texts, anchors, colours + [BASELINE] * len(taus), lines)
    return axes


def _colour(comparison: Any, row: str) -> str:
    return BASELINE if trained_row(comparison, row) == comparison.baseline else TRAINED


def _at(frontier: NDArray[Any], tau: float) -> tuple[float, float]:
    """Balanced accuracy and accuracy of the frontier at one tau."""
    return tuple(float(np.interp(tau, frontier[:, 0], frontier[:, i])) for i in (1, 2))  # type: ignore[return-value]


def _short(name: str) -> str:
    """A name on at most two lines of 20 characters; its end is kept: it tells rows apart."""
    name = " ".join(name.split())
    if len(name) > 36:
        name = f"{name[:20].rstrip()}… {name[-15:].lstrip()}"
    lines = textwrap.wrap(name, 20, break_on_hyphens=False)
    return "\n".join(lines) if len(name) > 22 else name


def _set_limits(axes: Any, drawn: NDArray[Any]) -> None:
    """Room for the labels around what is drawn."""
    for values, setter in ((drawn[:, 0], axes.set_xlim), (drawn[:, 1], axes.set_ylim)):
        values = values[np.isfinite(values)]
        low, high = (values.min(), values.max()) if len(values) else (0.0, 100.0)
        room = max(0.13 * (high - low), 0.5)
        setter(low - room, high + room)


def _draw_frontier(axes: Any, frontier: NDArray[Any], baseline: str) -> None:
    if len(frontier) == 0:
        return
    x, y = frontier[:, 1], frontier[:, 2]
    # what some point of the curve is better than in both: the best accuracy from here to the right
    order = np.argsort(x)
    best = np.maximum.accumulate(y[order][::-1])[::-1]
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.fill_between(
        [left, *x[order]], [best[0], *best], bottom, color=BASELINE, alpha=0.09, linewidth=0
    )
    axes.plot(x, y, color=BASELINE, linewidth=2, zorder=2, solid_capstyle="round")
    marks = np.array([_at(frontier, tau) for tau in _TAUS])
    axes.plot(*marks.T, "D", color=BASELINE, markersize=5, zorder=2)


def _draw_row(
    axes: Any, comparison: Any, row: str, spans: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Point and intervals of a row, and its link; gives the lines it drew."""
    (x, x_low, x_high), (y, y_low, y_high) = spans[row]
    colour, source = _colour(comparison, row), trained_row(comparison, row)
    lines = [np.array([[x_low, y], [x_high, y]]), np.array([[x, y_low], [x, y_high]])]
    for line in lines:
        axes.plot(*line.T, color=colour, alpha=0.35, linewidth=1.1, zorder=1)
    if source not in (row, comparison.baseline) and np.isfinite(spans[source][:, 0]).all():
        link = np.stack([spans[source][:, 0], spans[row][:, 0]])
        axes.plot(*link.T, color=colour, alpha=0.6, zorder=2, **_LINK)
        lines.append(link)
    ground = axes.get_facecolor()
    ground = mpl.rcParams["figure.facecolor"] if ground[3] == 0 else ground
    axes.plot(
        x, y, "o", color=colour, markersize=2 * _RADIUS, markeredgewidth=_EDGE, zorder=3,
        markerfacecolor=colour if source == row else ground,
    )  # fmt: skip
    return [line for line in lines if np.isfinite(line).all()]


def _columns(width: float) -> int:
    """How many columns of names fit into a width in inches."""
    return 2 if width > 5.5 else 1


def _draw_key(axes: Any, comparison: Any, numbered: list[str]) -> None:
    """What the markers mean, under the axes; and the names of rows that are drawn as numbers."""
    marker: dict[str, Any] = {"marker": "o", "markersize": 2 * _RADIUS, "markeredgewidth": _EDGE}
    handles = [Line2D([], [], color=TRAINED, linestyle="none", label="trained", **marker)]
    if len(comparison.rows) > len(comparison.trained):
        handles.append(
            Line2D(
                [], [], color=TRAINED, markerfacecolor="none", label="post-hoc", **_LINK, **marker
            )
        )
    if len(comparison.frontier):
        label = "the curve, τ from 0 to 1.5"
        handles.append(Line2D([], [], color=BASELINE, linewidth=2, label=label))
    options: dict[str, Any] = {"handlelength": 2.2, "columnspacing": 1.4}
    groups = [(handles, len(handles), 9.5, options)]
    if numbered:
        names = [f"{i:\u2007>2}  {_short(row)}" for i, row in enumerate(numbered, 1)]
        lines = [Line2D([], [], linestyle="none", label=" ".join(n.splitlines())) for n in names]
        columns = _columns(axes.figure.get_figwidth())
        options = {"handlelength": 0, "handletextpad": 0, "columnspacing": 1}
        groups.append((lines, columns, 8, options))
    for i, (handles, columns, fontsize, options) in enumerate(groups):
        place_below = ScaledTranslation(
            -_INDENT / 72, -0.54 - 0.27 * i, axes.figure.dpi_scale_trans
        )
        legend = Legend(
            axes, handles, [str(handle.get_label()) for handle in handles], ncols=columns,
            fontsize=fontsize, loc="upper left", frameon=False, borderaxespad=0, borderpad=0,
            bbox_to_anchor=(0, 0), bbox_transform=axes.transAxes + place_below, **options,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
        axes.add_artist(legend)
        legend.set_clip_on(False)  # it stands outside, and the layout makes room for it


def _lines(words: str, width: float, font: FontProperties) -> list[str]:
    """Lines of at most ``width`` points; a word of more than 40 letters is broken.

    Drawn letters are some percent wider than their outlines: their places are rounded to pixels.
    """
    lines = [""]
    measure = text_to_path.get_text_width_height_descent
    for word in " ".join(textwrap.wrap(words, 40, break_on_hyphens=False)).split(" "):
        longer = f"{lines[-1]} {word}".strip(" ")
        if lines[-1] and 1.06 * measure(longer, font, False)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _draw_title(axes: Any, curve_of: str | None, missing: list[str]) -> None:
    """How to read the picture, as wide as the axes; ``curve_of``: a row, None without a curve."""
    title, sentence = "Accuracy over balanced accuracy", "Thin lines are 95\u00a0% intervals."
    if curve_of is not None:
        title = "A weighting is worth its training only above the curve"
        sentence = (
            f"The curve is “{' '.join(curve_of.split())}” with post-hoc adjustment by τ, which "
            f"needs no training of its own; in the shaded area it is better in both. {sentence}"
        )
    if missing:
        sentence += f" Without a value: {', '.join(map(_short, missing))}."
    axes.figure.draw_without_rendering()
    width = axes.bbox.width / axes.figure.dpi * 72 + _INDENT
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    style.update(va="bottom", parse_math=False, linespacing=1.2, annotation_clip=False)
    above = 10.0
    for words, fontsize, weight in ((sentence, 9.5, "normal"), (title, 11, "bold")):
        lines = _lines(words, width, FontProperties(size=fontsize, weight=weight))
        axes.annotate(
            "\n".join(lines), (0, 1), xytext=(-_INDENT, above), fontsize=fontsize, weight=weight,
            **style,
        )  # fmt: skip
        above += 1.25 * fontsize * len(lines) + 4


def _draw_labels(
    axes: Any,
    texts: list[str],
    anchors: list[tuple[float, float]],
    colours: list[str],
    lines: list[NDArray[Any]],
) -> None:
    points: float = 72 / axes.figure.dpi
    style: dict[str, Any] = {"fontsize": 9.5, "linespacing": 0.95, "parse_math": False}

    def to_points(values: Any) -> NDArray[Any]:
        pixels: NDArray[Any] = axes.transData.transform(np.reshape(values, (-1, 2)))
        return pixels * points

    sizes = []
    for text in texts:
        artist = axes.text(*anchors[0], text, **style)
        box = artist.get_window_extent()
        sizes.append((box.width * points, box.height * points))
        artist.remove()
    ends = [to_points(line) for line in lines]
    along = [
        a + (b - a) * t
        for line in ends
        for a, b in itertools.pairwise(line)
        for t in np.arange(0, 1, 4 / max(np.hypot(*(b - a)), 4))
    ]
    at = to_points(anchors)
    area = np.array(axes.bbox.extents) * points
    centres = place(
        np.reshape(sizes, (-1, 2)), at, area, at, np.reshape(along, (-1, 2)).astype(float)
    )
    for text, anchor, colour, point, centre, size in zip(
        texts, anchors, colours, at, centres, sizes, strict=True
    ):
        side = "right" if centre[0] < point[0] else "left"
        corner = centre - np.array(size) / 2
        artist = axes.annotate(
            text, anchor, xytext=tuple(centre - point), textcoords="offset points",
            ha="center", va="center", multialignment=side, annotation_clip=False, **style,
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1,
                "shrinkB": _RADIUS, "relpos": tuple(np.clip((point - corner) / size, 0, 1)),
            },
        )  # fmt: skip
        artist.set_in_layout(False)
