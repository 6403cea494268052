"""What `report` keeps of its runs beside its page, and the tables and claims that follow from it.

metrics.csv has the metrics of every run, predicted.npz the classes that it predicts for the
validation part, and labels.npz what they are: small enough for a repository, and no images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from examples.isic2018.bootstrap import resample
from examples.isic2018.decisions import LABELS
from examples.isic2018.official import DataError
from examples.isic2018.outputs import output
from examples.isic2018.recipes import MODELS
from examples.isic2018.results import ROW, Results, fewer_splits, mean_draws, paper_numbers
from examples.isic2018.training import Row

METRICS_FILE, PREDICTED = "metrics.csv", "predicted.npz"
KEPT = Path(__file__).parents[2] / "docs" / "results" / "fast-vgg16"


def keep(results: Results, folder: Path) -> None:
    """Write the metrics and the predicted classes of the runs of the tables."""
    metrics = results.metrics()
    metrics = metrics[metrics["gamma"] == results.runs[0].recipe.gamma].drop(columns="gamma")
    with output(folder / METRICS_FILE) as file:
        metrics.to_csv(file, index=False, float_format="%.6g")
    predicted = {
        "-".join([*run.row, str(run.split)]): results.predicted(run).astype(np.uint8)
        for run in results.main
    }
    with output(folder / PREDICTED) as file:
        np.savez_compressed(file, **predicted)  # type: ignore[arg-type]


@dataclass
class Kept:
    """As `Results`, of what was kept in a folder."""

    folder: Path
    models: Sequence[str] = (*MODELS,)
    """Those whose rows count."""

    def __post_init__(self) -> None:
        for name in (METRICS_FILE, PREDICTED, LABELS):
            if not (self.folder / name).exists():
                raise DataError(f"{self.folder} must hold {name}, which `report` writes")

    @cached_property
    def paper(self) -> pd.DataFrame:
        return paper_numbers()

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A line per row and split."""
        found = pd.read_csv(self.folder / METRICS_FILE)
        found = found[found["model"].isin(self.models)]
        if found.empty:
            raise DataError(f"{self.folder} has no row of --models {' '.join(self.models)}")
        return found

    @property
    def incomplete(self) -> str:
        """As `Results.incomplete`."""
        return fewer_splits(self.metrics[ROW].itertuples(index=False, name=None))

    def summary(self) -> pd.DataFrame:
        """A line per row, averaged over the splits."""
        return self.metrics.groupby(ROW, sort=False).mean().drop(columns="split")

    @cached_property
    def bootstrap(self) -> dict[Row, dict[str, NDArray[np.float64]]]:
        """The draws of `Results.bootstrap`."""
        by_split: dict[int, dict[Row, NDArray[np.int64]]] = {}
        with np.load(self.folder / PREDICTED) as file:
            for name in file.files:
                model, optimizer, loss, weighting, split = name.split("-")
                if model in self.models:
                    row = model, optimizer, loss, weighting
                    by_split.setdefault(int(split), {})[row] = file[name].astype(np.int64)
        parts = []
        with np.load(self.folder / LABELS) as labels:
            for split, predicted in by_split.items():
                target = labels[f"target{split}"].astype(np.int64)
                group = pd.factorize(labels[f"group{split}"])[0]
                classes = len(labels[f"counts{split}"])
                weight = np.ones(len(target))
                parts.append(resample(target, group, predicted, classes, weight, seed=split))
        return mean_draws(parts)
