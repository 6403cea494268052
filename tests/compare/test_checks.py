"""Each check speaks of its case, is silent without it, and can be ignored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")
pytest.importorskip("joblib")

from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from sampleweights import OHEM, CrossEntropyLoss, EffectiveNumber, LogitAdjustment
from sampleweights.compare import Comparison, compare, default_entries
from sampleweights.compare.checks import CHECKS, CODES, find
from sampleweights.compare.checks.labels import share_at_random
from sampleweights.compare.checks.samples import equal_features
from sampleweights.compare.training.protocol import class_counts

GENERATOR = np.random.default_rng(0)


def made(target, *, rows=("plain", "weighted"), folds=4, groups=None, right=0.9, **options):
    """A comparison whose rows are right in a share of the samples, and whose folds are in turn."""
    target = np.asarray(target)
    classes = int(target.max()) + 1
    names = [f"class {c}" for c in range(classes)]
    units = np.arange(len(target)) if groups is None else np.asarray(groups)
    fold = options.pop("fold", (units % folds)[None])
    logits = options.pop("logits", {})
    for row in rows:
        generator = np.random.default_rng(len(row))
        predicted = np.where(
            generator.random(len(target)) < right,
            target,
            generator.integers(0, classes, len(target)),
        )
        logits.setdefault(row, 4 * np.eye(classes, dtype=np.float32)[predicted][None])
    options = {"adjustable": [rows[0]], **options}
    return Comparison(
        logits, options.pop("adjustable"), target, None if groups is None else units, fold,
        class_counts(target, fold, classes), names, **options,
    )  # fmt: skip


def told(comparison, code):
    """What the check says; and that it says nothing when it is ignored."""
    found = {check.code: check for check in find(comparison)}
    assert code not in {check.code for check in find(comparison, [code])}
    return found[code].text if code in found else None


CLEAN = made(np.arange(400) % 4)


def test_a_clean_comparison_has_no_checks():
    assert CLEAN.checks == []


def test_codes_are_words_and_every_check_says_what_it_is():
    assert len(set(CODES)) == len(CODES) == len(CHECKS) == 7
    for check in CHECKS:
        assert check.code == check.code.lower()
        assert " " not in check.code
        assert check.title
        assert check.page.startswith("comparing.html#")


def test_an_unknown_code_is_refused_before_the_training():
    with pytest.raises(ValueError, match=r"ignore must be codes of duplicates-across.*got 'few'"):
        compare(lambda *_, **__: pytest.fail("trained"), [0, 1] * 9, num_epochs=1, ignore=["few"])


# --------------------------------------------------------------------------------------------
# Samples
# --------------------------------------------------------------------------------------------

ONE = {"no weighting": default_entries()["no weighting"]}


def compared(features, target, **options):
    options = {"entries": ONE, "folds": 3, "num_epochs": 1, "workers": 1, **options}
    return compare(features, target, progress=False, **options)


def test_equal_features_share_a_number():
    features = GENERATOR.normal(size=(50, 3)).astype(np.float32)
    features[20], features[30], features[31] = features[3], 0.0, -0.0
    numbers = equal_features(features)
    expected = [[bool((one == other).all()) for other in features] for one in features]
    assert (numbers[:, None] == numbers).tolist() == expected


def test_rows_that_are_there_twice_with_coin_flips_for_labels():
    """The case of 86.7 % accuracy where 50 % is possible."""
    features = np.repeat(GENERATOR.normal(size=(60, 20)), 2, axis=0)
    target = np.repeat(GENERATOR.integers(0, 2, 60), 2)
    comparison = compared(features, target, num_epochs=60)
    assert comparison.estimate("no weighting", "accuracy").value > 65
    fold, twin = comparison.fold[0], np.arange(120) ^ 1
    many = int((fold != fold[twin]).sum())
    text = told(comparison, "duplicates-across-folds")
    assert text.startswith(f"{many} of 120 samples ({many / 1.2:.1f} %)")
    assert "groups=" in text
    assert text in " ".join(str(comparison).split())
    groups = np.repeat(np.arange(60), 2)
    assert told(compared(features, target, groups=groups), "duplicates-across-folds") is None
    assert told(compared(features[::2], target[::2]), "duplicates-across-folds") is None


def test_duplicates_are_looked_for_in_every_repeat():
    features = GENERATOR.normal(size=(60, 2))
    features[1] = features[0]
    target = np.arange(60) % 2
    target[1] = target[0]
    comparison = compared(features, target, repeats=6)
    assert (comparison.fold[:, 0] != comparison.fold[:, 1]).any()
    text = told(comparison, "duplicates-across-folds")
    assert text.startswith("2 of 60 samples (3.3 %)")


def test_a_class_of_duplicates_is_named():
    target = np.arange(400) % 4
    same = np.arange(400)
    same[[3, 7, 10]] = 3  # samples 3 and 7 of class 3, 10 of class 2, in folds 3 and 2
    text = told(made(target, same_features=same), "duplicates-across-folds")
    assert text.startswith("3 of 400 samples (0.8 %)")
    assert "most of all in class class 3" in text


def test_a_table_of_categories_may_repeat():
    features = GENERATOR.integers(0, 3, (400, 2))
    text = told(compared(features, GENERATOR.integers(0, 2, 400)), "duplicates-across-folds")
    assert text.startswith("400 of 400 samples (100.0 %)")
    assert "only 9 different rows of features" in text
    assert "nothing is wrong" in text


def test_a_fit_of_ones_own_has_no_duplicates():
    comparison = compared(lambda c, t, validation, **_: torch.zeros(len(validation), 2), [0, 1] * 9)
    assert comparison.same_features is None
    assert told(comparison, "duplicates-across-folds") is None


@pytest.mark.parametrize(("number", "speaks"), [(8, True), (19, True), (20, False)])
def test_few_groups(number, speaks):
    groups = np.arange(400) // 4 % number
    text = told(made(np.arange(400) % 4, groups=groups), "few-groups")
    assert (text is not None) == speaks
    if speaks:
        assert f"only {number} groups" in text
    assert told(CLEAN, "few-groups") is None


def test_small_classes():
    target = np.repeat([0, 1, 2, 3], [200, 19, 20, 4])
    text = told(made(target), "small-classes")
    assert text.startswith(
        "These classes have fewer than 20 samples: class 3 (4) and class 1 (19)."
    )
    assert "the recall of its class by 25 points and balanced accuracy by 6.2." in text
    one = told(made(np.repeat([0, 1], [200, 10])), "small-classes")
    assert one.startswith("These classes have fewer than 20 samples: class 1 (10).")
    assert told(CLEAN, "small-classes") is None


def test_a_class_of_few_groups_is_small():
    target = np.repeat([0, 1], [300, 100])
    groups = np.r_[np.arange(300), np.arange(100) % 7]
    text = told(made(target, groups=groups), "small-classes")
    assert text.startswith("These classes have fewer than 20 groups: class 1 (7).")
    assert "one more that is right" not in text  # a group has many samples
    assert "a single one, if all are as large, can move the recall of its class by 14 " in text


# --------------------------------------------------------------------------------------------
# Trainings
# --------------------------------------------------------------------------------------------

TARGET = np.repeat([0, 1, 2], [300, 100, 30])


def recalls(**rows):
    return {
        row: np.tile(np.asarray(recall, dtype=float), (1, 4, 1)) for row, recall in rows.items()
    }


def test_a_rare_class_that_another_row_fits_is_not_fitted():
    learnt = recalls(plain=[99, 90, 12], weighted=[98, 95, 90])
    # the plain row never predicts the rare class, so that post-hoc adjustment has nothing to find
    logits = {"plain": 9 * np.eye(3, dtype=np.float32)[np.where(TARGET == 2, 0, TARGET)][None]}
    text = told(made(TARGET, train_recall=learnt, logits=logits), "rare-class-not-fitted")
    assert text.startswith("plain has not fitted class 2 (12 %)")
    assert "In the same number of epochs, weighted fits more." in text
    assert "train longer" in text


def test_a_rare_class_that_no_row_fits_is_not_fitted():
    learnt = recalls(plain=[99, 90, 12], weighted=[98, 95, 30])
    text = told(made(TARGET, train_recall=learnt), "rare-class-not-fitted")
    assert "class 2 (12 %)" in text
    assert "No other method fits it. If this recall rises when you train longer" in text
    assert "weighted" not in text


@pytest.mark.parametrize(
    ("learnt", "why"),
    [
        (recalls(plain=[99, 90, 70], weighted=[98, 95, 90]), "fitted"),
        (recalls(plain=[99, 90, 12], weighted=[70, 70, 90]), "among others: weighting costs"),
        (recalls(plain=[60, 50, 12], weighted=[60, 50, 12]), "nothing is fitted"),
        (recalls(plain=[np.nan] * 3, weighted=[np.nan] * 3), "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_rare_class_is_fitted_or_cannot_be(learnt, why):
    comparison = made(TARGET, train_recall=learnt)
    assert told(comparison, "rare-class-not-fitted") is None, why


def test_post_hoc_that_is_better_is_not_called_useless():
    learnt = recalls(plain=[99, 90, 12], weighted=[98, 95, 90])
    logits = {"weighted": 9 * np.eye(3, dtype=np.float32)[np.zeros_like(TARGET)][None]}
    comparison = made(TARGET, train_recall=learnt, logits=logits, right=1.0)
    assert told(comparison, "rare-class-not-fitted") is None


def thinned_digits(counts):
    digits = load_digits()
    places = [np.flatnonzero(digits.target == c)[:n] for c, n in enumerate(counts)]
    index = np.concatenate(places)
    return digits.data[index], digits.target[index]


@pytest.mark.slow
def test_digits_are_fitted_after_100_epochs_and_not_after_2():
    features, target = thinned_digits(np.geomspace(170, 3, 10).round().astype(int))
    names = ("no weighting", "EffectiveNumber", "balanced sampling")
    rows = {name: default_entries()[name] for name in names}
    short = compared(features, target, entries=rows, num_epochs=2)
    assert "has not fitted" in told(short, "rare-class-not-fitted")
    long = compared(features, target, entries=rows, num_epochs=100)
    assert told(long, "rare-class-not-fitted") is None


def no_epochs(criterion, train, validation, sampler=None, seed=0):
    return torch.zeros(len(validation), 3)


def told_epochs(criterion, train, validation, sampler=None, seed=0):
    criterion.set_epoch(0)
    return no_epochs(criterion, train, validation)


def test_an_epoch_that_is_never_told():
    entries = {
        "plain": lambda n, e: CrossEntropyLoss(),
        "curriculum": lambda n, e: CrossEntropyLoss(weighter=[EffectiveNumber(n), OHEM(e)]),
    }
    options = {"entries": entries, "num_epochs": 2}
    text = told(compared(no_epochs, TARGET, **options), "epoch-never-told")
    assert "set_epoch for curriculum:" in text
    assert told(compared(told_epochs, TARGET, **options), "epoch-never-told") is None


def test_a_baseline_that_must_not_be_adjusted():
    entries = {
        "adjusted": lambda n, e: CrossEntropyLoss(margin=LogitAdjustment(n)),
        "plain": lambda n, e: CrossEntropyLoss(),
    }
    comparison = compared(no_epochs, TARGET, entries=entries)
    text = told(comparison, "baseline-not-adjustable")
    assert text.startswith(
        "adjusted, the first of the entries, was trained with the class frequencies"
    )
    assert "in the order plain, adjusted" in text
    del entries["plain"]
    alone = told(compared(no_epochs, TARGET, entries=entries), "baseline-not-adjustable")
    assert "default_entries()" in alone
    assert told(CLEAN, "baseline-not-adjustable") is None


# --------------------------------------------------------------------------------------------
# Labels
# --------------------------------------------------------------------------------------------


def out_of_fold(features, target, fold):
    """Logits of scikit-learn's discriminant analysis."""
    logits = np.empty((1, len(target), int(target.max()) + 1), dtype=np.float32)
    for k in range(int(fold.max()) + 1):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
        inside = fold[0] == k
        model.fit(features[~inside], target[~inside])
        logits[0, inside] = model.decision_function(features[inside])
    return logits


def judged(features, target):
    fold = (np.random.default_rng(1).permutation(len(target)) % 4)[None]
    fold[0, -3:] = 0, 1, 2  # of a class of three, two are trained on
    logits = {"plain": out_of_fold(features, target, fold)}
    return made(target, rows=["plain"], logits=logits, fold=fold)


def changed(target, share):
    generator = np.random.default_rng(2)
    index = generator.permutation(len(target))[: round(share * len(target))]
    target = target.copy()
    target[index] = (target[index] + generator.integers(1, 10, len(index))) % 10
    return target, index


DIGITS = load_digits()


def test_the_labels_of_the_digits_are_right():
    comparison = judged(DIGITS.data, DIGITS.target)
    assert len(comparison.suspicious_labels()) < 0.005 * len(DIGITS.target)
    assert told(comparison, "suspicious-labels") is None


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_changed_labels_are_found(share):
    target, wrong = changed(DIGITS.target, share)
    comparison = judged(DIGITS.data, target)
    found = comparison.suspicious_labels()
    assert found.columns.tolist() == ["index", "label", "predicted", "score"]
    assert (np.diff(found["score"]) <= 0).all()
    assert found["score"].between(0.5, 1).all()
    assert found["index"].is_unique
    first = found.head(len(wrong))
    assert len(first) > 0.8 * len(wrong)
    assert first["index"].isin(wrong).mean() >= 0.8
    names = np.array(comparison.class_names)
    assert (first["label"] == names[target[first["index"]]]).all()
    restored = first["predicted"] == names[DIGITS.target[first["index"]]]
    assert restored.mean() >= 0.8
    text = told(comparison, "suspicious-labels")
    assert text.startswith(f"{len(found)} of 1,797 labels ({len(found) / 17.97:.1f} %)")
    assert "comparison.suspicious_labels()" in text
    assert found.drop(columns="score").equals(comparison.suspicious_labels().drop(columns="score"))


@pytest.mark.parametrize("share", [0, 0.05])
def test_a_rare_class_is_not_doubted_because_it_is_rare(share):
    """One class is thinned 1 to 60, to three samples; then also with changed labels elsewhere."""
    kept = np.r_[np.flatnonzero(DIGITS.target != 3), np.flatnonzero(DIGITS.target == 3)[:3]]
    target, _ = changed(DIGITS.target[kept], share)
    rare = np.arange(len(kept) - 3, len(kept))
    target[rare] = 3
    found = judged(DIGITS.data[kept], target).suspicious_labels()
    assert found["index"].isin(rare).sum() <= 1
    assert (len(found) > 50) == (share > 0)


def drawn(share, scale=2.0, size=4000):
    """Labels drawn from the softmax of logits, but for a share drawn among all classes."""
    generator = np.random.default_rng(3)
    logits = generator.normal(scale=scale, size=(size, 4))
    target = np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)
    return logits, np.where(generator.random(size) < share, generator.integers(0, 4, size), target)


@pytest.mark.parametrize("share", [0, 0.1, 0.3])
@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_classes_that_overlap_are_not_wrong_labels(share, factor):
    logits, target = drawn(share)
    found, temperature, gain = share_at_random(factor * logits, target)
    assert found == pytest.approx(share, abs=0.04)
    assert temperature == pytest.approx(factor, rel=0.25)
    assert (gain > 5) == (share > 0)


@pytest.mark.parametrize("drawn_as", ["all alike", "often as the classes"])
def test_labels_are_doubted_as_by_who_knows_how_they_were_drawn(drawn_as):
    """Rare classes that overlap with frequent ones; the oracle is Bayes' rule with true chances."""
    generator, frequency = np.random.default_rng(5), np.array([0.7, 0.2, 0.07, 0.03])
    logits = generator.normal(scale=2, size=(8000, 4)) + np.log(frequency)
    right = np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)
    chance = np.full(4, 0.25) if drawn_as == "all alike" else frequency
    at_random = generator.random(len(right)) < 0.1
    target = np.where(at_random, generator.choice(4, size=len(right), p=chance), right)
    own = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(8000), target]
    doubted = np.flatnonzero(0.1 * chance[target] > 0.9 * own)
    comparison = made(target, rows=["plain"], logits={"plain": logits[None].astype(np.float32)})
    found = comparison.suspicious_labels()
    assert at_random[found["index"]].mean() > 0.6
    assert np.isin(doubted, found["index"]).mean() > 0.8


def test_a_part_of_many_samples_is_enough():
    logits, target = drawn(0.1, size=90_000)
    found, temperature, _ = share_at_random(logits, target)
    assert found == pytest.approx(0.1, abs=0.02)
    assert temperature == pytest.approx(1, rel=0.2)


def test_coin_flips_are_not_wrong_labels():
    generator = np.random.default_rng(4)
    logits = {"plain": generator.normal(size=(1, 600, 2)).astype(np.float32)}
    comparison = made(generator.integers(0, 2, 600), rows=["plain"], logits=logits)
    assert comparison.suspicious_labels().empty
    assert told(comparison, "suspicious-labels") is None


def test_a_baseline_with_class_frequencies_is_not_adjusted_for_labels():
    target, wrong = changed(DIGITS.target, 0.05)
    comparison = judged(DIGITS.data, target)
    comparison.adjustable = []
    assert comparison.suspicious_labels()["index"].isin(wrong).mean() >= 0.8
