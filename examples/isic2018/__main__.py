"""The command line: python -m examples.isic2018 reproduce."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.isic2018 import decisions, encoders, importance, official, throughput
from examples.isic2018.grid import Job, run_all
from examples.isic2018.kept import KEPT, Kept
from examples.isic2018.official import DataError
from examples.isic2018.outputs import output, refuse_others
from examples.isic2018.recipes import (
    FIRST,
    LOSSES,
    MODELS,
    OPTIMIZERS,
    POSTHOC,
    PRESETS,
    WEIGHTINGS,
    Recipe,
    has_native_bfloat16,
    in_grid,
    settings,
)
from examples.isic2018.report import (
    DIGITS_PURPOSE,
    format_table,
    kept_tables,
    split_count,
    table_title,
    write_report,
)
from examples.isic2018.results import PAPER_TABLES, Results
from examples.isic2018.sources import Source, accept, runs_of_other_data, write_parts
from examples.isic2018.training import Run, adjust

GAMMAS = (0.5, 1.0, 2.0, 5.0)
OUTPUTS = {
    "prepare": ("files.csv",),
    "report": ("report.md", "report.html", "gains.json"),
    "reproduce": ("report.md", "report.html", "gains.json"),
    "features": ("features.npz",),
    "importance": ("importance.csv", "importance.html"),
}
"""What a command writes at its end, where it is better told at once that it would be refused."""

DESCRIPTION = """\
Which weighting helps on a long tail? Barata & Santiago, "How Important Is Each Dermoscopy Image?"
(CVPR Workshops 2020), reproduced: two models, two optimisers, two losses and five weightings on two
random 80/20 splits, and the rows that the paper leaves open.

  python -m examples.isic2018 reproduce
      on 8x8 images of digits, which need no download: seven of them, thinned to the proportions of
      ISIC 2018's classes. It takes a few minutes and shows what each weighting does on the flat
      model with Adam and cross-entropy, and whether the model without weights has fitted the
      rarest class, which decides between weights and post-hoc adjustment; --full runs every row on
      both models

  python -m examples.isic2018 reproduce --data-root DIR --preset fast
      on the skin-lesion images of ISIC 2018 Task 3, with a frozen ImageNet backbone, on a CPU;
      --preset small trains the whole network on small images, in hours on a CPU; --preset paper
      is the paper's own training, --preset modern what one would do today (both want GPUs)

  python -m examples.isic2018 features --data-root DIR --preset fast
      writes the features of the frozen backbone, one row for each image, into a file that
      `python -m sampleweights compare` reads

  python -m examples.isic2018 prepare --data-root DIR
      downloads the ISIC 2018 files into DIR if neither form is there, and computes what is cached

DIR holds the training set in one of two forms, which give the same splits:
  ISIC 2018 Task 3, from https://challenge.isic-archive.com/data/#2018:
      ISIC2018_Task3_Training_Input (.zip or the unpacked folder), and
      ISIC2018_Task3_Training_GroundTruth and ISIC2018_Task3_Training_LesionGroupings (.csv, .zip
      or the unpacked folder)
  HAM10000, from Harvard Dataverse (https://doi.org/10.7910/DVN/DBW86T) or Kaggle:
      HAM10000_images_part_1 and HAM10000_images_part_2 (.zip or the unpacked folders) or any
      folders that hold the images, and HAM10000_metadata (.csv, .tab or no suffix)
What is there in any of these forms is not downloaded again.

A run is written as it goes; one that is finished is not repeated, one that was killed goes on from
its last epoch. `COMMAND --help` lists the options.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.isic2018",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    data = argparse.ArgumentParser(add_help=False)
    where = data.add_argument_group("data")
    where.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="the files of ISIC 2018 or of HAM10000; without: the embedded digits",
    )
    where.add_argument(
        "--mirror",
        default=official.MIRROR,
        metavar="URL-or-DIR",
        help="prepare brings missing files from here (ISIC's own server)",
    )
    where.add_argument(
        "--with-test",
        action="store_true",
        help="the public test set too, evaluated at the end, reported apart",
    )
    where.add_argument(
        "--near-duplicates", type=Path, metavar="CSV",
        help="pairs of images of one lesion (those that are known of HAM10000, or "
             "ham10000-near-duplicates.csv in DIR or beside it)",
    )  # fmt: skip
    where.add_argument("--splits", type=int, default=2, help="random 80/20 splits (2)")
    where.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR",
                       help="for runs, splits, caches and the report (runs)")  # fmt: skip
    recipe = data.add_argument_group("recipe (a preset's values, unless given)")
    recipe.add_argument("--preset", choices=[p for p in PRESETS if p != "digits"],
                        help="paper (the default), fast, small or modern")  # fmt: skip
    for option in fields(Recipe):
        add_option(recipe, option.name, option.default, option.metadata["help"])

    rows = argparse.ArgumentParser(add_help=False)
    which = rows.add_argument_group("rows")
    which.add_argument("--models", nargs="+", choices=MODELS)
    which.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS)
    which.add_argument("--losses", nargs="+", choices=LOSSES)
    choices = [*WEIGHTINGS, *POSTHOC]
    which.add_argument("--weightings", nargs="+", choices=choices, metavar="W",
                       help=f"of {', '.join(choices)} (all)")  # fmt: skip
    which.add_argument("--full", action="store_true",
                       help="all rows of the digits too (of the images all are run anyway); so "
                            "does naming models, optimizers, losses or weightings")  # fmt: skip
    which.add_argument("--tune-gamma", action="store_true",
                       help=f"focal loss without weights at gamma {GAMMAS} too")  # fmt: skip
    how = rows.add_argument_group("how")
    how.add_argument("--train-recall", action="store_true",
                     help="the recall of each class on the training part too, of the models that "
                          "were kept (of the digits anyway)")  # fmt: skip
    how.add_argument("--workers", type=int,
                     help="processes, or jobs of a cluster (one per core, or per GPU)")  # fmt: skip
    how.add_argument("--devices", type=int, default=1, help="GPUs of each run, by DDP (1)")
    how.add_argument("--cluster", choices=["local", "slurm"], default="local")
    how.add_argument("--slurm", nargs="+", default=[], metavar="NAME=VALUE",
                     help="for submitit, as slurm_partition=gpu timeout_min=600")  # fmt: skip
    how.add_argument("--data", metavar="NAME",
                     help="take the finished runs of these data, whose image files are others "
                          "(the name is told where there are such runs)")  # fmt: skip
    how.add_argument("--decode", choices=["product", "greedy"], default="product",
                     help="how the report reads the hierarchical model (product)")  # fmt: skip

    parser_of: dict[str, argparse.ArgumentParser] = {}
    for name, parents, text in (
        ("prepare", [data], "download, check and cache the data, and write the splits"),
        ("train", [data, rows], "do the runs"),
        ("report", [data, rows], "write report.md and report.html of the finished runs"),
        ("reproduce", [data, rows], "prepare, train and report"),
        ("throughput", [data], "images per second of the input side and of the models, and MFU"),
        ("features", [data], "write the features of a frozen backbone for sampleweights compare"),
        ("importance", [data], "which images matter: train on all of them, and write a page"),
    ):
        parser_of[name] = commands.add_parser(name, parents=parents, help=text, description=text)
    of_kept = "decide by utility, with sets and at other priors from kept predictions; no images"
    kept = commands.add_parser("decisions", help=of_kept, description=of_kept)
    kept.add_argument("--kept", type=Path, default=decisions.KEPT, metavar="DIR",
                      help="runs with labels.npz beside them (docs/results/small)")  # fmt: skip
    of_tables = "print tables and claims of what report kept of its runs; no images"
    tables = commands.add_parser("tables", help=of_tables, description=of_tables)
    tables.add_argument("--kept", type=Path, default=KEPT, metavar="DIR",
                        help="metrics.csv, predicted.npz and labels.npz "
                             "(docs/results/fast-vgg16)")  # fmt: skip
    tables.add_argument("--models", nargs="+", choices=MODELS, default=MODELS,
                        help="whose tables and claims (both)")  # fmt: skip
    why = parser_of["importance"].add_argument_group("importance")
    why.add_argument("--weighting", choices=WEIGHTINGS, default="ohem", metavar="W",
                     help=f"of {', '.join(WEIGHTINGS)} (ohem)")  # fmt: skip
    why.add_argument("--flip", type=float, metavar="FRACTION",
                     help="change so many labels, print how well they are found, and show "
                          "them")  # fmt: skip
    args = parser.parse_args(arguments)
    if not 0 < (getattr(args, "flip", None) or 0.5) < 1:
        parser.error(f"--flip must be between 0 and 1, got {args.flip}")
    for pair in getattr(args, "slurm", []):
        if "=" not in pair:
            parser.error(f"--slurm must be NAME=VALUE, got {pair!r}")
    if hasattr(args, "full"):
        named = args.models or args.optimizers or args.losses or args.weightings
        short = args.data_root is None and not args.full and not named
        every = {"models": MODELS, "optimizers": OPTIMIZERS, "losses": LOSSES}
        for name, values in (FIRST if short else every).items():
            setattr(args, name, getattr(args, name) or values)
    for name in ("splits", "workers", "devices"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    return args


def add_option(group: Any, name: str, default: Any, text: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
    elif isinstance(default, tuple):
        of = type(default[0]) if default else int
        group.add_argument(flag, nargs="+", type=of, metavar="X", help=text)
    else:
        group.add_argument(flag, type=type(default), metavar="X", help=text)


def recipe_of(args: argparse.Namespace) -> Recipe:
    preset = "digits" if args.data_root is None else args.preset or "paper"
    given = {name: getattr(args, name) for name in settings(Recipe())}
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if v is not None}
    recipe = PRESETS[preset]
    # a preset for GPUs stays as it is where there is none: jobs may be sent to a cluster from there
    runs_here = preset != "modern" or torch.cuda.is_available()
    if recipe.half and runs_here and not has_native_bfloat16():
        recipe = replace(recipe, precision="32-true")
    return replace(recipe, **given)


def source_of(args: argparse.Namespace) -> Source:
    return Source(
        args.data_root, args.output / "cache", recipe_of(args), args.splits, args.with_test,
        args.near_duplicates,
    )  # fmt: skip


def slurm_parameters(pairs: Sequence[str]) -> dict[str, str | int]:
    """NAME=VALUE for submitit, whole numbers as such."""
    split = (pair.split("=", 1) for pair in pairs)
    return {name: int(value) if value.isdigit() else value for name, value in split}


def runs_of(args: argparse.Namespace, source: Source, fingerprint: str) -> list[Run]:
    recipe = source.recipe
    weightings = args.weightings or [*WEIGHTINGS, *POSTHOC]
    # what is adjusted has to be trained
    weightings = dict.fromkeys([*weightings, *(POSTHOC[w] for w in weightings if w in POSTHOC)])
    rows = itertools.product(
        range(args.splits), args.optimizers, args.models, args.losses, weightings
    )
    runs = [
        Run(model, optimizer, loss, weighting, split, recipe, fingerprint)
        for split, optimizer, model, loss, weighting in rows
        if args.weightings or in_grid(optimizer, loss, weighting)
    ]
    if args.tune_gamma:
        runs += [
            Run(model, optimizer, "focal", "none", split, replace(recipe, gamma=gamma), fingerprint)
            for split in range(args.splits)
            for model in args.models
            for optimizer in args.optimizers
            for gamma in GAMMAS
            if gamma != recipe.gamma
        ]
    return runs


def command(args: argparse.Namespace) -> None:
    if args.command == "decisions":
        print("\n\n".join(decisions.section(decisions.of_kept(args.kept))))
        return
    if args.command == "tables":
        print(kept_tables(Kept(args.kept, args.models)))
        return
    source = source_of(args)
    folder = args.output / source.name
    if args.data_root is None and args.command in ("train", "report", "reproduce"):
        print(DIGITS_PURPOSE, flush=True)
    missing = [name for name in ("timm", "kornia") if find_spec(name) is None]
    if args.data_root is not None and missing:
        raise DataError(
            f'the images need packages that the digits do without: pip install -e ".[examples]" '
            f"({' and '.join(missing)} can not be found)"
        )
    if args.command == "features" and not source.recipe.freeze_backbone:
        raise DataError(
            "features needs images and a frozen backbone: --data-root DIR --preset fast, or "
            "--freeze-backbone"
        )
    refuse_others(*(folder / name for name in OUTPUTS.get(args.command, ())))
    of_flat = args.command in ("importance", "features")
    models = ["flat"] if of_flat else getattr(args, "models", MODELS)
    if args.command in ("prepare", "reproduce") and args.data_root is not None:
        for part in ("Training", "Test") if args.with_test else ("Training",):
            official.download(part, args.data_root, args.mirror)
    datasets = {model: source.open(model) for model in models}
    dataset = next(iter(datasets.values()))
    for seed, split in dataset.split.items():
        split.to_csv(dataset.table, dataset.classes, seed, folder / "splits" / f"split-{seed}.csv")
    if args.command == "prepare":
        if args.data_root is not None:
            seen = folder / "files.csv"
            with output(seen) as file:
                file.write_text(official.seen_files(args.data_root), encoding="utf-8")
            print(f"what was seen of the official files: {seen}")
        print(f"{dataset.title}; splits: {folder / 'splits'}")
        return
    if args.command == "importance":
        folder.mkdir(parents=True, exist_ok=True)
        weighting, noise = args.weighting, None
        if args.flip is not None:  # the page of the same training, which has no weights
            weighting, noise = "none", importance.flip_labels(dataset.target, args.flip)
            print("\n".join(importance.detection(dataset, source.recipe, noise, folder)) + "\n")
        print(f"page: {importance.page(dataset, source.recipe, weighting, folder, noise)}")
        return
    if args.command == "features":
        path = folder / "features.npz"
        with output(path) as file:
            np.savez(
                file,
                features=encoders.mean_over_cells(dataset.inputs),
                target=dataset.target.numpy(),
                groups=dataset.table["group"].to_numpy(),
                class_names=dataset.classes,
            )
        print(f"features: {path}\nnext: python -m sampleweights compare {shlex.quote(str(path))}")
        return
    if args.command == "throughput":
        throughput.measure(datasets, source.recipe)
        return
    if args.data is not None:
        accept(dataset, folder / "runs", args.data)
    runs = runs_of(args, source, dataset.fingerprint)
    for sentence in runs_of_other_data(runs, dataset, folder / "runs"):
        print(sentence, file=sys.stderr, flush=True)
    derived = [run for run in runs if run.weighting in POSTHOC]
    if args.command in ("train", "reproduce"):
        write_parts(dataset, folder / "runs")
        workers = args.workers or max(1, torch.cuda.device_count() // args.devices)
        if args.workers is None and not torch.cuda.is_available():
            workers = torch.get_num_threads()
        trained = [run for run in runs if run.weighting not in POSTHOC]
        job = Job(source, trained, folder / "runs", workers, args.devices)
        run_all(job, args.cluster, **slurm_parameters(args.slurm))
    for run in derived:
        adjust(run, folder / "runs", datasets[run.model])
    if args.command in ("report", "reproduce"):
        results = Results(runs, folder / "runs", datasets, args.decode)
        if not results.finished:
            raise DataError(f"there is no finished run of these settings in {folder / 'runs'}")
        page, picture, fitted = write_report(
            results,
            folder,
            "python -m examples.isic2018 " + shlex.join(sys.argv[1:]),
            args.train_recall or args.data_root is None,
        )
        summary, paper = results.summary(), results.paper
        for model, optimizer in PAPER_TABLES:
            if (model, optimizer) in {row[:2] for row in summary.index}:
                title = table_title(model, optimizer, paper)
                told = "" if paper.empty else "; in brackets the paper's numbers"
                print(f"\n{dataset.title}. {title}, {split_count(args.splits)}{told}\n")
                print(format_table(summary, model, optimizer, paper))
        if results.incomplete:
            print(f"\n{results.incomplete}")
        if fitted:
            print(f"\n{fitted}")
        print(f"\npicture: {picture}\nreport: {page} (and report.md)")


def main() -> None:
    args = parse_arguments()
    try:
        command(args)
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        sys.stderr.flush()
        os._exit(130)


if __name__ == "__main__":
    main()
