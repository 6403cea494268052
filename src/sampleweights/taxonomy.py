"""A tree of classes: nodes, leaves, and the path from the root to each leaf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sampleweights._buffers import Unscripted, follow
from sampleweights._checks import check_class_indices, check_floating, check_tensor, is_index

__all__ = ["Taxonomy"]

Path = tuple[str, ...]


class Taxonomy(Unscripted):
    r"""A tree of classes, which maps between leaf classes, node ids and levels.

    Nodes are numbered level by level, from left to right. The root has no number. A leaf class is
    a position in ``leaves``. Leaves may have different depths. The tables are buffers, so they
    follow ``.to``, but they are not part of ``state_dict``.

    Args:
        tree: nested mappings whose innermost values are lists of leaf names (or mappings from a
            leaf name to None or an empty mapping); or a list of paths, each a sequence of names
            from the top to a leaf.
        leaves: the names of the leaves in the order of the class indices of the data set; None
            uses the order of the tree. The names of leaves must be unique.

    Raises:
        ValueError: an empty tree, a repeated or interior path, ``leaves`` that are not the
            leaves of the tree.

    Example:
        >>> import torch
        >>> from sampleweights import Taxonomy
        >>> tree = Taxonomy({"animal": ["cat", "dog"], "plant": {"tree": ["oak", "fir"]}})
        >>> tree.nodes
        ('animal', 'plant', 'cat', 'dog', 'tree', 'oak', 'fir')
        >>> tree.level_targets(torch.tensor([1, 3]))
        tensor([[   0,    3, -100],
                [   1,    4,    6]])
        >>> tree.leaf_log_probs(torch.zeros(1, 3, 7)).exp()
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    ignore_index = -100
    """Marks ignored leaves, and the levels that a leaf does not have, in targets."""

    paths: Tensor
    node_level: Tensor
    node_parent: Tensor
    only_child: Tensor

    def __init__(
        self,
        tree: Mapping[str, Any] | Sequence[Sequence[str]],
        leaves: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        leaf_paths = list(_leaf_paths(tree))
        if not leaf_paths:
            raise ValueError("tree must have at least one leaf, got none")
        # every node once, where it is first met: level by level, each level in the tree's order
        met = dict.fromkeys(path[:d] for path in leaf_paths for d in range(1, len(path) + 1))
        numbered = sorted(met, key=len)  # stable
        interior = {path[:-1] for path in numbered}
        for path, times in Counter(leaf_paths).items():
            if times > 1 or path in interior:
                raise ValueError(
                    f"tree must hold each leaf once, and only as a leaf, got {list(path)} again"
                )
        by_name = {path[-1]: path for path in leaf_paths}
        if len(by_name) < len(leaf_paths):
            raise ValueError("tree must have leaves of different names, got a name twice")
        self.leaves = tuple(by_name) if leaves is None else tuple(leaves)
        if sorted(self.leaves) != sorted(by_name):
            raise ValueError(
                f"leaves must be those of the tree, {sorted(by_name)}, got {sorted(self.leaves)}"
            )
        number = {path: node for node, path in enumerate(numbered)}
        self.nodes = tuple(path[-1] for path in numbered)
        self.num_levels = max(map(len, leaf_paths))
        rows = [
            [number[by_name[leaf][:depth]] for depth in range(1, len(by_name[leaf]) + 1)]
            for leaf in self.leaves
        ]
        padded = [row + [self.ignore_index] * (self.num_levels - len(row)) for row in rows]
        level = [len(path) - 1 for path in numbered]
        parent = [number.get(path[:-1], -1) for path in numbered]
        children = Counter(parent)
        only = [children[above] == 1 for above in parent]
        tables = {"paths": padded, "node_level": level, "node_parent": parent, "only_child": only}
        self._tables = tables
        self._fill()

    def _fill(self, device: torch.device | None = None) -> None:
        with torch.inference_mode(False):  # an inference tensor cannot be saved for backward
            for name, table in self._tables.items():
                tensor = torch.tensor(table, device=device)
                self.register_buffer(name, tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # what has been on the meta device comes back without values, and no state_dict has them
        was_meta = self.paths.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if was_meta and not self.paths.is_meta:
            self._fill(self.paths.device)
        return self

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *args: Any
    ) -> None:
        super()._load_from_state_dict(state, prefix, metadata, *args)
        if self.paths.is_meta and metadata.get("assign_to_params_buffers", False):
            self._fill(torch.device("cpu"))

    @property
    def num_nodes(self) -> int:
        """Number of nodes, including leaves and without the root."""
        return len(self.nodes)

    @property
    def num_leaves(self) -> int:
        """Number of leaf classes."""
        return len(self.leaves)

    def level_targets(self, target: Tensor) -> Tensor:
        """Map leaf classes to the node ids of their paths.

        Shape:
            - target: :math:`(N, ...)`, integer: leaf classes, or -100 where ignored.
            - Output: :math:`(N, ..., L)`, int64: node ids, -100 below a leaf and where ignored.

        Raises:
            TypeError: a target that is not integer.
            IndexError: a leaf class out of range (on CUDA torch's device-side assertion).
        """
        check_tensor("target", target)
        if not is_index(target):
            raise TypeError(f"target must hold leaf classes (integer), got dtype {target.dtype}")
        target = target.long()
        ignored = target == self.ignore_index
        index = target.masked_fill(ignored, 0).reshape(-1)
        try:
            rows = follow(self.paths, index).index_select(0, index)
        except IndexError:
            if not torch.compiler.is_compiling():
                check_class_indices(target, self.num_leaves, self.ignore_index)
            raise
        rows = rows.reshape(*target.shape, self.num_levels)
        return rows.masked_fill(ignored.unsqueeze(-1), self.ignore_index)

    def leaf_log_probs(self, logits: Tensor) -> Tensor:
        r"""Log-probability of each leaf: softmax among siblings, product along the path.

        .. math:: \log p = \sum_{v \in \text{path}} \Big( z_v -
            \log \sum_{u \in \text{siblings}(v)} \exp z_u \Big)

        where :math:`z_v` is the logit of node v at its own level, and the path leads to the leaf.
        The probabilities of the leaves sum to 1. A node without siblings has probability 1, even if
        its logit is infinite. Gradient flows to the logits.

        Shape:
            - logits: :math:`(N, L, K)`, floating, with K the number of nodes.
            - Output: :math:`(N, C)`, with C the number of leaves, in the order of ``leaves``.

        Raises:
            ValueError, TypeError: logits of another shape or dtype.
        """
        check_floating("logits", logits)
        if logits.ndim != 3 or logits.shape[1:] != (self.num_levels, self.num_nodes):
            raise ValueError(
                f"logits must have shape (N, {self.num_levels}, {self.num_nodes}), "
                f"got {tuple(logits.shape)}"
            )
        node = torch.arange(self.num_nodes, device=logits.device)
        # each node's logit at its own level (N, K), in at least float32
        own = logits[:, follow(self.node_level, logits), node]
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        # exp(z) / exp(z) is 1 for whatever z goes to; in floats inf - inf is NaN
        own = own.masked_fill(follow(self.only_child, own) & own.isinf(), 0)
        # logsumexp over siblings, which are the nodes of one parent; slot 0 is the root
        slot = (follow(self.node_parent, own) + 1).expand_as(own)
        top = own.new_full((len(own), self.num_nodes + 1), -torch.inf)
        top = top.scatter_reduce(1, slot, own.detach(), "amax").gather(1, slot)
        total = own.new_zeros(len(own), self.num_nodes + 1)
        total = total.scatter_add(1, slot, (own - top).exp()).gather(1, slot)
        log_prob = own - top - total.log()
        # a column of zeros stands in for the levels that a leaf does not have
        log_prob = torch.cat([log_prob, log_prob.new_zeros(len(own), 1)], dim=1)
        paths = follow(self.paths, own)
        paths = paths.masked_fill(paths < 0, self.num_nodes)
        return log_prob[:, paths].sum(-1).to(logits.dtype)

    def extra_repr(self) -> str:
        return f"leaves={list(self.leaves)}, num_nodes={self.num_nodes}"


def _leaf_paths(tree: Mapping[str, Any] | Sequence[Any], above: Path = ()) -> Iterator[Path]:
    """The paths to the leaves of nested mappings, or of a list of paths, in order."""
    if isinstance(tree, Mapping):
        for name, below in tree.items():
            if below is None or below == {} or below == []:
                yield (*above, str(name))
            else:
                yield from _leaf_paths(below, (*above, str(name)))
        return
    if isinstance(tree, str) or not isinstance(tree, Sequence):
        raise ValueError(f"tree must hold lists or mappings of names, got {tree!r}")
    for leaf in tree:
        if isinstance(leaf, str) and above:
            yield (*above, leaf)
        elif isinstance(leaf, Sequence) and not isinstance(leaf, str) and not above and leaf:
            yield tuple(map(str, leaf))
        else:
            raise ValueError(
                f"tree must be a nested mapping that ends in lists of names, or a list of paths, "
                f"got {leaf!r}"
            )
