"""Folds of one's own: a label for each sample, or a splitter of scikit-learn."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampleweights.compare.inputs.classes import categories

__all__ = ["Folds", "is_own", "own_folds"]

Index = NDArray[np.int64]
Part = tuple[str, NDArray[np.bool_], NDArray[np.bool_]]
"""The name of a fold, and which samples (N,) are trained on and validated in it."""
MODELS = 5
"""That predict the validation samples of a single fold, each a part of them."""
SHOWN = 5
"""Groups that an error names."""


@dataclass(frozen=True)
class Folds:
    """Who is validated in which fold, and who is left out."""

    fold: Index
    """(repeats, N), 0 to K - 1; -1 of samples that are trained on and never validated."""
    left_out: NDArray[np.bool_] | None
    """(repeats, K, N), samples that a fold neither trains on nor validates; None if none."""
    counts: Index
    """Of each class (repeats, K, C) in the training part of each fold."""
    words: str


def is_own(folds: Any) -> bool:
    """Whether folds are a user's own, and not their number."""
    return is_splitter(folds) or np.ndim(folds) > 0 or isinstance(folds, (str, bytes))


def is_splitter(folds: Any) -> bool:
    """Tensors and strings have a ``split`` as well."""
    return callable(getattr(folds, "split", None)) and hasattr(folds, "get_n_splits")


def own_folds(
    folds: Any,
    features: Any,
    target: Index,
    groups: Index | None,
    group_names: Sequence[Any],
    class_names: Sequence[str],
    seed: int,
    deal: Callable[..., Index],
    count: Callable[[Index, Index], Index],
) -> Folds:
    """The folds that a user gives, checked.

    Where there is one validation part alone, as in "train on hospital A, test on hospital B", it
    is divided, and each part of it is predicted by a model of its own that was trained on A: the
    strength of post-hoc adjustment is chosen on other predictions than those it is judged on, and
    the models show how much trainings vary.

    Args:
        folds: (N,), labels of folds, of which -1 is that of samples that are never validated; or a
            splitter.
        features: (N, D), for the splitter.
        target: (N,), or of labels (N, L).
        groups: (N,), 0 to G - 1, or None.
        group_names: G of them.
        class_names: C names.
        seed: of the parts of a single fold.
        deal: makes folds of samples, ``folds_of`` or its like.
        count: counts classes, ``count(target, fold)``.

    Raises:
        ValueError: folds of a wrong shape; a sample that is validated twice; a group on both sides;
            a class without samples in a training part, or in the validation parts.
    """
    if is_splitter(folds):
        repeats = parts_of_splitter(folds, features, target, groups)
        words = f"folds of {type(folds).__name__}"
    else:
        repeats = [parts_of_labels(folds, len(target))]
        words = "folds of your own"
    for parts in repeats:
        check_groups(parts, groups, group_names)
    words = f"{len(repeats[0])} {words}"
    if len(repeats) == len(repeats[0]) == 1:
        repeats = [divided(repeats[0][0], target, groups, class_names, seed, deal)]
        words = f"1 split of your own, its validation part predicted by {MODELS} models"
    fold = np.full((len(repeats), len(target)), -1)
    for repeat, parts in enumerate(repeats):
        for number, (_, _, validation) in enumerate(parts):
            fold[repeat, validation] = number

    def size(rows: NDArray[np.bool_]) -> Index:
        """Of the classes among some samples."""
        found: Index = count(target[rows], np.ones((1, int(rows.sum())), np.int64))[0, 0]
        return found

    counts = np.array([[size(train) for _, train, _ in parts] for parts in repeats])
    for repeat, number, label, *_ in np.argwhere(counts == 0):
        raise ValueError(
            f"folds must leave samples of every class to train on, got none of class "
            f"{class_names[label]!r} in the training part of fold {repeats[repeat][number][0]}: "
            f"give other folds, or leave the class out"
        )
    for label, *_ in np.argwhere(size(fold[0] >= 0) == 0):
        raise ValueError(
            f"folds must validate samples of every class, got none of class "
            f"{class_names[label]!r}: give other folds, or leave the class out"
        )
    left_out = np.array([[~(train | part) for _, train, part in parts] for parts in repeats])
    return Folds(fold, left_out if left_out.any() else None, counts, words)


def parts_of_labels(folds: Any, size: int) -> list[Part]:
    """Each label is a fold, in which all other samples are trained on."""
    if isinstance(folds, (str, bytes)):
        raise ValueError(
            f"folds must be their number, an array with the fold of each sample, or a splitter of "
            f"scikit-learn, got {folds!r}"
        )
    fold, labels = categories("folds", folds)
    if len(fold) != size:
        raise ValueError(
            f"folds must have shape ({size},), a label for each sample of target, got {fold.shape}"
        )
    parts = [
        (repr(label), fold != number, fold == number)
        for number, label in enumerate(labels)
        if label not in (-1, "-1")  # only trained on, as in PredefinedSplit
    ]
    if not parts or (len(parts) == 1 and len(labels) == 1):
        raise ValueError(
            f"folds must have at least two labels, or -1 for samples that are only trained on and "
            f"another one, got {labels[0]!r} for all samples"
        )
    return parts


def parts_of_splitter(
    splitter: Any, features: Any, target: Index, groups: Index | None
) -> list[list[Part]]:
    """A repeat ends where a sample is validated again, as in RepeatedStratifiedKFold."""
    name, size = type(splitter).__name__, len(target)
    known = getattr(splitter, "test_fold", target)
    if len(known) != size:  # PredefinedSplit would leave out the others without a word
        raise ValueError(
            f"folds must be of the {size} samples of target, got a {name} of {len(known)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of groups, which are checked here
            # a copy: one whose random_state is an object would be changed
            splits = [*copy.deepcopy(splitter).split(features, target, groups)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"folds: {name} cannot split these samples: {error}") from error
    repeats: list[list[Part]] = [[]]
    validated = np.zeros(size, bool)
    for number, indices in enumerate(splits):
        train, validation = np.zeros(size, bool), np.zeros(size, bool)
        train[indices[0]] = validation[indices[1]] = True
        if (train & validation).any() or not train.any() or not validation.any():
            raise ValueError(
                f"folds must train on some samples and validate others, got a {name} whose fold "
                f"{number} does not"
            )
        if (validated & validation).any():
            repeats.append([])
            validated = np.zeros(size, bool)
        validated |= validation
        repeats[-1].append((str(number), train, validation))
    of_each = [sum(part[2].astype(np.int64) for part in parts) for parts in repeats]
    alike = all(np.array_equal(of_each[0], other) for other in of_each)
    if not alike or len({len(parts) for parts in repeats}) > 1:
        raise ValueError(
            f"folds must validate no sample twice (or all of them as often, as "
            f"RepeatedStratifiedKFold does), got a {name}, which does: give KFold, GroupKFold, "
            f"StratifiedGroupKFold, LeaveOneGroupOut or the like"
        )
    return repeats


def check_groups(parts: Sequence[Part], groups: Index | None, names: Sequence[Any]) -> None:
    """A group on both sides makes all numbers too high."""
    if groups is None:
        return
    for name, train, validation in parts:
        both = [repr(names[group]) for group in np.intersect1d(groups[train], groups[validation])]
        if both:
            more = f" and {len(both) - SHOWN} more" if len(both) > SHOWN else ""
            raise ValueError(
                f"folds must not divide a group, got group {', '.join(both[:SHOWN])}{more} both "
                f"in the training and in the validation part of fold {name}: give folds that keep "
                f"groups together, such as GroupKFold(5), or compare without groups"
            )


def divided(
    part: Part,
    target: Index,
    groups: Index | None,
    class_names: Sequence[str],
    seed: int,
    deal: Callable[..., Index],
) -> list[Part]:
    """Of a single fold: each part of its validation samples is validated in a fold of its own."""
    _, train, validation = part
    among = None if groups is None else groups[validation]
    try:
        [number] = deal(target[validation], among, class_names, MODELS, 1, seed)
    except ValueError as error:
        raise ValueError(
            f"folds: the validation part of a single fold is divided into {MODELS}, and {error}"
        ) from error
    where = np.full(len(target), -1)
    where[validation] = number
    return [(str(k), train, where == k) for k in range(MODELS)]
