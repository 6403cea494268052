"""What the paper says, and what follows from its own tables and from ours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from examples.isic2018.bootstrap import interval
from examples.isic2018.kept import Kept
from examples.isic2018.recipes import LOSSES, MODELS, OPTIMIZERS, PAPER
from examples.isic2018.results import Results
from examples.isic2018.training import Row
from sampleweights.compare.statistics import Estimate


@dataclass(frozen=True)
class Claim:
    """In each pair of rows the first is the better one, by each metric and its sign."""

    text: str
    pairs: Sequence[tuple[Row, Row]]
    signs: dict[str, int]


def claims() -> list[Claim]:
    """The paper's statements, then the questions that it leaves open."""

    def between(weighting: str, other: str, only: str = "") -> list[tuple[Row, Row]]:
        return [
            ((model, optimizer, loss, weighting), (model, optimizer, loss, other))
            for model, optimizer, loss in itertools.product(MODELS, OPTIMIZERS, LOSSES)
            if only in ("", optimizer)
        ]

    rows = list(itertools.product(MODELS, OPTIMIZERS, LOSSES, PAPER))
    adam_sgd = [(row, (row[0], "sgd", *row[2:])) for row in rows if row[1] == "adam"]
    tree_flat = [(row, ("flat", *row[1:])) for row in rows if row[0] == "hierarchical"]
    ce_focal = [(row, (*row[:2], "focal", row[3])) for row in rows if row[2] == "ce"]
    cost = {"bacc": 1, "acc": -1}
    better = {"bacc": 1}
    both = {"bacc": 1, "acc": 1}
    return [
        Claim("class-balanced weights raise BAcc and lower Acc",
              between("class_balanced", "none"), cost),
        Claim("effective-number weights raise BAcc and lower Acc",
              between("effective_number", "none"), cost),
        Claim("effective-number weights lose less Acc than class-balanced ones",
              between("effective_number", "class_balanced"), {"acc": 1}),
        Claim("OHEM has a higher BAcc than SPL", between("ohem", "self_paced"), better),
        Claim("OHEM has a higher BAcc than no weighting", between("ohem", "none"), better),
        Claim("Adam has a higher BAcc than SGD", adam_sgd, better),
        Claim("the hierarchical model has a higher BAcc than the flat one", tree_flat, better),
        Claim("CE has a higher BAcc than focal loss", ce_focal, better),
        Claim("open: OHEM per class has a higher BAcc than OHEM",
              between("ohem_per_class", "ohem"), better),
        Claim("open: effective number, then OHEM, has a higher BAcc than OHEM",
              between("effective_number_ohem", "ohem"), better),
        Claim("open: OHEM, then effective number, has a higher BAcc than OHEM",
              between("ohem_effective_number", "ohem"), better),
        Claim("open: effective number, then OHEM, has a higher BAcc than effective number alone",
              between("effective_number_ohem", "effective_number"), better),
        Claim("open: OHEM, then effective number, has a higher BAcc than effective number alone",
              between("ohem_effective_number", "effective_number"), better),
        Claim("control: OHEM has a higher BAcc than m samples kept at random",
              between("ohem", "random_m"), better),
        Claim("control: m samples kept at random have a higher BAcc than no weighting",
              between("random_m", "none"), better),
        Claim("reading: Eq. 7 bare (mean weight 7) has a higher BAcc than normalised",
              between("class_balanced_bare", "class_balanced", "sgd"), better),
        Claim("reading: Eq. 8 bare (mean weight below 0.001) has a higher BAcc than normalised",
              between("effective_number_bare", "effective_number", "sgd"), better),
        Claim("reading: OHEM divided by the kept samples has a higher BAcc than by all",
              between("ohem_kept", "ohem", "adam"), better),
        Claim("reading: SPL divided by the kept samples has a higher BAcc than by all",
              between("self_paced_kept", "self_paced", "adam"), better),
        Claim("beyond: SelfPaced per class has a higher BAcc than SelfPaced",
              between("self_paced_per_class", "self_paced"), better),
        Claim("beyond: post-hoc adjustment beats class-balanced weights in BAcc and Acc",
              between("none_posthoc", "class_balanced"), both),
        Claim("beyond: post-hoc adjustment beats effective-number weights in BAcc and Acc",
              between("none_posthoc", "effective_number"), both),
        Claim("beyond: logit adjustment in training beats effective-number weights in BAcc and Acc",
              between("logit_adjustment", "effective_number"), both),
        Claim("beyond: LDAM with deferred weights beats effective-number weights in BAcc and Acc",
              between("ldam_deferred", "effective_number"), both),
        Claim("beyond: balanced sampling beats effective-number weights in BAcc and Acc",
              between("balanced_sampling", "effective_number"), both),
        Claim("beyond: logit adjustment in training beats post-hoc in BAcc and Acc",
              between("logit_adjustment", "none_posthoc"), both),
        Claim("beyond: OHEM, then post-hoc, has a higher BAcc than post-hoc alone",
              between("ohem_posthoc", "none_posthoc"), better),
    ]  # fmt: skip


def share(claim: Claim, numbers: pd.DataFrame) -> tuple[int, int]:
    """In how many of the comparisons that ``numbers`` holds the claim is borne out."""
    known = [pair for pair in claim.pairs if all(row in numbers.index for row in pair)]
    borne_out = [
        all(
            sign * (numbers.loc[first, metric] - numbers.loc[second, metric]) > 0
            for metric, sign in claim.signs.items()
        )
        for first, second in known
    ]
    return sum(borne_out), len(known)


def difference(claim: Claim, results: Results | Kept, metric: str) -> Estimate | None:
    """The mean difference over the comparisons, with its 95 % interval."""
    summary, bootstrap = results.summary(), results.bootstrap
    known = [pair for pair in claim.pairs if all(row in bootstrap for row in pair)]
    if not known:
        return None
    mean = np.mean([summary.loc[a, metric] - summary.loc[b, metric] for a, b in known])
    samples = np.mean([bootstrap[a][metric] - bootstrap[b][metric] for a, b in known], axis=0)
    return interval(float(mean), samples)


def claims_table(results: Results | Kept) -> str:
    """Markdown: each claim, how often the paper's and our comparisons bear it out, by how much."""
    beside = not results.paper.empty
    lines = [
        f"| | claim |{' paper |' if beside else ''} ours | mean difference (95 % interval) |",
        f"|--:|---|{'--:|' if beside else ''}--:|---|",
    ]
    summary = results.summary()
    for number, claim in enumerate(claims(), 1):
        ours = share(claim, summary)
        if not ours[1]:
            continue
        by = []
        for metric in claim.signs:
            found = difference(claim, results, metric)
            if found is not None:
                name = {"acc": "Acc", "bacc": "BAcc"}[metric]
                by.append(f"{name} {found.signed}")
        shares = [share(claim, results.paper), ours] if beside else [ours]
        cells = [f"{borne} of {of}" if of else "-" for borne, of in shares]
        lines.append(f"| {number} | {claim.text} | {' | '.join(cells)} | {', '.join(by)} |")
    return "\n".join(lines)
