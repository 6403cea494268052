"""Which score finds wrong labels best?

python -m examples.wrong_labels                          # the tables of the kept results
python -m examples.wrong_labels run                      # measure again, on digits
python -m examples.wrong_labels run --features FILE.npz  # or on features, as compare reads them
python -m examples.wrong_labels page page.html           # the page of one training

The digits of scikit-learn are taken whole, and thinned so that the most frequent class has 60 times
as many samples as the rarest. 2, 5 or 10 % of the labels become those of other classes with the
same chance (uniform), or 5 % as often as the classes are (frequent). The head of ``compare`` is
trained on all samples, with a history of each sample, and five times out of fold. The tables say
what each score finds; ± is a 95 % interval over the runs. ``run`` needs cleanlab.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from examples.wrong_labels.results import KEPT, RUN, measured, tables
from examples.wrong_labels.samples import samples_of
from examples.wrong_labels.trainings import PLAIN, WEIGHTINGS, history_of, trained
from sampleweights.history import write_page

CONDITIONS = [("uniform", 0.02), ("uniform", 0.05), ("uniform", 0.1), ("frequent", 0.05)]
"""What wrong labels are, and the share of them."""


def run(arguments: argparse.Namespace) -> None:
    """Measure, and keep a line for each run; trainings that are there are not repeated."""
    try:
        importlib.import_module("cleanlab")  # before the first training
    except ImportError:
        raise SystemExit("error: the comparison needs cleanlab: pip install cleanlab") from None
    names = ["digits", "thinned"] if arguments.features is None else [arguments.name]
    for name in names:
        runs = [
            (noise, share, seed)
            for noise, share in CONDITIONS
            for seed in range(arguments.seeds)
            if (name, noise) != ("digits", "frequent")  # whose classes are as frequent as others
        ]
        weightings = [w for w in WEIGHTINGS if w != PLAIN] if name == "thinned" else []
        lines = []
        for noise, share, seed in tqdm(runs, desc=name):
            samples = samples_of(name, noise, share, seed, arguments.features)
            found = trained(samples, arguments.epochs, seed, arguments.cache, weightings)
            lines.append(
                dict(zip(RUN, (noise, share, seed), strict=True)) | measured(samples, found)
            )
        arguments.kept.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(arguments.kept / f"{name}.csv", index=False)


def page(path: str, epochs: int, seed: int = 0) -> None:
    """The page of one training without weights; it says of each changed label what it was."""
    samples = samples_of("thinned", "uniform", 0.05, seed)
    history = history_of(samples, epochs, seed)
    pairs = zip(samples.label, samples.given, strict=True)
    names = [str(i) if g == y else f"{i} was {y}" for i, (y, g) in enumerate(pairs)]

    def image(i: int) -> Tensor:  # 96 x 96 pixels, since a browser would blur 8 x 8
        pixels = torch.from_numpy(1 - samples.features[i]).view(8, 8)
        return pixels.repeat_interleave(12, 0).repeat_interleave(12, 1)

    title = "Digits, 60 : 1, 5% of the labels changed"
    write_page(path, history, image, torch.from_numpy(samples.given), names=names, title=title)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["tables", "run", "page"], nargs="?", default="tables")
    parser.add_argument("path", nargs="?", default="page.html", help="of the page")
    parser.add_argument("--features", type=Path, metavar="FILE", help="an .npz file, as of compare")
    parser.add_argument("--name", default="features", help="of the results with --features")
    parser.add_argument("--seeds", type=int, default=5, help="runs with each share")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--kept", type=Path, default=KEPT, help="the folder of the results")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/wrong-labels"), help="of trainings"
    )
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # small tensors: more threads are slower
    if arguments.command == "page":
        page(arguments.path, arguments.epochs)
        return
    if arguments.command == "run":
        run(arguments)
    print(tables(arguments.kept))


if __name__ == "__main__":
    main(parse_arguments())
