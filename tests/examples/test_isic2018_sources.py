"""Images under any name, and runs of data that were others."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from made_files import make_ham10000
from PIL import Image

from examples.isic2018 import __main__ as cli
from examples.isic2018.data import (
    NEAR_DUPLICATES,
    PAIRS,
    Dataset,
    lesion_groups,
    near_duplicates,
)
from examples.isic2018.official import DataError, download, official
from examples.isic2018.sources import (
    accept,
    data_file,
    fingerprint,
    runs_of_other_data,
    write_parts,
)
from examples.isic2018.training import RESULT, Run

SMALL = Path(__file__).parents[2] / "docs/results/small"


# --------------------------------------------------------------------------------------------
# Images under any name
# --------------------------------------------------------------------------------------------


def as_png(path: Path) -> None:
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()


@pytest.mark.parametrize("place", ["images", "all_images.zip", "archive/Skin Cancer", "."])
def test_images_in_a_folder_of_any_name(root: Path, tmp_path: Path, place: str) -> None:
    made = make_ham10000(root, tmp_path / "ham", images=(place if place != "." else "images",))
    if place == ".":
        for path in (made / "images").iterdir():
            path.rename(made / path.name)
        (made / "images").rmdir()
    download("Training", made)  # asks for nothing
    expected, found = official(root), official(made)
    pd.testing.assert_frame_equal(
        found.table.drop(columns="signature"), expected.table.drop(columns="signature")
    )
    assert found.read("ISIC_0000007").tobytes() == expected.read("ISIC_0000007").tobytes()


def test_copies_as_png(root: Path, tmp_path: Path) -> None:
    made = make_ham10000(root, tmp_path / "ham", images=("images",))
    expected = official(made).table
    for path in sorted((made / "images").iterdir())[::2]:
        as_png(path)
    found = official(made)
    assert found.table["image"].tolist() == expected["image"].tolist()
    assert found.read("ISIC_0000000").tobytes() == official(root).read("ISIC_0000000").tobytes()
    # where an image is there as both, the one that was published is taken
    image = io.BytesIO()
    Image.new("RGB", (40, 30)).save(image, "png")
    (made / "images" / "ISIC_0000001.png").write_bytes(image.getvalue())
    assert official(made).read("ISIC_0000001").tobytes() == (
        official(root).read("ISIC_0000001").tobytes()
    )


def test_other_folders_beside_those_of_the_data_are_not_read(root: Path, tmp_path: Path) -> None:
    made = make_ham10000(root, tmp_path / "ham")
    (made / "mine").mkdir()
    (made / "mine" / "ISIC_0099999.jpg").write_bytes(b"mine")
    assert len(official(made).table) == 70
    shutil.copytree(made / "mine", made / "ISIC2018_Task3_Test_Input")
    shutil.rmtree(made / "mine")
    for part in (1, 2):
        (made / f"HAM10000_images_part_{part}.zip").rename(made / f"part {part}.zip")
    assert len(official(made).table) == 70


def test_images_without_their_table_or_table_without_images(root: Path, tmp_path: Path) -> None:
    made = make_ham10000(root, tmp_path / "ham", images=("images",))
    (made / "HAM10000_metadata.csv").rename(tmp_path / "labels.csv")
    with pytest.raises(DataError, match=r"must hold HAM10000_metadata .* beside images"):
        official(made)
    (tmp_path / "labels.csv").rename(made / "HAM10000_metadata.csv")
    shutil.rmtree(made / "images")
    with pytest.raises(DataError, match=r"part_2 .*, or a folder with the images; there are no"):
        official(made)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("ISIC_2019_Training_Input", "2019"), ("ISIC_2019_Training_GroundTruth.csv", "2019"),
        ("isic-2019", "2019"), ("ISIC_2020_Training_JPEG", "2020"),
        ("ISIC2018_Task1-2_Training_Input.zip", "2018 Task 1"),
    ],
)  # fmt: skip
def test_files_of_another_year_are_recognised(tmp_path: Path, name: str, task: str) -> None:
    (tmp_path / "isic").mkdir()
    (tmp_path / "isic" / name).touch()
    message = f"is of ISIC {task}, which is another task: .* compare FOLDER --labels FILE"
    with pytest.raises(DataError, match=message):
        official(tmp_path / "isic")
    with pytest.raises(DataError, match=message):
        download("Training", tmp_path / "isic")  # instead of bringing 2018 beside it


# --------------------------------------------------------------------------------------------
# The pairs of one lesion, and the runs that are kept in the documentation
# --------------------------------------------------------------------------------------------


def test_the_known_pairs_are_there_for_everybody(tmp_path: Path) -> None:
    pairs = pd.read_csv(near_duplicates(tmp_path))
    assert near_duplicates(tmp_path) == PAIRS
    assert pairs.shape == (18, 2)
    assert pairs.stack().nunique() == 36
    assert pairs.stack().str.fullmatch(r"ISIC_00(2|3)\d{4}").all()
    (tmp_path / NEAR_DUPLICATES).write_text("from_img,to_img\n")
    assert near_duplicates(tmp_path) == tmp_path / NEAR_DUPLICATES


def test_the_kept_runs_are_of_the_data_that_lie_beside_them() -> None:
    data = {json.loads(path.read_text())["data"] for path in SMALL.glob(f"*/{RESULT}")}
    assert [data_file(SMALL, name) for name in data] == list(SMALL.glob("data-*.json"))


def test_the_kept_runs_are_found_with_the_real_images() -> None:
    folder = os.environ.get("ISIC2018_ROOT")
    if not folder:
        pytest.skip("ISIC2018_ROOT does not name the folder of the ISIC 2018 files")
    table = official(Path(folder)).table
    name, parts = fingerprint(table, lesion_groups(table, PAIRS), Path("imagenet"))
    for path in SMALL.glob("data-*.json"):
        before = json.loads(path.read_text())
        assert {**before, "files": parts["files"]} == parts
        if before == parts:  # the images that the runs were trained on
            assert data_file(SMALL, name) == path


# --------------------------------------------------------------------------------------------
# Runs of other data
# --------------------------------------------------------------------------------------------


def dataset_of(root: Path, cache: Path, *arguments: str) -> tuple[Dataset, list[Run]]:
    given = ["train", "--data-root", str(root), "--size", "16", "16", "--weights", "random"]
    args = cli.parse_arguments([*given, "--output", str(cache), "--models", "flat", *arguments])
    source = cli.source_of(args)
    dataset = source.open("flat")
    return dataset, cli.runs_of(args, source, dataset.fingerprint)


def finish(run: Run, folder: Path) -> None:
    (folder / run.name).mkdir(parents=True)
    (folder / run.name / RESULT).write_text(json.dumps({"name": run.name, **asdict(run)}))


def test_what_differs_is_told(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    dataset, runs = dataset_of(root, tmp_path / "one")
    finish(runs[0], folder)
    finish(runs[1], folder)
    finish(replace(runs[2], recipe=replace(runs[2].recipe, dropout=0.9)), folder)
    write_parts(dataset, folder)
    assert runs_of_other_data(runs, dataset, folder) == []

    made = make_ham10000(root, tmp_path / "ham", images=("images",))  # with times of change
    other, wanted = dataset_of(made, tmp_path / "two")
    (told,) = runs_of_other_data(wanted, other, folder)
    assert told == (
        f"2 finished runs in {folder} have these settings, but are of the data "
        f"{dataset.fingerprint}, which have image files of another size, checksum or time of "
        f"change under the same names, classes and lesions; --data {dataset.fingerprint} takes "
        f"them as they are"
    )
    accept(other, folder, dataset.fingerprint)
    assert other.fingerprint == dataset.fingerprint

    pairs = tmp_path / "pairs.csv"
    pairs.write_text("from_img,to_img\nISIC_0000000,ISIC_0000014\n")
    other, wanted = dataset_of(root, tmp_path / "two", "--near-duplicates", str(pairs))
    (told,) = runs_of_other_data(wanted, other, folder)
    assert "group other images as one lesion, so that their splits are others" in told
    assert "--data" not in told
    with pytest.raises(DataError, match="data with the splits of these, those of"):
        accept(other, folder, dataset.fingerprint)

    data_file(folder, dataset.fingerprint).unlink()
    (told,) = runs_of_other_data(wanted, other, folder)
    assert "is missing, so nothing is known" in told
    with pytest.raises(DataError, match="--data must name data of which runs are in"):
        accept(other, folder, dataset.fingerprint)


def test_the_command_tells_before_it_trains(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "isic2018" / "runs"
    dataset, runs = dataset_of(root, tmp_path / "one", "--weightings", "none")
    for run in runs:
        finish(run, folder)
    write_parts(dataset, folder)
    kept = data_file(folder, dataset.fingerprint).read_text()
    made = make_ham10000(root, tmp_path / "ham", images=("images",))
    asked: list[list[str]] = []
    monkeypatch.setattr(cli, "run_all", lambda job, *_: asked.append([r.name for r in job.runs]))
    command = ["train", "--data-root", str(made), "--size", "16", "16", "--weights", "random"]
    command += ["--output", str(tmp_path / "out"), "--models", "flat", "--weightings", "none"]
    cli.command(cli.parse_arguments(command))
    err = capsys.readouterr().err
    assert f"--data {dataset.fingerprint} takes them" in err
    cli.command(cli.parse_arguments([*command, "--data", dataset.fingerprint]))
    assert "takes them" not in capsys.readouterr().err
    names = [run.name for run in runs]
    assert asked[1] == names
    assert not set(asked[0]) & set(names)
    assert len(list(folder.glob("data-*.json"))) == 2
    assert data_file(folder, dataset.fingerprint).read_text() == kept
