"""All runs: heads on small tables together in one process, all else in several processes."""

from __future__ import annotations

import copy
import itertools
import sys
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from sampleweights.compare.training.failures import attempt, succeeded
from sampleweights.compare.training.fitted import recall_of, recall_of_labels
from sampleweights.compare.training.head import Head, Training
from sampleweights.compare.training.protocol import (
    Outcome,
    Plan,
    Run,
    built_for,
    checked,
    execute,
    keep,
    kept,
    one_thread,
    paths_of,
    seed_of,
)

__all__ = ["run_all"]

BAR = "{percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} runs in {elapsed}, about {remaining} left"
SECONDS_TO_START = 5
"""Of a process, which imports torch."""
FEWEST = 4
"""Trainings of which a step fits into the cache, from which on threads are better than processes,
of which each takes seconds to start."""


def run_all(
    plan: Plan,
    workers: int,
    progress: bool,
    tell: Callable[[str, list[Outcome]], str],
    elsewhere: Callable[..., Generator[Outcome]] | None = None,
) -> dict[str, list[Outcome]]:
    """Do the runs that are not kept, a row after the other.

    ``tell`` makes a line of a row whose runs are all done; ``elsewhere`` does the runs on a
    cluster, if there is one.
    """
    from tqdm import tqdm

    repeats, folds = plan.counts.shape[:2]
    runs = [Run(n, r, k) for n in plan.entries for r in range(repeats) for k in range(folds)]
    paths = paths_of(plan, runs)
    before = [outcome for run in runs if (outcome := kept(run, paths[run])) is not None]
    done: dict[Run, Outcome] = {}
    # what is kept took no time, and several runs may be finished at once
    with tqdm(
        total=len(runs), initial=len(before), smoothing=0, bar_format=BAR, disable=not progress
    ) as bar:

        def add(outcome: Outcome, step: int = 1) -> None:
            done[outcome.run] = outcome
            bar.update(step)
            name = outcome.run.name
            of_row = [done[run] for run in runs if run.name == name and run in done]
            if progress and len(of_row) == repeats * folds:
                bar.write(tell(name, of_row), file=sys.stderr)

        for outcome in before:
            add(outcome, 0)
        left = [run for run in runs if run not in done]
        if elsewhere is not None and left:
            with closing(elsewhere(plan, left, paths)) as outcomes:
                for outcome in outcomes:
                    add(outcome)
            left = []
        # one thread in each operation, so that their number does not change a sum
        with one_thread(), closing(together(plan, left, paths, workers)) as groups:
            for group in groups:
                for outcome in group:
                    add(outcome)
        left = [run for run in left if run not in done]
        workers = processes(plan, left, workers)
        if workers == 1:
            for run in left:
                add(execute(plan, run, paths[run]))
        else:
            for outcome in in_processes(plan, left, paths, workers):
                add(outcome)
    return {name: [done[run] for run in runs if run.name == name] for name in plan.entries}


def together(
    plan: Plan, runs: Sequence[Run], paths: Mapping[Run, Path | None], workers: int
) -> Generator[list[Outcome]]:
    """The outcomes of the heads that are small enough to be trained together, as they come."""
    head = plan.fit
    if type(head) is not Head or head.num_together < FEWEST:
        return
    by_steps: dict[int, list[tuple[Run, Training]]] = defaultdict(list)
    for run in runs:
        training = training_of(plan, run)
        if head.can_share(training):
            # of its own: an entry may build the same one for all runs, whose epochs differ
            training.criterion = copy.deepcopy(training.criterion)
            by_steps[head.steps(training)].append((run, training))
    groups = []
    for members in by_steps.values():
        number = -(-len(members) // head.num_together)
        number = min(-(-number // workers) * workers, len(members))  # one for each thread
        edges = [len(members) * k // number for k in range(number + 1)]
        groups += [members[a:b] for a, b in itertools.pairwise(edges)]
    stop = threading.Event()

    def train(members: Sequence[tuple[Run, Training]]) -> list[Outcome]:
        outcomes = train_together(plan, members, stop.is_set)
        for outcome in outcomes:
            keep(outcome, paths[outcome.run])
        return outcomes

    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(train, members): members for members in groups}
        try:
            for future in as_completed(futures):
                if isinstance(future.exception(), Exception):
                    # one by one: an error then says which row it is of
                    yield [execute(plan, run, paths[run]) for run, _ in futures[future]]
                else:
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def train_together(
    plan: Plan,
    members: Sequence[tuple[Run, Training]],
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Heads that `together` has put into one group."""
    start = time.perf_counter()
    trained = plan.fit.together([training for _, training in members], stop)  # type: ignore[attr-defined]
    seconds = (time.perf_counter() - start) / len(members)
    outcomes = []
    for (run, training), result in zip(members, trained, strict=True):
        logits = checked(plan, run, result.logits, len(training.validation))
        if plan.target.ndim == 2:
            recall = recall_of_labels(result.target, result.predicted)
        else:
            recall = recall_of(result.target, result.predicted, plan.num_classes)
        outcomes.append(Outcome(run, logits, True, seconds, recall))
    return outcomes


def training_of(plan: Plan, run: Run) -> Training:
    """What a head is trained with."""
    criterion, make_sampler, train, validation = built_for(plan, run)
    seed = seed_of(plan, run)
    sampler = make_sampler and make_sampler(torch.from_numpy(plan.target[train]), seed=seed)
    return Training(criterion, train, validation, sampler, seed)


def processes(plan: Plan, runs: Sequence[Run], workers: int) -> int:
    """How many to start; one where more would take longer to start than they save."""
    workers = max(min(workers, len(runs)), 1)
    saved = np.inf
    if type(plan.fit) is Head:
        saved = len(runs) * plan.fit.seconds * (1 - 1 / workers)
    return workers if saved > SECONDS_TO_START else 1


def in_processes(
    plan: Plan, runs: Sequence[Run], paths: Mapping[Run, Path | None], workers: int
) -> Iterator[Outcome]:
    """The outcomes as they come; if this is left early, joblib kills the workers.

    It does not wait for the thread that fed them. A process that ends while that thread gives its
    semaphores back reports them as leaked, in a warning after the sentence that should come last.
    """
    import joblib

    others = threading.enumerate()
    parallel = joblib.Parallel(workers, return_as="generator_unordered")
    calls = (joblib.delayed(attempt)(execute, plan, run, paths[run]) for run in runs)
    results = parallel(calls)
    try:
        yield from succeeded(results)
    except BaseException:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there was work left
            results.close()
        for thread in threading.enumerate():
            if thread.name == "QueueFeederThread" and thread not in others:
                thread.join(timeout=5)
        raise
