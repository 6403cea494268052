"""Which images matter: a training on all of them that keeps a LossHistory, and its page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

import sampleweights as sw
from examples.isic2018.data import Dataset, Split
from examples.isic2018.outputs import output
from examples.isic2018.prepare import digest
from examples.isic2018.training import Experiment, Run, fit, predict
from sampleweights.history import write_page


@dataclass
class Noise:
    """Labels that were changed on purpose."""

    target: Tensor
    flipped: Tensor
    """(N,) bool"""


def flip_labels(target: Tensor, fraction: float, seed: int = 0) -> Noise:
    """Give a fraction of the samples another class, each of the others with the same chance."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(target), generator=generator)[: round(fraction * len(target))]
    classes = int(target.max()) + 1
    other = torch.randint(1, classes, (len(chosen),), generator=generator)
    noisy, flipped = target.clone(), torch.zeros(len(target), dtype=torch.bool)
    noisy[chosen] = (target[chosen] + other) % classes
    flipped[chosen] = True
    return Noise(noisy, flipped)


class Recorded(Experiment):
    """A training that keeps the history of every sample; a checkpoint carries it."""

    def __init__(self, run: Run, dataset: Dataset, folder: Path) -> None:
        super().__init__(run, dataset, folder)
        self.history = sw.LossHistory(len(dataset.table), run.epochs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        with self.history.record(self.criterion, batch[0]):
            return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.history.end_epoch()


def train(
    dataset: Dataset,
    recipe: Any,
    weighting: str,
    target: Tensor,
    folder: Path,
    without: NDArray[np.int64] | None = None,
) -> Recorded:
    """The flat model with Adam and cross-entropy, on all samples but some, with these labels."""
    everything = np.arange(len(target))
    samples, part = everything, "all"
    fingerprint = digest(dataset.fingerprint, target.tolist())
    if without is not None:
        samples, part = np.setdiff1d(everything, without), "fold"
        fingerprint = digest(fingerprint, without.tolist())
    split = Split(samples, samples, np.ones(len(samples)))
    data = replace(
        dataset, table=dataset.table.assign(target=target.numpy()), split={0: split}, test=None
    )
    run = Run("flat", "adam", "ce", weighting, 0, recipe, fingerprint)
    folder = folder / f"{run.name}-{part}"
    folder.mkdir(parents=True, exist_ok=True)
    experiment = Recorded(run, data, folder)
    fit(experiment)
    return experiment


def out_of_fold(dataset: Dataset, recipe: Any, target: Tensor, folder: Path) -> NDArray[np.float32]:
    """Probabilities (N, C) of five models: each sample's from one that never saw its lesion."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    lesions = dataset.table["lesion"].to_numpy()
    probabilities = np.empty((len(target), len(dataset.classes)), np.float32)
    for _, held_out in folds.split(lesions, target.numpy(), lesions):
        experiment = train(dataset, recipe, "none", target, folder, without=held_out)
        probabilities[held_out], _ = predict(
            experiment.encoder, experiment.model, experiment.inputs, held_out
        )
    return probabilities


def page(
    dataset: Dataset, recipe: Any, weighting: str, folder: Path, noise: Noise | None = None
) -> Path:
    """Train with a weighting, and write the page and the table of all samples.

    With ``noise`` on its labels; the page then says of each changed label what it was.
    """
    target = dataset.target if noise is None else noise.target
    experiment = train(dataset, recipe, weighting, target, folder / "importance")
    names = list(dataset.table["image"])
    table = experiment.history.to_pandas(
        image=names, **{"class": [dataset.classes[c] for c in dataset.table["target"]]}
    )
    with output(folder / "importance.csv") as file:
        table.to_csv(file)

    def image(i: int) -> Image.Image:
        pixels = dataset.pictures[i].numpy()
        picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
        if max(picture.size) >= 100:
            return picture
        return picture.resize((96, 96), Image.Resampling.NEAREST)  # the digits

    path = folder / "importance.html"
    title = f"Which images matter: {dataset.title}"
    classes = [name.replace("-\n", "").replace("\n", " ") for name in dataset.class_names.values()]
    if noise is not None:
        title += f", {noise.flipped.float().mean():.0%} of the labels changed"
        for i in noise.flipped.nonzero()[:, 0].tolist():
            names[i] += f" was {classes[dataset.target[i]]}"
    with output(path) as file:
        write_page(file, experiment.history, image, target, classes, names=names, title=title)
    return path


def detection(dataset: Dataset, recipe: Any, noise: Noise, folder: Path) -> list[str]:
    """How well each score finds labels that were changed: lines of a table.

    cleanlab, where it is installed, gets probabilities out of fold, as its documentation asks for.
    """
    experiment = train(dataset, recipe, "none", noise.target, folder / "importance")
    scores = experiment.history.scores()
    suspicion: dict[str, Any] = {
        "area under the margin": -scores["area_under_margin"],
        "confidence": -scores["confidence"],
        "mean loss": scores["mean_loss"],
        "correctness, then mean loss": -scores["correctness"] + scores["mean_loss"] / 1e3,
        "forgetting events, then mean loss": scores["forgetting_events"]
        + scores["mean_loss"] / 1e3,
        "loss of the last epoch": experiment.history.losses[-1].float(),
    }
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        pass
    else:
        probabilities = out_of_fold(dataset, recipe, noise.target, folder / "importance")
        for method in ("self_confidence", "normalized_margin"):
            quality = get_label_quality_scores(noise.target.numpy(), probabilities, method=method)
            suspicion[f"cleanlab, {method}"] = -torch.from_numpy(quality)
    flipped = noise.flipped.numpy()
    count = round(0.05 * len(flipped))
    lines = [
        f"{int(flipped.sum())} of {len(flipped):,} labels changed; {dataset.title}",
        "",
        "| score | precision at 5 % | average precision |",
        "|---|--:|--:|",
    ]
    for name, value in suspicion.items():
        values = np.asarray(value)
        first = np.argsort(-values, kind="stable")[:count]
        lines.append(
            f"| {name} | {100 * flipped[first].mean():.1f} | "
            f"{100 * average_precision_score(flipped, values):.1f} |"
        )
    return lines
