"""The picture of docs/does-it-pay.md: how far the verdict is above each other strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from examples.tables import report

__all__ = ["draw", "picture"]

OF_HALF = {"development": ("o", "none"), "held-back": ("o", None)}
"""Marker and its face."""
COLOURS = {"": "#2a6fb0", "-dark": "#5b9fe0"}


def draw(results: Path, images: Path) -> list[Path]:
    """Write ``tables.png`` and ``tables-dark.png``."""
    found = []
    for theme, colour in COLOURS.items():
        dark = images / "dark.matplotlibrc" if theme else None
        with matplotlib.rc_context(fname=dark):
            path = images / f"tables{theme}.png"
            figure = picture(results, colour)
            figure.savefig(path, dpi=150)
            found.append(path)
    return found


def picture(results: Path, colour: str) -> Figure:
    scores = {half: report.Scores(lines) for half, lines in report.halves(results).items()}
    strategies = [*report.FIXED, *report.OTHERS]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    quiet: Any = matplotlib.rcParams["axes.edgecolor"]
    axes.axvline(0, color=quiet, linewidth=1, zorder=0)
    for place, (half, of_half) in enumerate(scores.items()):
        marker, face = OF_HALF[half]
        shift = 0.17 * (2 * place - 1) if len(scores) > 1 else 0.0
        for height, name in enumerate(strategies):
            value, low, high = of_half.gain(report.VERDICT, name)
            at = height + shift
            axes.plot([low, high], [at, at], color=colour, linewidth=1.6, zorder=1)
            axes.plot(
                value, at, marker, color=colour, markersize=6, zorder=2, linestyle="none",
                markerfacecolor=axes.get_facecolor() if face == "none" else colour,
                label=f"{half} half" if height == 0 else None,
            )  # fmt: skip
    axes.set_yticks(range(len(strategies)), strategies)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xlabel("verdict minus strategy (points of balanced accuracy)")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper right", frameon=False)
    return figure
