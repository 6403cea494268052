"""The command line: ``python -m sampleweights compare features.npz --output comparison/``."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampleweights.compare import compare, default_entries, default_label_entries
from sampleweights.compare.checks import CODES
from sampleweights.compare.inputs import load
from sampleweights.compare.inputs.images import DEFAULT_ENCODER
from sampleweights.compare.objective import LABEL_OBJECTIVES, OBJECTIVES, Objective
from sampleweights.compare.outputs import (
    MARK,
    PAGE,
    PICTURE,
    RUNS,
    SUSPICIOUS,
    TABLE,
    check_output,
    remove_own,
    replacing,
)
from sampleweights.compare.training.cluster import dask_scheduler
from sampleweights.compare.training.entries_file import entries_of_file

__all__ = ["main"]

DESCRIPTION = """\
Which class weighting, hard-example mining, margin or sampling is worth its
training on your data? Each is trained in the same cross-validation, a small
head on features that do not change. INPUT is one of
  table.csv                 or .tsv, .csv.gz, .parquet: all columns but those
                            of --target, --group, --folds, --drop are features
  features.npz              or .safetensors: features (N, D) and target (N,),
                            perhaps groups (N,), folds (N,), class_names (C,)
  features.npy target.npy   the same as two files
  images/                   a sub-folder of images for each class, or any with
                            --labels FILE, a table with a row for each image"""

EXAMPLES = """\
  python -m sampleweights compare lesions.csv --target diagnosis --group patient
  python -m sampleweights compare features.npz --output comparison/
Started again, a command that was stopped goes on where it stopped."""


def parser() -> argparse.ArgumentParser:
    """The options, each in one line: the help fits on a screen."""
    made = argparse.ArgumentParser(
        prog="python -m sampleweights compare",
        usage="%(prog)s INPUT [TARGET.npy] [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=28, width=80
        ),
        add_help=False,
    )
    made.add_argument("input", nargs="*", type=Path, metavar="INPUT", help=argparse.SUPPRESS)

    add = made.add_argument_group("input").add_argument
    classes = "the classes; or several columns of 0 and 1"
    add("--target", nargs="*", default=[], metavar="COLUMN", help=classes)
    add("--group", metavar="COLUMN", help="what must stay together, such as patients")
    add("--drop", nargs="*", default=[], metavar="COLUMN", help="columns that are no features")
    add("--groups", type=Path, metavar="FILE", help="an .npy file with them, for arrays or images")
    add("--class-names", nargs="*", metavar="NAME", help="in the order of the labels")
    add("--labels", type=Path, metavar="FILE", help="the table of a folder of images")
    add("--image", metavar="COLUMN", help="its column that names the images")
    add("--encoder", metavar="MODEL", help=f"the timm model for images ({DEFAULT_ENCODER})")
    add("--weights", metavar="FILE", help="its weights: a file, random or imagenet (default)")

    add = made.add_argument_group("comparison").add_argument
    place, count = Path("comparison"), at_least(1)
    goals = [*dict.fromkeys([*OBJECTIVES, *LABEL_OBJECTIVES])]
    words = f"{goals[0]} (default), {', '.join(goals[1:])}"
    named = "how many (5); or a column, or an .npy file, of them"
    epochs = "of each training (by the number of samples)"
    codes = "checks not to be told; --ignore alone lists them"
    add("--output", type=Path, default=place, metavar="DIR", help="for all files (comparison/)")
    add("--objective", choices=goals, metavar="NAME", help=words)
    add("--utility", type=Path, metavar="FILE", help="or a table: what each decision is worth")
    add("--folds", type=folds, metavar="N|COLUMN", help=named)
    add("--repeats", type=count, default=1, metavar="N", help="of the cross-validation (1)")
    add("--num-epochs", type=count, metavar="N", help=epochs)
    add("--rows", nargs="*", metavar="NAME", help="only these rows; --rows alone lists them")
    add("--entries", type=Path, metavar="FILE", help="a Python file that defines rows of your own")
    add("--dask", metavar="ADDRESS", help="train on a Dask scheduler's workers (or its .json)")
    add("--ignore", nargs="*", metavar="CODE", help=codes)
    add("--seed", type=int, default=0, metavar="N", help="of folds and trainings (0)")
    add("--workers", type=count, metavar="N", help="processes (one for each core)")
    add("--no-progress", action="store_true", help="no bars, and no row before the table")
    add("--help", "-h", action="help", help="show this")
    return made


def folds(text: str) -> int | str:
    """The type of ``--folds``: a number of folds, or where they are."""
    try:
        int(text)
    except ValueError:
        return text
    return int(at_least(2)(text))


def at_least(low: int) -> Any:
    """The type of an option: an integer that is not below ``low``."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {low}, got {text}")
        return value

    return integer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``compare``; the exit status is 0, or 1 for an error, which is told in one sentence."""
    given = parser()
    args = given.parse_args(arguments)
    if not args.input:
        given.error("INPUT is missing: it comes first, as in compare table.csv --target COLUMN")
    if args.utility is not None and args.objective is not None:
        given.error("--utility is an objective of its own: give it without --objective")
    both = {**default_entries(), **default_label_entries()}
    entries = None
    try:
        if args.entries is not None:
            both = entries = entries_of_file(args.entries)
    except (ValueError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    for flag, named, known in (("--rows", args.rows, both), ("--ignore", args.ignore, CODES)):
        unknown = [name for name in named or () if name not in known]
        if unknown or named == []:
            got = ", ".join(map(repr, unknown)) or "none"
            given.error(f"{flag} must be of {', '.join(known)}, got {got}")
    try:
        with dask_scheduler(args.dask):
            run(args, entries)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on with what is finished", file=sys.stderr)
        return 130
    return 0


def chosen(entries: dict[str, Any], rows: Sequence[str] | None) -> dict[str, Any]:
    """The baseline, and those of the entries that ``--rows`` names."""
    if rows is None:
        return entries
    unknown = [name for name in rows if name not in entries]
    if unknown:
        raise ValueError(f"--rows must be of {', '.join(entries)}, got {', '.join(unknown)}")
    return {name: entries[name] for name in entries if name in (next(iter(entries)), *rows)}


def run(args: argparse.Namespace, entries: dict[str, Any] | None = None) -> None:
    """Compare, show the answer and write it."""
    others = (args.groups, args.labels, args.weights, args.utility, args.entries)
    read = [*args.input, *(Path(path) for path in others if path is not None)]
    check_output(args.output, read)
    utility = None if args.utility is None else utility_table(args.utility)  # before images
    inputs = load(
        args.input,
        output=args.output,
        target=args.target,
        group=args.group,
        groups=args.groups,
        folds=args.folds if isinstance(args.folds, str) else None,
        drop=args.drop,
        class_names=args.class_names,
        labels=args.labels,
        image=args.image,
        encoder=args.encoder,
        weights=args.weights,
        progress=not args.no_progress,
        say=say,
    )
    if entries is None:
        entries = default_entries() if inputs.target.ndim == 1 else default_label_entries()
    entries = chosen(entries, args.rows)
    objective = args.objective
    if utility is not None:
        objective = utility_of(utility, args.utility, len(inputs.class_names))
    own_folds = args.folds if isinstance(args.folds, int) or inputs.folds is None else inputs.folds
    args.output.mkdir(parents=True, exist_ok=True)
    comparison = compare(
        inputs.features,
        inputs.target,
        groups=inputs.groups,
        objective=objective,
        entries=entries,
        folds=5 if own_folds is None else own_folds,
        repeats=args.repeats,
        num_epochs=args.num_epochs,
        seed=args.seed,
        class_names=inputs.class_names,
        cache=args.output / RUNS,
        workers=args.workers,
        ignore=args.ignore or (),
        progress=not args.no_progress,
    )
    read_from = {"input": " ".join(map(str, args.input)), **inputs.facts}
    comparison.facts = {**read_from, **comparison.facts}
    with replacing(args.output / TABLE) as path:
        comparison.table().to_csv(path)
    if any(found.code == "suspicious-labels" for found in comparison.checks):
        with replacing(args.output / SUSPICIOUS) as path:
            comparison.suspicious_labels().to_csv(path, index=False)
    elif "suspicious-labels" not in (args.ignore or ()):
        remove_own(args.output / SUSPICIOUS)
    import matplotlib as mpl
    import matplotlib.pyplot as plt  # takes a second

    mpl.use("Agg")  # a picture needs no screen
    figure = comparison.plot().figure
    figure.set_layout_engine("none")  # it is done
    with replacing(args.output / PICTURE) as path:
        metadata = {"Software": MARK}
        figure.savefig(path, dpi=150, bbox_inches="tight", format="png", metadata=metadata)
    plt.close(figure)
    page = args.output / PAGE
    with replacing(page) as path:
        comparison.write_page(path)
    show(f"{comparison}\n\nThe page is {page}")


def say(name: str, text: str) -> None:
    """Tell how the input is read before anything is computed: it may not be what is wanted."""
    print(textwrap.fill(f"{name}: {text}", 96, subsequent_indent="  "), file=sys.stderr)


def show(text: str) -> None:
    """Print at last, when all files are written: the reader may have closed the pipe."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # head has seen enough; Python itself would write again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def utility_of(table: np.ndarray[Any, Any], path: Path, num_classes: int) -> Objective:
    """The objective that ``--utility`` names."""
    try:
        return Objective.of(table, num_classes)
    except ValueError as error:
        said = str(error).partition(" or a utility table ")[2] or str(error)
        raise ValueError(f"--utility must be a table {said} in {path}") from None


def utility_table(path: Path) -> np.ndarray[Any, Any]:
    """What ``--utility`` names."""
    if path.suffix == ".npy":
        table: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
        return table
    if path.suffix != ".csv":
        raise ValueError(f"--utility must be an .npy or a .csv file, got {path}")
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(
            f"--utility must be a table of numbers without a header, a row for each class and a "
            f"column for each decision, got {path}: {error}"
        ) from None


def sentence(error: Exception) -> str:
    """What an error says, without the number that the operating system gives it."""
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    return str(error)
