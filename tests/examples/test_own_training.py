from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from examples import own_training, own_training_lightning

TRAIN = np.flatnonzero(np.arange(len(own_training.TARGET)) % 5 > 0)
VALIDATION = np.flatnonzero(np.arange(len(own_training.TARGET)) % 5 == 0)


def trained(fit: Any, row: str) -> torch.Tensor:
    counts = own_training.TARGET[TRAIN].bincount()
    built = own_training.ENTRIES[row](counts, own_training.NUM_EPOCHS)
    criterion, make_sampler = built if isinstance(built, tuple) else (built, None)
    sampler = make_sampler and make_sampler(own_training.TARGET[TRAIN], seed=0)
    return fit(criterion, TRAIN, VALIDATION, sampler=sampler, seed=0)


@pytest.mark.parametrize("row", ["no weighting", "balanced sampling"])
@pytest.mark.filterwarnings("ignore:.*treespec.*")  # Lightning 2.6 on torch 2.15, at every step
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_both_trainings_learn_and_give_the_same_logits(row: str) -> None:
    logits = trained(own_training.fit, row)
    right = logits.argmax(1) == own_training.TARGET[VALIDATION]
    assert right.float().mean() > 0.9
    assert torch.allclose(trained(own_training_lightning.fit, row), logits, atol=1e-3)
