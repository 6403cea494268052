"""Sample weights for any loss that gives one value per sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sampleweights.functional.reference import valid_mask
from sampleweights.losses.base import Criterion, Samples
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["WeightedLoss"]


class WeightedLoss(Criterion):
    r"""Sample weights for any loss that returns one value per sample.

    .. math:: \frac{1}{M} \sum_j w_j \, \ell(\text{logits}_j, \text{target}_j)

    Shape:
        - logits: the first argument of ``criterion``.
        - target: the second argument of ``criterion``. Weighters that need classes need class
          indices with the shape of the losses. To mark samples to leave out, a target may also have
          one value for all channels, :math:`(N, d_1, ...)` or :math:`(N, 1, d_1, ...)` for losses
          :math:`(N, C, d_1, ...)`, and losses may be flattened.
        - sample_weight: the shape of the losses or of their leading dimensions, at least 0. A
          NaN in a floating target adds exactly 0 where its weight is 0.
        - Output: scalar; the shape of the losses with ``reduction="none"``.

    Args:
        criterion: a module or function of (logits, target) that returns one value per sample. If
            it returns one value per element, every element is a sample. A module with a
            ``reduction`` must have ``reduction="none"``.
        ignore_index: the target value that marks a sample to leave out, also
            ``float("nan")``. None uses the one of ``criterion``: the ``ignore_index`` of a module,
            or of the modules inside it, if they agree; or the default of a function's argument of
            that name (``functools.partial(F.cross_entropy, reduction="none")``).
        reduction: "mean" (over the valid samples), "weighted_mean", "sum" or "none".
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.

    The call takes ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` as
    :class:`CrossEntropyLoss` does.

    Raises:
        TypeError: a ``criterion`` that is not callable.
        ValueError: a ``criterion`` that reduces its losses itself.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sampleweights import OHEM, WeightedLoss
        >>> criterion = WeightedLoss(nn.L1Loss(reduction="none"), weighter=OHEM(schedule=0.5))
        >>> criterion(torch.tensor([1.0, 5.0]), torch.tensor([0.0, 0.0]))
        tensor(2.5000)
    """

    def __init__(
        self,
        criterion: Callable[[Any, Tensor], Tensor],
        *,
        ignore_index: float | None = None,
        reduction: str = "mean",
        weighter: Weighter | Sequence[Weighter] | None = None,
        global_batch: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(
            reduction=reduction,
            weighter=weighter,
            global_batch=global_batch,
            process_group=process_group,
        )
        if not callable(criterion) or isinstance(criterion, type):
            raise TypeError(
                f"criterion must be a module or function of (logits, target), got {criterion!r}"
            )
        own = getattr(criterion, "reduction", "none")
        if own != "none":
            raise ValueError(
                f"criterion must return one value per sample (reduction='none'), got "
                f"{type(criterion).__name__}(reduction={own!r})"
            )
        self.criterion = criterion
        self._takes_logits = not isinstance(criterion, _WITH_HEAD)
        self._asked_to_ignore = ignore_index is not None
        self.ignore_index = _own_ignore_index(criterion) if ignore_index is None else ignore_index

    @property
    def has_class_probabilities(self) -> bool:  # type: ignore[override]
        """Told by a criterion whose losses are known; of another, the target has their shape."""
        own: bool | None = getattr(self.criterion, "has_class_probabilities", None)
        return isinstance(self.criterion, nn.CrossEntropyLoss) if own is None else own

    def samples(self, logits: Any, target: Tensor) -> Samples:
        valid = None
        if self._asked_to_ignore and target.is_floating_point():
            # before the criterion sees it, which may have no derivative there
            assert self.ignore_index is not None
            valid = valid_mask(target, self.ignore_index)
            target = target if valid is None else target.masked_fill(~valid, 0)
        loss = self.criterion(logits, target)
        if not isinstance(loss, Tensor) or (loss.ndim == 0 and target.ndim > 0):
            came = "a scalar" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"criterion must return one value per sample, got {came} for a target of shape "
                f"{tuple(target.shape)}"
            )
        if isinstance(logits, Tensor) and loss.numel() > max(logits.numel(), target.numel()):
            raise ValueError(
                f"criterion must return one value per sample, got {tuple(loss.shape)} values for "
                f"logits of shape {tuple(logits.shape)} and a target of shape "
                f"{tuple(target.shape)}, which were broadcast against each other"
            )
        if self.ignore_index is not None:
            if target.shape != loss.shape:
                target, valid = self._in_shape_of(loss, target, valid)
            elif valid is None:
                valid = valid_mask(target, self.ignore_index)
            if valid is not None:
                loss = loss.masked_fill(~valid, 0)
        takes_logits = self._takes_logits and isinstance(logits, Tensor)
        return Samples(loss, target, valid, logits=logits if takes_logits else None)

    def _in_shape_of(
        self, loss: Tensor, target: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Target and ``valid`` of losses that are flattened, or have channels that share a mark."""
        shape = _shape_of_marks(target, loss)
        if shape is None:
            if self._asked_to_ignore:
                raise ValueError(
                    f"ignore_index needs a target with the shape of the losses, "
                    f"{tuple(loss.shape)}, got {tuple(target.shape)}"
                )
            return target, None
        if valid is None and self.ignore_index is not None:
            valid = valid_mask(target, self.ignore_index)
        if valid is not None:
            valid = valid.reshape(shape).expand(loss.shape)
        return target.reshape(shape) if shape == loss.shape else target, valid

    def extra_repr(self) -> str:
        own = "" if isinstance(self.criterion, nn.Module) else f"criterion={self.criterion!r}"
        ignore = f"ignore_index={self.ignore_index}" if self._asked_to_ignore else ""
        reduction = "" if self.reduction == "mean" else f"reduction={self.reduction!r}"
        return ", ".join(filter(None, [own, ignore, reduction]))


_WITH_HEAD = tuple(filter(None, [getattr(nn, "LinearCrossEntropyLoss", None)]))
"""What takes hidden states, and no logits (torch 2.13 and later)."""


def _own_ignore_index(criterion: Callable[..., Tensor]) -> float | None:
    """The target value that ``criterion`` leaves out; None: none, or none that can be known."""
    value = _attribute(criterion)
    if value is None and isinstance(criterion, nn.Module):
        inner = {_attribute(module) for module in criterion.modules()} - {None}
        value = inner.pop() if len(inner) == 1 else None
    elif value is None:
        try:
            parameter = inspect.signature(criterion).parameters.get("ignore_index")
        except (TypeError, ValueError):  # a built-in without a signature
            return None
        value = None if parameter is None else parameter.default
    return value if isinstance(value, (int, float)) else None


def _attribute(criterion: Any) -> Any:
    value = getattr(criterion, "ignore_index", None)
    return -100 if value is None and isinstance(criterion, _WITH_HEAD) else value  # torch's None


def _shape_of_marks(target: Tensor, loss: Tensor) -> torch.Size | None:
    """The shape in which the marks of ``target`` expand to ``loss``; None where they do not fit."""
    if loss.ndim == 1 and target.numel() == loss.shape[0]:
        return loss.shape
    shared = torch.Size((*loss.shape[:1], 1, *loss.shape[2:]))
    without = torch.Size((*loss.shape[:1], *loss.shape[2:]))
    return shared if loss.ndim > 1 and target.shape in (shared, without) else None
