"""The figure of the README: time and memory over the number of samples."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "benchmarks.png"


def draw(folder: Path, device: str) -> Path:
    source = folder / f"{device}-sizes.json"
    if not source.exists():
        raise SystemExit(f"{source} is missing; python -m benchmarks sizes --save writes it")
    report = json.loads(source.read_text())
    [table] = report["tables"]
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for loss, weighter, size, both, memory in table["rows"]:
        is_ours = loss in ("FocalLoss", "CrossEntropyLoss")
        name = f"sampleweights {loss}" + (f" + {weighter}" if weighter not in "-" else "")
        lines.setdefault(name if is_ours else loss, []).append((size, both, memory))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, points in lines.items():
        is_ours = name.startswith("sampleweights")
        sizes, both, memory = zip(*points, strict=True)
        for axis, values in zip(axes, (both, memory), strict=True):
            axis.plot(
                sizes,
                values,
                marker="o",
                markersize=4,
                label=name,
                linewidth=2.5 if is_ours else 1.2,
                zorder=3 if is_ours else 2,
            )
    for axis, title in zip(axes, ("forward + backward time", "peak memory"), strict=True):
        axis.axhline(1, color="black", linewidth=1, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="samples of 100 classes")
        axis.set_title(f"{title}, relative to F.cross_entropy")
        axis.yaxis.set_major_formatter("{x:g}x")
        axis.yaxis.set_minor_formatter("")
        # the first tick below all curves and the first above them end the axis
        bottom, top = axis.dataLim.intervaly
        ticks = [m * 10.0**e for e in range(-2, 4) for m in (1, 2, 5)]
        first = max(i for i, tick in enumerate(ticks) if tick < bottom)
        last = min(i for i, tick in enumerate(ticks) if tick > top)
        axis.set_yticks(ticks[first : last + 1])
        axis.set_ylim(ticks[first], ticks[last])
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    about = report["environment"]
    figure.suptitle(f"{about['hardware']}, torch {about['torch']}, {about['date']}", fontsize=9)
    figure.savefig(FIGURE, dpi=120)
    return FIGURE
