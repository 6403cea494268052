"""The sum of losses over the levels of a hierarchy of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sampleweights._checks import check_tensor, is_index
from sampleweights.losses.base import Criterion, Samples
from sampleweights.losses.softmax import SoftmaxLoss
from sampleweights.losses.weighted import WeightedLoss
from sampleweights.reduction import weigh
from sampleweights.taxonomy import Taxonomy
from sampleweights.weighters.base import Weighter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["HierarchicalLoss"]


class HierarchicalLoss(Criterion):
    r"""Sum of the losses of a sample over the levels of a class hierarchy, with sample weights.

    .. math:: \ell_j = \sum_{l=1}^{L_j} \ell^l(\text{logits}^l_j, y^l_j)

    Samples may end at different depths. For a level that a sample does not have, the target holds
    ``ignore_index``, and the level adds nothing. The weighter sees the summed loss and the leaf
    class. The criteria of single levels may have their own weighters, which weight that level.

    Shape:
        - logits: :math:`(N, L, K, ...)`, or a sequence of L tensors :math:`(N, K_l, ...)`. With a
          taxonomy, every level has one logit for each node of the taxonomy.
        - target: with a taxonomy the leaf classes :math:`(N, ...)`, -100 where ignored; without a
          taxonomy the class of each level, :math:`(N, L, ...)`.
        - leaf_target: without a taxonomy, class indices :math:`(N, ...)` for a weighter that needs
          classes.
        - sample_weight: :math:`(N, ...)`, or its leading dimensions, at least 0.
        - Output: scalar; :math:`(N, ...)` with ``reduction="none"``.

    Args:
        criterion: the loss of every level, or a list with one loss for each level. It is a loss of
            this library (its own ``reduction`` is ignored), or a module or function that returns
            one value per sample.
        taxonomy: the tree; None if the targets of the levels are given.
        reduction: "mean" (over the samples with at least one level), "weighted_mean", "sum" or
            "none".
        weighter: a :class:`~sampleweights.Weighter`, or a list of them, applied in order.
        global_batch: as in :class:`CrossEntropyLoss`.
        process_group: as in :class:`CrossEntropyLoss`.

    The call takes ``sample_weight=``, ``normalizer=`` and ``reference_loss=`` (one value for each
    summed loss) as :class:`CrossEntropyLoss` does.

    Raises:
        ValueError, TypeError: arguments, shapes or dtypes that do not fit.
        IndexError: a class out of range (on CUDA torch's device-side assertion).

    Example:
        >>> import torch
        >>> from sampleweights import CrossEntropyLoss, HierarchicalLoss, Taxonomy
        >>> tree = Taxonomy({"animal": ["cat", "dog"], "plant": ["oak"]})
        >>> criterion = HierarchicalLoss(CrossEntropyLoss(), taxonomy=tree)
        >>> logits = torch.zeros(2, tree.num_levels, tree.num_nodes)
        >>> criterion(logits, torch.tensor([0, 2]))  # 2 ln 5
        tensor(3.2189)

    References:
        Barata & Santiago, How Important Is Each Dermoscopy Image?, CVPR Workshops 2020, Eq. 10.
    """

    def __init__(
        self,
        criterion: Callable[..., Tensor] | Sequence[Callable[..., Tensor]],
        *,
        taxonomy: Taxonomy | None = None,
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
        several = isinstance(criterion, (list, tuple))
        if not isinstance(taxonomy, (Taxonomy, type(None))):
            raise TypeError(f"taxonomy must be a Taxonomy, got {type(taxonomy).__name__}")
        parts: Sequence[Any] = criterion if isinstance(criterion, (list, tuple)) else [criterion]
        if not parts:
            raise ValueError("criterion must be a loss or a list of them, got an empty list")
        if taxonomy is not None and several and len(parts) != taxonomy.num_levels:
            raise ValueError(
                f"criterion must have one loss per level of the taxonomy, {taxonomy.num_levels}, "
                f"got {len(parts)}"
            )
        levels = [part if isinstance(part, Criterion) else WeightedLoss(part) for part in parts]
        self.criteria = nn.ModuleList(levels)
        self.taxonomy = taxonomy
        self._several = several
        for part in self.criteria if taxonomy is not None else []:
            if taxonomy is not None and part.ignore_index in range(taxonomy.num_nodes):
                raise ValueError(
                    f"criterion must have an ignore_index that is no node of the taxonomy, got "
                    f"{part.ignore_index}"
                )

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        *,
        leaf_target: Tensor | None = None,
        sample_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
        reference_loss: Tensor | None = None,
    ) -> Tensor:
        """Return the reduced loss; see the class for what the arguments mean."""
        samples = self.samples(logits, target, leaf_target)
        return self._reduce(samples, sample_weight, normalizer, reference_loss)

    def samples(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        leaf_target: Tensor | None = None,
    ) -> Samples:
        level_logits = self._level_logits(logits)
        check_tensor("target", target)
        num_leaves = None
        if self.taxonomy is not None:
            if leaf_target is not None:
                raise ValueError("leaf_target must be None with a taxonomy, whose target it is")
            level_targets = self.taxonomy.level_targets(target).unbind(-1)
            leaf_target, num_leaves = target, self.taxonomy.num_leaves
        else:
            if not is_index(target) or target.ndim < 2 or target.shape[1] != len(level_logits):
                raise ValueError(
                    f"target without a taxonomy must hold class indices of shape "
                    f"(N, {len(level_logits)}, ...), got {target.dtype} {tuple(target.shape)}"
                )
            level_targets = target.unbind(1)
            self._check_leaf_target(leaf_target, level_targets[0])

        losses, valid = [], []
        for criterion, of_logits, of_target in zip(
            self._level_criteria(len(level_logits)), level_logits, level_targets, strict=True
        ):
            loss, is_valid = self._level(criterion, of_logits, of_target)
            losses.append(loss)
            valid.append(torch.ones_like(loss, dtype=torch.bool) if is_valid is None else is_valid)
        total = torch.stack(losses).sum(0)  # Eq. 10
        leaf_logits = None
        if self.is_watched and self.taxonomy is not None and total.ndim == 1:
            with torch.no_grad():
                leaf_logits = self.taxonomy.leaf_log_probs(torch.stack(list(level_logits), 1))
        return Samples(
            total, leaf_target, torch.stack(valid).any(0), num_leaves, logits=leaf_logits
        )

    def _level(
        self, criterion: Criterion, logits: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Weighted losses of one level, and which samples have it."""
        if self.taxonomy is None:
            samples = criterion.samples(logits, target)
        else:
            # a sample without this level is ignored; where a criterion knows no ignore_index, any
            # node stands in, and its loss is not counted
            has_level = target != Taxonomy.ignore_index
            absent = criterion.ignore_index if isinstance(criterion, SoftmaxLoss) else 0
            samples = criterion.samples(logits, target.masked_fill(~has_level, absent))
            loss = samples.loss.masked_fill(~has_level, 0)
            # not _replace, at which the compiler of torch 2.4 breaks the graph
            samples = Samples(
                loss, samples.target, has_level, samples.num_classes, dtype=samples.dtype
            )
        # the weighters that single levels may have see the batch of all processes too
        weight = criterion._weigh(samples, within=self if self.global_batch else None)
        loss = samples.loss if weight is None else weigh(samples.loss, weight)
        return loss.to(samples.dtype or samples.loss.dtype), samples.valid

    def _check_leaf_target(self, leaf_target: Tensor | None, level_target: Tensor) -> None:
        if leaf_target is not None and leaf_target.shape != level_target.shape:
            raise ValueError(
                f"leaf_target must have shape {tuple(level_target.shape)}, got "
                f"{tuple(leaf_target.shape)}"
            )
        weighter = self.acting_weighter
        if leaf_target is None and weighter is not None and weighter.num_classes:
            raise ValueError(
                "leaf_target must be given without a taxonomy: the weighter needs classes"
            )

    def _level_logits(self, logits: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        if isinstance(logits, Tensor) and logits.ndim < 3:
            raise ValueError(
                f"logits must have shape (N, L, K, ...), or be a sequence of L tensors, "
                f"got shape {tuple(logits.shape)}"
            )
        levels = logits.unbind(1) if isinstance(logits, Tensor) else logits
        if len(levels) == 0:
            raise ValueError("logits must have at least one level, got none")
        if self.taxonomy is not None:
            expected = (self.taxonomy.num_levels, self.taxonomy.num_nodes)
            came = (len(levels), *{level.shape[min(level.ndim, 2) - 1] for level in levels})
            if came != expected:
                raise ValueError(
                    f"logits must have {expected[0]} levels of {expected[1]} nodes for this "
                    f"taxonomy, got {len(levels)} levels of shapes "
                    f"{[tuple(level.shape) for level in levels]}"
                )
        return levels

    def _level_criteria(self, num_levels: int) -> Sequence[Any]:
        if not self._several:
            return [self.criteria[0]] * num_levels
        if len(self.criteria) != num_levels:
            raise ValueError(
                f"logits must have one level for each criterion, {len(self.criteria)}, "
                f"got {num_levels}"
            )
        return list(self.criteria)

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"
