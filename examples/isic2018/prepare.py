"""Images and feature maps as memory-mapped arrays, computed once, and resumed if stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from examples.isic2018.official import DataError, Official, write_atomically

SAVE_EVERY = 256
"""Rows after which what is done is noted."""


def cached_rows(
    path: Path,
    signatures: Sequence[str],
    shape: tuple[int, ...],
    dtype: type[np.generic],
    compute: Callable[[int], NDArray[np.generic]],
    *,
    unit: str = "image",
    batch: int = 1,
) -> Tensor:
    """An array with a row for each signature, from ``path`` where its rows are already there.

    ``compute(first)`` gives up to ``batch`` rows from ``first`` on. Beside the array lies the list
    of the signatures whose rows are done: a stopped run goes on where it was, and a row whose
    signature has changed is computed again. A row that can not be computed (DataError) does not
    stop the others; all such errors are told at the end.
    """
    noted = path.with_suffix(".rows")
    done = np.zeros(len(signatures), dtype=bool)
    if path.exists() and noted.exists():
        before = noted.read_text().split("\n")
        if len(before) == len(signatures):
            done = np.array(before) == np.array(signatures)
    if not done.any():
        path.parent.mkdir(parents=True, exist_ok=True)
        noted.unlink(missing_ok=True)
        full = (len(signatures), *shape)
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=full)
    if not done.all():
        rows = np.lib.format.open_memmap(path, mode="r+")
        todo = [i for i in range(0, len(signatures), batch) if not done[i : i + batch].all()]
        errors: list[str] = []

        def note() -> None:
            rows.flush()
            write_atomically(noted, "\n".join(np.where(done, np.array(signatures), "")))

        def attempt(first: int) -> tuple[int, NDArray[np.generic] | DataError]:
            try:
                return first, compute(first)
            except DataError as error:
                return first, error

        # images are decoded in threads; batches use all cores by themselves
        with (
            ThreadPoolExecutor(torch.get_num_threads() if batch == 1 else 1) as pool,
            tqdm(total=len(done), initial=int(done.sum()), unit=f" {unit}s") as bar,
        ):
            try:
                chunk = max(1, SAVE_EVERY // batch)
                for start in range(0, len(todo), chunk):
                    for first, result in pool.map(attempt, todo[start : start + chunk]):
                        if isinstance(result, DataError):
                            errors.append(str(result))
                            continue
                        rows[first : first + len(result)] = result
                        done[first : first + len(result)] = True
                        bar.update(len(result))
                    note()
            finally:
                note()
        if errors:
            raise DataError(
                f"{len(errors)} images can not be read; the others are done. " + "; ".join(errors)
            )
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def digest(*what: object) -> str:
    """A short name for whatever an array depends on."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]


def constancy_gains(pixels: NDArray[np.uint8], p: float, gamma: float) -> NDArray[np.float64]:
    """The factor of each channel: the light, the p-norm mean of a channel, divided out."""
    levels = _linear(gamma) ** p
    counts = [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(pixels, 2, 0)]
    light = np.array([(count @ levels / count.sum()) ** (1 / p) for count in counts])
    light = np.maximum(light, 1e-6)
    return np.linalg.norm(light) / (3**0.5 * light)


def _linear(gamma: float) -> NDArray[np.float64]:
    return 255 * (np.arange(256) / 255) ** gamma


def shades_of_gray(pixels: NDArray[np.uint8], p: float = 6, gamma: float = 1) -> NDArray[np.uint8]:
    """Colour constancy of an image (H, W, 3), clipped to 0 to 255 and rounded.

    ``gamma`` (2.2 for sRGB) undoes the display's gamma before and does it again after; 1 does not.
    Finlayson & Trezzi, "Shades of Gray and Colour Constancy", 2004; Barata, Celebi & Marques,
    "Improving dermoscopy image classification using color constancy", 2014.
    """
    gains = constancy_gains(pixels, p, gamma)
    # 256 possible values a channel: a table does it exactly, and fast
    values = (np.outer(gains, _linear(gamma)) / 255).clip(0, 1) ** (1 / gamma)
    table = np.rint(255 * values).astype(np.uint8)
    return np.stack([table[c][pixels[..., c]] for c in range(3)], axis=2)


def prepared_images(
    source: Official, folder: Path, part: str, size: tuple[int, int], gamma: float = 1
) -> Tensor:
    """All images (N, H, W, 3), uint8: colour constancy, then an antialiased resize."""
    names = source.table["image"].tolist()

    def compute(first: int) -> NDArray[np.generic]:
        pixels = shades_of_gray(np.asarray(source.read(names[first])), gamma=gamma)
        image = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)[None]

    constancy = "shades-of-gray-6" + (f"-gamma-{gamma:g}" if gamma != 1 else "")
    path = folder / f"{part.lower()}-{size[0]}x{size[1]}-{constancy}-{digest(names)}.npy"
    images = cached_rows(path, source.table["signature"], (*size, 3), np.uint8, compute)
    source.table.to_csv(path.with_suffix(".csv"), index=False)
    return images
