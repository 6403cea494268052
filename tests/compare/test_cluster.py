"""Runs on a cluster: the same answer, also where a worker is lost."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("pandas")

import joblib

from sampleweights.compare import compare, default_entries
from sampleweights.compare.training import cluster
from sampleweights.compare.training.protocol import keep

RANDOM = np.random.default_rng(0)
TARGET = np.repeat([0, 1, 2], [60, 30, 15])
FEATURES = RANDOM.normal(size=(105, 4)).astype(np.float32)
FEATURES[:, 0] += TARGET


def entries():
    """Heads that are trained together, and one that is trained by itself."""
    chosen = {n: default_entries()[n] for n in ("no weighting", "OHEM", "balanced sampling")}
    return {**chosen, "torch's": lambda n, e: torch.nn.CrossEntropyLoss(1 / n.float())}


def compared(**options):
    options = {"num_epochs": 3, "folds": 3, "progress": False, **options}
    return compare(FEATURES, TARGET, entries=entries(), **options)


def same(one, other) -> bool:
    return one.table().equals(other.table()) and all(
        np.array_equal(one.logits[row], other.logits[row]) for row in one.trained
    )


@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_any_backend_gives_the_same_bits(backend, tmp_path):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = compared(cache=tmp_path)
    assert same(found, compared())
    assert len([*tmp_path.glob("*.npz")]) == 12
    assert found.facts["hardware"].endswith(f"backend {backend.title()}")


# --------------------------------------------------------------------------------------------
# Dask
# --------------------------------------------------------------------------------------------


class Counted:
    """A training that notes in a folder that it was begun."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, criterion, train, validation, sampler=None, seed=0):
        (self.folder / f"{seed}-{os.getpid()}-{os.urandom(4).hex()}").touch()
        return linear(criterion, train, validation, sampler, seed)


def linear(criterion, train, validation, sampler=None, seed=0):
    """Long enough that both workers have one when another one is finished."""
    torch.manual_seed(seed)  # what a user does; workers must not disturb each other
    weight = torch.randn(4, 3).requires_grad_()
    optimizer = torch.optim.SGD([weight], 0.01)
    inputs, target = torch.from_numpy(FEATURES), torch.from_numpy(TARGET)
    for epoch in range(300):
        criterion.set_epoch(epoch)
        rows = train[torch.randperm(len(train)).numpy()]
        optimizer.zero_grad()
        criterion(inputs[rows] @ weight, target[rows]).backward()
        optimizer.step()
    return inputs[validation] @ weight


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


ROWS = {name: default_entries()[name] for name in ("no weighting", "ClassBalanced", "OHEM")}
OPTIONS = {"entries": ROWS, "num_epochs": 300, "folds": 4, "progress": False}


@pytest.mark.slow
def test_small_heads_on_dask_give_the_same_bits(client):
    with joblib.parallel_config(backend="dask"):
        found = compared()
    assert same(found, compared())
    assert found.facts["hardware"] == "the workers of the joblib backend Dask"


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_one_run(client, tmp_path, monkeypatch):
    begun, cache = tmp_path / "begun", tmp_path / "cache"
    begun.mkdir()
    local = compare(linear, TARGET, workers=1, **OPTIONS)
    before = {*client.run(os.getpid).values()}
    killed = []

    def keep_and_kill(outcome, path):
        keep(outcome, path)
        if not killed:
            killed.append(min(before))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(cluster, "keep", keep_and_kill)
    with joblib.parallel_config(backend="dask"):
        found = compare(Counted(begun), TARGET, cache=cache, **OPTIONS)
    assert same(found, local)
    assert len([*cache.glob("*.npz")]) == 12
    seeds = [path.name.partition("-")[0] for path in begun.iterdir()]
    assert len({*seeds}) == 12
    assert len(seeds) <= 12 + 2  # the run, and one that was finished and not yet fetched
    client.wait_for_workers(2)
    assert killed[0] not in client.run(os.getpid).values()


@pytest.mark.slow
def test_what_was_finished_is_kept_when_the_command_is_stopped(client, tmp_path, monkeypatch):
    def keep_and_stop(outcome, path):
        keep(outcome, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "keep", keep_and_stop)
        with pytest.raises(KeyboardInterrupt), joblib.parallel_config(backend="dask"):
            compare(linear, TARGET, cache=tmp_path, **OPTIONS)
    assert len([*tmp_path.glob("*.npz")]) == 1
    assert not client.futures  # nothing is left to do for the cluster
    with joblib.parallel_config(backend="dask"):
        found = compare(linear, TARGET, cache=tmp_path, **OPTIONS)
    assert same(found, compare(linear, TARGET, workers=1, **OPTIONS))


@pytest.mark.slow
def test_a_run_that_kills_its_workers_is_named(client, tmp_path):
    def dies(criterion, train, validation, sampler=None, seed=0):
        os._exit(1)

    message = "workers of the cluster were lost again and again, .* in row '.*, fold .: if they ran"
    with pytest.raises(RuntimeError, match=message), joblib.parallel_config(backend="dask"):
        compare(dies, TARGET, **OPTIONS)
    client.wait_for_workers(2)


@pytest.mark.slow
def test_what_a_worker_raises_is_told_as_here(client):
    def fails(criterion, train, validation, sampler=None, seed=0):
        raise KeyError("image")

    message = "row 'no weighting', .* with KeyError: 'image'"
    with pytest.raises(RuntimeError, match=message) as found, joblib.parallel_config("dask"):
        compare(fails, TARGET, **OPTIONS)
    # the lines of the user's own code, and none of ours
    trace = str(found.value.__cause__).splitlines()
    assert trace[2].endswith("in fails")
    assert trace[-1] == "KeyError: 'image'"
    assert len(trace) < 8


@pytest.mark.slow
def test_what_workers_cannot_import_is_told(client, monkeypatch):
    here = types.ModuleType("only_here")
    exec("def fit(criterion, train, validation, sampler=None, seed=0): pass", vars(here))
    monkeypatch.setitem(sys.modules, "only_here", here)
    message = "could not run row .* No module named 'only_here'. They need the same packages"
    with pytest.raises(RuntimeError, match=message), joblib.parallel_config(backend="dask"):
        compare(here.fit, TARGET, **OPTIONS)


@pytest.mark.slow
def test_the_lines_for_slurm(client, tmp_path, monkeypatch):
    """The script of the page, with a cluster on this machine in the place of Slurm's."""
    import distributed

    page = Path(__file__).parents[2] / "docs" / "comparing.md"
    [code] = re.findall(
        r"^```{code-block} python\n(import joblib\n.*?)^```$",
        page.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    given = []

    class Jobs(distributed.LocalCluster):
        def __init__(self, **options):
            given.append(options)
            super().__init__(n_workers=2, threads_per_worker=1, dashboard_address=":0")

        def scale(self, n=0, jobs=None):
            given.append(jobs) if jobs else super().scale(n)

    jobqueue = types.ModuleType("dask_jobqueue")
    jobqueue.SLURMCluster = Jobs
    monkeypatch.setitem(sys.modules, "dask_jobqueue", jobqueue)
    monkeypatch.chdir(tmp_path)
    one = {"row": ROWS["no weighting"]}
    names = {"compare": functools.partial(compare, entries=one, progress=False), "fit": linear}
    exec(code, {**names, "target": TARGET}, names)
    names["cluster"].close()
    assert given[0]["cores"] == given[0]["processes"]
    assert given[1] == 10
    assert len([*(tmp_path / "runs").glob("*.npz")]) == names["comparison"].folds


@pytest.mark.slow
def test_a_file_of_a_scheduler_that_is_not_there_is_an_error(tmp_path):
    pytest.importorskip("distributed")
    missing = tmp_path / "scheduler.json"
    with (
        pytest.raises(ValueError, match=r"scheduler.json does not exist; dask scheduler --sched"),
        cluster.dask_scheduler(str(missing)),
    ):
        pytest.fail("it waited")


def test_the_command_on_a_scheduler(client, tmp_path):
    from sampleweights.__main__ import main

    np.savez(tmp_path / "data.npz", features=FEATURES, target=TARGET)
    arguments = [tmp_path / "data.npz", "--rows", "OHEM", "--folds", 3, "--num-epochs", 2]
    file = tmp_path / "scheduler.json"
    client.write_scheduler_file(str(file))
    address = client.scheduler.address
    pages = []
    for name, more in (("here", []), ("there", ["--dask", address]), ("file", ["--dask", file])):
        output = ["--output", tmp_path / name, "--no-progress"]
        assert main(["compare", *map(str, [*arguments, *output, *more])]) == 0
        pages.append((tmp_path / name / "table.csv").read_text())
    assert len({*pages}) == 1
