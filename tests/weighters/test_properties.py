"""Each weighter has the properties that its test file claims, and no others."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contracts import WEIGHTERS
from properties import PROPERTIES

FILES = [
    path.stem
    for path in Path(__file__).parent.glob("test_*.py")
    if path.stem != Path(__file__).stem
]
CLAIMS: dict[str, set[Callable[..., None]]] = {}
for name in sorted(FILES):
    CLAIMS |= getattr(importlib.import_module(name), "CLAIMS", {})


def test_every_weighter_claims() -> None:
    assert set(CLAIMS) == set(WEIGHTERS)
    for claimed in CLAIMS.values():
        assert claimed <= set(PROPERTIES)


@pytest.mark.parametrize("has", PROPERTIES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", WEIGHTERS)
def test_has_what_it_claims(name: str, has: Any) -> None:
    if has in CLAIMS[name]:
        has(WEIGHTERS[name])
    else:
        with pytest.raises(AssertionError):
            has(WEIGHTERS[name])
