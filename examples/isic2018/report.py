"""report.md and report.html: tables, on the images beside the paper's, claims, figures."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import markdown
import pandas as pd
from matplotlib.figure import Figure

from examples.isic2018 import decisions, figures
from examples.isic2018.claims import claims_table
from examples.isic2018.figures import LOSS_NAMES, WEIGHTING_NAMES
from examples.isic2018.gains import sentence
from examples.isic2018.gains import summary as summary_of_gains
from examples.isic2018.kept import Kept, keep
from examples.isic2018.outputs import output
from examples.isic2018.recipes import LOSSES, POSTHOC, READINGS, WEIGHTINGS, settings
from examples.isic2018.results import METRICS, PAPER_TABLES, Results

MODEL_NAMES = {"flat": "flat model", "hierarchical": "hierarchical model"}
OPTIMIZER_NAMES = {"adam": "Adam", "sgd": "SGD"}
DIGITS_PURPOSE = (
    "This run takes a few minutes and shows what each weighting does on real, small, long-tailed "
    "data (8x8 images of digits); it does not reproduce the paper's numbers, which need the images "
    "(--data-root)."
)

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em;
       color: #1f2328; background: #fff }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; display: block; overflow-x: auto;
        font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #d0d7de; padding: .25em .7em }
th { border-bottom-width: 2px; text-align: left }
td[style*="right"] { white-space: nowrap }
img { max-width: 100%; height: auto }
h2 { margin-top: 2em; border-bottom: 1px solid #d0d7de }
code { background: #f2f4f6; padding: .1em .3em; border-radius: 4px; font-size: 90% }
"""


def split_count(number: int) -> str:
    return "one split" if number == 1 else f"mean of {number} splits"


def table_title(model: str, optimizer: str, paper: pd.DataFrame) -> str:
    name = f"{MODEL_NAMES[model]}, {OPTIMIZER_NAMES[optimizer]}"
    if paper.empty:
        return f"{name[0].upper()}{name[1:]}"
    return f"Table {PAPER_TABLES[model, optimizer]}: {name}"


def format_table(summary: pd.DataFrame, model: str, optimizer: str, paper: pd.DataFrame) -> str:
    """The rows of a model and an optimiser as Markdown: ours, and the paper's in brackets."""
    width = 5 if paper.empty else 11
    lines = [
        "| loss | weighting | " + " | ".join(METRICS.values()) + " |",
        "|---|---|" + "--:|" * len(METRICS),
    ]
    for loss in LOSSES:
        for weighting in WEIGHTINGS | POSTHOC:
            row = (model, optimizer, loss, weighting)
            if row not in summary.index:
                continue
            cells = [f"{summary.loc[row, metric]:.1f}" for metric in METRICS]
            if row in paper.index:
                cells = [
                    f"{cell} ({paper.loc[row, metric]:.1f})" if metric in paper else cell
                    for cell, metric in zip(cells, METRICS, strict=True)
                ]
            names = f"{LOSS_NAMES[loss]:<5} | {WEIGHTING_NAMES[weighting]:<21}"
            lines.append(f"| {names} | " + " | ".join(f"{cell:<{width}}" for cell in cells) + " |")
    return "\n".join(lines)


def kept_tables(kept: Kept) -> str:
    """Tables and claims of kept runs, which need no images."""
    summary, splits = kept.summary(), split_count(kept.metrics["split"].nunique())
    text = [f"{splits.capitalize()}; in brackets the paper's numbers. {kept.incomplete}".strip()]
    for model, optimizer in PAPER_TABLES:
        if (model, optimizer) in {row[:2] for row in summary.index}:
            text.append(table_title(model, optimizer, kept.paper))
            text.append(format_table(summary, model, optimizer, kept.paper))
    return "\n\n".join([*text, "Claims", claims_table(kept)])


def gamma_table(results: Results) -> str:
    """Focal loss without weights at every gamma that was run; empty if there is only one."""
    metrics = results.metrics()
    metrics = metrics[(metrics["loss"] == "focal") & (metrics["weighting"] == "none")]
    mean = metrics.groupby(["model", "optimizer", "gamma"], sort=False)[list(METRICS)].mean()
    if mean.index.get_level_values("gamma").nunique() < 2:
        return ""
    lines = [
        "| model | optimiser | gamma | " + " | ".join(METRICS.values()) + " |",
        "|---|---|--:|" + "--:|" * len(METRICS),
    ]
    for (model, optimizer, gamma), row in mean.sort_index().iterrows():
        cells = " | ".join(f"{row[metric]:.1f}" for metric in METRICS)
        lines.append(f"| {model} | {OPTIMIZER_NAMES[optimizer]} | {gamma:g} | {cells} |")
    return "\n".join(lines)


def counts_table(results: Results) -> str:
    """Images per class, in all and on both sides of each split."""
    dataset = results.dataset
    target = dataset.target
    header, align = ["class", "images"], ["---", "--:"]
    columns = [target.bincount(minlength=len(dataset.classes)).tolist()]
    for seed, split in dataset.split.items():
        for part, rows in (("training", split.train), ("validation", split.validation)):
            header.append(f"split {seed}, {part}")
            align.append("--:")
            columns.append(target[rows].bincount(minlength=len(dataset.classes)).tolist())
    if dataset.test is not None:
        header.append("test set")
        align.append("--:")
        columns.append(dataset.test.target.bincount(minlength=len(dataset.classes)).tolist())
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(align)}|"]
    for position, name in enumerate(dataset.classes):
        cells = [name, *(f"{column[position]:,}" for column in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_report(
    results: Results, folder: Path, command: str, with_recall: bool = False
) -> tuple[Path, Path, str]:
    """Write report.md, report.html, gains.json and figures/ into ``folder``; the paths of the page
    and of the picture of its first table, and a sentence of what was fitted."""
    summary = results.summary()
    recipe = results.runs[0].recipe
    combinations = list(dict.fromkeys(row[:2] for row in summary.index))
    beside = not results.paper.empty
    told = (
        f"{results.dataset.title}. {len(results.finished)} of {len(results.runs)} runs, "
        f"{split_count(len(results.dataset.split))}, random and 80/20"
    )
    if beside:
        told += (
            "; in brackets the paper's numbers, for VGG16 trained end to end on images of 299x299"
        )
    else:
        told += f". {DIGITS_PURPOSE}"
    told = told.removesuffix(".")
    if any(model == "hierarchical" for model, _ in combinations):
        told += (
            ". The hierarchical model decides by "
            f"{'greedy decoding' if results.decode == 'greedy' else 'the product along each path'}"
        )
    text = [
        "# How important is each dermoscopy image? Reproduced" if beside
        else "# What each weighting does on a long tail of digits",
        f"{told}. All in percent. Written by `{command}`.",
        results.incomplete,
    ]  # fmt: skip

    def add_figure(figure: Figure, name: str, caption: str) -> Path:
        path = folder / "figures" / f"{name}.png"
        figures.save(figure, path)
        text.append(f"![{caption}](figures/{path.name})\n\n*{caption}.*")
        return path

    def of_paper(number: str) -> str:
        return f" (the paper's Figure {number})" if beside else ""

    loss = next(loss for loss in LOSSES if loss in summary.index.get_level_values("loss"))
    pictures = []
    for model, optimizer in PAPER_TABLES:
        if (model, optimizer) in combinations:
            title = table_title(model, optimizer, results.paper)
            text += [f"## {title}", format_table(summary, model, optimizer, results.paper)]
            caption = (
                f"Accuracy over balanced accuracy, with 95 % intervals; {MODEL_NAMES[model]}, "
                f"{OPTIMIZER_NAMES[optimizer]}, {LOSS_NAMES[loss]}"
            )
            kinds = {row[3] in READINGS for row in summary.index if row[:2] == (model, optimizer)}
            if len(kinds) == 2:
                caption += "; the rows “bare” and “/ kept” are in the table alone"
            figure = figures.tradeoff(results, model, optimizer, loss)
            pictures.append(add_figure(figure, f"tradeoff-{model}-{optimizer}-{loss}", caption))
    gained = summary_of_gains(results, command, with_recall)
    with output(folder / "gains.json") as file:
        file.write_text(json.dumps(gained, indent=1) + "\n", encoding="utf-8")
    text += [
        sentence(gained),
        "## Claims",
        "Each line is a statement of the paper, a question that it leaves open, or a reading of "
        "its equations. The columns say in how many of its comparisons it is borne out"
        + (", in the paper's tables and in these," if beside else "")
        + " and the mean difference of ours, with an interval from a paired bootstrap over the "
        + ("lesions" if beside else "images")
        + " of the validation sets. The models are not trained again, so the spread between "
        "trainings is not in the interval.",
        claims_table(results),
    ]
    if beside:
        keep(results, folder)
    parts = decisions.of_results(results)
    if beside or parts:
        decisions.write_labels(results, folder)
    if parts:
        text += ["## Decisions", *decisions.section(parts)]
    if gammas := gamma_table(results):
        text += ["## Gamma of the focal loss", gammas]
    test = results.summary("test")
    if not test.empty:
        runs = results.metrics("test")
        text.append("## The public test set")
        text.append(
            f"The official test set of ISIC 2018 Task 3: no run was trained or selected on it. "
            f"{len(runs)} of {len(results.finished)} finished runs were evaluated on it; every row "
            f"is the mean over its splits. In brackets are the paper's numbers, which are those of "
            f"its validation splits."
        )
        text += [
            f"### Test set: {MODEL_NAMES[model]}, {OPTIMIZER_NAMES[optimizer]}\n\n"
            f"{format_table(test, model, optimizer, results.paper)}"
            for model, optimizer in combinations
            if (model, optimizer) in {row[:2] for row in test.index}
        ]
        if parts := decisions.of_test(results):
            text.append("### Test set: decisions")
            text += decisions.section(parts, decisions.FITTED_FOR_TEST)
    text.append("## Recall per class")
    for model, optimizer in combinations:
        name = f"{MODEL_NAMES[model]}, {OPTIMIZER_NAMES[optimizer]}"
        caption = f"Recall per class and weighting, {name}"
        caption += " (the paper's Figures 1 and 2)" if beside else ""
        add_figure(
            figures.recall(results, model, optimizer), f"recall-{model}-{optimizer}", caption
        )
    for model, optimizer in combinations[:2] if len(combinations) > 2 else combinations:
        of = (model, optimizer, loss)
        slug = "-".join(of)
        if not figures.papers_rows(results, *of):
            continue
        name = f"{MODEL_NAMES[model]}, {OPTIMIZER_NAMES[optimizer]}, {LOSS_NAMES[loss]}"
        text.append(f"## {name[0].upper()}{name[1:]}")
        add_figure(
            figures.confusion(results, *of), f"confusion-{slug}",
            f"Confusion matrices of all splits together, rows in percent; {name}",
        )  # fmt: skip
        add_figure(figures.curves(results, *of), f"curves-{slug}", f"Training, split 0; {name}")
        models = figures.kept_models(results, *of)
        for number, difficulty in (("3", "hard"), ("4", "easy")) if models else ():
            add_figure(
                figures.attention(results, models, difficulty), f"attention-{slug}-{difficulty}",
                f"{difficulty.capitalize()} examples: spatial attention of the last decision, and "
                f"the channel with the largest gate, over the image, for each weighting; below, "
                f"the predicted class, green where it is right; {name}{of_paper(number)}",
            )  # fmt: skip
    text += [
        "## Data and settings",
        counts_table(results),
        "\n".join(
            ["| setting | value |", "|---|---|"]
            + [f"| {name} | {value} |" for name, value in settings(recipe).items()]
        ),
    ]
    body = "\n\n".join(text) + "\n"
    with output(folder / "report.md") as file:
        file.write_text(body, encoding="utf-8")
    page = folder / "report.html"
    with output(page) as file:
        file.write_text(to_html(body, folder), encoding="utf-8")
    return page, pictures[0], sentence(gained)


def to_html(text: str, folder: Path) -> str:
    """One page that holds its images, so that it can be sent as it is."""

    def embed(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = markdown.markdown(text, extensions=["tables"])
    body = re.sub(r'src="(figures/[^"]+)"', embed, body)
    title = text.splitlines()[0].lstrip("# ")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
