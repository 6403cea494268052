"""Entries of one's own on the command line: ``--entries FILE.py``."""

from __future__ import annotations

import sys
import traceback
import types
from pathlib import Path
from typing import Any

from sampleweights.compare.training.entries import Build

__all__ = ["entries_of_file"]

NAME = "sampleweights_entries"
"""Of the module. No file has it, so that its functions and classes go to workers by value, and are
digested by their code."""


def entries_of_file(path: Path) -> dict[str, Build]:
    """What a file defines as ``entries``: a dictionary, or a function that returns one.

    The modules beside the file can be imported, as from a script.

    Raises:
        ValueError: the file cannot be run, or defines no such thing.
    """
    source = path.read_bytes()
    module: Any = types.ModuleType(NAME)
    module.__file__ = str(path)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[NAME] = module  # dataclasses look for it
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
        entries = getattr(module, "entries", None)
        if callable(entries):
            entries = entries()
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        text = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"--entries {path}, line {line}: {type(error).__name__}: {text}"
        ) from error
    finally:
        del sys.modules[NAME]
    if not isinstance(entries, dict):
        raise ValueError(
            f"--entries {path} must define entries, a dictionary of names and functions of "
            f"class_counts and num_epochs, or a function that returns one, got {entries!r}"
        )
    return entries
