"""One outer fold of one table: compare on its training part, follow the verdict, and measure.

What is trained is kept as logits, so that another verdict can be judged without training again.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, train_test_split

from examples.tables.reading import Table
from sampleweights.compare import Comparison, Head, compare, default_entries
from sampleweights.compare.report.judgement import Judgement
from sampleweights.compare.statistics import POSTHOC, POSTHOC_FREE, Prediction, metrics_of_row
from sampleweights.compare.training.entries import build
from sampleweights.compare.training.head import Training
from sampleweights.margins import LogitAdjustment

__all__ = ["FOLDS", "METRICS", "Trial", "judged", "run", "shuffled", "thinned"]

FOLDS = 5
"""Of the outer cross-validation, and at most of the inner one."""
METRICS = ["balanced_accuracy", "accuracy", "macro_f1"]
MOST_SAMPLES = 2000
"""Larger tables are thinned to so many, stratified by class, so that all are done in an hour."""
STEPS = 1000
"""Of each training about so many, half of what the head takes by default."""
BOOSTING = {"gradient boosting": None, "gradient boosting, balanced": "balanced"}
TAU_1 = "no weighting + post-hoc, tau 1"
Index = NDArray[np.int64]
Logits = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Trial:
    """What the trainings of one outer fold gave."""

    comparison: Comparison
    """On the training part."""
    test_logits: Mapping[str, Logits]
    """Of each row that was trained on the whole training part, and of boosting: (n, C)."""
    test_target: Index
    train_counts: Index
    """(C,), of the whole training part."""

    def save(self, path: Path) -> None:
        found, given = self.comparison, [*self.test_logits]
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez_compressed(
                file, names=[*found.logits], adjustable=found.adjustable, test_names=given,
                logits=np.stack([*found.logits.values()]), target=found.target, fold=found.fold,
                counts=found.counts, num_epochs=found.num_epochs or 0,
                train_recall=np.stack([*found.train_recall.values()]),
                test_logits=np.stack([*self.test_logits.values()]),
                test_target=self.test_target, train_counts=self.train_counts,
            )  # fmt: skip
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Trial:
        with np.load(path) as file:
            names = file["names"].tolist()
            comparison = Comparison(
                dict(zip(names, file["logits"], strict=True)), file["adjustable"].tolist(),
                file["target"], None, file["fold"], file["counts"],
                [str(c) for c in range(file["counts"].shape[2])],
                num_epochs=int(file["num_epochs"]),
                train_recall=dict(zip(names, file["train_recall"], strict=True)),
            )  # fmt: skip
            logits = dict(zip(file["test_names"].tolist(), file["test_logits"], strict=True))
            return cls(comparison, logits, file["test_target"], file["train_counts"])


def thinned(table: Table) -> Table:
    """At most ``MOST_SAMPLES`` of its samples."""
    if len(table.target) <= MOST_SAMPLES:
        return table
    keep, _ = train_test_split(
        np.arange(len(table.target)), train_size=MOST_SAMPLES, stratify=table.target, random_state=0
    )
    return Table(table.name, table.features[keep], table.target[keep])


def run(table: Table, fold: int) -> Trial:
    """Train everything of one outer fold of a table, which is thinned already."""
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    train, test = list(splitter.split(table.target, table.target))[fold]
    comparison = compared(table.features[train], table.target[train])
    assert comparison.num_epochs is not None
    logits = trained(table, train, test, comparison.num_epochs)
    for name, weight in BOOSTING.items():
        model = HistGradientBoostingClassifier(class_weight=weight, random_state=0)
        model.fit(table.features[train], table.target[train])
        probability = model.predict_proba(table.features[test])
        logits[name] = np.log(np.maximum(probability, 1e-30)).astype(np.float32)
    return Trial(comparison, logits, table.target[test], np.bincount(table.target[train]))


def compared(features: NDArray[np.float32], target: Index) -> Comparison:
    """What a user has who calls ``compare`` on the training part."""
    folds = min(FOLDS, int(np.bincount(target).min()))
    head = Head(features, target, 2)
    epochs = min(head.num_epochs, max(STEPS * head.batch_size // len(target), 25))
    return compare(features, target, folds=folds, num_epochs=epochs, workers=1, progress=False)


def trained(table: Table, train: Index, test: Index, num_epochs: int) -> dict[str, Logits]:
    """Each row on the whole training part, all in one go: logits of the test part."""
    counts = torch.from_numpy(np.bincount(table.target[train]))
    head = Head(table.features, table.target, len(counts), num_epochs)
    trainings = []
    for seed, (name, entry) in enumerate(default_entries().items()):
        criterion, make_sampler = build(name, entry, counts, num_epochs)
        sampler = make_sampler and make_sampler(torch.from_numpy(table.target[train]), seed=seed)
        trainings.append(Training(criterion, train, test, sampler, seed))
    found = head.together(trainings)
    return {n: one.logits for n, one in zip(default_entries(), found, strict=True)}


def judged(trial: Trial) -> dict[str, Any]:
    """The verdicts, and the metrics on the test part of each row that may be followed.

    Keys of metrics are the name of the row and of the metric, between them ``: ``. The strength of
    an adjustment is the one that the code of the verdict has; by objective, since it depends on it.
    """
    found: dict[str, Any] = {}
    for metric in METRICS:
        comparison = dataclasses.replace(trial.comparison, objective=metric)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            judgement = Judgement(comparison)
        found[f"verdict: {metric}"] = judgement.best or comparison.baseline
        if metric == "balanced_accuracy":
            found["verdict: choice"] = judgement.best or judgement.unproven or comparison.baseline
            found["verdict: at no loss"] = judgement.at_no_loss or comparison.baseline
            found["above the curve"] = ";".join(row for row, _ in judgement.above_curve)
            found["not fitted"] = int(judgement.not_fitted)
            found["highest"] = comparison.ranking[0]
            moved = {TAU_1: (comparison.baseline, 1.0)}
        else:
            moved = {}
        for row in comparison.taus:
            if row.endswith(POSTHOC_FREE) and metric != "balanced_accuracy":
                continue
            name = row if metric == "balanced_accuracy" else f"{row}, {metric}"
            source = row.removesuffix(POSTHOC_FREE).removesuffix(POSTHOC)
            moved[name] = source, comparison.tau(row)
        for name, (source, tau) in moved.items():
            if metric != "accuracy":
                found.update(measured(trial, name, source, tau))
    for name in trial.test_logits:
        found.update(measured(trial, name, name, 0.0))
    return found


def measured(trial: Trial, name: str, source: str, tau: float) -> dict[str, float]:
    counts = torch.from_numpy(trial.train_counts)
    logits = torch.from_numpy(trial.test_logits[source])
    if tau:
        logits = LogitAdjustment(counts, tau=tau).posthoc(logits)
    metrics = metrics_of_row(
        Prediction.of(logits.numpy()[None]), trial.test_target, len(counts), metrics=METRICS
    )
    return {f"{name}: {metric}": round(float(metrics[metric]), 2) for metric in METRICS}


def shuffled(table: Table) -> dict[str, Any]:
    """What the verdicts say where the classes have nothing to do with the features."""
    target = np.random.default_rng(0).permutation(table.target)
    comparison = compared(table.features, target)
    found: dict[str, Any] = {}
    for metric in METRICS:
        verdict = dataclasses.replace(comparison, objective=metric).verdict
        found[metric] = verdict.row or ""
        if metric == "balanced_accuracy":
            found["at no loss"] = verdict.row_at_no_loss or ""
    return found
