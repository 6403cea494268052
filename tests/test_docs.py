"""What the pages say of the code and of the paper is so."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import shown
from torch import nn
from torch.utils.data import DataLoader, Dataset

import sampleweights as sw

ROOT = Path(__file__).parents[1]
HAVE_OTHER_TESTS = {"docs/migrating.md"}  # test_migrating.py


def blocks(page: str) -> list[tuple[int, str]]:
    """The Python blocks of a page: the line before each, and its code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = text.partition("\n## Other packages\n")[0]  # integrations/test_recipes.py
    return [
        (text.count("\n", 0, match.start(1)), match[1])
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


PAGES = [
    page
    for page in [
        "README.md",
        *(
            f"docs/{p.relative_to(ROOT / 'docs').as_posix()}"
            for p in sorted((ROOT / "docs").rglob("*.md"))
        ),
    ]
    if page not in HAVE_OTHER_TESTS and blocks(page)
]


class Images(Dataset[Any]):
    """Twelve images of three classes."""

    images = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0] * 7 + [1] * 4 + [2])

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        return self.images[i], self.target[i]


def common() -> dict[str, Any]:
    """What a reader of any page has: a data set, a model and a length of training."""
    torch.manual_seed(0)
    dataset = Images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return {
        "torch": torch,
        "nn": nn,
        "sw": sw,
        "num_epochs": 3,
        "dataset": dataset,
        "loader": DataLoader(dataset, 6),
        "train_targets": dataset.target,
        "class_counts": dataset.target.bincount(),
        "counts": dataset.target.bincount(),
        "epoch": 0,
        "class_names": ["cat", "dog", "oak"],
        "tau": 0.5,
        "device": "cpu",
        "images": dataset.images,
        "target": dataset.target,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "per_token_loss": torch.rand(2, 5),
    }


def of_class_balanced() -> dict[str, Any]:
    pandas = pytest.importorskip("pandas")
    target = Images.target.tolist()
    return {
        "train_table": pandas.DataFrame({"label": target}),
        "train_masks": [torch.zeros(2, 3, dtype=torch.long), torch.tensor([[1, 2, 255]])],
        "train_loader": DataLoader(Images(), 6),
    }


def of_hierarchical() -> dict[str, Any]:
    return {"logits": torch.randn(6, 3, 7), "leaf": torch.arange(6) % 4}


def of_samples() -> dict[str, Any]:
    pytest.importorskip("pandas")
    names = [f"{i}.png" for i in range(12)]
    for name in names:
        Path(name).write_bytes(b"a picture")
    return {
        "criterion": sw.CrossEntropyLoss(weighter=sw.OHEM(3)),
        "names": names,
        "paths": names,
        "targets": Images.target,
        "classes": ["cat", "dog", "oak"],
    }


def of_integrations() -> dict[str, Any]:
    for package in ("lightning", "torchmetrics", "skorch"):
        pytest.importorskip(package)
    accelerate = pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    warnings.simplefilter("ignore")  # these packages' own; until the end of the test
    return {
        "criterion": sw.CrossEntropyLoss(weighter=sw.OHEM(3)),
        "arguments": transformers.TrainingArguments("run", use_cpu=True, report_to="none"),
        "labels": torch.tensor([[0, 1, 2, -100, -100], [2, 1, 0, 1, 2]]),
        "num_items_in_batch": torch.tensor(8),
        "accelerator": accelerate.Accelerator(cpu=True),
        "history": sw.LossHistory(12, 3),
        "module": nn.Linear,
    }


def of_token_weights() -> dict[str, Any]:
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    warnings.simplefilter("ignore")
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    tokens = torch.randint(1, 9, (4, 6), generator=torch.Generator().manual_seed(0))
    names = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 1}
    return {
        "model": transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)),
        "arguments": transformers.TrainingArguments("run", save_strategy="no", **names),
        "dataset": [{"input_ids": row, "labels": row} for row in tokens.tolist()],
        "tokens": tokens,
        "weights": torch.rand(4, 6),
        "boilerplate": {3},
    }


def of_comparing() -> dict[str, Any]:
    for package in ("sklearn", "pandas", "matplotlib"):
        pytest.importorskip(package)
    target = torch.arange(60) % 3
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + target[:, None]
    return {
        "features": features,
        "target": target,
        "patients": torch.arange(60) // 2,
        "table": {"fold": torch.arange(60) % 4},
        "hospital": np.repeat(["A", "B", "C"], 20),
        "is_malignant": target == 0,
        "tags": [["sea"] * (i % 2) + ["sun"] * (i % 3 == 0) for i in range(60)],
        "logits": torch.randn(4, 2),
    }


def of_decisions() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "held_out_target": torch.arange(60) % 3,
        "held_out_logits": torch.randn(60, 3, generator=generator),
        "logits": torch.randn(20, 3, generator=generator),
    }


SET_UPS: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/index.md": lambda: {
        "labels": torch.eye(3).repeat(4, 1),
        "level_logits": torch.randn(12, 2, 5),
        "logit": torch.randn(12),
        "is_oak": torch.arange(12) % 4 == 0,
    },
    "docs/decisions.md": of_decisions,
    "docs/methods/calibration.md": of_decisions,
    "docs/methods/estimate-prior.md": of_decisions,
    "docs/methods/prediction-sets.md": of_decisions,
    "docs/methods/class-balanced.md": of_class_balanced,
    "docs/methods/binary-cross-entropy.md": lambda: {"label": torch.eye(4)},
    "docs/methods/binary-focal.md": lambda: {"label": torch.eye(4)},
    "README.md": lambda: {
        "negatives": 9,
        "positives": 3,
        "np": np,
        "features": np.zeros((12, 2)),
        "target": Images.target,
    },
    "docs/comparing.md": of_comparing,
    "docs/integrations.md": of_integrations,
    "docs/token-weights.md": of_token_weights,
    "docs/methods/hierarchical.md": of_hierarchical,
    "docs/methods/self-paced.md": lambda: {"share": 0.2},
    "docs/samples.md": of_samples,
    "docs/two-classes.md": lambda: {"logits": torch.randn(6), "cost_fp": 1.0, "cost_fn": 100.0},
    "docs/methods/ohem.md": lambda: {"reference_model": common()["model"]},
}
"""What single pages have besides, and the packages without which they are skipped."""


def execute(page: str) -> dict[str, Any]:
    """Run the blocks of a page one after the other and return the names they leave."""
    names = {**common(), **SET_UPS.get(page, dict)()}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, ROOT / page, "exec"), names)  # errors name the line
    return names


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a page writes
    if SET_UPS.get(page) is of_comparing:
        comparing = pytest.importorskip("sampleweights.compare")
        short = functools.partial(comparing.compare, folds=2, num_epochs=1, workers=1)
        monkeypatch.setattr(comparing, "compare", short)
    execute(page)


def test_the_trainer_of_token_weights_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = execute("docs/token-weights.md")
    trainer, tokens = names["trainer"], names["tokens"]
    trainer.train_dataset = [names["weigh"](row) for row in names["dataset"]]
    with torch.no_grad():
        logits = names["model"](tokens).logits[:, :-1].mT
    loss = nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none")
    expected = (loss.neg().exp() * torch.where(tokens[:, 1:] == 3, 0.1, 1.0) * loss).mean()
    assert trainer.train().training_loss == pytest.approx(expected.item(), rel=1e-5)


def test_pos_weight_is_translated_as_the_page_says() -> None:
    names = execute("docs/methods/binary-focal.md")
    p, label = names["pos_weight"], names["label"]
    logits = torch.randn(label.shape)
    ours = sw.BinaryFocalLoss(0.0, alpha=float(p / (1 + p)))(logits, label) * (1 + p)
    torch.testing.assert_close(ours, nn.BCEWithLogitsLoss(pos_weight=p)(logits, label))
    no, yes = sw.ClassBalanced([names["negatives"], names["positives"]]).class_weight
    torch.testing.assert_close(yes / no, p.double())


def test_a_criterion_for_each_label_is_what_its_page_says() -> None:
    criterion, label = execute("docs/methods/binary-cross-entropy.md")["criterion"], torch.eye(4)
    logits = torch.randn(4, 4)
    theirs = nn.BCEWithLogitsLoss(pos_weight=torch.full((4,), 3.0))(logits, label)
    torch.testing.assert_close(criterion(logits, label), theirs * 4 / 6)


def test_the_weighter_of_the_page() -> None:
    names = shown("docs/extending.md", "Robust")
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


def test_the_readme_can_be_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_its_state_is_saved_with_the_criterion() -> None:
    criterion, logits = (
        shown("docs/extending.md", "Robust")["criterion"],
        torch.randn(12, 3, requires_grad=True),
    )
    target = torch.randint(3, (12,))
    criterion(logits, target).backward()
    assert logits.grad.isfinite().all()
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    other = shown("docs/extending.md", "Robust")["criterion"]
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(logits, target).equal(criterion(logits, target))


def of_the_paper() -> dict[tuple[str, str, str], tuple[float, float]]:
    """Balanced accuracy and accuracy by (table, loss, weighting) of the paper's Tables 2 to 5."""
    names = {"none": "-", "class_balanced": "ClassBalanced", "effective_number": "EffectiveNumber"}
    names |= {"self_paced": "SelfPaced", "ohem": "OHEM", "ce": "CE", "focal": "Focal"}
    with (ROOT / "examples" / "isic2018" / "paper_tables.csv").open() as file:
        return {
            (f"{row['model']} {row['optimizer']}", names[row["loss"]], names[row["weighting"]]): (
                float(row["bacc"]),
                float(row["acc"]),
            )
            for row in csv.DictReader(file)
        }


def of_the_reproduction() -> dict[tuple[str, str, str], tuple[float, float]]:
    """The same of our tables, and of the same rows alone."""
    tables = re.split(r"^### Table ", (ROOT / "docs" / "reproduction.md").read_text(), flags=re.M)
    weightings = {weighting for _, _, weighting in of_the_paper()}
    return {
        (table[0], loss, weighting): (float(bacc), float(acc))
        for table in tables[1:]
        for loss, weighting, acc, bacc in re.findall(
            r"^\| (CE|Focal) +\| (.+?) +\| ([\d.]+)[^|]*\| ([\d.]+)", table, re.M
        )
        if table[0] in "2345" and weighting in weightings
    }


def test_what_both_found_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "choosing.md").read_text()
    pages = r"^\| \[.*?\]\(methods/(.*?)\.md\) "
    said = re.findall(pages + r"\| ([+-][\d.]+) " * 4 + r"\|$", guide, re.M)
    where = {
        "effective-number": "EffectiveNumber",
        "class-balanced": "ClassBalanced",
        "ohem": "OHEM",
        "self-paced": "SelfPaced",
        "focal": "",  # compared with cross-entropy
    }
    assert [page for page, *_ in said] == list(where)
    for rows, first in ((of_the_reproduction(), 0), (of_the_paper(), 2)):
        assert len(rows) == 40
        for page, *numbers in said:
            pairs = [
                (row, rows[table, loss, "-"] if where[page] else rows[table, "CE", weighting])
                for (table, loss, weighting), row in rows.items()
                if (weighting == where[page] if where[page] else loss == "Focal")
            ]
            for column in (0, 1):
                mean = statistics.fmean(a[column] - b[column] for a, b in pairs)
                assert abs(mean - float(numbers[first + column])) < 0.051


def test_runs_that_were_trained_end_to_end_are_as_the_page_says() -> None:
    page = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    section = page.partition("## Trained end to end")[2].partition("\n## ")[0]
    trained: dict[tuple[str, str], list[dict[str, float]]] = {}
    for path in ROOT.glob("docs/results/small/*/result.json"):
        run = json.loads(path.read_text())
        name = re.sub("none|_", "", run["weighting"])
        trained.setdefault((run["model"], name), []).append(run["metrics"]["validation"])
    said = {
        (model.lower(), re.sub(r"\W", "", name).lower()): [float(n) for n in numbers.split(" | ")]
        for model, table in re.findall(r"^### (\w+) model$(.*?)(?=^###|\Z)", section, re.M | re.S)
        for name, numbers in re.findall(
            r"^\| (\S.*?) \| ([\d.]+(?: \| [\d.]+){3}) \|$", table, re.M
        )
    }
    assert trained
    for row, splits in trained.items():
        for number, metric in zip(
            said[row], ("acc", "bacc", "mean_f1", "calibration_error"), strict=True
        ):
            mean = statistics.fmean(metrics[metric] for metrics in splits)
            assert number == round(mean, 1)


def rows_of(text: str, first: str) -> dict[str, list[str]]:
    """The first table below ``first``: by the first cell of each row, the others."""
    table = re.search(r"^\|.*?(?=\n\n|\Z)", text[text.index(first) :], re.M | re.S)
    assert table is not None
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in table[0].split("\n")[2:]]
    return {row[0]: row[1:] for row in cells}


def test_what_stands_beside_each_other_is_that_of_the_tables_below() -> None:
    page = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    beside, tables = page.split("\n## Tables\n")
    headings = ("Claims with VGG16", "VGG16, end to end", "Claims with EfficientNet-Lite0")
    ours = [rows_of(tables, f"\n## {heading}\n") for heading in headings]
    end_to_end = rows_of(tables, "| | claim | difference (95 % interval) |")
    said = rows_of(beside, "| | claim |")
    assert [*said] == [*"12345678"]
    for number, (claim, paper, *cells) in said.items():
        of_claim = [rows.get(number) for rows in ours]
        assert of_claim[2] is not None
        assert of_claim[2][:2] == [claim, paper]
        expected = [f"{row[2]}: {row[3]}" if row else "-" for row in of_claim]
        assert cells == [*expected, end_to_end.get(number, [claim, "-"])[1]]

    setting = rows_of(beside, "| weighting | paper |")
    assert [*setting] == ["no weights", "ClassBalanced", "EffectiveNumber", "SelfPaced", "OHEM"]
    paper = of_the_paper()
    tables_2 = [
        dict(re.findall(rf"^\| CE +\| ({'|'.join(['-', *setting])}) +\| (.*)$", table, re.M))
        for heading in ("VGG16, ", "VGG16 end to end, ", "")
        for table in re.findall(rf"^### {heading}Table 2: .*?(?=^##)", tables, re.M | re.S)
    ]
    small = rows_of(tables, "### Flat model\n")
    for weighting, cells in setting.items():
        name = "-" if weighting == "no weights" else weighting
        found = [re.findall(r"([\d.]+)(?: \(.*?\))? +\|", rows[name])[:2] for rows in tables_2]
        bacc, acc = paper["flat adam", "CE", name]
        expected = [[f"{acc:.1f}", f"{bacc:.1f}"], *found, small[name][:2]]
        assert cells == [" / ".join(pair) for pair in expected]
