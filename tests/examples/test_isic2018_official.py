"""Download, reading and checking of the official files."""

from __future__ import annotations

import shutil
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_files import NUM_IMAGES, jpeg, make

from examples.isic2018.official import (
    CLASSES,
    EASTER_EGG,
    FILES,
    ISIC_COUNTS,
    PREFIX,
    DataError,
    download,
    find,
    official,
    read_csv,
)

TRUTH = f"{PREFIX}Training_GroundTruth.zip"
LESIONS = f"{PREFIX}Training_LesionGroupings.csv"
IMAGES = f"{PREFIX}Training_Input.zip"


def test_the_counts_are_those_of_the_challenge() -> None:
    assert sum(ISIC_COUNTS) == 10_015
    assert dict(zip(CLASSES, ISIC_COUNTS, strict=True))["NV"] == 6_705


def test_zips_and_folders_give_the_same(root: Path) -> None:
    zipped = official(root)
    assert zipped.table["target"].tolist() == [i // 2 % 7 for i in range(NUM_IMAGES)]
    assert zipped.table["lesion"].tolist() == [f"HAM_{i // 2}" for i in range(NUM_IMAGES)]
    name = zipped.table["image"][3]
    before = np.array(zipped.read(name))
    for path in root.glob("*.zip"):
        shutil.unpack_archive(path, root)
        path.unlink()
    unpacked = official(root)
    pd.testing.assert_frame_equal(
        zipped.table.drop(columns="signature"), unpacked.table.drop(columns="signature")
    )
    assert np.array_equal(before, np.array(unpacked.read(name)))


def test_the_test_set_is_without_its_easter_egg(root: Path) -> None:
    make(root, "Test", 68 + 2)
    table = official(root, "Test").table
    assert len(table) == 70
    names = {EASTER_EGG: "ISIC_0034503"}
    change_truth(root, "Test", lambda t: t.replace({"image": {v: k for k, v in names.items()}}))
    assert len(official(root, "Test").table) == 69


def change_truth(root: Path, part: str, change: object) -> None:
    path = root / f"{PREFIX}{part}_GroundTruth.zip"
    name = f"{PREFIX}{part}_GroundTruth"
    table = change(read_csv(path, []))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/{name}.csv", table.to_csv(index=False))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("GroundTruth.zip is not a complete zip file", lambda at: truncate(at / TRUTH)),
        ("Training_Input.zip is not a complete zip file", lambda at: truncate(at / IMAGES)),
        (r"columns .*, \['NV'\] are missing",
         lambda at: change_truth(at, "Training", lambda t: t.drop(columns="NV"))),
        ("exactly one class, ISIC_0000004 has",
         lambda at: change_truth(at, "Training", lambda t: t.assign(DF=1.0 * (t.index == 4)))),
        ("name each image once, ISIC_0000000 comes twice",
         lambda at: change_truth(at, "Training", lambda t: t.assign(image="ISIC_0000000"))),
        ("name the lesion of every image .*, 1 are missing: ISIC_0000069",
         lambda at: (at / LESIONS).write_text((at / LESIONS).read_text().rsplit("\n", 2)[0])),
        (r"columns \['image', 'lesion_id'\], \['lesion_id'\] are missing",
         lambda at: (at / LESIONS).write_text("image\nISIC_0000000\n")),
        ("must hold ISIC2018_Task3_Training_GroundTruth", lambda at: (at / TRUTH).unlink()),
        ("exactly one class, ISIC_0000004 has",
         lambda at: change_truth(at, "Training", lambda t: t.assign(
             DF=["yes" if i == 4 else v for i, v in enumerate(t["DF"])]))),
        ("LesionGroupings.csv is not a CSV file", lambda at: (at / LESIONS).write_text("")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_name(root: Path, message: str, change: object) -> None:
    change(root)
    with pytest.raises(DataError, match=message) as error:
        official(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no jpeg", jpeg(0, 0)[:600]])
def test_an_image_that_can_not_be_read_is_named(root: Path, content: bytes) -> None:
    shutil.unpack_archive(root / IMAGES, root)
    (root / IMAGES).unlink()
    file = root / f"{PREFIX}Training_Input" / "ISIC_0000007.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError, match="image ISIC_0000007 can not be decoded"):
        official(root).read("ISIC_0000007")
    file.unlink()
    with pytest.raises(DataError, match="hold every image .*, 1 are missing: ISIC_0000007"):
        official(root)


def test_a_root_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data-root must be a folder .*, got .*nowhere"):
        official(tmp_path / "nowhere")


def test_an_image_that_is_broken_in_a_packed_zip_is_named(root: Path) -> None:
    shutil.unpack_archive(root / IMAGES, root)
    folder = root / f"{PREFIX}Training_Input"
    with zipfile.ZipFile(root / IMAGES, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, f"{folder.name}/{file.name}")
        member = archive.getinfo(f"{folder.name}/ISIC_0000007.jpg")
    shutil.rmtree(folder)
    content = bytearray((root / IMAGES).read_bytes())
    middle = member.header_offset + 200
    content[middle : middle + 40] = bytes(255 - byte for byte in content[middle : middle + 40])
    (root / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match="image ISIC_0000007 can not be decoded"):
        official(root).read("ISIC_0000007")
    official(root).read("ISIC_0000008")


class Server(BaseHTTPRequestHandler):
    """Files of a folder, with ranges, and connections that break after some bytes."""

    def __init__(self, *args: object, files: Path, state: dict[str, object]) -> None:
        self.files, self.state = files, state
        super().__init__(*args)

    def do_GET(self) -> None:
        path = self.files / self.path.lstrip("/")
        if not path.exists():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        self.state["ranges"].append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked and not self.state["resumable"]:
            start = 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if self.state.get("chunked"):  # and the connection breaks after the first of them
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"400\r\n" + content[:100])
            return
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        limit = self.state["limit"]
        self.wfile.write(content[start : start + limit if limit else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(root: Path) -> Iterator[tuple[str, dict[str, object]]]:
    state: dict[str, object] = {"limit": None, "resumable": True, "ranges": []}
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, files=root, state=state))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/", state
    http.shutdown()
    http.server_close()


def same_files(one: Path, other: Path) -> bool:
    names = [f"{PREFIX}{name}" for name in FILES["Training"]]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_download(root: Path, tmp_path: Path, server: tuple[str, dict[str, object]]) -> None:
    url, state = server
    download("Training", tmp_path / "got", url)
    assert same_files(root, tmp_path / "got")
    state["ranges"].clear()
    download("Training", tmp_path / "got", url)  # nothing is brought twice
    assert state["ranges"] == []


@pytest.mark.parametrize("resumable", [True, False])
def test_a_download_that_breaks_goes_on(
    root: Path, tmp_path: Path, server: tuple[str, dict[str, object]], resumable: bool
) -> None:
    url, state = server
    state |= {"limit": 200, "resumable": resumable}
    with pytest.raises(DataError, match=r"200 of .* bytes came; run the same command again"):
        download("Training", tmp_path / "got", url)
    assert not (tmp_path / "got" / IMAGES).exists()
    state["limit"] = None
    download("Training", tmp_path / "got", url)
    assert state["ranges"][:2] == [None, "bytes=200-"]
    assert same_files(root, tmp_path / "got")


def test_a_download_that_was_complete_but_for_its_name(
    root: Path, tmp_path: Path, server: tuple[str, dict[str, object]]
) -> None:
    got = tmp_path / "got"
    got.mkdir()
    shutil.copyfile(root / IMAGES, got / f"{IMAGES}.part")
    download("Training", got, server[0])
    assert same_files(root, got)


def test_a_longer_file_of_the_past_is_not_taken_for_the_download(
    root: Path, tmp_path: Path, server: tuple[str, dict[str, object]]
) -> None:
    got = tmp_path / "got"
    got.mkdir()
    (got / f"{IMAGES}.part").write_bytes((root / IMAGES).read_bytes() + b"more")
    download("Training", got, server[0])
    assert same_files(root, got)


def test_a_reply_in_chunks_that_breaks_is_told(
    tmp_path: Path, server: tuple[str, dict[str, object]]
) -> None:
    url, state = server
    state["chunked"] = True
    with pytest.raises(DataError, match="can not be downloaded .* run the same command again"):
        download("Training", tmp_path / "got", url)


FORMS = ["zip", "csv", "folder"]


def in_form(form: str, name: str, root: Path) -> Path:
    """Change the CSV file of that name, which lies in a zip or bare, to one of three forms."""
    table = read_csv(find(root, name), [])
    for path in (root / f"{PREFIX}{name}.zip", root / f"{PREFIX}{name}.csv"):
        path.unlink(missing_ok=True)
    path = root / f"{PREFIX}{name}"
    if form == "zip":
        with zipfile.ZipFile(f"{path}.zip", "w") as archive:
            archive.writestr(f"{path.name}/{path.name}.csv", table.to_csv(index=False))
        return root / f"{path.name}.zip"
    folder = path if form == "folder" else root
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / f"{path.name}.csv", index=False)
    return path if form == "folder" else folder / f"{path.name}.csv"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["Training_GroundTruth", "Training_LesionGroupings"])
def test_a_file_that_is_there_in_any_form_is_not_downloaded(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    expected = official(root).table
    in_form(form, name, root)
    before = sorted(root.iterdir())
    download("Training", root)
    assert sorted(root.iterdir()) == before
    pd.testing.assert_frame_equal(official(root).table, expected)


def test_unpacked_images_are_not_downloaded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", None)
    shutil.unpack_archive(root / IMAGES, root)
    (root / IMAGES).unlink()
    download("Training", root)
    assert not (root / IMAGES).exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_mirror_may_hold_a_file_in_any_form(root: Path, tmp_path: Path, form: str) -> None:
    made = in_form(form, "Training_GroundTruth", root)
    download("Training", tmp_path / "got", str(root))
    assert (tmp_path / "got" / made.name).is_dir() == (form == "folder")
    pd.testing.assert_frame_equal(official(tmp_path / "got").table, official(root).table)


def test_a_mirror_that_is_a_folder_or_none(
    root: Path, tmp_path: Path, server: tuple[str, dict[str, object]]
) -> None:
    download("Training", tmp_path / "got", str(root))
    assert same_files(root, tmp_path / "got")
    with pytest.raises(DataError, match="--mirror must be a URL or a folder that holds ISIC2018"):
        download("Test", tmp_path / "got", str(root))
    with pytest.raises(DataError, match="Test_Input.zip can not be downloaded"):
        download("Test", tmp_path / "got", server[0])
    with pytest.raises(DataError, match="take the files from elsewhere with --mirror"):
        download("Test", tmp_path / "got", "http://127.0.0.1:9/")
