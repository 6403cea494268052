"""Many runs, on many processes or machines: each takes the next run that nobody has.

A run is taken by a lock on a file in its folder, which the system releases when its process ends,
however it ends; a finished run has its result.json and is not taken again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout  # torch depends on it; fcntl is Unix only
from tqdm import tqdm

from examples.isic2018.data import Dataset
from examples.isic2018.official import DataError
from examples.isic2018.sources import Source
from examples.isic2018.training import RESULT, Run, add_test, execute


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    source: Source
    runs: Sequence[Run]
    folder: Path
    workers: int = 1
    devices: int = 1


@contextmanager
def taken(folder: Path) -> Iterator[bool]:
    """Whether this process has the run of that folder for itself."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def work(job: Job) -> None:
    """Do every run that is neither finished nor being done."""
    opened: dict[str, Dataset] = {}
    for run in job.runs:
        folder = job.folder / run.name
        if is_finished(job, run):
            continue
        with taken(folder) as mine:
            if not mine or is_finished(job, run):
                continue
            if run.model not in opened:
                opened[run.model] = job.source.open(run.model)
            try:
                if (folder / RESULT).exists():
                    add_test(run, opened[run.model], folder)
                else:
                    execute(run, opened[run.model], folder, job.devices)
            except Exception as error:  # the other runs do not depend on this one
                (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
                tqdm.write(f"{run.name}: {type(error).__name__}: {error}", file=sys.stderr)


def is_finished(job: Job, run: Run) -> bool:
    """Whether there is a result, with all parts that are asked for."""
    result = job.folder / run.name / RESULT
    if not result.exists():
        return False
    return not job.source.with_test or "test" in json.loads(result.read_text())["metrics"]


def visible_gpus() -> list[str]:
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",") if names else [str(i) for i in range(torch.cuda.device_count())]


def own_gpus(gpus: Sequence[str], position: int, devices: int) -> list[str]:
    """Those of a worker: as many as each run uses, another worker's where there are too few."""
    return [gpus[(position * devices + i) % len(gpus)] for i in range(devices)]


def _local_worker(job: Job, position: int, gpus: Sequence[str]) -> None:
    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it, and ends
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus(gpus, position, job.devices))
    torch.set_num_threads(max(1, torch.get_num_threads() // job.workers))
    work(job)


def finished_epochs(run: Run, folder: Path) -> int:
    if (folder / run.name / RESULT).exists():
        return run.epochs
    curves = folder / run.name / "curves.csv"
    return max(0, curves.read_text().count("\n") - 1) if curves.exists() else 0


@contextmanager
def progress(job: Job) -> Iterator[None]:
    """A bar over the epochs of all runs, wherever they are done."""
    done = threading.Event()
    with tqdm(total=sum(run.epochs for run in job.runs), unit="epoch") as bar:

        def show() -> None:
            finished = 0
            for run in job.runs:
                finished += (job.folder / run.name / RESULT).exists()
            bar.n = sum(finished_epochs(run, job.folder) for run in job.runs)
            bar.set_description(f"{finished} of {len(job.runs)} runs", refresh=False)
            bar.refresh()

        def watch() -> None:
            while not done.wait(2):
                show()

        show()
        bar.initial = bar.n
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            show()


def run_all(job: Job, cluster: str = "local", **slurm: object) -> None:
    """Do all runs, by processes on this machine or by jobs of a cluster."""
    left = [run for run in job.runs if not is_finished(job, run)]
    if not left:
        return
    with progress(job):
        if cluster != "local":
            _submit(job, cluster, slurm)
        elif job.workers == 1:
            work(job)
        else:
            context = multiprocessing.get_context("spawn")
            gpus = visible_gpus()
            workers = [
                context.Process(target=_local_worker, args=(job, position, gpus))
                for position in range(job.workers)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
    left = [run for run in left if not is_finished(job, run)]
    if left:
        raise DataError(
            f"{len(left)} runs did not finish, {left[0].name} first; what their processes said is "
            f"above and in the error.txt of their folders. Run the same command again to go on"
        )


def _submit(job: Job, cluster: str, slurm: dict[str, object]) -> None:
    try:
        import submitit
    except ImportError as error:
        raise DataError("--cluster needs submitit: pip install submitit") from error
    executor = submitit.AutoExecutor(job.folder / "jobs", cluster=cluster)
    try:
        executor.update_parameters(name="sampleweights-isic2018", **slurm)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise DataError(f"--slurm: submitit does not take {slurm} ({error})") from error
    jobs = [executor.submit(work, job) for _ in range(job.workers)]
    failed = [error for error in [submitted.exception() for submitted in jobs] if error]
    if failed:
        raise DataError(
            f"{len(failed)} of {len(jobs)} jobs failed, the first with: {failed[0]}. Run the same "
            f"command again to go on"
        )
