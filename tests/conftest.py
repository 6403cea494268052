"""Shared set-up: one thread, so that two workers on two cores do not fight over them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
torch.set_num_threads(1)
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Processes import `benchmarks` and `examples` from here, whatever else is installed.

    To collect the doctests of the installed library, pytest puts site-packages first, where
    opacus 1.6 has packages of these names.
    """
    sys.path.insert(0, str(Path(__file__).parents[1]))
