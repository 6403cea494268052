"""What each weighting gained over none, as a file that ``python -m examples.advice`` reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from examples.isic2018.bootstrap import interval
from examples.isic2018.figures import WEIGHTING_NAMES
from examples.isic2018.recipes import POSTHOC
from examples.isic2018.results import DRAWN, Results
from examples.isic2018.training import MODEL, predict, restored
from sampleweights import LogitAdjustment
from sampleweights.compare.statistics import Prediction, metrics_of_row

TAU = 0.5
"""The other strength of post-hoc adjustment: between none and all of it."""
NAMES = {**WEIGHTING_NAMES, "none": "no weights", "none_posthoc": "post-hoc, tau 1"}
PLAIN, HALF = NAMES["none"], f"post-hoc, tau {TAU}"


def gains(results: Results) -> dict[str, dict[str, list[float]]]:
    """By weighting of the first model, optimiser and loss: balanced accuracy and accuracy, and
    their gains over no weights, each as value, low and high; empty without a run of no weights."""
    of = results.main[0].row[:3]
    target, classes = results.dataset.target.numpy(), results.dataset.classes
    found: dict[str, list[dict[str, Any]]] = {}
    for number, split in results.dataset.split.items():
        runs = [run for run in results.main if run.row[:3] == of and run.split == number]
        predicted = {NAMES[run.weighting]: results.predicted(run) for run in runs}
        plain = [run for run in runs if run.weighting == "none"]
        if not plain:
            return {}
        counts = np.bincount(target[split.train], minlength=len(classes))
        logits = torch.from_numpy(results.probabilities(plain[0])).log()
        adjusted = LogitAdjustment(counts, tau=TAU).posthoc(logits)
        predicted[HALF] = adjusted.argmax(1).numpy()
        for name, draws in results.draws(number, predicted).items():
            values = metrics_of_row(
                Prediction(predicted[name][None], np.ones((1, len(split.validation)))),
                target[split.validation], len(classes), split.sample_weight, DRAWN.values(),
            )  # fmt: skip
            found.setdefault(name, []).append(
                {m: np.append(values[m], draws[m]) for m in DRAWN.values()}
            )
    # the first is the value, the others are its draws
    mean = {
        name: {m: np.mean([split[m] for split in splits], axis=0) for m in DRAWN.values()}
        for name, splits in found.items()
        if len(splits) == len(results.dataset.split)
    }
    return {
        name: {
            **{metric: shown(of_row[metric]) for metric in of_row},
            **{f"{m} gain": shown(of_row[m] - mean[PLAIN][m]) for m in of_row if name != PLAIN},
        }
        for name, of_row in mean.items()
    }


def shown(values: Any) -> list[float]:
    found = interval(float(values[0]), values[1:])
    return [round(number, 2) for number in (found.value, found.low, found.high)]


def train_recall(results: Results) -> dict[str, dict[str, float]]:
    """By weighting, the recall of each class on the training parts whose models are kept, in
    percent: of the same rows as ``gains``."""
    dataset, of = results.dataset, results.main[0].row[:3]
    found: dict[str, list[Any]] = {}
    for run in results.main:
        folder = results.folder / run.name
        if run.row[:3] != of or run.weighting in POSTHOC or not (folder / MODEL).exists():
            continue
        rows = dataset.split[run.split].train
        experiment = restored(run, dataset, folder)
        probabilities, _ = predict(
            experiment.encoder, experiment.model, dataset.inputs, rows, run.recipe.half
        )
        target = dataset.target.numpy()[rows]
        right = target == probabilities.argmax(1)
        classes = range(len(dataset.classes))
        recall = [100 * right[target == c].mean() for c in classes]
        found.setdefault(NAMES[run.weighting], []).append(recall)
    return {
        name: dict(zip(dataset.classes, np.mean(recalls, axis=0).round(1).tolist(), strict=True))
        for name, recalls in found.items()
    }


def summary(results: Results, command: str, with_recall: bool) -> dict[str, Any]:
    """What ``gains.json`` holds."""
    dataset, split = results.dataset, results.dataset.split[0]
    counts = dataset.target[split.train].bincount(minlength=len(dataset.classes)).tolist()
    return {
        "command": command,
        "class_counts": dict(zip(dataset.classes, counts, strict=True)),
        "train_recall": train_recall(results) if with_recall else {},
        "rows": gains(results),
    }


def sentence(found: dict[str, Any]) -> str:
    """Whether the model without weights has fitted the rarest class, and what that means."""
    rarest, count = min(found["class_counts"].items(), key=lambda pair: pair[1])
    recall = found["train_recall"].get(PLAIN, {}).get(rarest)
    if recall is None or HALF not in found["rows"]:
        return ""
    changes = " and ".join(
        f"its {metric.replace('_', ' ')} changes by {found['rows'][HALF][f'{metric} gain'][0]:+.1f}"
        for metric in DRAWN.values()
    )
    advice = (
        "It has fitted this class, so try post-hoc adjustment before weights in training."
        if recall > 50
        else "It has not fitted this class: weights in training, or a longer one, can do more than "
        "adjustment."
    )
    return (
        f"Without weights the model recognises {recall:.0f} % of the {count} training images of "
        f"the rarest class, {rarest}. {advice} Adjusted post hoc with tau {TAU}, "
        f"{changes}."
    )
