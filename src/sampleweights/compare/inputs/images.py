"""A folder of images as an input of the command line: files, labels and features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampleweights.compare.inputs.checking import check
from sampleweights.compare.inputs.encoding import DEFAULT_ENCODER, image_features
from sampleweights.compare.inputs.folders import list_images
from sampleweights.compare.inputs.labels import read_labels
from sampleweights.compare.outputs import FEATURES

__all__ = ["DEFAULT_ENCODER", "read_images"]


def read_images(
    folder: Path,
    output: Path,
    *,
    labels: Path | None = None,
    image: str | None = None,
    target: Sequence[str] = (),
    group: str | None = None,
    folds: Any = None,
    drop: Sequence[str] = (),
    groups: Any = None,
    encoder: str | None = None,
    weights: str | None = None,
    progress: bool = True,
    tell: Callable[[dict[str, str]], None] = lambda facts: None,
) -> dict[str, Any]:
    """What `check` takes of a folder of images.

    Args:
        folder: one sub-folder of images for each class, or any with ``labels``.
        output: the folder that keeps the features.
        labels: a table with a row for each image.
        image: its column that names the images.
        target: its columns of classes.
        group: its column of groups.
        folds: its column of folds; (N,), without ``labels``, as groups.
        drop: its columns that are neither.
        groups: (N,), without ``labels``, in the order of the sorted classes and paths.
        encoder: a model of timm.
        weights: of the encoder: "imagenet", "random" or a file.
        progress: show a bar.
        tell: is called with what was guessed and left out, before the images are encoded.
    """
    facts, of_order = {}, {}
    if labels is None:
        if image is not None:
            raise ValueError("--image names a column: give the table that has it with --labels")
        files, classes, note = list_images(folder, output)
        arrays: dict[str, Any] = {"target": classes}
        if note:
            facts["images"] = f"{len(files):,} images of {folder}: {note}"
        for flag, values in (("--groups", groups), ("--folds", folds)):
            if values is not None and len(values) != len(files):
                raise ValueError(
                    f"{flag} must have one value for each of the {len(files):,} images of "
                    f"{folder}, sorted by class and path, got {len(values):,}"
                )
        of_order = {} if folds is None else {"folds": folds}
        if groups is not None:
            arrays["groups"] = groups
            shown = [f"{files[i].relative_to(folder)} in {groups[i]}" for i in (0, -1)]
            facts["groups"] = f"in the order of the images: {shown[0]}, ..., {shown[1]}"
    else:
        if groups is not None:
            raise ValueError(f"the groups of {labels} are one of its columns: --group COLUMN")
        files, arrays, note = read_labels(
            labels,
            folder,
            output,
            image=image,
            target=target,
            group=group,
            folds=folds,
            drop=drop,
            classes=lambda: list_images(folder, output)[:2],
        )
        facts = {"images": f"{labels}: {note}", **arrays.pop("facts")}
    tell(facts)
    # before hours of encoding
    check(np.zeros((len(files), 1), np.float32), **arrays, **of_order)
    encoder, weights = encoder or DEFAULT_ENCODER, weights or "imagenet"
    features = image_features(
        files, folder, output / FEATURES, encoder, weights, progress, **arrays
    )
    which = {"imagenet": "ImageNet weights", "random": "random weights"}
    facts["encoder"] = (
        f"{encoder} with {which.get(weights, f'the weights of {weights}')}, frozen: "
        f"{features.shape[1]:,} features of each image"
    )
    return {"features": features, **arrays, **of_order, "facts": facts}
