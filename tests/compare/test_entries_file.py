"""``--entries FILE.py``: read, told, kept and sent to workers."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pd = pytest.importorskip("pandas")

from sampleweights.__main__ import main  # noqa: E402
from sampleweights.compare import compare  # noqa: E402
from sampleweights.compare.training.entries_file import entries_of_file  # noqa: E402

TARGET = np.repeat([0, 1, 2], [30, 20, 10])
FEATURES = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)

MINE = """\
from __future__ import annotations

from dataclasses import dataclass

import torch
from sampleweights import CrossEntropyLoss, FocalLoss, WeightedSampler
from sampleweights.compare import default_entries

from my_losses import STRENGTH  # a module beside this file


@dataclass
class Settings:
    gamma: float = STRENGTH


class Mine(torch.nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.focal = FocalLoss(gamma)

    def forward(self, logits, target):
        return self.focal(logits, target)


def sampled(class_counts, num_epochs):
    return CrossEntropyLoss(), WeightedSampler.from_targets


def entries():
    found = {"no weighting": default_entries()["no weighting"]}
    found["mine"] = lambda class_counts, num_epochs: Mine(Settings().gamma)
    found["sampled"] = sampled
    return found
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_losses.py").write_text("STRENGTH = 2.0\n")
    (tmp_path / "mine.py").write_text(MINE)
    yield tmp_path / "mine.py"
    sys.modules.pop("my_losses", None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", features=FEATURES, target=TARGET)
    return tmp_path / "data.npz"


def command(*arguments: object) -> int:
    small = ["--folds", "2", "--num-epochs", "2", "--workers", "1", "--no-progress"]
    return main(["compare", *map(str, arguments), *small])


def test_the_rows_are_those_of_the_file(file: Path, data: Path, tmp_path: Path) -> None:
    assert command(data, "--entries", file, "--output", tmp_path / "out") == 0
    rows = pd.read_csv(tmp_path / "out" / "table.csv", index_col=0).index
    assert [row for row in rows if "post-hoc" not in row] == ["no weighting", "mine", "sampled"]
    assert "mine + post-hoc" in rows  # it knows nothing of the class frequencies
    assert command(
        data, "--entries", file, "--rows", "sampled", "--output", tmp_path / "two"
    ) == 0  # fmt: skip
    rows = pd.read_csv(tmp_path / "two" / "table.csv", index_col=0).index
    assert [row for row in rows if "post-hoc" not in row] == ["no weighting", "sampled"]


def test_a_dictionary_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "dictionary.py"
    file.write_text("entries = {'row': lambda n, e: None}\n")
    assert list(entries_of_file(file)) == ["row"]
    assert "sampleweights_entries" not in sys.modules


def options(file: Path, **others: object) -> dict[str, object]:
    entries = entries_of_file(file)
    return {"entries": entries, "folds": 2, "num_epochs": 2, "progress": False, **others}


def test_the_file_goes_to_workers_by_value(file: Path) -> None:
    """A worker on another machine has no such file."""
    sent = pickle.dumps(
        joblib.wrap_non_picklable_objects(entries_of_file(file), keep_wrapper=False)
    )
    file.unlink()
    criterion = pickle.loads(sent)["mine"](None, 2)
    assert criterion.focal.gamma == 2


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same(file: Path) -> None:
    def fit(criterion, train, validation, sampler=None, seed=0):
        return np.eye(3)[TARGET[validation]] + seed % 7

    tables = [compare(fit, TARGET, **options(file, workers=workers)).table() for workers in (1, 2)]
    assert tables[0].equals(tables[1])


def test_runs_are_kept_for_the_same_file_only(file: Path, tmp_path: Path) -> None:
    def kept() -> dict[str, int]:
        compare(FEATURES, TARGET, **options(file, cache=tmp_path / "runs", workers=1))
        names = [path.name.split("-")[0] for path in (tmp_path / "runs").glob("*.npz")]
        return {name: names.count(name) for name in ("no", "mine", "sampled")}

    assert kept() == {"no": 2, "mine": 2, "sampled": 2}
    file.write_text(MINE.replace("# a module", "# another comment"))
    assert kept() == {"no": 2, "mine": 2, "sampled": 2}
    file.write_text(MINE.replace("return self.focal(", "return 2 * self.focal("))
    assert kept() == {"no": 2, "mine": 4, "sampled": 2}
    file.write_text(MINE.replace("gamma: float = STRENGTH", "gamma: float = 3.0"))
    assert kept() == {"no": 2, "mine": 6, "sampled": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n\nentries = {'a': unknown}\n", "line 3: NameError: name 'unknown' is not defined"),
        ("x = 1\nentries = {'a': \n", "line 2: SyntaxError: '{' was never closed"),
        ("def entries():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import nothing_like_it\n", "line 1: ModuleNotFoundError: No module named 'nothing_lik"),
        ("rows = {}\n", " must define entries, a dictionary of names and functions"),
        ("entries = [1]\n", "got [1]"),
        ("def entries(): return None\n", "got None"),
        ("entries = {}\n", "entries must have at least one row"),
        (
            "from sampleweights import FocalLoss\nentries = {'a': FocalLoss()}\n",
            "entries['a'] must be a function of class_counts and num_epochs that builds",
        ),
        (
            "from sampleweights import FocalLoss\n\nentries = {'a': lambda n, e: FocalLoss(-1)}\n",
            "entries['a'] cannot be built with class_counts=[15, 10, 5] and num_epochs=2: "
            "ValueError: gamma",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    text: str, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(text)
    assert command(data, "--entries", file, "--output", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    if "FocalLoss(-1)" in text:
        assert f"({file}, line 3)" in error


def test_a_file_that_is_missing_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(data, "--entries", tmp_path / "none.py") == 1
    assert "none.py: No such file or directory" in capsys.readouterr().err
