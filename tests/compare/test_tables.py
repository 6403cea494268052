"""What becomes of the columns of a table; the oracles are written out by hand."""

from __future__ import annotations

import datetime
import decimal
import gzip
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from sampleweights.compare.inputs import load  # noqa: E402
from sampleweights.compare.inputs.tables import read_table  # noqa: E402

NUMBERS = np.random.default_rng(0).permutation(40).astype(float) / 4
CLASSES = np.array([*"abca"] * 10)
Columns = dict[str, Any]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv(path: Path, **columns: Any) -> Path:
    pd.DataFrame({"y": CLASSES, **columns}).to_csv(path / "t.csv", index=False)
    return path / "t.csv"


def parquet(path: Path, **columns: Any) -> Path:
    pytest.importorskip("pyarrow")
    pd.DataFrame({"y": CLASSES, **columns}).to_parquet(path / "t.parquet")
    return path / "t.parquet"


def account(path: Path, **options: Any) -> str:
    return load([path], target=["y"], **options).facts["columns"]


def columns_of(path: Path, **options: Any) -> Columns:
    """The features by name."""
    arrays, names = read_table(path, ["y"], **options)
    return dict(zip(names, arrays["features"].T, strict=True))


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------

FOUR = "name{s}x{s}y\nb{s}1{d}5{s}k\na{s}-2{d}25{s}l\na{s}3{s}k\nb{s}4{s}l\n"


@pytest.mark.parametrize(
    ("suffix", "separator", "point", "encoding"),
    [
        (".csv", ",", ".", "utf-8"),
        (".CSV", ";", ".", "utf-8-sig"),
        (".csv", ";", ",", "cp1252"),
        (".tsv", "\t", ",", "utf-16"),
        (".csv.gz", ";", ",", "cp1252"),
        (".tsv.gz", "\t", ".", "utf-8"),
        (".csv.zip", ",", ".", "utf-8"),
        (".tsv.zip", "|", ",", "utf-16"),
    ],
)
def test_files_as_programs_write_them(
    tmp_path: Path, suffix: str, separator: str, point: str, encoding: str
) -> None:
    text = FOUR.format(s=separator, d=point).replace("k", "größe").encode(encoding)
    path = tmp_path / f"t{suffix}"
    if suffix.endswith("gz"):
        path.write_bytes(gzip.compress(text))
    elif suffix.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", text)
            archive.writestr("__MACOSX/._t.csv", b"")
    else:
        path.write_bytes(text)
    inputs = load([path], target=["y"])
    np.testing.assert_array_equal(inputs.features, [[1.5, 1], [-2.25, 0], [3, 0], [4, 1]])
    assert inputs.class_names == ["größe", "l"]


def test_a_comma_in_a_text_is_no_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'x;y\n1;"a; or, b"\n2;"c, d, e"\n3,5;c\n')
    inputs = load([path], target=["y"])
    assert inputs.class_names == ["a; or, b", "c", "c, d, e"]
    assert inputs.features[:, 0].tolist() == [1, 2, 3.5]


@pytest.mark.parametrize(
    "content",
    [
        'x,y\n"1,234",a\n"12,000.5",b\n7,a\n,b\n',
        "x;y\n1.234;a\n12.000,5;b\n7;a\n;b\n",
        "sep=;\nx;y\n1.234;a\n12.000,5;b\n7;a\n;b\n",
    ],
)
def test_thousands(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "t.csv", content)
    assert columns_of(path)["x"].tolist() == [1234, 12000.5, 7, 1234]


def test_a_separator_at_the_end_of_each_row(tmp_path: Path) -> None:
    for first in ("x,y\n", "x,y,\n"):
        path = write(tmp_path / "t.csv", f"{first}0,a,\n1,b,\n2,a,\n")
        inputs = load([path], target=["y"])
        assert inputs.features.tolist() == [[0], [1], [2]]
        assert inputs.target.tolist() == [0, 1, 0]


def test_spaces_around_names_and_values(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "x , y, z\n1, a ,u\n2, b,v\n3, a,u\n")
    inputs = load([path], target=["y"])
    assert inputs.class_names == ["a", "b"]
    np.testing.assert_array_equal(inputs.features, [[1, 0], [2, 1], [3, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1,2,a\n2,3,b\n", "its rows have more cells than the first line has names"),
        ("x,y\n1,a\n2,b,3\n", "cannot be read: .*Expected 2 fields in line 3, saw 3"),
        ("x,x ,y\n1,2,a\n", "has no column 'z'"),
    ],
)
def test_damaged_files(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(ValueError, match=f"t.csv.*{message}"):
        load([path], target=["z" if "z" in message else "y"])


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zip"])
def test_damaged_archives(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t{suffix}", b"no archive")
    with pytest.raises(ValueError, match=rf"t{suffix} cannot be read: .*(gzip|zip)"):
        load([path], target=["y"])
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(ValueError, match="it holds 2 files and not one: unzip it first"):
        load([tmp_path / "t.csv.zip"], target=["y"])


def test_an_index_with_a_name_is_a_column(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"x": NUMBERS, "y": CLASSES, "who": [*"uvuw"] * 10}).set_index("who")
    frame.to_parquet(tmp_path / "t.parquet")
    inputs = load([tmp_path / "t.parquet"], target=["y"], group="who")
    assert inputs.groups.tolist() == [0, 1, 0, 2] * 10
    assert inputs.features.shape == (40, 1)


# --------------------------------------------------------------------------------------------
# Labels
# --------------------------------------------------------------------------------------------


def labels(path: Path, *values: str, **options: Any) -> Any:
    rows = "".join(f"{i},{value}\n" for i, value in enumerate(values))
    return load([write(path / "t.csv", f"x,y\n{rows}")], target=["y"], **options)


def test_a_class_called_na_is_a_class(tmp_path: Path) -> None:
    inputs = labels(tmp_path, "NA", "None", "b", "NA", "null", "b")
    assert inputs.class_names == ["NA", "None", "b", "null"]
    assert inputs.target.tolist() == [0, 1, 2, 0, 3, 2]
    said = "'NA' (2 rows), 'None' (1 row), 'null' (1 row) of y taken as any other label"
    assert inputs.facts["labels"] == said


def test_labels_in_one_cell_are_classes_and_what_to_do_is_said(tmp_path: Path) -> None:
    tags = ["cough|fever", "cough", "fever", "edema|cough"] * 10
    path = csv(tmp_path, x=NUMBERS, tags=tags)
    found = load([path], target=["tags"], drop=["y"])
    assert found.class_names == ["cough", "cough|fever", "edema|cough", "fever"]
    assert "'cough|fever' of tags taken as a class of its own" in found.facts["labels"]
    assert "str.get_dummies('|'), and give these with --target" in found.facts["labels"]
    oracle = pd.Series(tags).str.get_dummies("|")
    several = csv(tmp_path, x=NUMBERS, **{name: oracle[name] for name in oracle})
    assert load([several], target=[*oracle], drop=["y"]).target.tolist() == oracle.values.tolist()
    names = csv(tmp_path, x=NUMBERS, site=["arm, left", "leg", "trunk, upper", "leg"] * 10)
    assert "labels" not in load([names], target=["site"], drop=["y"]).facts


def test_whole_numbers_are_ordered_by_value(tmp_path: Path) -> None:
    assert labels(tmp_path, "10", "9", "-1").class_names == ["-1", "9", "10"]
    assert labels(tmp_path, "10.0", "9.0", "9.0").class_names == ["9", "10"]
    assert labels(tmp_path, "True", "False", "False").class_names == ["False", "True"]
    assert labels(tmp_path, "010", "9", "10").class_names == ["010", "10", "9"]


@pytest.mark.parametrize("word", ["NA", "", "nan", "?", " "])
def test_no_word_is_a_number(tmp_path: Path, word: str) -> None:
    said = f"'{word}' beside numbers, " if word.strip() else ""
    message = f"'y' is empty in row 1 ({said}counted from 0), and in 1 more: .*delete"
    message = message.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")
    with pytest.raises(ValueError, match=message):
        labels(tmp_path, "1", word, "0", word)


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_a_group_is_what_it_is_called(tmp_path: Path, end: str) -> None:
    columns = {"x": NUMBERS, "who": ["007", "7", "NA", "7"] * 10}
    path = (csv if end == "csv" else parquet)(tmp_path, **columns)
    inputs = load([path], target=["y"], group="who")
    assert inputs.groups.tolist() == [0, 1, 2, 1] * 10
    assert "'NA' (10 rows) of who" in inputs.facts["labels"]
    assert inputs.features.shape == (40, 1)


def test_a_column_of_folds(tmp_path: Path) -> None:
    path = csv(tmp_path, x=NUMBERS, fold=[10, 9, 9, 10] * 10)
    assert load([path], target=["y"], folds="fold").folds.tolist() == [1, 0, 0, 1] * 10
    both = load([path], target=["y"], folds="fold", group="fold")  # such as the hospital
    assert both.folds.tolist() == both.groups.tolist()
    for inputs in (both, load([path], target=["y"], drop=["fold"])):
        assert inputs.features.shape == (40, 1)
    message = "column 'fold' looks like .* --folds fold, .* --drop fold"
    with pytest.raises(ValueError, match=message):
        load([path], target=["y"])
    path = csv(tmp_path, x=NUMBERS, split=["train", "val", "val", "train"] * 10, f=[1, 2] * 20)
    assert "split (other folds)" in account(path, folds="f")


@pytest.mark.parametrize("truth", [("0", "1"), ("0.0", "1.0"), ("False", "True")])
def test_several_labels(tmp_path: Path, truth: tuple[str, str]) -> None:
    held = np.array([[0, 1], [1, 1], [0, 0], [1, 0]] * 10)
    cough, fever = (np.array(truth)[held[:, i]] for i in (0, 1))
    path = csv(tmp_path, x=NUMBERS, cough=cough, fever=fever)
    inputs = load([path], target=["fever", "cough"], drop=["y"])
    np.testing.assert_array_equal(inputs.target, held[:, ::-1])
    assert inputs.class_names == ["fever", "cough"]
    assert inputs.features.shape == (40, 1)


def test_classes_in_columns(tmp_path: Path) -> None:
    one = np.arange(40) % 3
    columns = {name: (one == i).astype(float) for i, name in enumerate(["MEL", "NV", "BCC"])}
    path = csv(tmp_path, x=NUMBERS, **columns)
    inputs = load([path], target=[*columns], drop=["y"])
    assert inputs.target.tolist() == one.tolist()
    assert inputs.class_names == [*columns]
    with pytest.raises(ValueError, match="so that the others tell .* --target NV MEL BCC"):
        load([path], target=["NV"], drop=["y"])


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (["u", "v"], {}, r"'v' must hold 0 and 1, .* got -1 in row 2"),
        (["u", "y"], {}, r"'y' must hold 0 and 1, since --target names several columns, got a"),
        (["u", "w"], {}, r"'w' is empty in row 0"),
        (["u", "u"], {}, r"--target must name each column once"),
        (["y"], {"drop": ["y"]}, "--target and --drop both name the column 'y'"),
        (["y"], {"group": "u", "drop": ["u"]}, "--group and --drop both name the column 'u'"),
        (["y"], {"drop": ["z"]}, "no column 'z' for --drop"),
        (["y"], {"folds": "z"}, "no column 'z' for --folds"),
    ],
)
def test_columns_that_do_not_fit(
    tmp_path: Path, target: list[str], options: dict[str, Any], message: str
) -> None:
    path = csv(tmp_path, u=[0, 1] * 20, v=[1, 0, -1, 0] * 10, w=[None, 1] * 20)
    with pytest.raises(ValueError, match=f"t.csv.*{message}"):
        load([path], target=target, **options)


# --------------------------------------------------------------------------------------------
# Features
# --------------------------------------------------------------------------------------------


def test_a_missing_number_is_the_median_and_said(tmp_path: Path) -> None:
    holed = NUMBERS.copy()
    holed[[3, 30]] = np.nan
    found = columns_of(csv(tmp_path, x=holed, z=NUMBERS))
    assert [*found] == ["x", "z", "x is missing"]
    np.testing.assert_array_equal(found["x is missing"], np.isin(np.arange(40), [3, 30]))
    expected = np.where(np.isnan(holed), np.nanmedian(holed), holed).astype(np.float32)
    np.testing.assert_array_equal(found["x"], expected)
    said = (
        "2 numeric: x, z; missing numbers: x in 2 rows, the median in their place and a column that"
    )
    assert account(tmp_path / "t.csv").startswith(said)


def test_texts_are_one_hot(tmp_path: Path) -> None:
    stage = np.array(["I", "II", None, "III", "I"] * 8, dtype=object)
    sex = np.array([*"fmmm"] * 10)
    found = columns_of(csv(tmp_path, stage=stage, sex=sex, x=NUMBERS))
    assert next(iter(found)) == "x"
    for value in ("I", "II", "III", "(missing)"):
        held = [value == (s or "(missing)") for s in stage]
        np.testing.assert_array_equal(found[f"stage_{value}"], held)
    np.testing.assert_array_equal(found["sex_m"], sex == "m")  # one column tells both
    assert len(found) == 6
    assert "2 one-hot: stage, sex;" in account(tmp_path / "t.csv")


def test_rare_categories_share_a_column(tmp_path: Path) -> None:
    site = np.array(["arm"] * 1990 + ["toe"] * 6 + ["ear"] * 4)
    frame = pd.DataFrame({"y": [*"ab"] * 1000, "x": np.arange(2000) % 7, "site": site})
    frame["site"] = frame["site"].where(frame.index != 0, "leg")
    frame.loc[1:20, "site"] = "back"
    frame.to_csv(tmp_path / "t.csv", index=False)
    found = columns_of(tmp_path / "t.csv")
    assert [*found] == ["x", "site_arm", "site_back", "site_infrequent_sklearn"]
    assert found["site_infrequent_sklearn"].sum() == 11  # toe, ear, leg: each below 10 rows


def test_what_is_no_feature_is_left_out_and_said(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        x=NUMBERS,
        file=[f"img{i}.png" for i in range(40)],
        image_id=np.random.default_rng(0).permutation(40) + 1000,
        row=np.arange(7, 47),
        visit=[f"2020-03-{i % 28 + 1:02}" for i in range(40)],
        birth=[f"{i % 28 + 1}.3.1950" for i in range(40)],
        month=[f"2020-{i % 12 + 1:02}" for i in range(40)],
        hospital=["north"] * 40,
        constant=[1.5] * 40,
        nothing=[None] * 40,
        label_name=[{"a": "naevus", "b": "melanoma", "c": "wart"}[c] for c in CLASSES],
        label=[{"a": 3, "b": 1, "c": 2}[c] for c in CLASSES],
    )
    found = load([path], target=["y"])
    assert found.features.shape == (40, 1)
    for said in (
        "file (it differs in every row)",
        "image_id (it differs in every row)",
        "row (it counts the rows)",
        "visit (a date)",
        "birth (a date)",
        "month (a date)",
        "constant (the same in every row)",
        "hospital (the same in every row)",
        "nothing (empty)",
        "label_name (the target under another name)",
        "label (the target under another name)",
    ):
        column = said.partition(" ")[0]
        assert said in account(path, drop=[c for c in WIDE if c not in (column, "x", "y")])
    path = csv(tmp_path, x=NUMBERS, ticket=[f"A/{i % 30}" for i in range(40)])
    assert "ticket (30 different texts)" in account(path)
    assert "rows with the same ticket belong together, name it with --group" in account(path)
    assert "belong together" not in account(csv(tmp_path, x=NUMBERS, g=[*"ab"] * 20), group="g")


WIDE = ["file", "image_id", "row", "visit", "birth", "hospital", "nothing", "label_name"]
WIDE += ["label", "month", "constant"]


def test_blank_texts_are_missing(tmp_path: Path) -> None:
    path = parquet(tmp_path, x=NUMBERS, blank=[" "] * 40, site=["arm ", "", "arm", "leg"] * 10)
    found = columns_of(path)
    assert [*found] == ["x", "site_(missing)", "site_arm", "site_leg"]
    assert found["site_arm"].tolist() == [1, 0, 1, 0] * 10
    assert "left out: blank (empty)" in account(path)


def test_the_index_that_pandas_writes(tmp_path: Path) -> None:
    pd.DataFrame({"x": NUMBERS, "y": CLASSES}).iloc[::-1].to_csv(tmp_path / "t.csv")
    assert [*columns_of(tmp_path / "t.csv")] == ["x"]
    assert "left out: Unnamed: 0 (it counts the rows)" in account(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "name", ["patient_id", "patientID", "Patient", "Patientennummer", "subject", "lesion_id", "ID"]
)
@pytest.mark.parametrize("kind", [int, str, float])
def test_an_identifier_that_rows_share_is_asked_about(
    tmp_path: Path, name: str, kind: type
) -> None:
    values = [kind(i * 7 % 15) for i in range(40)]
    path = csv(tmp_path, x=NUMBERS, **{name: values}, hadm_id=[i % 20 for i in range(40)])
    with pytest.raises(ValueError, match="look like an identifier: .* --group .*, otherwise --dr"):
        load([path], target=["y"])
    message = (
        rf"'{name}' \(15 values in 40 rows\) looks .* --group {name}, otherwise --drop {name};"
    )
    with pytest.raises(ValueError, match=message):
        load([path], target=["y"], drop=["hadm_id"])
    inputs = load([path], target=["y"], group=name)
    assert inputs.features.shape == (40, 1)
    assert len(np.unique(inputs.groups)) == 15
    assert "left out: hadm_id (an identifier)" in inputs.facts["columns"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("patient", [0, 1] * 20),  # or a control
        ("grid", [i % 5 for i in range(40)]),
        ("thyroid", [i % 5 for i in range(40)]),
        ("case_idx", [0.5 + i % 5 for i in range(40)]),
        ("patient_age", [i % 20 for i in range(40)]),
        ("num_lesions", [i % 5 for i in range(40)]),
        ("split_time", [i % 5 for i in range(40)]),
        ("id", [0.25 + i % 9 for i in range(40)]),
    ],
)
def test_what_only_looks_like_an_identifier_is_a_feature(
    tmp_path: Path, name: str, values: list[float]
) -> None:
    found = columns_of(csv(tmp_path, **{name: values}))
    np.testing.assert_array_equal(found[name], np.float32(values))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
def test_whole_numbers_in_blocks_may_be_groups(tmp_path: Path, dtype: type) -> None:
    blocks = (np.array([5, 5, 9, 9, 9, 2, 7, 7, 8, 1] * 4) + np.arange(40) // 10 * 10).astype(dtype)
    path = csv(tmp_path, nr=blocks, x=NUMBERS, z=np.random.default_rng(0).permutation(blocks))
    said = "; if rows with the same nr belong together, name it with --group;"
    assert said in account(path)
    assert load([path], target=["y"]).features.shape == (40, 3)
    assert "belong together" not in account(path, group="z")
    assert "belong together" not in account(path, drop=["nr"])
    assert "belong together" not in account(csv(tmp_path, x=NUMBERS, years=np.arange(40) // 8))


def test_numbers_among_which_are_texts(tmp_path: Path) -> None:
    mostly = [str(v) for v in NUMBERS]
    mostly[5], mostly[6] = ">90", "?"
    codes = [*"123x"] * 10
    zips = ["01234", "99999", "10115", "60001"] * 10
    found = columns_of(csv(tmp_path, x=mostly, code=codes))
    assert found["x"][7] == NUMBERS[7]
    np.testing.assert_array_equal(np.flatnonzero(found["x is missing"]), [5, 6])
    np.testing.assert_array_equal(found["code_x"], np.array(codes) == "x")
    assert "x: 2 texts such as '>90' count as missing" in account(tmp_path / "t.csv")
    found = columns_of(parquet(tmp_path, zip=zips, x=[str(v) for v in NUMBERS]))
    np.testing.assert_array_equal(found["x"], NUMBERS.astype(np.float32))
    np.testing.assert_array_equal(found["zip_01234"], np.array(zips) == "01234")


def test_kinds_of_numbers(tmp_path: Path) -> None:
    flags = [True, False, None, True] * 10
    path = csv(tmp_path, whole=[True, False, True, True] * 10, holed=flags)
    found = columns_of(path)
    np.testing.assert_array_equal(found["whole"], [1, 0, 1, 1] * 10)
    np.testing.assert_array_equal(found["holed"], [1, 0, 1, 1] * 10)  # the median is 1
    np.testing.assert_array_equal(found["holed is missing"], [0, 0, 1, 0] * 10)

    path = parquet(
        tmp_path,
        nullable=pd.array([1, None, 3, 1] * 10, dtype="Int64"),
        truth=pd.array(flags, dtype="boolean"),
        price=[decimal.Decimal("1.25"), decimal.Decimal("2.5")] * 20,
        took=pd.to_timedelta([90, 30] * 20, unit="s"),
        small=np.array([1, 2, 3, 4] * 10, dtype=np.uint8),
        kind=pd.Categorical([*"vuvw"] * 10, categories=[*"wvu"], ordered=True),
        born=[datetime.date(2020, 1, 1 + i % 20) for i in range(40)],
        seen=pd.date_range("2020-01-01", periods=40, tz="UTC"),
    )
    found = columns_of(path)
    assert found["nullable"].tolist() == [1, 1, 3, 1] * 10
    assert found["truth"].tolist() == [1, 0, 1, 1] * 10
    assert found["price"].tolist() == [1.25, 2.5] * 20
    assert found["took"].tolist() == [90, 30] * 20
    assert found["small"].tolist() == [1, 2, 3, 4] * 10
    assert found["kind_v"].tolist() == [1, 0, 1, 0] * 10
    assert "left out: born (a date), seen (a date)" in account(path)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_an_infinite_number_is_refused(tmp_path: Path, value: float) -> None:
    path = csv(tmp_path, x=np.where(np.arange(40) == 5, value, NUMBERS))
    with pytest.raises(ValueError, match=r"'x' must hold finite .* in row 5 .* --drop x"):
        load([path], target=["y"])


@pytest.mark.parametrize("how", ["pandas", "polars", "polars array", "csv"])
def test_a_column_of_lists(tmp_path: Path, how: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    lists = [[float(v) for v in row] for row in vectors]
    if how == "csv":
        path = csv(tmp_path, x=NUMBERS, embedding=lists)
    elif how == "pandas":
        path = parquet(tmp_path, x=NUMBERS, embedding=[*vectors])
    else:
        polars = pytest.importorskip("polars")
        path = tmp_path / "t.parquet"
        embedding = vectors if how == "polars array" else lists
        polars.DataFrame({"y": CLASSES, "x": NUMBERS, "embedding": embedding}).write_parquet(path)
    inputs = load([path], target=["y"])
    np.testing.assert_array_equal(inputs.features[:, 1:], vectors)
    np.testing.assert_array_equal(inputs.features[:, 0], NUMBERS)
    assert inputs.facts["columns"] == "1 numeric: x; embedding: lists of 5; 6 features in all"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0]] * 39 + [[1.0]], r"a list of 2 numbers .* shape \(1,\) .* row 39 .* --drop v"),
        ([[1.0]] * 39 + [None], r"a list of 1 numbers .*, got none in row 39 .* --drop v"),
        ([["a"]] * 40, r"a list of some numbers in each row, got .* row 0 .* --drop v"),
        ([b"pixels"] * 40, "'v' holds values of bytes, which are no features: .* --drop v"),
        ([{"a": 1}] * 40, "'v' holds values of dict, which are no features: .* --drop v"),
    ],
)
def test_lists_that_are_no_features(tmp_path: Path, values: list[Any], message: str) -> None:
    path = parquet(tmp_path, v=values, x=NUMBERS)
    with pytest.raises(ValueError, match=message):
        load([path], target=["y"])
    assert load([path], target=["y"], drop=["v"]).features.shape == (40, 1)


def test_lists_that_numpy_has_printed(tmp_path: Path) -> None:
    path = csv(tmp_path, v=[f"[{i} 0.5 ... 1]" for i in range(40)])
    with pytest.raises(ValueError, match=r"'v' must hold lists .* row 0 .*\.parquet, .* --drop v"):
        load([path], target=["y"])
