"""The tests of the example need the packages of its extra, `pip install ".[examples]"`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

needed = ("kornia", "lightning", "markdown", "timm")
if all(find_spec(name) for name in needed):
    from made_files import make

    @pytest.fixture
    def root(tmp_path: Path) -> Path:
        return make(tmp_path / "isic")
else:
    collect_ignore = [path.name for path in Path(__file__).parent.glob("*isic2018*")]
    collect_ignore += ["made_files.py"]
