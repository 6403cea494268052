"""Print a table behind the advice: ``python -m examples.advice rare-classes``."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable

import torch

from examples.advice import multi_label, noisy_labels, rare_classes, two_classes
from examples.advice.table import Table

TRIALS: dict[str, Callable[[int], Table]] = {
    "rare-classes": rare_classes.run,
    "noisy-labels": noisy_labels.run,
    "multi-label": multi_label.run,
    "two-classes": two_classes.run,
}


def main() -> None:
    described = "\n\n".join(
        f"{name}: {(inspect.getmodule(run).__doc__ or '').strip()}" for name, run in TRIALS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m examples.advice",
        description=described,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="in docs/results/advice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small tensors: more threads are slower
    table = TRIALS[arguments.trial](arguments.seeds)
    print(table)
    if arguments.save:
        table.save()


if __name__ == "__main__":
    main()
