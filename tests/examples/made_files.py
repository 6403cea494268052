"""Folders like those that the downloads of ISIC and of HAM10000 make, of made images."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from examples.isic2018.official import CLASSES, PREFIX, read_csv

NUM_IMAGES = 70
SIZE = (24, 32)


def jpeg(seed: int, target: int) -> bytes:
    """Noise whose colour tells the class."""
    pixels = np.random.default_rng(seed).integers(0, 60, (30, 40, 3))
    pixels[..., target % 3] += 60 + 25 * target
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg")
    return file.getvalue()


def lesion(seed: int, target: int) -> bytes:
    """Something like a dermoscopy image: skin, a darker patch whose colour tells the class."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:75j, -1:1:100j]
    angle = np.arctan2(y, x)
    radius = 0.5 + 0.05 * np.sin(generator.integers(2, 6) * angle + generator.uniform(0, 6))
    inside = 1 / (1 + np.exp(20 * (np.hypot(x, y) - radius)))[..., None]
    skin = np.array([220, 170, 150]) + generator.normal(0, 8, 3)
    patch = np.array([120, 70, 50]) + 20 * np.array([target % 3, target % 2, target // 3])
    pixels = (1 - inside) * skin + inside * patch + generator.normal(0, 5, (*x.shape, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg")
    return file.getvalue()


def make(
    root: Path,
    part: str = "Training",
    num_images: int = NUM_IMAGES,
    picture: Callable[[int, int], bytes] = jpeg,
) -> Path:
    """Two images of each lesion; classes in turn."""
    root.mkdir(exist_ok=True)
    offset = 0 if part == "Training" else 34_500
    names = [f"ISIC_{offset + i:07d}" for i in range(num_images)]
    target = [i // 2 % 7 for i in range(num_images)]
    truth = pd.DataFrame(np.eye(7)[target], columns=CLASSES)
    truth.insert(0, "image", names)
    with zipfile.ZipFile(root / f"{PREFIX}{part}_GroundTruth.zip", "w") as archive:
        name = f"{PREFIX}{part}_GroundTruth"
        archive.writestr(f"{name}/{name}.csv", truth.to_csv(index=False))
    with zipfile.ZipFile(root / f"{PREFIX}{part}_Input.zip", "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(f"{PREFIX}{part}_Input/{name}.jpg", picture(i, target[i]))
        archive.writestr(f"{PREFIX}{part}_Input/LICENSE.txt", "text")
    if part == "Training":
        lesions = {"image": names, "lesion_id": [f"HAM_{i // 2}" for i in range(num_images)]}
        pd.DataFrame(lesions).to_csv(root / f"{PREFIX}Training_LesionGroupings.csv", index=False)
    return root


def metadata(root: Path) -> pd.DataFrame:
    """What HAM10000's metadata say of the images that ISIC's files in ``root`` hold."""
    truth = read_csv(root / f"{PREFIX}Training_GroundTruth.zip", [])
    lesions = read_csv(root / f"{PREFIX}Training_LesionGroupings.csv", []).set_index("image")
    table = pd.DataFrame(
        {
            "lesion_id": truth["image"].map(lesions["lesion_id"]),
            "image_id": truth["image"],
            "dx": truth[CLASSES].idxmax(axis=1).str.lower(),
            "dx_type": "histo",
            "age": 80.0,
            "sex": "male",
            "localization": "scalp",
        }
    )
    return table.sort_values(["dx", "lesion_id"], ascending=[True, False])  # other than ISIC's


def make_ham10000(
    official: Path,
    root: Path,
    *,
    form: str = "HAM10000_metadata.csv",
    images: tuple[str, ...] = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip"),
    inside: str = "",
) -> Path:
    """The images of ISIC's files in ``official`` as HAM10000, spread over zips and folders.

    ``inside`` is the folder within each of them that holds the images.
    """
    root.mkdir(exist_ok=True)
    rows = metadata(official)
    if form.endswith(".tab"):
        rows.to_csv(root / form, index=False, sep="\t", quoting=csv.QUOTE_NONNUMERIC)
    else:
        rows.to_csv(root / form, index=False)
    with zipfile.ZipFile(official / f"{PREFIX}Training_Input.zip") as archive:
        content = {Path(n).name: archive.read(n) for n in archive.namelist() if n.endswith(".jpg")}
    half = len(content) // len(images)
    for position, place in enumerate(images):
        first = position * half
        last = None if position == len(images) - 1 else first + half
        names = sorted(content)[first:last]
        if place.endswith(".zip"):
            with zipfile.ZipFile(root / place, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.writestr(f"{inside}{name}", content[name])
                    archive.writestr(f"__MACOSX/{inside}._{name}", b"of a Mac")
        else:
            folder = root / place / inside
            folder.mkdir(parents=True)
            for name in names:
                (folder / name).write_bytes(content[name])
    return root
