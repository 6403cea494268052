"""A data set and its random splits: long-tailed digits (embedded), or the ISIC 2018 images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from torch import Tensor

from examples.isic2018.official import CLASSES, ISIC_COUNTS, DataError
from examples.isic2018.outputs import output
from sampleweights import Taxonomy

TREE: dict[str, Any] = {
    "melanocytic": ["MEL", "NV"],
    "non-melanocytic": {"benign": ["BKL", "DF", "VASC"], "malignant": ["BCC", "AKIEC"]},
}
DIGITS = ["3", "8", "5", "1", "9", "7", "0"]
"""From these digits the training parts keep as many, in proportion, as ISIC 2018 has images of its
classes (ISIC_COUNTS); 8, the one that most others resemble, is the most frequent."""
DIGITS_TREE: dict[str, Any] = {
    "3 or 8": ["3", "8"],
    "another": {"9, 7 or 0": ["9", "7", "0"], "5 or 1": ["5", "1"]},
}
NEAR_DUPLICATES = "ham10000-near-duplicates.csv"
PAIRS = Path(__file__).with_name("near_duplicates.csv")
"""18 pairs of images of HAM10000 that show one lesion under two names: Abhishek, Jain & Hamarneh,
"Investigating the Quality of DermaMNIST and Fitzpatrick17k", Scientific Data 2025."""


@dataclass
class Dataset:
    """Samples, and what the report says of them."""

    name: str
    title: str
    class_names: dict[str, str]
    """In the order of the targets: a short name, and what figures with room for it say."""
    fingerprint: str
    """Changes when the samples do."""
    parts: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Of what the fingerprint is a digest, each with a digest of its own."""
    table: pd.DataFrame
    """A row per sample: image, target (position in classes), lesion."""
    pictures: Tensor
    """(N, H, W, 3 or 1), uint8: what a person sees."""
    inputs: Tensor
    """(N, V, ...): V views of each sample, of which training draws one at a time and validation
    averages the predicted probabilities. uint8 images, feature maps, or small float images."""
    split: dict[int, Split] = field(default_factory=dict)
    """By seed."""
    test: Dataset | None = None
    """The public test set; evaluated at the end, never used for selection."""
    tree: Mapping[str, Any] = field(default_factory=lambda: TREE)
    """The hierarchy of the classes."""

    @property
    def classes(self) -> list[str]:
        return list(self.class_names)

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy(self.tree, leaves=self.classes)

    @property
    def is_the_papers(self) -> bool:
        """Whether the paper's numbers may stand beside those of these samples."""
        return self.classes == CLASSES

    @property
    def target(self) -> Tensor:
        return torch.from_numpy(self.table["target"].to_numpy(copy=True))


@dataclass
class Split:
    """Which samples a model is trained and which it is validated on."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    sample_weight: NDArray[np.float64]
    """Of each validation sample in the metrics: 1, or what restores the proportions of classes."""

    def to_csv(self, table: pd.DataFrame, classes: Sequence[str], seed: int, path: Path) -> None:
        """For others to use: image, lesion, class, part and the seed."""
        parts = pd.Series("", index=table.index)
        parts.iloc[self.train], parts.iloc[self.validation] = "train", "validation"
        rows = table[["image", "lesion"]].assign(
            **{"class": [classes[c] for c in table["target"]]}, part=parts, seed=seed
        )
        with output(path) as file:
            rows[rows["part"] != ""].to_csv(file, index=False)


# --------------------------------------------------------------------------------------------
# Digits
# --------------------------------------------------------------------------------------------


def shifted(images: Tensor) -> Tensor:
    """Five views of each image (N, 1, 8, 8): itself, and moved by a pixel in four directions."""
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    views = [padded[..., 1 + y : 9 + y, 1 + x : 9 + x] for y, x in moves]
    return torch.stack(views, dim=1)


def digits(num_splits: int) -> Dataset:
    """Seven of the ten digits, 8x8 pixels, embedded in scikit-learn."""
    images, digit = load_digits(return_X_y=True)
    values = [int(name) for name in DIGITS]
    chosen = np.isin(digit, values)
    pixels = torch.from_numpy(images[chosen]).float().reshape(-1, 8, 8, 1) / 16
    target = np.array([values.index(d) for d in digit[chosen]])
    names = [f"digit-{i:04d}" for i in np.flatnonzero(chosen)]
    return Dataset(
        name="digits",
        title="Long-tailed digits, a small CNN",
        class_names={name: name for name in DIGITS},
        fingerprint=f"digits {DIGITS}",
        table=pd.DataFrame({"image": names, "target": target, "lesion": names}),
        pictures=(255 * pixels).byte(),
        inputs=shifted(pixels.permute(0, 3, 1, 2)),
        split={seed: digits_split(target, seed) for seed in range(num_splits)},
        tree=DIGITS_TREE,
    )


def digits_split(target: NDArray[np.int64], seed: int) -> Split:
    """An 80/20 split, the training part thinned to the proportions of ISIC 2018.

    The validation part keeps all of its images, since thinned it would hold a single 7; in the
    metrics its images are weighted to the same proportions.
    """
    train, validation = train_test_split(
        np.arange(len(target)), test_size=0.2, random_state=seed, stratify=target
    )
    of_class = [train[target[train] == c] for c in range(len(DIGITS))]
    scale = len(of_class[DIGITS.index("8")]) / max(ISIC_COUNTS)
    kept = [
        members[: max(2, round(scale * count))]
        for members, count in zip(of_class, ISIC_COUNTS, strict=True)
    ]
    prior = np.array(ISIC_COUNTS) / sum(ISIC_COUNTS)
    weight = (prior / np.bincount(target[validation]))[target[validation]] * len(validation)
    return Split(np.concatenate(kept), validation, weight)


# --------------------------------------------------------------------------------------------
# ISIC 2018
# --------------------------------------------------------------------------------------------


def near_duplicates(root: Path) -> Path:
    """The list of near-duplicate pairs in ``root`` or beside it, or the one of this folder."""
    paths = [root / NEAR_DUPLICATES, root.resolve().parent / NEAR_DUPLICATES]
    return next((path for path in paths if path.exists()), PAIRS)


def lesion_groups(table: pd.DataFrame, pairs: Path | None) -> NDArray[np.int64]:
    """A number for each image's lesion; lesions that near-duplicate pairs link have the same."""
    lesion, _ = pd.factorize(table["lesion"])
    if pairs is None:
        return lesion.astype(np.int64)
    links = pd.read_csv(pairs)
    missing = [column for column in ("from_img", "to_img") if column not in links]
    if missing:
        raise DataError(f"{pairs} must have the columns from_img and to_img, {missing} are missing")
    of_image = pd.Series(lesion, index=table["image"])
    links = links[links["from_img"].isin(of_image.index) & links["to_img"].isin(of_image.index)]
    row, column = of_image[links["from_img"]].to_numpy(), of_image[links["to_img"]].to_numpy()
    number = lesion.max() + 1
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(number, number))
    return connected_components(graph, directed=False)[1][lesion].astype(np.int64)


def isic_split(table: pd.DataFrame, groups: NDArray[np.int64], seed: int) -> Split:
    """A random 80/20 split, stratified by class, with every group on one side only."""
    target = table["target"].to_numpy()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are too small, which are refused below
        train, validation = next(folds.split(target, target, groups))
    assert not set(groups[train]) & set(groups[validation])
    for part, rows in (("training", train), ("validation", validation)):
        absent = [c for i, c in enumerate(CLASSES) if not (target[rows] == i).any()]
        if absent:
            raise DataError(
                f"split {seed} has no {', '.join(absent)} in its {part} part: there must be at "
                f"least five lesions of every class"
            )
    return Split(train, validation, np.ones(len(validation)))
