"""The picture: every row is in it, and every label can be read."""

from __future__ import annotations

import io
import itertools
import re
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import matplotlib as mpl
from fake_comparison import NAN, POINTS, FakeComparison
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from sampleweights.compare.report import picture
from sampleweights.compare.report.labels import place
from sampleweights.compare.statistics import Estimate


def draw(comparison: Any, width: float = 5.6, height: float = 6.0, dpi: float = 100) -> Any:
    size = picture.size(comparison, width, height)
    figure = Figure(figsize=size, layout="constrained", dpi=dpi)
    axes = figure.subplots()
    assert picture.plot(comparison, axes) is axes
    return axes


@pytest.fixture(scope="module")
def usual() -> Any:
    return draw(FakeComparison())


def labels(axes: Any) -> list[Annotation]:
    return [text for text in axes.texts if text.arrow_patch is not None and text.get_text()]


def boxes(axes: Any) -> list[Any]:
    """Of each label without its leader."""
    axes.figure.draw_without_rendering()
    return [mpl.text.Text.get_window_extent(label) for label in labels(axes)]


def markers(axes: Any, marker: str = "o") -> list[Any]:
    return [line for line in axes.lines if line.get_marker() == marker]


def discs(axes: Any) -> list[tuple[Any, float]]:
    """Centre and radius in pixels of each marker, each mark of the curve, and the ring."""
    pixels = axes.figure.dpi / 72
    found = [
        (at, (line.get_markersize() + line.get_markeredgewidth()) / 2 * pixels)
        for line in markers(axes) + markers(axes, "D")
        for at in axes.transData.transform(line.get_xydata())
    ]
    for ring in axes.collections:
        radius = np.sqrt(ring.get_sizes()[0]) / 2 * pixels
        found += [(at, radius) for at in axes.transData.transform(ring.get_offsets())]
    return found


def nearest(box: Any, point: Any) -> Any:
    return np.clip(point, [box.x0, box.y0], [box.x1, box.y1])


def close_rows(seed: int) -> FakeComparison:
    """12 to 16 rows, all but the first within 2 points; in every other set some are outliers."""
    random = np.random.default_rng(seed)
    center = np.array([(68.0, 79.8), (63.2, 82.4), (65.0, 79.0)][seed % 3])
    points = {"no weighting": (63.2, 82.4)}
    for i in range(random.integers(11, 16)):
        points[f"row {i}"] = tuple(center + random.uniform(-1, 1, 2))
    for i in range(random.integers(1, 6) if seed % 2 else 0):
        points[f"row {i}"] = tuple(random.uniform(20, 72, 2))
    verdict = SimpleNamespace(text="Train.", row=list(points)[-1], row_at_no_loss=None)
    return FakeComparison(points, verdict=verdict)


def check_labels(axes: Any) -> None:
    """None touches a marker, a mark or another; a leader passes none, and is there if needed."""
    pixels = axes.figure.dpi / 72
    found, around = boxes(axes), discs(axes)
    for one, other in itertools.combinations(found, 2):
        assert not one.overlaps(other)
    for label, box in zip(labels(axes), found, strict=True):
        assert axes.bbox.contains(box.x0, box.y0)
        assert axes.bbox.contains(box.x1, box.y1)
        own = axes.transData.transform(label.xy)
        start, is_led = nearest(box, own), label.arrow_patch.get_visible()
        for at, radius in around:
            assert np.hypot(*(nearest(box, at) - at)) > radius
            on_own = np.hypot(*(at - own)) < 2 * radius  # such markers hide each other
            if is_led and not on_own:
                along = np.clip((at - start) @ (own - start) / ((own - start) ** 2).sum(), 0, 1)
                assert np.hypot(*(start + along * (own - start) - at)) > radius
        if not is_led:
            assert np.hypot(*(start - own)) < 13 * pixels  # 8 of the ring, or of an arrow


@pytest.mark.parametrize("dpi", [72, 100, 200])
@pytest.mark.parametrize(("width", "height"), [(7.4, 6.2), (4.4, 6.4)])
def test_no_label_touches_another_or_a_marker(width: float, height: float, dpi: float) -> None:
    axes = draw(close_rows(int(dpi) + int(width)), width, height, dpi)
    check_labels(axes)
    axes.figure.set_dpi(110)  # saved with more points than it was drawn for
    check_labels(axes)


@pytest.mark.slow
@pytest.mark.parametrize("dpi", [72, 100, 200])
@pytest.mark.parametrize(("width", "height"), [(5.6, 6.0), (4.4, 6.4)])
def test_no_label_touches_in_many_sets(width: float, height: float, dpi: float) -> None:
    for seed in range(5):
        check_labels(draw(close_rows(seed), width, height, dpi))


@pytest.mark.parametrize("width", [4.4, 5.6])
def test_few_rows_have_their_names(width: float) -> None:
    points = dict(itertools.islice(POINTS.items(), 6))
    axes = draw(FakeComparison(points), width)
    texts = {" ".join(label.get_text().split()) for label in labels(axes)}
    assert texts == {*points, "τ = 0", "τ = 0.5", "τ = 0.8, chosen", "τ = 1"}
    check_labels(axes)
    assert axes.findobj(mpl.legend.Legend) == []


def test_more_rows_have_numbers_and_a_list_of_names_in_their_order(usual: Any) -> None:
    check_labels(usual)
    at = {label.get_text(): label.xy for label in labels(usual)}
    for i, point in enumerate(POINTS.values(), 1):
        assert at[str(i)] == point
    [legend] = usual.findobj(mpl.legend.Legend)
    words = [text.get_text().split(maxsplit=1) for text in legend.get_texts()]
    assert words == [[str(i), name] for i, name in enumerate(POINTS, 1)]
    colors = {handle.get_color() for handle in legend.legend_handles[2:]}
    assert colors == {picture.TRAINED}
    assert {handle.get_color() for handle in legend.legend_handles[:2]} == {picture.BASELINE}


def test_what_is_recommended_stands_out(usual: Any) -> None:
    number = list(POINTS).index("no weighting + post-hoc")
    [ring] = usual.collections
    assert tuple(ring.get_offsets()[0]) == POINTS["no weighting + post-hoc"]
    [legend] = usual.findobj(mpl.legend.Legend)
    bold = [text.get_weight() == "bold" for text in legend.get_texts()]
    assert bold == [i == number for i in range(len(POINTS))]
    words = {label.get_text(): label.get_weight() for label in labels(usual)}
    assert [text for text, weight in words.items() if weight == "bold"] == [str(number + 1)]


@pytest.mark.parametrize(
    "verdict", [None, SimpleNamespace(text="Keep it.", row=None, row_at_no_loss=None)]
)
def test_nothing_stands_out_where_nothing_is_recommended(verdict: Any) -> None:
    axes = draw(FakeComparison(verdict=verdict))
    assert not axes.collections
    assert not any("ring" in text.get_text() for text in axes.texts)


def test_the_axes_follow_what_one_would_choose() -> None:
    points = POINTS | {"OHEM": (69.5, 40.0), "LogitAdjustment": (20.25, 81.0)}
    axes = draw(FakeComparison(points))
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert high - low < 20
    texts = [label.get_text() for label in labels(axes)]
    assert "7 OHEM\naccuracy 40.0" in texts
    assert "12 LogitAdjustment\nbalanced 20.2" in texts
    check_labels(axes)
    assert len(markers(axes)) == len(points) - 2
    arrows = [text for text in axes.texts if text.arrow_patch is not None and not text.get_text()]
    ends = [np.round(axes.transAxes.inverted().transform(axes.transData.transform(a.xy)), 6)
            for a in arrows]  # fmt: skip
    assert [end[axis] for end, axis in zip(ends, (1, 0), strict=True)] == [0, 0]


def test_many_outliers_are_numbers() -> None:
    points = POINTS | {name: (66.0 + i, 30.0) for i, name in enumerate(list(POINTS)[6:12])}
    texts = [label.get_text() for label in labels(draw(FakeComparison(points)))]
    assert [text for text in texts if "\n" in text] == [f"{i}\naccuracy 30.0" for i in range(7, 13)]


def test_what_the_verdict_names_is_on_the_axes() -> None:
    points = POINTS | {"OHEM": (69.5, 40.0)}
    verdict = SimpleNamespace(text="Train.", row="OHEM", row_at_no_loss=None)
    axes = draw(FakeComparison(points, verdict=verdict))
    assert len(markers(axes)) == len(points)
    assert axes.get_ylim()[0] < 40


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


def test_an_interval_that_is_not_honest_is_not_drawn() -> None:
    class WithoutIntervals(FakeComparison):
        def estimate(self, row: str, metric: str) -> Estimate:
            return Estimate(super().estimate(row, metric).value, NAN, NAN)

    comparison = WithoutIntervals()
    comparison.frontier[["balanced_accuracy_low", "balanced_accuracy_high"]] = NAN
    axes = draw(comparison)
    check_labels(axes)
    [line] = [line for line in axes.lines if np.isfinite(line.get_xydata()).all()
              and line.get_marker() == "None"]  # fmt: skip
    np.testing.assert_array_equal(line.get_xdata(), comparison.frontier["balanced_accuracy"])
    assert not axes.patches


def test_the_curve_its_band_and_its_taus(usual: Any) -> None:
    table = FakeComparison().frontier
    curve = table[["balanced_accuracy", "accuracy"]].to_numpy()
    assert any(np.array_equal(line.get_xydata(), curve) for line in usual.lines)
    (marks,) = markers(usual, "D")
    np.testing.assert_allclose(marks.get_xydata(), curve[[0, 10, 16, 20]])
    at = {label.get_text(): label.xy for label in labels(usual)}
    assert at["τ = 0.8, chosen"] == pytest.approx(tuple(curve[16]))
    (band,) = usual.patches
    path = band.get_path()
    for i, side in (("low", 1), ("high", -1)):
        end = table[[f"balanced_accuracy_{i}", "accuracy"]].to_numpy()
        assert path.contains_points((end + [0.1 * side, 0])[1:-1]).all()  # noqa: RUF005
        assert not path.contains_points(end - [0.1 * side, 0]).any()


def test_the_band_of_a_curve_that_goes_up_and_down_has_no_holes() -> None:
    comparison = FakeComparison()
    comparison.frontier["accuracy"] = 80 + np.where(np.arange(21) % 2, 0.5, 0.0)
    (band,) = draw(comparison).patches
    strips = band.get_path().to_polygons()
    areas = [((p[:-1, 0] * p[1:, 1]).sum() - (p[1:, 0] * p[:-1, 1]).sum()) / 2 for p in strips]
    assert len(areas) == 20
    assert min(areas) > 0  # all in one direction: where two overlap, both are filled


@pytest.mark.parametrize(("tau", "texts"), [(0.5, 3), (1.25, 3), (0.35, 4)])
def test_the_tau_that_was_chosen_is_marked_once(tau: float, texts: int) -> None:
    comparison = FakeComparison()
    comparison.tau = lambda row: tau  # type: ignore[method-assign]
    found = [label.get_text() for label in labels(draw(comparison)) if "τ" in label.get_text()]
    assert len(found) == texts
    assert (f"τ = {tau:g}, chosen" in found) == (tau <= 1)  # the curve ends there


def test_a_tau_that_is_not_recommended_is_not_called_chosen() -> None:
    comparison = FakeComparison()
    comparison.verdict.row = None
    found = [label.get_text() for label in labels(draw(comparison))]
    assert "τ = 0.8" in found
    assert not any("chosen" in text for text in found)


def test_it_says_what_to_do_and_how_to_read_it(usual: Any) -> None:
    text = " ".join(text.get_text() for text in usual.texts).replace("\n", " ")
    assert "Adjust the plain model post hoc with τ = 0.8." in text
    assert "It costs 3 points" not in text  # the first sentence alone
    assert "The curve is “no weighting” with τ\u00a0* log(class frequency) subtracted" in text
    assert "a weighting is worth its training only above it" in text
    assert "95\u00a0% intervals" in text


def test_a_long_verdict_is_left_to_the_page() -> None:
    verdict = SimpleNamespace(text="Word " * 40 + "end.", row=None, row_at_no_loss=None)
    text = " ".join(text.get_text() for text in draw(FakeComparison(verdict=verdict)).texts)
    assert "Accuracy over balanced accuracy" in text
    assert "Word" not in text


@pytest.mark.parametrize("dpi", [72, 100, 110, 144, 220])
def test_the_title_is_as_wide_as_the_axes(dpi: float) -> None:
    axes = draw(FakeComparison(), 8.0, 7.0)
    titles = [text for text in axes.texts if re.search("Adjust|intervals", text.get_text())]
    assert len(titles) == 2
    axes.figure.savefig(io.BytesIO(), dpi=dpi)  # letters are rounded to pixels, and so wider
    axes.figure.set_dpi(dpi)
    for title in titles:
        box = mpl.text.Text.get_window_extent(title)
        assert box.x1 <= axes.bbox.x1
        assert "\n" not in title.get_text() or box.width > 0.8 * axes.bbox.width


def test_the_list_of_many_names_has_room() -> None:
    points = {f"row {i}": (60.0 + i % 6, 70.0 + i // 6) for i in range(30)}
    axes = draw(FakeComparison(points))
    check_labels(axes)
    [legend] = axes.findobj(mpl.legend.Legend)
    assert len(legend.get_texts()) == 30
    box = legend.get_window_extent()  # the layout has made room for it
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
    comparison = FakeComparison(verdict=None)
    comparison.frontier = None
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
    dots = np.column_stack([anchor, np.full(count, 4.0)])
    area = np.array([0.0, 0, 300, 300])
    centre = place(np.tile(size, (count, 1)), anchor, area, dots, np.zeros((0, 2)))
    apart = np.abs(centre[:, None] - centre[None]) >= size
    assert (apart.any(-1) | np.eye(count, dtype=bool)).all()


def test_place_of_no_label() -> None:
    none = np.zeros((0, 2))
    assert place(none, none, np.array([0.0, 0, 1, 1]), np.zeros((0, 3)), none).shape == (0, 2)


def test_many_lines_take_little_memory() -> None:
    """80 rows have 8,000 points along their intervals; all pairs with positions took 2 GB."""
    generator = np.random.default_rng(0)
    anchors = generator.uniform(50, 350, (20, 2))
    lines = generator.uniform(0, 400, (8_000, 2))
    tracemalloc.start()
    try:
        dots = np.column_stack([anchors, np.full(20, 4.0)])
        place(np.full((20, 2), 12.0), anchors, np.array([0.0, 0, 400, 400]), dots, lines)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80e6
