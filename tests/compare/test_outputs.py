"""What the command did not write, it does not replace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from matplotlib.figure import Figure  # noqa: E402

from sampleweights.__main__ import main  # noqa: E402
from sampleweights.compare import cli  # noqa: E402
from sampleweights.compare.inputs import encoding, images  # noqa: E402
from sampleweights.compare.outputs import (  # noqa: E402
    FEATURES,
    PAGE,
    PARTS,
    PICTURE,
    SUSPICIOUS,
    TABLE,
    check_output,
    replacing,
)
from sampleweights.compare.report import picture  # noqa: E402

TARGET = np.repeat(["a", "b"], 6)
FRAME = pd.DataFrame({"x": np.arange(12.0), "label": TARGET})


def compare(*arguments: object) -> int:
    small = ["--folds", "2", "--num-epochs", "1", "--workers", "1", "--rows", "OHEM"]
    return main(["compare", *map(str, arguments), *small, "--no-progress"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "compare", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(encoding, "_encode", lambda *_: pytest.fail("encoded"))


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """The sentence of a command that ends before it has changed a file."""
    before = contents(folder)
    assert compare(*arguments) == 1
    assert contents(folder) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--output" in error
    return error


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("place", ["itself", "symbolic link", "hard link", "another way"])
def test_an_input_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, output = tmp_path / "table.csv", tmp_path
    if "link" in place:
        given, output = tmp_path / "data.csv", tmp_path / "out"
        output.mkdir()
    FRAME.to_csv(given, index=False)
    if place == "symbolic link":
        (output / "table.csv").symlink_to(given)
    elif place == "hard link":
        os.link(given, output / "table.csv")
    elif place == "another way":
        monkeypatch.chdir(tmp_path)
        given, output = Path("table.csv"), Path(os.curdir)
    error = refused(capsys, tmp_path, given, "--target", "label", "--output", output)
    assert "table.csv would be replaced, and is an input" in error


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("name", [TABLE, PICTURE, PAGE, SUSPICIOUS])
@pytest.mark.parametrize("content", [b"", b"row,accuracy\nmine,1\n", b"\x89PNG mine", None])
def test_a_file_of_somebody_else_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    FRAME.to_csv(tmp_path / "data.csv", index=False)
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    arguments = (tmp_path / "data.csv", "--target", "label", "--output", tmp_path)
    error = refused(capsys, tmp_path, *arguments)
    assert f"{name} would be replaced, and was not written by this command" in error


def image_folder(path: Path) -> Path:
    for i, label in enumerate(TARGET):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{i}.png").touch()
    return path


def test_a_page_that_quotes_the_mark_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("<p>The table was written by sampleweights.compare.</p>")
    with pytest.raises(ValueError, match="was not written by this command"):
        check_output(tmp_path, [])


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("kind", ["archive", "text", "folder"])
def test_features_of_somebody_else_are_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    if kind == "archive":
        np.savez(tmp_path / FEATURES, features=np.eye(12), target=TARGET)
    elif kind == "text":
        (tmp_path / FEATURES).write_text("mine")
    else:
        (tmp_path / FEATURES).mkdir()
    folder = image_folder(tmp_path / "images")
    error = refused(capsys, tmp_path, folder, "--output", tmp_path, "--weights", "random")
    assert "features.npz would be replaced, and was not written by this command" in error


def test_an_earlier_comparison_is_replaced_and_all_else_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input lies in the folder of the output, where a file is a link to a kept copy."""

    def plot(comparison: Any, axes: Any = None, *, words: bool = True) -> Any:
        axes = axes or Figure().subplots()
        axes.set_title(comparison.seed)
        return axes

    monkeypatch.setattr(picture, "plot", plot)  # the real one takes seconds
    given = tmp_path / "features.npz"
    np.savez(given, features=np.random.default_rng(0).normal(size=(12, 2)), target=TARGET)
    (tmp_path / "notes.txt").write_text("mine")
    assert compare(given, "--output", tmp_path) == 0
    first = contents(tmp_path)
    assert {TABLE, PICTURE, PAGE} < first.keys()

    kept = tmp_path / "kept.csv"
    (tmp_path / TABLE).rename(kept)
    (tmp_path / TABLE).symlink_to(kept)
    assert compare(given, "--output", tmp_path, "--seed", "1") == 0
    second = contents(tmp_path)
    assert all(first[name] != second[name] for name in (TABLE, PICTURE, PAGE))
    assert second["kept.csv"] == first[TABLE]
    assert {n: second[n] for n in ("features.npz", "notes.txt")} == {
        n: first[n] for n in ("features.npz", "notes.txt")
    }
    assert not list(tmp_path.glob("*.part"))
    capsys.readouterr()

    error = refused(capsys, tmp_path, tmp_path / TABLE, "--target", "row", "--output", tmp_path)
    assert "is an input" in error


@pytest.mark.slow
def test_labels_that_look_wrong_are_listed_while_they_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier list is removed when no label looks wrong any more; if it is ignored, it stays."""
    monkeypatch.setattr(picture, "plot", lambda *_, **__: Figure().subplots())
    right = np.repeat(["a", "b", "c"], 40)
    wrong = right.copy()
    wrong[::20] = np.roll(right, 40)[::20]
    given, output = tmp_path / "data.npz", tmp_path / "out"
    features = np.eye(3)[np.repeat(range(3), 40)] + np.random.default_rng(0).normal(
        size=(120, 3), scale=0.1
    )

    def told(target: Any, *arguments: str) -> bool:
        np.savez(given, features=features, target=target)
        settings = ["--folds", "3", "--num-epochs", "40", "--workers", "1", "--rows", "OHEM"]
        command = ["compare", str(given), "--output", str(output), *settings, "--no-progress"]
        assert main([*command, *arguments]) == 0
        told = "[suspicious-labels]" in capsys.readouterr().out
        assert (output / SUSPICIOUS).exists() == (told or bool(arguments))
        return told

    assert told(wrong)
    table = pd.read_csv(output / SUSPICIOUS)
    assert sorted(table["index"]) == list(range(0, 120, 20))
    assert (table["predicted"] == right[table["index"]]).all()
    assert not told(right)
    assert told(wrong)
    assert not told(wrong, "--ignore", "suspicious-labels")


def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / TABLE
    output = replacing(path)
    output.__enter__().write_text("row,accuracy,accuracy_low,\n")
    path.write_text("mine")
    with pytest.raises(ValueError, match="was not written by this command"):
        output.__exit__(None, None, None)
    assert contents(tmp_path) == {TABLE: b"mine"}


@pytest.mark.parametrize("where", ["", "comparison", "of/mine", "a/comparison", "../out", ".."])
def test_what_an_earlier_run_wrote_is_no_image_and_no_class(tmp_path: Path, where: str) -> None:
    folder = image_folder(tmp_path / "in" / "images")
    output = folder / where
    first = images.list_images(folder, output)
    assert first[1] == TARGET.tolist()
    (output / "runs").mkdir(parents=True)
    for name in (TABLE, PICTURE, PAGE, FEATURES, "runs/x.npz"):
        (output / name).touch()
    assert images.list_images(folder, output) == first


@pytest.mark.parametrize("where", ["a", "a/comparison", "comparison"])
def test_images_within_the_output_are_told(tmp_path: Path, where: str) -> None:
    folder = image_folder(tmp_path / "images")
    (folder / where).mkdir(exist_ok=True)
    (folder / where / "other.png").touch()
    with pytest.raises(ValueError, match="lies in .*images and holds images"):
        images.list_images(folder, folder / where)


def test_a_class_may_be_called_as_the_folder_of_runs(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    (folder / "a").rename(folder / "runs")
    found: Any = images.list_images(folder, folder)
    assert sorted({*found[1]}) == ["b", "runs"]


def test_what_earlier_commands_wrote_among_the_images_is_no_class(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("cat/1.jpg", "dog/1.jpg"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    np.savez(tmp_path / "x.npz", features=np.arange(24.0).reshape(12, 2), target=TARGET)
    for output in (root / "first", root):  # with a picture, and with folders of runs
        assert compare(tmp_path / "x.npz", "--output", output) == 0
    (root / "stopped" / PARTS).mkdir(parents=True)  # while it encoded
    np.savez(root / "stopped" / PARTS / "1.npz", features=[0], signature=[0])
    found = images.list_images(root, tmp_path / "out")
    assert found.classes == ["cat", "dog"]
    assert [file.name for file in found.files] == ["1.jpg", "1.jpg"]
    (root / "mine").mkdir()
    (root / "mine" / PICTURE).write_bytes(b"a picture of the user's own")
    assert images.list_images(root, tmp_path / "out").classes == ["cat", "dog", "mine"]
