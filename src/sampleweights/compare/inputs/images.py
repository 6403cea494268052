"""A folder of images as an input of the command line: files, labels and features."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    target: Sequence[str] | None = None,
    group: str | None = None,
    groups: Any = None,
    encoder: str | None = None,
    weights: str | None = None,
    progress: bool = True,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Features, targets and groups of a folder, and what the page says of them.

    What was guessed or left out is told on stderr before the images are encoded.

    Args:
        folder: one sub-folder of images for each class, or any with ``labels``.
        output: the folder that keeps the features.
        labels: a table with a row for each image.
        image: its column that names the images.
        target: its columns of classes.
        group: its column of groups.
        groups: (N,), without ``labels``, in the order of the sorted classes and paths.
        encoder: a model of timm.
        weights: of the encoder: "imagenet", "random" or a file.
        progress: show a bar.
    """
    facts = {}
    if labels is None:
        if image is not None or target is not None or group is not None:
            raise ValueError(
                f"--image, --target and --group name columns: give the table that has them with "
                f"--labels FILE, or for {folder} no more than its folders of classes"
            )
        files, classes, note = list_images(folder, output)
        arrays: dict[str, Any] = {"target": classes}
        if note:
            facts["images"] = f"{len(files):,} images of {folder}: {note}"
        if groups is not None:
            if len(groups) != len(files):
                raise ValueError(
                    f"--groups must have one value for each of the {len(files):,} images of "
                    f"{folder}, sorted by class and path, got {len(groups):,}"
                )
            arrays["groups"] = groups
            shown = [f"{files[i].relative_to(folder)} in {groups[i]}" for i in (0, -1)]
            facts["groups"] = f"in the order of the images: {shown[0]}, ..., {shown[1]}"
    else:
        if groups is not None:
            raise ValueError(f"the groups of {labels} are one of its columns: --group COLUMN")
        files, arrays, note = read_labels(
            labels, folder, output, image, target, group, lambda: list_images(folder, output)[:2]
        )
        facts["labels"] = f"{labels}: {note}"
    for name, text in facts.items():
        print(f"{name}: {text}", file=sys.stderr)
    encoder, weights = encoder or DEFAULT_ENCODER, weights or "imagenet"
    arrays["features"] = image_features(
        files, folder, output / FEATURES, encoder, weights, progress, **arrays
    )
    which = {"imagenet": "ImageNet weights", "random": "random weights"}
    facts["encoder"] = (
        f"{encoder} with {which.get(weights, f'the weights of {weights}')}, frozen: "
        f"{arrays['features'].shape[1]:,} features of each image"
    )
    return arrays, facts
