"""What the pages say of the code and of the paper is so."""

from __future__ import annotations

import csv
import io
import re
import statistics
from pathlib import Path

import torch
from contracts import shown


def test_the_weighter_of_the_page() -> None:
    names = shown()
    weighter = names["Robust"]()
    for shape, dtype in (((16,), torch.float32), ((2, 3, 4), torch.float64)):
        loss = torch.rand(shape, dtype=dtype)
        loss.view(-1)[0] = 100
        weight = weighter(loss)
        assert weight.shape == loss.shape
        assert weight.dtype == dtype
        assert (weight >= 0).all()
        assert weight.view(-1)[0] < 0.1
        assert weight.max() == 1


def test_its_state_is_saved_with_the_criterion() -> None:
    criterion, logits = shown()["criterion"], torch.randn(12, 3, requires_grad=True)
    target = torch.randint(3, (12,))
    criterion(logits, target).backward()
    assert logits.grad.isfinite().all()
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    other = shown()["criterion"]
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(logits, target).equal(criterion(logits, target))


def test_what_the_paper_found_is_in_the_guide() -> None:
    root = Path(__file__).parents[1]
    with (root / "examples" / "isic2018" / "paper_tables.csv").open() as file:
        rows = {
            (row["model"], row["optimizer"], row["loss"], row["weighting"]): row
            for row in csv.DictReader(file)
        }
    guide = (root / "docs" / "choosing.md").read_text()
    shown = re.findall(r"^\|.*\[`(\w+)[^|]*\|.*\| ([+-][\d.]+), ([+-][\d.]+) \|$", guide, re.M)
    where = {  # what is compared with what: the position in a row's name, and its two values
        "EffectiveNumber": (3, "effective_number", "none"),
        "ClassBalanced": (3, "class_balanced", "none"),
        "OHEM": (3, "ohem", "none"),
        "SelfPaced": (3, "self_paced", "none"),
        "FocalLoss": (2, "focal", "ce"),
    }
    assert {name for name, *_ in shown} == set(where)
    for name, *said in shown:
        position, value, other = where[name]
        pairs = [
            (row, rows[(*key[:position], other, *key[position + 1 :])])
            for key, row in rows.items()
            if key[position] == value
        ]
        for column, number in zip(("bacc", "acc"), said, strict=True):
            mean = statistics.fmean(float(a[column]) - float(b[column]) for a, b in pairs)
            assert abs(mean - float(number)) < 0.051
