"""Long-tailed digits as an input of the command line: 8x8 pixels of scikit-learn's images.

python -m examples.digits_features digits.npz
python -m sampleweights compare digits.npz --output comparison/
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def holds(path: str, arrays: dict[str, np.ndarray]) -> bool:
    try:
        with np.load(path) as file:
            return {*file.files} == {*arrays} and all(
                np.array_equal(file[name], array) for name, array in arrays.items()
            )
    except (OSError, ValueError, AttributeError):  # no file of arrays
        return False


def main(path: str = "digits.npz") -> None:
    features, target = load_digits(return_X_y=True)
    # class c keeps 170 / 1.4**c samples: 170 zeros, but only 8 nines
    kept = [np.flatnonzero(target == c)[: round(170 / 1.4**c)] for c in range(10)]
    rows = np.sort(np.concatenate(kept))
    path = path if path.endswith(".npz") else f"{path}.npz"  # as numpy does
    made = {"features": features[rows], "target": target[rows]}
    if Path(path).exists() and not holds(path, made):
        raise SystemExit(f"error: {path} is there and holds something else: give another name")
    np.savez(path, **made)
    print(f"{path}: {len(rows)} digits, {', '.join(str(len(k)) for k in kept)} of 0 to 9")


if __name__ == "__main__":
    main(*sys.argv[1:])
