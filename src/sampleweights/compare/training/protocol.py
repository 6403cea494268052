"""Folds and runs: every row is trained on the same folds, and every run is kept when it ends."""

from __future__ import annotations

import copy
import hashlib
import os
import platform
import re
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sampleweights.compare.training.entries import Build, build, waits_for_epoch
from sampleweights.compare.training.fingerprint import CannotTell, fingerprint
from sampleweights.compare.training.fitted import Fitted, FittedLabels
from sampleweights.compare.training.origins import own_sources
from sampleweights.weighters.base import EpochWeighter

__all__ = [
    "Outcome", "Plan", "Run", "built_for", "checked", "class_counts", "execute", "folds_of", "keep",
    "kept", "one_thread", "paths_of", "seed_of",
]  # fmt: skip

Fit = Callable[..., Any]


def folds_of(
    target: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    class_names: Sequence[str],
    folds: int,
    repeats: int,
    seed: int,
) -> NDArray[np.int64]:
    """The fold (repeats, N) in which each sample is predicted; groups stay together.

    Raises:
        ValueError: a class has fewer samples, or groups, than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # takes a second

    what = "samples" if groups is None else "groups"
    for index, name in enumerate(class_names):
        members = np.flatnonzero(target == index)
        size = len(members) if groups is None else len(np.unique(groups[members]))
        if size < folds:
            raise ValueError(
                f"every class must have at least as many {what} as there are folds ({folds}), "
                f"class {name!r} has {size}: give fewer folds, or leave the class out"
            )
    fold = np.empty((repeats, len(target)), dtype=np.int64)
    for repeat in range(repeats):
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        splitter = kind(folds, shuffle=True, random_state=seed + repeat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of small classes, which are refused here
            for number, (_, validation) in enumerate(splitter.split(target, target, groups)):
                fold[repeat, validation] = number
        counts = class_counts(target, fold[repeat : repeat + 1], len(class_names))[0]
        for number, absent in zip(*np.nonzero(counts == 0), strict=True):
            raise ValueError(
                f"all samples of class {class_names[absent]!r} fall into fold {number}, so that "
                f"there is none to train on: its groups are too few or too uneven; give fewer "
                f"folds or another seed"
            )
    return fold


def class_counts(
    target: NDArray[np.int64], fold: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Samples of each class (repeats, folds, C) in the training part of each fold."""
    counts = []
    for of_repeat in fold:
        total = np.bincount(target, minlength=num_classes)
        inside = [
            np.bincount(target[of_repeat == k], minlength=num_classes)
            for k in range(int(of_repeat.max()) + 1)
        ]
        counts.append([total - part for part in inside])
    return np.array(counts)


@dataclass(frozen=True)
class Plan:
    """What the runs have in common."""

    fit: Fit
    entries: Mapping[str, Build]
    target: NDArray[np.int64]
    """(N,), or of labels (N, L)."""
    fold: NDArray[np.int64]
    """The fold (repeats, N) in which each sample is predicted; -1 of those that never are."""
    counts: NDArray[np.int64]
    """Of each class (repeats, folds, C) in the training part of each fold."""
    num_epochs: int
    seed: int
    folder: Path | None
    """Where finished runs are kept."""
    left_out: NDArray[np.bool_] | None = None
    """Who (repeats, folds, N) is neither trained on nor predicted; None: nobody."""

    @property
    def num_classes(self) -> int:
        return int(self.counts.shape[2])  # of labels (repeats, folds, L, 2)

    def parts(self, repeat: int, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the training and of the validation part."""
        inside = self.fold[repeat] == fold
        outside = ~inside
        if self.left_out is not None:
            outside &= ~self.left_out[repeat, fold]
        return np.flatnonzero(outside), np.flatnonzero(inside)


@dataclass(frozen=True)
class Run:
    """A row on one fold."""

    name: str
    repeat: int
    fold: int


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    run: Run
    logits: NDArray[np.float32]
    told_epoch: bool
    """Whether ``set_epoch`` was called, or does not matter."""
    seconds: float
    train_recall: NDArray[np.float64]
    """Of each class (C,) in percent, in the last pass over the training part; NaN where unknown."""


class Listener:
    """In the place of a criterion's ``set_epoch``: notes that it, or that of a copy, was called."""

    def __init__(self, set_epoch: Callable[..., Any], heard: list[bool]) -> None:
        self.set_epoch, self.heard = set_epoch, heard

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.heard.append(True)
        return self.set_epoch(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Listener:
        return Listener(copy.deepcopy(self.set_epoch, memo), self.heard)


def seed_of(plan: Plan, run: Run) -> int:
    """Each run has a seed of its own, also where two entries are the same criterion.

    With a common one, two trainings would differ by less than chance makes them differ.
    """
    text = f"{plan.seed}/{run.repeat}/{run.fold}/{run.name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def built_for(plan: Plan, run: Run) -> tuple[nn.Module, Any, NDArray[np.int64], NDArray[np.int64]]:
    """Criterion, make_sampler, training and validation rows."""
    train, validation = plan.parts(run.repeat, run.fold)
    counts = torch.from_numpy(plan.counts[run.repeat, run.fold])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(plan, run))
        criterion, make_sampler = build(run.name, plan.entries[run.name], counts, plan.num_epochs)
    return criterion, make_sampler, train, validation


def paths_of(plan: Plan, runs: Sequence[Run]) -> dict[Run, Path | None]:
    """Where each run is kept; None where it is not: nothing is digested then."""
    if plan.folder is None:
        return dict.fromkeys(runs)
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        common = fingerprint(
            own_sources(), platform.python_version(), torch.__version__, np.__version__,
            str(torch.get_default_dtype()), plan.fit, plan.target, plan.fold, plan.left_out,
            plan.num_classes, plan.num_epochs,
        )  # fmt: skip
    except CannotTell as error:
        warn_not_kept("no run is kept", error)
        return dict.fromkeys(runs)
    refused: dict[str, CannotTell] = {}

    def path(run: Run, folder: Path) -> Path | None:
        try:
            return path_of(plan, run, folder, common)
        except CannotTell as error:
            refused[run.name] = error
            return None

    paths = {run: path(run, plan.folder) for run in runs}
    for name, reason in refused.items():
        warn_not_kept(f"no run of the row {name!r} is kept", reason)
    return paths


def warn_not_kept(what: str, error: CannotTell) -> None:
    warnings.warn(
        f"cache: {what}, since {error}: a changed one could not be told from this one, and would "
        f"read an old run. Create it inside of the function that uses it",
        stacklevel=5,
    )


def path_of(plan: Plan, run: Run, folder: Path, common: str) -> Path:
    """A name that differs for any other input."""
    criterion, make_sampler, *_ = built_for(plan, run)
    digest = fingerprint(common, criterion, make_sampler, seed_of(plan, run))[:16]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", run.name).strip("-")[:60]
    return folder / f"{readable}-{run.repeat}-{run.fold}-{digest}.npz"


def execute(plan: Plan, run: Run, path: Path | None) -> Outcome:
    """Train and predict on one thread, so that processes do not change a sum; then keep it."""
    if (outcome := kept(run, path)) is not None:  # another process was here meanwhile
        return outcome
    criterion, make_sampler, train, validation = built_for(plan, run)
    seed = seed_of(plan, run)
    sampler = make_sampler and make_sampler(torch.from_numpy(plan.target[train]), seed=seed)
    heard: list[bool] = []
    if callable(getattr(criterion, "set_epoch", None)):
        criterion.set_epoch = Listener(criterion.set_epoch, heard)  # type: ignore[arg-type, assignment]
    watch = Fitted if plan.target.ndim == 1 else FittedLabels
    fitted = watch(criterion, len(train), plan.num_classes)
    start = time.perf_counter()
    try:
        with one_thread():
            result = plan.fit(criterion, train, validation, sampler=sampler, seed=seed)
    except Exception as error:
        raise RuntimeError(
            f"fit failed in row {run.name!r}, repeat {run.repeat}, fold {run.fold}, with "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        fitted.remove()  # the criterion may be that of other runs as well
    logits = checked(plan, run, result, len(validation))
    told = (
        bool(heard)
        or not waits_for_epoch(criterion)
        or any(
            isinstance(module, EpochWeighter) and module.epoch > 0 for module in criterion.modules()
        )
    )
    outcome = Outcome(run, logits, told, time.perf_counter() - start, fitted.recall())
    keep(outcome, path)
    return outcome


def checked(plan: Plan, run: Run, result: Any, size: int) -> NDArray[np.float32]:
    """What ``fit`` returned, as logits of its validation samples."""
    result = result.detach().float().cpu() if isinstance(result, torch.Tensor) else result
    logits = np.asarray(result, dtype=np.float32)
    shape = (size, plan.num_classes)
    if logits.shape != shape or not np.isfinite(logits).all():
        found = f"shape {logits.shape}" if logits.shape != shape else "values that are not finite"
        raise ValueError(
            f"fit must return finite logits of shape {shape}, a row for each validation sample, "
            f"got {found} in row {run.name!r}, fold {run.fold}"
        )
    return logits


def keep(outcome: Outcome, path: Path | None) -> None:
    """Write a run that is done, in one move."""
    if path is None:
        return
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(
            file, logits=outcome.logits, told_epoch=outcome.told_epoch, seconds=outcome.seconds,
            train_recall=outcome.train_recall,
        )  # fmt: skip
    partial.replace(path)


def kept(run: Run, path: Path | None) -> Outcome | None:
    """A run that is done; None if it is not, or if its file is damaged."""
    if path is None or not path.exists():
        return None
    try:
        with np.load(path) as file:
            told, seconds = bool(file["told_epoch"]), float(file["seconds"])
            return Outcome(run, file["logits"], told, seconds, file["train_recall"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Each operation of torch in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
