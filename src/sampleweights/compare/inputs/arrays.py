"""What files and arguments are checked for alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["not_finite"]

_CHUNK = 4096  # rows that are checked at once


def not_finite(features: NDArray[Any]) -> tuple[int, int, int]:
    """How many of the features (N, D) are NaN or infinite; row and column of the first of them."""
    count, first = 0, (0, 0)
    for start in range(0, len(features), _CHUNK):
        bad = ~np.isfinite(features[start : start + _CHUNK])
        if count == 0 and bad.any():
            row, column = np.argwhere(bad)[0]
            first = (start + int(row), int(column))
        count += int(bad.sum())
    return count, *first
