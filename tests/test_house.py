"""Imports point one way; every file is short enough to be read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sampleweights

ROOT = Path(sampleweights.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

FLOORS = [
    {"_eager", "datasets", "losses/processes"},
    {"_checks", "_buffers", "loaders"},
    {"functional/focal"},
    {
        "_counts",
        "targets",
        "sampling/table",
        "sampling/splitting",
        "functional/reference",
    },
    {"functional/class_weights"},
    {"functional/log_odds", "sampling/epochs"},
    {"counting", "functional/kernels", "functional/binary"},
    {"functional/softmax"},
    {"functional/__init__", "selection", "schedules", "reduction", "distributed", "taxonomy"},
    {"weighters/base", "functional/linear"},
    {
        "weighters/class_frequency",
        "weighters/curriculum",
        "weighters/hard_negatives",
        "weighters/compose",
        "weighters/confidence",
    },
    {"weighters/deferred"},
    {"weighters/__init__"},
    {"margins/base"},
    {"margins/logit_adjustment", "margins/ldam"},
    {"margins/__init__"},
    {"losses/watching"},
    {"losses/base", "losses/hidden"},
    {"losses/few"},
    {"losses/softmax", "losses/sigmoid", "losses/weighted"},
    {"losses/cross_entropy", "losses/binary_cross_entropy", "losses/asymmetric"},
    {"losses/focal", "losses/hierarchical", "losses/linear"},
    {"losses/__init__"},
    {"decisions/held_out", "decisions/utility", "decisions/priors"},
    {"decisions/calibration", "decisions/sets"},
    {"decisions/__init__"},
    {"history/data_map", "history/observations", "history/scores"},
    {"history/state"},
    {"history/history", "selective", "sampling/weighted", "sampling/class_batches"},
    {"history/page", "sampling/__init__"},
    {"history/__init__"},
    {"__init__", "page", "integrations/__init__"},
    {"integrations/averages", "integrations/evaluation", "integrations/torchmetrics"},
    {"integrations/lightning"},
    {
        "integrations/transformers/denominator",
        "integrations/transformers/accumulation",
        "integrations/transformers/callbacks",
        "integrations/transformers/columns",
    },
    {"integrations/transformers/loss"},
    {"integrations/transformers/head"},
    {"integrations/transformers/trainer"},
    {"integrations/transformers/__init__"},
    # a comparison, in the order in which data pass
    {"compare/outputs"},
    {"compare/inputs/arrays", "compare/inputs/classes", "compare/inputs/roles"},
    {"compare/inputs/columns", "compare/inputs/multilabel"},
    {
        "compare/inputs/archives",
        "compare/inputs/checking",
        "compare/inputs/encoding",
        "compare/inputs/folders",
        "compare/inputs/tables",
    },
    {"compare/inputs/labels"},
    {"compare/inputs/images"},
    {"compare/inputs/loading"},
    {"compare/inputs/__init__"},
    {"compare/training/origins"},
    {"compare/training/code"},
    {"compare/training/fingerprint"},
    {"compare/training/batched"},
    {"compare/training/label_batched"},
    {"compare/training/entries", "compare/training/fitted", "compare/training/head"},
    {"compare/training/label_entries", "compare/training/label_folds"},
    {"compare/training/protocol", "compare/training/entries_file"},
    {"compare/training/own_folds"},
    {"compare/training/failures"},
    {"compare/training/running"},
    {"compare/training/cluster"},
    {"compare/training/__init__"},
    {"compare/statistics/metrics"},
    {"compare/statistics/label_metrics"},
    {"compare/statistics/estimates", "compare/statistics/samples"},
    {"compare/statistics/trainings"},
    {"compare/statistics/contrasts"},
    {"compare/statistics/curve"},
    {"compare/statistics/intervals"},
    {"compare/statistics/label_intervals"},
    {"compare/statistics/__init__"},
    {"compare/task"},
    {"compare/objective"},
    {"compare/adjustment"},
    {"compare/frontier", "compare/label_adjustment"},
    {
        "compare/report/decided",
        "compare/report/labels",
        "compare/report/recipes",
        "compare/report/style",
        "compare/report/table",
    },
    {"compare/report/judgement"},
    {"compare/report/verdict"},
    {"compare/checks/base"},
    {"compare/checks/samples", "compare/checks/trainings", "compare/checks/labels"},
    {"compare/checks/multilabel"},
    {"compare/checks/__init__"},
    {"compare/report/picture"},
    {"compare/report/page"},
    {"compare/report/__init__"},
    {"compare/comparison"},
    {"compare/label_comparison"},
    {"compare/comparing"},
    {"compare/head"},
    {"compare/__init__"},
    {"compare/cli"},
    {"__main__"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def imported(path: Path) -> set[str]:
    """The library's modules that a file imports, also inside functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
            "sampleweights"
        ):
            continue
        package = ROOT.joinpath(*(node.module or "").split(".")[1:])
        for alias in node.names:
            for file in (package / f"{alias.name}.py", package / alias.name / "__init__.py"):
                if file.exists():
                    found.add(name_of(file))
                    break
            else:
                file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
                found.add(name_of(file))
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    floor = FLOOR[name_of(path)]  # a new file gets its place above
    for other in imported(path):
        assert FLOOR[other] < floor, f"{name_of(path)} imports {other}"


def test_the_imports_are_seen() -> None:
    assert imported(ROOT / "functional/softmax.py") >= {"functional/kernels", "_eager"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_no_floor_is_empty() -> None:
    assert set(FLOOR) == {name_of(path) for path in FILES}
