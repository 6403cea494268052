"""The page: it is whole, it shows every number, and it runs nothing of what a user wrote."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import matplotlib as mpl
import numpy as np
from fake_comparison import NAN, POINTS, FakeComparison

from sampleweights.compare import METRICS, Comparison, Estimate
from sampleweights.compare.report import page, picture, table
from sampleweights.compare.report.verdict import of
from sampleweights.compare.training.entries import _RECIPES


def write(comparison: FakeComparison, path: Path) -> str:
    file = path / "comparison.html"
    assert page.write(comparison, file) == file
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(FakeComparison(), tmp_path_factory.mktemp("page"))


class Elements(HTMLParser):
    """Counts what is opened, and sees that it is closed."""

    VOID = ("meta", "input", "br", "path", "use")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.opened.pop() == tag

    def of(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.found if t == tag and kind in (a.get("class") or "").split(" ")]


def cells(text: str) -> list[list[str]]:
    """By row of the table, what each metric is sorted by."""
    body = re.search(r"<tbody.*?</tbody>", text, re.S)
    assert body is not None
    lines = re.findall(r"<tr.*?</tr>", body[0], re.S)
    return [re.findall(r'<td role="cell" data-value="([^"]*)"', line) for line in lines]


def test_it_is_whole_and_needs_no_network(usual: str) -> None:
    elements = Elements(usual)
    assert elements.opened == ["html"] or elements.opened == []
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "url(http" not in usual
    assert "@import" not in usual
    assert elements.of("meta")[1]["name"] == "viewport"


def test_the_verdict_comes_first_then_its_code_and_what_was_compared(tmp_path: Path) -> None:
    text = write(FakeComparison(num_groups=7470, repeats=3, notes=["a note"]), tmp_path)
    title = "10 ways to train, compared on 10,015 samples of 7 classes in 7,470 groups"
    assert f"<title>{title}</title>" in text
    assert f'<p class="what">{title}</p>' in text
    assert "<h1>Adjust the plain model post hoc with τ = 0.8.</h1>" in text
    assert "In 5 folds, with 3 seeds, each sample was classified by a model" in text
    assert "had not seen its group" in text.replace("\n", " ")
    order = [
        "<h1>", "It costs 3 points", "<pre><code>criterion = sw.CrossEntropyLoss()</code></pre>",
        "does not beat post-hoc", "a note", "<svg", "<table", "Recall and precision of",
        "<dd>2.13",
    ]  # fmt: skip
    assert sorted(order, key=text.index) == order


def test_both_recommendations_are_shown_and_shared_lines_once(tmp_path: Path) -> None:
    points = {"no weighting": (60.0, 90.0), "ClassBalanced": (70.0, 85.0)}
    points |= {"no weighting + post-hoc at no loss": (65.0, 89.6)}
    comparison = FakeComparison(points, recipes=_RECIPES)
    comparison.verdict = of(comparison)
    text = write(comparison, tmp_path)
    assert "<h1>To raise balanced accuracy, train with class weights (ClassBalanced).</h1>" in text
    assert "<h2>To lose no accuracy, train without any weighting and, at test time" in text
    assert text.count("class_counts = ") == 1
    assert text.count("<pre>") == 2


def test_the_table_has_every_row_and_metric(usual: str) -> None:
    comparison = FakeComparison()
    expected = [
        [repr(comparison.estimate(row, metric).value) for metric in METRICS]
        for row in sorted(POINTS, key=lambda row: -POINTS[row][0])  # the best first
    ]
    assert cells(usual) == expected
    assert '<span class="value">82.4<small>81.0 to 83.8</small></span>' in usual
    # OHEM less no weighting, in balanced accuracy: surely more
    assert '<span class="difference sure">+1.8<small>0.8 to 2.8</small></span>' in usual
    assert '<span class="difference">\u22120.1<small>\u22121.1 to 0.9</small></span>' in usual


def test_the_table_can_be_sorted_from_the_keyboard_and_says_how_it_is(usual: str) -> None:
    heads = re.findall(r"<th scope=\"col\".*?</th>", usual, re.S)
    assert len(heads) == 1 + len(METRICS)
    assert all('<button type="button">' in head for head in heads)
    sorted_by = [name for name, head in zip(METRICS, heads[1:], strict=True) if "aria-s" in head]
    assert sorted_by == ["balanced_accuracy"]
    assert "aria-sort" not in heads[0]
    first = [re.findall(r'data-first="(\w+)"', head)[0] for head in heads]
    between = ["descending"] * (len(METRICS) - 2)
    assert first == ["ascending", *between, "descending", "ascending"]  # best first


def test_the_picture_is_there_for_both_widths_in_the_colours_of_the_page(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    text = write(FakeComparison(), tmp_path)
    assert dict(mpl.rcParams) == before
    pictures = re.findall(r"<svg.*?</svg>", text, re.S)
    assert [re.findall(r'class="(\w+)"', svg)[0] for svg in pictures] == ["wide", "narrow"]
    names: list[set[str]] = []
    for svg in pictures:
        ET.fromstring(svg)
        assert "currentColor" in svg
        assert not re.search(f"{picture.TRAINED}|{picture.BASELINE}|#000000|#ffffff", svg)
        for row in POINTS:
            assert all(word in svg for word in row.split())
        names.append(set(re.findall(r' id="(.*?)"', svg)))
    assert names[0].isdisjoint(names[1])


def test_recall_of_each_class_has_rows_in_order_and_the_largest_class_first(tmp_path: Path) -> None:
    comparison = FakeComparison(class_counts=[20, 500, 80], class_names=["few", "many", "some"])
    text = write(comparison, tmp_path)
    charts = re.findall(r'<section class="chart".*?</section>', text, re.S)
    heads = [re.sub("<.*?>", "", re.findall("<h3>(.*?)</h3>", chart)[0]) for chart in charts]
    assert heads == ["many 500 samples", "some 80 samples", "few 20 samples"]
    for chart in charts:
        assert re.findall('class="name" title="(.*?)"', chart) == list(POINTS)
    recall = comparison.estimate("OHEM", "recall_many")
    precision = comparison.estimate("OHEM", "precision_many")
    assert (
        f'<i style="left:{recall.low:.1f}%;width:2.8%"></i><u style="left:{precision.value:.1f}%">'
        f'</u><b style="left:{recall.value:.1f}%"></b></span><span class="number">'
        f'{recall.value:.1f}</span><span class="number quiet">{precision.value:.1f}</span>'
        in charts[0]
    )


def test_why_a_metric_has_no_interval_is_said(usual: str) -> None:
    assert "worst recall: It has none." in usual


def test_everything_from_the_user_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>&\''
    comparison = FakeComparison(
        {evil: (60.0, 80.0), evil + " + post-hoc": (65.0, 75.0)}, [10, 5], [evil + "a", evil + "b"],
        notes=[evil],
    )  # fmt: skip
    comparison.facts = {evil: evil}
    text = write(comparison, tmp_path)
    assert "<script>alert" not in text
    assert len(Elements(text).of("script")) == 1
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#x27;" in text


def test_letters_that_matplotlib_does_not_have_are_left_to_the_browser(tmp_path: Path) -> None:
    text = write(FakeComparison({"\u7121": (60.0, 80.0)}), tmp_path)
    assert all("\u7121" in svg for svg in re.findall(r"<svg.*?</svg>", text, re.S))


class Unknown(FakeComparison):
    """One row failed, and one class has no sample."""

    def estimate(self, row: str, metric: str) -> Estimate:
        if row == "OHEM" or metric == "recall_class 1":
            return Estimate(NAN, NAN, NAN)
        return super().estimate(row, metric)


def test_what_has_no_value_is_a_dash_and_sorts_last(tmp_path: Path) -> None:
    text = write(Unknown(class_counts=[30, 0]), tmp_path)
    assert cells(text).count([""] * len(METRICS)) == 1
    assert "nan" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S).lower()
    assert '<span class="value">\u2013</span>' in text


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (30, 200)])
def test_few_and_many(tmp_path: Path, rows: int, classes: int) -> None:
    points = {f"row {i}": (60.0 + i / 9, 70.0 - i / 7) for i in range(rows)}
    text = write(FakeComparison(points, [5] * classes), tmp_path)
    assert len(cells(text)) == rows
    assert text.count('<section class="chart"') == classes
    assert ("1 way to train," in text) == (rows == 1)
    assert len(text) < 3_000_000


def test_of_a_real_comparison(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    target = generator.choice(3, 300, p=[0.7, 0.2, 0.1])
    logits = {
        name: (2 * np.eye(3)[target] + generator.normal(size=(1, 300, 3))).astype(np.float32)
        for name in ("no weighting", "EffectiveNumber")
    }
    comparison = Comparison(
        logits=logits, adjustable=["no weighting"], target=target, groups=None,
        fold=np.arange(300)[None] % 5, counts=np.tile(np.bincount(target) * 4 // 5, (1, 5, 1)),
        class_names=["a & b", "c", "d"],
    )  # fmt: skip
    file = comparison.write_page(tmp_path / "page.html")
    text = file.read_text(encoding="utf-8")
    expected = [[comparison.estimate(row, m).value for m in METRICS] for row in comparison.rows]
    best_first = [comparison.rows.index(row) for row in comparison.ranking]
    assert [[float(cell) for cell in row] for row in cells(text)] == [
        expected[i] for i in best_first
    ]
    assert text.count('class="baseline posthoc"') == 2 + 2 * 3  # in the table, for each class
    assert "a &amp; b" in text
    figure = mpl.figure.Figure(layout="constrained")
    axes = comparison.plot(figure.subplots())
    drawn = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert drawn == [(balanced, accuracy) for accuracy, balanced, *_ in expected]


def test_columns_of_the_terminal_stay_apart():
    comparison = FakeComparison(objective=[[0.0, -1.0]] * 7)
    told = comparison.estimate
    comparison.estimate = lambda row, metric: (
        Estimate(-0.0549, -0.0959, -0.0344) if metric == "utility" else told(row, metric)
    )
    first, *lines = table.metrics_of_rows(comparison).splitlines()
    assert {len(line) for line in lines} == {len(first)}
    assert all(line.endswith("  -0.0549 (-0.0959 to -0.0344)") for line in lines)
