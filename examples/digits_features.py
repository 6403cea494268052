"""Long-tailed digits as an input of the command line: 8x8 pixels of scikit-learn's images.

python -m examples.digits_features digits.npz
python -m sampleweights compare digits.npz --output comparison/
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits


def main(path: str = "digits.npz") -> None:
    features, target = load_digits(return_X_y=True)
    # class c keeps 170 / 1.4**c samples: 170 zeros, but only 8 nines
    kept = [np.flatnonzero(target == c)[: round(170 / 1.4**c)] for c in range(10)]
    rows = np.sort(np.concatenate(kept))
    np.savez(path, features=features[rows], target=target[rows])
    print(f"{path}: {len(rows)} digits, {', '.join(str(len(k)) for k in kept)} of 0 to 9")


if __name__ == "__main__":
    main(*sys.argv[1:])
