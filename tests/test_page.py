"""The page: which samples it shows, and that it is whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import sampleweights as sw
from sampleweights.page import write_page

PNG = b"\x89PNG\r\n not a picture"
NAMES = ["easy", "hard", "wrong", "unseen"]


@pytest.fixture
def history() -> sw.LossHistory:
    """Three epochs of samples that are easy, hard, labelled wrongly, and never seen."""
    history = sw.LossHistory(8, num_epochs=3)
    logits = torch.tensor([[5.0, 0.0], [0.3, 0.0], [-4.0, 0.0]]).repeat_interleave(2, 0)
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.67))
    target = torch.zeros(6, dtype=torch.long)
    for _ in range(3):
        with history.record(criterion, torch.arange(6)):
            criterion(logits, target)
        history.end_epoch()
    return history


def write(history: sw.LossHistory, path: Path, **options: object) -> str:
    arguments: dict[str, object] = {
        "image": lambda i: PNG,
        "target": [0] * 6 + [1] * 2,
        "class_names": ["a & b", "c"],
        "names": [f"{name}-{i}" for name in NAMES for i in range(2)],
    }
    write_page(path, history, **{**arguments, **options})  # type: ignore[arg-type]
    return path.read_text()


def strip(text: str, name: str) -> list[str]:
    section = text.split(f"<h3>{name} ")[1].split("<h3>")[0].split("<h2")[0]
    return re.findall(r"<b>([a-z]+)-\d</b>", section)


def test_samples_are_where_they_belong(history: sw.LossHistory, tmp_path: Path) -> None:
    text = write(history, tmp_path / "page.html", per_class=2)
    assert strip(text, "Most important") == ["wrong", "wrong"]
    assert strip(text, "Least needed") == ["easy", "easy"]
    assert strip(text, "Probably mislabelled") == ["wrong", "wrong"]
    assert "unseen" not in text
    assert text.count("<circle") == 6
    assert "a &amp; b" in text


def test_the_page_is_whole_and_needs_nothing_else(history: sw.LossHistory, tmp_path: Path) -> None:
    text = write(history, tmp_path / "page.html")
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "img", "br"):
                opened.append(tag)
            for name, value in attrs:
                if name in ("src", "href"):
                    assert value is not None
                    assert value.startswith(("data:image/png;base64,", "#class"))

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Parser().feed(text)
    assert opened == []


def test_pictures_from_files_and_pil(history: sw.LossHistory, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    file = tmp_path / "picture.png"
    image.new("RGB", (8, 6)).save(file)
    assert "data:image/png" in write(history, tmp_path / "1.html", image=lambda i: file)
    large = image.new("L", (800, 600))
    assert "data:image/jpeg" in write(history, tmp_path / "2.html", image=lambda i: large)
    assert large.size == (800, 600)


def test_without_trajectories(tmp_path: Path) -> None:
    history = sw.LossHistory(8)
    history.update(torch.arange(6), torch.rand(6))
    history.end_epoch()
    text = write(history, tmp_path / "page.html")
    assert "polyline" not in text
    assert "<circle" not in text


def test_bad_input(history: sw.LossHistory, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="target must have 8 values, got 2"):
        write(history, tmp_path / "page.html", target=[0, 1])
    with pytest.raises(ValueError, match="names must have 8 values, got 1"):
        write(history, tmp_path / "page.html", names=["a"])
    with pytest.raises(ValueError, match="class_names must name 2 classes, got 1"):
        write(history, tmp_path / "page.html", class_names=["a"])
