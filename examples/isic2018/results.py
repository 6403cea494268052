"""Finished runs as tables, the paper's numbers, and bootstrap samples of every metric."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from examples.isic2018.bootstrap import Name, resample
from examples.isic2018.data import Dataset
from examples.isic2018.training import RESULT, Row, Run

ROW = ["model", "optimizer", "loss", "weighting"]
METRICS = {
    "acc": "Acc",
    "bacc": "BAcc",
    "mean_precision": "mPR",
    "mean_f1": "mF1",
    "calibration_error": "ECE",
}
DRAWN = {"acc": "accuracy", "bacc": "balanced_accuracy"}
"""Metrics with intervals, and what sampleweights.compare calls them."""
PAPER_TABLES = {("flat", "adam"): 2, ("hierarchical", "adam"): 3,
                ("flat", "sgd"): 4, ("hierarchical", "sgd"): 5}  # fmt: skip


def paper_numbers() -> pd.DataFrame:
    """Tables 2 to 5 of the paper, indexed by row."""
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv")).set_index(ROW)


def fewer_splits(rows: Iterable[Row]) -> str:
    """A sentence about the rows that occur less often than others; empty if none does."""
    splits = Counter(rows)
    most = max(splits.values())
    fewer = [f"{', '.join(row)} ({n})" for row, n in splits.items() if n < most]
    if not fewer:
        return ""
    return (
        f"These rows have fewer than {most} splits, and their numbers do not compare with "
        f"those of the others: {'; '.join(fewer)}."
    )


@dataclass
class Results:
    """The finished ones of some runs."""

    runs: Sequence[Run]
    folder: Path
    datasets: Mapping[str, Dataset]
    """By model: they have the same samples and splits, and may have other feature maps."""
    decode: str = "product"
    """Of the hierarchical model: product, or greedy."""

    @property
    def dataset(self) -> Dataset:
        return next(iter(self.datasets.values()))

    @cached_property
    def paper(self) -> pd.DataFrame:
        """The paper's numbers, where they belong beside these: none beside those of digits."""
        return paper_numbers() if self.dataset.is_the_papers else paper_numbers()[:0]

    @cached_property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if (self.folder / run.name / RESULT).exists()]

    @cached_property
    def main(self) -> list[Run]:
        """The finished runs of the tables: all but those of other gammas."""
        return [run for run in self.finished if run.recipe == self.runs[0].recipe]

    @cached_property
    def incomplete(self) -> str:
        return fewer_splits(run.row for run in self.main)

    def metrics(self, part: str = "validation") -> pd.DataFrame:
        """A line per run: its row, split, gamma and metrics; empty if there is no such part."""
        rows = []
        for run in self.finished:
            result = json.loads((self.folder / run.name / RESULT).read_text())
            metrics = result["metrics"].get(f"{part}_greedy" if self.decode == "greedy" else part)
            if metrics is not None:
                row = {name: getattr(run, name) for name in (*ROW, "split")}
                rows.append(
                    {**row, "gamma": run.recipe.gamma, **metrics, "seconds": result["seconds"]}
                )
        return pd.DataFrame(rows)

    def summary(self, part: str = "validation") -> pd.DataFrame:
        """A line per row, averaged over the splits."""
        metrics = self.metrics(part)
        if metrics.empty:
            return metrics
        metrics = metrics[metrics["gamma"] == self.runs[0].recipe.gamma]
        return metrics.groupby(ROW, sort=False).mean().drop(columns=["split", "gamma"])

    def probabilities(self, run: Run) -> NDArray[np.float32]:
        with np.load(self.folder / run.name / "predictions.npz") as file:
            return file["validation_probabilities"]

    def predicted(self, run: Run) -> NDArray[np.int64]:
        with np.load(self.folder / run.name / "predictions.npz") as file:
            if self.decode == "greedy":
                return file["validation_greedy"]
            return file["validation_probabilities"].argmax(1)

    def curves(self, run: Run) -> pd.DataFrame:
        return pd.read_csv(self.folder / run.name / "curves.csv")

    def of_row(self, row: Row) -> list[Run]:
        """The runs of a row, one for each split."""
        return [run for run in self.main if run.row == row]

    def draws(
        self, number: int, predicted: Mapping[Name, NDArray[np.int64]]
    ) -> dict[Name, dict[str, NDArray[np.float64]]]:
        """Of predictions of the validation part of a split; whole lesions are drawn."""
        split = self.dataset.split[number]
        lesions = self.dataset.table["group" if "group" in self.dataset.table else "lesion"]
        return resample(
            self.dataset.target.numpy()[split.validation],
            pd.factorize(lesions.iloc[split.validation])[0],
            predicted,
            len(self.dataset.classes),
            split.sample_weight,
            seed=number,
        )

    @cached_property
    def bootstrap(self) -> dict[Row, dict[str, NDArray[np.float64]]]:
        """Of each row, values of acc and bacc when lesions are drawn, averaged over the splits.

        Whole lesions are drawn, the same ones for every row, so that differences are paired.
        """
        parts = []
        for number in dict.fromkeys(run.split for run in self.main):
            runs = {run.row: run for run in self.main if run.split == number}
            parts.append(self.draws(number, {row: self.predicted(r) for row, r in runs.items()}))
        return mean_draws(parts)


def mean_draws(
    parts: Sequence[Mapping[Row, Mapping[str, NDArray[np.float64]]]],
) -> dict[Row, dict[str, NDArray[np.float64]]]:
    """Of each row the mean over the splits that have it, under the names of `DRAWN`."""
    collected: dict[Row, list[Mapping[str, NDArray[np.float64]]]] = {}
    for part in parts:
        for row, draws in part.items():
            collected.setdefault(row, []).append(draws)
    return {
        row: {name: np.mean([d[metric] for d in draws], axis=0) for name, metric in DRAWN.items()}
        for row, draws in collected.items()
    }
