"""The history of each sample during training: the answer to "which of my samples matter?"."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sampleweights._buffers import Unscripted
from sampleweights._checks import check_tensor, is_index
from sampleweights._eager import is_readable
from sampleweights.history.data_map import draw
from sampleweights.history.observations import COLUMNS, add_to_mean, observe
from sampleweights.losses.base import Criterion, Samples, world_size

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["LossHistory"]


class LossHistory(Unscripted):
    r"""Records loss, weight, margin and correctness of every sample of a data set in every epoch.

    ::

        history = LossHistory(len(dataset))
        for epoch in range(num_epochs):
            criterion.set_epoch(epoch)
            for index, images, target in loader:
                logits = model(images)
                with history.record(criterion, index):
                    loss = criterion(logits, target)
                ...
            history.end_epoch()
        history.to_pandas().sort_values("importance")

    The history is not part of the criterion, since DDP would overwrite it with the history of the
    first process. Recording does not synchronise with the GPU: one operation adds a batch to a
    matrix of sums. Everything is a buffer, so that ``state_dict`` includes it. If you load it into
    a history of another size, what both have in common is kept, and a warning says so.

    Args:
        num_samples: the number of samples of the data set. Each ``index`` is below it.
        num_epochs: if given, the loss and the weight in each of these epochs are kept as well
            (``losses``, ``weights``: (num_epochs, num_samples), float16, NaN where not seen).
            :func:`~sampleweights.history.page.write_page` draws them as trajectories.

    Raises:
        TypeError, ValueError: numbers that are not whole, or below 1.

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, LossHistory, OHEM
        >>> criterion, history = CrossEntropyLoss(weighter=OHEM(schedule=0.5)), LossHistory(4)
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 4.0]])
        >>> with history.record(criterion, torch.arange(4)):
        ...     loss = criterion(logits, torch.tensor([0, 0, 1, 1]))
        >>> history.end_epoch()
        >>> history.scores()["importance"]
        tensor([0., 1., 1., 0.])
        >>> history.scores()["area_under_margin"]
        tensor([ 3., -1.,  2.,  4.])

    References:
        Swayamdipta et al., Dataset Cartography, EMNLP 2020 (confidence, variability).
        Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking,
        NeurIPS 2020.
        Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019.
    """

    current: Tensor
    epochs: Tensor
    epochs_seen: Tensor
    epochs_judged: Tensor
    times: Tensor
    times_kept: Tensor
    forgotten: Tensor
    loss: Tensor
    loss_squares: Tensor
    p: Tensor
    p_squares: Tensor
    margin: Tensor
    correct: Tensor
    weight: Tensor
    was_correct: Tensor
    first_learned: Tensor
    losses: Tensor
    weights: Tensor

    def __init__(self, num_samples: int, num_epochs: int | None = None) -> None:
        super().__init__()
        numbers_given: dict[str, Any] = {"num_samples": num_samples, "num_epochs": num_epochs}
        for name, value in numbers_given.items():
            if value is not None and not isinstance(value, numbers.Integral):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_samples, self.num_epochs = num_samples, num_epochs or 0
        self.register_buffer("current", torch.zeros(num_samples, len(COLUMNS)))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        for name in ("epochs_seen", "epochs_judged", "times", "forgotten"):
            self.register_buffer(name, torch.zeros(num_samples, dtype=torch.int32))
        for name in ("loss", "loss_squares", "p", "p_squares", "margin", "correct"):
            self.register_buffer(name, torch.zeros(num_samples))
        for name in ("weight", "times_kept"):  # of a dense loss a share is kept: no whole number
            self.register_buffer(name, torch.zeros(num_samples))
        self.register_buffer("was_correct", torch.zeros(num_samples, dtype=torch.bool))
        self.register_buffer("first_learned", torch.full((num_samples,), -1, dtype=torch.int32))
        for name in ("losses", "weights"):
            empty = torch.full((self.num_epochs, num_samples), torch.nan, dtype=torch.float16)
            self.register_buffer(name, empty)

    # -----------------------------------------------------------------------------------------
    # Recording
    # -----------------------------------------------------------------------------------------

    @contextmanager
    def record(self, criterion: Criterion, index: Tensor) -> Iterator[None]:
        """Record the call of ``criterion`` inside the ``with``, of samples ``index`` (N,) int64.

        You can also record a call of :func:`~sampleweights.selective_loss`.

        Raises:
            RuntimeError: no call of ``criterion``, or several.
        """
        found: list[tuple[Samples, Tensor | None]] = []
        if not isinstance(criterion, Criterion):
            raise TypeError(
                f"criterion must be a loss of sampleweights, got {type(criterion).__name__}; wrap "
                "another one in WeightedLoss, or call update() with its losses"
            )
        with criterion.register_weighting_hook(
            lambda _, samples, weight: found.append((samples, weight))
        ):
            yield
        if len(found) != 1:
            raise RuntimeError(
                f"record() must hold exactly one call of its criterion, got {len(found)}"
            )
        [(samples, weight)] = found
        self.update(
            index,
            samples.loss,
            weight,
            logits=samples.logits,
            target=samples.target,
            valid=samples.valid,
        )

    @torch.no_grad()
    def update(
        self,
        index: Tensor,
        loss: Tensor,
        weight: Tensor | None = None,
        *,
        logits: Tensor | None = None,
        target: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Add a batch, with losses from any source.

        Shape:
            - index: (N,), integer.
            - loss, weight, valid: (N, ...). For a dense loss the mean over the valid positions
              is recorded. Weights are 1 if not given.
            - logits: (N, C), with target (N,) of class indices, for scores of the predictions.
        """
        current = self.current
        for name, tensor in (("index", index), ("loss", loss)):
            check_tensor(name, tensor)
        if not is_index(index):
            raise TypeError(f"index must hold positions (integer), got dtype {index.dtype}")
        index = index.to(current.device, torch.int64, non_blocking=True)
        if index.shape != loss.shape[:1]:
            raise ValueError(
                f"index must have one position for each of {len(loss)} samples, shape "
                f"({len(loss)},), got {tuple(index.shape)}"
            )
        if is_readable(index) and index.numel():
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= self.num_samples:
                raise IndexError(
                    f"index must be from 0 to {self.num_samples - 1}, got {low} to {high}"
                )
        observed = observe(loss, weight, valid, logits, target)
        current.index_add_(0, index, observed.to(current))

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Close the epoch, and add up what all processes have seen. All of them must call it."""
        current = self.current
        if world_size() > 1:
            torch.distributed.all_reduce(current)
        times, loss, weight, kept, judged, p, margin, correct = current.unbind(1)
        seen = times > 0
        self.epochs_seen += seen
        loss = loss / times.clamp(min=1)
        add_to_mean(self.loss, self.loss_squares, loss, seen, self.epochs_seen)
        self.times += times.round().int()
        self.times_kept += kept
        self.weight += weight
        has_label = judged > 0
        self.epochs_judged += has_label
        p, margin, correct = (value / judged.clamp(min=1) for value in (p, margin, correct))
        add_to_mean(self.p, self.p_squares, p, has_label, self.epochs_judged)
        self.margin += margin
        self.correct += correct
        right = correct > 0.5
        self.forgotten += has_label & self.was_correct & ~right
        self.was_correct.copy_(torch.where(has_label, right, self.was_correct))
        epoch = int(self.epochs)
        self.first_learned.masked_fill_(right & (self.first_learned < 0), epoch)
        if epoch < self.num_epochs:
            self.losses[epoch] = loss.where(seen, torch.nan).half()
            mean_weight = weight / times.clamp(min=1)
            self.weights[epoch] = mean_weight.where(seen, torch.nan).half()
        self.epochs += 1
        current.zero_()

    # -----------------------------------------------------------------------------------------
    # What it says
    # -----------------------------------------------------------------------------------------

    def scores(self) -> dict[str, Tensor]:
        """Return each score, (num_samples,); NaN for samples without losses or predictions.

        ============================ ===========================================================
        ``importance``               total weight of the sample
        ``kept``                     share of its presentations in which the weight was above 0;
                                     for a dense loss, of its valid positions
        ``mean_loss``, ``loss_std``  mean and standard deviation of its loss over the epochs
        ``confidence``               mean probability of its label (data map, vertical)
        ``variability``              standard deviation of this probability (data map, horizontal)
        ``area_under_margin``        mean difference of its label's logit and the highest other one
        ``correctness``              share of its presentations that were classified as labelled
        ``forgetting_events``        how often its classification changed from right to wrong
        ``first_learned``            epoch in which it was first classified correctly; -1: never
        ``times``                    number of presentations
        ============================ ===========================================================

        Scores cover the epochs that ``end_epoch()`` has closed. A warning says so if batches were
        recorded after the last ``end_epoch()``.
        """
        if self.current[:, 0].any():
            warnings.warn(
                f"scores cover the {int(self.epochs)} closed epochs, not the batches recorded "
                "since: call end_epoch() first",
                stacklevel=2,
            )
        seen, judged = self.epochs_seen > 0, self.epochs_judged > 0
        epochs, epochs_judged = self.epochs_seen.clamp(min=1), self.epochs_judged.clamp(min=1)

        def known(value: Tensor, where: Tensor) -> Tensor:
            return value.where(where, torch.nan)

        return {
            "importance": known(self.weight, seen),
            "kept": known(self.times_kept / self.times.clamp(min=1), seen),
            "mean_loss": known(self.loss, seen),
            "loss_std": known((self.loss_squares / epochs).sqrt(), seen),
            "confidence": known(self.p, judged),
            "variability": known((self.p_squares / epochs_judged).sqrt(), judged),
            "area_under_margin": known(self.margin / epochs_judged, judged),
            "correctness": known(self.correct / epochs_judged, judged),
            "forgetting_events": self.forgotten,
            "first_learned": self.first_learned,
            "times": self.times,
        }

    def to_pandas(self, **columns: Any) -> pd.DataFrame:
        """Return the scores as a table with a row for each sample, after the given ``columns``."""
        import pandas as pd

        scores = {name: value.cpu().numpy() for name, value in self.scores().items()}
        return pd.DataFrame({**columns, **scores}).rename_axis("sample")

    def to_parquet(self, path: str | Path, **columns: Any) -> None:
        """Write the table of ``to_pandas`` to a file (needs pyarrow)."""
        self.to_pandas(**columns).to_parquet(path)

    def plot_data_map(
        self,
        target: Tensor | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the data map: confidence over variability, with a dot for each sample.

        Easy samples are top left, hard and mislabelled samples are bottom left, and ambiguous
        samples are on the right. Needs matplotlib.

        Args:
            target: class indices, (num_samples,), for a colour for each class; samples below 0
                (ignored) are not drawn. None colours by ``correctness``.
            class_names: names for the legend; None uses the numbers of the classes.
            ax: the axes to draw on; None makes a figure.

        Raises:
            TypeError, ValueError: a ``target`` without a class index for each sample, a class
                without a name.

        References:
            Swayamdipta et al., Dataset Cartography, EMNLP 2020, Figure 1.
        """
        return draw(self.scores(), target, class_names, ax)

    def extra_repr(self) -> str:
        return f"num_samples={self.num_samples}" + (
            f", num_epochs={self.num_epochs}" if self.num_epochs else ""
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # sums follow the device, but a model's ``.half()`` does not round them
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}losses")
        here = (self.num_epochs, self.num_samples)
        if saved is not None and saved.ndim == 2 and saved.shape != here:
            warnings.warn(
                f"the saved history is of {saved.shape[1]} samples and {saved.shape[0]} epochs, "
                f"this one of {here[1]} and {here[0]}: what both have is kept, the rest is new",
                stacklevel=2,
            )
            state_dict = dict(state_dict)
            for name, fresh in LossHistory(here[1], here[0] or None).named_buffers():
                value = state_dict.get(prefix + name)
                if value is None or (name == "current" and value.shape[1:] != fresh.shape[1:]):
                    continue  # missing or of other columns: for torch to report
                both = tuple(map(slice, map(min, fresh.shape, value.shape)))
                fresh[both] = value[both]
                state_dict[prefix + name] = fresh
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
