"""From what the command line names to a data set that a model can be trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from examples.isic2018 import encoders
from examples.isic2018.data import (
    Dataset,
    digits,
    isic_split,
    lesion_groups,
    near_duplicates,
)
from examples.isic2018.official import Official, official
from examples.isic2018.prepare import digest, prepared_images
from examples.isic2018.recipes import Recipe

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
    """The list of near-duplicates; None: where it is found."""

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
        dataset.fingerprint = digest(  # all that decides the splits, and what is trained on
            dataset.fingerprint,
            dataset.table["target"].tolist(),
            groups.tolist(),
            hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        )
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
