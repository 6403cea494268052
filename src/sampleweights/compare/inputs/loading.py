"""What the command line reads: features and targets of files, checked before the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sampleweights.compare.inputs.archives import read_npy, read_npz, read_safetensors
from sampleweights.compare.inputs.checking import Inputs, check
from sampleweights.compare.inputs.images import read_images
from sampleweights.compare.inputs.tables import is_table, read_table

KINDS = (
    "an .npz or .safetensors file, two .npy files (features and target), a .csv, .tsv or .parquet "
    "file, or a folder with one sub-folder of images for each class"
)
_ARRAYS = ([".npz"], [".safetensors"], [".npy"], [".npy", ".npy"])


def load(
    paths: Sequence[Path],
    *,
    output: Path = Path(),
    target: Sequence[str] = (),
    group: str | None = None,
    groups: Path | None = None,
    folds: str | None = None,
    drop: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    labels: Path | None = None,
    image: str | None = None,
    encoder: str | None = None,
    weights: str | None = None,
    progress: bool = True,
    say: Callable[[str, str], None] = lambda name, text: None,
) -> Inputs:
    """Read the input of the command line.

    Args:
        paths: one ``.npz`` or ``.safetensors``, two ``.npy`` (features, target), one table
            (`is_table`), or one folder with a sub-folder of images for each class.
        output: the folder that keeps the features of images, as ``features.npz``.
        target: the column of a table that holds the classes; or several of labels that are 0 or 1.
        group: the column of a table that holds the groups.
        groups: an ``.npy`` file with one group for each sample, for all but tables.
        folds: the column of a table that holds the folds; for all else an ``.npy`` file.
        drop: columns of a table that are no features; all others are.
        class_names: a name for each class, in the order of the sorted labels.
        labels: a table with the classes of the images in a folder; `target`, `group`, `folds` and
            `drop` are of its columns.
        image: its column that names the images.
        encoder: the timm model that turns images into features.
        weights: of the encoder: "imagenet", "random" or a file.
        progress: show a bar while images are encoded.
        say: is called with the name and the text of each fact, as soon as it is known.

    Raises:
        ValueError, OSError, ImportError: what is wrong with the input, in one sentence.
    """
    for path in (*paths, *filter(None, (groups, labels))):
        if not path.exists():
            beside = paths[0] / path.name  # as in: compare images/ --labels metadata.csv
            found = labels == path and beside.exists()
            raise ValueError(f"{path} does not exist" + f", use --labels {beside}" * found)
    path, suffixes = paths[0], [p.suffix.lower() for p in paths]
    is_folder = len(paths) == 1 and path.is_dir()
    of_table = len(paths) == 1 and is_table(path) and not is_folder
    if not is_folder and not of_table and suffixes not in _ARRAYS:
        raise ValueError(
            f"the input must be {KINDS}, got {' '.join(map(str, paths))}; save it as one of these, "
            f"or call compare(features, target) in Python"
        )
    if not (of_table or labels) and (target or group is not None or drop):
        raise ValueError(
            f"--target, --group and --drop are for .csv, .tsv and .parquet files, got {path}"
            + "; give the one that has the labels with --labels FILE" * is_folder
        )
    if labels is not None and labels.is_dir():
        raise ValueError(f"--labels must be a table, such as a .csv file, got the folder {labels}")
    if not is_folder and (labels is not None or image is not None):
        raise ValueError(f"--labels and --image are for a folder of images, got {path}")
    if of_table and groups is not None:
        raise ValueError(f"the groups of {path} are one of its columns: --group COLUMN")
    if not is_folder and (encoder is not None or weights is not None):
        raise ValueError(f"--encoder and --weights are for a folder of images, got {path}")

    columns, of_file = None, None
    if folds is not None and not of_table and labels is None:
        if not folds.endswith(".npy") or not Path(folds).exists():
            gone = ", which does not exist" if folds.endswith(".npy") else ""
            raise ValueError(
                f"--folds must be an integer, an .npy file with the fold of each sample, or a "
                f"column of a table, got {folds!r}{gone}"
            )
        of_file = read_npy(Path(folds))
    told: dict[str, str] = {}

    def tell(facts: dict[str, str]) -> None:
        for name, text in facts.items():
            if name not in told:
                told[name] = text
                say(name, text)

    if is_folder:
        arrays = read_images(
            path,
            output,
            labels=labels,
            image=image,
            target=target,
            group=group,
            folds=folds if labels is not None else of_file,
            drop=drop,
            groups=None if groups is None else read_npy(groups),
            encoder=encoder,
            weights=weights,
            progress=progress,
            tell=tell,
        )
    elif of_table:
        arrays, columns = read_table(path, target, group, folds, drop)
    elif suffixes == [".npz"]:
        arrays = read_npz(path)
    elif suffixes == [".safetensors"]:
        arrays = read_safetensors(path)
    elif suffixes == [".npy", ".npy"]:
        arrays = {"features": read_npy(path), "target": read_npy(paths[1])}
    else:
        raise ValueError(f"{path} needs the file of its targets beside it: {path} target.npy")
    if groups is not None and not is_folder:
        arrays["groups"] = read_npy(groups)
    if of_file is not None and not is_folder:
        arrays["folds"] = of_file
    if class_names is not None:
        arrays["class_names"] = class_names
    try:
        inputs = check(**arrays, columns=columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    tell(inputs.facts)
    return inputs
