"""Several weighters, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from sampleweights.reduction import weigh
from sampleweights.weighters.base import Weighter

__all__ = ["Compose"]


class Compose(Weighter):
    r"""Multiplies the weights of several weighters, which are applied in order.

    .. math::
        w_j = \prod_k w_j^{(k)}, \quad w^{(k)} \ \text{computed on the losses}\
        \ell_j \prod_{i < k} w_j^{(i)}

    Each weighter sees the loss multiplied by the weights before it, so the order matters:
    ``[ClassBalanced(...), OHEM(...)]`` ranks samples by class-weighted loss, and ``[OHEM(...),
    ClassBalanced(...)]`` by the loss itself. A sample with weight 0 is not valid for the weighters
    after it: they neither rank nor count it. ``[OHEM(schedule=0.5), SelfPaced(schedule=0.5)]``
    therefore keeps the easier half of the harder half. Criteria turn a list into a ``Compose``.

    Shape:
        - loss, target, valid, Output: as for every :class:`Weighter`.

    Args:
        weighters: at least one weighter; lists may be nested.

    Raises:
        ValueError: no weighter, or weighters for different numbers of classes.
        TypeError: an item that is not a weighter.

    Example:
        >>> import torch
        >>> from sampleweights import ClassBalanced, Compose, OHEM
        >>> loss, target = torch.tensor([1.0, 1.1, 1.2, 0.9]), torch.tensor([1, 0, 0, 0])
        >>> balanced, hard = ClassBalanced([3, 1]), OHEM(schedule=0.25)
        >>> Compose([balanced, hard])(loss, target)
        tensor([2., 0., 0., 0.])
        >>> Compose([hard, balanced])(loss, target)
        tensor([0.0000, 0.0000, 0.6667, 0.0000])

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Sec. 6.
    """

    def __init__(self, weighters: Iterable[Weighter | Sequence[Weighter]]) -> None:
        super().__init__()
        if not isinstance(weighters, Iterable):
            raise TypeError(f"weighters must be a list of weighters, got {weighters!r}")
        parts = [as_weighter(weighter) for weighter in weighters]
        if not parts:
            raise ValueError("weighters must hold at least one weighter, got none")
        self.weighters = nn.ModuleList(parts)
        made_for = {part.num_classes for part in parts if part.num_classes is not None}
        if len(made_for) > 1:
            raise ValueError(
                f"weighters must be made for the same number of classes, got {sorted(made_for)}"
            )
        self.num_classes = made_for.pop() if made_for else None

    @property
    def inactive(self) -> bool:
        return all(weighter.inactive for weighter in self._parts())

    @property
    def is_local(self) -> bool:  # type: ignore[override]
        return all(weighter.is_local for weighter in self._parts())

    @property
    def is_elementwise(self) -> bool:  # type: ignore[override]
        return all(weighter.is_elementwise for weighter in self._parts())

    def skip(self) -> None:
        for weighter in self._parts():
            weighter.skip()

    def forward(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        weight = self._product(self._parts(), loss, target, valid)
        assert weight is not None  # there is at least one weighter
        return weight

    @property
    def class_factor(self) -> Tensor | None:
        product: Tensor | None = None
        for weighter in self._parts():
            factor = weighter.class_factor
            if factor is not None:
                product = factor if product is None else product * factor
        return product

    def without_class_weights(
        self, loss: Tensor, target: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor | None:
        parts = [weighter.without_class_weights for weighter in self._parts()]
        return self._product(parts, loss, target, valid)

    def _parts(self) -> list[Weighter]:
        return list(self.weighters)  # type: ignore[arg-type]

    def _product(
        self,
        parts: Sequence[Callable[..., Tensor | None]],
        loss: Tensor,
        target: Tensor | None,
        valid: Tensor | None,
    ) -> Tensor | None:
        product: Tensor | None = None
        may_drop = False
        for part in parts:
            if product is not None and may_drop:
                # a sample that was dropped is neither ranked nor counted by the others
                kept = product != 0
                valid = kept if valid is None else valid & kept
            weight = part(loss if product is None else weigh(loss, product), target, valid)
            if weight is not None:
                product = weight if product is None else product * weight
                may_drop = may_drop or getattr(part, "may_drop", True)
        return product


def as_weighter(weighter: Weighter | Sequence[Weighter]) -> Weighter:
    """A weighter as it is, a list or tuple of them as :class:`Compose`."""
    if isinstance(weighter, Weighter):
        return weighter
    if isinstance(weighter, (list, tuple)):
        return Compose(weighter)
    raise TypeError(f"weighter must be a Weighter or a list of them, got {type(weighter).__name__}")
