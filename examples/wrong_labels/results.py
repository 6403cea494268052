"""What the scores find, what is kept of it, and the tables that follow from what was kept.

A file has a line for each run. Of each ranking it has the changed labels among the first n
(``hits``; n labels are changed) and the average precision; of each list its length, the changed
labels on it (``right``), and the clean samples of rare classes on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata, t
from sklearn.metrics import average_precision_score

from examples.wrong_labels.samples import Samples
from examples.wrong_labels.trainings import PLAIN, WEIGHTINGS
from sampleweights.compare.checks.labels import SURE, chance_of_wrong, share_at_random

KEPT = Path(__file__).parents[2] / "docs" / "results" / "wrong-labels"
RUN = ["noise", "share", "seed"]
TRAININGS = {
    "adjusted margin": 1,
    "area under the margin": 1,
    "confidence": 1,
    "mean loss": 1,
    "cleanlab, self_confidence": 5,
    "cleanlab, normalized_margin": 5,
    "compare": 5,
    "balanced logits, out of fold": 5,
    "KNN-Shapley": 0,
    "adjusted margin + compare": 6,
    "adjusted margin + KNN-Shapley": 1,
    "compare + KNN-Shapley": 5,
}
"""What is compared, and how many trainings it takes; a sum is the mean of two ranks."""
MARGINS = ["adjusted_margin", "area_under_margin"]
BASE = "adjusted margin"
TITLES = {"digits": "digits", "thinned": "thinned digits", "isic2018": "ISIC 2018"}

Floats = NDArray[np.floating]


def suspicions(samples: Samples, found: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """Of what `trained` found: scores (N,), the higher the more suspicious is the label."""
    from cleanlab.rank import get_label_quality_scores

    probability = softmax(found["logits"].astype(np.float64), axis=1)
    of_cleanlab = {
        f"cleanlab, {method}": -get_label_quality_scores(samples.given, probability, method=method)
        for method in ("self_confidence", "normalized_margin")
    }
    scores = {
        "adjusted margin": -found["adjusted_margin"],
        "area under the margin": -found["area_under_margin"],
        "confidence": -found["confidence"],
        "mean loss": found["mean_loss"],
        **of_cleanlab,
        "compare": chance_of_wrong(found["logits"], samples.given)[0],
        "balanced logits, out of fold": balanced(found["adjusted_logits"], samples.given)[0],
        "KNN-Shapley": -found["knn_shapley"],
    }
    for name in TRAININGS:
        if " + " in name:
            first, second = name.split(" + ")
            scores[name] = rankdata(scores[first]) + rankdata(scores[second])
    for weighting in WEIGHTINGS:
        for name, score in zip(of_weighting(weighting), MARGINS, strict=True):
            if f"{score} {weighting}" in found:
                scores[name] = -found[f"{score} {weighting}"]
    return scores


def lists(samples: Samples, found: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    """What each flags (N,)."""
    from cleanlab.filter import find_label_issues

    logits, given = found["logits"], samples.given
    score, gain = chance_of_wrong(logits, given)
    other = logits.argmax(1) != given
    return {
        "adjusted margin": found["adjusted_margin"] < 0,
        "area under the margin": found["area_under_margin"] < 0,
        "cleanlab, self_confidence": find_label_issues(
            given, softmax(logits.astype(np.float64), axis=1), n_jobs=1
        ),
        "compare": (score > 0.5) & other & (gain > SURE),
        "balanced logits, out of fold": balanced(found["adjusted_logits"], given)[1],
        "KNN-Shapley": found["knn_shapley"] < 0,
    }


def balanced(
    adjusted: Floats, target: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and a list from logits at equal class frequencies, as ``compare`` once had them.

    Classes of which fewer than half of the samples are recognised were left out of the list.
    """
    share, temperature, gain = share_at_random(adjusted, target)
    probability = softmax(adjusted.astype(np.float64) / temperature, axis=1)
    own = (1 - share) * probability[np.arange(len(target)), target]
    at_random = max(share, 1e-9) / adjusted.shape[1]  # the order does not depend on the share
    score, predicted = at_random / (own + at_random), adjusted.argmax(1)
    count = np.bincount(target, minlength=adjusted.shape[1])
    right = np.bincount(target[predicted == target], minlength=adjusted.shape[1])
    known = (2 * right >= count)[target]
    return score, (score > 0.5) & (predicted != target) & known & (gain > 5)


def measured(samples: Samples, found: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """A line of the results."""
    changed, number = samples.changed, int(samples.changed.sum())
    clean_rare = samples.rare & ~changed
    line: dict[str, float] = {"changed": number, "clean_rare": int(clean_rare.sum())}
    for name, score in suspicions(samples, found).items():
        first = np.argsort(-score, kind="stable")[:number]
        line[f"{name}: hits"] = int(changed[first].sum())
        line[f"{name}: ap"] = round(100 * float(average_precision_score(changed, score)), 2)
    for name, flagged in lists(samples, found).items():
        line[f"{name}: flagged"] = int(flagged.sum())
        line[f"{name}: right"] = int((flagged & changed).sum())
        line[f"{name}: rare"] = int((flagged & clean_rare).sum())
    return line


def tables(folder: Path = KEPT) -> str:
    """The rankings, the lists, and what weights in training change."""
    conditions = {}
    for path in sorted(
        folder.glob("*.csv"), key=lambda path: [*TITLES, path.stem].index(path.stem)
    ):
        kept = pd.read_csv(path)
        for noise in kept["noise"].unique():
            title = f"{TITLES.get(path.stem, path.stem)}, {noise}"
            conditions[title] = kept[kept["noise"] == noise].dropna(axis=1)
    blocks = []
    for words, of in (("Changed labels among the first n, in percent", precision),
                      ("Average precision, in percent", average_precision)):  # fmt: skip
        rows = [
            [
                name,
                str(number),
                *(cell(of(runs, name), of(runs, BASE)) for runs in conditions.values()),
            ]
            for name, number in TRAININGS.items()
        ]
        blocks.append(table(f"{words}:", ["score", "trainings", *conditions], rows))
    head = ["samples", "labels changed", "list", "length", "of them changed", "of the changed",
            "of clean rare"]  # fmt: skip
    rows = [
        [title, f"{100 * share:.0f} % ({mean(part['changed']):.0f})", name, *flags(part, name)]
        for title, runs in conditions.items()
        for share, part in runs.groupby("share")
        for name in TRAININGS
        if f"{name}: flagged" in part
    ]
    blocks.append(table("Lists:", head, rows))
    for title, runs in conditions.items():
        rows = [
            [name, *(cell(precision(runs, score), precision(runs, BASE)) for score in scores)]
            for name, scores in ((name, of_weighting(name)) for name in WEIGHTINGS)
            if f"{scores[0]}: hits" in runs
        ]
        if len(rows) > 1:
            words = f"Changed labels among the first n, in percent; {title}:"
            blocks.append(table(words, ["training", *of_weighting(PLAIN)], rows))
    return "\n\n".join(blocks)


def of_weighting(weighting: str) -> list[str]:
    """The names of the two margins after a training."""
    names = ["adjusted margin", "area under the margin"]
    return names if weighting == PLAIN else [f"{name}, {weighting}" for name in names]


def table(words: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---" if i == 0 else "--:" for i in range(len(head))], *rows]
    return "\n".join([words, "", *(f"| {' | '.join(line)} |" for line in lines)])


def mean(values: Any) -> float:
    return float(np.mean(values))


def cell(values: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """The mean, and the mean difference to the base with the 95 % interval of paired runs."""
    difference = values - base
    if not difference.any():
        return f"{mean(values):.1f}"
    runs = len(difference)
    half = t.ppf(0.975, runs - 1) * difference.std(ddof=1) / np.sqrt(runs) if runs > 1 else np.nan
    return f"{mean(values):.1f} ({mean(difference):+.1f} ± {half:.1f})"


def flags(runs: pd.DataFrame, name: str) -> list[str]:
    flagged, right, rare = (runs[f"{name}: {measure}"] for measure in ("flagged", "right", "rare"))
    share = (
        f"{100 * rare.sum() / runs['clean_rare'].sum():.0f} %" if mean(runs["clean_rare"]) else "-"
    )
    found = f"{100 * right.sum() / runs['changed'].sum():.0f} %"
    return [f"{mean(flagged):.0f}", f"{100 * right.sum() / flagged.sum():.0f} %", found, share]


def precision(runs: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Percent (R,)"""
    return np.asarray(100 * runs[f"{name}: hits"] / runs["changed"], np.float64)


def average_precision(runs: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Percent (R,)"""
    return np.asarray(runs[f"{name}: ap"], np.float64)
