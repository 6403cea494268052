"""The long-tailed digits of the command line's example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def test_digits_features(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from examples.digits_features import main

    main(str(tmp_path / "digits.npz"))
    with np.load(tmp_path / "digits.npz") as data:
        counts = np.bincount(data["target"])
        assert data["features"].shape == (counts.sum(), 64)
    assert (np.diff(counts) < 0).all()
    assert counts.min() >= 5  # one for each of the default folds
    main(str(tmp_path / "digits.npz"))  # the same once more


def test_a_file_of_the_users_stays(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from examples.digits_features import main

    path = tmp_path / "digits.npz"
    np.savez(path, features=np.eye(3), target=np.arange(3))
    for before in (path.read_bytes(), b"no arrays"):
        path.write_bytes(before)
        for name in (path, path.with_suffix("")):
            with pytest.raises(SystemExit, match="holds something else"):
                main(str(name))
        assert path.read_bytes() == before
