"""The page: which samples it shows, and that it is whole."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sampleweights as sw
from sampleweights.history import write_page

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
    return path.read_text(encoding="utf-8")


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
                    assert value.startswith(
                        ("data:image/png;base64,", "data:text/csv;charset=utf-8;base64,", "#class")
                    )

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
    with pytest.raises(ValueError, match=r"target must have shape \(8,\), got \(2,\)"):
        write(history, tmp_path / "page.html", target=[0, 1])
    with pytest.raises(ValueError, match="names must have 8 values, got 1"):
        write(history, tmp_path / "page.html", names=["a"])
    with pytest.raises(ValueError, match="class_names must name 2 classes, got 1"):
        write(history, tmp_path / "page.html", class_names=["a"])
    with pytest.raises(TypeError, match=r"target must hold class indices .* torch\.float32"):
        write(history, tmp_path / "page.html", target=torch.zeros(8))
    with pytest.raises(ValueError, match="per_class must be at least 1, got 0"):
        write(history, tmp_path / "page.html", per_class=0)
    with pytest.raises(ValueError, match="suspicious must be at least 0, got -1"):
        write(history, tmp_path / "page.html", suspicious=-1)


def suspicious(text: str) -> str:
    [section] = re.findall(r'<h2 id="suspicious">(.*?)</section>', text, re.DOTALL)
    return str(section)


def test_one_list_of_all_suspicious_samples(tmp_path: Path) -> None:
    size, num_classes = 60, 4
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(num_classes, (size,), generator=generator)
    history, logits = sw.LossHistory(size), 2 * torch.randn(size, 4, generator=generator)
    history.update(torch.arange(size), torch.rand(size), logits=logits, target=target)
    history.end_epoch()
    scores = history.scores()
    names = ["ant", "bee", "cat", "dog"]
    shown = torch.arange(size) % 10 != 0  # the others are ignored on the page
    margin = scores["adjusted_margin"].tolist()
    expected = [i for i in range(size) if margin[i] < 0 and shown[i]]
    expected.sort(key=margin.__getitem__)
    for most in (5, size):
        write_page(
            tmp_path / "page.html",
            history,
            target=target.masked_fill(~shown, -100),
            class_names=names,
            suspicious=most,
        )
        text = suspicious((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert [int(i) for i in re.findall(r"<b>(\d+)</b>", text)] == expected[:most]
        assert f"{len(expected)} of {int(shown.sum())} samples" in text
        assert ("Shown are the first 5." in text) == (most == 5)
        first = expected[0]
        others = [z for c, z in enumerate(logits[first].tolist()) if c != target[first]]
        rival = names[logits[first].tolist().index(max(others))]
        assert f"labelled {names[target[first]]}" in text
        assert f"right 0%<br>predicted {rival}" in text
        [saved] = re.findall(r'href="data:text/csv;charset=utf-8;base64,(.*?)"', text)
        rows = list(csv.DictReader(io.StringIO(base64.b64decode(saved).decode())))
        assert [int(row["sample"]) for row in rows] == expected  # all of them, whatever is shown
        assert (rows[0]["labelled"], rows[0]["predicted"]) == (names[target[first]], rival)
        assert all(float(row["adjusted_margin"]) < 0 for row in rows)
    write_page(tmp_path / "page.html", history, suspicious=0)
    assert "suspicious" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_without_suspicious_samples_says_so(tmp_path: Path) -> None:
    history = sw.LossHistory(2)
    history.update(
        torch.arange(2), torch.rand(2), logits=3 * torch.eye(2), target=torch.tensor([0, 1])
    )
    history.end_epoch()
    write_page(tmp_path / "page.html", history)
    text = suspicious((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "0 samples" in text
    assert "No label is suspicious" in text


def test_the_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    code = (
        "import sys, torch, sampleweights as sw; from sampleweights.history import write_page\n"
        "history = sw.LossHistory(1); history.update(torch.tensor([0]), torch.rand(1))\n"
        "history.end_epoch(); write_page(sys.argv[1], history, title='\\u00e9\\u4e2d')"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    file = tmp_path / "page.html"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, env=environment)
    assert "<h1>\u00e9\u4e2d</h1>" in file.read_text(encoding="utf-8")


def test_without_images_and_classes(history: sw.LossHistory, tmp_path: Path) -> None:
    write_page(tmp_path / "1.html", history)
    text = (tmp_path / "1.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "<nav" not in text
    assert "All samples" in text
    assert text.count("<circle") == 6
    write_page(tmp_path / "2.html", history, target=[0, 1, 0, 1, 0, 1, 2, 2])
    text = (tmp_path / "2.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(\S+) ", text) == re.findall(r'"#class\d">(\d)<', text) == ["0", "1"]
    write_page(tmp_path / "3.html", history, target=[-100, 1, 0, 1, 0, 1, 2, 2])
    text = (tmp_path / "3.html").read_text(encoding="utf-8")
    assert "<b>0</b>" not in text
    assert text.count("<circle") == 5


@pytest.mark.parametrize("num_classes", [2, 12])
def test_the_data_map_shows_who_is_on_the_page(num_classes: int, tmp_path: Path) -> None:
    history, target = sw.LossHistory(36), torch.arange(36) % num_classes
    weight = torch.ones(36)
    weight[target == 0] = torch.nan  # judged, but of no weight that could be shown
    history.update(
        torch.arange(36), torch.rand(36), weight, logits=torch.randn(36, 12), target=target
    )
    history.end_epoch()
    target[-3:] = -100
    write_page(tmp_path / "page.html", history, target=target)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = int(((target > 0) & weight.isfinite()).sum())
    assert text.count("<circle") == shown
    assert f"<p>{shown} samples" in text


def test_names_are_escaped_once(history: sw.LossHistory, tmp_path: Path) -> None:
    text = write(history, tmp_path / "page.html", target=[0, 1] * 4, class_names=["a & b", "<c>"])
    assert "a & b" not in text
    assert "<c>" not in text
    assert "amp;amp;" not in text
    assert len(re.findall("(?<!labelled )a &amp; b", text)) == 3  # link, legend and heading


@pytest.mark.parametrize("num_classes", [1, 3, 40])
def test_each_class_has_its_own_best(num_classes: int, tmp_path: Path) -> None:
    size = 300
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(num_classes, (size,), generator=generator)
    history, logits = sw.LossHistory(size), torch.randn(size, 50, generator=generator)
    weight = torch.rand(size, generator=generator)
    seen = torch.arange(0, size, 2)
    loss = torch.rand(len(seen), generator=generator)
    history.update(seen, loss, weight[seen], logits=logits[seen], target=target[seen])
    history.end_epoch()
    write_page(tmp_path / "page.html", history, target=target, per_class=4)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    sections = re.findall(r'<section id="class(\d+)">(.*?)</section>', text, re.DOTALL)
    assert [int(c) for c, _ in sections] == sorted(set(target[seen].tolist()))
    for c, section in sections:
        of_class = [i for i in seen.tolist() if target[i] == int(c)]
        expected = sorted(of_class, key=lambda i: -weight[i].item())[:4]
        expected += sorted(of_class, key=lambda i: weight[i].item())[:4]
        margin = history.scores()["adjusted_margin"]
        wrong = [i for i in of_class if margin[i] < 0]
        expected += sorted(wrong, key=lambda i: margin[i].item())[:4]
        assert [int(i) for i in re.findall(r"<b>(\d+)</b>", section)] == expected


def test_thousands_of_samples_and_many_classes_take_no_time(tmp_path: Path) -> None:
    size, num_classes = 20_000, 100
    history, target = sw.LossHistory(size, 5), torch.arange(size) % num_classes
    logits = torch.randn(size, num_classes)
    for _ in range(5):
        history.update(torch.arange(size), torch.rand(size), logits=logits, target=target)
        history.end_epoch()
    start = time.perf_counter()
    write_page(tmp_path / "page.html", history, target=target)
    assert time.perf_counter() - start < 5  # 0.3 s; a loop over samples and classes took 16 s


def decode(text: str) -> Any:
    image = pytest.importorskip("PIL.Image")
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert found is not None
    return image.open(io.BytesIO(base64.b64decode(found[1])))


RED = np.zeros((30, 20, 3), np.uint8)
RED[..., 0] = 255


@pytest.mark.parametrize(
    ("picture", "size", "pixel"),
    [
        (RED, (20, 30), (254, 0, 0)),
        (RED[:, ::-1], (20, 30), (254, 0, 0)),
        (RED[..., ::-1], (20, 30), (0, 0, 254)),
        (RED.transpose(2, 0, 1), (20, 30), (254, 0, 0)),
        (RED / 255, (20, 30), (254, 0, 0)),
        (torch.from_numpy(RED), (20, 30), (254, 0, 0)),
        (torch.from_numpy(RED).permute(2, 0, 1), (20, 30), (254, 0, 0)),
        (torch.from_numpy(RED).permute(2, 0, 1) / 255, (20, 30), (254, 0, 0)),
        ((torch.from_numpy(RED) / 255).bfloat16().requires_grad_(), (20, 30), (254, 0, 0)),
        (torch.full((1, 30, 20), 0.5), (20, 30), (128, 128, 128)),
        (torch.full((30, 20), 128, dtype=torch.uint8), (20, 30), (128, 128, 128)),
        (torch.ones(4, 30, 20), (20, 30), (255, 255, 255)),
        (torch.ones(3, 480, 3), (3, 240), (255, 255, 255)),  # a tensor: channels first
        (np.ones((3, 480, 3)), (240, 2), (255, 255, 255)),
    ],
)
def test_pictures_from_tensors_and_arrays(
    history: sw.LossHistory, tmp_path: Path, picture: Any, size: Any, pixel: Any
) -> None:
    pytest.importorskip("PIL")
    decoded = decode(write(history, tmp_path / "page.html", image=lambda i: picture))
    assert decoded.size == pytest.approx(size, abs=1)
    assert decoded.getpixel((0, 0)) == pytest.approx(pixel, abs=3)


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (torch.zeros(5), ValueError, r"image\(4\) must have shape \(H, W\), .* got \(5,\)"),
        (torch.zeros(2, 8, 8), ValueError, r"1, 3 or 4 channels, got \(2, 8, 8\)"),
        (torch.randn(3, 8, 8) * 3, ValueError, "must be from 0 to 1, got .* undo its normal"),
        (np.full((8, 8), np.nan), ValueError, "must be from 0 to 1, got nan to nan"),
        (np.zeros((8, 8), int), TypeError, "must be uint8 or floating, got dtype int64"),
        (None, TypeError, r"image\(4\) must be a path, .* an array, got NoneType"),
    ],
)
def test_wrong_pictures(
    history: sw.LossHistory, tmp_path: Path, picture: Any, error: type[Exception], message: str
) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(error, match=message):
        write(history, tmp_path / "page.html", image=lambda i: picture)


def test_arrays_without_pillow(
    history: sw.LossHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"image\(4\) is a Tensor, which needs pillow"):
        write(history, tmp_path / "page.html", image=lambda i: torch.zeros(8, 8))
    assert "data:image/png" in write(history, tmp_path / "page.html")
