"""The command line on small data, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
joblib = pytest.importorskip("joblib")

from sampleweights.__main__ import main  # noqa: E402
from sampleweights.compare import cli, default_entries, default_label_entries  # noqa: E402
from sampleweights.compare.checks import CODES  # noqa: E402
from sampleweights.compare.training import running  # noqa: E402

COUNTS = [40, 12, 6]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    target = np.repeat(np.arange(3), COUNTS)
    features = np.random.default_rng(0).normal(size=(len(target), 4)) + 2 * target[:, None]
    np.savez(
        tmp_path / "data.npz",
        features=features,
        target=target,
        class_names=["common", "rare", "rarest"],
        groups=np.arange(len(target)) // 2,
    )
    return tmp_path / "data.npz"


def compare(*arguments: object) -> int:
    small = [
        "--folds",
        "2",
        "--num-epochs",
        "2",
        "--workers",
        "1",
        "--rows",
        "OHEM",
        "LogitAdjustment",
    ]
    return main(["compare", *map(str, arguments), *small])  # fmt: skip


def test_it_writes_and_says_the_answer(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "comparison"
    assert compare(data, "--output", output) == 0
    out, err = capsys.readouterr()
    page = output / "comparison.html"
    assert f"The page is {page}" in out
    assert out.index("import sampleweights as sw") < out.index("The page")
    assert page.read_text(encoding="utf-8").count("rarest") > 0
    assert (output / "comparison.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(output / "table.csv", index_col=0)
    trained = ["no weighting", "OHEM", "LogitAdjustment"]
    assert [row for row in table.index if " + post-hoc" not in row] == trained
    assert "recall_rarest" in table.columns
    assert [err.index(f"{row}: accuracy") for row in trained] == sorted(
        err.index(f"{row}: accuracy") for row in trained
    )


def test_the_objective_may_be_a_table_of_utilities(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = [data, "--output", tmp_path / "c", "--no-progress", "--utility"]
    table = np.array([[1, 0, 0, 0.2], [0, 1, 0, 0.2], [-2, 0, 1, 0.2]])
    np.save(tmp_path / "utility.npy", table)
    np.savetxt(tmp_path / "utility.csv", table, delimiter=",")
    for name in ("utility.npy", "utility.csv"):
        assert cli.utility_table(tmp_path / name).tolist() == table.tolist()
    assert compare(*few, tmp_path / "utility.csv") == 0
    assert "expected utility" in capsys.readouterr().out
    assert "utility" in pd.read_csv(tmp_path / "c" / "table.csv").columns
    (tmp_path / "named.csv").write_text("a,b\n1,2\n")
    np.save(tmp_path / "small.npy", np.eye(2))
    for name, message in (
        ("named.csv", "--utility must be a table of numbers without a header"),
        ("utility.txt", "--utility must be an .npy or a .csv file"),
        ("none.npy", "none.npy"),
        ("small.npy", "--utility must be a table of shape (3, D)"),
    ):
        assert compare(*few, tmp_path / name) == 1
        assert message in capsys.readouterr().err
    # before an hour of images
    monkeypatch.setattr(cli, "load", lambda *_, **__: pytest.fail("loaded"))
    assert compare(*few, tmp_path / "named.csv") == 1


def test_a_check_is_told_unless_it_is_ignored(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (data, "--output", tmp_path / "out", "--no-progress")
    assert compare(*command) == 0
    page = tmp_path / "out" / "comparison.html"
    for text in (capsys.readouterr().out, page.read_text(encoding="utf-8")):
        assert "small-classes" in text
    assert compare(*command, "--ignore", "small-classes", "few-groups") == 0
    for text in (capsys.readouterr().out, page.read_text(encoding="utf-8")):
        assert "small-classes" not in text
    with pytest.raises(SystemExit):
        compare(*command, "--ignore", "small-class")
    error = capsys.readouterr().err
    assert "--ignore" in error
    assert "'small-class'" in error
    assert all(code in error for code in CODES)


def test_started_again_it_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(data, "--output", tmp_path / "a", "--no-progress") == 0
    out, err = capsys.readouterr()
    assert err == ""
    runs = sorted(f for f in (tmp_path / "a" / "runs").rglob("*") if f.is_file())
    assert len(runs) == 3 * 2
    runs[-1].unlink()
    kept = {run: run.stat().st_mtime_ns for run in runs[:-1]}
    assert compare(data, "--output", tmp_path / "a", "--no-progress") == 0
    assert capsys.readouterr().out == out
    assert {run: run.stat().st_mtime_ns for run in kept} == kept
    assert runs[-1].exists()


def test_an_error_is_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    for arguments, message in [
        ([tmp_path / "no.npz"], "no.npz does not exist"),
        ([data, "--class-names", "x"], "got 1"),
        ([data, "--output", taken], "taken"),
    ]:
        assert compare(*arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
    # the class with 6 samples has 3 groups
    assert main(["compare", str(data), "--folds", "4", "--output", str(tmp_path / "b")]) == 1
    assert "'rarest' has 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "INPUT is missing: it comes first"),
        (["--target", "y", "t.csv"], "INPUT is missing: it comes first"),
        (["x.npz", "--folds", "-3"], "--folds: must be an integer of at least 2, got -3"),
        (["x.npz", "--folds", "1"], "--folds: must be an integer of at least 2, got 1"),
        (["x.npz", "--workers", "two"], "--workers: must be an integer of at least 1, got two"),
        (["x.npz", "--objective", "recall"], "--objective: invalid choice: 'recall'"),
        (
            ["x.npz", "--objective", "accuracy", "--utility", "u.npy"],
            "--utility is an objective of its own",
        ),
        (["x.npz", "--rows", "ohem"], "--rows must be of no weighting, ClassBalanced"),
    ],
)
def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train"])
    assert stopped.value.code == 2
    assert "compare" in capsys.readouterr().err


def test_help_fits_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.count("\n  python -m sampleweights compare ") == 2
    assert len(out.splitlines()) <= 48
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("flag", "names"),
    [("--rows", {**default_entries(), **default_label_entries()}), ("--ignore", CODES)],
)
def test_an_option_alone_lists_its_names(
    capsys: pytest.CaptureFixture[str], flag: str, names: Iterable[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "x.npz", flag])
    err = capsys.readouterr().err
    assert f"{flag} must be of {', '.join(names)}, got none" in err


def test_a_table_with_columns_of_every_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.arange(90)
    frame = pd.DataFrame(
        {
            "patient_id": rows // 2 * 7,
            "age": np.where(rows == 4, np.nan, rows % 13),
            "sex": np.array([*"fm"])[rows % 2],
            "score": rows % 17,
            "diagnosis": np.array(["NA", "naevus", "melanoma"])[rows % 3],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
    command = [tmp_path / "t.csv", "--target", "diagnosis", "--output", tmp_path / "c"]
    assert compare(*command, "--no-progress") == 1
    assert "--group patient_id, otherwise --drop patient_id" in capsys.readouterr().err
    command += ["--group", "patient_id", "--drop", "score"]
    assert compare(*command, "--no-progress") == 0
    err = capsys.readouterr().err
    assert "recall_NA" in pd.read_csv(tmp_path / "c" / "table.csv").columns
    page = (tmp_path / "c" / "comparison.html").read_text(encoding="utf-8")
    said = "1 numeric: age; missing numbers: age in 1 row, the median in their place"
    assert f"columns: {said}" in " ".join(err.split())
    assert f"<dt>columns</dt><dd>{said}" in page
    assert "1 one-hot: sex; 3 features in all" in page
    assert "90 of 3 classes" in page


@pytest.mark.parametrize("given", ["2", "who", "folds.npy"])
def test_folds_reach_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    own = np.arange(60) % 3
    frame = pd.DataFrame({"x": np.arange(60) % 7, "y": np.arange(60) % 2, "who": own * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    arrays = {"features": frame[["x"]], "target": frame["y"], "folds": own[::-1]}
    np.savez(tmp_path / "t.npz", **arrays)
    np.save(tmp_path / "folds.npy", own * 5)
    got = []

    class Stop(RuntimeError):
        pass

    def compare(*args: object, folds: object, **options: object) -> None:
        got.append(folds)
        raise Stop

    monkeypatch.setattr(cli, "compare", compare)
    monkeypatch.chdir(tmp_path)
    command = ["t.csv", "--target", "y"] if given == "who" else ["t.npz"]
    assert main(["compare", *command, "--folds", given, "--output", "c"]) == 1
    [folds] = got
    assert folds == 2 if given == "2" else folds.tolist() == own.tolist()
    assert main(["compare", "t.npz", "--output", "c"]) == 1
    assert got[1].tolist() == own[::-1].tolist()


def test_samples_that_are_only_trained_on_are_no_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = np.arange(60)
    np.savez(tmp_path / "t.npz", features=number[:, None] % 7.0, target=number % 2)
    np.save(tmp_path / "split.npy", np.where(number < 20, 0, -1))  # the first 20 are validated
    command = ["compare", str(tmp_path / "t.npz"), "--folds", str(tmp_path / "split.npy")]
    command += ["--num-epochs", "1", "--workers", "1", "--rows", "OHEM", "--no-progress"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "1 split of your own, its validation part predicted by 5 models" in page
    assert "60 of 2 classes, 20 of them validated" in page


def test_a_list_of_suspicious_labels_is_kept_unless_it_is_computed_again(
    data: Path, tmp_path: Path
) -> None:
    old = tmp_path / "out" / "suspicious_labels.csv"
    old.parent.mkdir()
    old.write_text("index,label,predicted,score\n0,a,b,1\n")
    command = (data, "--output", tmp_path / "out", "--no-progress")
    assert compare(*command, "--ignore", "suspicious-labels") == 0
    assert old.exists()
    assert compare(*command) == 0
    assert not old.exists()


def test_a_reader_that_has_seen_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as stream:
        os.close(ours)
        monkeypatch.setattr(sys, "stdout", stream)
        cli.show("the first line\nand more")
        cli.show("what is written when Python ends")


def test_without_the_extra() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
from sampleweights.__main__ import main
sys.exit(main(["compare", "x.npz"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: compare needs the package sklearn, which is not installed: "
        'pip install "sampleweights[compare]"\n'
    )


def test_stopped_it_waits_for_the_thread_that_fed_its_workers(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # a process that ends before that thread has joblib report leaked semaphores, now and then
    feeder = threading.Thread(target=time.sleep, args=(0.5,), name="QueueFeederThread")

    def stopped(*_: object) -> Iterator[None]:
        feeder.start()
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(running, "FEWEST", 10**9)  # as if the table were large
    monkeypatch.setattr(running, "SECONDS_TO_START", 0)
    monkeypatch.setattr(joblib, "Parallel", lambda *_, **__: stopped)
    command = ["compare", str(data), "--folds", "2", "--workers", "2"]
    assert main([*command, "--output", str(tmp_path / "c")]) == 130
    assert not feeder.is_alive()
    assert capsys.readouterr().err.endswith(
        "stopped; the same command goes on with what is finished\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_stopped_by_a_signal_it_leaves_no_process_behind(data: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(data))
    arrays["features"] = np.tile(arrays["features"], (1, 400))  # too wide to be trained together
    np.savez(data, **arrays)
    command = [sys.executable, "-m", "sampleweights", "compare", str(data), "--folds", "2"]
    command += ["--workers", "2", "--num-epochs", "200", "--output", str(tmp_path / "c")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("c/runs/*.npz")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        # the pipe ends when the last worker process does, which inherits it
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("stopped; the same command goes on with what is finished\n")
