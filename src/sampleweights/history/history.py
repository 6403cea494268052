"""The history of each sample during training: the answer to "which of my samples matter?"."""

from __future__ import annotations

import itertools
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
from sampleweights.history import state
from sampleweights.history.data_map import draw
from sampleweights.history.observations import add_to_mean, observe, vote
from sampleweights.history.scores import scores_of
from sampleweights.losses.base import Criterion
from sampleweights.losses.processes import world_size

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["LossHistory"]

_NUMBERS = itertools.count()  # tells histories apart, alike in all processes


class LossHistory(Unscripted):
    r"""Records loss, weight, margin and correctness of every sample of a data set in every epoch.

    ::

        history = LossHistory(len(dataset))
        for epoch in range(num_epochs):
            criterion.set_epoch(epoch)
            for images, target, index in loader:  # of WithIndex(dataset)
                logits = model(images)
                with history.record(criterion, index):
                    loss = criterion(logits, target)
                ...
            history.end_epoch()
        history.to_pandas().sort_values("importance")

    The history is not part of the criterion, since DDP would overwrite it with the history of the
    first process. Recording does not synchronise with the GPU: one operation adds a batch to a
    matrix of sums. Everything is a buffer, so that ``state_dict`` includes it. If you load it into
    a history of another size, what both have in common is kept, and a warning says so. With several
    processes call ``state_dict`` in each of them: within an epoch each knows only its own part.

    Args:
        num_samples: the number of samples of the data set. Each ``index`` is below it.
        num_epochs: if given, the loss and the weight in each of these epochs are kept as well
            (``losses``, ``weights``: (num_epochs, num_samples), float16, NaN where not seen).
            :func:`~sampleweights.history.write_page` draws them as trajectories.

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
    current_classes: Tensor
    epochs: Tensor
    process: Tensor
    epochs_seen: Tensor
    epochs_judged: Tensor
    times: Tensor
    times_judged: Tensor
    times_kept: Tensor
    forgotten: Tensor
    loss: Tensor
    loss_squares: Tensor
    p: Tensor
    p_squares: Tensor
    margin: Tensor
    correct: Tensor
    weight: Tensor
    label: Tensor
    rival: Tensor
    lead: Tensor
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
        for name, buffer in state.fresh(num_samples, self.num_epochs).items():
            self.register_buffer(name, buffer)
        self._number, self._saved, self._exchange = next(_NUMBERS), 0, state.Exchange()

    # -----------------------------------------------------------------------------------------
    # Recording
    # -----------------------------------------------------------------------------------------

    @contextmanager
    def record(self, criterion: Criterion, index: Tensor) -> Iterator[None]:
        """Record the call of ``criterion`` inside the ``with``, of samples ``index`` (N,) int64.

        You can also record a call of :func:`~sampleweights.selective_loss`, and a criterion that
        is compiled or is called in a compiled model; its graph stays whole. Value and gradient are
        those of the call without ``record``.

        Raises:
            RuntimeError: no call of ``criterion``, or several.
        """
        criterion = getattr(criterion, "_orig_mod", criterion)  # of torch.compile
        if not isinstance(criterion, Criterion):
            raise TypeError(
                f"criterion must be a loss of sampleweights, got {type(criterion).__name__}; wrap "
                "another one in WeightedLoss, or call update() with its losses"
            )
        with criterion.recording() as found:
            yield
        if len(found) != 1:
            raise RuntimeError(
                f"record() must hold exactly one call of its criterion, got {len(found)}"
            )
        [(samples, weight)] = found
        of = (samples.loss, weight, samples.valid, samples.logits, samples.target, samples.judged)
        self._add(index, *of)

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
              A sample whose target is no class is not judged.
        """
        self._add(index, loss, weight, valid, logits, target)

    @torch.no_grad()
    def _add(self, index: Tensor, loss: Tensor, *others: Any) -> None:
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
        observed, classes = observe(loss, *others)
        classes = None if classes is None else classes.to(current.device)
        state.add(current, self.current_classes, index, observed.to(current), classes)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Close the epoch, and add up what all processes have seen. All of them must call it."""
        current, classes = self.current, self.current_classes
        if world_size() > 1:
            torch.distributed.all_reduce(current)
            torch.distributed.all_reduce(classes, torch.distributed.ReduceOp.MAX)
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
        self.times_judged += judged.round().int()
        self.correct += correct
        p, margin, correct = (value / judged.clamp(min=1) for value in (p, margin, correct))
        add_to_mean(self.p, self.p_squares, p, has_label, self.epochs_judged)
        self.margin += margin
        label, rival = classes.unbind(1)
        self.label.copy_(torch.where(label >= 0, label, self.label))
        vote(self.rival, self.lead, rival)
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
        classes.fill_(-1)
        self._saved = 0

    # -----------------------------------------------------------------------------------------
    # What it says
    # -----------------------------------------------------------------------------------------

    def scores(self) -> dict[str, Tensor]:
        r"""Return each score, (num_samples,); NaN for samples without losses or predictions.

        ============================ ===========================================================
        ``importance``               total weight of the sample
        ``kept``                     share of its presentations in which the weight was above 0;
                                     for a dense loss, of its valid positions
        ``mean_loss``, ``loss_std``  mean and standard deviation of its loss over the epochs
        ``confidence``               mean probability of its label (data map, vertical)
        ``variability``              standard deviation of this probability (data map, horizontal)
        ``area_under_margin``        mean difference of its label's logit and the highest other one
        ``adjusted_margin``          the same, without what its class suffers for being rare: below
                                     0 its label is suspicious
        ``rival``                    the class of the highest other logit in most epochs (by a
                                     majority vote); -1: unknown
        ``correctness``              share of its presentations that were classified as labelled
        ``forgetting_events``        how often its classification changed from right to wrong
        ``first_learned``            epoch in which it was first classified correctly; -1: never
        ``times``                    number of presentations
        ============================ ===========================================================

        A model that is trained without weights prefers the frequent classes. The margin of every
        sample of a rare class is therefore low, whether or not its label is right. With the mean
        probability :math:`t_c` of the label over all samples labelled c, and the rival r,

        .. math:: \text{adjusted margin}_j = \text{margin}_j - \min(0, \log(t_{y_j} / t_{r_j})).

        Scores cover the epochs that ``end_epoch()`` has closed. A warning says so if batches were
        recorded after the last ``end_epoch()``.
        """
        if self.current[:, 0].any():
            warnings.warn(
                f"scores cover the {int(self.epochs)} closed epochs, not the batches recorded "
                "since: call end_epoch() first",
                stacklevel=2,
            )
        return scores_of(self)

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

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if world_size() > 1:
            self._saved += 1
            key = f"{self._number}/{int(self.epochs)}/{self._saved}"
            parts = self._exchange.parts(self.current, self.current_classes, key)
            destination.update({prefix + name: value for name, value in parts.items()})

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._saved = 0
        adapted = state.adapt(state_dict, prefix, self.num_samples, self.num_epochs)
        super()._load_from_state_dict(adapted, prefix, *args, **kwargs)
