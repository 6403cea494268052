#!/usr/bin/env bash
# One would guess: overfit_batches=2 trains on the first two batches that the loader draws, so a sampler of one's own
# decides which samples these are; Lightning removes the shuffling of RandomSampler alone.
# What happens: every sampler is replaced by a SequentialSampler over the data set, a WeightedRandomSampler or one of one's
# own included. The batches are the first samples of the data set, also such that the sampler never draws.
# Versions: lightning 2.6.6, torch 2.13.0. Output seen:
#   sampler draws [9, 8, 7, 6]
#   trained on [0, 1, 2, 3] with SequentialSampler
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lightning==2.6.6 torch==2.13.0 numpy
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, Sampler

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class LastFirst(Sampler):
    def __len__(self):
        return 4

    def __iter__(self):
        return iter([9, 8, 7, 6])


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch):
        self.seen += batch.tolist()
        return self.layer(batch[:, None].float()).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


module, loader = Module(), DataLoader(torch.arange(10), 2, sampler=LastFirst())
trainer = Trainer(
    max_epochs=1,
    overfit_batches=2,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, loader)
print("sampler draws", list(loader.sampler))
print("trained on", module.seen, "with", type(trainer.train_dataloader.sampler).__name__)
assert module.seen == [0, 1, 2, 3]
PYTHON
