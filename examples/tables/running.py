"""All folds of all tables, in several processes; what is done already is not done again."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from examples.tables import trials
from examples.tables.reading import is_held_back, read, readable
from examples.tables.report import HALVES

__all__ = ["run_all", "write"]


def of_half(names: Iterable[str], half: str) -> list[str]:
    return [name for name in names if is_held_back(name) == (half == HALVES[1])]


def one(path: Path, fold: int, kept: Path) -> dict[str, Any]:
    """A fold of a table, as a line of the results."""
    torch.set_num_threads(1)
    table = trials.thinned(read(path))
    place = kept / f"{path.stem}-{fold}.npz"
    if not place.exists():
        trials.run(table, fold).save(place)
    counts = table.class_counts
    known = {
        "table": path.stem, "fold": fold, "samples": len(table.target), "classes": len(counts),
        "rarest": int(counts.min()), "imbalance": round(counts.max() / counts.min(), 1),
    }  # fmt: skip
    return {**known, **trials.judged(trials.Trial.load(place))}


def of_shuffled(path: Path, fold: int, kept: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {"table": path.stem, "fold": fold, **trials.shuffled(trials.thinned(read(path)))}


def run_all(
    data: Path, half: str, results: Path, kept: Path, workers: int, is_shuffled: bool = False
) -> list[dict[str, Any]]:
    """The lines of one half, from the results that are there and of what is still to be done.

    Args:
        data: the folder of the package.
        half: one of ``HALVES``.
        results: the CSV file, which is written anew after each fold.
        kept: the folder for logits; without them, all is trained again.
        workers: processes.
        is_shuffled: with classes that are shuffled, one comparison of each table.
    """
    kept.mkdir(parents=True, exist_ok=True)
    lines = load(results)
    done = {(line["table"], int(line["fold"])) for line in lines}
    found = readable(data)
    folds = 1 if is_shuffled else trials.FOLDS
    # one fold of all tables before the next: what is there at any time is of all sources
    todo = [(n, k) for k in range(folds) for n in of_half(found, half) if (n, k) not in done]
    step = of_shuffled if is_shuffled else one
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(step, found[name], fold, kept) for name, fold in todo]
        try:
            for future in tqdm(futures, desc=f"{half} half"):
                lines.append(future.result())
                write(results, lines)
        except BaseException:  # else the pool would do all folds that are left before it ends
            pool.shutdown(cancel_futures=True)
            raise
    return lines


def load(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*lines[0]], lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    partial.replace(path)
