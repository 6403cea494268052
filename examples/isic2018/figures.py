"""The report's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from examples.isic2018.bootstrap import interval
from examples.isic2018.outputs import output
from examples.isic2018.recipes import LOSSES, PAPER, POSTHOC, READINGS, WEIGHTINGS
from examples.isic2018.results import DRAWN, Results
from examples.isic2018.training import MODEL, Run, restored
from sampleweights import LogitAdjustment
from sampleweights.compare import Estimate
from sampleweights.compare.report.picture import plot, size
from sampleweights.compare.statistics import Prediction, metrics_of_row
from sampleweights.compare.task import CLASSES, Task

matplotlib.use("agg")  # figures go to files; no screen is needed

TAUS = np.linspace(0, 1, 21)
LOSS_NAMES = {"ce": "CE", "focal": "Focal"}
WEIGHTING_NAMES = {
    "none": "-",
    "class_balanced": "ClassBalanced",
    "effective_number": "EffectiveNumber",
    "self_paced": "SelfPaced",
    "ohem": "OHEM",
    "ohem_per_class": "OHEM per class",
    "effective_number_ohem": "EffectiveNumber, OHEM",
    "ohem_effective_number": "OHEM, EffectiveNumber",
    "random_m": "random m",
    "class_balanced_bare": "ClassBalanced, bare",
    "effective_number_bare": "EffectiveNumber, bare",
    "self_paced_kept": "SelfPaced / kept",
    "ohem_kept": "OHEM / kept",
    "self_paced_per_class": "SelfPaced per class",
    "logit_adjustment": "LogitAdjustment",
    "ldam_deferred": "LDAM, deferred",
    "balanced_sampling": "balanced sampling",
    "none_posthoc": "-, post-hoc",
    "ohem_posthoc": "OHEM, post-hoc",
    "self_paced_posthoc": "SelfPaced, post-hoc",
}
COLORS = dict(
    zip(PAPER, ["#4d4d4d", "#0072b2", "#56b4e9", "#e69f00", "#d55e00"], strict=True)
)  # colour-blind safe
PANELS = {
    "non-melanocytic (the paper's Figure 1)": ["VASC", "DF", "BKL", "BCC", "AKIEC"],
    "melanocytic (Figure 2)": ["MEL", "NV"],
}


def plain(weighting: str) -> str:
    name = WEIGHTING_NAMES[weighting]
    return f"no weighting{name[1:]}" if name.startswith("-") else name


def papers_rows(results: Results, model: str, optimizer: str, loss: str) -> dict[str, list[Run]]:
    """The finished runs of the paper's weightings, by weighting."""
    rows = {w: results.of_row((model, optimizer, loss, w)) for w in PAPER}
    return {weighting: runs for weighting, runs in rows.items() if runs}


@dataclass
class Weightings:
    """What the picture of `sampleweights.compare` reads: here of one model, optimiser and loss."""

    rows: list[str]
    trained: list[str]
    baseline: str
    frontier: pd.DataFrame | None
    estimates: dict[tuple[str, str], Estimate]
    verdict: None = None
    task: Task = CLASSES

    def estimate(self, row: str, metric: str) -> Estimate:
        return self.estimates[row, metric]


def tradeoff(results: Results, model: str, optimizer: str, loss: str) -> Figure:
    """Accuracy over balanced accuracy of every weighting, with 95 % intervals.

    Without the readings of the equations where there are other rows: some of them hardly train,
    and all other rows would be a single spot.
    """
    of = (model, optimizer, loss)
    summary = results.summary()
    adjusted = {trained: weighting for weighting, trained in POSTHOC.items()}
    draws = {row[3]: found for row, found in results.bootstrap.items() if row[:3] == of}
    trained = [w for w in WEIGHTINGS if w in draws]
    trained = [w for w in trained if w not in READINGS] or trained
    rows = [w for t in trained for w in (t, adjusted.get(t, "")) if w in draws]
    shown = Weightings(
        [plain(w) for w in rows],
        [plain(w) for w in trained],
        plain("none"),
        posthoc_frontier(results, results.of_row((*of, "none"))),
        {
            (plain(w), metric): interval(summary.loc[(*of, w), name], draws[w][name]).bounded
            for w in rows
            for name, metric in DRAWN.items()
        },
    )
    figure, axes = plt.subplots(figsize=size(shown, 8.0, 7.0), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    plot(shown, axes)
    return figure


def posthoc_frontier(results: Results, runs: Sequence[Run]) -> pd.DataFrame | None:
    """The metrics of runs adjusted post hoc, by tau (0 to 1), averaged over the splits.

    None without a run. The splits share images, so the curve has no interval.
    """
    if not runs:
        return None
    target, classes = results.dataset.target.numpy(), results.dataset.classes
    lines = []
    for run in runs:
        split = results.dataset.split[run.split]
        counts = np.bincount(target[split.train], minlength=len(classes))
        logits = torch.from_numpy(results.probabilities(run)).log()
        for tau in TAUS:
            row = Prediction.of(LogitAdjustment(counts, tau=tau).posthoc(logits).numpy()[None])
            found = metrics_of_row(
                row, target[split.validation], len(classes), split.sample_weight, DRAWN.values()
            )
            lines.append({"tau": tau, **found})
    curve = pd.DataFrame(lines, columns=["tau", *DRAWN.values()])
    curve = curve.groupby("tau", as_index=False).mean()
    return curve.assign(balanced_accuracy_low=np.nan, balanced_accuracy_high=np.nan)


def recall(results: Results, model: str, optimizer: str) -> Figure:
    """Recall per class and weighting: on the images the paper's Figures 1 and 2."""
    summary, dataset = results.summary(), results.dataset
    count = dataset.target[dataset.split[0].train].bincount(minlength=len(dataset.classes))
    by_count = [dataset.classes[c] for c in count.argsort(descending=True, stable=True)]
    panels = PANELS if dataset.is_the_papers else {"the most frequent class first": by_count}
    weightings = {
        loss: [w for w in PAPER if (model, optimizer, loss, w) in summary.index] for loss in LOSSES
    }
    losses = [loss for loss in LOSSES if weightings[loss]]
    figure, axes = plt.subplots(
        len(losses), len(panels), figsize=(11, 1 + 2.9 * len(losses)), sharey=True, squeeze=False,
        gridspec_kw={"width_ratios": [len(classes) for classes in panels.values()]},
        layout="constrained",
    )  # fmt: skip
    for line, loss in zip(axes, losses, strict=True):
        width = 0.8 / len(weightings[loss])
        for axis, classes in zip(line, panels.values(), strict=True):
            for position, weighting in enumerate(weightings[loss]):
                row = summary.loc[(model, optimizer, loss, weighting)]
                values = row[[f"recall_{c}" for c in classes]]
                offset = (position - (len(weightings[loss]) - 1) / 2) * width
                axis.bar(
                    [tick + offset for tick in range(len(classes))], values, 0.92 * width,
                    color=COLORS[weighting], label=plain(weighting),
                )  # fmt: skip
            names = [dataset.class_names[c] for c in classes]
            axis.set_xticks(range(len(classes)), names, fontsize=9)
            axis.set_ylim(0, 100)
            axis.grid(axis="y", color="#dddddd", linewidth=0.7)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(f"{LOSS_NAMES[loss]}: recall (%)")
    for axis, title in zip(axes[0], panels, strict=True):
        axis.set_title(title, fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def confusion(results: Results, model: str, optimizer: str, loss: str) -> Figure:
    """Confusion matrices of all splits together, one per weighting, rows in percent."""
    rows = papers_rows(results, model, optimizer, loss)
    target, classes = results.dataset.target.numpy(), results.dataset.classes
    columns, lines = min(3, len(rows)), (len(rows) + 2) // 3
    figure, axes = plt.subplots(
        *(lines, columns), figsize=(0.5 + 2.4 * columns, 0.3 + 2.6 * lines), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, (weighting, runs) in zip(axes.flat, rows.items(), strict=False):
        matrix = sum(
            confusion_matrix(
                target[results.dataset.split[run.split].validation],
                results.predicted(run),
                labels=range(len(classes)),
            )
            for run in runs
        )
        percent = 100 * matrix / matrix.sum(1, keepdims=True)
        axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (true, predicted), value in np.ndenumerate(percent):
            color = "white" if value > 60 else "black"
            axis.text(
                predicted, true, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color
            )
        axis.set_xticks(range(len(classes)), classes, fontsize=7, rotation=45)
        axis.set_yticks(range(len(classes)), classes, fontsize=7)
        axis.set_title(plain(weighting), fontsize=10)
    figure.supylabel("true class", fontsize=10)
    figure.supxlabel("predicted class", fontsize=10)
    return figure


def curves(results: Results, model: str, optimizer: str, loss: str) -> Figure:
    """Training loss, and which classes self-paced learning and OHEM keep, over the epochs."""
    rows = papers_rows(results, model, optimizer, loss)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for weighting, runs in rows.items():
        history = results.curves(runs[0])
        style: dict[str, Any] = {"color": COLORS[weighting], "label": plain(weighting)}
        axes[0].plot(history["epoch"] + 1, history["loss"], **style)
    axes[0].set_ylabel("training loss (weighted)")
    axes[0].set_yscale("log")
    axes[0].legend(fontsize=7, frameon=False)
    for axis, weighting in zip(axes[1:], ("self_paced", "ohem"), strict=True):
        axis.set_ylabel(f"kept by {plain(weighting)} (%)")
        axis.set_ylim(0, 105)
        if weighting in rows:
            history = results.curves(rows[weighting][0])
            epoch = history["epoch"] + 1
            for position, name in enumerate(results.dataset.classes):
                color = plt.get_cmap("tab10")(position)
                axis.plot(epoch, 100 * history[f"kept_{name}"], label=name, color=color)
            axis.plot(epoch, 100 * history["kept"], "k--", label="all")
            axis.legend(fontsize=7, frameon=False, ncols=2)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(color="#dddddd", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def chosen_examples(results: Results, runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """By difficulty and class: the validation image with the least (most) probability of its
    class, on average over runs of one split."""
    validation = results.dataset.split[runs[0].split].validation
    target = results.dataset.target.numpy()[validation]
    probabilities = np.mean([results.probabilities(run) for run in runs], axis=0)
    of_target = probabilities[np.arange(len(target)), target]
    found: dict[str, dict[str, int]] = {"hard": {}, "easy": {}}
    for position, name in enumerate(results.dataset.classes):
        members = np.flatnonzero(target == position)
        order = members[of_target[members].argsort(kind="stable")]
        # not the very hardest, whose label may be wrong: the one at the tenth percentile
        found["hard"][name] = int(validation[order[len(order) // 10]])
        found["easy"][name] = int(validation[order[-1]])
    return found


@torch.inference_mode()
def _looks(
    results: Results, run: Run, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Of some images: spatial attention and most active channel, both (N, H, W), and diagnosis."""
    folder, dataset = results.folder / run.name, results.datasets[run.model]
    experiment = restored(run, dataset, folder)
    experiment.eval()
    maps = experiment.encoder(dataset.inputs[torch.from_numpy(rows), 0])
    spatial, channel = experiment.model.attention(maps)
    best = maps[torch.arange(len(maps)), channel.argmax(1)]
    size = dataset.pictures.shape[1:3]
    grown = [
        F.interpolate(m[:, None].float(), size, mode="bilinear")[:, 0].numpy()
        for m in (spatial, best)
    ]
    return grown[0], grown[1], experiment.model.leaf_log_probs(maps).argmax(1).numpy()


def kept_models(results: Results, model: str, optimizer: str, loss: str) -> dict[str, Run]:
    """One run of each of the paper's weightings, all of one split, whose model is still there."""
    rows = papers_rows(results, model, optimizer, loss).items()
    kept = [
        (weighting, run)
        for weighting, runs in rows
        for run in runs
        if (results.folder / run.name / MODEL).exists()
    ]
    first = min((run.split for _, run in kept), default=None)
    return {weighting: run for weighting, run in kept if run.split == first}


def attention(results: Results, runs: dict[str, Run], difficulty: str) -> Figure:
    """Spatial attention and most active channel over the image, as in Figures 3 and 4."""
    examples = chosen_examples(results, list(runs.values()))[difficulty]
    indices = np.array(list(examples.values()))
    pictures = results.dataset.pictures[torch.from_numpy(indices)].numpy()
    height, width = pictures.shape[1:3]
    side = 1.25
    figure, axes = plt.subplots(
        len(examples), 1 + 2 * len(runs), squeeze=False, layout="constrained",
        figsize=(side * (1 + 2 * len(runs)) * width / height, side * len(examples) + 0.5),
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for line, name, picture in zip(axes, examples, pictures, strict=True):
        _show(line[0], picture)
        line[0].set_ylabel(name, fontsize=9)
    axes[0, 0].set_title("image", fontsize=8)
    for column, (weighting, run) in enumerate(runs.items()):
        spatial, best, diagnosis = _looks(results, run, indices)
        left = 1 + 2 * column
        for line, name, picture, *heat, decided in zip(
            axes, examples, pictures, spatial, best, diagnosis, strict=True
        ):
            answer = results.dataset.classes[decided]
            for axis, values in zip(line[left : left + 2], heat, strict=True):
                _show(axis, picture)
                axis.imshow(values, cmap="inferno", alpha=0.55)
            line[left].set_xlabel(
                answer, fontsize=7, labelpad=1, color="#1a7f37" if answer == name else "#c0392b"
            )
        axes[0, left].set_title(f"{plain(weighting)}:\nattention", fontsize=7)
        axes[0, left + 1].set_title("best\nchannel", fontsize=7)
    return figure


def _show(axis: Any, picture: NDArray[np.uint8]) -> None:
    if picture.shape[2] == 1:
        axis.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axis.imshow(picture)


def save(figure: Figure, path: Path) -> None:
    with output(path) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
