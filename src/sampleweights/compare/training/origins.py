"""Where code comes from: Python, a package that is installed, or the user's own files."""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.machinery
import importlib.util
import platform
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import sampleweights

__all__ = [
    "SITES", "STDLIB", "code_of", "file_of", "imported", "modules_within", "own_sources",
    "version_of",
]  # fmt: skip

STDLIB = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
SITES = ("site-packages", "dist-packages")
ALWAYS_NAMED = ("torch", "numpy", "scipy", "sklearn", "pandas")
"""Named by their version also where they were built from source: too large to be read."""
BY_TEXT = frozenset({"import_module", "__import__"})
Import = tuple[str, int, tuple[str, ...]]
"""A module's name, the dots before it, and what is taken from it."""


def own_sources() -> str:
    """A digest of the library's files: between releases its version stays the same."""
    digest = hashlib.sha256()
    root = Path(sampleweights.__file__).parent
    for path in sorted(root.rglob("*.py")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def version_of(module: str) -> str | None:
    """What stands for a module's code, as "timm 1.0.9"; None where it is the user's own.

    A package in editable mode is the user's own: its files change under one version.
    """
    top = module.partition(".")[0]
    if top == "sampleweights":
        return top  # `own_sources` stands for it
    if top in ALWAYS_NAMED and top in sys.modules:
        return f"{top} {sys.modules[top].__version__}"
    if module == "__main__":
        return None
    file, folders = located(module)
    places = [file] if file is not None else [Path(folder) for folder in folders or ()]
    if not places:
        return python() if top in sys.stdlib_module_names else None
    places = [place.resolve() for place in places]
    if all(any(place.is_relative_to(root) for root in STDLIB) for place in places) and not any(
        part in SITES for place in places for part in place.parts
    ):
        return python()
    for name, version, root in distributions(top):
        if any(place.is_relative_to(root) for place in places):
            return f"{name} {version}"
    return None


def python() -> str:
    return f"Python {platform.python_version()}"


@functools.cache
def distributions(top: str) -> list[tuple[str, str, Path]]:
    """Name, version and folder of what installed a top-level module."""
    try:
        of_top = [metadata.distribution(top)]
    except (metadata.PackageNotFoundError, ValueError):
        of_top = [metadata.distribution(name) for name in owners().get(top, ())]
    found = []
    for distribution in of_top:
        root = Path(str(distribution.locate_file(""))).resolve()
        # setuptools leaves metadata without a list of files beside a source tree
        if root.name in SITES or distribution.read_text("RECORD") is not None:
            fields = distribution.metadata
            found.append((fields["Name"], fields["Version"], root))
    return found


@functools.cache
def owners() -> dict[str, list[str]]:
    """Top-level modules and the distributions whose list of files has them.

    ``metadata.packages_distributions`` knows of fewer in Python 3.10, and takes four times as long.
    """
    found: dict[str, list[str]] = {}
    for distribution in metadata.distributions():
        lines = (distribution.read_text("RECORD") or "").splitlines()
        tops = {re.split("[/,]", line, maxsplit=1)[0].partition(".")[0] for line in lines}
        for top in tops.union((distribution.read_text("top_level.txt") or "").split()):
            found.setdefault(top, []).append(distribution.metadata["Name"])
    return found


def file_of(module: str) -> Path | None:
    """The file of a module, whether it is imported yet or not."""
    return located(module)[0]


def located(module: str) -> tuple[Path | None, list[str] | None]:
    """The file of a module, and the folders of its submodules; nothing is imported for it."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file, folders = getattr(loaded, "__file__", None), getattr(loaded, "__path__", None)
        return (None if file is None else Path(file)), (None if folders is None else list(folders))
    parent, _, last = module.rpartition(".")
    folders = None
    try:
        if parent:
            folders = located(parent)[1]
            spec = folders and importlib.machinery.PathFinder.find_spec(module, folders)
        else:
            spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    except KeyError:  # a package without __init__.py, which asks its parent, and that is not loaded
        return None, [str(Path(folder, last)) for folder in folders or ()]
    if not spec:
        return None, None
    file = spec.origin if spec.has_location else None
    places = spec.submodule_search_locations
    return (None if file is None else Path(file)), (None if places is None else list(places))


@functools.lru_cache(1024)
def code_of(source: bytes) -> types.CodeType | None:
    """The code of a source file; None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source, "", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None


def imported(code: types.CodeType, package: str) -> list[str]:
    """The modules that code within a package imports, in order, and those above them."""
    found: dict[str, None] = {}
    for name, level, taken in imports(code):
        try:
            module = importlib.util.resolve_name("." * level + name, package) if level else name
        except (ImportError, ValueError):
            continue
        names = list(with_parents(module))
        if version_of(module) is None:  # what is taken may be a module as well
            names += [f"{module}.{part}" for part in taken if part != "*"]
        found.update(dict.fromkeys(names))
    return list(found)


def modules_within(package: str, file: Path) -> list[str]:
    """All modules of a package, by its ``__init__.py``."""
    found = []
    for path in sorted(file.parent.rglob("*.py")):
        parts = path.relative_to(file.parent).with_suffix("").parts
        found.append(".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)]))
    return found


def with_parents(module: str) -> Iterable[str]:
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def imports(code: types.CodeType) -> Iterator[Import]:
    """Also those within functions and classes, and those whose names ``import_module`` is given."""
    if not BY_TEXT.isdisjoint(code.co_names):
        for text in code.co_consts:
            if isinstance(text, str) and re.fullmatch(r"\.*[^\W\d]\w*(\.\w+)*", text):
                name = text.lstrip(".")
                yield name, len(text) - len(name), ()
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for place, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, taken = steps[place - 2].argval, steps[place - 1].argval
            yield str(step.argval), level or 0, taken or ()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from imports(constant)
