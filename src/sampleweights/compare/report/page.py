"""The page of a comparison: the verdict, picture, table, each class, and what was run."""

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
from sampleweights.compare.report import decided, picture, table
from sampleweights.compare.report.style import SCRIPT, STYLE
from sampleweights.compare.task import WORDS
from sampleweights.history.page import write_document

__all__ = ["write"]

_LOWER_IS_BETTER = ("calibration_error",)
_INK, _GROUND = "#010203", "#fdfeff"  # stand for the page's colours until the SVG is written
_WIDTHS = {"wide": (7.4, 5.6), "narrow": (4.4, 5.0)}  # in inches: which letters can be read


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
        f"{comparison.task.of} {len(comparison.class_names)} "
        f"{comparison.task.many}"
    )
    seen = "it"
    if comparison.num_groups is not None:
        seen = "its group"
        title += f" in {comparison.num_groups:,} groups"
    seeds = f", with {comparison.repeats} seeds" if comparison.repeats > 1 else ""
    verdict = comparison.verdict
    parts = [
        f"<!-- {MARK} -->",
        f'<div class="top"><div class="verdict"><p class="what">{_escape(title)}</p>',
        *_verdict(verdict),
        *_list("advice", comparison.advice()),
        *_checks(comparison),
        f"</div><figure>{''.join(_svg(comparison, name) for name in _WIDTHS)}",
        f"<figcaption>{_escape(picture.caption(comparison))}</figcaption></figure></div>",
        f"<h2>All methods</h2><p>In {comparison.folds} folds{seeds}, each sample was classified "
        f"by a model that had not seen {seen}. All numbers are in percent"
        f"{', but for the utility' * (comparison.goal.metric == 'utility')}; the smaller ones are "
        f"95&nbsp;% intervals. The best for the {_escape(comparison.goal.words)} comes first.",
        f'</p><div class="results">{_table(comparison)}</div>{_without_interval(comparison)}',
        f"<h2>{_of_each(comparison)}</h2>{_charts(comparison)}",
        *decided.section(comparison),
        "<h2>What was run</h2><dl>",
        *(f"<dt>{_escape(k)}</dt><dd>{_escape(v)}</dd>" for k, v in comparison.facts.items()),
        f"</dl><script>{SCRIPT}</script>",
    ]
    write_document(path, title, STYLE, parts)
    return Path(path)


def _escape(text: object) -> str:
    return html.escape(str(text))


def _verdict(verdict: Any) -> list[str]:
    """What to do in the largest letters, then what it brings, then the code."""
    found = []
    for i, (part, lines) in enumerate(verdict.parts):
        what = re.sub(r" \* log\(class frequency\)", "\u00a0* log(class\u00a0frequency)", part.what)
        found.append(f"<h{i + 1}>{_escape(what)}</h{i + 1}>")
        if part.effect:
            found.append(f"<p>{_escape(part.effect).replace(' %', '&nbsp;%')}</p>")
        if lines:
            found.append(f"<pre><code>{_escape(lines)}</code></pre>")
    return found


def _list(kind: str, sentences: list[str]) -> list[str]:
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in sentences)
    return [f'<ul class="{kind}">{items}</ul>'] if items else []


def _checks(comparison: Any) -> list[str]:
    """What should be known before one believes it."""
    items = [f"<li>{_escape(note)}</li>" for note in comparison.notes]
    items += [
        f"<li><b>{_escape(found.title)}.</b> {_escape(found.text)} "
        f'<span class="quiet">{_escape(found.code)}</span></li>'
        for found in comparison.checks
    ]
    if not items:
        return []
    return ['<p><b>Before you rely on it</b></p><ul class="checks">', *items, "</ul>"]


def _without_interval(comparison: Any) -> str:
    """Why metrics have none, once for each reason."""
    reasons: dict[str, list[str]] = {}
    for metric, words in table.metrics(comparison).items():
        why = comparison.why_no_interval(metric)
        if why is not None:
            reasons.setdefault(why, []).append(words)
    lines = [
        why if why.startswith("The ") else f"{', '.join(words)}: {why}"  # it names itself
        for why, words in reasons.items()
    ]
    return "".join(f'<p class="quiet">{_escape(line)}</p>' for line in lines)


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
        picture.plot(comparison, figure.subplots(), words=False)  # the page says them
        figure.set_layout_engine("none")  # it is done, and would be done again twice
        figure.savefig(file, format="svg", facecolor="none", metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", file.getvalue(), flags=re.S)
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg[svg.index("<svg") :])
    svg = svg.replace(_INK, "currentColor").replace(_GROUND, "var(--background)")
    svg = svg.replace(picture.TRAINED, "var(--trained)")
    svg = svg.replace(picture.BASELINE, "var(--baseline)")
    label = f"{comparison.task.title} of each row; the numbers are in the table below."
    return svg.replace("<svg ", f'<svg class="{name}" role="img" aria-label="{label}" ', 1)


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "\u2013"


def _estimate(estimate: Any, sign: str = "", is_utility: bool = False) -> str:
    """A number, and in smaller letters its interval."""
    if not math.isfinite(estimate.value):
        return "\u2013"

    def number(value: float, sign: str = "") -> str:
        text = f"{value:{sign}.3g}" if is_utility else f"{value:{sign}.1f}"
        return text.replace("-", "\u2212")

    interval = ""
    if estimate.shown:
        interval = f"<small>{number(estimate.low)} to {number(estimate.high)}</small>"
    return f"{number(estimate.value, sign)}{interval}"


def _table(comparison: Any) -> str:
    """A line for each row, sorted by a click, and a switch that shows differences instead."""
    heads = (
        '<th scope="col" role="columnheader" data-first="ascending">'
        '<button type="button">method</button></th>'
    )
    metrics = table.metrics(comparison)
    for metric, words in metrics.items():
        lower = metric in _LOWER_IS_BETTER
        by = ' aria-sort="descending"' if metric == comparison.goal.metric else ""
        heads += (
            f'<th scope="col" role="columnheader"{by} '
            f'data-first="{"ascending" if lower else "descending"}">'
            f'<button type="button">{words.replace("calibration", "cali&shy;bration")}</button>'
            f"{'<small>lower is better</small>' if lower else ''}</th>"
        )
    lines = []
    differences = {metric: comparison.differences(metric) for metric in metrics}
    for row in comparison.ranking:
        cells = ""
        for metric in metrics:
            own, is_utility = comparison.estimate(row, metric), metric == "utility"
            difference, sure = "baseline", False
            if row != comparison.baseline:
                less = differences[metric][row]
                difference = _estimate(less, "+", is_utility)
                sure = less.low > 0 or less.high < 0
            value = repr(float(own.value)) if math.isfinite(own.value) else ""
            cells += (
                f'<td role="cell" data-value="{value}">'
                f'<span class="value">{_estimate(own, is_utility=is_utility)}</span>'
                f'<span class="difference{" sure" * sure}">{difference}</span></td>'
            )
        i = comparison.rows.index(row)
        lines.append(
            f'<tr role="row" class="{_kind(comparison, row)}"><th scope="row" role="rowheader" '
            f'data-value="{i}"><span class="quiet">{i + 1}</span> {_escape(row)}</th>{cells}</tr>'
        )
    return (
        f'<label><input type="checkbox"> differences to \u201c{_escape(comparison.baseline)}\u201d'
        ", bold where they are shown to differ</label>"
        # as a grid on a phone it would lose its roles, were they not written out
        f'<table role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(lines)}</tbody></table>'
    )


def _charts(comparison: Any) -> str:
    """A small chart for each class, the largest class first, the rows in their order in each."""
    counts = comparison.class_counts
    kinds = {row: _kind(comparison, row) for row in comparison.rows}
    dot, tick = comparison.task.chart
    charts = []
    for c in sorted(range(len(counts)), key=lambda c: -counts[c]):
        name = comparison.class_names[c]
        lines = []
        for i, row in enumerate(comparison.rows, 1):
            value = comparison.estimate(row, f"{dot}_{name}")
            other = comparison.estimate(row, f"{tick}_{name}")
            # such a row follows the one that it is read from
            short = _escape(row)
            if "posthoc" in kinds[row]:
                short = (
                    f"\u21b3 {_escape(row.removeprefix(picture.trained_row(comparison, row))[3:])}"
                )
            short = f'<span class="quiet">{i}</span> {short}'  # as in the table: long ones are cut
            lines.append(
                f'<li class="{kinds[row]}"><span class="name" title="{_escape(row)}">'
                f'{short}</span><span class="track">{_dot(value, other)}</span>'
                f'<span class="number">{_number(value.value)}</span>'
                f'<span class="number quiet">{_number(other.value)}</span></li>'
            )
        base = comparison.estimate(comparison.baseline, f"{dot}_{name}").value
        line = f' style="--base:{base:.1f}%"' if math.isfinite(base) else ""
        charts.append(
            f'<section class="chart"{line}><h3>{_escape(name)} '
            f'<span class="quiet">{counts[c]:,} samples</span></h3><ul>{"".join(lines)}</ul>'
            '<div class="scale" aria-hidden="true"><span><i>0</i><i>50</i><i>100</i></span></div>'
            "</section>"
        )
    return (
        f"<p>Dots and first numbers are the {WORDS[dot]}, grey ticks and numbers the "
        f"{WORDS[tick]}. The vertical line is the {WORDS[dot]} of "
        f"\u201c{_escape(comparison.baseline)}\u201d; hollow dots "
        'are rows with post-hoc adjustment.</p><div class="charts">' + "".join(charts) + "</div>"
    )


def _of_each(comparison: Any) -> str:
    """The title of the charts."""
    dot, tick = comparison.task.chart
    title = f"{WORDS[dot]} and {WORDS[tick]} of each {comparison.task.one}"
    return title[0].upper() + title[1:]


def _dot(value: Any, other: Any) -> str:
    found = ""
    if value.shown:
        left, width = value.low, value.high - value.low
        found += f'<i style="left:{left:.1f}%;width:{width:.1f}%"></i>'
    if math.isfinite(other.value):
        found += f'<u style="left:{other.value:.1f}%"></u>'
    if math.isfinite(value.value):
        found += f'<b style="left:{value.value:.1f}%"></b>'
    return found
