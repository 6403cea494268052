"""What each method gained, by protocol: ``python -m examples.advice.gained``.

Prints the saved results of ``docs/results/advice/gained`` (``gains.json`` of the reports of
``python -m examples.isic2018``) and, of the frozen features of the paper's models, the mean of the
rows with cross-entropy of Tables 2 to 5 of ``docs/reproduction.md``. The documentation quotes these
tables. Nothing is trained, unless a file of features is given.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "results" / "advice" / "gained"
METRICS = ("balanced_accuracy", "accuracy")
PLAIN = {"-": "no weights", "no weighting": "no weights", "-, post-hoc": "post-hoc, tau 1"}
Rows = dict[str, dict[str, list[float]]]
"""By method: each metric, and its gain over no weights ("accuracy gain"), as value or as value, low
and high."""

PROTOCOLS = {
    "end-to-end": "ISIC 2018, end to end: all layers of EfficientNet-Lite0 on 80x112 pixels, 8 "
    "epochs; mean of two 80/20 splits",
    "five-folds": "ISIC 2018, frozen features: the head of `compare` on 1,488 features, five folds",
    "frozen": "ISIC 2018, frozen maps, the paper's models: attention and head on frozen maps; "
    "mean of two models, two optimisers and two 80/20 splits",
    "digits": "Digits demo: a small CNN on 208 images of 7 digits, 60 epochs; mean of two splits",
}
SHORT = {
    "end-to-end": "ISIC 2018, end to end",
    "five-folds": "ISIC 2018, frozen features, five folds",
    "frozen": "ISIC 2018, frozen maps, the paper's models",
    "digits": "digits demo",
}
SUMMARY = ["post-hoc, tau 0.5", "post-hoc, tau 1", "EffectiveNumber"]


def of_reproduction() -> Rows:
    """Means over Tables 2 to 5, which have no interval of their own."""
    text = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    found: dict[str, list[tuple[float, float]]] = {}
    for table in re.split(r"^### Table ", text, flags=re.M)[1:]:
        for method, accuracy, balanced in re.findall(
            r"^\| CE +\| (.+?) +\| ([\d.]+)[^|]*\| ([\d.]+)", table, re.M
        ):
            found.setdefault(PLAIN.get(method, method), []).append(
                (float(balanced), float(accuracy))
            )
    means = {
        method: [fmean(column) for column in zip(*values, strict=True)]
        for method, values in found.items()
        if len(values) == 4
    }
    return {
        method: {
            **{metric: [value] for metric, value in zip(METRICS, values, strict=True)},
            **{
                f"{metric} gain": [value - plain]
                for metric, value, plain in zip(METRICS, values, means["no weights"], strict=True)
                if method != "no weights"
            },
        }
        for method, values in means.items()
    }


def known(names: dict[str, str]) -> dict[str, str]:
    """Those of which there are results."""
    return {n: t for n, t in names.items() if n == "frozen" or (FOLDER / f"{n}.json").exists()}


def load(name: str) -> dict[str, Any]:
    """``rows``; and where they are known ``command``, ``class_counts`` and ``train_recall``."""
    if name == "frozen":
        return {"rows": of_reproduction()}
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def shown(values: list[float], sign: str = "") -> str:
    """A value with one decimal, and its 95 % interval where it has one."""
    value, *ends = (f"{number:{sign}.1f}" for number in values)
    return f"{value} ({' to '.join(ends)})" if ends else value


def table(name: str) -> Iterator[str]:
    """The lines of a protocol in Markdown."""
    yield "| method | balanced accuracy | accuracy | gain in balanced accuracy | gain in accuracy |"
    yield "|---|--:|--:|--:|--:|"
    for method, row in load(name)["rows"].items():
        gains = [row.get(f"{metric} gain") for metric in METRICS]
        cells = [shown(row[metric]) for metric in METRICS]
        cells += [shown(gain, "+") if gain else "" for gain in gains]
        yield f"| {method} | {' | '.join(cells)} |"


def fitted(name: str) -> str:
    """How much of the rarest class of the training part the plain model recognises."""
    found = load(name)
    recall = found.get("train_recall", {}).get("no weights")
    if not recall:
        return ""
    counts = found["class_counts"]
    return f"{recall[min(counts, key=counts.get)]:.0f} %"


def summary() -> Iterator[str]:
    """The lines of the table that README has: gains in balanced accuracy/accuracy."""
    yield f"| protocol | fitted | {' | '.join(SUMMARY)} |"
    yield "|---|--:|" + "--:|" * len(SUMMARY)
    for name, title in known(SHORT).items():
        rows = load(name)["rows"]
        cells = [
            "/".join(f"{rows[method][f'{metric} gain'][0]:+.1f}" for metric in METRICS)
            if method in rows
            else ""
            for method in SUMMARY
        ]
        yield f"| {title} | {fitted(name)} | {' | '.join(cells)} |"


def of_comparison(path: Path) -> dict[str, Any]:
    """What ``compare`` finds on a file of features, in the form of the other protocols."""
    from sampleweights.compare import compare  # the tables are printed without its packages

    with np.load(path) as file:
        names = [str(name) for name in file["class_names"]]
        target = file["target"]
        found = compare(
            file["features"], target, groups=file["groups"], class_names=names, progress=False,
            cache=path.parent / "comparison" / "runs",
        )  # fmt: skip
    rows: Rows = {}
    for method, line in found.table().iterrows():
        rows[PLAIN.get(str(method), str(method))] = row = {}
        for metric in METRICS:
            row[metric] = [line[metric + end] for end in ("", "_low", "_high")]
            if method != found.baseline:
                ends = ("", "_low", "_high")
                row[f"{metric} gain"] = [line[f"{metric}_difference{end}"] for end in ends]
    assert found.frontier is not None  # the baseline has no weights
    frontier = found.frontier.set_index("tau")
    for tau in (0.5, 1):
        near = frontier.iloc[abs(frontier.index - tau).argmin()]
        rows[f"post-hoc, tau {tau}"] = {
            **{metric: [near[metric]] for metric in METRICS},
            **{f"{m} gain": [near[m] - rows["no weights"][m][0]] for m in METRICS},
        }
    recall = found.train_recall[found.baseline]
    return {
        "command": "python -m examples.advice.gained features.npz",
        "class_counts": dict(zip(names, np.bincount(target).tolist(), strict=True)),
        "train_recall": {"no weights": dict(zip(names, recall.mean((0, 1)).round(1), strict=True))},
        "rows": {
            method: {  # without ends where no honest interval exists
                metric: [round(float(v), 2) for v in row[metric] if np.isfinite(v)]
                for metric in row
            }
            for method, row in rows.items()
        },
    }


def pages() -> dict[str, str]:
    """The Markdown that the documentation includes, by file name."""
    tables = [
        f"**{what}.**\n\n" + "\n".join(table(name)) for name, what in known(PROTOCOLS).items()
    ]
    return {
        "summary.md": "\n".join(summary()) + "\n",
        "protocols.md": "\n\n".join(tables) + "\n",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.advice.gained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "features",
        nargs="?",
        type=Path,
        help="compare on this file first, and save what it finds as the protocol of five folds; it "
        "is written by `python -m examples.isic2018 features`",
    )
    parser.add_argument("--save", action="store_true", help="the tables too, in docs/results")
    arguments = parser.parse_args()
    if arguments.features is not None:
        text = json.dumps(of_comparison(arguments.features), indent=1)
        (FOLDER / "five-folds.json").write_text(text + "\n", encoding="utf-8")
    for name, page in pages().items():
        if arguments.save:
            (FOLDER / name).write_text(page, encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main()
