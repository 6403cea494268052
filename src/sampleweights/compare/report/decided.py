"""What was decided, where a comparison maximises the utility of decisions."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sampleweights.compare.statistics import source_of
from sampleweights.decisions import decide

__all__ = ["confusion", "section"]

Comparison = Any  # sampleweights.compare.Comparison, which imports the page


def confusion(comparison: Comparison, row: str) -> NDArray[np.float64]:
    """How many samples of each class get each decision, (C, D), in the mean over the repeats."""
    trained = source_of(row)
    logits = comparison.logits[row] if row == trained else (
        comparison.adjusted(trained, comparison.taus[row])
    )  # fmt: skip
    table = comparison.goal.table
    found = np.zeros(table.shape)
    for of_repeat in logits:
        decision = decide(torch.from_numpy(np.ascontiguousarray(of_repeat)), table).numpy()
        np.add.at(found, (comparison.target, decision), 1 / len(logits))
    return found


def section(comparison: Comparison) -> list[str]:
    """Of the first row and of the one with the highest utility, as HTML; none of other goals."""
    if comparison.goal.metric != "utility":
        return []
    best = comparison.ranking[0]
    classes, number = comparison.class_names, comparison.goal.table.shape[1]
    named = classes if number >= len(classes) else []
    names = [*named, *(f"decision {d + 1}" for d in range(len(named), number))]
    return [
        "<h2>Decisions</h2><p>What is decided for the samples of each class, in percent of them: "
        "the decision with the highest expected utility. The columns are those of the utility "
        "table; where it has as many as there are classes or more, the first have their names. "
        "Accuracy, recall and precision above are those of the most probable class.</p>",
        *(
            _table(comparison, row, names)
            for row in dict.fromkeys((comparison.baseline, best))
        ),
    ]  # fmt: skip


def _table(comparison: Comparison, row: str, names: list[str]) -> str:
    counted = confusion(comparison, row)
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    lines = []
    for name, of_class in zip(comparison.class_names, counted, strict=True):
        total = of_class.sum()
        cells = "".join(
            f"<td>{100 * value / total:.1f}</td>" if total else "<td>\u2013</td>"
            for value in of_class
        )
        lines.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="decided"><table><caption>{html.escape(row)}</caption><tbody>'
        f"<tr><td></td>{heads}</tr>{''.join(lines)}</tbody></table></div>"
    )
