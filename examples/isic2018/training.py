"""One run: a model, an optimiser, a loss and a weighting, on one split; and what it leaves behind.

A run's folder holds curves.csv as it goes and checkpoint.ckpt after every epoch, then model.pt,
predictions.npz and, when all is done, result.json.
"""

from __future__ import annotations

import json
import logging
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples.isic2018 import encoders, models
from examples.isic2018.data import Dataset, Split
from examples.isic2018.official import DataError, write_atomically
from examples.isic2018.prepare import digest
from examples.isic2018.recipes import POSTHOC, Recipe, build_criterion
from sampleweights import LogitAdjustment, WeightedSampler
from sampleweights.compare.statistics.metrics import calibration_gaps

Row = tuple[str, str, str, str]
"""Model, optimiser, loss, weighting."""
CHECKPOINT, RESULT, MODEL = "checkpoint.ckpt", "result.json", "model.pt"

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Run:
    """A row of a table on one split."""

    model: str
    optimizer: str
    loss: str
    weighting: str
    split: int
    recipe: Recipe
    data: str
    """The data set's fingerprint."""

    @property
    def epochs(self) -> int:
        return self.recipe.epochs(self.model)

    @property
    def row(self) -> Row:
        return self.model, self.optimizer, self.loss, self.weighting

    @property
    def name(self) -> str:
        """The folder's name: readable, and different for any other settings or data."""
        row = f"{self.model}-{self.optimizer}-{self.loss}-{self.weighting}-split{self.split}"
        return f"{row}-{digest(self)[:8]}"


def build_encoder(run: Run, dataset: Dataset, split: Split, pretrained: bool) -> nn.Module:
    recipe = run.recipe
    if dataset.inputs.dtype == torch.uint8:
        backbone = encoders.load_backbone(
            recipe.backbone, recipe.stages(run.model), recipe.weights, pretrained=pretrained
        )
        augment = encoders.augmentation(recipe.size, recipe.color_jitter)
        return encoders.Encoder(backbone, recipe.grid or None, augment)
    if dataset.inputs.ndim == 5 and dataset.inputs.dtype == torch.float16:
        if recipe.adapter:
            scale = encoders.channel_scale(dataset.inputs, split.train)
            return encoders.Adapter(scale, recipe.adapter)
        return encoders.ChannelsFirst()
    return encoders.SmallEncoder()


def build_model(run: Run, dataset: Dataset, channels: int) -> models.Model:
    recipe = run.recipe
    if run.model == "flat":
        return models.Flat(channels, len(dataset.classes), recipe.dropout)
    return models.Hierarchical(
        channels, dataset.taxonomy, hidden=recipe.hidden, dropout=recipe.dropout,
        attention_dropout=recipe.attention_dropout,
    )  # fmt: skip


class Experiment(lightning.LightningModule):
    """The training of one run, repeatable: an epoch depends on its number and the seed alone."""

    def __init__(
        self, run: Run, dataset: Dataset, folder: Path, *, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.run, self.folder = run, folder
        self.split = dataset.split[run.split]
        self.inputs, self.target, self.classes = dataset.inputs, dataset.target, dataset.classes
        torch.manual_seed(run.split)
        self.encoder = build_encoder(run, dataset, self.split, pretrained).eval()
        with torch.inference_mode():
            channels = self.encoder(self.inputs[:2, 0]).shape[1]
        self.encoder.train()
        self.model = build_model(run, dataset, channels)
        counts = np.bincount(self.target[self.split.train], minlength=len(self.classes)).tolist()
        self.criterion = build_criterion(
            run.model,
            run.loss,
            run.weighting,
            counts,
            run.epochs,
            run.recipe.gamma,
            dataset.taxonomy,
        )
        # of all processes: each takes its part of every batch
        self.sampler: WeightedSampler | None = None
        if run.weighting == "balanced_sampling":
            self.sampler = WeightedSampler.from_targets(
                self.target[self.split.train], seed=run.split, num_replicas=1, rank=0
            )
        self.curves: list[dict[str, float]] = []
        if run.recipe.channels_last:
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _see(self, criterion: Any, samples: Any, weight: Tensor | None) -> None:
        """Add to the epoch's sums what this process's samples got."""
        weight = torch.ones_like(samples.loss) if weight is None else weight
        weight = weight.double()
        rows = [torch.ones_like(weight), weight, (weight > 0).double()]
        self._seen.index_add_(1, samples.target, torch.stack(rows))

    def configure_optimizers(self) -> Any:
        run, recipe = self.run, self.run.recipe
        convolutions = [p for p in self.encoder.parameters() if p.ndim == 4]
        decayed = {id(p) for p in convolutions}
        groups: list[dict[str, Any]] = [
            {"params": convolutions, "weight_decay": recipe.weight_decay},
            {"params": [p for p in self.parameters() if id(p) not in decayed]},
        ]
        groups = [group for group in groups if group["params"]]
        rate = recipe.learning_rate(run.optimizer)
        optimizer: torch.optim.Optimizer
        if run.optimizer == "adam":
            optimizer = torch.optim.Adam(groups, rate)
        else:
            optimizer = torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)
        if recipe.schedule == "one-cycle":
            steps = run.epochs * len(self.batches(0))
            scheduler: Any = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, rate, total_steps=steps, cycle_momentum=False
            )
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        halfway = [run.epochs // 2, run.epochs * 3 // 4]
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, halfway, gamma=0.1)]

    def batches(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        """Indices and views of this process's part of every batch of an epoch."""
        generator = torch.Generator().manual_seed(1_000_003 * self.run.split + epoch)
        order = torch.from_numpy(self.split.train)
        shuffled = torch.randperm(len(order), generator=generator)
        if self.sampler is not None:
            self.sampler.set_epoch(epoch)
            shuffled = torch.tensor(list(self.sampler))
        order = order[shuffled]
        view = torch.randint(self.inputs.shape[1], (len(order),), generator=generator)
        rank, world = self.global_rank, self.trainer.world_size if self._trainer else 1
        size = self.run.recipe.batch_size
        return [
            (index[rank::world], views[rank::world])
            for index, views in zip(order.split(size), view.split(size), strict=True)
            if len(index) >= world
        ]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        batches: Any = self.batches(self.current_epoch)  # a list is a map-style data set
        # a generator of its own: a loader draws from it, which must not move dropout's
        return DataLoader(batches, batch_size=None, generator=torch.Generator())

    def on_fit_start(self) -> None:
        if self.run.recipe.compile and isinstance(self.encoder, encoders.Encoder):
            # not the augmentation, whose random numbers break the graph
            self.encoder.backbone.compile(dynamic=False)
        if self.device.type == "cuda":  # no wait for the host, where the data set has room
            free, _ = torch.cuda.mem_get_info(self.device)
            if self.inputs.nbytes < free / 4:
                self.inputs = self.inputs.to(self.device)
        self.target = self.target.to(self.device)

    def on_train_epoch_start(self) -> None:
        # dropout and augmentation: a resumed run draws what an uninterrupted one does
        torch.manual_seed(
            7_919 * (self.current_epoch + 1) + self.run.split + 10**6 * self.global_rank
        )
        self.criterion.set_epoch(self.current_epoch)
        self._seen = torch.zeros(3, len(self.classes), dtype=torch.float64, device=self.device)
        self._losses = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        index, view = (part.to(self.inputs.device) for part in batch)
        inputs = self.inputs[index, view].to(self.device, non_blocking=True)
        target = self.target[index.to(self.device)]
        logits = self.model(self.encoder(inputs), target)
        with self.criterion.register_weighting_hook(self._see):
            loss: Tensor = self.criterion(logits, target)
        self._losses += torch.stack([loss.detach(), torch.ones_like(loss)]) * len(target)
        return loss

    def on_train_epoch_end(self) -> None:
        strategy: Any = self.trainer.strategy  # sums over all processes
        count, weight, kept = strategy.reduce(self._seen, reduce_op="sum").cpu().numpy()
        loss, samples = strategy.reduce(self._losses, reduce_op="sum").tolist()
        present = np.maximum(count, 1)
        self.curves.append(
            {
                "epoch": float(self.current_epoch),
                "loss": loss / samples,
                "learning_rate": self._rate,  # at the start of the epoch
                "kept": kept.sum() / count.sum(),
                **{f"kept_{c}": v for c, v in zip(self.classes, kept / present, strict=True)},
                **{f"weight_{c}": v for c, v in zip(self.classes, weight / present, strict=True)},
            }
        )
        if self.global_rank == 0:
            curves = pd.DataFrame(self.curves).to_csv(index=False)
            write_atomically(self.folder / "curves.csv", curves)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"] = [{k: float(v) for k, v in row.items()} for row in self.curves]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curves = checkpoint["curves"]


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint is there as a whole or not at all, wherever temporary files are."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        partial = Path(f"{path}.part")
        partial.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, partial)
        partial.replace(path)


def fit(experiment: Experiment, devices: int = 1, **arguments: Any) -> None:
    """Train to the end, from the last epoch that a killed run saved."""
    run, folder = experiment.run, experiment.folder
    checkpoint = folder / CHECKPOINT
    trainer = lightning.Trainer(
        max_epochs=run.epochs,
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        precision=run.recipe.precision,
        callbacks=[
            ModelCheckpoint(
                folder, checkpoint.stem, save_on_train_epoch_end=True, enable_version_counter=False
            )
        ],
        plugins=[AtomicCheckpoints()],
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    with warnings.catch_warnings():
        # the lock and the curves of the run are there already
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        # the data are a list of batches of indices: there is no loader whose workers could help
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning 2.6 on torch 2.15, at every step
        warnings.filterwarnings("ignore", message=".*treespec.*", category=FutureWarning)
        trainer.fit(experiment, ckpt_path=checkpoint if checkpoint.exists() else None)


@torch.inference_mode()
def predict(
    encoder: nn.Module,
    model: models.Model,
    inputs: Tensor,
    rows: NDArray[np.int64],
    half: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities (N, C), the mean over the views; classes (N,), greedily from the first.

    On a GPU where there is one: Lightning leaves models on the CPU. ``half``: in bfloat16 there.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device).eval()
    model.to(device).eval()
    # at most 256 samples, and of images so many that their widest maps are about a gigabyte
    images = inputs.dtype == torch.uint8
    size = max(1, min(256, 2**22 // inputs[0, 0, ..., 0].numel())) if images else 256
    probabilities, greedy = [], []
    for part in torch.from_numpy(rows).split(size):
        views = inputs[part.to(inputs.device)].to(device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and half):
            maps = [encoder(view) for view in views.unbind(1)]
            log_probs = [model.leaf_log_probs(m).float() for m in maps]
            greedy.append(model.greedy(maps[0]).cpu())
        probabilities.append(torch.stack([p.exp() for p in log_probs]).mean(0).cpu())
    return torch.cat(probabilities).numpy(), torch.cat(greedy).numpy()


def evaluate(
    predicted: NDArray[np.int64],
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
) -> dict[str, float]:
    """The paper's metrics and the calibration error, in percent.

    A class that is never predicted has precision 0.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        target, predicted, labels=range(len(classes)), zero_division=0, sample_weight=weight
    )
    confidence = probabilities.max(1).astype(np.float64)
    gap, _ = calibration_gaps(probabilities.argmax(1), confidence, target, weight)
    metrics = {
        "acc": np.average(predicted == target, weights=weight),
        "bacc": recall.mean(),
        "mean_precision": precision.mean(),
        "mean_f1": f1.mean(),
        "calibration_error": np.abs(gap).sum() / weight.sum(),
    }
    for name, values in (("recall", recall), ("precision", precision), ("f1", f1)):
        metrics |= {f"{name}_{c}": value for c, value in zip(classes, values, strict=True)}
    return {name: 100 * float(value) for name, value in metrics.items()}


def adjust(run: Run, runs: Path, dataset: Dataset) -> None:
    """Post-hoc logit adjustment of a run's predictions, if it is finished, as a run of its own.

    The logarithms of the probabilities are logits, also of the leaves of a hierarchy.
    """
    plain = runs / replace(run, weighting=POSTHOC[run.weighting]).name
    if not (plain / RESULT).exists():
        return
    result = json.loads((plain / RESULT).read_text())
    split = dataset.split[run.split]
    counts = np.bincount(dataset.target.numpy()[split.train], minlength=len(dataset.classes))
    adjustment = LogitAdjustment(counts)
    parts = {"validation": (dataset, split.validation, split.sample_weight), **test_part(dataset)}
    arrays: dict[str, NDArray[Any]] = {}
    metrics: dict[str, dict[str, float]] = {}
    with np.load(plain / "predictions.npz") as file:
        for part, (samples, rows, weight) in parts.items():
            if f"{part}_probabilities" not in file:  # the test set, before train --with-test
                continue
            logits = torch.from_numpy(file[f"{part}_probabilities"]).log()
            probabilities = adjustment.posthoc(logits).softmax(1).numpy()
            predicted = probabilities.argmax(1)
            target = samples.target.numpy()[rows]
            scores = evaluate(predicted, target, weight, probabilities, dataset.classes)
            # a greedy walk down the tree has no adjusted form of its own
            metrics |= {part: scores, f"{part}_greedy": scores}
            arrays |= {f"{part}_probabilities": probabilities, f"{part}_greedy": predicted}
    folder = runs / run.name
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RESULT).exists():  # keep the test set of an earlier --with-test
        metrics = json.loads((folder / RESULT).read_text())["metrics"] | metrics
        with np.load(folder / "predictions.npz") as file:
            arrays = {name: file[name] for name in file.files} | arrays
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    result |= {"name": run.name, **asdict(run), "metrics": metrics}
    write_atomically(folder / RESULT, json.dumps(result, indent=1))


def execute(run: Run, dataset: Dataset, folder: Path, devices: int = 1) -> None:
    """Train, predict and write; ``result.json`` comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    experiment = Experiment(run, dataset, folder)
    fit(experiment, devices)
    seconds = time.perf_counter() - start
    split = experiment.split
    parts = {"validation": (dataset, split.validation, split.sample_weight), **test_part(dataset)}
    metrics, arrays = evaluate_parts(experiment, parts)
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    state = {"encoder": experiment.encoder.state_dict(), "model": experiment.model.state_dict()}
    torch.save(state, folder / MODEL)
    result = {
        "name": run.name,
        **asdict(run),
        "metrics": metrics,
        "seconds": round(seconds, 2),
        "hardware": hardware(),
    }
    write_atomically(folder / RESULT, json.dumps(result, indent=1))
    (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / "error.txt").unlink(missing_ok=True)


def restored(run: Run, dataset: Dataset, folder: Path) -> Experiment:
    """A finished run with the model that it kept."""
    experiment = Experiment(run, dataset, folder, pretrained=False)
    state = torch.load(folder / MODEL, map_location="cpu", weights_only=True)
    experiment.encoder.load_state_dict(state["encoder"])
    experiment.model.load_state_dict(state["model"])
    return experiment


def add_test(run: Run, dataset: Dataset, folder: Path) -> None:
    """Evaluate a finished run on the test set, which was not asked for when it was trained."""
    if not (folder / MODEL).exists():
        raise DataError(
            f"{folder} has a result but no {MODEL}, which the test set needs; leave out "
            f"--with-test, or delete the folder so that the run is trained again"
        )
    metrics, arrays = evaluate_parts(restored(run, dataset, folder), test_part(dataset))
    with np.load(folder / "predictions.npz") as file:
        arrays |= {name: file[name] for name in file.files}
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    result = json.loads((folder / RESULT).read_text())
    result["metrics"] |= metrics
    write_atomically(folder / RESULT, json.dumps(result, indent=1))


Part = tuple[Dataset, NDArray[np.int64], NDArray[np.float64]]
"""Samples, which of them, and their weight in the metrics."""


def test_part(dataset: Dataset) -> dict[str, Part]:
    if dataset.test is None:
        return {}
    rows = np.arange(len(dataset.test.table))
    return {"test": (dataset.test, rows, np.ones(len(rows)))}


def evaluate_parts(
    experiment: Experiment, parts: dict[str, Part]
) -> tuple[dict[str, dict[str, float]], dict[str, NDArray[Any]]]:
    """Metrics and predictions of each part, by its name."""
    metrics: dict[str, dict[str, float]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    half = experiment.run.recipe.half
    for part, (samples, rows, weight) in parts.items():
        probabilities, greedy = predict(
            experiment.encoder, experiment.model, samples.inputs, rows, half
        )
        target = samples.target.numpy()[rows]
        predicted = probabilities.argmax(1)
        metrics[part] = evaluate(predicted, target, weight, probabilities, samples.classes)
        metrics[f"{part}_greedy"] = evaluate(greedy, target, weight, probabilities, samples.classes)
        arrays |= {f"{part}_probabilities": probabilities, f"{part}_greedy": greedy}
    return metrics, arrays


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
