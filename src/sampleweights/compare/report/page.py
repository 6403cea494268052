"""The page of a comparison: advice, picture, table, recall of each class, and what was run."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from sampleweights.compare.outputs import MARK
from sampleweights.compare.report import picture
from sampleweights.compare.statistics import METRICS
from sampleweights.history.page import write_document

__all__ = ["write"]

_LOWER_IS_BETTER = ("calibration_error",)
_INK, _GROUND = "#010203", "#fdfeff"  # stand for the page's colours until the SVG is written
_WIDTHS = {"wide": (7.4, 6.2), "narrow": (4.4, 6.4)}  # in inches: which letters can be read

_STYLE = """
:root { --quiet: light-dark(#666, #9a9a9a); --trained: light-dark(#2a6fb0, #5b9fe0);
        --baseline: light-dark(#d9822b, #e69138); }
h1, h3, tbody th, dd, li, p, label { overflow-wrap: anywhere; }
.advice { padding: .8rem 1.2rem .8rem 2rem; background: var(--card); border-radius: .5rem;
          border-left: .3rem solid var(--baseline); max-width: 44rem; margin: 1rem 0;
          font-size: .9375rem; }
.advice li + li { margin-top: .4rem; }
figure svg { display: block; max-width: 44rem; } figure svg.narrow { display: none; }
figure svg text { font-family: system-ui, sans-serif !important; }
label { display: inline-block; margin: .3rem 0 .6rem; cursor: pointer; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; vertical-align: baseline; }
th:first-child { text-align: left; font-weight: 500; }
thead th + th { width: 13%; hyphens: none; } thead th { vertical-align: bottom; line-height: 1.25; }
tbody tr { border-top: 1px solid var(--line); }
tr.baseline th { color: light-dark(#a85a0c, #e69138); }
small { display: block; color: var(--quiet); font-size: .75rem; font-weight: normal;
        white-space: nowrap; }
thead small { white-space: normal; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:hover { text-decoration: underline; }
th button:focus-visible { outline: 2px solid var(--trained); outline-offset: 3px; }
[aria-sort] button::after { content: " \\25B2"; font-size: .7em; }
[aria-sort=descending] button::after { content: " \\25BC"; }
.difference { display: none; } .sure { font-weight: 700; }
.results:has(:checked) .value { display: none; }
.results:has(:checked) .difference { display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
          gap: 1rem 1.5rem; }
.chart { content-visibility: auto; contain-intrinsic-size: auto 22rem; font-size: .8rem; }
.chart ul { list-style: none; margin: 0; padding: 0; }
.chart li, .scale { display: grid; grid-template-columns: 11.2rem 1fr 2.3rem; gap: .5rem;
                    align-items: center; line-height: 1.5; }
.chart .name { font-size: .75rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.chart .number { text-align: right; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 100%; min-height: 1.2em; border: solid var(--line);
         border-width: 0 1px;
         background: linear-gradient(var(--line), var(--line)) 50% / 1px 100% no-repeat; }
.track::before { content: ""; position: absolute; left: var(--base); top: 0; bottom: 0;
                 border-left: 1.5px solid var(--baseline); opacity: .7; }
.track i { position: absolute; top: calc(50% - 1px); height: 2px; background: var(--trained);
           opacity: .45; }
.track b { position: absolute; top: 50%; width: .6em; height: .6em; box-sizing: border-box;
           border: .13em solid var(--trained); border-radius: 50%; background: var(--trained);
           transform: translate(-50%, -50%); }
.baseline .track i { background: var(--baseline); }
.baseline .track b { background: var(--baseline); border-color: var(--baseline); }
.posthoc .track b { background: var(--background); }
.scale { color: var(--quiet); } .scale span { display: flex; justify-content: space-between; }
.scale span { grid-column: 2; margin: 0 -.6em; } .scale i { font-style: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; max-width: 46rem; }
dt { color: var(--quiet); } dd { margin: 0; }
@media (min-width: 64rem) {
  .top { display: grid; grid-template-columns: 24rem 1fr; gap: 2.5rem; align-items: start; }
  .top figure { margin: 0; position: sticky; top: 1rem; }
}
@media (max-width: 44rem) {
  figure svg { display: none; } figure svg.narrow { display: block; }
  /* the name of a row stands over its numbers, which keep their columns */
  tr { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); padding: .35rem 0; }
  h1 { font-size: 1.5rem; }
  th, td { padding: 0 .1rem; font-size: .875rem; } th:first-child { grid-column: 1 / -1; }
  thead th, thead th + th { width: auto; hyphens: manual; font-size: .75rem; align-self: end; }
  small { font-size: .65rem; letter-spacing: -.03em; white-space: normal; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; }
}
"""

_SCRIPT = """
const heads = [...document.querySelectorAll("thead th")], body = document.querySelector("tbody");
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const first = head.dataset.first, second = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const value = row => row.cells[column].dataset.value;
  body.append(...[...body.rows].sort((a, b) =>  // what has no value stays last
    (value(a) === "") - (value(b) === "") || sign * (value(a) - value(b))));
}));
"""


def write(comparison: Any, path: str | Path) -> Path:
    """Write one HTML file about a comparison: it needs no network, and fits a phone.

    Args:
        comparison: a Comparison.
        path: the file, written as UTF-8.

    Returns:
        The path.
    """
    ways = len(comparison.trained)
    title = (
        f"{ways} way{'s' * (ways > 1)} to train, compared on {comparison.num_samples:,} samples "
        f"of {len(comparison.class_names)} classes"
    )
    seen = "it"
    if comparison.num_groups is not None:
        seen = "its group"
        title += f" in {comparison.num_groups:,} groups"
    seeds = f", with {comparison.repeats} seeds" if comparison.repeats > 1 else ""
    parts = [
        f"<!-- {MARK} -->",
        f"<h1>{_escape(title)}</h1>",
        f"<p>In {comparison.folds} folds{seeds}, each sample was classified by a model that had "
        f"not seen {seen}. All numbers are in percent, with 95&nbsp;% intervals.</p>",
        f'<div class="top"><div>{_advice(comparison)}</div>',
        f"<figure>{''.join(_svg(comparison, name) for name in _WIDTHS)}</figure></div>",
        f'<h2>All rows</h2><div class="results">{_table(comparison)}</div>',
        f"<h2>Recall of each class</h2>{_charts(comparison)}",
        "<h2>What was run</h2><dl>",
        *(f"<dt>{_escape(k)}</dt><dd>{_escape(v)}</dd>" for k, v in comparison.facts.items()),
        f"</dl><script>{_SCRIPT}</script>",
    ]
    write_document(path, title, _STYLE, parts)
    return Path(path)


def _escape(text: object) -> str:
    return html.escape(str(text))


def _advice(comparison: Any) -> str:
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in comparison.advice())
    notes = "".join(f"<p><b>Note:</b> {_escape(note)}</p>" for note in comparison.notes)
    for found in comparison.checks:
        notes += f"<p><b>{_escape(found.title)}.</b> {_escape(found.text)} "
        notes += f"<small>{_escape(found.code)}</small></p>"
    return (f'<ul class="advice">{items}</ul>' if items else "") + notes


def _kind(comparison: Any, row: str) -> str:
    """The classes of CSS of a row: whether it is the baseline's, and read off another."""
    source = picture.trained_row(comparison, row)
    kinds = ["baseline"] if source == comparison.baseline else []
    return " ".join([*kinds, "posthoc"] if source != row else kinds)


def _svg(comparison: Any, name: str) -> str:
    """The picture for one width of the page, in its colours and with its letters."""
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings = dict.fromkeys(colours, _INK) | {
        "figure.facecolor": _GROUND, "axes.facecolor": "none", "svg.fonttype": "none",
        "svg.hashsalt": name,  # names within one picture differ from those of the other
    }  # fmt: skip
    file = io.StringIO()
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser may have it
        figure = Figure(figsize=picture.size(comparison, *_WIDTHS[name]), layout="constrained")
        picture.plot(comparison, figure.subplots())
        figure.savefig(file, format="svg", facecolor="none", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", file.getvalue(), flags=re.S)
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg[svg.index("<svg") :])
    svg = svg.replace(_INK, "currentColor").replace(_GROUND, "var(--background)")
    svg = svg.replace(picture.TRAINED, "var(--trained)")
    svg = svg.replace(picture.BASELINE, "var(--baseline)")
    label = "Accuracy over balanced accuracy of each row; the numbers are in the table below."
    return svg.replace("<svg ", f'<svg class="{name}" role="img" aria-label="{label}" ', 1)


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.1f}".replace("-", "\u2212") if math.isfinite(value) else "\u2013"


def _estimate(estimate: Any, sign: str = "") -> str:
    """A number, and in smaller letters its interval."""
    if not math.isfinite(estimate.value):
        return "\u2013"
    low, high = _number(estimate.low), _number(estimate.high)
    interval = f"<small>{low} to {high}</small>" if math.isfinite(estimate.low) else ""
    return f"{_number(estimate.value, sign)}{interval}"


def _table(comparison: Any) -> str:
    """A line for each row, sorted by a click, and a switch that shows differences instead."""
    heads = (
        '<th scope="col" role="columnheader" aria-sort="ascending" data-first="ascending">'
        '<button type="button">row</button></th>'
    )
    for metric, words in METRICS.items():
        lower = metric in _LOWER_IS_BETTER
        heads += (
            '<th scope="col" role="columnheader" '
            f'data-first="{"ascending" if lower else "descending"}">'
            f'<button type="button">{words.replace("calibration", "cali&shy;bration")}</button>'
            f"{'<small>lower is better</small>' if lower else ''}</th>"
        )
    lines = []
    for i, row in enumerate(comparison.rows):
        cells = ""
        for metric in METRICS:
            own = comparison.estimate(row, metric)
            difference, sure = "baseline", False
            if row != comparison.baseline:
                less = comparison.difference(row, comparison.baseline, metric)
                difference, sure = _estimate(less, "+"), less.low > 0 or less.high < 0
            value = repr(float(own.value)) if math.isfinite(own.value) else ""
            cells += (
                f'<td role="cell" data-value="{value}"><span class="value">{_estimate(own)}</span>'
                f'<span class="difference{" sure" * sure}">{difference}</span></td>'
            )
        lines.append(
            f'<tr role="row" class="{_kind(comparison, row)}"><th scope="row" role="rowheader" '
            f'data-value="{i}"><span class="quiet">{i + 1}</span> {_escape(row)}</th>{cells}</tr>'
        )
    return (
        f'<label><input type="checkbox"> differences to \u201c{_escape(comparison.baseline)}\u201d'
        ", bold where the interval does not hold 0</label>"
        # as a grid on a phone it would lose its roles, were they not written out
        f'<table role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
    )


def _charts(comparison: Any) -> str:
    """A small chart for each class, the largest class first, the rows in their order in each."""
    counts = comparison.class_counts
    kinds = {row: _kind(comparison, row) for row in comparison.rows}
    charts = []
    for c in sorted(range(len(counts)), key=lambda c: -counts[c]):
        metric = f"recall_{comparison.class_names[c]}"
        lines = []
        for i, row in enumerate(comparison.rows, 1):
            recall = comparison.estimate(row, metric)
            # such a row follows the one that it is read from
            name = "\u21b3 post-hoc" if "posthoc" in kinds[row] else _escape(row)
            name = f'<span class="quiet">{i}</span> {name}'  # as in the table: long names are cut
            lines.append(
                f'<li class="{kinds[row]}"><span class="name" title="{_escape(row)}">'
                f'{name}</span><span class="track">{_dot(recall)}</span>'
                f'<span class="number">{_number(recall.value)}</span></li>'
            )
        base = comparison.estimate(comparison.baseline, metric).value
        line = f' style="--base:{base:.1f}%"' if math.isfinite(base) else ""
        charts.append(
            f'<section class="chart"{line}><h3>{_escape(comparison.class_names[c])} '
            f'<span class="quiet">{counts[c]:,} samples</span></h3><ul>{"".join(lines)}</ul>'
            '<div class="scale" aria-hidden="true"><span><i>0</i><i>50</i><i>100</i></span></div>'
            "</section>"
        )
    return (
        f"<p>The vertical line is \u201c{_escape(comparison.baseline)}\u201d; hollow dots are rows "
        'with post-hoc adjustment.</p><div class="charts">' + "".join(charts) + "</div>"
    )


def _dot(recall: Any) -> str:
    if not math.isfinite(recall.value):
        return ""
    interval = ""
    if math.isfinite(recall.low):
        left, width = recall.low, recall.high - recall.low
        interval = f'<i style="left:{left:.1f}%;width:{width:.1f}%"></i>'
    return f'{interval}<b style="left:{recall.value:.1f}%"></b>'
