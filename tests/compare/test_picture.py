"""The picture: every row is in it, and every label can be read."""

from __future__ import annotations

import io
import itertools
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import matplotlib as mpl
import pandas as pd
from fake_comparison import NAN, POINTS, FakeComparison
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from sampleweights.compare.report import picture
from sampleweights.compare.report.labels import place


def draw(comparison: Any, width: float = 5.6, height: float = 6.0) -> Any:
    figure = Figure(figsize=picture.size(comparison, width, height), layout="constrained")
    axes = figure.subplots()
    assert picture.plot(comparison, axes) is axes
    return axes


@pytest.fixture(scope="module")
def usual() -> Any:
    return draw(FakeComparison())


def labels(axes: Any) -> list[Annotation]:
    return [text for text in axes.texts if text.arrow_patch is not None]


def boxes(axes: Any) -> list[Any]:
    """Of each label without its leader."""
    axes.figure.draw_without_rendering()
    return [mpl.text.Text.get_window_extent(label) for label in labels(axes)]


def markers(axes: Any, marker: str = "o") -> list[Any]:
    return [line for line in axes.lines if line.get_marker() == marker]


@pytest.mark.parametrize(("width", "height"), [(5.6, 6.0), (4.4, 6.4), (7.4, 6.2)])
def test_no_label_covers_another_or_a_marker(width: float, height: float) -> None:
    axes = draw(FakeComparison(), width, height)
    found = boxes(axes)
    assert len(found) == len(POINTS) + 4  # and four values of tau
    for one, other in itertools.combinations(found, 2):
        assert not one.overlaps(other)
    at = axes.transData.transform([line.get_xydata()[0] for line in markers(axes)])
    for box in found:
        assert not any(box.contains(*point) for point in at)
        assert axes.bbox.contains(box.x0, box.y0)
        assert axes.bbox.contains(box.x1, box.y1)


def test_a_label_points_to_its_row(usual: Any) -> None:
    at = {" ".join(label.get_text().split()): label.xy for label in labels(usual)}
    assert {name: point for name, point in at.items() if name in POINTS} == POINTS


def test_rows_are_drawn_with_intervals_and_hollow_where_they_are_post_hoc(usual: Any) -> None:
    hollow = {}
    for line in markers(usual):
        name = next(n for n, p in POINTS.items() if p == tuple(line.get_xydata()[0]))
        hollow[name] = line.get_markerfacecolor() != line.get_color()
    assert hollow == {name: name.endswith(" + post-hoc") for name in POINTS}
    lines = [line.get_xydata().tolist() for line in usual.lines]
    x, y = POINTS["OHEM"]
    assert [[x - 1.4, y], [x + 1.4, y]] in lines
    assert [[x, y - 1.4], [x, y + 1.4]] in lines
    assert [[x, y], list(POINTS["OHEM + post-hoc"])] in lines  # the link


def test_the_frontier_and_its_taus(usual: Any) -> None:
    curve = FakeComparison().frontier[["balanced_accuracy", "accuracy"]].to_numpy()
    assert any(np.array_equal(line.get_xydata(), curve) for line in usual.lines)
    (marks,) = markers(usual, "D")
    np.testing.assert_allclose(marks.get_xydata(), curve[[0, 10, 20, 30]])
    texts = {text.get_text() for text in usual.texts}
    assert {"τ = 0", "τ = 0.5", "τ = 1", "τ = 1.5"} <= texts


def test_it_says_how_to_read_it(usual: Any) -> None:
    text = " ".join(text.get_text() for text in usual.texts).replace("\n", " ")
    assert "A weighting is worth its training only above the curve" in text
    assert "“no weighting” with post-hoc adjustment" in text
    assert "in the shaded area it is better in both" in text
    assert "95\u00a0% intervals" in text


@pytest.mark.parametrize("dpi", [72, 100, 110, 144, 220])
def test_the_title_is_as_wide_as_the_axes(dpi: float) -> None:
    axes = draw(FakeComparison(), 8.0, 7.0)
    titles = [text for text in axes.texts if re.search("worth|intervals", text.get_text())]
    assert len(titles) == 2
    axes.figure.savefig(io.BytesIO(), dpi=dpi)  # letters are rounded to pixels, and so wider
    axes.figure.set_dpi(dpi)
    for title in titles:
        box = mpl.text.Text.get_window_extent(title)
        assert box.x1 <= axes.bbox.x1
        assert "\n" not in title.get_text() or box.width > 0.8 * axes.bbox.width


def test_what_lies_below_the_curve_is_shaded(usual: Any) -> None:
    (shade,) = usual.collections
    (path,) = shade.get_paths()
    curve = FakeComparison().frontier[["balanced_accuracy", "accuracy"]].to_numpy()
    inside = path.contains_points(curve[5:] - 0.3)  # a bit worse in both
    assert inside.all()
    assert not path.contains_points(curve + 0.3).any()


def test_many_rows_have_numbers_and_a_list_of_names() -> None:
    points = {f"row {i}": (60.0 + i % 6, 70.0 + i // 6) for i in range(30)}
    axes = draw(FakeComparison(points))
    assert [label.get_text() for label in labels(axes)][:30] == [str(i) for i in range(1, 31)]
    for one, other in itertools.combinations(boxes(axes), 2):
        assert not one.overlaps(other)
    legends = axes.findobj(mpl.legend.Legend)
    words = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert "30  row 29" in words
    axes.figure.draw_without_rendering()
    for legend in legends:  # the layout has made room for it
        box = legend.get_window_extent()
        assert axes.figure.bbox.x0 <= box.x0
        assert box.x1 <= axes.figure.bbox.x1
        assert axes.figure.bbox.y0 <= box.y0


def test_a_row_without_a_value_is_told() -> None:
    axes = draw(FakeComparison(POINTS | {"OHEM": (NAN, 80.0)}))
    assert len(markers(axes)) == len(POINTS) - 1
    assert "Without a value: OHEM." in " ".join(t.get_text() for t in axes.texts)


def test_nothing_to_draw() -> None:
    comparison = FakeComparison({"no weighting": (NAN, NAN)})
    assert markers(draw(comparison)) == []


def test_without_a_frontier_nothing_speaks_of_a_curve() -> None:
    comparison = FakeComparison()
    comparison.frontier = pd.DataFrame([], columns=["tau", "accuracy", "balanced_accuracy"])
    axes = draw(comparison)
    assert len(markers(axes)) == len(POINTS)
    assert len(labels(axes)) == len(POINTS)
    words = [text.get_text() for text in axes.findobj(mpl.text.Text)]
    assert not any("curve" in text or "τ" in text for text in words)
    assert "Accuracy over balanced accuracy" in words


def test_names_are_not_read_as_mathematics_and_long_ones_are_shortened() -> None:
    first = "$x^{ and a long name that goes on and on and ends in alpha"
    axes = draw(FakeComparison({first: (60.0, 80.0), first[:-5] + "gamma": (61.0, 79.0)}))
    axes.figure.draw_without_rendering()  # would raise
    names = [label.get_text() for label in labels(axes)][:2]
    assert [name[-5:] for name in names] == ["alpha", "gamma"]
    assert all(len(line) <= 20 for name in names for line in name.splitlines())


def test_it_is_the_same_twice(usual: Any) -> None:
    again = labels(draw(FakeComparison()))
    assert [label.xyann for label in again] == [label.xyann for label in labels(usual)]


def test_colours_of_text_come_from_the_style() -> None:
    with mpl.rc_context({"text.color": "#fefefe", "figure.facecolor": "#101010"}):
        axes = draw(FakeComparison())
    assert {label.get_color() for label in labels(axes)} == {"#fefefe"}


def test_place_moves_labels_of_one_point_apart() -> None:
    size, count = (30.0, 10.0), 9
    anchor = np.full((count, 2), 150.0)
    centre = place(
        np.tile(size, (count, 1)), anchor, np.array([0.0, 0, 300, 300]), anchor, np.zeros((0, 2))
    )
    apart = np.abs(centre[:, None] - centre[None]) >= size
    assert (apart.any(-1) | np.eye(count, dtype=bool)).all()


def test_place_of_no_label() -> None:
    none = np.zeros((0, 2))
    assert place(none, none, np.array([0.0, 0, 1, 1]), none, none).shape == (0, 2)


def test_many_lines_take_little_memory() -> None:
    """80 rows have 8,000 points along their intervals; all pairs with positions took 2 GB."""
    generator = np.random.default_rng(0)
    anchors = generator.uniform(50, 350, (20, 2))
    lines = generator.uniform(0, 400, (20_000, 2))
    tracemalloc.start()
    try:
        place(np.full((20, 2), 12.0), anchors, np.array([0.0, 0, 400, 400]), anchors, lines)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6
