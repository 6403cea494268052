"""What a history saves, and what it makes of a saved one: old ones, other sizes, other processes.

Of an epoch that has not ended, each process knows only what it has seen itself. A saved history
therefore says whose part it holds. Who loads it takes the parts of its own processes and nothing
else, so that each presentation counts once, whether one process has saved and all load, or each
loads its own; of another number of processes, process r of n takes the parts r, r + n, ...
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sampleweights.history.observations import CLASSES, COLUMNS
from sampleweights.losses.processes import world_size

PATIENCE = timedelta(seconds=5)
"""How long the first process waits for the parts of the others."""

_PART = 2 + len(COLUMNS) + len(CLASSES)
_NEW = ("times_judged", "label", "rival", "lead", "current_classes", "process", "others")


def fresh(num_samples: int, num_epochs: int) -> dict[str, Tensor]:
    """The buffers of a history of nothing."""
    state = {
        "current": torch.zeros(num_samples, len(COLUMNS)),
        "current_classes": torch.full((num_samples, len(CLASSES)), -1, dtype=torch.int32),
        "epochs": torch.zeros((), dtype=torch.int64),
        "process": torch.zeros((), dtype=torch.int64),  # whose part the open epoch is
        "others": torch.zeros(0, _PART, dtype=torch.float64),  # only in what is saved
    }
    counts = ("epochs_seen", "epochs_judged", "times", "times_judged", "forgotten", "lead")
    for name in counts:
        state[name] = torch.zeros(num_samples, dtype=torch.int32)
    for name in ("loss", "loss_squares", "p", "p_squares", "margin", "correct"):
        state[name] = torch.zeros(num_samples)
    for name in ("weight", "times_kept"):  # of a dense loss a share is kept: no whole number
        state[name] = torch.zeros(num_samples)
    state["was_correct"] = torch.zeros(num_samples, dtype=torch.bool)
    for name in ("first_learned", "label", "rival"):
        state[name] = torch.full((num_samples,), -1, dtype=torch.int32)
    for name in ("losses", "weights"):
        state[name] = torch.full((num_epochs, num_samples), torch.nan, dtype=torch.float16)
    return state


def rank() -> int:
    """Which of the processes this is; 0 where there is one."""
    return dist.get_rank() if world_size() > 1 else 0


class Exchange:
    """How the first process gets the parts of the others where all of them save.

    The others leave their parts in the store through which the processes have met, and go on. A
    collective would wait for ever where only the first process saves.
    """

    def __init__(self) -> None:
        self.patience = PATIENCE

    def parts(self, current: Tensor, classes: Tensor, key: str) -> dict[str, Tensor]:
        """What a process saves of the open epoch beside what it has seen itself."""
        own = _part(current, classes)
        process = torch.tensor(rank() if len(own) else 0)
        others = torch.zeros(0, _PART, dtype=torch.float64)
        # between two epochs all processes hold the same
        if rank() > 0 or len(own):
            key = f"sampleweights.LossHistory/{key}"
            store: Any = getattr(dist.distributed_c10d, "_get_default_store", lambda: None)()
            if rank() == 0:
                others = self._collect(store, key)
            elif store is not None:
                store.set(f"{key}/{rank()}", b"." + own.numpy().tobytes())  # never empty
        return {"process": process, "others": others}

    def _collect(self, store: Any, key: str) -> Tensor:
        keys = [f"{key}/{other}" for other in range(1, world_size())]
        parts = [torch.zeros(0, _PART, dtype=torch.float64)]
        try:
            if store is None:
                raise RuntimeError("no store")
            store.wait(keys, self.patience)
        except RuntimeError:
            self.patience = timedelta(milliseconds=1)  # who saves alone waits once
            warnings.warn(
                "the state of this LossHistory holds only what process 0 has seen of the open "
                "epoch, since the other processes have not called state_dict(): call it in every "
                "process, or save after end_epoch()",
                stacklevel=2,
            )
            return parts[0]
        for one in keys:
            value = bytearray(store.get(one)[1:])
            if value:
                part = torch.frombuffer(value, dtype=torch.float64)
                parts.append(part.reshape(-1, _PART))
            store.delete_key(one)
        return torch.cat(parts)


def _part(current: Tensor, classes: Tensor) -> Tensor:
    """What this process has seen of the open epoch: process, sample, ``COLUMNS``, ``CLASSES``."""
    index = (current[:, 0] != 0).nonzero()[:, 0]
    process = torch.full_like(index, rank())
    rows = [process[:, None], index[:, None], current[index], classes[index]]
    return torch.cat([row.double() for row in rows], 1).cpu()


def adapt(state: dict[str, Any], prefix: str, num_samples: int, num_epochs: int) -> dict[str, Any]:
    """The saved state as a history of this size, in this process, loads it.

    What is missing or of other columns is left for torch to report.
    """
    state = dict(state)
    new = fresh(num_samples, num_epochs)
    losses = state.get(f"{prefix}losses")
    if losses is not None and losses.ndim == 2:
        _complete_old(state, prefix, fresh(losses.shape[1], losses.shape[0]))
    _take_own_parts(state, prefix)
    if losses is None or losses.ndim != 2 or losses.shape == (num_epochs, num_samples):
        return state
    warnings.warn(
        f"the saved history is of {losses.shape[1]} samples and {losses.shape[0]} epochs, "
        f"this one of {num_samples} and {num_epochs}: what both have is kept, the rest is new",
        stacklevel=3,
    )
    for name, buffer in new.items():
        value = state.get(prefix + name)
        if value is None or (name.startswith("current") and value.shape[1:] != buffer.shape[1:]):
            continue
        both = tuple(map(slice, map(min, buffer.shape, value.shape)))
        buffer[both] = value[both]
        state[prefix + name] = buffer
    return state


def _complete_old(state: dict[str, Any], prefix: str, new: dict[str, Tensor]) -> None:
    """What version 0.1.0 did not save. It added up the share of each epoch that was right."""
    if any(prefix + name in state for name in _NEW):
        return
    state.update({prefix + name: new[name] for name in _NEW})
    needed = ("times", "epochs_seen", "epochs_judged", "correct")
    if all(prefix + name in state for name in needed):
        times, seen, judged, correct = (state[prefix + name] for name in needed)
        times_judged = (times * judged / seen.clamp(min=1)).round()
        state[f"{prefix}correct"] = correct * times_judged / judged.clamp(min=1)
        state[f"{prefix}times_judged"] = times_judged.to(times.dtype)


def _take_own_parts(state: dict[str, Any], prefix: str) -> None:
    names = [prefix + name for name in ("current", "current_classes", "process", "others")]
    if any(name not in state for name in names):
        return
    current, classes, process, others = (state[name] for name in names)
    if current.shape[1:] != (len(COLUMNS),) or others.shape[1:] != (_PART,):
        return
    is_own = int(process) % world_size() == rank()
    current = current.clone() if is_own else torch.zeros_like(current)
    classes = classes.clone() if is_own else torch.full_like(classes, -1)
    others = others[others[:, 0].long() % world_size() == rank()].to(current.device)
    index, seen, of = others[:, 1].long(), others[:, 2 : -len(CLASSES)], others[:, -len(CLASSES) :]
    add(current, classes, index, seen.to(current), of.to(classes))
    state.update(zip(names, (current, classes, process * 0, others[:0]), strict=True))


def add(current: Tensor, classes: Tensor, index: Tensor, seen: Tensor, of: Tensor | None) -> None:
    """Add rows to an open epoch. Of several classes of one sample the highest is kept."""
    current.index_add_(0, index, seen)
    if of is not None:
        classes.scatter_reduce_(0, index[:, None].expand_as(of), of, "amax")
