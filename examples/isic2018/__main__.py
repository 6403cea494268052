"""The command line: python -m examples.isic2018 reproduce."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import nn
from tqdm import tqdm

from examples.isic2018 import data, features, models, report
from examples.isic2018.training import LOSSES, OPTIMIZERS, WEIGHTINGS, Recipe, run

DESCRIPTION = """\
Which weighting helps on a long tail? Trains one model for each loss, weighting and optimiser on two
random 80/20 splits, and prints accuracy, balanced accuracy (mean recall of the classes), mean
precision and mean F1, averaged over the splits, with the paper's numbers in brackets.

  python -m examples.isic2018 reproduce
      on embedded 8x8 digits, seven of them thinned to the proportions of ISIC 2018

  python -m examples.isic2018 reproduce --data-root DIR
      on the skin-lesion images of ISIC 2018 Task 3, from the files as they are downloaded into DIR:
      ISIC2018_Task3_Training_Input, ISIC2018_Task3_Training_GroundTruth (.zip or folder) and
      ISIC2018_Task3_Training_LesionGroupings.csv; needs pip install ".[images]"

Runs are written to results.csv as they finish, and a run that is there is not repeated.
"""


@dataclass(frozen=True)
class Source:
    """Where the samples come from, and the model and recipe that suit them."""

    name: str
    fingerprint: str
    title: str
    class_names: dict[str, str]
    split: Callable[[int], data.Split]
    build_model: Callable[[data.Split], nn.Module]
    recipe: Recipe


def digits() -> Source:
    return Source(
        "digits",
        "digits",
        "long-tailed digits, small CNN",
        {c: f"digit {d}\nas {c}" for c, d in zip(data.CLASSES, data.DIGITS, strict=True)},
        data.digits_split,
        models.digits_network,
        Recipe(epochs=60, batch_size=20, learning_rate={"adam": 1e-3, "sgd": 1e-2}),
    )


def images(root: Path, cache: Path) -> Source:
    official = data.isic(root)
    inputs = features.cached_features(official, cache)[:, None]  # a single view
    return Source(
        "isic2018",
        official.fingerprint[:12],
        f"ISIC 2018 ({len(inputs):,} images), head on frozen {features.BACKBONE}",
        report.LESION_NAMES,
        lambda seed: data.isic_split(official.table, inputs, seed),
        models.head,
        Recipe(
            epochs=20,
            batch_size=256,
            learning_rate={"adam": 1e-3, "sgd": 2e-2},
            weight_decay=1e-3,
        ),
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.isic2018",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "reproduce",
        help="train all rows and show the table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = command.add_mutually_exclusive_group()
    where.add_argument("--data", choices=["digits"], default="digits", help="embedded data")
    where.add_argument("--data-root", type=Path, metavar="DIR", help="the ISIC 2018 files")
    command.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=OPTIMIZERS)
    command.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    command.add_argument(
        "--weightings", nargs="+", choices=WEIGHTINGS, default=list(WEIGHTINGS), metavar="W",
        help=f"of {', '.join(WEIGHTINGS)}",
    )  # fmt: skip
    command.add_argument("--splits", type=int, default=2, help="random 80/20 splits (2)")
    command.add_argument("--epochs", type=int, help="of each run (what suits the data)")
    command.add_argument("--gamma", type=float, default=1.0, help="of the focal loss (1)")
    command.add_argument(
        "--output", type=Path, default=Path("runs"), metavar="DIR",
        help="for results.csv, the figures and cached features (runs)",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    for name in ("splits", "epochs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    return args


def reproduce(args: argparse.Namespace) -> None:
    cache = args.output / "features"
    source = digits() if args.data_root is None else images(args.data_root, cache)
    recipe = replace(source.recipe, gamma=args.gamma, epochs=args.epochs or source.recipe.epochs)
    folder = args.output / source.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.csv"

    # what a run depends on; a finished one is not repeated, one with other settings is another one
    settings = {
        "data": source.fingerprint, "epochs": recipe.epochs, "batch_size": recipe.batch_size,
        "weight_decay": recipe.weight_decay, "gamma": recipe.gamma,
    }  # fmt: skip
    grid = [
        settings | {
            "learning_rate": recipe.learning_rate[optimizer], "optimizer": optimizer,
            "loss": loss, "weighting": weighting, "split": split,
        }
        for split, optimizer, loss, weighting in itertools.product(
            range(args.splits), args.optimizers, args.losses, args.weightings
        )
    ]  # fmt: skip
    keys = list(grid[0])
    results = report.read_results(path)
    done = set() if results.empty else set(results[keys].itertuples(index=False, name=None))
    splits: dict[int, data.Split] = {}
    with tqdm(grid, unit="run") as bar:
        for row in bar:
            if tuple(row.values()) in done:
                continue
            seed, optimizer, loss, weighting = (row[k] for k in ("split", *report.ROW))
            bar.set_description(f"split {seed}, {optimizer}, {loss}, {weighting}")
            if seed not in splits:
                splits[seed] = source.split(seed)
            start = time.perf_counter()
            metrics = run(
                source.build_model, splits[seed], recipe,
                optimizer=optimizer, loss=loss, weighting=weighting, seed=seed,
            )  # fmt: skip
            seconds = round(time.perf_counter() - start, 2)
            report.append_result(path, {**row, **metrics, "seconds": seconds})

    results = report.read_results(path).merge(pd.DataFrame(grid), on=keys)
    summary = report.summarize(results)
    for optimizer in args.optimizers:
        title = (
            f"{source.title}; {report.OPTIMIZER_NAMES[optimizer]}, {recipe.epochs} epochs, "
            f"mean of {args.splits} splits"
        )
        print(f"\n{title} (in brackets: the paper, flat VGG16 + CBAM on ISIC 2018)\n")
        print(report.format_table(summary, optimizer))
        figure = folder / f"recall-{optimizer}.png"
        report.plot_recall(summary, optimizer, figure, title, source.class_names)
        print(f"\nrecall per class: {figure}")
    print(f"\nall runs: {path}")


def main() -> None:
    args = parse_arguments()
    try:
        reproduce(args)
    except data.DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
