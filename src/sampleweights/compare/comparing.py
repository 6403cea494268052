"""One call: data in, a comparison of weightings out."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

import sampleweights
from sampleweights._checks import as_whole_number
from sampleweights.compare.checks import check_codes
from sampleweights.compare.checks.samples import equal_features
from sampleweights.compare.comparison import Comparison
from sampleweights.compare.inputs.arrays import not_finite
from sampleweights.compare.inputs.classes import ClassNames, categories
from sampleweights.compare.inputs.multilabel import read_target
from sampleweights.compare.label_comparison import LabelComparison
from sampleweights.compare.objective import Objective
from sampleweights.compare.statistics import (
    POSTHOC,
    LabelPrediction,
    Prediction,
    label_metrics_of_row,
    metrics_of_row,
)
from sampleweights.compare.task import WORDS
from sampleweights.compare.training.cluster import Cluster
from sampleweights.compare.training.entries import (
    Build,
    check,
    default_entries,
    is_adjustable,
    recipe_of,
)
from sampleweights.compare.training.head import Head
from sampleweights.compare.training.label_entries import (
    KNOWN_LABEL_ENTRIES,
    default_label_entries,
)
from sampleweights.compare.training.label_folds import folds_of_labels, label_counts
from sampleweights.compare.training.own_folds import Folds, is_own, own_folds
from sampleweights.compare.training.protocol import Plan, class_counts, folds_of
from sampleweights.compare.training.running import run_all

__all__ = ["compare"]


def compare(
    data: ArrayLike | Tensor | Callable[..., Any],
    target: ArrayLike | Tensor,
    *,
    groups: ArrayLike | None = None,
    objective: str | ArrayLike | None = None,
    entries: Mapping[str, Build] | None = None,
    folds: Any = 5,
    repeats: int = 1,
    num_epochs: int | None = None,
    seed: int = 0,
    class_names: ClassNames | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    ignore: Sequence[str] = (),
    progress: bool = True,
) -> Comparison:
    """Train every row on the same folds, and say which is worth its training.

    Each sample is predicted once per repeat, by a model that saw neither it nor its group. Post-hoc
    logit adjustment is read off every row that knows nothing of the class frequencies.

    Args:
        data: features ``(N, D)`` that do not change, as an encoder gives them: a head is trained
            on them. Or a training of your own,
            ``fit(criterion, train, validation, sampler=None, seed=0) -> logits``: ``train`` and
            ``validation`` are index arrays, ``sampler`` yields positions within ``train``, and the
            logits ``(len(validation), C)`` are those of the validation samples. It calls
            ``set_epoch(epoch)`` of the criterion, and of the sampler where there is one, itself.
        target: ``(N,)``, labels: integers, whole floats, booleans, text or whatever else can be
            sorted, as a list, an array, a tensor or a column of pandas. Text is sorted as text
            (0, 1, 10, 2), pandas' ordered categories as they are ordered, all else by value. The
            logits of a ``fit`` have the classes in this order; its integers must be 0 to C - 1.
            Of several labels for each sample zeros and ones ``(N, L)``, as ``MultiLabelBinarizer``
            gives them; the columns of a data frame are their names, and a ``fit`` returns logits
            ``(len(validation), L)``.
        groups: ``(N,)``, what must not be on both sides: patients, lesions, videos.
        objective: what the verdict and the strength of post-hoc adjustment are to maximise:
            ``"balanced_accuracy"`` (the default), ``"accuracy"``, ``"macro_f1"``,
            ``"average_precision"``, or a utility table ``(C, D)``: what decision d is worth for a
            sample of class c. Decisions may be more than the classes, such as "ask an expert"; each
            is the one with the highest expected utility under the softmax of the logits. Of a
            target ``(N, L)`` ``"average_precision"`` (the default), ``"macro_f1"`` or ``"auroc"``.
        entries: names and builders; the first is the baseline (`default_entries`, or for several
            labels `default_label_entries`, whose ``class_counts`` are ``(L, 2)``).
        folds: how many, at least 2. Or folds of your own: an array ``(N,)`` with the fold of each
            sample, -1 if it is only trained on; or a splitter of scikit-learn, such as
            ``LeaveOneGroupOut()`` or ``TimeSeriesSplit(5)``. The validation part of a single fold
            is divided among five models. Samples that no fold validates are in no metric.
        repeats: of the whole, on other folds and with other seeds; more narrow the intervals. With
            folds of your own it is 1: give a splitter that repeats, as RepeatedStratifiedKFold.
        num_epochs: of each training. A ``fit`` of your own needs it, since curricula depend on
            it; the head has a number of its own.
        seed: of folds, trainings and intervals.
        class_names: a mapping from label to name, such as a model's ``id2label``, which may name
            further labels; or a sequence: of integers the C names, the first for the lowest label;
            of labels that are text the labels themselves, in the order that is wanted.
        cache: a folder in which runs are kept as they finish. A comparison that was stopped goes
            on from there, and a changed input never reads an old run. Where an input cannot be
            told from a changed one, such as an open file, a warning says so and nothing is kept.
        workers: processes, or threads where heads are small enough to be trained together; one per
            core unless given, one on a GPU. The result does not depend on their number.
        ignore: codes of checks that are not to be told, such as ``["small-classes"]``; those
            that were found are ``comparison.checks``.
        progress: show a bar, and each row as it is finished.

    Returns:
        The answer; ``print(comparison)`` shows it.

    Raises:
        ValueError: an argument has a wrong shape or value; a class has fewer samples or groups
            than there are folds; ``fit`` returns logits of another shape, or that are not finite.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> features, target = load_iris(return_X_y=True)
        >>> rows = {name: default_entries()[name] for name in ("no weighting", "OHEM")}
        >>> comparison = compare(features, target, entries=rows, num_epochs=4, progress=False)
        >>> comparison.rows[:3]
        ['no weighting', 'no weighting + post-hoc', 'no weighting + post-hoc at no loss']
    """
    start = time.perf_counter()
    index, names = read_target(target, class_names, consecutive=callable(data))
    kind = Comparison if index.ndim == 1 else LabelComparison
    group, group_names = (None, []) if groups is None else categories("groups", groups)
    if group is not None and len(group) != len(index):
        raise ValueError(
            f"groups must have shape ({len(index)},), a group for each sample of target, got "
            f"{group.shape}"
        )
    repeats = as_whole_number("repeats", repeats, 1)
    if not is_own(folds):
        folds = as_whole_number("folds", folds, 2)
    elif repeats > 1:
        raise ValueError(
            f"repeats must be 1 with folds of your own, since each repeat has other folds, got "
            f"{repeats}: give a splitter that repeats, such as RepeatedStratifiedKFold"
        )
    if num_epochs is not None:
        num_epochs = as_whole_number("num_epochs", num_epochs, 1)
    objective = kind.task.objectives[0] if objective is None else objective
    goal = Objective.of(objective, len(names), kind.task)
    if kind is Comparison:
        defaults, known = default_entries(), None
    else:
        defaults, known = default_label_entries(), KNOWN_LABEL_ENTRIES
    entries = dict(defaults if entries is None else entries)
    if not entries:
        raise ValueError("entries must have at least one row, got none")
    for name in entries:
        if not isinstance(name, str):
            raise TypeError(f"entries must have names that are strings, got {name!r}")
        if POSTHOC in name:
            raise ValueError(
                f"entries must have names without {POSTHOC!r}, which is for rows that are read off "
                f"others, got {name!r}"
            )
    ignore = check_codes(ignore)
    fit: Callable[..., Any]
    same_features = device = None
    trained = "a fit of one's own"
    if callable(data):
        if num_epochs is None:
            raise ValueError(
                "num_epochs must be given with a fit of your own: curricula depend on it"
            )
        fit = data
    else:
        fit = Head(_features(data, len(index)), index, len(names), num_epochs)
        num_epochs, device = fit.num_epochs, fit.device
        same_features = equal_features(fit.features)
        trained = f"a head on {fit.features.shape[1]} features"

    deal: Callable[..., NDArray[np.int64]] = folds_of_labels if index.ndim == 2 else folds_of

    def count(target: NDArray[np.int64], fold: NDArray[np.int64]) -> NDArray[np.int64]:
        if target.ndim == 2:
            return label_counts(target, fold)
        return class_counts(target, fold, len(names))

    if is_own(folds):
        split = own_folds(
            folds,
            getattr(fit, "features", index),
            index,
            group,
            group_names,
            names,
            seed,
            deal=deal,
            count=count,
        )
    else:
        dealt = deal(index, group, names, folds, repeats, seed)
        split = Folds(dealt, None, count(index, dealt), f"{folds} folds")
    counts, repeats = split.counts, len(split.fold)
    predicted = np.flatnonzero(split.fold[0] >= 0)
    fold, truth = split.fold[:, predicted], index[predicted]
    cluster = Cluster.chosen(workers)
    on_gpu = torch.cuda.is_available()
    workers = (1 if on_gpu else torch.get_num_threads()) if workers is None else workers
    workers = as_whole_number("workers", workers, 1)
    folder = None if cache is None else Path(cache)
    plan = Plan(fit, entries, index, split.fold, counts, num_epochs, seed, folder, split.left_out)
    first, trained_on = torch.from_numpy(counts[0, 0]), torch.from_numpy(index[plan.parts(0, 0)[0]])
    for name, entry in entries.items():
        check(name, entry, first, num_epochs, trained_on, device)
    adjustable = [n for n, entry in entries.items() if is_adjustable(n, entry, first, num_epochs)]
    recipes = {n: recipe_of(n, entry, first, num_epochs, known) for n, entry in entries.items()}

    def tell(name: str, outcomes: Sequence[Any]) -> str:
        logits, both = _assemble(outcomes, fold, len(names)), kind.task.shown  # quickly
        if kind is Comparison:
            found = metrics_of_row(Prediction.of(logits), truth, len(names), metrics=both)
        else:
            found = label_metrics_of_row(LabelPrediction(logits), truth == 1, metrics=both)
        shown = ", ".join(f"{WORDS[metric]} {found[metric]:.1f}" for metric in both)
        return f"{name}: {shown}"

    outcomes = run_all(plan, workers, progress, tell, None if cluster is None else cluster.outcomes)
    never_told = [n for n, runs in outcomes.items() if not all(run.told_epoch for run in runs)]
    seconds = sum(run.seconds for runs in outcomes.values() for run in runs)
    return kind(
        {name: _assemble(runs, fold, len(names)) for name, runs in outcomes.items()},
        adjustable,
        truth, None if group is None else group[predicted], fold, counts, names, seed, [],
        {
            "samples": f"{len(index):,} {kind.task.of} {len(names)} {kind.task.many}"
            + f", {len(truth):,} of them validated" * (len(truth) < len(index)),
            "protocol": f"{split.words}, {repeats} repeat{'s' * (repeats > 1)}, seed {seed}",
            "training": f"{trained}, {num_epochs} epochs",
            "objective": goal.words,
            "versions": f"sampleweights {sampleweights.__version__}, torch {torch.__version__}, "
            f"scikit-learn {importlib.metadata.version('scikit-learn')}, "
            f"Python {platform.python_version()}",
            "hardware": cluster.words if cluster is not None
            else torch.cuda.get_device_name() if on_gpu
            else f"{platform.machine()} CPU, {workers} core{'s' * (workers > 1)}",
            "time": f"{seconds:.0f} s of training, {time.perf_counter() - start:.0f} s in all",
        },
        objective=goal, recipes=recipes, num_epochs=num_epochs,
        train_recall={
            name: np.stack([run.train_recall for run in runs]).reshape(counts.shape[:3])
            for name, runs in outcomes.items()
        },
        never_told=never_told, same_features=same_features, ignore=ignore,
        positions=predicted, given_counts=count(index, np.ones_like(split.fold[:1]))[0, 0].tolist(),
    )  # fmt: skip


def _features(data: Any, size: int) -> NDArray[np.float32]:
    # numpy has no bfloat16
    values = np.asarray(data.detach().float().cpu() if isinstance(data, Tensor) else data)
    if values.ndim != 2 or len(values) != size or not values.shape[1]:
        of_lists = values.ndim == 1 and values.size and np.ndim(values[0]) == 1
        raise ValueError(
            f"data must be features of shape ({size}, D), a row for each sample of target, or a "
            f"fit function, got shape {values.shape}" + ": pass np.stack(data)" * bool(of_lists)
        )
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"data must be numbers, got dtype {values.dtype}: encode texts and lists, or save the "
            f"table, for python -m sampleweights compare table.csv --target COLUMN, which does so"
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    count, row, column = not_finite(values)
    if count:
        raise ValueError(
            f"data must be finite, got {values[row, column]} in row {row}, column {column}"
        )
    return values


def _assemble(
    outcomes: Sequence[Any], fold: NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """Logits (repeats, N, C) from those of the runs."""
    logits = np.empty((*fold.shape, num_classes), dtype=np.float32)
    for outcome in outcomes:
        run = outcome.run
        logits[run.repeat, fold[run.repeat] == run.fold] = outcome.logits
    return logits
