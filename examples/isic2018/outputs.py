"""Files that others read: written as a whole, and never in the place of somebody else's file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.isic2018.official import DataError, write_atomically

WRITTEN = "written.sha256"
"""Beside the files: what the example wrote, as ``sha256sum`` lists it."""


@contextmanager
def output(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` at the end.

    Raises:
        DataError: there is a file that the example did not write, or that was changed since.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        digest = digest_of(partial)
        if digest_of(path) != digest:  # the same content replaces nothing
            refuse_others(path)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    lines = {**written(path.parent), path.name: digest}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))
    write_atomically(path.parent / WRITTEN, text)


def refuse_others(*paths: Path) -> None:
    """Refuse to replace files that the example did not write; before hours of training, too."""
    for path in paths:
        if path.exists() and written(path.parent).get(path.name) != digest_of(path):
            raise DataError(
                f"{path} is there and is not what this example wrote last: move it away, and what "
                f"an older version wrote beside it, or give another --output"
            )


def written(folder: Path) -> dict[str, str]:
    """The digests of the files that the example wrote into a folder, by name."""
    path = folder / WRITTEN
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def digest_of(path: Path) -> str:
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
