"""Results as a CSV file that grows run by run, a table beside the paper's, and a figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd

from examples.isic2018.data import CLASSES
from examples.isic2018.training import LOSSES, WEIGHTINGS

matplotlib.use("agg")  # figures go to files; no screen is needed

ROW = ["optimizer", "loss", "weighting"]
METRICS = {"acc": "Acc", "bacc": "BAcc", "mean_precision": "mPR", "mean_f1": "mF1"}
LOSS_NAMES = {"ce": "CE", "focal": "Focal"}
WEIGHTING_NAMES = {
    "none": "-",
    "class_balanced": "ClassBalanced",
    "effective_number": "EffectiveNumber",
    "self_paced": "SelfPaced",
    "ohem": "OHEM",
}
COLORS = ["#4d4d4d", "#0072b2", "#56b4e9", "#e69f00", "#d55e00"]  # colour-blind safe
NON_MELANOCYTIC, MELANOCYTIC = ["VASC", "DF", "BKL", "BCC", "AKIEC"], ["MEL", "NV"]
OPTIMIZER_NAMES = {"adam": "Adam", "sgd": "SGD"}
LESION_NAMES = {
    "MEL": "melanoma", "NV": "nevus", "BCC": "basal cell\ncarcinoma", "AKIEC": "actinic\nkeratosis",
    "BKL": "benign\nkeratosis", "DF": "dermato-\nfibroma", "VASC": "vascular",
}  # fmt: skip


def read_results(path: Path) -> pd.DataFrame:
    """The finished runs; an unfinished last line, of a killed run, is dropped."""
    if not path.exists():
        return pd.DataFrame()
    text = path.read_text()
    if not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1])
    return pd.read_csv(path) if path.stat().st_size else pd.DataFrame()


def append_result(path: Path, row: dict[str, object]) -> None:
    pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """One row per optimiser, loss and weighting, averaged over splits, beside the paper's."""
    metrics = [column for column in results if column.partition("_")[0] in
               ("acc", "bacc", "mean", "recall", "precision", "f1")]  # fmt: skip
    mean = results.groupby(ROW, sort=False)[metrics].mean()
    paper = pd.read_csv(Path(__file__).with_name("paper_tables.csv"))
    paper = paper[paper["model"] == "flat"].set_index(ROW)[list(METRICS)]
    return mean.join(paper.add_prefix("paper_"))


def format_table(summary: pd.DataFrame, optimizer: str) -> str:
    """The rows of one optimiser as a Markdown table: ours, and the paper's in brackets."""
    lines = [
        "| loss | weighting | " + " | ".join(METRICS.values()) + " |",
        "|---|---|" + "--:|" * len(METRICS),
    ]
    rows = summary.loc[optimizer]
    for loss in LOSSES:
        for weighting in WEIGHTINGS:
            if (loss, weighting) not in rows.index:
                continue
            row = rows.loc[(loss, weighting)]
            cells = [f"{row[metric]:.1f} ({row[f'paper_{metric}']:.1f})" for metric in METRICS]
            names = f"{LOSS_NAMES[loss]:<5} | {WEIGHTING_NAMES[weighting]:<15}"
            lines.append(f"| {names} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot_recall(
    summary: pd.DataFrame, optimizer: str, path: Path, title: str, class_names: dict[str, str]
) -> None:
    """Recall per class and weighting, as in the paper's Figures 1 and 2."""
    rows = summary.loc[optimizer]
    losses = [loss for loss in LOSSES if loss in rows.index.get_level_values("loss")]
    figure, axes = plt.subplots(
        len(losses), 2, figsize=(11, 1 + 2.9 * len(losses)), sharey=True, squeeze=False,
        gridspec_kw={"width_ratios": [len(NON_MELANOCYTIC), len(MELANOCYTIC)]},
        layout="constrained",
    )  # fmt: skip
    for line, loss in zip(axes, losses, strict=True):
        of_loss = rows.loc[loss]
        weightings = [weighting for weighting in WEIGHTINGS if weighting in of_loss.index]
        width = 0.8 / len(weightings)
        for axis, classes in zip(line, (NON_MELANOCYTIC, MELANOCYTIC), strict=True):
            for position, weighting in enumerate(weightings):
                recall = of_loss.loc[weighting, [f"recall_{c}" for c in classes]]
                offset = (position - (len(weightings) - 1) / 2) * width
                axis.bar(
                    [tick + offset for tick in range(len(classes))], recall, 0.92 * width,
                    color=COLORS[list(WEIGHTINGS).index(weighting)],
                    label=WEIGHTING_NAMES[weighting].replace("-", "no weighting"),
                )  # fmt: skip
            axis.set_xticks(range(len(classes)), [class_names[c] for c in classes], fontsize=9)
            axis.set_ylim(0, 100)
            axis.grid(axis="y", color="#dddddd", linewidth=0.7)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(f"{LOSS_NAMES[loss]}: recall (%)")
    axes[0, 0].set_title("non-melanocytic (the paper's Figure 1)", fontsize=10)
    axes[0, 1].set_title("melanocytic (Figure 2)", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)


assert set(NON_MELANOCYTIC + MELANOCYTIC) == set(CLASSES)
