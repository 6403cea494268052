"""Finished runs as tables, the paper's numbers, and bootstrap samples of every metric."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
PAPER_TABLES = {("flat", "adam"): 2, ("hierarchical", "adam"): 3,
                ("flat", "sgd"): 4, ("hierarchical", "sgd"): 5}  # fmt: skip


def paper_numbers() -> pd.DataFrame:
    """Tables 2 to 5 of the paper, indexed by row."""
    return pd.read_csv(Path(__file__).with_name("paper_tables.csv")).set_index(ROW)


@dataclass
class Results:
    """The finished ones of some runs."""

    runs: Sequence[Run]
    folder: Path
    datasets: Mapping[str, Dataset]
    """By model: they have the same samples and splits, and may have other feature maps."""
    decode: str = "product"
    """Of the hierarchical model: product, or greedy."""
    resamples: int = 1000

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

    @cached_property
    def bootstrap(self) -> dict[Row, dict[str, NDArray[np.float64]]]:
        """Of each row, ``resamples`` values of acc and bacc, averaged over the splits.

        Whole lesions are drawn, the same ones for every row, so that differences are paired.
        """
        draws: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}  # lesions, times
        collected: dict[Row, list[dict[str, NDArray[np.float64]]]] = {}
        target = self.dataset.target.numpy()
        lesions = self.dataset.table["group" if "group" in self.dataset.table else "lesion"]
        for run in self.main:
            split = self.dataset.split[run.split]
            if run.split not in draws:
                lesion, names = pd.factorize(lesions.iloc[split.validation])
                generator = np.random.default_rng(run.split)
                size = len(names)
                times = generator.multinomial(size, np.full(size, 1 / size), self.resamples)
                draws[run.split] = lesion, times.astype(float)
            sample = metric_samples(
                self.predicted(run), target[split.validation], split.sample_weight,
                *draws[run.split],
            )  # fmt: skip
            collected.setdefault(run.row, []).append(sample)
        return {
            row: {name: np.mean([s[name] for s in samples], axis=0) for name in samples[0]}
            for row, samples in collected.items()
        }


def metric_samples(
    predicted: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.float64],
    lesion: NDArray[np.int64], drawn: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """Accuracy and balanced accuracy, in percent, under each draw (B, lesions) of lesions.

    A class of which nothing was drawn is left out of the mean.
    """
    shape = (drawn.shape[1], int(target.max()) + 1)
    total, right = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (lesion, target), weight)
    np.add.at(right, (lesion, target), weight * (predicted == target))
    total, right = drawn @ total, drawn @ right
    with np.errstate(invalid="ignore"):
        recall = right / total
    return {"acc": 100 * right.sum(1) / total.sum(1), "bacc": 100 * np.nanmean(recall, axis=1)}
