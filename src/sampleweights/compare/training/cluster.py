"""Runs on other machines: inside ``joblib.parallel_config(backend=...)``, on Dask, Ray and others.

Workers need no files of this machine. They get the plan once, and send back what they found, which
is kept here as it comes.
"""

from __future__ import annotations

import pickle
import threading
import warnings
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sampleweights.compare.training.failures import Failure, attempt, succeeded
from sampleweights.compare.training.head import Head
from sampleweights.compare.training.protocol import Outcome, Plan, Run, execute, keep
from sampleweights.compare.training.running import FEWEST, train_together, training_of

__all__ = ["Cluster", "dask_scheduler"]

TOGETHER = 8
"""Small heads in a task at most, so that a lost worker loses seconds."""
IN_TURN = threading.Lock()
"""Runs share torch's random state and number of threads; a worker of Dask may have many threads."""
Packed = NDArray[np.uint8]


class Cluster:
    """The joblib backend that a user has set.

    Args:
        backend: joblib's.
        number: of runs at once; None: as many as the backend has places.
    """

    def __init__(self, backend: Any, number: int | None) -> None:
        self.backend, self.number = backend, number
        name = type(backend).__name__.removesuffix("Backend").removesuffix("Distributed")
        self.words = f"the workers of the joblib backend {name}"

    @classmethod
    def chosen(cls, workers: int | None) -> Cluster | None:
        """What ``parallel_config`` or ``parallel_backend`` set; None: processes of this machine."""
        from joblib.parallel import get_active_backend

        backend, number = get_active_backend()
        number = number if workers is None else workers
        if type(backend).__name__ == "LokyBackend":
            return None
        return cls(backend, number)

    def outcomes(
        self, plan: Plan, runs: Sequence[Run], paths: Mapping[Run, Path | None]
    ) -> Generator[Outcome]:
        """Of the runs, as they come; each is kept."""
        import joblib

        # by value what is defined in a script or a notebook
        portable = joblib.wrap_non_picklable_objects(plan, keep_wrapper=False)
        packed = np.frombuffer(pickle.dumps(portable, pickle.HIGHEST_PROTOCOL), np.uint8)
        tasks = tasks_of(plan, runs)
        client = getattr(self.backend, "client", None)
        results = self.by_joblib(packed, tasks) if client is None else self.by_dask(packed, tasks)
        with closing(results):  # now, and not when its client is gone
            for outcome in succeeded(results):
                keep(outcome, paths[outcome.run])
                yield outcome

    def by_joblib(
        self, packed: Packed, tasks: Sequence[Sequence[Run]]
    ) -> Generator[Outcome | Failure]:
        """Through ``joblib.Parallel``."""
        import joblib

        number = joblib.effective_n_jobs(self.number or -1)
        calls = [joblib.delayed(work)(packed, task) for task in tasks]
        if getattr(self.backend, "supports_return_generator", False):
            parallel = joblib.Parallel(number, return_as="generator_unordered", batch_size=1)
            results = parallel(calls)
            try:
                for found in results:
                    yield from found
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that there was work left
                    results.close()
            return
        # as Ray: all that was given comes back at once, so that only a part is given at a time
        with joblib.Parallel(number, batch_size=1) as parallel:  # whose workers stay
            for start in range(0, len(calls), number):
                for found in parallel(calls[start : start + number]):
                    yield from found

    def by_dask(
        self, packed: Packed, tasks: Sequence[Sequence[Run]]
    ) -> Generator[Outcome | Failure]:
        """Through the client of joblib's backend for Dask.

        ``joblib.Parallel`` would wait forever for a task that killed its workers, or that they
        cannot read; and where all workers that hold the data were lost, it would give up.
        """
        from distributed import as_completed

        client, options = self.backend.client, self.backend.submit_kwargs
        left = dict(enumerate(tasks))
        while left:
            client.wait_for_workers(1)  # of a queue it may take hours
            data = client.scatter(packed, broadcast=True, hash=False)
            futures = {
                client.submit(work, data, task, pure=False, **options): number
                for number, task in left.items()
            }
            before = len(left)
            try:
                for future, result in as_completed(futures, with_results=True, raise_errors=False):
                    task = left[futures[future]]
                    if future.status == "finished":
                        del left[futures[future]]
                        yield from result
                    elif future.status == "error":
                        raise RuntimeError(not_run(task, future.exception()))
                    # else the data were on workers that are lost: once more, with the data
            finally:
                client.cancel([data, *futures])
            if len(left) == before:
                raise RuntimeError(not_run(next(iter(left.values())), None))


@contextmanager
def dask_scheduler(address: str | None) -> Generator[None]:
    """Inside, runs go to the workers of a scheduler of Dask, by its address or its .json file."""
    if address is None:
        yield
        return
    import joblib

    try:
        from distributed import Client
    except ImportError:
        raise ImportError("--dask needs Dask: pip install distributed") from None
    if address.endswith(".json") and not Path(address).exists():  # Dask would wait for it
        raise ValueError(
            f"--dask: {address} does not exist; dask scheduler --scheduler-file {address} writes it"
        )
    where = {"scheduler_file" if address.endswith(".json") else "address": address}
    with Client(**where), joblib.parallel_config(backend="dask"):
        yield


def not_run(task: Sequence[Run], error: BaseException | None) -> str:
    """What to do about a task that the workers could not run."""
    run = task[0]
    where = f"row {run.name!r}, repeat {run.repeat}, fold {run.fold}"
    if error is None or type(error).__name__ == "KilledWorker":
        return (
            f"the workers of the cluster were lost again and again, the last ones in {where}: if "
            f"they ran out of memory, give each of them more. Runs that are finished are kept "
            f"where there is a cache"
        )
    return (
        f"the workers of the cluster could not run {where}: {type(error).__name__}: {error}. They "
        f"need the same packages as this process, and the modules that entries and fit import"
    )


def tasks_of(plan: Plan, runs: Sequence[Run]) -> list[list[Run]]:
    """Each run by itself; but small heads together, of which each takes less than a second."""
    alone: list[list[Run]] = []
    by_steps: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        steps = steps_together(plan, run)
        if steps is None:
            alone.append([run])
        else:
            by_steps[steps].append(run)
    together = [
        members[start : start + TOGETHER]
        for members in by_steps.values()
        for start in range(0, len(members), TOGETHER)
    ]
    return alone + together


def steps_together(plan: Plan, run: Run) -> int | None:
    """Steps of an epoch of a head that is trained with others; None of all other runs."""
    head = plan.fit
    if type(head) is not Head or head.num_together < FEWEST:
        return None
    training = attempt(training_of, plan, run)
    if isinstance(training, Failure) or not head.can_share(training):
        return None
    return head.steps(training)


def work(packed: Packed, runs: Sequence[Run]) -> list[Outcome | Failure]:
    """In a worker: do some runs."""
    with IN_TURN:
        plan: Plan = pickle.loads(packed.data)
        if type(plan.fit) is Head:  # as it is here
            plan.fit.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if steps_together(plan, runs[0]) is not None:
            outcomes = attempt(
                train_together, plan, [(run, training_of(plan, run)) for run in runs]
            )
            if not isinstance(outcomes, Failure):
                found: list[Outcome | Failure] = outcomes
                return found
        # one by one: an error then says which row it is of
        return [attempt(execute, plan, run, None) for run in runs]
