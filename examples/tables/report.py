"""What following the verdict is worth, from the lines of the results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from examples.tables.reading import source_of

__all__ = ["FIXED", "Scores", "halves", "load", "report"]

PLAIN = "no weighting"
VERDICT, SHOWN = "verdict", "verdict, if something is shown"
FREE, FOR_F1 = "verdict at no loss of accuracy", "verdict for macro F1"
FIXED = {
    "never weighting": PLAIN,
    "always ClassBalanced": "ClassBalanced",
    "always EffectiveNumber": "EffectiveNumber",
    "always balanced sampling": "balanced sampling",
    "always LogitAdjustment": "LogitAdjustment",
    "always post-hoc, tau 1": "no weighting + post-hoc, tau 1",
    "always post-hoc, tau chosen": "no weighting + post-hoc",
}
HALVES = ("development", "held-back")
BEFORE = "development-before"
"""The development half with the verdicts of `compare` as it was before these tables."""
OTHERS = {name: name for name in ("gradient boosting", "gradient boosting, balanced")}
CHOSEN_BY = {
    VERDICT: "verdict: choice",
    SHOWN: "verdict: balanced_accuracy",
    FREE: "verdict: at no loss",
    FOR_F1: "verdict: macro_f1",
}
HINDSIGHT, HONEST = "best in hindsight", "best on the other folds"
TOLERANCE = 0.5
RESAMPLES = 10_000
METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
}


def load(folder: Path, half: str) -> pd.DataFrame:
    """The lines of one half, a fold of a table each."""
    return pd.read_csv(folder / f"{half}.csv", keep_default_na=False)


class Scores:
    """One metric of each strategy on each table, in percent.

    Args:
        lines: of the results.
        metric: one of ``METRICS``.
    """

    def __init__(self, lines: pd.DataFrame, metric: str = "balanced_accuracy") -> None:
        ends = f": {metric}"
        self.of_row = lines[[c for c in lines if c.endswith(ends) and not c.startswith("verdict")]]
        self.of_row = self.of_row.rename(columns=lambda c: c.removesuffix(ends)).astype(float)
        if CHOSEN_BY[VERDICT] not in lines:  # as it was before there was one
            lines = lines.assign(**{CHOSEN_BY[VERDICT]: lines[CHOSEN_BY[SHOWN]]})
        self.lines, self.metric = lines, metric
        found = {name: self.of_row[row] for name, row in (FIXED | OTHERS).items()}
        for name, column in CHOSEN_BY.items():
            suffix = ", macro_f1" if name == FOR_F1 else ""
            found[name] = self.followed(lines[column], suffix)
        heads = self.of_row.drop(columns=[*OTHERS])
        of_f1 = [row for row in heads if row.endswith(", macro_f1")]
        if metric != "macro_f1":
            heads = heads.drop(columns=of_f1)
        by_table = heads.groupby(lines["table"])
        sums, sizes = by_table.transform("sum"), by_table.transform("size")
        left = (sums - heads).div((sizes - 1).clip(lower=1), axis=0).idxmax(axis=1)
        found[HONEST] = self.taken(heads, left)
        self.by_table = pd.DataFrame(found).groupby(lines["table"]).mean()
        self.by_table[HINDSIGHT] = by_table.mean().max(axis=1)
        self.source = np.array([source_of(name) for name in self.by_table.index])

    def followed(self, chosen: pd.Series, suffix: str) -> pd.Series:
        """What the rows reach that a verdict names."""
        names = chosen.where(~chosen.str.contains(" + post-hoc", regex=False), chosen + suffix)
        return self.taken(self.of_row, names)

    @staticmethod
    def taken(of_row: pd.DataFrame, names: pd.Series) -> pd.Series:
        place = of_row.columns.get_indexer(names)
        return pd.Series(of_row.to_numpy()[np.arange(len(names)), place], names.index)

    def mean(self, values: pd.Series, among: NDArray[np.bool_] | None = None) -> list[float]:
        """The mean over the sources of their means, and its 95 % interval over the sources."""
        among = np.ones(len(values), bool) if among is None else among
        of_source = values[among].groupby(self.source[among]).mean().to_numpy()
        drawn = np.random.default_rng(0).integers(0, len(of_source), (RESAMPLES, len(of_source)))
        low, high = np.percentile(of_source[drawn].mean(1), [2.5, 97.5])
        return [float(of_source.mean()), float(low), float(high)]

    def gain(self, name: str, other: str, among: NDArray[np.bool_] | None = None) -> list[float]:
        """How far one strategy is above another."""
        return self.mean(self.by_table[name] - self.by_table[other], among)

    def share(self, values: pd.Series) -> float:
        """In percent of the sources, a source of several tables counting once."""
        return 100 * float(values.astype(float).groupby(self.source).mean().mean())


def shown(values: list[float], sign: str = "+") -> str:
    value, low, high = (f"{round(number, 1) + 0.0:{sign}.1f}" for number in values)
    return f"{value} ({low} to {high})"


def strategies(scores: Scores) -> Iterator[str]:
    """The lines of the table: each strategy, and how far the verdict is above it."""
    accuracy = Scores(scores.lines, "accuracy")
    f1 = Scores(scores.lines, "macro_f1")
    yield (
        "| strategy | balanced accuracy | verdict minus strategy | regret | "
        "best or within 0.5 | accuracy | macro F1 |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|"
    best = scores.by_table[HINDSIGHT]
    for name in [VERDICT, SHOWN, FREE, FOR_F1, *FIXED, *OTHERS, HONEST, HINDSIGHT]:
        values = scores.by_table[name]
        cells = [
            f"{scores.mean(values)[0]:.1f}",
            "" if name == VERDICT else shown(scores.gain(VERDICT, name)),
            shown(scores.mean(best - values), ""),
            f"{scores.share(values >= best - TOLERANCE):.0f} %",
            *(
                "" if name in (HONEST, HINDSIGHT) else f"{s.mean(s.by_table[name])[0]:.1f}"
                for s in (accuracy, f1)
            ),
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def groups(scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Kinds of tables, by what is known before the training."""
    known = scores.lines.groupby("table")[["samples", "classes", "rarest", "imbalance"]].first()
    known = known.loc[scores.by_table.index].astype(float)
    found = {
        "two classes": known.classes == 2,
        "three classes or more": known.classes > 2,
        "imbalance below 3": known.imbalance < 3,
        "imbalance 3 to 15": (known.imbalance >= 3) & (known.imbalance < 15),
        "imbalance 15 or more": known.imbalance >= 15,
        "rarest class below 30": known.rarest < 30,
        "rarest class 30 to 100": (known.rarest >= 30) & (known.rarest < 100),
        "rarest class 100 or more": known.rarest >= 100,
        "fewer than 500 samples": known.samples < 500,
        "500 samples or more": known.samples >= 500,
    }
    return {name: of.to_numpy() for name, of in found.items()}


def by_kind(scores: Scores) -> Iterator[str]:
    yield (
        "| tables | number (sources) | verdict minus never weighting | verdict minus tau 1 | "
        "regret of the verdict |"
    )
    yield "|---|--:|--:|--:|--:|"
    for name, among in groups(scores).items():
        if not among.any():
            continue
        gain, over_one = (
            shown(scores.gain(VERDICT, name, among))
            for name in ("never weighting", "always post-hoc, tau 1")
        )
        regret = scores.gain(HINDSIGHT, VERDICT, among)
        number = f"{among.sum()} ({len(set(scores.source[among]))})"
        yield f"| {name} | {number} | {gain} | {over_one} | {shown(regret, '')} |"


def sentences(scores: Scores) -> Iterator[str]:
    table = scores.by_table
    against = table[VERDICT] - table["never weighting"]
    lines, source = scores.lines, scores.lines["table"].map(source_of)

    def share(values: pd.Series) -> str:
        return f"{100 * values.astype(float).groupby(source).mean().mean():.0f} %"

    named, shown_to_help = (lines[CHOSEN_BY[name]] for name in (VERDICT, SHOWN))
    yield (
        f"- {len(table)} tables of {len(set(scores.source))} sources, {len(lines)} folds. In means "
        f"and shares a source counts once, however many tables it has."
    )
    yield f"- A gain is shown in {share(shown_to_help != PLAIN)} of the folds."
    yield (
        f"- The verdict names something in {share(named != PLAIN)} of the folds: "
        + ", ".join(f"{name} {share(named == name)}" for name in named.value_counts().index[:6])
        + "."
    )
    yield (
        f"- Following it is better than never weighting by more than 0.5 points on "
        f"{scores.share(against > TOLERANCE):.0f} % of the tables, worse by more than that on "
        f"{scores.share(against < -TOLERANCE):.0f} %."
    )
    above = lines["above the curve"] != ""
    yield f"- A row is shown to lie above the adjustment curve in {share(above)} of the folds."


def of_shuffled(folder: Path, half: str) -> Iterator[str]:
    """How often something is announced where there is nothing."""
    path = folder / f"{half}-shuffled.csv"
    if not path.exists():
        return
    lines = pd.read_csv(path, keep_default_na=False)
    for metric, words in METRICS.items():
        named = int((lines[metric] != "").sum())
        yield (
            f"- With shuffled classes, a gain in {words} is announced on {named} of {len(lines)} "
            f"tables ({100 * named / len(lines):.0f} %)."
        )


def halves(folder: Path) -> dict[str, pd.DataFrame]:
    """The lines of each half of which there are some."""
    return {half: load(folder, half) for half in HALVES if (folder / f"{half}.csv").exists()}


def report(folder: Path) -> dict[str, str]:
    """What the documentation includes, by file name: each half, and what was before."""
    found = {}
    if (folder / f"{BEFORE}.csv").exists():
        scores = Scores(load(folder, BEFORE))
        found["before.md"] = [sentences(scores), strategies(scores)]
    for half, lines in halves(folder).items():
        scores = Scores(lines)
        found[f"{half}.md"] = [
            sentences(scores), of_shuffled(folder, half), strategies(scores), by_kind(scores),
        ]  # fmt: skip
    return {name: joined("\n".join(block) for block in blocks) for name, blocks in found.items()}


def joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(filter(None, blocks)) + "\n"
