"""What `import sampleweights` brings along: torch and numpy, and not torch's compiler."""

from __future__ import annotations

import subprocess
import sys

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
