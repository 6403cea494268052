r"""Time and memory, as ratios within one run.

python -m benchmarks                          # the losses; a few minutes on two cores
python -m benchmarks --shapes 64x7            # one shape of them
python -m benchmarks losses sizes selection selective sampling distributed history comparing \
    deciding head import training --save           # everything, and reports into benchmarks/results
python -m benchmarks plot                     # docs/images/benchmarks.png from those reports
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import (
    deciding,
    distributed,
    head,
    history,
    importing,
    losses,
    sampling,
    selection,
    selective,
)
from benchmarks.measure import RESULTS, Report, keep_freed_memory

SUITES = [
    "losses",
    "sizes",
    "selection",
    "selective",
    "sampling",
    "distributed",
    "history",
    "comparing",
    "deciding",
    "head",
    "import",
    "training",
    "plot",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time and memory of losses, selection, selective backpropagation, sampling, "
        "global batches, decisions, linear heads, comparisons, as ratios within one run.",
    )
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{', '.join(SUITES)} (losses)")
    parser.add_argument("--shapes", nargs="+", choices=losses.SHAPES | losses.ON_CUDA, default=[])
    parser.add_argument("--seconds", type=float, default=20, help="of measuring for each row (20)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save", action="store_true", help="write reports to --output")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the reports")
    args = parser.parse_args()
    suites = args.suites or ["losses"]
    if unknown := [suite for suite in suites if suite not in SUITES]:
        parser.error(f"unknown suite {unknown[0]!r}, expected one of {', '.join(SUITES)}")

    keep_freed_memory()
    for suite in suites:
        if suite == "plot":
            from benchmarks import plot  # alone it needs matplotlib

            print(plot.draw(args.output, args.device))
            continue
        report = Report(suite, args.device, args.output if args.save else None)
        if suite == "losses":
            losses.run(report, args.shapes, args.seconds)
        elif suite == "sizes":
            losses.run_sizes(report, args.seconds)
        elif suite == "selection":
            selection.run(report, args.seconds / 4)
        elif suite == "sampling":
            sampling.run(report, args.seconds / 4)
        elif suite == "deciding":
            deciding.run(report, args.seconds / 2)
        elif suite == "head":
            head.run(report, args.seconds)
        elif suite == "history":
            history.run(report, args.seconds / 2)
        elif suite == "comparing":
            from benchmarks import comparing  # alone it needs scipy

            comparing.run(report)
        elif suite == "import":
            importing.run(report)
        elif suite == "training":
            from benchmarks import training  # alone it needs the extra compare

            training.run(report)
        elif suite == "selective":
            selective.run(report, args.seconds)
        else:
            distributed.run(report, args.seconds)


if __name__ == "__main__":
    main()
