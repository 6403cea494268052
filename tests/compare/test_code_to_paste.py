"""The code to paste runs, and builds what the entry builds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("tqdm")

from fake_comparison import FakeComparison
from torch import nn

import sampleweights as sw
from sampleweights.compare import default_entries
from sampleweights.compare.report.recipes import action, code
from sampleweights.compare.statistics import POSTHOC, POSTHOC_FREE
from sampleweights.compare.training.entries import build, recipe_of
from sampleweights.compare.training.fingerprint import fingerprint

COUNTS = [40, 15, 5]
TARGET = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))


def comparison(entries: dict[str, Any], counts: list[int] = COUNTS, **more: Any) -> FakeComparison:
    rows = {row: (60.0, 80.0) for name in entries for row in (name, name + POSTHOC)}
    tensor = torch.tensor(counts)
    recipes = {name: recipe_of(name, entry, tensor, 30) for name, entry in entries.items()}
    return FakeComparison(rows, counts, recipes=recipes, **more)


def run(text: str, **given: Any) -> dict[str, Any]:
    space = {"train_target": TARGET, "logits": torch.zeros(2, 3), **given}
    exec(text, space)
    return space


@pytest.mark.parametrize("name", default_entries())
def test_of_each_default_entry(name: str) -> None:
    entries = default_entries()
    made = run(code(comparison(entries), name))
    criterion, make_sampler = build(name, entries[name], torch.tensor(COUNTS), 30)
    assert fingerprint(made["criterion"]) == fingerprint(criterion)
    assert ("sampler" in made) == (make_sampler is not None)
    if make_sampler is not None:
        assert list(made["sampler"]) == list(make_sampler(TARGET, seed=0))
    assert made.get("class_counts", COUNTS) == COUNTS
    assert made.get("num_epochs", 30) == 30
    text = code(comparison(entries), name)
    assert ("criterion.set_epoch" in text) == ("num_epochs" in made)
    assert ("sampler.set_epoch" in text) == ("sampler" in made)
    assert ".to(device)" not in text  # criteria follow the device of the batch


def test_what_comes_after_the_training() -> None:
    logits = torch.randn(4, 3)
    text = code(comparison(default_entries()), "FocalLoss" + POSTHOC)
    made = run(text, logits=logits)
    assert isinstance(made["criterion"], sw.FocalLoss)
    assert torch.equal(made["logits"], sw.LogitAdjustment(COUNTS, tau=0.8).posthoc(logits))


def test_decisions_by_their_utility() -> None:
    logits = torch.randn(9, 3)
    table = [[1.0, 0.0, 0.0, 0.3], [-1.0, 1.0, 0.0, 0.3], [-6.0, 0.0, 2.0, 0.3]]
    text = code(comparison(default_entries(), objective=table), "no weighting")
    expected = (softmax(logits.numpy()) @ np.array(table)).argmax(1)
    assert run(text, logits=logits)["decision"].tolist() == expected.tolist()
    large = np.arange(66.0).reshape(3, 22)
    text = code(comparison(default_entries(), objective=large), "no weighting")
    assert len(text) < 300
    assert run(text, table=large)["decision"].tolist() == [21, 21]


def softmax(logits: Any) -> Any:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_many_classes_are_counted_by_the_code() -> None:
    counts = list(range(1, 41))
    text = code(comparison(default_entries(), counts), "ClassBalanced")
    assert len(text) < 300
    target = torch.repeat_interleave(torch.arange(40), torch.tensor(counts))
    made = run(text, train_target=target)
    expected = sw.CrossEntropyLoss(weighter=sw.ClassBalanced(counts))
    assert fingerprint(made["criterion"]) == fingerprint(expected)
    # an entry of one's own takes a tensor: counts that are one already make no warning
    own: dict[str, Any] = {"mine": lambda n, e: nn.CrossEntropyLoss(1 / n)}
    made = run(code(comparison(own, counts), "mine"), train_target=target, entries=own)
    assert made["criterion"].weight == pytest.approx([1 / count for count in counts])


def test_entries_of_ones_own_are_called_by_their_name() -> None:
    def sampled(class_counts: Any, num_epochs: int) -> Any:
        return nn.CrossEntropyLoss(), sw.WeightedSampler.from_targets

    entries: dict[str, Any] = {
        "mine": lambda class_counts, num_epochs: nn.CrossEntropyLoss(1 / class_counts),
        "my sampler": sampled,
        # a default name with something else behind it
        "OHEM": lambda class_counts, num_epochs: sw.FocalLoss(gamma=num_epochs),
    }
    own = comparison(entries)
    made = run(code(own, "mine"), entries=entries)["criterion"]
    assert made.weight == pytest.approx([1 / count for count in COUNTS])
    assert run(code(own, "OHEM"), entries=entries)["criterion"].gamma == 30
    made = run(code(own, "my sampler"), entries=entries)
    assert made["make_sampler"] == sw.WeightedSampler.from_targets
    assert action(own, "mine") == 'train with "mine"'


def test_the_order_of_the_counts_is_told() -> None:
    names = ["benign", "of unknown\nkind", "malignant"]
    text = code(comparison(default_entries(), class_names=names), "ClassBalanced")
    told = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    assert "of benign, of unknown kind, malignant: the order of your logits" in told
    assert run(text)["class_counts"] == COUNTS
    numbered = code(comparison(default_entries(), class_names=list("012")), "ClassBalanced")
    assert "order" not in numbered


def test_an_entry_that_is_written_again_is_told_as_ours() -> None:
    counts = torch.tensor(COUNTS)
    plain = recipe_of("no weighting", lambda n, epochs: sw.CrossEntropyLoss(), counts, 30)
    assert plain.code == "criterion = sw.CrossEntropyLoss()"
    other = recipe_of("no weighting", lambda n, epochs: sw.FocalLoss(), counts, 30)
    assert "your own entry" in other.code


def test_what_to_do_in_words() -> None:
    made = comparison(default_entries())
    simple, free = "no weighting" + POSTHOC, "no weighting" + POSTHOC_FREE
    assert action(made, simple) == (
        "train without any weighting and, at test time, subtract 0.8 * log(class frequency) from "
        "each logit (post-hoc adjustment)"
    )
    assert action(made, free, after=simple) == "subtract only 0.8 * log(class frequency)"
    assert action(made, free, after="OHEM").startswith("train without any weighting and")
    for name in default_entries():
        assert action(made, name).split()[0] in ("train", "sample")
