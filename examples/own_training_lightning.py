"""Which weighting helps *your* training with Lightning? A ``fit`` for ``sampleweights.compare``.

The network, the data and the rows are those of ``examples/own_training.py``.

python -m examples.own_training_lightning
"""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from examples.own_training import ENTRIES, IMAGES, NUM_EPOCHS, TARGET, network
from sampleweights.compare import compare
from sampleweights.integrations.lightning import WeightingCallback


class Classifier(pl.LightningModule):
    def __init__(self, criterion: Any) -> None:
        super().__init__()
        self.network, self.criterion = network(), criterion

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        images, target = batch
        return self.criterion(self.network(images), target)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit(
    criterion: Any,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    sampler: Any = None,
    seed: int = 0,
) -> Tensor:
    """Train on the samples ``train``, and return the logits of the samples ``validation``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    pl.seed_everything(seed, verbose=False)
    module = Classifier(criterion)
    data = TensorDataset(IMAGES[train], TARGET[train])
    trainer = pl.Trainer(
        max_epochs=NUM_EPOCHS,
        callbacks=[WeightingCallback()],  # calls criterion.set_epoch
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Lightning calls sampler.set_epoch
    trainer.fit(module, DataLoader(data, batch_size=32, sampler=sampler, shuffle=sampler is None))
    with torch.inference_mode():
        return module.eval().network(IMAGES[validation].to(module.device))


def main() -> None:
    print(compare(fit, TARGET, num_epochs=NUM_EPOCHS, entries=ENTRIES))


if __name__ == "__main__":
    main()
