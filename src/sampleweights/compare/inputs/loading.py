"""What the command line reads: features and targets of files, checked before the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sampleweights.compare.inputs.archives import read_npy, read_npz
from sampleweights.compare.inputs.checking import Inputs, check
from sampleweights.compare.inputs.images import read_images
from sampleweights.compare.inputs.tables import read_table

KINDS = (
    "an .npz file, two .npy files (features and target), a .csv or .parquet file, or a folder with "
    "one sub-folder of images for each class"
)


def load(
    paths: Sequence[Path],
    *,
    output: Path = Path(),
    target: str | None = None,
    group: str | None = None,
    groups: Path | None = None,
    class_names: Sequence[str] | None = None,
    labels: Path | None = None,
    image: str | None = None,
    encoder: str | None = None,
    weights: str | None = None,
    progress: bool = True,
) -> Inputs:
    """Read the input of the command line.

    Args:
        paths: one ``.npz``, two ``.npy`` (features, target), one ``.csv`` or ``.parquet``, or one
            folder with a sub-folder of images for each class.
        output: the folder that keeps the features of images, as ``features.npz``.
        target: the column of a table that holds the classes.
        group: the column of a table that holds the groups; all other columns are features.
        groups: an ``.npy`` file with one group for each sample, for all but tables.
        class_names: a name for each class, in the order of the sorted labels.
        labels: a table that has the classes of the images of a folder.
        image: its column that names the images.
        encoder: the timm model that turns images into features.
        weights: of the encoder: "imagenet", "random" or a file.
        progress: show a bar while images are encoded.

    Raises:
        ValueError, OSError, ImportError: what is wrong with the input, in one sentence.
    """
    for path in (*paths, *filter(None, (groups, labels))):
        if not path.exists():
            raise ValueError(f"{path} does not exist")
    path, suffixes = paths[0], [p.suffix.lower() for p in paths]
    is_folder = len(paths) == 1 and path.is_dir()
    is_table = suffixes in ([".csv"], [".parquet"]) and not is_folder
    if not is_table and not is_folder and (target is not None or group is not None):
        raise ValueError(f"--target and --group are for .csv and .parquet files, got {path}")
    if is_table and groups is not None:
        raise ValueError(f"the groups of {path} are one of its columns: --group COLUMN")
    if not is_folder and (labels is not None or image is not None):
        raise ValueError(f"--labels and --image are for a folder of images, got {path}")
    if not is_folder and (encoder is not None or weights is not None):
        raise ValueError(f"--encoder and --weights are for a folder of images, got {path}")

    columns = None
    facts: dict[str, str] = {}
    if is_folder:
        arrays, facts = read_images(
            path,
            output,
            labels=labels,
            image=image,
            target=[target] if isinstance(target, str) else target,
            group=group,
            groups=None if groups is None else read_npy(groups),
            encoder=encoder,
            weights=weights,
            progress=progress,
        )
    elif is_table:
        arrays, columns = read_table(path, target, group)
    elif suffixes == [".npz"]:
        arrays = read_npz(path)
    elif suffixes == [".npy", ".npy"]:
        arrays = {"features": read_npy(path), "target": read_npy(paths[1])}
    elif suffixes == [".npy"]:
        raise ValueError(f"{path} needs the file of its targets beside it: {path} target.npy")
    else:
        raise ValueError(f"the input must be {KINDS}, got {' '.join(map(str, paths))}")
    if groups is not None and not is_folder:
        arrays["groups"] = read_npy(groups)
    if class_names is not None:
        arrays["class_names"] = class_names
    try:
        return replace(check(**arrays, columns=columns), facts=facts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
