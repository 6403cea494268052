"""The training set as HAM10000, and folders with too few, too many or other files."""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_files import jpeg, make, make_ham10000, metadata

from examples.isic2018 import __main__ as cli
from examples.isic2018.data import Dataset, isic_split, lesion_groups, near_duplicates
from examples.isic2018.official import CLASSES, PREFIX, DataError, download, find, official
from examples.isic2018.sources import Source

PARTS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
TRUTH = f"{PREFIX}Training_GroundTruth.zip"
IMAGES = f"{PREFIX}Training_Input.zip"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", asked)


def opened(root: Path, cache: Path) -> Dataset:
    """Of images that are trained on end to end, with two splits."""
    arguments = ["train", "--data-root", str(root), "--size", "16", "16", "--weights", "random"]
    source = cli.source_of(cli.parse_arguments([*arguments, "--output", str(cache)]))
    assert isinstance(source, Source)
    return source.open("flat")


@pytest.mark.parametrize(
    ("form", "images", "inside"),
    [
        ("HAM10000_metadata.csv", PARTS, ""),
        ("HAM10000_metadata", PARTS, "HAM10000_images/"),
        ("HAM10000_metadata.tab", FOLDERS, ""),
        ("ham10000_metadata.csv", ("ham10000_images_part_1", "ham10000_images_part_2"), ""),
        ("HAM10000_metadata.csv", FOLDERS, "HAM10000_images_part_1/"),
        ("HAM10000_metadata.csv", ("HAM10000_images_part_1",), ""),
        ("HAM10000_metadata.csv", ("HAM10000_images",), ""),
        ("HAM10000_metadata.csv", ("HAM10000_images_part_1", "HAM10000_images_part_2.zip"), ""),
    ],
)
def test_ham10000_gives_the_table_of_the_official_files(
    root: Path, tmp_path: Path, form: str, images: tuple[str, ...], inside: str
) -> None:
    made = make_ham10000(root, tmp_path / "ham", form=form, images=images, inside=inside)
    before = sorted(made.rglob("*"))
    download("Training", made)  # asks for nothing
    assert sorted(made.rglob("*")) == before
    expected, found = official(root), official(made)
    pd.testing.assert_frame_equal(
        found.table.drop(columns="signature"), expected.table.drop(columns="signature")
    )
    if all(name.endswith(".zip") for name in images):
        assert found.table["signature"].tolist() == expected.table["signature"].tolist()
    for name in expected.table["image"].iloc[[0, 34, 35, 69]]:
        assert found.read(name).tobytes() == expected.read(name).tobytes()


def test_both_forms_are_one_data_set(root: Path, tmp_path: Path) -> None:
    one = opened(root, tmp_path / "one")
    other = opened(make_ham10000(root, tmp_path / "ham"), tmp_path / "other")
    assert one.fingerprint == other.fingerprint  # so runs go on with either
    assert one.pictures.equal(other.pictures)
    for seed in (0, 1):
        assert one.split[seed].train.tolist() == other.split[seed].train.tolist()
        assert one.split[seed].validation.tolist() == other.split[seed].validation.tolist()


def test_both_forms_in_one_folder_are_taken_as_official(root: Path, tmp_path: Path) -> None:
    expected = official(root).table
    make_ham10000(root, root)
    pd.testing.assert_frame_equal(official(root).table, expected)
    # ISIC's images with HAM10000's labels, and the other way round
    (root / TRUTH).rename(tmp_path / TRUTH)
    pd.testing.assert_frame_equal(official(root).table, expected)
    (tmp_path / TRUTH).rename(root / TRUTH)
    (root / IMAGES).unlink()
    pd.testing.assert_frame_equal(official(root).table, expected)


def test_folders_that_kaggle_has_twice_are_taken_once(root: Path, tmp_path: Path) -> None:
    made = make_ham10000(root, tmp_path / "ham", images=FOLDERS)
    shutil.copytree(made / FOLDERS[0], made / FOLDERS[0] / FOLDERS[0])
    shutil.copytree(made / FOLDERS[1], made / "ham10000_images_part_2 (1)")
    assert len(official(made).table) == 70


@pytest.mark.parametrize("separator", ["\t", ";"])
def test_a_tab_file_under_the_name_of_a_csv_is_read(
    root: Path, tmp_path: Path, separator: str
) -> None:
    made = make_ham10000(root, tmp_path / "ham")
    metadata(root).to_csv(made / "HAM10000_metadata.csv", index=False, sep=separator)
    assert official(made).table["target"].tolist() == official(root).table["target"].tolist()


def change(root: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = root / "HAM10000_metadata.csv"
    edit(pd.read_csv(path)).to_csv(path, index=False)


def add(archive: Path, *names: str) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        for name in names:
            file.writestr(f"{name}.jpg", jpeg(99, 3))


def test_the_made_metadata_are_in_another_order(root: Path) -> None:
    assert not metadata(root)["image_id"].is_monotonic_increasing


PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("message", "edit"),
    [
        ("must hold HAM10000_images_part_2 .*; 35 of 70 images are missing, ISIC_0000035 first",
         lambda at: (at / PARTS[1]).unlink()),
        ("must hold HAM10000_images_part_1 .*; 35 of 70 images are missing, ISIC_0000000 first",
         lambda at: (at / PARTS[0]).unlink()),
        ("must hold HAM10000_images_part_1 and HAM10000_images_part_2 .*; there are no images",
         lambda at: [(at / name).unlink() for name in PARTS]),
        (r"must hold HAM10000_metadata .* beside HAM10000_images_part_1.zip",
         lambda at: (at / "HAM10000_metadata.csv").unlink()),
        ("must name each image once, ISIC_0000007 comes twice",
         lambda at: change(at, lambda t: pd.concat([t, t[t["image_id"] == "ISIC_0000007"]]))),
        ("dx must be one of mel, nv, .*, image ISIC_0000007 has 'scc'",
         lambda at: change(at, lambda t: t.assign(
             dx=t["dx"].mask(t["image_id"] == "ISIC_0000007", "scc")))),
        ("dx must be one of mel, nv, .*, image ISIC_0000007 has nan",
         lambda at: change(at, lambda t: t.assign(
             dx=t["dx"].mask(t["image_id"] == "ISIC_0000007")))),
        ("name the lesion of every image .*, 1 are missing: ISIC_0000007",
         lambda at: change(at, lambda t: t.assign(
             lesion_id=t["lesion_id"].mask(t["image_id"] == "ISIC_0000007")))),
        (r"must have the columns \['lesion_id', 'image_id', 'dx'\], \['lesion_id'\] are missing",
         lambda at: change(at, lambda t: t.drop(columns="lesion_id"))),
        ("metadata.csv must name every image of .*part_1.zip and .*, 1 are missing: ISIC_0000007",
         lambda at: change(at, lambda t: t[t["image_id"] != "ISIC_0000007"])),
        ("must hold every image of the ground truth, 1 are missing: ISIC_0000070",
         lambda at: change(at, lambda t: pd.concat([t, t.iloc[:1].assign(
             image_id="ISIC_0000070")]))),
        ("part_1.zip is a web page that was saved under that name",
         lambda at: (at / PARTS[0]).write_bytes(PAGE)),
        ("metadata.csv is a web page that was saved under that name",
         lambda at: (at / "HAM10000_metadata.csv").write_bytes(PAGE)),
        ("part_2.zip is not a complete zip file",
         lambda at: (at / PARTS[1]).write_bytes((at / PARTS[1]).read_bytes()[:-50])),
        ("part_1.zip and .*part_2.zip must hold the same images, ISIC_0000000 has",
         lambda at: add(at / PARTS[1], "ISIC_0000000")),
        ("part_2.zip must be of the training set, 2 .* of the validation or test set: ISIC_0034524",
         lambda at: add(at / PARTS[1], "ISIC_0034524", "ISIC_0034525")),
        ("metadata.csv must be of the training set, 70 of its images .*: ISIC_0034500 first",
         lambda at: change(at, lambda t: t.assign(image_id=[
             f"ISIC_{34_500 + i:07d}" for i in range(70)]))),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(
    root: Path, tmp_path: Path, message: str, edit: Callable[[Path], object]
) -> None:
    made = make_ham10000(root, tmp_path / "ham")
    edit(made)
    with pytest.raises(DataError, match=message) as error:
        official(made)
    assert "\n" not in str(error.value)
    assert str(made) in str(error.value)


@pytest.mark.parametrize(
    ("message", "edit"),
    [
        ("must say the same of every image, they differ in 1, ISIC_0000007 first; keep one",
         lambda t: t.assign(dx=t["dx"].mask(t["image_id"] == "ISIC_0000007", "nv"))),
        ("must say the same of every image, they differ in 1, ISIC_0000007 first; keep one",
         lambda t: t.assign(lesion_id=t["lesion_id"].mask(t["image_id"] == "ISIC_0000007", "x"))),
        ("must say the same of every image, they differ in 10, .* first; keep one",
         lambda t: t[t["dx"] != "df"]),
    ],
)  # fmt: skip
def test_forms_that_disagree(
    root: Path, message: str, edit: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    make_ham10000(root, root)
    change(root, edit)
    with pytest.raises(DataError, match=message):
        official(root)


def test_images_that_differ_between_the_forms(root: Path) -> None:
    make_ham10000(root, root, images=FOLDERS)
    (root / FOLDERS[0] / "ISIC_0000003.jpg").write_bytes(b"shrunk")
    with pytest.raises(
        DataError, match=r"ISIC_0000003 has \d+ bytes in the one and 6 in the other"
    ):
        official(root)


def test_the_test_set_in_the_place_of_the_training_set(root: Path) -> None:
    make(root, "Test", 70)
    shutil.copyfile(root / f"{PREFIX}Test_Input.zip", root / IMAGES)
    with pytest.raises(DataError, match=r"Training_Input.zip must be of the training set, 70 of"):
        official(root)
    shutil.copyfile(root / f"{PREFIX}Test_GroundTruth.zip", root / TRUTH)
    with pytest.raises(DataError, match=r"LesionGroupings.csv must name the lesion of every"):
        official(root)


def test_the_training_set_in_the_place_of_the_test_set(root: Path) -> None:
    for name in ("Input.zip", "GroundTruth.zip"):
        shutil.copyfile(root / f"{PREFIX}Training_{name}", root / f"{PREFIX}Test_{name}")
    with pytest.raises(DataError, match=r"must be of the test set, 70 of its .* training set"):
        official(root, "Test")


@pytest.mark.parametrize("suffix", ["csv", "tab"])
def test_the_test_set_of_dataverse(root: Path, tmp_path: Path, suffix: str) -> None:
    expected = official(make(root, "Test", 14), "Test").table
    made = tmp_path / "dataverse"
    made.mkdir()
    shutil.copyfile(root / f"{PREFIX}Test_Input.zip", made / f"{PREFIX}Test_Images.zip")
    rows = pd.DataFrame(
        {
            "lesion_id": "HAMTEST_0000000",
            "image_id": expected["image"],
            "dx": [CLASSES[target].lower() for target in expected["target"]],
        }
    ).iloc[::-1]
    path = made / f"{PREFIX}Test_GroundTruth.{suffix}"
    rows.to_csv(path, index=False, sep="\t" if suffix == "tab" else ",")
    download("Test", made)  # asks for nothing
    pd.testing.assert_frame_equal(official(made, "Test").table, expected)


def test_a_folder_without_data_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    (tmp_path / "empty").mkdir()
    for command in ("train", "report", "reproduce", "prepare"):
        arguments = ["isic2018", command, "--data-root", str(tmp_path / "empty")]
        monkeypatch.setattr(sys, "argv", [*arguments, "--output", str(tmp_path / "runs")])
        with pytest.raises(SystemExit) as error:
            cli.main()
        for where in ("challenge.isic-archive.com", "10.7910/DVN/DBW86T", "Kaggle"):
            assert where in str(error.value)
        assert str(tmp_path / "empty") in str(error.value) or "no network" in str(error.value)


def test_the_help_says_where_to_get_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse_arguments(["--help"])
    out = capsys.readouterr().out
    for where in ("challenge.isic-archive.com", "10.7910/DVN/DBW86T", "HAM10000_metadata"):
        assert where in out


def test_data_one_folder_deeper_or_in_a_zip_are_pointed_at(root: Path, tmp_path: Path) -> None:
    make_ham10000(root, tmp_path / "ham")
    above = tmp_path / "above"
    above.mkdir()
    (tmp_path / "ham").rename(above / "dataverse_files")
    with pytest.raises(DataError, match=r"the folder that holds the files: give .*dataverse_files"):
        official(above)
    with pytest.raises(DataError, match=r"the folder that holds the files: give .*dataverse_files"):
        download("Training", above)  # instead of bringing all of it again
    shutil.make_archive(str(tmp_path / "archive"), "zip", above / "dataverse_files")
    shutil.rmtree(above / "dataverse_files")
    (tmp_path / "archive.zip").rename(above / "archive.zip")
    with pytest.raises(DataError, match=r"archive.zip must be unpacked first"):
        official(above)


def test_what_was_seen_is_written_of_either_form(root: Path, tmp_path: Path) -> None:
    made = make_ham10000(root, tmp_path / "ham")
    arguments = ["--size", "16", "16", "--output", str(tmp_path)]
    cli.command(cli.parse_arguments(["prepare", "--data-root", str(made), *arguments]))
    seen = pd.read_csv(tmp_path / "isic2018" / "files.csv")["file"].tolist()
    assert seen == [*PARTS, "HAM10000_metadata.csv"]


def test_the_real_images_give_the_same_splits_in_either_form(tmp_path: Path) -> None:
    folder = os.environ.get("ISIC2018_ROOT")
    if not folder:
        pytest.skip("ISIC2018_ROOT does not name the folder of the ISIC 2018 files")
    expected = official(Path(folder))
    truth, images = expected.table, find(Path(folder), "Training_Input")
    made = tmp_path / "ham"
    made.mkdir()
    rows = pd.DataFrame({"lesion_id": truth["lesion"], "image_id": truth["image"]})
    rows["dx"] = [CLASSES[target].lower() for target in truth["target"]]
    rows.sort_values(["dx", "lesion_id"]).to_csv(made / "HAM10000_metadata.tab", sep="\t")
    (made / f"HAM10000_images_part_1{images.suffix}").symlink_to(images)
    found = official(made)
    pd.testing.assert_frame_equal(found.table, truth)
    pairs = near_duplicates(Path(folder))
    for seed in (0, 1):
        splits = [
            isic_split(table, lesion_groups(table, pairs), seed) for table in (truth, found.table)
        ]
        assert splits[0].train.tolist() == splits[1].train.tolist()
        assert splits[0].validation.tolist() == splits[1].validation.tolist()
