"""What `import sampleweights` brings along: torch and numpy, and not torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sampleweights

CODE = """
import sys, torch
before = set(sys.modules)
import sampleweights, sampleweights.page
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
print("torch._dynamo" in set(sys.modules) - before)
"""


def test_nothing_but_torch_and_numpy() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    packages, compiler = done.stdout.splitlines()
    others = set(packages.split()) - set(sys.stdlib_module_names) - {"sampleweights"}
    assert others <= {"numpy"}
    assert compiler == "False"


def test_the_top_shows_what_users_import() -> None:
    assert set(dir(sampleweights)) == {*sampleweights.__all__, "__version__"}


def test_names_of_before() -> None:
    from sampleweights.history import write_page
    from sampleweights.page import write_page as as_before

    assert as_before is write_page
    pytest.importorskip("sklearn", reason="compare needs its extra")
    from sampleweights.compare import Head
    from sampleweights.compare.head import Head as head_as_before

    assert head_as_before is Head
