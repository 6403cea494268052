"""Reads a loader so that each sample of its data set comes once, whatever it draws or drops."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    default_collate,
    default_convert,
)

from sampleweights.datasets import without_index


def each_sample_once(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A loader of the same batches that draws no sample twice and drops none."""
    options: dict[str, Any] = {
        "collate_fn": loader.collate_fn,
        "num_workers": loader.num_workers,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "timeout": loader.timeout,
        "generator": torch.Generator(),  # the global one is not ours to advance
    }
    if isinstance(loader.dataset, IterableDataset):
        return (
            DataLoader(loader.dataset, loader.batch_size, **options) if loader.drop_last else loader
        )
    dataset: Any = loader.dataset
    if loader.collate_fn in (default_collate, default_convert):  # others may need the index
        dataset = without_index(dataset)
    size = len(dataset)
    batches: Any = loader.batch_sampler
    while not _is_known(batches) and hasattr(batches, "batch_sampler"):  # Accelerate's parts
        batches = batches.batch_sampler
    batch_size: int | None = 1
    if batches is None:
        batch_size, indices = None, _drawn_from(loader.sampler, size)
    elif _is_known(batches):
        batch_size, indices = batches.batch_size, _drawn_from(batches.sampler, size)
        is_whole = isinstance(batches.sampler, SequentialSampler) and not batches.drop_last
        if is_whole and dataset is loader.dataset:
            return loader
    else:
        indices = _permuted(itertools.chain.from_iterable(batches), batches, size)
    return DataLoader(dataset, batch_size, sampler=indices, **options)


def _is_known(sampler: Any) -> bool:
    return type(sampler).__module__.partition(".")[0] in {"torch", "torchdata", "sampleweights"}


def _drawn_from(sampler: Any, size: int) -> Sequence[int]:
    """The indices from which a sampler draws."""
    if _is_known(sampler) or isinstance(getattr(sampler, "data_source", None), Dataset):
        if hasattr(sampler, "data_source"):  # sequential and random ones
            return range(len(sampler.data_source))
        if hasattr(sampler, "indices"):  # SubsetRandomSampler
            return [int(index) for index in sampler.indices]
        if hasattr(sampler, "weights"):  # weighted ones
            return [i for i, weight in enumerate(sampler.weights.tolist()) if weight > 0]
        if isinstance(sampler, DistributedSampler):
            return range(len(sampler.dataset))  # type: ignore[arg-type]
    return _permuted(sampler, sampler, size)


def _permuted(indices: Iterable[Any], sampler: Any, size: int) -> Sequence[int]:
    """All indices, where a sampler that nobody knows draws each of them once."""
    if sorted(itertools.islice(indices, size + 1)) == list(range(size)):  # it may be endless
        return range(size)
    raise ValueError(
        f"targets must hold each sample once, got a DataLoader whose {type(sampler).__name__} "
        f"chooses among them: pass the data set, or its class indices"
    )
