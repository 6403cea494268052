"""What to decide from predictions that are there: by utility, with sets, at other priors.

No network is trained. What is fitted for a split is fitted on the validation images of the other
split whose lesions are not in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sampleweights as sw
from examples.isic2018.bootstrap import RESAMPLES, interval
from examples.isic2018.figures import WEIGHTING_NAMES
from examples.isic2018.official import CLASSES, DataError
from examples.isic2018.outputs import output
from examples.isic2018.results import Results
from sampleweights.compare.statistics import Estimate

LABELS = "labels.npz"
"""Beside the runs: what their validation images are, so that decisions need no images."""
KEPT = Path(__file__).parents[2] / "docs" / "results" / "small"
ORDER = ["AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC"]
OF_DERMATOLOGISTS = [
    [2, -2, -3, -3, -2, -3, -3],
    [-2, 3, -4, -4, -2, -4, -4],
    [-2, -2, 1, -2, -3, -2, -2],
    [-2, -2, -2, 1, -3, -2, -2],
    [-4, -3, -5, -5, 5, -5, -5],
    [-2, -2, -2, -2, -3, 1, -2],
    [-2, -2, -2, -2, -3, -2, 1],
]
"""What a decision (column) is worth for a diagnosis (row), in ORDER: Barata et al., Nature Medicine
2023, doi 10.1038/s41591-023-02475-5."""
_PLACE = [ORDER.index(name) for name in CLASSES]
UTILITY = np.array(OF_DERMATOLOGISTS, np.float64)[_PLACE][:, _PLACE]
"""The same, in the order of the targets."""
WEIGHTINGS = ("none", "effective_number", "ohem")
REFERRALS = (0.0, -0.25, -0.5)
"""What it is worth to refer a lesion to an expert, whatever it is."""
HALVES = 20
MEL, BCC = CLASSES.index("MEL"), CLASSES.index("BCC")

Logits = Mapping[str, Tensor]


@dataclass
class Part:
    """Images to decide on, and others with which a decision may be fitted."""

    seed: int
    target: NDArray[np.int64]
    group: NDArray[np.int64]
    """(N,), lesions."""
    counts: NDArray[np.int64]
    """(C,), of the training part."""
    logits: Logits
    """By weighting, (N, C)."""
    held_out: Logits
    """By weighting, (M, C), of images of other lesions."""
    held_out_target: Tensor

    @cached_property
    def calibrated(self) -> Logits:
        return {
            name: sw.Calibration.fit(self.held_out[name], self.held_out_target)(logits)
            for name, logits in self.logits.items()
        }

    @cached_property
    def drawn(self) -> NDArray[np.float64]:
        """(RESAMPLES, G), how often each lesion is drawn."""
        groups = int(self.group.max()) + 1
        generator = np.random.default_rng(self.seed)
        return generator.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES).astype(float)

    def drawn_means(
        self, values: NDArray[np.floating], among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """The mean of values (N,), and what it becomes when lesions are drawn: (1 + RESAMPLES,)."""
        weight = np.ones(len(values)) if among is None else among.astype(np.float64)
        size = self.drawn.shape[1]
        above, below = (
            np.bincount(self.group, amount, size) for amount in (weight * values, weight)
        )
        times = np.concatenate([np.ones((1, size)), self.drawn])
        total = times @ below  # 0 where none of them was drawn
        return np.divide(times @ above, total, out=np.full(len(total), np.nan), where=total > 0)


def parts_of(
    labels: Mapping[str, Any], probabilities: Callable[[str, int], NDArray[np.floating] | None]
) -> list[Part]:
    """Of two splits."""
    found = []
    for seed in (0, 1):
        other = 1 - seed
        apart = ~np.isin(labels[f"group{other}"], labels[f"group{seed}"])
        of = {name: [probabilities(name, split) for split in (seed, other)] for name in WEIGHTINGS}
        logits = {
            name: [torch.from_numpy(p).log() for p in both if p is not None]
            for name, both in of.items()
        }
        known = {name: both for name, both in logits.items() if len(both) == 2}
        found.append(
            Part(
                seed,
                labels[f"target{seed}"].astype(np.int64),
                np.unique(labels[f"group{seed}"], return_inverse=True)[1],
                labels[f"counts{seed}"].astype(np.int64),
                {name: own for name, (own, _) in known.items()},
                {name: others[apart] for name, (_, others) in known.items()},
                torch.from_numpy(labels[f"target{other}"][apart].astype(np.int64)),
            )
        )
    return found


def of_kept(folder: Path) -> list[Part]:
    """Of predictions that were kept, with their labels."""
    if not (folder / LABELS).exists():
        raise DataError(f"{folder} must hold {LABELS}, which `report` writes beside its page")

    @cache  # each split is asked for twice, as the own one and as the other
    def read(weighting: str, split: int) -> NDArray[np.floating] | None:
        paths = sorted(folder.glob(f"flat-adam-ce-{weighting}-split{split}-*/predictions.npz"))
        if not paths:
            return None
        with np.load(paths[0]) as file:
            found: NDArray[np.floating] = file["validation_probabilities"]
            return found

    if any(read("none", split) is None for split in (0, 1)):
        raise DataError(
            f"{folder} must hold runs of the flat model without weights, with Adam and "
            f"cross-entropy, of splits 0 and 1: what is fitted for one is fitted on the other"
        )
    with np.load(folder / LABELS) as labels:
        return parts_of(labels, read)


def of_results(results: Results) -> list[Part]:
    """Of the runs of a report, its first model, optimiser and loss; none where they do not do."""
    of = results.main[0].row[:3]
    runs = {(run.weighting, run.split): run for run in results.main if run.row[:3] == of}
    if not results.dataset.is_the_papers or not {("none", 0), ("none", 1)} <= set(runs):
        return []

    @cache  # each split is asked for twice, as the own one and as the other
    def read(weighting: str, split: int) -> NDArray[np.floating] | None:
        run = runs.get((weighting, split))
        return None if run is None else results.probabilities(run)

    return [] if _lack_a_class(parts := parts_of(labels_of(results), read)) else parts


def _lack_a_class(parts: list[Part]) -> bool:
    """Whether there is a class that can be neither judged nor calibrated, as of a few images."""
    return any(
        set(range(len(CLASSES))) - set(classes.tolist())
        for part in parts
        for classes in (part.target, part.held_out_target)
    )


def of_test(results: Results) -> list[Part]:
    """The public test set, for each split whose models were evaluated on it.

    What is fitted is fitted on the split's own validation images, of the same network.
    """
    dataset, test, of = results.dataset, results.dataset.test, results.main[0].row[:3]
    if test is None or not dataset.is_the_papers:
        return []
    lesion = test.table["lesion"] if "lesion" in test.table else test.table["image"]
    found = []
    for seed, split in dataset.split.items():
        held_out, logits = {}, {}
        for run in results.main:
            if (*run.row[:3], run.split) != (*of, seed) or run.weighting not in WEIGHTINGS:
                continue
            with np.load(results.folder / run.name / "predictions.npz") as file:
                if "test_probabilities" in file:
                    logits[run.weighting] = torch.from_numpy(file["test_probabilities"]).log()
                    held_out[run.weighting] = torch.from_numpy(
                        file["validation_probabilities"]
                    ).log()
        if "none" in logits:
            target, group = test.target.numpy(), np.unique(lesion, return_inverse=True)[1]
            counts = labels_of(results)[f"counts{seed}"].astype(np.int64)
            others = dataset.target[split.validation]
            found.append(Part(seed, target, group, counts, logits, held_out, others))
    return [] if _lack_a_class(found) else found


def labels_of(results: Results) -> dict[str, Any]:
    dataset = results.dataset
    target, table = dataset.target.numpy(), dataset.table
    lesion = np.unique(table["group" if "group" in table else "lesion"], return_inverse=True)[1]
    found: dict[str, Any] = {}
    for seed, split in dataset.split.items():
        counts = np.bincount(target[split.train], minlength=len(dataset.classes))
        found |= {
            f"target{seed}": target[split.validation].astype(np.uint8),
            f"group{seed}": lesion[split.validation].astype(np.uint16),
            f"counts{seed}": counts.astype(np.int32),
        }
    return found


def write_labels(results: Results, folder: Path) -> None:
    with output(folder / LABELS) as file:
        np.savez_compressed(file, **labels_of(results))


# --------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------

Decided = list[NDArray[np.int64]]
"""Of each part."""
COLUMNS = ("reward", "Acc", "BAcc", "MEL", "BCC")


def metrics(parts: list[Part], decided: Decided) -> dict[str, NDArray[np.float64]]:
    """The mean over the parts of each column: the value, then what it is for drawn lesions."""
    found: dict[str, list[NDArray[np.float64]]] = {column: [] for column in COLUMNS}
    for part, decision in zip(parts, decided, strict=True):
        right = (decision == part.target).astype(np.float64)
        recall = [part.drawn_means(right, part.target == c) for c in range(len(CLASSES))]
        earned = UTILITY[part.target, decision]
        for column, values in zip(
            COLUMNS,
            (part.drawn_means(earned), 100 * part.drawn_means(right),
             100 * np.nanmean(recall, axis=0), 100 * recall[MEL], 100 * recall[BCC]),
            strict=True,
        ):  # fmt: skip
            found[column].append(values)
    return {column: np.mean(values, axis=0) for column, values in found.items()}


def estimate(values: NDArray[np.float64]) -> Estimate:
    return interval(float(values[0]), values[1:])


def cell(values: NDArray[np.float64], column: str, sign: str = "") -> str:
    of, digits = estimate(values), 2 if column == "reward" else 1
    value, low, high = (
        f"{number + 0.0:{sign}.{digits}f}" for number in (of.value, of.low, of.high)
    )
    return f"{value} ({low} to {high})"


def rows(parts: list[Part]) -> dict[tuple[str, str, str], Decided]:
    """By weighting, logits and rule."""
    names = [name for name in WEIGHTINGS if all(name in part.logits for part in parts)]
    found: dict[tuple[str, str, str], Decided] = {}
    for kind in ("raw", "calibrated"):
        of = [part.logits if kind == "raw" else part.calibrated for part in parts]
        for name in names:
            title = "no weights" if name == "none" else WEIGHTING_NAMES[name]
            shown = {title: [logits[name] for logits in of]}
            if name == "none":
                shown["post-hoc"] = [
                    sw.LogitAdjustment(part.counts).posthoc(logits[name])
                    for part, logits in zip(parts, of, strict=True)
                ]
            for row, by_part in shown.items():
                found[row, kind, "argmax"] = [z.argmax(1).numpy() for z in by_part]
                found[row, kind, "utility"] = [sw.decide(z, UTILITY).numpy() for z in by_part]
    return found


def table(head: str, lines: list[list[str]], names: int) -> str:
    titles = [title.strip() for title in head.split("|")]
    rule = ["---"] * names + ["--:"] * (len(titles) - names)
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, rule, *lines))


def utility_tables(parts: list[Part]) -> list[str]:
    found = {row: metrics(parts, decided) for row, decided in rows(parts).items()}
    base = found["no weights", "raw", "argmax"]
    own = [[*row, *(cell(of[c], c) for c in COLUMNS)] for row, of in found.items()]
    less = [
        [*row, *(cell(of[c] - base[c], c, "+") for c in COLUMNS)]
        for row, of in found.items()
        if of is not base
    ]
    head = (
        "training | logits | decided by | reward | Acc | BAcc | sensitivity, MEL | sensitivity, BCC"
    )
    lines = [
        table(head, own, 3),
        "The same, minus no weights, raw, by argmax:",
        table(head, less, 3),
    ]
    weights = ("EffectiveNumber", "raw", "argmax")
    if weights in found:
        by = found["no weights", "raw", "utility"]
        of = [f"{c} {cell(by[c] - found[weights][c], c, '+')}" for c in COLUMNS]
        lines.append(f"No weights by utility, minus EffectiveNumber by argmax: {', '.join(of)}.")
    return lines


def referral_table(parts: list[Part]) -> str:
    """What an eighth decision does, that is worth the same for every lesion."""
    lines = []
    for kind in ("raw", "calibrated"):
        for worth in REFERRALS:
            utility = np.concatenate([UTILITY, np.full((len(UTILITY), 1), worth)], 1)
            found: dict[str, list[NDArray[np.float64]]] = {}
            for part in parts:
                logits = (part.logits if kind == "raw" else part.calibrated)["none"]
                decision = sw.decide(logits, utility).numpy()
                referred, melanoma = decision == len(CLASSES), part.target == MEL
                right = (decision == part.target).astype(np.float64)
                for name, values in {
                    "reward": part.drawn_means(utility[part.target, decision]),
                    "referred": 100 * part.drawn_means(referred),
                    "Acc": 100 * part.drawn_means(right, ~referred),
                    "MEL": 100 * part.drawn_means(decision == MEL, melanoma),
                    "MEL referred": 100 * part.drawn_means(referred, melanoma),
                    "MEL missed": 100 * part.drawn_means(~referred & (decision != MEL), melanoma),
                }.items():
                    found.setdefault(name, []).append(values)
            cells = [cell(np.mean(values, axis=0), name) for name, values in found.items()]
            lines.append([kind, f"{worth:g}", *cells])
    head = (
        "logits | a referral is worth | reward | referred | Acc of the others "
        "| melanoma: called so | referred | missed"
    )
    return table(head, lines, 1)


def sets_table(parts: list[Part]) -> str:
    lines = []
    for name, by_frequency, per_class in (
        ("probability", False, False),
        ("probability over class frequency", True, False),
        ("a threshold for each class", False, True),
    ):
        found = []
        for part in parts:
            sets = sw.PredictionSets.fit(
                part.held_out["none"], part.held_out_target, 0.9,
                part.counts if by_frequency else None, per_class=per_class,
            )  # fmt: skip
            inside = sets(part.logits["none"]).numpy()
            hit = inside[np.arange(len(inside)), part.target]
            by_class = [hit[part.target == c].mean() for c in range(len(CLASSES))]
            found.append([100 * hit.mean(), 100 * np.mean(by_class), 100 * by_class[MEL],
                          inside.sum(1).mean()])  # fmt: skip
        mean = np.mean(found, axis=0)
        lines.append([name, *(f"{value:.1f}" for value in mean[:3]), f"{mean[3]:.2f}"])
    return table("score | covered | mean over the classes | MEL | classes in a set", lines, 1)


def macro_f1(decision: NDArray[np.int64], target: NDArray[np.int64]) -> float:
    hits = [((decision == c) & (target == c)).sum() for c in range(len(CLASSES))]
    sizes = [(decision == c).sum() + (target == c).sum() for c in range(len(CLASSES))]
    return 100 * float(np.mean([2 * hit / size for hit, size in zip(hits, sizes, strict=True)]))


def tuned_for_f1(logits: Tensor, target: NDArray[np.int64]) -> Tensor:
    """What to add to the logits of each class, by coordinate ascent: thresholds of the classes."""
    shift, steps = torch.zeros(len(CLASSES)), torch.linspace(-3, 3, 61)
    for _ in range(3):
        for c in range(len(CLASSES)):
            scores = []
            for step in steps:
                shift[c] = step
                scores.append(macro_f1((logits + shift).argmax(1).numpy(), target))
            shift[c] = steps[int(np.argmax(scores))]
    return shift


def what_does_not_help(parts: list[Part]) -> list[str]:
    plain, tuned, fitted = [], [], []
    for part in parts:
        others = part.held_out_target.numpy()
        shift = tuned_for_f1(part.held_out["none"], others)
        fitted.append(macro_f1((part.held_out["none"] + shift).argmax(1).numpy(), others))
        plain.append(macro_f1(part.logits["none"].argmax(1).numpy(), part.target))
        tuned.append(macro_f1((part.logits["none"] + shift).argmax(1).numpy(), part.target))
    found = [
        f"Thresholds of the classes, tuned for macro F1 on the other split (where it becomes "
        f"{np.mean(fitted):.1f}): macro F1 {np.mean(tuned):.1f}, by argmax {np.mean(plain):.1f}."
    ]
    for calibrates in (True, False):
        accuracy, seen, as_exact = [], [], []
        for part in parts:
            generator = np.random.default_rng(part.seed)
            for _ in range(HALVES):
                order = generator.permutation(len(part.target))
                _, first = np.unique(part.group[order], return_index=True)
                one = generator.permutation(order[first])  # an image of each lesion
                fit, rest = one[: len(one) // 2], one[len(one) // 2 :]
                target = torch.from_numpy(part.target)
                logits, counts = part.logits["none"][rest], torch.from_numpy(part.counts)
                if set(range(len(CLASSES))) - set(part.target[fit].tolist()):
                    continue  # a class without a bias
                if calibrates:
                    of = part.logits["none"][fit]
                    logits = sw.Calibration.fit(of, target[fit])(logits)
                    counts = target[fit].bincount(minlength=len(CLASSES))
                prior = sw.estimate_prior(logits, counts)
                seen.append(bool(prior.shifted))
                # as if the class frequencies were those of very many samples
                as_exact.append(bool(sw.estimate_prior(logits, counts * 10**6).shifted))
                adjustment = sw.LogitAdjustment(counts)
                accuracy.append([
                    100 * (adjustment.posthoc(logits, p).argmax(1) == target[rest]).double().mean()
                    for p in (counts / counts.sum(), prior.most_likely, prior.prior)
                ])  # fmt: skip
        if not seen:
            continue
        mean = np.mean(accuracy, axis=0)
        found.append(
            f"Class frequencies estimated where nothing shifted, in {len(seen)} random halves "
            f"with one image of each lesion, "
            f"{'calibrated on the other half' if calibrates else 'raw'}: accuracy {mean[0]:.1f} "
            f"without an estimate, {mean[1]:.1f} with it, {mean[2]:.1f} with it where the test "
            f"sees a shift, which is in {100 * np.mean(seen):.0f} % of the halves "
            f"({100 * np.mean(as_exact):.0f} % if the frequencies in class_counts were exact)."
        )
    return found


FITTED = "the validation images of the other split that show no lesion of this one"
FITTED_FOR_TEST = "the validation images of the same split"


def section(parts: list[Part], fitted: str = FITTED) -> list[str]:
    """Paragraphs and tables as Markdown."""
    return [
        "The same predictions, decided otherwise: the class that is most probable (argmax), or the "
        "one with the highest expected utility by the table that dermatologists wrote (Barata et "
        "al., Nature Medicine 2023). Rewards are in its units, all else in percent. Calibrations, "
        f"thresholds and sets are fitted on {fitted}. Intervals are from a paired bootstrap over "
        "the lesions, and do not contain what another training would have changed.",
        *utility_tables(parts),
        "With an eighth decision, to refer the lesion to an expert (no weights):",
        referral_table(parts),
        "Sets that hold the diagnosis in 90 % (no weights, raw):",
        sets_table(parts),
        *what_does_not_help(parts),
    ]
