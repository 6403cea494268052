"""A folder of images: which files are taken, what they are labelled, and how features are kept."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from sampleweights.compare.inputs import encoding, load  # noqa: E402
from sampleweights.compare.inputs.folders import find_images, list_images  # noqa: E402
from sampleweights.compare.inputs.labels import read_labels  # noqa: E402


def files(root: Path, *names: str) -> Path:
    """Images that nobody opens, each with another content."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def within(found: Sequence[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in found]


# --------------------------------------------------------------------------------------------
# Which files are images, and which folders are classes
# --------------------------------------------------------------------------------------------


def test_what_systems_leave_is_no_image(tmp_path: Path) -> None:
    kept = ["a/1.jpg", "a/deep/2.PNG", "b/3.tif"]
    junk = [
        "a/._1.jpg", "__MACOSX/a/1.jpg", "a/__MACOSX/1.jpg", "a/.cache/1.jpg", ".hidden/a/1.jpg",
        "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "a/Thumbs.db", "b/.DS_Store", "b/notes.txt",
    ]  # fmt: skip
    root = files(tmp_path / "images", *kept, *junk)
    assert within(find_images(root, tmp_path), root) == kept
    found = list_images(root, tmp_path)
    assert within(found.files, root) == kept
    assert found.classes == ["a", "a", "b"]
    assert found.note == ""


@pytest.mark.parametrize(
    ("names", "taken", "note"),
    [
        (["train", "val", "test"], ["train", "val"],
         "train and val taken together, because .* cross-validation; left out: test"),
        (["Training", "Validation"], ["Training", "Validation"], "Training and Validation taken t"),
        (["train", "valid", "docs"], ["train", "valid"], "left out: docs"),
        (["train", "test"], ["train"], "^train taken; left out: test$"),
        (["train_images", "test_images"], ["train_images"], "left out: test_images"),
        (["train"], ["train"], "^train taken$"),
        (["val", "train"], ["train", "val"], "train and val"),
    ],
)  # fmt: skip
def test_splits_are_no_classes(
    tmp_path: Path, names: list[str], taken: list[str], note: str
) -> None:
    for name in names:
        files(tmp_path / "images", f"{name}/cat/{name}-1.jpg", f"{name}/dog/{name}-2.jpg")
    found = list_images(tmp_path / "images", tmp_path / "images" / "comparison")
    assert found.classes == ["cat"] * len(taken) + ["dog"] * len(taken)
    expected = [f"{s}/cat/{s}-1.jpg" for s in taken] + [f"{s}/dog/{s}-2.jpg" for s in taken]
    assert within(found.files, tmp_path / "images") == expected
    assert re.search(note, found.note)


def test_a_class_may_be_called_train_or_test(tmp_path: Path) -> None:
    for names in (["car", "train", "tram"], ["urine test", "test", "valley"]):
        root = files(tmp_path / names[0], *(f"{name}/1.jpg" for name in names))
        assert list_images(root, tmp_path / "out").classes == sorted(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.jpg", "test/2.jpg"], r"train must hold one sub-folder .*--labels FILE"),
        (["HAM_part_1/1.jpg", "HAM_part_2/2.jpg", "HAM.csv"],
         r"parts of a data set, HAM_part_1, HAM_part_2.*perhaps .*HAM.csv, with --labels FILE"),
        (["archive/cat/1.jpg", "archive/dog/2.jpg"],
         r"at least two classes, got 1; give .*archive, if its folders are the classes"),
        (["1.jpg", "2.jpg"], r"at least two classes, got 0; if a table .*--labels FILE"),
        (["cat/1.jpg", "dog/notes.txt"], r"the class folder .*dog holds no image"),
    ],
)  # fmt: skip
def test_folders_that_are_no_classes(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list_images(files(tmp_path / "images", *names), tmp_path)


# --------------------------------------------------------------------------------------------
# A table beside the images
# --------------------------------------------------------------------------------------------


def labels(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path / "labels.csv", index=False)
    return path / "labels.csv"


def ham10000(root: Path) -> Path:
    """Six images as Kaggle has them: in two parts, each under two names."""
    for part, numbers in (("part_1", "135"), ("part_2", "246")):
        files(root, *(f"HAM10000_images_{part}/ISIC_{n}.jpg" for n in numbers))
        shutil.copytree(root / f"HAM10000_images_{part}", root / f"ham10000_images_{part}")
    pd.DataFrame(
        {
            "lesion_id": ["HAM_1", "HAM_1", "HAM_2", "HAM_3", "HAM_3", "HAM_4"],
            "image_id": ["ISIC_2", "ISIC_1", "ISIC_3", "ISIC_4", "ISIC_5", "ISIC_6"],
            "dx": ["nv", "nv", "nv", "mel", "mel", "bkl"],
            "dx_type": "histo",
            "age": 80,
            "sex": "male",
            "localization": "scalp",
        }
    ).to_csv(root / "HAM10000_metadata.csv", index=False)
    return root


@pytest.mark.parametrize("said", [True, False])
def test_ham10000_as_kaggle_has_it(tmp_path: Path, said: bool) -> None:
    root = ham10000(tmp_path / "ham")
    options = {"image": "image_id", "target": ["dx"], "group": "lesion_id"} if said else {}
    found = read_labels(root / "HAM10000_metadata.csv", root, tmp_path, **options)
    assert [file.name for file in found.files] == [f"ISIC_{n}.jpg" for n in "213456"]
    assert {file.parent.name[:8] for file in found.files} == {"HAM10000"}
    assert list(found.arrays["target"]) == ["nv", "nv", "nv", "mel", "mel", "bkl"]
    assert list(found.arrays["groups"]) == ["HAM_1", "HAM_1", "HAM_2", "HAM_3", "HAM_3", "HAM_4"]
    assert found.note == (
        "6 images; column 'image_id' names the images, 'dx' the classes, 'lesion_id' the groups; "
        "copies of other images, each taken once: 6"
    )


@pytest.mark.parametrize(
    "form",
    ["{0}", "{0}.jpg", "{0}.JPG", "{0}.jpeg", "part {0}/{0}", "part {0}/{0}.jpg", " {0} ",
     "./part {0}/{0}.jpg", "images/part {0}/{0}.jpg", "/mnt/images/part {0}/{0}.jpg",
     "images\\part {0}\\{0}.jpg"],
)  # fmt: skip
def test_how_a_table_may_name_an_image(tmp_path: Path, form: str) -> None:
    root = files(tmp_path / "images", *(f"part {n}/{n}.jpg" for n in ("007", "a.b", "x")))
    names = ["x", "007", "a.b"]
    table = labels(tmp_path, file=[form.format(n) for n in names], label=["b", "a", "b"])
    found = read_labels(table, root, tmp_path)
    assert [file.stem for file in found.files] == names


def test_a_path_tells_images_of_one_name_apart(tmp_path: Path) -> None:
    root = files(tmp_path / "images", "p1/1.jpg", "p2/1.jpg", "p2/deep/p1/1.jpg", "3.jpg")
    table = labels(tmp_path, file=["p2/1.jpg", "p1/1.jpg", "3.jpg"], label=["a", "b", "a"])
    found = read_labels(table, root, tmp_path)
    assert within(found.files, root) == ["p2/1.jpg", "p1/1.jpg", "3.jpg"]
    assert "left out: 1 of 4 images, without a row (p2/deep/p1/1.jpg)" in found.note
    table = labels(tmp_path, file=["1.jpg", "3.jpg"], label=["a", "b"])
    with pytest.raises(ValueError, match=r"'1.jpg' in row 0 of .* could be .* which differ: give"):
        read_labels(table, root, tmp_path)
    table = labels(tmp_path, file=["p3/1.jpg", "3.jpg"], label=["a", "b"])  # another 1.jpg
    assert "1 of 2 rows" in read_labels(table, root, tmp_path).note


def test_an_image_and_its_mask_are_told_apart(tmp_path: Path) -> None:
    root = files(tmp_path / "data", "images/1.jpg", "images/2.jpg", "masks/1.png")
    table = labels(tmp_path, file=["1.jpg", "2.jpg"], label=["a", "b"])
    found = read_labels(table, root, tmp_path)
    assert within(found.files, root) == ["images/1.jpg", "images/2.jpg"]
    table = labels(tmp_path, file=["1", "2"], label=["a", "b"])
    with pytest.raises(ValueError, match="the folder that holds only the images"):
        read_labels(table, root, tmp_path)


def test_what_has_no_row_or_no_image_is_left_out_and_told(tmp_path: Path) -> None:
    root = files(tmp_path / "images", *(f"{n}.jpg" for n in "abcdefghi"))
    table = labels(tmp_path, name=list("cawbxyz"), label=list("1212121"))
    found = read_labels(table, root, tmp_path)
    assert [file.stem for file in found.files] == ["c", "a", "b"]
    assert list(found.arrays["target"]) == [1, 2, 2]
    assert "3 images; column 'name' names the images" in found.note
    assert "left out: 4 of 7 rows, without an image (w, x, y, ...)" in found.note
    assert "left out: 6 of 9 images, without a row (d.jpg, e.jpg, f.jpg, ...)" in found.note


def test_rows_of_one_image_must_agree(tmp_path: Path) -> None:
    root = files(tmp_path / "images", "1.jpg", "2.jpg")
    columns: dict[str, Any] = {"file": ["1", "2", "1.jpg"], "label": ["a", "b", "a"]}
    found = read_labels(labels(tmp_path, **columns, note=["x", "y", "z"]), root, tmp_path)
    assert list(found.arrays["target"]) == ["a", "b"]
    assert found.arrays.keys() == {"target", "facts"}
    assert "rows that say the same of an image again: 1" in found.note
    for wrong in ({"label": ["a", "b", "b"]}, {"patient": ["1", "1", "2"]}):
        with pytest.raises(ValueError, match=r"1.jpg has '.' in column .*, row 0 .*in row 2"):
            read_labels(labels(tmp_path, **columns | wrong), root, tmp_path)


@pytest.mark.parametrize(
    ("columns", "target", "groups"),
    [
        ({"level": ["1", "0", "10"]}, [1, 0, 10], None),  # the only other column
        ({"Class": ["NA", "b", "None"], "age": [1, 2, 3]}, ["NA", "b", "None"], None),
        ({"label": ["01", "1", "2"], "patient_id": ["007", "7", "07"]},
         ["01", "1", "2"], ["007", "7", "07"]),
        ({"grade": ["a", "b", "a"], "Patient-ID": [7, 7, 8]}, ["a", "b", "a"], [7, 7, 8]),
    ],
)  # fmt: skip
def test_columns_are_guessed_where_the_choice_is_unique(
    tmp_path: Path, columns: dict[str, Any], target: list[Any], groups: list[Any] | None
) -> None:
    root = files(tmp_path / "images", "x1.jpg", "x2.jpg", "x3.jpg")
    table = labels(tmp_path, image=["x1", "x2", "x3"], **columns)
    found = read_labels(table, root, tmp_path)
    assert list(found.arrays["target"]) == target
    assert "groups" in found.arrays if groups else "groups" not in found.arrays
    assert list(found.arrays.get("groups", [])) == (groups or [])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": list("ab"), "target": list("ab")}, {},
         "needs --target COLUMN, one of label, target$"),
        ({"age": [1, 2], "sex": list("mf")}, {}, "needs --target COLUMN, one of age, sex$"),
        ({"label": list("ab"), "image": ["x1.jpg", "x2.jpg"]}, {},
         "needs --image COLUMN, one of file, image: all name images"),
        ({"label": list("ab"), "patient": [1, 2], "lesion_id": [1, 2]}, {},
         "needs --group COLUMN, one of patient, lesion_id, so .*; or --drop patient lesion_id"),
        ({"label": list("ab")}, {"target": ["no"]}, "no column 'no' for --target, only file, lab"),
        ({"label": list("ab")}, {"image": "no"}, "no column 'no' for --image, only file, label"),
        ({"label": list("ab")}, {"group": "no"}, "no column 'no' for --group, only file, label"),
        ({"label": list("ab")}, {"image": "label"},
         r"column 'label' of .* names none of the 2 images .*: it has 'a', an image is x1.jpg"),
        ({"file": ["x", "y"], "label": list("ab")}, {},
         "no column of .* its first row is file=x, label=a, an image is x1.jpg; .*--image COLUMN"),
        ({"label": ["a", ""]}, {"target": ["label"]}, r"column 'label' is empty in row 1"),
        ({"label": list("ab"), "who": ["", "b"]}, {"group": "who"}, "'who' is empty in row 0"),
        ({"x": [0, 1], "y": [0, 2]}, {"target": ["x", "y"]},
         r"'y' must hold 0 and 1.* got 2 in row 1"),
    ],
)  # fmt: skip
def test_what_a_table_lacks_is_one_sentence(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    root = files(tmp_path / "images", "x1.jpg", "x2.jpg")
    table = labels(tmp_path, **{"file": ["x1", "x2"]} | columns)
    with pytest.raises(ValueError, match=message) as error:
        read_labels(table, root, tmp_path, **options)
    assert str(table) in str(error.value)
    assert "\n" not in str(error.value)


def test_several_targets_are_labels_that_an_image_may_have_together(tmp_path: Path) -> None:
    root = files(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    table = labels(tmp_path, file=[3, 1, 2], scab=[0, 1, 1], rust=["1.0", "0.0", "1"])
    found = read_labels(table, root, tmp_path, target=["rust", "scab"])
    assert found.arrays["target"].tolist() == [[1, 0], [0, 1], [1, 1]]
    assert found.arrays["class_names"] == ["rust", "scab"]


def test_the_ground_truth_of_isic_has_a_column_for_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = files(tmp_path / "images", "x1.jpg", "x2.jpg", "x3.jpg")
    one_hot = {"MEL": [0.0, 1, 0], "NV": [1.0, 0, 1], "UNK": [0.0, 0, 0]}
    monkeypatch.setattr(encoding, "_encode", Encoder())
    options: dict[str, Any] = {"output": tmp_path / "out", "weights": "random"}
    found = load([root], **options, labels=labels(tmp_path, image=["x1", "x2", "x3"], **one_hot))
    assert [found.class_names[i] for i in found.target] == ["NV", "MEL", "NV"]
    several = labels(tmp_path, image=["x1", "x2", "x3"], **one_hot | {"UNK": [1, 0, 0]})
    with pytest.raises(ValueError, match="needs --target COLUMN, one of MEL, NV, UNK"):
        load([root], **options, labels=several)


def test_folds_groups_and_what_is_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = files(tmp_path / "images", *(f"x{i}.jpg" for i in range(6)))
    columns = {"label": list("aabbab"), "fold": list("001122"), "patient": list("uvwxyz")}
    table = labels(tmp_path, image=[f"x{i}" for i in range(6)], **columns, lesion=range(10, 16))
    monkeypatch.setattr(encoding, "_encode", Encoder())
    options: dict[str, Any] = {"output": tmp_path / "out", "labels": table, "weights": "random"}
    found = load([root], **options, folds="fold", drop=["lesion"])
    assert found.folds is not None
    assert found.folds.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.groups is not None
    assert load([root], **options, drop=["lesion", "patient", "fold"]).groups is None
    kept = load([tmp_path / "out" / "features.npz"])  # of the last command
    assert (kept.groups, kept.folds) == (None, None)
    with pytest.raises(ValueError, match="no column 'no' for --drop"):
        load([root], **options, drop=["no"])
    with pytest.raises(ValueError, match="no column 'no' for --folds"):
        load([root], **options, folds="no")


def test_a_column_that_looks_like_a_split_is_asked_about(tmp_path: Path) -> None:
    root = files(tmp_path / "images", *(f"x{i}.jpg" for i in range(4)))
    columns = {"image": [f"x{i}" for i in range(4)], "label": list("abab")}
    table = labels(tmp_path, **columns, split=["train", "train", "train", "test"])
    said = f"{table}: column 'split' looks like the folds .* --folds split, or .* --drop split$"
    with pytest.raises(ValueError, match=said):
        read_labels(table, root, tmp_path)
    assert list(read_labels(table, root, tmp_path, folds="split").arrays["folds"])[-1] == "test"
    assert "folds" not in read_labels(table, root, tmp_path, drop=["split"]).arrays
    one = labels(tmp_path, **columns, split="train")  # says nothing
    assert "folds" not in read_labels(one, root, tmp_path).arrays


def test_a_table_of_groups_beside_folders_of_classes(tmp_path: Path) -> None:
    root = files(tmp_path / "images", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg")
    table = labels(tmp_path, file=[3, 2, 1], a=[1, 2, 3], b=[4, 5, 6], patient=["p", "p", "q"])
    found = read_labels(table, root, tmp_path, classes=lambda: list_images(root, tmp_path)[:2])
    assert found.arrays["target"] == ["dog", "dog", "cat"]
    assert list(found.arrays["groups"]) == ["p", "p", "q"]
    assert "folders the classes, 'patient' the groups" in found.note
    for classes in (None, lambda: list_images(tmp_path, tmp_path)[:2]):  # there are none
        with pytest.raises(ValueError, match="needs --target COLUMN, one of a, b"):
            read_labels(table, root, tmp_path, classes=classes)


# --------------------------------------------------------------------------------------------
# Features
# --------------------------------------------------------------------------------------------


def image_folder(path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for name, count in {"naevus": 3, "melanoma": 2}.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            image.fromarray(pixels).save(path / name / f"{i}.png")
    (path / "naevus" / "notes.txt").touch()
    (path / ".hidden").mkdir()
    return path


SMALL = {"encoder": "test_resnet", "weights": "random", "progress": False}


@pytest.fixture
def needs_timm() -> None:
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")


@pytest.mark.usefixtures("needs_timm")
def test_a_folder_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = image_folder(tmp_path / "images"), tmp_path / "images" / "comparison"
    first = load([folder], output=output, **SMALL)
    assert first.class_names == ["melanoma", "naevus"]
    assert first.target.tolist() == [0, 0, 1, 1, 1]
    assert first.features.shape[0] == 5
    assert np.ptp(first.features, axis=0).max() > 0
    assert [f.name for f in output.iterdir()] == ["features.npz"]
    np.testing.assert_array_equal(load([output / "features.npz"]).features, first.features)

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "_encode", lambda *args: pytest.fail("computed again"))
        again = load([folder], output=output, **SMALL)
    np.testing.assert_array_equal(again.features, first.features)

    (folder / "naevus" / "2.png").replace(folder / "naevus" / "3.png")
    (folder / "naevus" / "3.png").write_bytes((folder / "naevus" / "0.png").read_bytes())
    changed = load([folder], output=output, **SMALL).features
    np.testing.assert_allclose(changed[4], first.features[2], rtol=1e-4, atol=1e-4)
    assert not np.allclose(changed[4], first.features[4])


@pytest.mark.usefixtures("needs_timm")
def test_weights_of_a_file(tmp_path: Path) -> None:
    import timm
    import torch

    folder, weights = image_folder(tmp_path / "images"), tmp_path / "weights.pth"
    before = load([folder], output=tmp_path, **SMALL).features
    model = timm.create_model("test_resnet", num_classes=7)  # its classifier is not needed
    torch.save(model.state_dict(), weights)
    options = SMALL | {"weights": str(weights)}
    features = load([folder], output=tmp_path, **options).features
    assert not np.allclose(features, before)

    torch.save({"state_dict": {"x": torch.zeros(1)}}, weights)  # its time and content changed
    with pytest.raises(ValueError, match=r"weights.pth do not fit test_resnet: .*Missing key"):
        load([folder], output=tmp_path, **options)
    with pytest.raises(ValueError, match="--weights must be imagenet, random or a file, got 'no'"):
        load([folder], output=tmp_path, **SMALL | {"weights": "no"})


@pytest.mark.usefixtures("needs_timm")
def test_wrong_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    folder = image_folder(tmp_path / "images")
    with pytest.raises(ValueError, match="--encoder must be the name of a timm model, got 'no'"):
        load([folder], output=tmp_path, **SMALL | {"encoder": "no"})
    whole = (folder / "naevus" / "1.png").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (folder / "naevus" / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"the image .*naevus.1.png cannot be read"):
            load([folder], output=tmp_path, **SMALL)
    assert not (tmp_path / "features.npz").exists()

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(OSError, match=r"cannot be downloaded \(no network\); .* --weights FILE"):
        load([folder], output=tmp_path, encoder="resnet18", progress=False)


def test_folders_without_classes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match="the class folder .*one holds no image"):
        load([tmp_path])
    (tmp_path / "one" / "x.PNG").touch()
    with pytest.raises(ValueError, match=r"at least two classes, got 1"):
        load([tmp_path])


@pytest.mark.parametrize("package", ["timm", "torchvision", "PIL"])
def test_images_without_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    folder = image_folder(tmp_path / "images")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="needs timm, torchvision and pillow .*: pip install"):
        load([folder], output=tmp_path, **SMALL)


# --------------------------------------------------------------------------------------------
# Features that are computed in parts
# --------------------------------------------------------------------------------------------


class Encoder:
    """Features that tell the content of a file, two images at a time; it may be stopped."""

    def __init__(self, stop: int | None = None) -> None:
        self.seen: list[str] = []
        self.stop = stop

    def __call__(self, files: Sequence[Path], *_: Any) -> Iterator[Any]:
        for first in range(0, len(files), 2):
            if len(self.seen) == self.stop:
                raise KeyboardInterrupt
            batch = files[first : first + 2]
            self.seen += [file.stem for file in batch]
            values = [[file.stat().st_size, ord(file.read_text()[-1])] for file in batch]
            yield first + np.arange(len(batch)), np.array(values, dtype=np.float32)


@pytest.fixture
def ten(tmp_path: Path) -> list[Path]:
    root = tmp_path / "images"
    for i in range(10):
        files(root, f"{i}.jpg").joinpath(f"{i}.jpg").write_text(f"{i}" * (i + 1))
    return find_images(root, tmp_path)


def features(
    monkeypatch: pytest.MonkeyPatch,
    given: list[Path],
    encoder: Encoder,
    name: str = "a",
    **beside: Any,
) -> Any:
    monkeypatch.setattr(encoding, "_encode", encoder)
    root = given[0].parent
    kept = root.parent / "out" / "features.npz"
    return encoding.image_features(given, root, kept, name, "random", False, **beside)


EXPECTED = [[i + 1, ord(str(i))] for i in range(10)]


@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_a_computation_that_was_stopped_goes_on(
    tmp_path: Path, ten: list[Path], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Whether a part was written in time, or at the end."""
    monkeypatch.setattr(encoding, "_SECONDS", seconds)
    parts = tmp_path / "out" / "features"
    for stop, seen in ((4, "0123"), (2, "45")):
        encoder = Encoder(stop)
        with pytest.raises(KeyboardInterrupt):
            features(monkeypatch, ten, encoder)
        assert "".join(encoder.seen) == seen
    assert not (tmp_path / "out" / "features.npz").exists()
    assert all(path.suffix == ".npz" for path in parts.iterdir())
    (parts / "x.npz.99.part").touch()  # of a command that was killed
    encoder = Encoder()
    np.testing.assert_array_equal(features(monkeypatch, ten, encoder), EXPECTED)
    assert "".join(encoder.seen) == "6789"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.npz"]
    encoder = Encoder()
    np.testing.assert_array_equal(features(monkeypatch, ten, encoder), EXPECTED)
    assert encoder.seen == []


def test_parts_of_what_has_changed_are_not_read(
    tmp_path: Path, ten: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        features(monkeypatch, ten, Encoder(6))
    ten[2].write_text("2222222")
    encoder = Encoder()
    found = features(monkeypatch, ten, encoder)
    assert "".join(encoder.seen) == "26789"
    np.testing.assert_array_equal(found[2], [7, ord("2")])

    with pytest.raises(KeyboardInterrupt):
        features(monkeypatch, ten, Encoder(2), "another model")
    encoder = Encoder()
    features(monkeypatch, ten, encoder, "a third model")
    assert len(encoder.seen) == 10


def test_an_image_more_is_one_computation_more(
    tmp_path: Path, ten: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    features(monkeypatch, ten[1:], Encoder())
    encoder = Encoder()
    np.testing.assert_array_equal(features(monkeypatch, ten, encoder), EXPECTED)
    assert encoder.seen == ["0"]
    encoder = Encoder()
    order = [3, 1, 2]
    found = features(monkeypatch, [ten[i] for i in order], encoder)
    np.testing.assert_array_equal(found, [EXPECTED[i] for i in order])
    assert encoder.seen == []


def test_other_labels_need_no_computation(
    tmp_path: Path, ten: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    features(monkeypatch, ten, Encoder(), target=list("aaaaabbbbb"))
    encoder = Encoder()
    features(monkeypatch, ten, encoder, target=list("ababababab"), groups=np.arange(10))
    assert encoder.seen == []
    kept = load([tmp_path / "out" / "features.npz"])
    assert kept.target.tolist() == [0, 1] * 5
    assert kept.groups is not None
    with np.load(tmp_path / "out" / "features.npz") as archive:
        assert archive["image"].tolist() == [f"{i}.jpg" for i in range(10)]


def test_what_is_not_a_part_stays_in_the_folder_of_parts(
    tmp_path: Path, ten: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tmp_path / "out" / "features"
    parts.mkdir(parents=True)
    np.savez(parts / "mine.npz", features=np.eye(10))
    (parts / "broken.npz").write_text("mine")
    np.testing.assert_array_equal(features(monkeypatch, ten, Encoder()), EXPECTED)
    assert sorted(path.name for path in parts.iterdir()) == ["broken.npz", "mine.npz"]


@pytest.mark.usefixtures("needs_timm")
def test_all_images_that_cannot_be_read_are_told_and_the_others_kept(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images")
    whole = (folder / "naevus" / "1.png").read_bytes()
    for name in ("naevus/1.png", "melanoma/0.png"):
        (folder / name).write_bytes(b"text")
    with pytest.raises(ValueError, match=r"2 images cannot be read; the image .*0.png.*1.png"):
        load([folder], output=tmp_path, **SMALL)
    for name in ("naevus/1.png", "melanoma/0.png"):
        (folder / name).write_bytes(whole)
    found = load([folder], output=tmp_path, **SMALL)
    np.testing.assert_allclose(found.features[0], found.features[3], rtol=1e-4, atol=1e-4)
    assert not (tmp_path / "features").exists()


@pytest.mark.usefixtures("needs_timm")
def test_images_of_sixteen_bits_are_not_cut_off(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    eight = np.random.default_rng(0).integers(0, 256, (9, 12), dtype=np.uint8)
    eight.flat[:2] = 0, 255
    for name, pixels in {"a": eight, "b": eight.astype(np.uint16) * 16}.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        image.fromarray(pixels).save(tmp_path / "images" / name / "1.png")
    one, other = load([tmp_path / "images"], output=tmp_path, **SMALL).features
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------
# All together
# --------------------------------------------------------------------------------------------


def test_what_was_read_is_told_before_the_encoder_runs_and_stands_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ham10000(tmp_path / "ham")
    monkeypatch.setattr(encoding, "_encode", Encoder(0))
    options: dict[str, Any] = {"labels": root / "HAM10000_metadata.csv", "output": tmp_path / "out"}
    told: list[str] = []
    options |= {
        "encoder": "test_resnet",
        "weights": "random",
        "say": lambda name, _: told.append(name),
    }
    with pytest.raises(KeyboardInterrupt):
        load([root], **options)
    assert told == ["images"]
    monkeypatch.setattr(encoding, "_encode", Encoder())
    found = load([root], **options)
    assert found.class_names == ["bkl", "mel", "nv"]
    assert found.groups is not None
    assert found.groups.tolist() == [0, 0, 1, 2, 2, 3]
    assert found.facts["images"].endswith("each taken once: 6")
    assert told == ["images", "images", "encoder"]
    assert found.facts["encoder"].startswith("test_resnet with random weights, frozen: 2 features")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": ["dx"]}, "--target, --group and --drop are for .*; give .* with --labels FILE"),
        ({"image": "dx"}, "--image names a column: give the table that has it with --labels"),
        ({"labels": "ham/HAM10000_metadata.csv", "groups": "groups.npy"},
         "the groups of .*metadata.csv are one of its columns: --group COLUMN"),
        ({"labels": "no.csv"}, "no.csv does not exist$"),
        ({"labels": "HAM10000_metadata.csv"}, "not exist, use --labels .*ham/HAM10000_meta"),
        ({"labels": "ham"}, "--labels must be a table, such as a .csv file, got the folder .*ham$"),
        ({"labels": "groups.npy"}, "groups.npy cannot be read: it is no text: save .* as .csv or"),
        ({"groups": "groups.npy"}, "one value for each of the 6 images of .*class and path, got 5"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    root = ham10000(tmp_path / "ham")
    for part in (1, 2):
        (root / f"HAM10000_images_part_{part}").rename(root / f"class {part}")
        shutil.rmtree(root / f"ham10000_images_part_{part}")
    np.save(tmp_path / "groups.npy", np.arange(5))
    paths = {name: tmp_path / options[name] for name in ("labels", "groups") if name in options}
    with pytest.raises(ValueError, match=message):
        load([root], output=tmp_path / "out", **options | paths)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (None, {"folds": [0, 1, 0, 1, 0]}, "--folds must have one value for .* 6 images .*, got 5"),
        (None, {"folds": [0] * 6}, "folds must have at least two values"),
        (
            {"a": [0] * 6, "b": [0, 1] * 3},
            {"target": ["a", "b"]},
            "got none with 'a': leave",
        ),
        ({"a": ["u"] * 6}, {"target": ["a"]}, "target must have at least two classes"),
    ],
)
def test_what_is_wrong_is_told_before_the_encoder_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    columns: dict[str, Any] | None,
    options: dict[str, Any],
    message: str,
) -> None:
    root = files(tmp_path / "images", *(f"{c}/{i}.jpg" for i, c in enumerate("aaabbb")))
    if columns is not None:
        options = options | {"labels": labels(tmp_path, image=[*range(6)], **columns)}
    if "folds" in options:
        np.save(tmp_path / "folds.npy", options["folds"])
        options = options | {"folds": str(tmp_path / "folds.npy")}
    monkeypatch.setattr(encoding, "_encode", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ValueError, match=message):
        load([root], output=tmp_path / "out", weights="random", **options)


def test_folds_of_a_file_reach_images_and_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = files(tmp_path / "images", "b/1.jpg", "a/2.jpg", "a/1.jpg", "b/3.jpg")
    np.save(tmp_path / "folds.npy", np.array([0, -1, 0, -1]))  # a/1, a/2, b/1, b/3
    monkeypatch.setattr(encoding, "_encode", Encoder())
    options: dict[str, Any] = {"output": tmp_path / "out", "weights": "random"}
    found = load([root], **options, folds=str(tmp_path / "folds.npy"))
    assert found.folds is not None
    assert found.folds.tolist() == [0, -1, 0, -1]
    assert load([tmp_path / "out" / "features.npz"]).folds is None


def test_groups_in_the_order_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = files(tmp_path / "images", "b/1.jpg", "a/2.jpg", "a/1.jpg")
    np.save(tmp_path / "groups.npy", np.array(["p", "p", "q"]))
    monkeypatch.setattr(encoding, "_encode", Encoder())
    options: dict[str, Any] = {"groups": tmp_path / "groups.npy", "weights": "random"}
    found = load([root], output=tmp_path / "out", **options)
    assert found.groups is not None
    assert found.groups.tolist() == [0, 0, 1]
    assert found.facts["groups"].endswith("a/1.jpg in p, ..., b/1.jpg in q")
