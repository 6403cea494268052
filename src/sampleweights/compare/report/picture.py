"""The picture: accuracy over balanced accuracy, and the curve that costs no training."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from sampleweights.compare.report.labels import Label, draw_labels
from sampleweights.compare.statistics import POSTHOC
from sampleweights.compare.task import LABELS, WORDS

__all__ = ["BASELINE", "TRAINED", "caption", "plot", "size", "trained_row"]

Floats = NDArray[np.float64]

TRAINED, BASELINE = "#3a80c4", "#d9822b"  # blue and orange, seen on a light and on a dark ground
_CURVE = ["tau", "balanced_accuracy", "accuracy", "balanced_accuracy_low", "balanced_accuracy_high"]
_TAUS = (0.0, 0.5, 1.0)
_MOST_NAMES = 6  # of more rows the labels are numbers, and a list says what they mean
_RADIUS, _EDGE, _RING = 4.0, 1.6, 8.0  # of a marker, and around the recommended one, in points
_ARROW = 16.0
_AXES = {"balanced_accuracy": "balanced"}  # beside an arrow, where there is little room
_MOST_NAMED_ARROWS = 3
_LONGEST_TITLE = 180
_INDENT = 34.0  # how far what stands over and under the axes begins left of them


def trained_row(comparison: Any, row: str) -> str:
    """The row whose training a row is read from: itself, or the one that it follows."""
    before = comparison.rows[: comparison.rows.index(row) + 1]
    return str([name for name in before if name in comparison.trained][-1])


def size(comparison: Any, width: float = 5.6, height: float = 6.0) -> tuple[float, float]:
    """Width and height of a figure in inches: higher where the names of the rows stand below."""
    rows = len(comparison.rows)
    lines = 0 if rows <= _MOST_NAMES else -(-rows // _columns(width))
    return width, height + 0.19 * lines


def plot(comparison: Any, axes: Any = None, *, words: bool = True) -> Any:
    """Draw accuracy over balanced accuracy, a point for each row, with 95 % intervals.

    The curve is post-hoc adjustment of the baseline as tau goes from 0 to 1 (or further, to the
    strength that is chosen), in a band that is the
    95 % interval of its balanced accuracy: a weighting is worth its training only above it. The
    axes follow what one would choose; a row far from that is an arrow at the edge with its numbers.
    More than six rows are numbered, as in the table of the page, and their names are listed below.
    Colours of text and ground come from matplotlib's settings, so that
    ``plt.style.context("dark_background")`` gives a dark picture.

    Args:
        comparison: a Comparison.
        axes: matplotlib's Axes to draw on, of a figure with ``layout="constrained"``, which makes
            room for the words around them; None for new ones.
        words: write the verdict and how to read the picture over it.

    Returns:
        The axes.
    """
    if axes is None:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=size(comparison), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    spans = _spans(comparison)
    curve = np.zeros((0, len(_CURVE)))
    if comparison.frontier is not None:
        curve = comparison.frontier[_CURVE].dropna(subset=_CURVE[:3]).to_numpy(float)
    view = _view(comparison, spans, curve)
    near = [row for row, span in spans.items() if _within(view, span[:, 0])]
    axes.set(xlim=view[:, 0], ylim=view[:, 1])
    right, upwards = comparison.task.axes
    axes.set(xlabel=f"{WORDS[right]} (%)", ylabel=f"{WORDS[upwards]} (%)")
    axes.spines[["top", "right"]].set_visible(False)
    marks = _marks(comparison, curve)
    _draw_curve(axes, curve, marks)
    for row in near:
        _draw_row(axes, comparison, row, spans[row])
    if len(comparison.rows) > _MOST_NAMES:
        _draw_names(axes, comparison)
    if words:
        _draw_title(axes, comparison)
    _lay_out(axes.figure)  # from here on lengths are known
    lines = [curve[:, 1:3]] * 3  # a label on the curve is worse than one on an interval
    for (x, *width), (y, *height) in (spans[row] for row in near):
        lines += [np.array([[end, y] for end in width]), np.array([[x, end] for end in height])]
    at = {row: span[:, 0] for row, span in spans.items()}
    draw_labels(axes, _labels(axes, comparison, at, marks), lines)
    return axes


def _spans(comparison: Any) -> dict[str, Floats]:
    """Value, low and high end of both metrics (2, 3) of rows that have both."""
    spans = {}
    for row in comparison.rows:
        found = [comparison.estimate(row, m) for m in comparison.task.axes]
        if all(np.isfinite(e.value) for e in found):
            spans[row] = np.array([[e.value, e.low, e.high] for e in found])
    return spans


def _lay_out(figure: Any) -> None:
    """Give everything its place, which takes half as long as drawing it."""
    engine = figure.get_layout_engine()
    if engine is None:
        figure.draw_without_rendering()
    else:
        engine.execute(figure)


def _recommended(comparison: Any) -> str | None:
    row: str | None = None if comparison.verdict is None else comparison.verdict.row
    return row


def _color(comparison: Any, row: str) -> str:
    return BASELINE if trained_row(comparison, row) == comparison.baseline else TRAINED


def _short(name: str) -> str:
    """A name on at most two lines of 20 characters; its end is kept: it tells rows apart."""
    name = " ".join(name.split())
    if len(name) > 36:
        name = f"{name[:20].rstrip()}… {name[-15:].lstrip()}"
    lines = textwrap.wrap(name, 20, break_on_hyphens=False)
    return "\n".join(lines) if len(name) > 22 else name


def _view(comparison: Any, spans: Mapping[str, Floats], curve: Floats) -> Floats:
    """(2, 2): the lowest and the highest balanced accuracy and accuracy on the axes.

    What one would choose is the curve, the baseline, the rows that the verdict names, and those
    that gain at least as much of one as they lose of the other. Rows within half of the extent of
    these are shown too, and the intervals as far as there is room for them.
    """
    at = {row: span[:, 0] for row, span in spans.items()}
    named, least = [comparison.baseline], np.inf
    if comparison.verdict is not None:
        named += [comparison.verdict.row, comparison.verdict.row_at_no_loss]
    if comparison.baseline in at:
        least = at[comparison.baseline].sum()
    chosen = [point for row, point in at.items() if row in named or point.sum() >= least]
    shown = np.concatenate([curve[:, 1:3], np.reshape(chosen, (-1, 2))])
    if len(shown) == 0:
        shown = np.array([*at.values()] or [np.zeros(2), np.full(2, 100.0)])
    reach = max(0.5 * np.ptp(shown, 0).max(), 3.0)
    room = np.array([shown.min(0) - reach, shown.max(0) + reach])
    near = [span.T for span in spans.values() if _within(room, span[:, 0])]
    points = np.concatenate([shown, *(span[:1] for span in near)])
    pad = np.maximum(0.12 * np.ptp(points, 0), 0.5)
    limits = np.array([points.min(0) - pad, points.max(0) + pad])
    ends = np.concatenate([points, *(span[1:] for span in near)])
    limits[0] = np.minimum(limits[0], np.maximum(np.nanmin(ends, 0), room[0]) - pad / 4)
    limits[1] = np.maximum(limits[1], np.minimum(np.nanmax(ends, 0), room[1]) + pad / 4)
    return limits


def _within(limits: Floats, point: Floats) -> bool:
    return bool((point >= limits[0]).all() and (point <= limits[1]).all())


def _marks(comparison: Any, curve: Floats) -> dict[str, Floats]:
    """Balanced accuracy and accuracy at some tau of the curve, by what stands beside them."""
    if len(curve) == 0:
        return {}
    words = {tau: f"τ = {tau:g}" for tau in _TAUS}
    if comparison.baseline + POSTHOC in comparison.rows:
        chosen = round(float(comparison.tau(comparison.baseline + POSTHOC)), 2)
        recommended = _recommended(comparison) == comparison.baseline + POSTHOC
        words[chosen] = f"τ = {chosen:g}{', chosen' * recommended}"
    tau = curve[:, 0]
    return {
        text: np.array([np.interp(at, tau, curve[:, i]) for i in (1, 2)])
        for at, text in sorted(words.items())
        if tau[0] <= at <= tau[-1]
    }


def _draw_curve(axes: Any, curve: Floats, marks: Mapping[str, Floats]) -> None:
    if len(curve) == 0:
        return
    _, _, y, low, high = curve[np.isfinite(curve).all(1)].T
    # a strip between each tau and the next, all in one direction, so that none cuts out another
    strips = []
    for i, j in itertools.pairwise(range(len(y))):
        i, j = (i, j) if y[i] <= y[j] else (j, i)
        corners = [(low[i], y[i]), (high[i], y[i]), (high[j], y[j]), (low[j], y[j])]
        strips.append(Path([*corners, corners[0]], closed=True))
    if strips:
        band = Path.make_compound_path(*strips)
        axes.add_patch(PathPatch(band, color=BASELINE, alpha=0.13, linewidth=0, zorder=0))
    axes.plot(*curve[:, 1:3].T, color=BASELINE, linewidth=2, zorder=2, solid_capstyle="round")
    axes.plot(*np.array([*marks.values()]).T, "D", color=BASELINE, markersize=5, zorder=2)


def _marker(axes: Any, comparison: Any, row: str) -> dict[str, Any]:
    """Filled where the row was trained, hollow where it is read off another."""
    color, ground = _color(comparison, row), axes.get_facecolor()
    ground = mpl.rcParams["figure.facecolor"] if ground[3] == 0 else ground
    return {
        "marker": "o", "color": color, "linestyle": "none", "markersize": 2 * _RADIUS,
        "markeredgewidth": _EDGE, "markerfacecolor": color if row in comparison.trained else ground,
    }  # fmt: skip


def _draw_row(axes: Any, comparison: Any, row: str, span: Floats) -> None:
    (x, *width), (y, *height) = span
    marker = _marker(axes, comparison, row)
    style = {"color": marker["color"], "alpha": 0.35, "linewidth": 1.1, "zorder": 1}
    axes.plot(width, [y, y], **style)
    axes.plot([x, x], height, **style)
    axes.plot(x, y, zorder=3, **marker)
    if row == _recommended(comparison):
        ink = mpl.rcParams["text.color"]
        area = (2 * _RING - 1) ** 2
        axes.scatter([x], [y], area, facecolors="none", edgecolors=ink, linewidths=1.4, zorder=4)


def _draw_arrow(axes: Any, point: Floats, limits: Floats, color: str) -> Floats:
    """At the edge of the axes, towards a point outside of them; gives the middle of the arrow."""
    edge = np.clip(point, *limits)
    way = np.sign(point - edge) / np.linalg.norm(np.sign(point - edge))
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    arrow = axes.annotate(
        "", edge, xytext=tuple(-_ARROW * way), textcoords="offset points", arrowprops=style
    )
    arrow.set_in_layout(False)
    pixels = axes.transData.transform(edge) - way * _ARROW / 2 * axes.figure.dpi / 72
    middle: Floats = axes.transData.inverted().transform(pixels)
    return middle


def _columns(width: float) -> int:
    """How many columns of names fit into a width in inches."""
    return 2 if width > 5.5 else 1


def _draw_names(axes: Any, comparison: Any) -> None:
    """Under the axes, the names of rows that are drawn as numbers."""
    rows = list(comparison.rows)
    markers = [Line2D([], [], **_marker(axes, comparison, row)) for row in rows]
    names = [f"{i:\u2007>2}  {' '.join(_short(row).split())}" for i, row in enumerate(rows, 1)]
    below = ScaledTranslation(-_INDENT / 72, -0.54, axes.figure.dpi_scale_trans)
    legend = Legend(
        axes, markers, names, ncols=_columns(axes.figure.get_figwidth()), fontsize=9,
        handlelength=1, columnspacing=1.5, loc="upper left", frameon=False, borderaxespad=0,
        borderpad=0, bbox_to_anchor=(0, 0), bbox_transform=axes.transAxes + below,
    )  # fmt: skip
    for row, text in zip(rows, legend.get_texts(), strict=True):
        text.set_parse_math(False)
        text.set_fontweight("bold" if row == _recommended(comparison) else "normal")
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


def caption(comparison: Any) -> str:
    """How to read the picture."""
    sentence = "Thin lines are 95\u00a0% intervals."
    if comparison.frontier is not None and len(comparison.frontier.dropna(subset=_CURVE[:3])):
        sentence = (
            f"The curve is “{' '.join(comparison.baseline.split())}” with τ\u00a0* log(class "
            "frequency) subtracted from its logits (post-hoc adjustment), which needs no training "
            "of its own: a weighting is worth its training only above it. The band and thin lines "
            "are 95\u00a0% intervals."
        )
    if comparison.task is LABELS:
        sentence += " Post-hoc adjustment moves a row only up or down."
    if _recommended(comparison) is not None:
        sentence += " The ring marks what is recommended."
    spans = _spans(comparison)
    missing = [_short(row) for row in comparison.rows if row not in spans]
    return f"{sentence} Without a value: {', '.join(missing)}." if missing else sentence


def _draw_title(axes: Any, comparison: Any) -> None:
    """The verdict and how to read the picture, as wide as the axes."""
    title, sentence = comparison.task.title, caption(comparison)
    if comparison.verdict is not None:
        first = re.split(r"(?<=\.)\s", comparison.verdict.text.strip())[0]
        title = first if len(first) <= _LONGEST_TITLE else title
    _lay_out(axes.figure)
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


def _labels(
    axes: Any, comparison: Any, at: Mapping[str, Floats], marks: Mapping[str, Floats]
) -> list[Label]:
    """The name or number of each row and tau; draws arrows to the rows that are not on the axes."""
    rows, limits = list(comparison.rows), np.array([axes.get_xlim(), axes.get_ylim()]).T
    far = [row for row, point in at.items() if not _within(limits, point)]
    numbered = len(rows) > _MOST_NAMES
    labels = []
    for row, point in at.items():
        text = str(rows.index(row) + 1) if numbered else _short(row)
        color, radius = _color(comparison, row), _RADIUS + _EDGE / 2
        if row in far:
            if numbered and len(far) <= _MOST_NAMED_ARROWS:
                text = f"{text} {_short(row)}"
            out = (point < limits[0]) | (point > limits[1])
            words = [_AXES.get(metric, WORDS[metric]) for metric in comparison.task.axes]
            numbers = zip(words, point, out, strict=True)
            text += "".join(f"\n{name} {value:.1f}" for name, value, is_out in numbers if is_out)
            labels.append(Label(text, _draw_arrow(axes, point, limits, color), _ARROW / 2, color))
        elif row == _recommended(comparison):
            labels.append(Label(text, point, _RING, color, "bold"))
        else:
            labels.append(Label(text, point, radius, color))
    return labels + [Label(text, point, 4.0, BASELINE) for text, point in marks.items()]
