"""From what the command line names to a data set that a model can be trained on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from examples.isic2018 import encoders
from examples.isic2018.data import (
    Dataset,
    digits,
    isic_split,
    lesion_groups,
    near_duplicates,
)
from examples.isic2018.official import DataError, Official, official, write_atomically
from examples.isic2018.prepare import digest, prepared_images
from examples.isic2018.recipes import Recipe
from examples.isic2018.training import RESULT, Run

LESION_NAMES = {
    "MEL": "melanoma", "NV": "nevus", "BCC": "basal cell\ncarcinoma", "AKIEC": "actinic\nkeratosis",
    "BKL": "benign\nkeratosis", "DF": "dermato-\nfibroma", "VASC": "vascular",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Everything that a data set depends on; small, so that other processes can open it too."""

    data_root: Path | None
    """The folder of the official files; None: the embedded digits."""
    cache: Path
    recipe: Recipe
    num_splits: int
    with_test: bool = False
    pairs: Path | None = None
    """The list of near-duplicates; None: the one that is found, or that of the example."""

    @property
    def name(self) -> str:
        return "digits" if self.data_root is None else "isic2018"

    def open(self, model: str) -> Dataset:
        """The data set as the model sees it; computed now if it is not in the cache."""
        if self.data_root is None:
            return digits(self.num_splits)
        source = official(self.data_root)
        dataset = self._dataset(source, "Training", model)
        pairs = self.pairs or near_duplicates(self.data_root)
        groups = lesion_groups(source.table, pairs)
        dataset.table["group"] = groups
        weights = Path(self.recipe.weights)
        dataset.fingerprint, dataset.parts = fingerprint(dataset.table, groups, weights)
        dataset.split = {
            seed: isic_split(source.table, groups, seed) for seed in range(self.num_splits)
        }
        if self.with_test:
            dataset.test = self._dataset(official(self.data_root, "Test"), "Test", model)
        return dataset

    def _dataset(self, source: Official, part: str, model: str) -> Dataset:
        recipe, table = self.recipe, source.table
        pictures = prepared_images(source, self.cache, part, recipe.size, recipe.color_gamma)
        inputs = pictures[:, None]
        how = "end to end"
        if recipe.freeze_backbone:
            stages = recipe.stages(model)
            with torch.random.fork_rng():  # "random" is the same whenever it is opened
                torch.manual_seed(0)
                backbone = encoders.load_backbone(recipe.backbone, stages, recipe.weights)
            encoder = encoders.Encoder(backbone, recipe.grid or None)
            size = f"{recipe.size[0]}x{recipe.size[1]}"
            gamma = f"gamma-{recipe.color_gamma:g}"
            what = "-".join([part.lower(), size, recipe.backbone, *stages, gamma])
            inputs = encoders.frozen_maps(
                encoder, what, pictures, list(table["signature"]), self.cache, recipe.half
            )[:, None]
            how = "frozen"
        return Dataset(
            name=self.name,
            title=f"ISIC 2018, {len(table):,} images of {recipe.size[0]}x{recipe.size[1]}, "
            f"{recipe.backbone} ({recipe.weights}), {how}",
            class_names=LESION_NAMES,
            fingerprint=digest(list(table["image"]), list(table["signature"])),
            table=table,
            pictures=pictures,
            inputs=inputs,
        )


def fingerprint(
    table: pd.DataFrame, groups: NDArray[np.int64], weights: Path
) -> tuple[str, dict[str, str]]:
    """A digest of all that decides the splits, and what is trained on; and one of each part."""
    names, files = table["image"].tolist(), table["signature"].tolist()
    of_weights = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    what = {
        "classes": table["target"].tolist(),
        "groups": groups.tolist(),
        "weights": of_weights,
    }
    parts = {
        part: digest(value) for part, value in {"names": names, **what, "files": files}.items()
    }
    return digest(digest(names, files), *what.values()), parts


# --------------------------------------------------------------------------------------------
# Runs of other data
# --------------------------------------------------------------------------------------------

DIFFERS = {
    "names": "have other images",
    "classes": "have other classes of the images",
    "groups": "group other images as one lesion, so that their splits are others (the list of "
    "near-duplicates: --near-duplicates)",
    "weights": "have other weights of the backbone",
    "files": "have image files of another size, checksum or time of change under the same names, "
    "classes and lesions",
}
"""What is said of data of which a part is another."""


def data_file(folder: Path, fingerprint: str) -> Path:
    """Beside the runs: what their data were."""
    return folder / f"data-{fingerprint}.json"


def write_parts(dataset: Dataset, folder: Path) -> None:
    """Write what the data are, so that what differs can be told later."""
    if dataset.parts and not data_file(folder, dataset.fingerprint).exists():
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataset.parts, indent=1) + "\n"
        write_atomically(data_file(folder, dataset.fingerprint), text)


def differences(dataset: Dataset, folder: Path, fingerprint: str) -> list[str] | None:
    """The parts in which other data differ; None where it is not known what they were."""
    path = data_file(folder, fingerprint)
    if not path.exists():
        return None
    before = json.loads(path.read_text())
    return [part for part, digest in dataset.parts.items() if before.get(part) != digest]


def runs_of_other_data(runs: Sequence[Run], dataset: Dataset, folder: Path) -> list[str]:
    """A sentence for each other data set of which there are finished runs with these settings.

    Their splits may be the same, and hours of training need not be repeated.
    """
    found: Counter[str] = Counter()
    for run in runs:
        if (folder / run.name / RESULT).exists():
            continue
        wanted = {
            name: value
            for name, value in json.loads(json.dumps(asdict(run))).items()
            if name != "data"
        }
        for result in folder.glob(f"{run.name.rpartition('-')[0]}-*/{RESULT}"):
            there = json.loads(result.read_text())
            if all(there.get(name) == value for name, value in wanted.items()):
                found[there["data"]] += 1
    told = []
    for fingerprint, number in found.items():
        differs = differences(dataset, folder, fingerprint)
        if differs is None:
            what = f"of which {data_file(folder, fingerprint).name} is missing, so nothing is known"
        else:
            what = f"which {' and '.join(DIFFERS[part] for part in differs)}"
        take = f"; --data {fingerprint} takes them as they are" if differs == ["files"] else ""
        told.append(
            f"{number} finished runs in {folder} have these settings, but are of the data "
            f"{fingerprint}, {what}{take}"
        )
    return told


def accept(dataset: Dataset, folder: Path, fingerprint: str) -> None:
    """Go on with the runs of data that differ in their image files alone."""
    differs = differences(dataset, folder, fingerprint)
    if differs is None:
        raise DataError(
            f"--data must name data of which runs are in {folder}, there is no "
            f"{data_file(folder, fingerprint).name}"
        )
    if set(differs) - {"files"}:
        what = " and ".join(DIFFERS[part] for part in differs)
        raise DataError(
            f"--data must name data with the splits of these, those of {fingerprint} {what}"
        )
    dataset.fingerprint = fingerprint
