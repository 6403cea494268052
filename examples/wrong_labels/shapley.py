"""What each sample is worth to its nearest neighbours, in closed form."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 256
"""Samples whose neighbours are sorted at once."""


def knn_shapley(
    features: NDArray[np.floating],
    label: NDArray[np.int64],
    k: int,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    r"""Shapley values (N,) of samples, which predict each other by their k nearest neighbours.

    A set of samples is worth, averaged over all samples j, the number of those with j's label
    among its k samples nearest to j, divided by k; j itself and others of its group do not count.
    For one j and all n others, sorted by their distance to it, the values are

    .. math::
        s_n = \frac{m_n \min(k, n)}{k n}, \qquad
        s_i = s_{i+1} + \frac{m_i - m_{i+1}}{k} \cdot \frac{\min(k, i)}{i}

    where :math:`m_i` is 1 if the i-th has j's label, else 0.

    References:
        Jia et al., Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms,
        PVLDB 12(11), 2019, Theorem 1.
    """
    rows, labels, size = torch.from_numpy(features), torch.from_numpy(label), len(label)
    group = torch.arange(size) if groups is None else torch.from_numpy(groups)
    place = torch.arange(1, size + 1, dtype=torch.float64)
    factor = place.clamp(max=k) / (k * place)
    value = torch.zeros(size, dtype=torch.float64)
    for judges in torch.arange(size).split(BLOCK):
        same = group[judges, None] == group
        distance = torch.cdist(rows[judges], rows).masked_fill_(same, torch.inf)
        order = distance.argsort(1)
        match = ((labels[judges, None] == labels) & ~same).gather(1, order).double()
        # those of the group come last and match nobody: without worth, as if they were not there
        after = torch.nn.functional.pad(match[:, 1:], (0, 1))
        worth = ((match - after) * factor).flip(1).cumsum(1).flip(1)
        value.index_add_(0, order.flatten(), worth.flatten())
    return (value / size).numpy()
