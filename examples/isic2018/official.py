"""The official files of ISIC 2018 Task 3: download, find, read, check."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
"""In the order of the official ground truth."""
ISIC_COUNTS = [1113, 6705, 514, 327, 1099, 115, 142]
"""Images of each class in the official training set; they sum to 10,015."""
MIRROR = "https://isic-challenge-data.s3.amazonaws.com/2018/"
PREFIX = "ISIC2018_Task3_"
FILES = {
    "Training": ["Training_Input.zip", "Training_GroundTruth.zip", "Training_LesionGroupings.csv"],
    "Test": ["Test_Input.zip", "Test_GroundTruth.zip"],
}
"""By part; no checksums are published."""
EASTER_EGG = "ISIC_0035068"
"""An image of the test set that is no lesion."""


class DataError(Exception):
    """Something is wrong with the user's files; the message says what, and where."""


# --------------------------------------------------------------------------------------------
# Download
# --------------------------------------------------------------------------------------------


def download(part: str, root: Path, mirror: str = MIRROR) -> None:
    """Bring the files of a part that ``root`` does not have, from a URL or a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name in FILES[part]:
        target = root / f"{PREFIX}{name}"
        if _found(root, target.stem):
            continue
        if urlsplit(mirror).scheme in ("http", "https"):
            _fetch(f"{mirror.rstrip('/')}/{PREFIX}{name}", target)
        elif source := _found(Path(mirror), target.stem):
            partial = root / f"{source.name}.part"
            if source.is_dir():
                shutil.copytree(source, partial, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, partial)
            partial.rename(root / source.name)
        else:
            raise DataError(
                f"--mirror must be a URL or a folder that holds {target.name}, got {mirror}"
            )


def _found(root: Path, stem: str) -> Path | None:
    """The file or folder of that name, in whichever form it was downloaded or unpacked."""
    forms = (root / f"{stem}{ending}" for ending in (".zip", "", ".csv"))
    return next((path for path in forms if path.exists()), None)


def _fetch(url: str, target: Path) -> None:
    """Download to ``target``; a download that was interrupted goes on where it was."""
    partial = target.with_name(f"{target.name}.part")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            if reply.status != 206:
                have = 0  # a server without ranges starts again
            length = reply.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with (
                partial.open("ab" if have else "wb") as file,
                tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=target.name) as bar,
            ):
                while chunk := reply.read(1 << 20):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: there is nothing after what we have
            raise DataError(f"{url} can not be downloaded ({error})") from error
        there = error.headers.get("Content-Range", "").rpartition("/")[2]
        if there.isdigit() and int(there) != have:  # the file has changed since
            partial.unlink()
            _fetch(url, target)
            return
        total = have
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url} can not be downloaded ({error}); run the same command again to go on, or take "
            f"the files from elsewhere with --mirror or --data-root"
        ) from error
    size = partial.stat().st_size
    if total is not None and size != total:
        raise DataError(
            f"{url}: {size:,} of {total:,} bytes came; run the same command again to go on"
        )
    partial.rename(target)


def seen_files(root: Path) -> str:
    """Name, size and SHA-256 of the official files, as CSV; none are published to compare."""
    lines = ["file,bytes,sha256"]
    for path in sorted(root.glob(f"{PREFIX}*")):
        if path.is_file() and path.suffix in (".zip", ".csv"):
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            lines.append(f"{path.name},{path.stat().st_size},{digest.hexdigest()}")
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------------------
# Read and check
# --------------------------------------------------------------------------------------------


@dataclass
class Official:
    """One part of the official files: a row per image, and a way to read an image."""

    table: pd.DataFrame
    """Columns image, target (position in CLASSES), lesion, and signature, which changes when the
    image does; in the order of the ground truth."""
    read: Callable[[str], Image.Image]


def find(root: Path, name: str) -> Path:
    """The file or folder of that official name; an error where there is none."""
    if path := _found(root, f"{PREFIX}{name}"):
        return path
    raise DataError(
        f"{root} must hold {PREFIX}{name} (.zip, .csv or the unpacked folder), as ISIC offers it "
        f"for download; nothing of that name was found"
    )


BROKEN = (OSError, UnidentifiedImageError, zipfile.BadZipFile, zlib.error, EOFError, ValueError,
          SyntaxError)  # fmt: skip
"""What reading a damaged archive or image may raise."""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a complete zip file ({error}); download it again"
        ) from error


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """The one CSV at ``path``: a file, or in a zip or a folder."""
    if path.suffix == ".zip":
        with opened(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            if len(names) != 1:
                raise DataError(f"{path} must hold one CSV file, got {len(names)}")
            try:
                content = archive.read(names[0])
            except BROKEN as error:
                raise DataError(f"{path}: {names[0]} can not be read ({error})") from error
    else:
        files = [path] if path.is_file() else sorted(path.rglob("*.csv"))
        if len(files) != 1:
            raise DataError(f"{path} must hold one CSV file, got {len(files)}")
        content = files[0].read_bytes()
    try:
        table = pd.read_csv(io.BytesIO(content))
    except ValueError as error:  # pandas' errors are of this kind
        raise DataError(f"{path} is not a CSV file ({error})") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path} must have the columns {columns}, {missing} are missing")
    if table["image"].duplicated().any():
        twice = table["image"][table["image"].duplicated()].iloc[0]
        raise DataError(f"{path} must name each image once, {twice} comes twice")
    return table


def image_reader(path: Path) -> tuple[dict[str, str], Callable[[str], Image.Image]]:
    """The signatures of the images in a zip or folder, by name, and how to read one."""
    if path.is_dir():
        files = {file.stem: file for file in path.rglob("*.jpg")}
        signatures = {}
        for name, file in files.items():
            stat = file.stat()
            signatures[name] = f"{stat.st_size}-{stat.st_mtime_ns}"

        def content(name: str) -> bytes:
            return files[name].read_bytes()
    else:
        with opened(path):
            archive = zipfile.ZipFile(path)  # stays open: its list of files takes time to read
        members = {
            Path(member.filename).stem: member
            for member in archive.infolist()
            if member.filename.endswith(".jpg")
        }
        signatures = {name: f"{m.file_size}-{m.CRC:08x}" for name, m in members.items()}

        def content(name: str) -> bytes:
            return archive.read(members[name])

    def read(name: str) -> Image.Image:
        try:
            return Image.open(io.BytesIO(content(name))).convert("RGB")
        except BROKEN as error:
            raise DataError(f"{path}: image {name} can not be decoded ({error})") from error

    return signatures, read


def official(root: Path, part: str = "Training") -> Official:
    """Read and check the official files of a part below ``root``.

    Every image has one class and, in the training set, one lesion.
    """
    if not root.is_dir():
        raise DataError(f"--data-root must be a folder with the ISIC 2018 files, got {root}")
    truth_path = find(root, f"{part}_GroundTruth")
    truth = read_csv(truth_path, ["image", *CLASSES])
    truth = truth[truth["image"] != EASTER_EGG].reset_index(drop=True)
    one_hot = truth[CLASSES].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    wrong = (one_hot.sum(1) != 1) | ~np.isin(one_hot, [0, 1]).all(1)
    if wrong.any():
        first = truth.loc[wrong].iloc[0]
        raise DataError(
            f"{truth_path}: every image must have exactly one class, {first['image']} has "
            f"{dict(first[CLASSES])}"
        )
    table = pd.DataFrame({"image": truth["image"], "target": one_hot.argmax(1)})
    if part == "Training":
        lesion_path = find(root, f"{part}_LesionGroupings")
        lesions = read_csv(lesion_path, ["image", "lesion_id"]).set_index("image")["lesion_id"]
        table["lesion"] = table["image"].map(lesions)
        _refuse(table.loc[table["lesion"].isna(), "image"], lesion_path, "name the lesion of")
    else:
        table["lesion"] = table["image"]  # the test set has no groups
    input_path = find(root, f"{part}_Input")
    signatures, read = image_reader(input_path)
    table["signature"] = table["image"].map(signatures)
    _refuse(table.loc[table["signature"].isna(), "image"], input_path, "hold")
    return Official(table, read)


def _refuse(missing: pd.Series, path: Path, what: str) -> None:
    if len(missing):
        raise DataError(
            f"{path} must {what} every image of the ground truth, {len(missing)} are missing: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}"
        )


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
