"""What a row does, in words and in code to paste."""

from __future__ import annotations

import textwrap
from typing import Any

from sampleweights.compare.statistics import source_of
from sampleweights.compare.task import CLASSES
from sampleweights.compare.training.entries import Recipe

__all__ = ["action", "code", "plain"]

Comparison = Any  # sampleweights.compare.Comparison, which imports what imports this module

PLAIN = "train without any weighting"
MOST_COUNTS = 20
"""Of more classes the code names the counts, and does not list them."""


def plain(comparison: Comparison) -> str:
    """What the baseline is called: it need not be cross-entropy without more."""
    is_plain = recipe(comparison, comparison.baseline).words == PLAIN
    return "plain training" if is_plain else f'"{comparison.baseline}"'


def recipe(comparison: Comparison, trained: str) -> Recipe:
    if trained in comparison.recipes:
        return comparison.recipes[trained]  # type: ignore[no-any-return]
    call = f"criterion = entries[{trained!r}](torch.as_tensor(class_counts), num_epochs)"
    return Recipe(f'train with "{trained}"', call)


def action(comparison: Comparison, row: str, after: str | None = None) -> str:
    """What to do, after "to raise balanced accuracy, "; ``after`` what was said before."""
    trained = source_of(row)
    words = recipe(comparison, trained).words
    if trained == row:
        return words
    tau = comparison.tau(row)
    times = "" if tau == 1 else f"{tau:.4g} * "
    if after is not None and source_of(after) == trained != after:
        return f"subtract only {times}log(class frequency)"
    what = "class frequency" if comparison.task is CLASSES else "positives / negatives"
    return (
        f"{words} and, at test time, subtract {times}log({what}) from each logit "
        f"(post-hoc adjustment)"
    )


def code(comparison: Comparison, row: str) -> str:
    """Python that does what a row does: training, and what comes after it."""
    trained = source_of(row)
    lines = recipe(comparison, trained).code.splitlines()
    if trained != row:
        tau = comparison.tau(row)
        lines.append(f"adjustment = sw.LogitAdjustment(class_counts, tau={tau:.4g})")
        lines.append("logits = adjustment.posthoc(logits)  # at test time")
    table = comparison.goal.table
    if table is not None:
        lines.append("decision = sw.decide(logits, utility)  # at test time: the table's column")
    text = "\n".join(lines)
    before = ["import sampleweights as sw", ""]
    if "class_counts" in text:
        counts = comparison.class_counts
        if len(counts) <= MOST_COUNTS and comparison.task is CLASSES:
            before.append(f"class_counts = {counts}")
        elif len(counts) <= MOST_COUNTS:
            before.append(f"positives = {counts}")
            size = comparison.num_given
            before.append(f"class_counts = [[{size} - n, n] for n in positives]")
        if len(counts) <= MOST_COUNTS:
            names = [" ".join(name.split()) for name in comparison.class_names]
            if names != [str(c) for c in range(len(names))]:  # one's own order may be another
                order = f"of {', '.join(names)}: the order of your logits"
                before += [f"# {line}" for line in textwrap.wrap(order, 58)]
        elif comparison.task is not CLASSES:
            before.append("# negatives and positives of each label:")
            before.append("positives = train_target.long().sum(0)")
            before.append(
                "class_counts = torch.stack([len(train_target) - positives, positives], 1)"
            )
        else:
            of = f"training samples of each of the {len(counts)} classes"
            before.append(f"class_counts = torch.bincount(train_target)  # {of}")
    if "num_epochs" in text:
        before.append(f"num_epochs = {comparison.num_epochs or 100}  # of your training")
        lines.append("# at the start of each epoch: criterion.set_epoch(epoch)")
    if any(line.startswith("sampler = ") for line in lines):
        lines.append("# at the start of each epoch: sampler.set_epoch(epoch)")
    if table is not None:
        what = table.tolist() if table.size <= MOST_COUNTS else "table  # your own"
        before.append(f"utility = {what}")
    if any("torch." in line for line in [*before, *lines]):
        before.insert(0, "import torch")
    return "\n".join([*before, *lines])
