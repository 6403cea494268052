"""The two data sources: long-tailed digits (embedded), and the ISIC 2018 Task 3 files."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from torch import Tensor

CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
"""In the order of the official ground truth."""
ISIC_COUNTS = [1113, 6705, 514, 327, 1099, 115, 142]
"""Images of each class in the official training set; they sum to 10,015."""
DIGITS = [3, 8, 5, 1, 9, 7, 0]
"""Which digit plays which class; 8, the one that most others resemble, is the nevus."""

INPUT, TRUTH, LESIONS = "Training_Input", "Training_GroundTruth", "Training_LesionGroupings"
PREFIX = "ISIC2018_Task3_"


class DataError(Exception):
    """Something is wrong with the user's files; the message says what, and where."""


@dataclass
class Split:
    """One division of the data into training and validation.

    Inputs have shape (N, V, ...): V views of each sample, of which training draws one at a time
    and validation averages the predicted probabilities.
    """

    train_inputs: Tensor
    train_target: Tensor
    inputs: Tensor
    target: Tensor
    sample_weight: Tensor
    """Of each validation sample in the metrics: 1, or what restores the proportions of classes."""


# --------------------------------------------------------------------------------------------
# Digits
# --------------------------------------------------------------------------------------------


def shifted(images: Tensor) -> Tensor:
    """Five views of each image (N, 1, 8, 8): itself, and moved by a pixel in four directions."""
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    views = [padded[..., 1 + y : 9 + y, 1 + x : 9 + x] for y, x in moves]
    return torch.stack(views, dim=1)


def digits_split(seed: int) -> Split:
    """Seven of the ten digits, an 80/20 split, the training part thinned to a long tail.

    The validation part keeps all of its images, since thinned it would hold a single "DF"; in the
    metrics its images are weighted to the same proportions.
    """
    images, digit = load_digits(return_X_y=True)
    chosen = np.isin(digit, DIGITS)
    inputs = shifted(torch.from_numpy(images[chosen]).float().reshape(-1, 1, 8, 8) / 16)
    target = np.array([DIGITS.index(d) for d in digit[chosen]])
    train, validation = train_test_split(
        np.arange(len(target)), test_size=0.2, random_state=seed, stratify=target
    )
    of_class = [train[target[train] == c] for c in range(len(CLASSES))]
    scale = len(of_class[CLASSES.index("NV")]) / max(ISIC_COUNTS)
    kept = [
        members[: max(2, round(scale * count))]
        for members, count in zip(of_class, ISIC_COUNTS, strict=True)
    ]
    train = np.concatenate(kept)
    prior = np.array(ISIC_COUNTS) / sum(ISIC_COUNTS)
    weight = (prior / np.bincount(target[validation]))[target[validation]] * len(validation)
    index = torch.from_numpy(target)
    return Split(
        train_inputs=inputs[train],
        train_target=index[train],
        inputs=inputs[validation],
        target=index[validation],
        sample_weight=torch.from_numpy(weight),
    )


# --------------------------------------------------------------------------------------------
# ISIC 2018
# --------------------------------------------------------------------------------------------


@dataclass
class Isic:
    """The official training files: one row per image, and a way to read an image."""

    table: pd.DataFrame
    """Columns image, target (position in CLASSES), lesion_id; in the order of the ground truth."""
    read: Callable[[str], Image.Image]
    fingerprint: str
    """Changes when the files do."""


def find(root: Path, name: str) -> Path:
    """The file or folder of that official name, in whichever form it was downloaded."""
    for candidate in (f"{PREFIX}{name}.zip", f"{PREFIX}{name}", f"{PREFIX}{name}.csv"):
        if (root / candidate).exists():
            return root / candidate
    raise DataError(
        f"{root} must hold {PREFIX}{name} (.zip, .csv or the unpacked folder), as ISIC offers it "
        f"for download; nothing of that name was found"
    )


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a complete zip file ({error}); download it again"
        ) from error


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """The one CSV at ``path``: a file, or in a zip or a folder."""
    if path.suffix == ".zip":
        with opened(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            if len(names) != 1:
                raise DataError(f"{path} must hold one CSV file, got {len(names)}")
            content = archive.read(names[0])
    else:
        files = [path] if path.is_file() else sorted(path.rglob("*.csv"))
        if len(files) != 1:
            raise DataError(f"{path} must hold one CSV file, got {len(files)}")
        content = files[0].read_bytes()
    table = pd.read_csv(io.BytesIO(content))
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path} must have the columns {columns}, {missing} are missing")
    if table["image"].duplicated().any():
        twice = table["image"][table["image"].duplicated()].iloc[0]
        raise DataError(f"{path} must name each image once, {twice} comes twice")
    return table


def image_reader(path: Path) -> tuple[set[str], Callable[[str], Image.Image]]:
    """The names of the images in a zip or folder, and how to read one."""
    if path.is_dir():
        files = {file.stem: file for file in path.rglob("*.jpg")}

        def content(name: str) -> bytes:
            return files[name].read_bytes()

        names = set(files)
    else:
        with opened(path):
            archive = zipfile.ZipFile(path)
        members = {Path(name).stem: name for name in archive.namelist() if name.endswith(".jpg")}

        def content(name: str) -> bytes:
            return archive.read(members[name])

        names = set(members)

    def read(name: str) -> Image.Image:
        try:
            return Image.open(io.BytesIO(content(name))).convert("RGB")
        except (OSError, UnidentifiedImageError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: image {name} can not be decoded ({error})") from error

    return names, read


def isic(root: Path) -> Isic:
    """Read and check the three official files below ``root``."""
    if not root.is_dir():
        raise DataError(f"--data-root must be a folder with the ISIC 2018 files, got {root}")
    truth_path, lesion_path = find(root, TRUTH), find(root, LESIONS)
    truth = read_csv(truth_path, ["image", *CLASSES])
    lesions = read_csv(lesion_path, ["image", "lesion_id"])
    one_hot = truth[CLASSES].to_numpy(dtype=float)
    wrong = (one_hot.sum(1) != 1) | ~np.isin(one_hot, [0, 1]).all(1)
    if wrong.any():
        first = truth.loc[wrong].iloc[0]
        raise DataError(
            f"{truth_path}: every image must have exactly one class, {first['image']} has "
            f"{dict(first[CLASSES])}"
        )
    table = pd.DataFrame({"image": truth["image"], "target": one_hot.argmax(1)})
    table = table.merge(lesions[["image", "lesion_id"]], on="image", how="left")
    without = table.loc[table["lesion_id"].isna(), "image"]
    if len(without):
        raise DataError(
            f"{lesion_path} must name the lesion of every image, {len(without)} are missing, "
            f"{without.iloc[0]} first"
        )
    input_path = find(root, INPUT)
    names, read = image_reader(input_path)
    absent = table.loc[~table["image"].isin(names), "image"]
    if len(absent):
        raise DataError(
            f"{input_path} must hold every image of the ground truth, {len(absent)} are missing, "
            f"{absent.iloc[0]} first"
        )
    stat = input_path.stat()
    seen = f"{input_path.resolve()} {stat.st_size} {stat.st_mtime_ns} {list(table['image'])}"
    return Isic(table, read, hashlib.sha256(seen.encode()).hexdigest())


def isic_split(table: pd.DataFrame, features: Tensor, seed: int) -> Split:
    """A random 80/20 split, stratified by class, with every lesion on one side only."""
    target = table["target"].to_numpy(copy=True)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    train, validation = next(folds.split(target, target, table["lesion_id"]))
    lesions = table["lesion_id"].to_numpy()
    assert not set(lesions[train]) & set(lesions[validation])
    index = torch.from_numpy(target)
    return Split(
        train_inputs=features[train],
        train_target=index[train],
        inputs=features[validation],
        target=index[validation],
        sample_weight=torch.ones(len(validation), dtype=torch.float64),
    )
