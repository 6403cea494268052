"""The images of ISIC 2018 Task 3, as ISIC or as HAM10000 offers them: download, find, read, check.

ISIC's training set and HAM10000 hold the same 10,015 images under the same names. Whichever form
lies in a folder, the table that is read from it has the same rows in the same order.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import re
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
LAST_OF_TRAINING, LAST_OF_TEST = "ISIC_0034320", "ISIC_0036064"
"""The names of the validation set and the test set lie between these two."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Of an image under two of them in one place, the first is taken."""
IMAGE_NAME = re.compile(r"ISIC_\d{7}")
OTHER_TASK = re.compile(r"isic[-_ ]?(2016|2017|2019|202\d|2018_task[12])", re.IGNORECASE)
WHERE = (
    "Get the training input, ground truth and lesion groupings of ISIC 2018 Task 3 from "
    "https://challenge.isic-archive.com/data/#2018, or the same images as HAM10000 (its metadata "
    "and both parts of its images) from Harvard Dataverse, https://doi.org/10.7910/DVN/DBW86T, or "
    "Kaggle, https://www.kaggle.com/datasets/kmader/skin-cancer-mnist-ham10000"
)


class DataError(Exception):
    """Something is wrong with the user's files; the message says what, and where."""


# --------------------------------------------------------------------------------------------
# Download
# --------------------------------------------------------------------------------------------


def download(part: str, root: Path, mirror: str = MIRROR) -> None:
    """Bring the files of a part that ``root`` does not have, from a URL or a folder.

    Nothing is brought into a folder with files of HAM10000: what is missing there is an error.
    """
    root.mkdir(parents=True, exist_ok=True)
    if part == "Training":
        if ham10000_metadata(root) or ham10000_images(root):
            return
        if not _has_data(root):
            _refuse_misplaced(root)
            _refuse_other_task(root)
    for name in FILES[part]:
        target = root / f"{PREFIX}{name}"
        if _found(root, target.stem) or (name == "Training_Input.zip" and other_images(root)):
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
    stems = (stem, stem.replace("Test_Input", "Test_Images"))  # the latter is Dataverse's name
    forms = (root / f"{stem}{ending}" for stem in stems for ending in (".zip", "", ".csv", ".tab"))
    return next((path for path in forms if path.exists()), None)


def ham10000_metadata(root: Path) -> list[Path]:
    """The metadata of HAM10000 below ``root``, in whichever forms it was downloaded."""
    names = [f"ham10000_metadata{ending}" for ending in ("", ".csv", ".tab", ".zip", ".csv.zip")]
    return [path for path in _entries(root) if path.name.lower() in names]


def ham10000_images(root: Path) -> list[Path]:
    """The zips and folders of HAM10000's images below ``root``, zips first."""
    images = [path for path in _entries(root) if path.name.lower().startswith("ham10000_images")]
    zips = [path for path in images if path.suffix.lower() == ".zip"]
    return zips + [path for path in images if path.is_dir()]


def other_images(root: Path) -> list[Path]:
    """Folders and zips of any other name that hold the images, zips first; or ``root`` itself."""
    places = [path for path in _entries(root) if _is_other(path.name)]
    zips = [path for path in places if path.suffix.lower() == ".zip" and zipfile.is_zipfile(path)]
    found = []
    for path in zips:
        with zipfile.ZipFile(path) as archive:
            if any(_is_image(Path(name)) for name in archive.namelist()):
                found.append(path)
    found += [p for p in places if p.is_dir() and any(map(_is_image, p.rglob("*")))]
    return found or ([root] if any(map(_is_image, _entries(root))) else [])


def _is_other(name: str) -> bool:
    """Whether it is not the name of another part or task, and not hidden."""
    others = (f"{PREFIX}test".lower(), f"{PREFIX}validation".lower(), ".", "__macosx")
    return not name.lower().startswith(others) and not OTHER_TASK.match(name)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and bool(IMAGE_NAME.fullmatch(path.stem))


def _refuse_other_task(root: Path) -> None:
    """Recognise the files of other years, which are other tasks."""
    for path in (root.resolve(), *_entries(root)):
        if match := OTHER_TASK.match(path.name):
            task = match[1].lower().replace("_task", " Task ")
            raise DataError(
                f"{path} is of ISIC {task}, which is another task: this example takes the 10,015 "
                f"images and seven classes of ISIC 2018 Task 3. {WHERE}. To compare weightings on "
                f"other images: python -m sampleweights compare FOLDER --labels FILE"
            )


def _entries(root: Path) -> list[Path]:
    return sorted(root.iterdir()) if root.is_dir() else []


def _has_data(root: Path) -> bool:
    """Whether ``root`` holds anything of either form of the training set."""
    stems = [f"{PREFIX}{Path(name).stem}" for name in FILES["Training"]]
    return bool(
        any(_found(root, stem) for stem in stems)
        or ham10000_metadata(root)
        or ham10000_images(root)
    )


def _refuse_misplaced(root: Path) -> None:
    """Say where the data lie if they are one folder deeper, or still in a zip of everything."""
    for path in _entries(root):
        if path.is_dir() and _has_data(path):
            raise DataError(f"--data-root must be the folder that holds the files: give {path}")
        if path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = [Path(name).name.lower() for name in archive.namelist()]
            if any(name.startswith(("ham10000_", f"{PREFIX}training".lower())) for name in inside):
                raise DataError(f"{path} must be unpacked first: it holds the files of the data")


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
            raise DataError(f"{url} can not be downloaded ({error}). {WHERE}") from error
        there = error.headers.get("Content-Range", "").rpartition("/")[2]
        if there.isdigit() and int(there) != have:  # the file has changed since
            partial.unlink()
            _fetch(url, target)
            return
        total = have
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url} can not be downloaded ({error}); run the same command again to go on, or take "
            f"the files from elsewhere with --mirror or --data-root. {WHERE}"
        ) from error
    size = partial.stat().st_size
    if total is not None and size != total:
        raise DataError(
            f"{url}: {size:,} of {total:,} bytes came; run the same command again to go on"
        )
    partial.rename(target)


def seen_files(root: Path) -> str:
    """Name, size and SHA-256 of the downloaded files, as CSV; none are published to compare."""
    lines = ["file,bytes,sha256"]
    isic = [path for path in root.glob(f"{PREFIX}*") if path.suffix in (".zip", ".csv", ".tab")]
    for path in sorted([*isic, *ham10000_metadata(root), *ham10000_images(root)]):
        if path.is_file():
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
        f"{root} must hold {PREFIX}{name} (.zip, .csv or the unpacked folder), as "
        f"https://challenge.isic-archive.com/data/#2018 offers it; nothing of that name was found"
    )


BROKEN = (OSError, UnidentifiedImageError, zipfile.BadZipFile, zlib.error, EOFError, ValueError,
          SyntaxError)  # fmt: skip
"""What reading a damaged archive or image may raise."""


def _refuse_web_page(path: Path) -> None:
    """A download that needs a login or a click may save the page that asks for it."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(
            f"{path} is a web page that was saved under that name; download the file itself again"
        )


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        _refuse_web_page(path)
        raise DataError(
            f"{path} is not a complete zip file ({error}); download it again"
        ) from error


def read_table(path: Path) -> pd.DataFrame:
    """The one CSV at ``path``: a file, or in a zip or a folder.

    Columns may be separated by commas, tabs or semicolons: Dataverse offers tables with tabs, and
    people save them under other names.
    """
    if path.suffix == ".zip":
        with opened(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            names = [name for name in names if not name.startswith("__MACOSX/")]
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
        _refuse_web_page(files[0])
        content = files[0].read_bytes()
    header = content.partition(b"\n")[0]
    separator = max(",\t;", key=lambda mark: header.count(mark.encode()))
    try:
        return pd.read_csv(io.BytesIO(content), sep=separator)
    except ValueError as error:  # pandas' errors are of this kind
        raise DataError(f"{path} is not a CSV file ({error})") from error


def read_csv(path: Path, columns: list[str], key: str = "image") -> pd.DataFrame:
    """A table that must have some columns; that of ``key`` names the images, each of them once."""
    table = read_table(path)
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path} must have the columns {columns}, {missing} are missing")
    if table[key].duplicated().any():
        twice = table[key][table[key].duplicated()].iloc[0]
        raise DataError(f"{path} must name each image once, {twice} comes twice")
    return table


def _by_suffix(path: Path) -> int:
    suffix = path.suffix.lower()
    return IMAGE_SUFFIXES.index(suffix) if suffix in IMAGE_SUFFIXES else len(IMAGE_SUFFIXES)


def image_reader(path: Path) -> tuple[dict[str, str], Callable[[str], Image.Image]]:
    """The signatures of the images in a zip or folder, by name, and how to read one."""
    if path.is_dir():
        files: dict[str, Path] = {}
        for file in sorted(path.rglob("*"), key=_by_suffix):
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
                files.setdefault(file.stem, file)
        signatures = {}
        for name, file in files.items():
            stat = file.stat()
            signatures[name] = f"{stat.st_size}-{stat.st_mtime_ns}"

        def content(name: str) -> bytes:
            return files[name].read_bytes()
    else:
        with opened(path):
            archive = zipfile.ZipFile(path)  # stays open: its list of files takes time to read
        members: dict[str, zipfile.ZipInfo] = {}
        for member in sorted(archive.infolist(), key=lambda m: _by_suffix(Path(m.filename))):
            file = Path(member.filename)
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
                members.setdefault(file.stem, member)  # what starts so may lie in __MACOSX
        signatures = {name: f"{m.file_size}-{m.CRC:08x}" for name, m in members.items()}

        def content(name: str) -> bytes:
            return archive.read(members[name])

    def read(name: str) -> Image.Image:
        try:
            return Image.open(io.BytesIO(content(name))).convert("RGB")
        except BROKEN as error:
            raise DataError(f"{path}: image {name} can not be decoded ({error})") from error

    return signatures, read


def images_of(places: list[Path]) -> tuple[dict[str, str], Callable[[str], Image.Image]]:
    """As `image_reader`, of several zips and folders; an image in two of them must be the same."""
    signatures: dict[str, str] = {}
    place_of: dict[str, Path] = {}
    reader_of: dict[Path, Callable[[str], Image.Image]] = {}
    for place in places:
        found, reader_of[place] = image_reader(place)
        for name, signature in found.items():
            size, before = (
                text.partition("-")[0] for text in (signature, signatures.get(name, ""))
            )
            if before not in ("", size):
                raise DataError(
                    f"{place_of[name]} and {place} must hold the same images, {name} has {before} "
                    f"bytes in the one and {size} in the other; keep one of the two"
                )
            if not before:
                signatures[name], place_of[name] = signature, place
    return signatures, lambda name: reader_of[place_of[name]](name)


def _one_hot_labels(root: Path, part: str) -> tuple[Path, pd.DataFrame]:
    """The labels as ISIC gives them, in the order of the ground truth."""
    path = find(root, f"{part}_GroundTruth")
    truth = read_csv(path, ["image", *CLASSES])
    truth = truth[truth["image"] != EASTER_EGG].reset_index(drop=True)
    one_hot = truth[CLASSES].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    wrong = (one_hot.sum(1) != 1) | ~np.isin(one_hot, [0, 1]).all(1)
    if wrong.any():
        first = truth.loc[wrong].iloc[0]
        raise DataError(
            f"{path}: every image must have exactly one class, {first['image']} has "
            f"{dict(first[CLASSES])}"
        )
    table = pd.DataFrame({"image": truth["image"], "target": one_hot.argmax(1)})
    if part == "Training":
        lesion_path = find(root, f"{part}_LesionGroupings")
        lesions = read_csv(lesion_path, ["image", "lesion_id"]).set_index("image")["lesion_id"]
        table["lesion"] = table["image"].map(lesions)
        _refuse(table.loc[table["lesion"].isna(), "image"], lesion_path, "name the lesion of")
    return path, table


def _named_labels(path: Path) -> tuple[Path, pd.DataFrame]:
    """The labels of a table of HAM10000, in the order of ISIC's ground truth: by name."""
    columns = ["lesion_id", "image_id", "dx"]
    rows = read_csv(path, columns, "image_id").sort_values("image_id", ignore_index=True)
    rows = rows[rows["image_id"] != EASTER_EGG].reset_index(drop=True)
    diagnosis = rows["dx"].astype(str).str.strip().str.upper()
    unknown = ~diagnosis.isin(CLASSES)
    if unknown.any():
        first = rows.loc[unknown].iloc[0]
        raise DataError(
            f"{path}: dx must be one of {', '.join(CLASSES).lower()}, image {first['image_id']} "
            f"has {first['dx']!r}"
        )
    table = pd.DataFrame(
        {
            "image": rows["image_id"],
            "target": diagnosis.map(CLASSES.index).astype(np.int64),
            "lesion": rows["lesion_id"],
        }
    )
    _refuse(table.loc[table["lesion"].isna(), "image"], path, "name the lesion of")
    return path, table


def _labels(root: Path, part: str) -> tuple[Path, pd.DataFrame]:
    """The labels of a part; those that lie in ``root`` twice must agree."""
    if part == "Test":
        path = find(root, f"{part}_GroundTruth")
        # Dataverse's file of that name is a table like HAM10000's metadata
        is_named = {"image_id", "dx"} <= set(read_table(path).columns)
        path, table = _named_labels(path) if is_named else _one_hot_labels(root, part)
        return path, table.assign(lesion=table["image"])  # the test set has no groups
    named = ham10000_metadata(root)
    official_names = [f"{PREFIX}{part}_{name}" for name in ("GroundTruth", "LesionGroupings")]
    if not named and not _found(root, official_names[0]) and (images := ham10000_images(root)):
        _refuse_without_metadata(root, images[0])
    is_official = not named or all(_found(root, name) for name in official_names)
    labels = [_one_hot_labels(root, part)] if is_official else []
    labels += [_named_labels(path) for path in named]
    for other in labels[1:]:
        _refuse_disagreement(labels[0], other)
    return labels[0]


def _refuse_without_metadata(root: Path, images: Path) -> None:
    raise DataError(
        f"{root} must hold HAM10000_metadata (.csv, .tab or no suffix), which names the "
        f"diagnosis and the lesion of every image, beside {images.name}"
    )


def _refuse_disagreement(one: tuple[Path, pd.DataFrame], other: tuple[Path, pd.DataFrame]) -> None:
    (path, table), (other_path, other_table) = one, other
    both = table.merge(other_table, "outer", "image", suffixes=("", "_other"))
    differs = (both["target"] != both["target_other"]) | (both["lesion"] != both["lesion_other"])
    if differs.any():
        raise DataError(
            f"{path} and {other_path.name} must say the same of every image, they differ in "
            f"{differs.sum():,}, {both.loc[differs, 'image'].iloc[0]} first; keep one of the two"
        )


def official(root: Path, part: str = "Training") -> Official:
    """Read and check the files of a part below ``root``, in either form.

    Every image has one class and, in the training set, one lesion.
    """
    if not root.is_dir():
        raise DataError(
            f"--data-root must be a folder with the files of ISIC 2018 or HAM10000, got {root}. "
            f"{WHERE}"
        )
    if part == "Training" and not _has_data(root):
        _refuse_misplaced(root)
        _refuse_other_task(root)
        if images := other_images(root):
            _refuse_without_metadata(root, images[0])
        raise DataError(f"--data-root must hold the images of ISIC 2018, {root} does not. {WHERE}")
    labels_path, table = _labels(root, part)
    _refuse_other_part(table["image"], labels_path, part)
    input_path = _found(root, f"{PREFIX}{part}_Input")
    parts = ham10000_images(root) if part == "Training" else []
    places = [*([input_path] if input_path else []), *parts]
    if not places and part == "Training":
        places = other_images(root)
    if not places and labels_path in ham10000_metadata(root):
        raise DataError(
            f"{root} must hold HAM10000_images_part_1 and HAM10000_images_part_2 (zip or folder) "
            f"beside {labels_path.name}, or a folder with the images; there are no images"
        )
    if not places:
        find(root, f"{part}_Input")  # raises
    signatures, read = images_of(places)
    where = " and ".join([str(places[0]), *(path.name for path in places[1:])])
    _refuse_other_part(pd.Series(list(signatures)), where, part)
    table["signature"] = table["image"].map(signatures)
    missing = table.loc[table["signature"].isna(), "image"]
    numbers = {n for n in "12" for p in parts if f"part{n}" in p.name.lower().replace("_", "")}
    if len(missing) and not input_path and len(numbers) == 1:
        other = "2" if "1" in numbers else "1"
        raise DataError(
            f"{root} must hold HAM10000_images_part_{other} (zip or folder) beside {where}; "
            f"{len(missing):,} of {len(table):,} images are missing, {missing.iloc[0]} first"
        )
    _refuse(missing, where, "hold")
    unnamed = sorted(set(signatures) - set(table["image"]))
    if part == "Training" and unnamed:
        raise DataError(
            f"{labels_path} must name every image of {where}, {len(unnamed):,} are missing: "
            f"{', '.join(unnamed[:10])}{', ...' if len(unnamed) > 10 else ''}"
        )
    return Official(table, read)


def _refuse_other_part(names: pd.Series, path: object, part: str) -> None:
    """Refuse files of the test set in the place of those of the training set, and vice versa."""
    names = names.astype(str)
    after = (names > LAST_OF_TRAINING) & (names <= LAST_OF_TEST)
    wrong = names[after if part == "Training" else names <= LAST_OF_TRAINING]
    if len(wrong):
        other = "validation or test" if part == "Training" else "training"
        raise DataError(
            f"{path} must be of the {part.lower()} set, {len(wrong):,} of its images are of the "
            f"{other} set: {wrong.iloc[0]} first"
        )


def _refuse(missing: pd.Series, path: object, what: str) -> None:
    if len(missing):
        raise DataError(
            f"{path} must {what} every image of the ground truth, {len(missing)} are missing: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}"
        )


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
