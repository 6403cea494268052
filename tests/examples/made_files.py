"""A folder like the one that ISIC's downloads make, of made images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from examples.isic2018.official import CLASSES, PREFIX

NUM_IMAGES = 70
SIZE = (24, 32)


def jpeg(seed: int, target: int) -> bytes:
    """Noise whose colour tells the class."""
    pixels = np.random.default_rng(seed).integers(0, 60, (30, 40, 3))
    pixels[..., target % 3] += 60 + 25 * target
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg")
    return file.getvalue()


def make(root: Path, part: str = "Training", num_images: int = NUM_IMAGES) -> Path:
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
            archive.writestr(f"{PREFIX}{part}_Input/{name}.jpg", jpeg(i, target[i]))
        archive.writestr(f"{PREFIX}{part}_Input/LICENSE.txt", "text")
    if part == "Training":
        lesions = {"image": names, "lesion_id": [f"HAM_{i // 2}" for i in range(num_images)]}
        pd.DataFrame(lesions).to_csv(root / f"{PREFIX}Training_LesionGroupings.csv", index=False)
    return root
