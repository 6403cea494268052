"""Splits, colour constancy, and arrays that are computed once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from made_files import NUM_IMAGES, SIZE, jpeg
from sklearn.datasets import load_digits

from examples.isic2018 import data, prepare
from examples.isic2018.official import (
    CLASSES,
    ISIC_COUNTS,
    PREFIX,
    DataError,
    Official,
    official,
)
from examples.isic2018.recipes import PRESETS, Recipe
from examples.isic2018.sources import Source
from sampleweights import Taxonomy

PATHS = {
    "MEL": ["melanocytic", "MEL"],
    "NV": ["melanocytic", "NV"],
    "BKL": ["non-melanocytic", "benign", "BKL"],
    "DF": ["non-melanocytic", "benign", "DF"],
    "VASC": ["non-melanocytic", "benign", "VASC"],
    "BCC": ["non-melanocytic", "malignant", "BCC"],
    "AKIEC": ["non-melanocytic", "malignant", "AKIEC"],
}


def test_the_tree_is_the_papers() -> None:
    tree = Taxonomy(data.TREE, leaves=CLASSES)
    assert tree.num_nodes == 11
    assert tree.leaves == tuple(CLASSES)
    for leaf, nodes in zip(tree.leaves, tree.paths.tolist(), strict=True):
        assert [tree.nodes[node] for node in nodes if node >= 0] == PATHS[leaf]


def test_digits_are_called_digits(root: Path, tmp_path: Path) -> None:
    digits = data.digits(1)
    assert digits.classes == list(digits.taxonomy.leaves) == ["3", "8", "5", "1", "9", "7", "0"]
    images, digit = load_digits(return_X_y=True)
    row = digits.table["image"].str.removeprefix("digit-").astype(int).to_numpy()
    assert [digits.classes[c] for c in digits.target] == digit[row].astype(str).tolist()
    pixels = digits.pictures[..., 0].flatten(1).numpy()
    assert (pixels == (255 * (images[row] / 16)).astype(np.uint8)).all()
    assert not digits.is_the_papers
    # the paper's classes and hierarchy, by the same names and in the same order
    lesions = Source(root, tmp_path, tiny(), 1).open("flat")
    assert lesions.is_the_papers
    assert lesions.classes == list(lesions.taxonomy.leaves) == CLASSES
    assert digits.taxonomy.paths.equal(lesions.taxonomy.paths)


def test_the_long_tail_of_the_digits_has_the_papers_shape() -> None:
    digits = data.digits(2)
    target = digits.target
    split = digits.split[0]
    counts = target[split.train].bincount(minlength=7).double()
    most = digits.classes.index("8")
    expected = torch.tensor(ISIC_COUNTS) / max(ISIC_COUNTS) * counts[most]
    assert ((counts - expected).abs() <= 0.5).all()
    prior = np.bincount(target[split.validation], weights=split.sample_weight)
    np.testing.assert_allclose(prior / prior.sum(), np.array(ISIC_COUNTS) / 10_015)
    assert not set(split.train) & set(split.validation)
    assert digits.inputs.shape[1:] == (5, 1, 8, 8)
    # the first view is the image itself, the others are the image moved
    image, right = digits.inputs[0, 0], digits.inputs[0, 4]
    assert right[..., 1:].equal(image[..., :-1]) or right[..., :-1].equal(image[..., 1:])


def test_no_lesion_is_on_both_sides(root: Path, tmp_path: Path) -> None:
    table = official(root).table
    groups = data.lesion_groups(table, None)
    seen = []
    for seed in (0, 1):
        split = data.isic_split(table, groups, seed)
        assert sorted([*split.train, *split.validation]) == list(range(NUM_IMAGES))
        assert len(split.validation) == pytest.approx(0.2 * NUM_IMAGES, abs=2)
        lesions = table["lesion"].to_numpy()
        assert not set(lesions[split.train]) & set(lesions[split.validation])
        assert set(table["target"].to_numpy()[split.train]) == set(range(7))
        seen.append(split.validation.tolist())
        split.to_csv(table, CLASSES, seed, tmp_path / "split.csv")
        written = pd.read_csv(tmp_path / "split.csv")
        part = written.set_index("image")["part"]
        assert part[table["image"].iloc[split.validation]].eq("validation").all()
        assert part.eq("train").sum() == len(split.train)
        assert written["seed"].eq(seed).all()
    assert seen[0] != seen[1]


def test_near_duplicates_are_one_group(root: Path) -> None:
    table = official(root).table
    pairs = root / data.NEAR_DUPLICATES
    # 0-1 are one lesion already; 1~14 and 15~28 link three lesions; an unknown image links nothing
    pairs.write_text(
        "similarity,from_img,to_img\n0.9,ISIC_0000001,ISIC_0000014\n"
        "0.9,ISIC_0000015,ISIC_0000028\n0.9,ISIC_0000003,ISIC_9999999\n"
    )
    assert data.near_duplicates(root) == pairs
    groups = data.lesion_groups(table, pairs)
    assert len({groups[i] for i in (0, 1, 14, 15, 28, 29)}) == 1
    assert len(set(groups)) == NUM_IMAGES // 2 - 2
    for seed in range(10):
        split = data.isic_split(table, groups, seed)
        assert not set(groups[split.train]) & set(groups[split.validation])
    pairs.write_text("a,b\n")
    with pytest.raises(DataError, match="must have the columns from_img and to_img"):
        data.lesion_groups(table, pairs)


def test_a_class_that_is_on_one_side_only_is_refused(root: Path) -> None:
    table = official(root).table
    table = table[(table["target"] != 5) | (table["image"] == "ISIC_0000010")]
    with pytest.raises(DataError, match="split 0 has no DF in its (training|validation) part"):
        data.isic_split(table, data.lesion_groups(table, None), 0)


@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_colour_constancy_equals_a_plain_loop(gamma: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(np.uint8)
    pixels = np.moveaxis(pixels, 0, 2).copy()
    pixels[..., 0] //= 3
    linear = 255 * (pixels.astype(float) / 255) ** gamma
    light = [
        (sum(v**6 for v in linear[..., c].flat) / linear[..., c].size) ** (1 / 6) for c in range(3)
    ]
    length = sum(v * v for v in light) ** 0.5
    expected = np.empty_like(pixels)
    for y in range(5):
        for x in range(4):
            for c in range(3):
                gain = 1 / (3**0.5 * light[c] / length)
                value = min(255.0, max(0.0, linear[y, x, c] * gain))
                expected[y, x, c] = round(255 * (value / 255) ** (1 / gamma))
    assert np.array_equal(prepare.shades_of_gray(pixels, gamma=gamma), expected)


def test_colour_constancy_of_grey_and_of_black() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert np.array_equal(prepare.shades_of_gray(grey), grey)
    assert not prepare.shades_of_gray(np.zeros((4, 4, 3), np.uint8)).any()


def counted(source: Official, stop_at: int | None = None) -> list[str]:
    """Make ``source`` note what it reads, and stop at some image as Ctrl-C does."""
    read, names = source.read, []

    def noting(name: str) -> object:
        if stop_at is not None and len(names) == stop_at:
            raise KeyboardInterrupt
        names.append(name)
        return read(name)

    source.read = noting
    return names


def test_prepared_images_are_computed_once_and_resumed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "SAVE_EVERY", 16)
    whole = prepare.prepared_images(official(root), tmp_path / "whole", "Training", SIZE)
    assert whole.shape == (NUM_IMAGES, *SIZE, 3)
    assert whole.dtype == torch.uint8
    halves = tmp_path / "halves"
    source = official(root)
    counted(source, stop_at=40)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepared_images(source, halves, "Training", SIZE)
    source = official(root)
    names = counted(source)
    resumed = prepare.prepared_images(source, halves, "Training", SIZE)
    assert resumed.equal(whole)
    assert NUM_IMAGES - 40 <= len(names) <= NUM_IMAGES - 32
    names.clear()
    assert prepare.prepared_images(source, halves, "Training", SIZE).equal(whole)
    assert names == []
    # other parameters are other files
    assert prepare.prepared_images(source, halves, "Training", (8, 8)).shape[1:3] == (8, 8)
    assert not prepare.prepared_images(source, halves, "Training", SIZE, 2.2).equal(whole)
    assert len(list(halves.glob("*.npy"))) == 3


def test_only_changed_and_broken_images_are_computed_again(root: Path, tmp_path: Path) -> None:
    import shutil

    archive = root / "ISIC2018_Task3_Training_Input.zip"
    shutil.unpack_archive(archive, root)
    archive.unlink()
    folder = root / "ISIC2018_Task3_Training_Input"
    good = (folder / "ISIC_0000007.jpg").read_bytes()
    for name in ("ISIC_0000007", "ISIC_0000030"):
        (folder / f"{name}.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match="2 images can not be read; the others are done") as error:
        prepare.prepared_images(official(root), tmp_path / "cache", "Training", SIZE)
    assert "ISIC_0000007" in str(error.value)
    assert "ISIC_0000030" in str(error.value)
    for name in ("ISIC_0000007", "ISIC_0000030"):
        (folder / f"{name}.jpg").write_bytes(good)
    source = official(root)
    names = counted(source)
    prepare.prepared_images(source, tmp_path / "cache", "Training", SIZE)
    assert sorted(names) == ["ISIC_0000007", "ISIC_0000030"]
    (folder / "ISIC_0000002.jpg").write_bytes(jpeg(9, 2))
    os.utime(folder / "ISIC_0000002.jpg", (1, 1))
    source = official(root)
    names = counted(source)
    prepare.prepared_images(source, tmp_path / "cache", "Training", SIZE)
    assert names == ["ISIC_0000002"]


def tiny(**changes: object) -> Recipe:
    """A recipe for the made images: a small timm backbone with random weights."""
    arguments = {
        "backbone": "test_efficientnet", "weights": "random",
        "flat_stages": ("-1",), "hierarchical_stages": ("-2",), "size": (32, 32),
        "epochs_flat": 2, "epochs_hierarchical": 2, "batch_size": 16, "hidden": 8,
        "adam_rate": 1e-3, "sgd_rate": 1e-2,
    }  # fmt: skip
    return replace(PRESETS["paper"], **(arguments | changes))


def test_a_source_end_to_end_and_frozen(root: Path, tmp_path: Path) -> None:
    end_to_end = Source(root, tmp_path, tiny(), 1).open("flat")
    assert end_to_end.inputs.shape == (NUM_IMAGES, 1, 32, 32, 3)
    assert end_to_end.inputs.dtype == torch.uint8
    torch.manual_seed(0)
    recipe = tiny(freeze_backbone=True, grid=(2, 2), flat_stages=("-1", "-2"))
    frozen = Source(root, tmp_path, recipe, 1).open("flat")
    assert frozen.inputs.shape[:4] == (NUM_IMAGES, 1, 2, 2)
    assert frozen.inputs.dtype == torch.float16
    assert frozen.fingerprint == end_to_end.fingerprint
    assert list(frozen.split) == [0]
    torch.manual_seed(1)
    again = Source(root, tmp_path, recipe, 1).open("flat")  # random weights are always the same
    assert again.inputs.equal(frozen.inputs)
    assert len(list(tmp_path.glob("training-*-test_efficientnet-*.npy"))) == 1


def test_the_fingerprint_is_of_all_that_decides_a_split(root: Path, tmp_path: Path) -> None:
    source = Source(root, tmp_path / "cache", tiny(), 1)
    names = {source.open("flat").fingerprint}
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("from_img,to_img\nISIC_0000000,ISIC_0000007\n")
    names.add(replace(source, pairs=pairs).open("flat").fingerprint)
    lesions = root / f"{PREFIX}Training_LesionGroupings.csv"
    table = pd.read_csv(lesions)
    table.loc[3, "lesion_id"] = table.loc[10, "lesion_id"]
    table.to_csv(lesions, index=False)
    names.add(source.open("flat").fingerprint)
    weights = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_efficientnet").state_dict(), weights)
    names.add(replace(source, recipe=tiny(weights=str(weights))).open("flat").fingerprint)
    assert len(names) == 4


def test_the_real_files_if_they_are_here() -> None:
    folder = os.environ.get("ISIC2018_ROOT")
    if not folder:
        pytest.skip("ISIC2018_ROOT does not name the folder of the ISIC 2018 files")
    table = official(Path(folder)).table
    assert np.bincount(table["target"]).tolist() == ISIC_COUNTS
    assert table["lesion"].nunique() == 7_470
    pairs = data.near_duplicates(Path(folder))
    groups = data.lesion_groups(table, pairs)
    for seed in (0, 1):
        split = data.isic_split(table, groups, seed)
        assert not set(groups[split.train]) & set(groups[split.validation])
        assert len(split.validation) == pytest.approx(2003, abs=20)
        if pairs is not None:
            links = pd.read_csv(pairs)
            side = pd.Series(False, index=table["image"])
            side.iloc[split.validation] = True
            assert (side[links["from_img"]].to_numpy() == side[links["to_img"]].to_numpy()).all()
