"""Whatever changes a run changes its digest, and nothing else does."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")

from sampleweights import OHEM, ClassBalanced, CrossEntropyLoss, FocalLoss
from sampleweights.compare.training.fingerprint import fingerprint


def test_equal_things_have_equal_digests():
    assert fingerprint(FocalLoss(2)) == fingerprint(FocalLoss(2))
    assert fingerprint(np.arange(3), {"a": [1, 2]}) == fingerprint(np.arange(3), {"a": [1, 2]})


def test_different_things_have_different_digests():
    criteria = [
        CrossEntropyLoss(),
        CrossEntropyLoss(label_smoothing=0.1),
        FocalLoss(1),
        FocalLoss(2),
        CrossEntropyLoss(weighter=ClassBalanced([1, 2])),
        CrossEntropyLoss(weighter=ClassBalanced([1, 3])),
        CrossEntropyLoss(weighter=OHEM(4)),
        CrossEntropyLoss(weighter=OHEM(5)),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])),
    ]
    values = [
        np.zeros(2),
        np.zeros((2, 1)),
        np.zeros(2, np.float32),
        torch.zeros(2),
        [0.0, 0.0],
        0,
        "0",
    ]
    assert len({fingerprint(what) for what in [*criteria, *values]}) == len(criteria) + len(values)


def a_function(constant):
    return lambda: constant + 1


def test_functions_are_read():
    scale = 1

    def closure():
        return scale

    before = fingerprint(closure)
    scale = 2
    assert fingerprint(closure) != before
    assert fingerprint(a_function(1)) == fingerprint(a_function(1))
    assert fingerprint(a_function(1)) != fingerprint(a_function(2))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x * 1)


FEATURES = np.zeros(3)


def reads_a_global():
    return FEATURES.sum()


def test_the_globals_that_a_function_names_are_read(monkeypatch):
    before = fingerprint(reads_a_global)
    monkeypatch.setitem(globals(), "FEATURES", np.ones(3))
    assert fingerprint(reads_a_global) != before


def test_the_code_of_classes_is_read():
    def made(body):
        namespace = {"nn": nn, "__name__": "own"}
        exec(f"class Own(nn.Module):\n    def forward(self, x):\n        return {body}", namespace)
        return namespace["Own"]()

    assert fingerprint(made("x")) == fingerprint(made("x"))
    assert fingerprint(made("x")) != fingerprint(made("x + 1"))


def test_cycles_end():
    loop: list = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
SCRIPT = """
import numpy as np, torch
from sampleweights.compare import default_entries
from sampleweights.compare.training.fingerprint import fingerprint
TABLE = {"a": (1, 2), "b": {3, 4}}
def fit(criterion, train, validation, sampler=None, seed=0):
    "Docs."
    return TABLE, [x for x in (1, 2)], torch.zeros(3)
print(fingerprint(fit, [build(torch.tensor([5, 3]), 4) for build in default_entries().values()]))
"""


def test_another_process_finds_the_same_digest(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    found = {
        subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True, env=ENVIRONMENT
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_a_closure_over_none_is_not_an_empty_one():
    def made(a, b):
        return lambda: (a, b)

    assert fingerprint(made(None, 1)) != fingerprint(made(1, None))


def test_the_source_of_modules_of_ones_own_is_read(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_models.py"
    file.write_text("def net(): return 1")
    import own_models

    before = fingerprint(own_models)
    file.write_text("def net(): return 2")
    assert fingerprint(own_models) != before


def test_slots_count_and_loggers_do_not():
    class Point:
        __slots__ = ("x",)

        def __init__(self, x):
            self.x = x

    assert fingerprint(Point(1)) != fingerprint(Point(2))
    logger = logging.getLogger("of the test")
    before = fingerprint(logger)
    logger.isEnabledFor(10)
    assert fingerprint(logger) == before
