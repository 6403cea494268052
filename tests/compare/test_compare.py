"""No leak, no lost run, no old run read, the same answer from any number of processes."""

from __future__ import annotations

import copy
import importlib
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pd = pytest.importorskip("pandas")

from sampleweights import OHEM, CrossEntropyLoss, EffectiveNumber, FocalLoss, LogitAdjustment  # noqa: E402
from sampleweights.compare import compare, default_entries  # noqa: E402
from sampleweights.compare.report.decided import confusion  # noqa: E402

TARGET = np.repeat([0, 1, 2], [60, 30, 12])
FEATURES = np.random.default_rng(0).normal(size=(len(TARGET), 4)).astype(np.float32)
FEATURES[:, 0] += TARGET


def fit(criterion, train, validation, sampler=None, seed=0):
    """Two epochs of a linear model."""
    generator = torch.Generator().manual_seed(seed)
    inputs, target = torch.from_numpy(FEATURES), torch.from_numpy(TARGET)
    weight = torch.randn(4, 3, generator=generator).requires_grad_()
    optimizer = torch.optim.SGD([weight], 0.1)
    for epoch in range(2):
        criterion.set_epoch(epoch)
        if sampler is not None:
            sampler.set_epoch(epoch)
        for place in [list(sampler)] if sampler is not None else [range(len(train))]:
            rows = train[np.asarray(place)]
            optimizer.zero_grad()
            criterion(inputs[rows] @ weight, target[rows]).backward()
            optimizer.step()
    return inputs[validation] @ weight


def compared(data=fit, target=TARGET, **options):
    options = {"num_epochs": 2, "folds": 3, "progress": False, "workers": 1, **options}
    return compare(data, target, **options)


def rows(*names):
    return {name: default_entries()[name] for name in names}


def same(one, other) -> bool:
    return one.table().equals(other.table()) and all(
        np.array_equal(one.logits[row], other.logits[row]) for row in one.trained
    )


# --------------------------------------------------------------------------------------------
# Protocol
# --------------------------------------------------------------------------------------------


def test_every_sample_is_predicted_once_by_a_model_that_saw_neither_it_nor_its_group():
    groups = np.arange(len(TARGET)) // 2
    seen = []

    def spy(criterion, train, validation, sampler=None, seed=0):
        assert not set(groups[train]) & set(groups[validation])
        assert len(train) + len(validation) == len(TARGET)
        seen.append(validation)
        return torch.zeros(len(validation), 3)

    compared(spy, groups=groups, entries=rows("no weighting"))
    assert sorted(np.concatenate(seen)) == list(range(len(TARGET)))


def test_features_that_encode_the_group_do_not_help():
    """Groups have random classes: who could look up a group would be right, who can not guesses."""
    generator = np.random.default_rng(0)
    of_group = generator.integers(0, 2, 40)
    groups = np.repeat(np.arange(40), 6)
    target, features = of_group[groups], np.eye(40)[groups]

    def nearest(criterion, train, validation, sampler=None, seed=0):
        distance = ((features[validation][:, None] - features[train]) ** 2).sum(-1)
        return np.eye(2)[target[train[distance.argmin(1)]]]

    honest = compared(nearest, target, groups=groups, entries=rows("no weighting"))
    leaking = compared(nearest, target, entries=rows("no weighting"))
    assert honest.estimate("no weighting", "accuracy").value < 70
    assert leaking.estimate("no weighting", "accuracy").value > 95


def test_class_counts_are_those_of_the_training_part():
    told = []

    def entry(counts, epochs):
        told.append(counts.tolist())
        return CrossEntropyLoss()

    comparison = compared(entries={"row": entry})
    assert comparison.counts.shape == (1, 3, 3)
    assert [comparison.counts[0, k].tolist() in told for k in range(3)] == [True] * 3
    for k in range(3):
        inside = comparison.fold[0] == k
        assert comparison.counts[0, k].tolist() == np.bincount(TARGET[~inside]).tolist()


def test_the_prior_of_post_hoc_adjustment_is_that_of_the_training_part():
    comparison = compared(entries=rows("no weighting"))
    adjusted = comparison.adjusted("no weighting", tau=0.5)
    for k in range(3):
        inside = comparison.fold[0] == k
        logits = torch.from_numpy(comparison.logits["no weighting"][0, inside])
        expected = LogitAdjustment(comparison.counts[0, k], tau=0.5).posthoc(logits)
        assert np.array_equal(adjusted[0, inside], expected.numpy())


def test_rows_without_class_frequencies_are_adjusted_and_no_others():
    comparison = compared()
    assert comparison.adjustable == ["no weighting", "FocalLoss", "OHEM", "SelfPaced per class"]
    assert len(comparison.rows) == 16
    assert comparison.rows[:4] == [
        "no weighting",
        "no weighting + post-hoc",
        "no weighting + post-hoc at no loss",
        "ClassBalanced",
    ]
    assert comparison.rows[-1] == "square-root sampling"
    assert list(comparison.taus) == [row for row in comparison.rows if " + post-hoc" in row]
    weighted = {
        "torch": lambda n, e: nn.CrossEntropyLoss(),
        "weights": lambda n, e: nn.CrossEntropyLoss(1 / n),
    }
    assert compared(no_epochs, entries=weighted).adjustable == ["torch"]


def no_epochs(criterion, train, validation, sampler=None, seed=0):
    return torch.randn(len(validation), 3, generator=torch.Generator().manual_seed(seed))


def test_each_post_hoc_row_has_the_tau_that_was_best_on_the_other_folds():
    comparison = compared(entries=rows("no weighting", "OHEM"))
    for row, taus in comparison.taus.items():
        assert taus.shape == (1, 3)
        trained = row.partition(" + post-hoc")[0]
        adjusted = comparison.adjusted(trained, taus)
        for k in range(3):
            inside = comparison.fold[0] == k
            logits = torch.from_numpy(comparison.logits[trained][0, inside])
            expected = LogitAdjustment(comparison.counts[0, k], tau=taus[0, k]).posthoc(logits)
            assert np.array_equal(adjusted[0, inside], expected.numpy())
        accuracy = 100 * (adjusted[0].argmax(-1) == TARGET).mean()
        assert comparison.estimate(row, "accuracy").value == pytest.approx(accuracy)
        assert 0 <= comparison.tau(row) <= 1.5
    with pytest.raises(ValueError, match="row must be one of .* got 'no weighting'"):
        comparison.tau("no weighting")


def test_the_frontier_begins_at_the_baseline_and_ends_at_tau_1():
    comparison = compared(entries=rows("no weighting", "OHEM"))
    frontier = comparison.frontier
    assert frontier["tau"].iloc[[0, -1]].tolist() == [0, 1]
    for tau, index in ((0, 0), (1, -1)):
        found = comparison.at_tau("no weighting", tau)
        for metric in ("accuracy", "balanced_accuracy"):
            assert frontier[metric].iloc[index] == pytest.approx(found[metric])
    balanced = comparison.estimate("no weighting", "balanced_accuracy")
    names = ["balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"]
    assert frontier[names].iloc[0].tolist() == pytest.approx(
        [balanced.value, balanced.low, balanced.high]
    )
    assert isinstance(comparison.above_frontier("OHEM").value, float)
    with pytest.raises(ValueError, match=r"row must be one of \['OHEM', 'OHEM \+ post-hoc'\]"):
        comparison.above_frontier("no weighting")


def test_the_frontier_goes_as_far_as_tau_is_chosen(monkeypatch):
    comparison = compared(entries=rows("no weighting", "OHEM"))
    monkeypatch.setattr(type(comparison), "tau", lambda self, row: 1.25)
    assert comparison.frontier["tau"].iloc[[0, -1]].tolist() == [0, 1.25]


def test_no_adjustment_of_the_baseline_is_above_the_curve():
    """Not even with a tau above 1, of logits that lean too much to frequent classes."""
    comparison = compared(entries=rows("no weighting", "OHEM"))
    noise = np.random.default_rng(0).normal(size=(1, len(TARGET), 3))
    logits = (noise + 1.5 * np.eye(3)[TARGET] + 3 * np.log([60, 30, 12])).astype(np.float32)
    for tau in (0.5, 1.0, 1.25, 1.5):
        alike = replace(comparison, logits={"no weighting": logits, "OHEM": logits})
        alike.logits["OHEM"] = alike.adjusted("no weighting", tau)
        assert alike.above_frontier("OHEM").value <= 1e-9


def test_a_baseline_that_knows_the_frequencies_has_no_curve():
    comparison = compared(no_epochs, entries=rows("LogitAdjustment", "OHEM"))
    assert comparison.rows == ["LogitAdjustment", "OHEM", "OHEM + post-hoc"]
    assert comparison.frontier is None
    with pytest.raises(ValueError, match="the baseline 'LogitAdjustment' must not be adjusted"):
        comparison.above_frontier("OHEM")
    assert comparison.verdict.text in " ".join(str(comparison).split())


@pytest.mark.parametrize("objective", ["accuracy", "macro_f1", "average_precision", np.eye(3)])
def test_the_objective_decides_the_order(objective):
    comparison = compared(
        objective=objective, entries=rows("no weighting", "EffectiveNumber", "OHEM")
    )
    metric = comparison.goal.metric
    values = [comparison.estimate(row, metric).value for row in comparison.ranking]
    assert values == sorted(values, reverse=True)
    assert sorted(comparison.ranking) == sorted(comparison.rows)
    assert (metric == "accuracy") == ("no weighting + post-hoc at no loss" not in comparison.rows)
    printed = str(comparison)
    assert comparison.verdict.text in " ".join(printed.split())
    lines = [line for line in printed.splitlines() if line.startswith(tuple(comparison.rows))]
    assert [line.partition("  ")[0].removesuffix(" (baseline)") for line in lines] == (
        comparison.ranking
    )
    assert comparison.goal.words in printed
    assert {metric, f"{metric}_low", f"{metric}_difference"} <= set(comparison.table().columns)


def test_decisions_of_a_utility_table_may_be_more_than_the_classes():
    table = np.array([[1, 0, 0, 0.5], [0, 1, 0, 0.5], [-3, -3, 1, 0.5]])
    comparison = compared(objective=table, entries=rows("no weighting"))
    logits = comparison.logits["no weighting"][0].astype(float)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    earned = table[TARGET, (probability @ table).argmax(1)].mean()
    assert comparison.estimate("no weighting", "utility").value == pytest.approx(earned)


def test_the_page_shows_what_was_decided(tmp_path):
    table = np.array([[1, 0, 0, 0.5], [0, 1, 0, 0.5], [-3, -3, 1, 0.5]])
    comparison = compared(objective=table, entries=rows("no weighting"))
    logits = comparison.logits["no weighting"][0].astype(float)
    decision = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) @ table).argmax(1)
    expected = [[np.mean(decision[c == TARGET] == d) for d in range(4)] for c in range(3)]
    counted = confusion(comparison, "no weighting")
    assert counted / counted.sum(1, keepdims=True) == pytest.approx(np.array(expected))
    page = comparison.write_page(tmp_path / "page.html").read_text(encoding="utf-8")
    decided = page.partition("<h2>Decisions</h2>")[2].partition("<h2>")[0]
    assert "decision 4" in decided
    first = decided.partition("<caption>no weighting</caption>")[2].partition("</table>")[0]
    cells = [float(cell) for cell in re.findall(r"<td>([\d.]+)</td>", first)]
    assert cells == [round(100 * share, 1) for row in expected for share in row]
    found = comparison.estimate("no weighting", "utility")
    assert f"{found.value:.3g}<small>" in page  # with its interval
    plain = compared(entries=rows("no weighting")).write_page(tmp_path / "other.html")
    assert "<h2>Decisions</h2>" not in plain.read_text(encoding="utf-8")


def test_equal_criteria_have_seeds_of_their_own():
    twins = {"one": lambda n, e: CrossEntropyLoss(), "two": lambda n, e: CrossEntropyLoss()}
    comparison = compared(entries=twins)
    assert not np.array_equal(comparison.logits["one"], comparison.logits["two"])


# --------------------------------------------------------------------------------------------
# Repeatable, resumable
# --------------------------------------------------------------------------------------------


def test_any_number_of_processes_gives_the_same_bits():
    entries = rows("no weighting", "OHEM", "balanced sampling")
    assert same(compared(entries=entries), compared(entries=entries, workers=2))


def test_a_second_call_reads_what_is_kept(tmp_path):
    calls = []

    def counted(criterion, train, validation, sampler=None, seed=0):
        calls.append(seed)
        return no_epochs(criterion, train, validation, sampler, seed)

    first = compared(counted, cache=tmp_path, entries=rows("no weighting"))
    again = compared(counted, cache=tmp_path, entries=rows("no weighting"))
    # the closure has changed: it holds the calls; so nothing old may be read
    assert len(calls) == 6
    assert same(first, again)
    assert same(compared(cache=tmp_path), compared(cache=tmp_path))


def test_changed_input_never_reads_old_runs(tmp_path):
    def files():
        return len(list(tmp_path.glob("*.npz")))

    one = rows("no weighting")
    compared(cache=tmp_path, entries=one)
    assert files() == 3
    compared(cache=tmp_path, entries=one)
    assert files() == 3
    for number, options in enumerate(
        [
            {"target": np.roll(TARGET, 1)},
            {"groups": np.arange(len(TARGET)) // 2},
            {"seed": 1},
            {"num_epochs": 3},
            {"entries": {"no weighting": lambda n, e: FocalLoss()}},
            {"entries": {"no weighting": lambda n, e: CrossEntropyLoss(label_smoothing=0.1)}},
        ],
        2,
    ):
        compared(**{"cache": tmp_path, "entries": one, **options})
        assert files() == 3 * number


def test_changed_features_never_read_old_runs(tmp_path):
    one = rows("no weighting")
    compared(FEATURES, cache=tmp_path, entries=one)
    compared(FEATURES + 1, cache=tmp_path, entries=one)
    assert len(list(tmp_path.glob("*.npz"))) == 6


NET = """
import numpy
from own_answers import CLASS
def predict(rows, classes):
    logits = numpy.zeros((len(rows), classes))
    logits[:, CLASS] = 1
    return logits
"""


def test_what_a_module_imports_never_reads_old_runs(tmp_path, monkeypatch):
    """The accuracy is the share of the class that a module, two imports away, predicts."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    target = np.repeat([0, 1], [60, 20])
    (tmp_path / "own_net.py").write_text(NET)

    def accuracy(predicted):
        (tmp_path / "own_answers.py").write_text(f"CLASS = {predicted}")
        importlib.invalidate_caches()
        namespace = {"__name__": "own"}
        exec(
            "import own_net\ndef fit(criterion, train, validation, sampler=None, seed=0):\n"
            "    return own_net.predict(validation, 2)",
            namespace,
        )
        comparison = compared(
            namespace["fit"], target, entries=rows("no weighting"), cache=tmp_path / "runs"
        )
        for name in ("own_net", "own_answers"):
            del sys.modules[name]
        return comparison.estimate("no weighting", "accuracy").value

    assert accuracy(0) == 75
    assert accuracy(1) == 25
    assert accuracy(0) == 75
    assert len(list((tmp_path / "runs").glob("*.npz"))) == 6  # the third read the first


def test_nothing_is_digested_without_a_cache(monkeypatch):
    def read(*what):
        raise AssertionError("read")

    monkeypatch.setattr("sampleweights.compare.training.protocol.fingerprint", read)
    compared(entries=rows("no weighting"))


def test_runs_that_cannot_be_told_apart_are_not_kept(tmp_path):
    numbers = (number for number in range(3))

    def holds(criterion, train, validation, sampler=None, seed=0):
        assert numbers is not None
        return torch.zeros(len(validation), 3)

    with pytest.warns(UserWarning, match="no run is kept, since nothing says what holds.numbers"):
        comparison = compared(holds, entries=rows("no weighting"), cache=tmp_path)
    assert len(comparison.rows) == 3

    def entry(counts, epochs):
        criterion = CrossEntropyLoss()
        criterion.numbers = numbers
        return criterion

    entries = {**rows("no weighting"), "own": entry}
    with pytest.warns(UserWarning, match="no run of the row 'own' is kept, since nothing says"):
        comparison = compared(no_epochs, entries=entries, cache=tmp_path)
    assert comparison.adjustable == ["no weighting"]
    assert [path.name.partition("-0-")[0] for path in tmp_path.glob("*.npz")] == [
        "no-weighting"
    ] * 3


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
SCRIPT = """
import sys, time
import numpy as np, torch
from sampleweights.compare import compare, default_entries
from sampleweights.compare.report.decided import confusion
target = np.repeat([0, 1, 2], [60, 30, 12])
def fit(criterion, train, validation, sampler=None, seed=0):
    time.sleep(float(sys.argv[1]))
    return torch.randn(len(validation), 3, generator=torch.Generator().manual_seed(seed))
if __name__ == "__main__":
    entries = {name: default_entries()[name] for name in ("no weighting", "OHEM")}
    comparison = compare(fit, target, entries=entries, folds=5, num_epochs=2, cache="runs",
                         progress=False, workers=1)
    np.savez("answer.npz", **comparison.logits)
"""


@pytest.mark.slow  # started again in one process: test_cli.test_started_again_it_goes_on
def test_a_killed_comparison_goes_on_bit_for_bit(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", "0"]
    process = subprocess.Popen([*command[:2], "0.3"], cwd=tmp_path, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "answer.npz").exists()
    left = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*.npz")}
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True)
    assert all(path.stat().st_mtime_ns == before for path, before in left.items())
    resumed = dict(np.load(tmp_path / "answer.npz"))
    for path in tmp_path.glob("runs/*"):
        path.unlink()
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True)
    whole = dict(np.load(tmp_path / "answer.npz"))
    assert all(np.array_equal(resumed[row], whole[row]) for row in whole)


@pytest.mark.slow
def test_two_processes_on_one_cache_do_not_disturb_each_other(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", "0.02"]
    both = [subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list(tmp_path.glob("runs/*"))) == 10
    assert not list(tmp_path.glob("runs/*.part"))


def test_a_damaged_run_is_done_again(tmp_path):
    one = rows("no weighting")
    first = compared(cache=tmp_path, entries=one)
    next(tmp_path.glob("*.npz")).write_bytes(b"half a file")
    assert same(first, compared(cache=tmp_path, entries=one))


def test_random_state_and_threads_stay_as_they_were():
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    before = torch.get_rng_state()
    compared(entries=rows("no weighting", "balanced sampling"))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


# --------------------------------------------------------------------------------------------
# What is told
# --------------------------------------------------------------------------------------------


def test_a_fit_that_never_sets_the_epoch_is_told():
    entries = {
        "plain": lambda n, e: CrossEntropyLoss(),
        "curriculum": lambda n, e: CrossEntropyLoss(weighter=[EffectiveNumber(n), OHEM(e)]),
    }
    comparison = compared(no_epochs, entries=entries)
    assert comparison.never_told == ["curriculum"]
    assert "set_epoch for curriculum" in " ".join(str(comparison).split())
    assert compared(entries=entries).never_told == []


def test_progress_shows_each_row(capsys):
    compared(entries=rows("no weighting"), progress=True)
    assert "no weighting: accuracy" in capsys.readouterr().err


def test_labels_of_any_kind():
    names = np.array(["nevus", "keratosis", "rare"])
    comparison = compared(no_epochs, names[TARGET], entries=rows("no weighting"))
    assert comparison.class_names == ["keratosis", "nevus", "rare"]
    assert comparison.class_counts == [30, 60, 12]


def test_the_table_has_every_row_and_class():
    comparison = compared(entries=rows("no weighting", "EffectiveNumber"))
    table = comparison.table()
    assert list(table.index) == comparison.rows
    for metric in ("recall_2", "precision_2", "average_precision_2", "auroc"):
        found = table.loc["EffectiveNumber", metric]
        assert found == comparison.estimate("EffectiveNumber", metric).value
    by = comparison.differences("accuracy")["EffectiveNumber"]
    ends = ["accuracy_difference", "accuracy_difference_low", "accuracy_difference_high"]
    assert table.loc["EffectiveNumber", ends].tolist() == [by.value, by.low, by.high]
    assert table.loc["no weighting", ends].tolist() == [0, 0, 0]


def test_post_hoc_adjustment_of_the_baseline_is_judged_alone_and_all_others_together():
    comparison = compared(entries=rows("no weighting", "EffectiveNumber", "OHEM"))
    simple, free = "no weighting + post-hoc", "no weighting + post-hoc at no loss"
    for metric in ("accuracy", "balanced_accuracy"):
        found = comparison.differences(metric)
        assert list(found) == comparison.rows[1:]
        alone = {row: comparison.difference(row, "no weighting", metric) for row in found}
        assert found[simple] == alone[simple]
        for row in ("EffectiveNumber", "OHEM", "OHEM + post-hoc"):
            assert found[row].value == alone[row].value
            assert found[row].high - found[row].low >= alone[row].high - alone[row].low
        shown = found[simple].low > 0 or found[simple].high < 0
        assert (found[free] == alone[free]) or not shown
    with pytest.raises(ValueError, match="other must be one of .* got 'none'"):
        comparison.differences("accuracy", "none")


def test_entries_of_ones_own_stand_in_the_code_by_name():
    entries = {**rows("no weighting"), "mine": lambda n, e: nn.CrossEntropyLoss()}
    comparison = compared(no_epochs, entries=entries)
    assert comparison.recipes["no weighting"].code == "criterion = sw.CrossEntropyLoss()"
    assert comparison.recipes["mine"].code.startswith("criterion = entries['mine'](")


def test_a_single_row_has_no_advice():
    weights = {"row": lambda n, e: CrossEntropyLoss(weighter=EffectiveNumber(n))}
    comparison = compared(entries=weights)
    assert comparison.advice() == []
    assert comparison.verdict.row is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": np.repeat([0, 1], [60, 2])}, r"class '1' has 2: give fewer folds"),
        ({"groups": TARGET}, r"as many groups as there are folds \(3\), class '0' has 1"),
        ({"target": np.zeros(9)}, r"target must have at least two classes, all samples are of"),
        ({"target": TARGET + 0.5}, r"target must be classes, integers or strings, got 0.5"),
        ({"target": TARGET[:, None]}, r"target must have shape \(N,\)"),
        ({"groups": [1, 2]}, r"groups must have shape \(102,\).*got \(2,\)"),
        ({"num_epochs": None}, r"num_epochs must be given with a fit of your own"),
        ({"folds": 1}, r"folds must be at least 2, got 1"),
        ({"repeats": 0}, r"repeats must be at least 1, got 0"),
        ({"workers": 0}, r"workers must be at least 1, got 0"),
        ({"objective": "bacc"}, r"objective must be one of 'balanced_accuracy', .* got 'bacc'"),
        ({"objective": np.eye(2)}, r"a utility table of shape \(3, D\).* got shape \(2, 2\)"),
        ({"entries": {}}, r"entries must have at least one row, got none"),
        ({"class_names": ["a"]}, r"class_names must have one name for each of the 3.*got 1 names"),
        ({"class_names": ["a", "a", "b"]}, r"class_names must differ"),
        ({"data": FEATURES[:9]}, r"data must be features of shape \(102, D\).*got shape \(9, 4\)"),
        ({"data": np.where(FEATURES > 2.5, np.nan, FEATURES)}, r"data must be finite, got nan in"),
        ({"data": np.array([["a"]] * len(TARGET))}, r"data must be numbers.* compare table.csv"),
        ({"data": pd.Series([*FEATURES])}, r"got shape \(102,\): pass np.stack\(data\)$"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        compared(**options)


def test_what_does_not_build_is_named():
    with pytest.raises(TypeError, match=r"entries\['row'\] must build a criterion"):
        compared(entries={"row": lambda n, e: "loss"})


@pytest.mark.parametrize(
    ("result", "message"),
    [(torch.zeros(3), "shape"), (torch.full((34, 3), torch.nan), "values that are not finite")],
)
def test_what_fit_returns_is_checked(result, message):
    with pytest.raises(ValueError, match=rf"fit must return finite logits .*{message}.*row 'row'"):
        compared(
            lambda criterion, train, validation, sampler=None, seed=0: result,
            entries={"row": lambda n, e: CrossEntropyLoss()},
        )


def test_the_library_does_not_import_it():
    code = "import sys, sampleweights; sys.exit('sampleweights.compare' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


# --------------------------------------------------------------------------------------------
# What a review found
# --------------------------------------------------------------------------------------------


class Focused(nn.Module):
    """A loss of one's own with class weights under a name of its own."""

    def __init__(self, counts):
        super().__init__()
        self.register_buffer("alpha", 1 / counts)

    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target, self.alpha)


class Wrapped(nn.Module):
    """Around a curriculum, without a ``set_epoch``."""

    def __init__(self, epochs):
        super().__init__()
        self.inner = CrossEntropyLoss(weighter=OHEM(epochs))

    def forward(self, logits, target):
        return self.inner(logits, target)


def test_a_loss_of_ones_own_that_knows_the_counts_is_not_adjusted():
    entries = {"own": lambda n, e: Focused(n), "none": lambda n, e: nn.CrossEntropyLoss()}
    assert compared(no_epochs, entries=entries).adjustable == ["none"]


def test_curricula_are_told_wherever_they_are():
    told = compared(no_epochs, entries={"row": lambda n, e: Wrapped(e)})
    assert told.never_told == ["row"]

    def copies(criterion, train, validation, sampler=None, seed=0):
        copy.deepcopy(criterion).set_epoch(1)
        return no_epochs(criterion, train, validation, sampler, seed)

    assert compared(copies, entries=rows("OHEM")).never_told == []


def test_class_names_of_strings_are_an_order():
    animals = np.array(["cat"] * 70 + ["dog"] * 30)

    def two(criterion, train, validation, sampler=None, seed=0):
        return torch.zeros(len(validation), 2)

    options = {"entries": rows("no weighting"), "class_names": ["dog", "cat"]}
    assert compared(two, animals, **options).class_counts == [30, 70]
    with pytest.raises(ValueError, match=r"class_names must be the 2 classes of target"):
        compared(two, animals, **{**options, "class_names": ["a", "b"]})


def test_a_failing_fit_names_its_row_and_fold():
    def fails(criterion, train, validation, sampler=None, seed=0):
        raise KeyError("image")

    with pytest.raises(RuntimeError, match=r"row 'no weighting', repeat 0, fold 0, with KeyError"):
        compared(fails, entries=rows("no weighting"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": TARGET * 2}, ValueError, r"target must be classes from 0 to 2 for a fit of"),
        ({"groups": np.where(TARGET > 1, np.nan, TARGET)}, ValueError, "groups must have no"),
        ({"target": [*"ab" * 50, None, "a"]}, ValueError, r"target must have no .*sample 100"),
        ({"entries": {0: lambda n, e: CrossEntropyLoss()}}, TypeError, "that are strings, got 0"),
        (
            {"entries": {"a": lambda n, e: FocalLoss(), "a + post-hoc": lambda n, e: FocalLoss()}},
            ValueError, r"without ' \+ post-hoc', .* got 'a \+ post-hoc'",
        ),
        (  # the row that it would be read off is not there
            {"entries": {"focal + post-hoc": lambda n, e: FocalLoss()}},
            ValueError, r"without ' \+ post-hoc', .* got 'focal \+ post-hoc'",
        ),
    ],
)  # fmt: skip
def test_what_would_be_misread_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        compared(**options)


def test_bfloat16_features():
    features = torch.from_numpy(FEATURES).bfloat16()
    comparison = compared(features, entries=rows("no weighting"))
    assert same(comparison, compared(features.float(), entries=rows("no weighting")))
