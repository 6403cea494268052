"""What is compared: named builders of a criterion, and of a sampler where the row has one."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import operator
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sampleweights.compare.training.fingerprint import CannotTell, fingerprint
from sampleweights.compare.training.origins import SITES, STDLIB
from sampleweights.losses import CrossEntropyLoss, FocalLoss
from sampleweights.margins import LDAM, LogitAdjustment
from sampleweights.margins.base import Margin
from sampleweights.sampling import WeightedSampler
from sampleweights.weighters import OHEM, ClassBalanced, Deferred, EffectiveNumber, SelfPaced
from sampleweights.weighters.base import EpochWeighter
from sampleweights.weighters.class_frequency import ClassFrequency

__all__ = [
    "Build", "Built", "Recipe", "build", "check", "default_entries", "is_adjustable", "recipe_of",
    "waits_for_epoch",
]  # fmt: skip

MakeSampler = Callable[..., Iterable[int]]
"""``make_sampler(target, seed=seed)``: positions within the training part, an epoch at a time."""
Build = Callable[[Tensor, int], "nn.Module | tuple[nn.Module, MakeSampler]"]
"""``build(class_counts, num_epochs)``: a criterion, or a criterion and a ``make_sampler``."""
Built = tuple[nn.Module, "MakeSampler | None"]


@dataclass(frozen=True)
class Recipe:
    """How an entry is told to a reader."""

    words: str
    """What one does, after "to raise balanced accuracy, "."""
    code: str
    """What builds it, after ``import sampleweights as sw``; it may name ``class_counts``,
    ``num_epochs`` and ``train_target``."""


def default_entries() -> dict[str, Build]:
    """The rows that are compared unless others are given; the first is the baseline.

    Returns:
        A new dictionary of names to builders, to which entries can be added::

            entries = default_entries()
            entries["focal, gamma 2"] = lambda class_counts, num_epochs: FocalLoss(2)
            compare(features, target, entries=entries)
    """
    return dict(_ENTRIES)


_ENTRIES: dict[str, Build] = {
    "no weighting": lambda n, epochs: CrossEntropyLoss(),
    "ClassBalanced": lambda n, epochs: CrossEntropyLoss(weighter=ClassBalanced(n)),
    "EffectiveNumber": lambda n, epochs: CrossEntropyLoss(weighter=EffectiveNumber(n)),
    "FocalLoss": lambda n, epochs: FocalLoss(),
    "OHEM": lambda n, epochs: CrossEntropyLoss(weighter=OHEM(epochs)),
    "SelfPaced per class": lambda n, epochs: CrossEntropyLoss(
        weighter=SelfPaced(epochs, per_class=True)
    ),
    "EffectiveNumber + OHEM": lambda n, epochs: CrossEntropyLoss(
        weighter=[EffectiveNumber(n), OHEM(epochs)]
    ),
    "LogitAdjustment": lambda n, epochs: CrossEntropyLoss(margin=LogitAdjustment(n)),
    "LDAM + deferred weights": lambda n, epochs: CrossEntropyLoss(
        margin=LDAM(n), weighter=Deferred(EffectiveNumber(n), 0.8 * epochs)
    ),
    "balanced sampling": lambda n, epochs: (CrossEntropyLoss(), WeightedSampler.from_targets),
    "square-root sampling": lambda n, epochs: (
        CrossEntropyLoss(),
        functools.partial(WeightedSampler.from_targets, power=0.5),
    ),
}
# a test runs each line of code, and sees that it builds what the entry builds
_RECIPES = {
    "no weighting": Recipe("train without any weighting", "criterion = sw.CrossEntropyLoss()"),
    "ClassBalanced": Recipe(
        "train with class weights (ClassBalanced)",
        "criterion = sw.CrossEntropyLoss(weighter=sw.ClassBalanced(class_counts))",
    ),
    "EffectiveNumber": Recipe(
        "train with class weights (EffectiveNumber)",
        "criterion = sw.CrossEntropyLoss(weighter=sw.EffectiveNumber(class_counts))",
    ),
    "FocalLoss": Recipe("train with the focal loss", "criterion = sw.FocalLoss()"),
    "OHEM": Recipe(
        "train with hard example mining (OHEM)",
        "criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(num_epochs))",
    ),
    "SelfPaced per class": Recipe(
        "train on the easy samples of each class first (SelfPaced)",
        "criterion = sw.CrossEntropyLoss(weighter=sw.SelfPaced(num_epochs, per_class=True))",
    ),
    "EffectiveNumber + OHEM": Recipe(
        "train with class weights and hard example mining (EffectiveNumber, OHEM)",
        "criterion = sw.CrossEntropyLoss(\n"
        "    weighter=[sw.EffectiveNumber(class_counts), sw.OHEM(num_epochs)]\n)",
    ),
    "LogitAdjustment": Recipe(
        "train with logits that are adjusted by the class frequencies (LogitAdjustment)",
        "criterion = sw.CrossEntropyLoss(margin=sw.LogitAdjustment(class_counts))",
    ),
    "LDAM + deferred weights": Recipe(
        "train with larger margins for rare classes (LDAM), and with class weights in the last "
        "fifth of the epochs",
        "criterion = sw.CrossEntropyLoss(\n    margin=sw.LDAM(class_counts),\n"
        "    weighter=sw.Deferred(sw.EffectiveNumber(class_counts), 0.8 * num_epochs),\n)",
    ),
    "balanced sampling": Recipe(
        "sample all classes equally often in training (balanced sampling)",
        "criterion = sw.CrossEntropyLoss()\n"
        "sampler = sw.WeightedSampler.from_targets(train_target)  # of the DataLoader",
    ),
    "square-root sampling": Recipe(
        "sample each class in proportion to the square root of its frequency (square-root "
        "sampling)",
        "criterion = sw.CrossEntropyLoss()\n"
        "sampler = sw.WeightedSampler.from_targets(train_target, power=0.5)  # of the DataLoader",
    ),
}


def recipe_of(
    name: str, entry: Build, class_counts: Tensor, num_epochs: int,
    known: Mapping[str, tuple[Build, Recipe]] | None = None,
) -> Recipe:  # fmt: skip
    """How to do what an entry does; of one that is not ours, the code calls it by its name."""
    known = {n: (_ENTRIES[n], _RECIPES[n]) for n in _ENTRIES} if known is None else known
    known_entry, recipe = known.get(name, (None, None))
    if recipe is not None and entry is known_entry:
        return recipe
    criterion, make_sampler = build(name, entry, class_counts, num_epochs)
    if known_entry is not None and recipe is not None and make_sampler is None:
        ours, sampled = build(name, known_entry, class_counts, num_epochs)
        with contextlib.suppress(CannotTell):  # written again, and the same
            if sampled is None and fingerprint(criterion) == fingerprint(ours):
                return recipe
    made = "criterion" if make_sampler is None else "criterion, make_sampler"
    call = f"entries[{name!r}](torch.as_tensor(class_counts), num_epochs)  # your own entry"
    return Recipe(f'train with "{name}"', f"{made} = {call}")


def build(name: str, entry: Build, class_counts: Tensor, num_epochs: int) -> Built:
    """The criterion of an entry, and what makes its sampler, or None."""
    if isinstance(entry, nn.Module) or not callable(entry):
        raise TypeError(
            f"entries[{name!r}] must be a function of class_counts and num_epochs that builds a "
            f"criterion, as in lambda class_counts, num_epochs: FocalLoss(), got {entry!r}"
        )
    try:
        built: Any = entry(class_counts, num_epochs)
    except Exception as error:
        raise ValueError(
            f"entries[{name!r}] cannot be built with class_counts={class_counts.tolist()} and "
            f"num_epochs={num_epochs}: {type(error).__name__}: {error}{line_of(error)}"
        ) from error
    criterion, make_sampler = built if isinstance(built, tuple) else (built, None)
    if not isinstance(criterion, nn.Module) or not (make_sampler is None or callable(make_sampler)):
        raise TypeError(
            f"entries[{name!r}] must build a criterion (an nn.Module), or a tuple of a criterion "
            f"and a function make_sampler(target, seed=...), got {built!r}"
        )
    return criterion, make_sampler


def check(
    name: str,
    entry: Build,
    class_counts: Tensor,
    num_epochs: int,
    target: Tensor,
    device: torch.device | None,
) -> None:
    """Build an entry as a run does, and try it, since a run says what is wrong an hour later.

    Args:
        name: of the entry.
        entry: what is tried.
        class_counts: of a training part.
        num_epochs: of the training.
        target: of the training part, (N,), or of labels (N, L).
        device: of the head that calls the criterion with logits and targets, and takes single
            positions of the sampler; None: a ``fit`` of one's own, which may do anything with them.

    Raises:
        ValueError: it cannot be built, its sampler takes no ``seed`` or gives no positions, or its
            criterion cannot be called.
        TypeError: it builds something else.
    """
    with torch.random.fork_rng(devices=[]):
        criterion, make_sampler = build(name, entry, class_counts, num_epochs)
        if make_sampler is not None:
            check_sampler(name, make_sampler, target, device is None)
        if device is not None:
            check_criterion(name, criterion, target[:64].to(device), len(class_counts))


def check_sampler(name: str, make_sampler: MakeSampler, target: Tensor, own_fit: bool) -> None:
    what = f"entries[{name!r}]: make_sampler(target, seed=0)"
    try:
        sampler = make_sampler(target, seed=0)
        if own_fit:
            return
        positions: list[Any] = [*itertools.islice(sampler, len(target))]
    except Exception as error:
        raise ValueError(
            f"{what} must give a sampler, got {type(error).__name__}: {error}{line_of(error)}"
        ) from error
    for position in positions:
        place = -1
        with contextlib.suppress(TypeError):  # of a list, which would be a batch
            place = operator.index(position)
        if not 0 <= place < len(target):
            raise ValueError(
                f"{what} must give positions from 0 to {len(target) - 1}, one at a time, got "
                f"{position!r}"
            )


def check_criterion(name: str, criterion: nn.Module, target: Tensor, num_classes: int) -> None:
    what = f"entries[{name!r}] must build a criterion that gives one loss for a batch"
    with contextlib.suppress(Exception):  # the one that is built may be the one of all runs
        criterion = copy.deepcopy(criterion)
    criterion = criterion.to(target.device)
    logits = torch.zeros(len(target), num_classes, device=target.device, requires_grad=True)
    target = target if target.ndim == 1 else target.float()
    try:
        set_epoch: Any = getattr(criterion, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(0)
        loss: Any = criterion(logits.clone(), target)
    except Exception as error:
        raise ValueError(
            f"{what}, got {type(error).__name__}: {error}{line_of(error)}, for logits "
            f"{(*logits.shape,)} and target {(*target.shape,)}"
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        found = f"shape {(*loss.shape,)}" if isinstance(loss, Tensor) else repr(loss)
        if isinstance(loss, Tensor) and loss.numel() == 1:
            found = "one without a gradient"
        raise ValueError(f"{what}, got {found}")


def line_of(error: Exception) -> str:
    """The last line of the user's own that an error went through, as "(file.py, line 3)"."""
    ours = Path(__file__).parents[2]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        for path in [Path(frame.filename)]
        if not any(path.is_relative_to(root) for root in (ours, *STDLIB))
        and not any(part in SITES for part in path.parts)
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def is_adjustable(name: str, entry: Build, class_counts: Tensor, num_epochs: int) -> bool:
    """Whether a row knows nothing of the class frequencies, so that its logits can be adjusted."""
    criterion, make_sampler = build(name, entry, class_counts, num_epochs)
    if make_sampler is not None or any(
        isinstance(module, (ClassFrequency, Margin))
        or getattr(module, "weight", None) is not None  # the class weights of torch's losses
        or getattr(module, "pos_weight", None) is not None
        for module in criterion.modules()
    ):
        return False
    # a criterion of one's own may keep what it made of the counts under any name
    other, _ = build(name, entry, class_counts.flip(0) + 1, num_epochs)
    try:
        return fingerprint(criterion) == fingerprint(other)
    except CannotTell:
        return False


def waits_for_epoch(criterion: nn.Module) -> bool:
    """Whether what a criterion computes depends on ``set_epoch``; of others' criteria: may."""
    if any(isinstance(module, EpochWeighter) for module in criterion.modules()):
        return True
    own = type(criterion).__module__.startswith("sampleweights.")
    return not own and callable(getattr(criterion, "set_epoch", None))
