"""Runs, their resumption, the grid, and the report."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from made_files import NUM_IMAGES, make
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import nn

import sampleweights as sw
from examples.isic2018 import __main__ as cli
from examples.isic2018 import claims, data, encoders, figures, grid, importance, recipes, results
from examples.isic2018.official import CLASSES, DataError
from examples.isic2018.recipes import (
    PAPER,
    PRESETS,
    WEIGHTINGS,
    RandomM,
    Recipe,
    build_criterion,
    in_grid,
    node_counts,
)
from examples.isic2018.training import (
    CHECKPOINT,
    RESULT,
    AtomicCheckpoints,
    Experiment,
    Run,
    adjust,
    evaluate,
    execute,
    fit,
)
from sampleweights.compare.inputs import load

SMALL = replace(PRESETS["digits"], epochs_flat=4, epochs_hierarchical=4)
TINY = [
    "--backbone", "test_efficientnet", "--weights", "random", "--flat-stages", "-1",
    "--hierarchical-stages", "-2", "--size", "32", "32", "--epochs-flat", "2",
    "--epochs-hierarchical", "2", "--hidden", "8", "--adam-rate", "1e-3", "--splits", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.digits(2)


def a_run(recipe: Recipe = SMALL, **changes: object) -> Run:
    run = Run("flat", "adam", "ce", "ohem", 0, recipe, data.digits(0).fingerprint)
    return replace(run, **changes)


def test_metrics_are_the_papers() -> None:
    target = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    predicted = np.array([0, 0, 1, 1, 0, 2, 3, 4, 5, 5])
    sure = np.eye(7, dtype=np.float32)[predicted]
    metrics = evaluate(predicted, target, np.ones(10), sure, CLASSES)
    assert metrics["calibration_error"] == pytest.approx(30)
    assert metrics["acc"] == pytest.approx(70)
    assert metrics["bacc"] == pytest.approx(100 * balanced_accuracy_score(target, predicted))
    assert metrics["recall_MEL"] == pytest.approx(200 / 3)
    assert metrics["precision_DF"] == pytest.approx(50)
    assert metrics["precision_VASC"] == 0  # never predicted
    assert metrics["mean_precision"] == pytest.approx(
        np.mean([metrics[f"precision_{c}"] for c in CLASSES])
    )


def test_the_paper_preset_is_the_papers() -> None:
    recipe = PRESETS["paper"]
    assert (recipe.backbone, recipe.weights, recipe.size) == ("vgg16", "imagenet", (299, 299))
    assert (recipe.epochs_flat, recipe.epochs_hierarchical) == (150, 250)
    assert (recipe.batch_size, recipe.dropout, recipe.gamma) == (20, 0.5, 1)
    assert (recipe.adam_rate, recipe.sgd_rate, recipe.schedule) == (1e-5, 1e-4, "steps")
    assert not recipe.freeze_backbone
    assert recipe.adapter == 0


@pytest.mark.parametrize(
    ("onednn", "instructions", "expected"),
    [
        (True, True, True),  # AVX512_BF16, which every processor with AMX has too
        (True, False, False),  # other AVX-512: oneDNN takes bfloat16, and emulates it
        (True, None, False),  # a torch that does not tell
        (False, True, False),
    ],
)
def test_bfloat16_is_for_processors_that_compute_in_it(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, instructions: bool | None, expected: bool
) -> None:
    a_processor(monkeypatch, instructions)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    assert recipes.has_native_bfloat16() is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_bfloat16_is_for_gpus_that_compute_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    a_processor(monkeypatch, not expected)  # which does not matter
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert recipes.has_native_bfloat16() is expected
    assert recipe_of("--preset", "modern").half is expected


def a_processor(monkeypatch: pytest.MonkeyPatch, bfloat16: bool | None) -> None:
    """No GPU, and a processor with or without bfloat16 instructions; None: torch can not tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, recipes.BFLOAT16_TEST, lambda: bfloat16, raising=False)
    if bfloat16 is None:
        monkeypatch.delattr(torch.cpu, recipes.BFLOAT16_TEST)


def recipe_of(*arguments: str) -> Recipe:
    return cli.recipe_of(cli.parse_arguments(["train", "--data-root", "nowhere", *arguments]))


def test_a_preset_for_cpus_has_the_precision_that_is_fast_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_processor(monkeypatch, True)
    half, small = (recipe_of("--preset", name) for name in ("fast", "small-vgg16"))
    assert (half, small) == (PRESETS["fast"], PRESETS["small-vgg16"])
    assert half.precision == small.precision == "bf16-mixed"
    a_processor(monkeypatch, False)
    full = recipe_of("--preset", "fast")
    assert full == replace(half, precision="32-true")
    assert recipe_of("--preset", "small-vgg16") == replace(small, precision="32-true")
    # their results differ, and so do the folders of their runs
    assert a_run(full).name != a_run(half).name
    # what is asked for is done; and jobs may be sent to GPUs from a machine without one
    assert recipe_of("--preset", "fast", "--precision", "bf16-mixed") == half
    assert recipe_of("--preset", "modern") == PRESETS["modern"]


def test_frozen_maps_are_computed_in_the_recipes_precision(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = encoders.Encoder.forward

    def noting(self: encoders.Encoder, images: torch.Tensor) -> torch.Tensor:
        seen.add(torch.is_autocast_enabled("cpu"))
        return forward(self, images)

    monkeypatch.setattr(encoders.Encoder, "forward", noting)
    maps = {}
    for processor in (True, False):
        a_processor(monkeypatch, processor)
        arguments = ["--data-root", str(root), "--preset", "fast", *TINY, "--output", str(tmp_path)]
        source = cli.source_of(cli.parse_arguments(["train", *arguments]))
        maps[processor] = source.open("flat").inputs
        assert seen == {processor}
        seen.clear()
    assert not maps[True].equal(maps[False])
    # a cache that comes from another machine is neither read nor continued in the other precision
    caches = sorted(path.name for path in (tmp_path / "cache").glob("*test_efficientnet*.npy"))
    assert [("bfloat16" in name, "float32" in name) for name in caches] == [
        (True, False), (False, True),
    ]  # fmt: skip


def test_the_published_runs_are_found_by_their_settings() -> None:
    kept = list((Path(__file__).parents[2] / "docs" / "results").glob(f"*/*/{RESULT}"))
    assert len(kept) > 20
    for path in kept:
        result = json.loads(path.read_text())
        settings = {n: tuple(v) if isinstance(v, list) else v for n, v in result["recipe"].items()}
        names = ("model", "optimizer", "loss", "weighting", "split")
        run = Run(*(result[name] for name in names), Recipe(**settings), result["data"])
        assert run.name == path.parent.name


def test_the_grid_is_the_papers_and_more() -> None:
    args = cli.parse_arguments(["train", "--full"])
    runs = cli.runs_of(args, cli.source_of(args), "digits")
    papers = [run for run in runs if run.weighting in PAPER]
    assert len(papers) == 80
    assert len({run.name for run in runs}) == len(runs) == 80 + 64 + 16 + 8 + 32 + 16
    assert in_grid("sgd", "ce", "class_balanced_bare")
    assert not in_grid("adam", "ce", "class_balanced_bare")
    rows = {(r.model, r.optimizer, r.loss, r.weighting) for r in papers}
    assert rows == set(results.paper_numbers().index)
    tuned = cli.parse_arguments(["train", "--full", "--tune-gamma"])
    assert len(cli.runs_of(tuned, cli.source_of(tuned), "digits")) == len(runs) + 24


def rows_of(*arguments: str) -> set[tuple[str, ...]]:
    args = cli.parse_arguments(["train", *arguments])
    return {run.row for run in cli.runs_of(args, cli.source_of(args), "digits")}


def test_the_first_command_is_short_and_the_grid_one_option_away() -> None:
    papers = [("flat", "adam", "ce", weighting) for weighting in PAPER]
    later = ("logit_adjustment", "ldam_deferred", "balanced_sampling", "none_posthoc")
    first = rows_of()
    assert first == {*papers, *(("flat", "adam", "ce", weighting) for weighting in later)}
    full = rows_of("--full")
    assert first < full
    # what is named is run as it is in the grid
    assert rows_of("--losses", "ce") == {row for row in full if row[2] == "ce"}
    assert rows_of("--models", "flat") == {row for row in full if row[0] == "flat"}
    assert len(rows_of("--weightings", "ohem")) == 8
    # of the images there is one grid
    assert rows_of("--data-root", "nowhere") == rows_of("--data-root", "nowhere", "--full") == full


def lesions() -> sw.Taxonomy:
    return sw.Taxonomy(data.TREE, leaves=CLASSES)


def logits_over(model: str) -> int:
    return 7 if model == "flat" else lesions().num_nodes


def test_nodes_hold_what_is_below_them() -> None:
    tree = lesions()
    counts = [10, 60, 5, 3, 10, 2, 2]
    totals = dict(zip(tree.nodes, node_counts(counts, tree).tolist(), strict=True))
    assert {leaf: totals[leaf] for leaf in tree.leaves} == dict(
        zip(tree.leaves, counts, strict=True)
    )
    top = [
        totals[node] for node, level in zip(tree.nodes, tree.node_level, strict=True) if level == 0
    ]
    assert sum(top) == sum(counts)


@pytest.mark.parametrize("model", ["flat", "hierarchical"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_criteria_are_what_their_names_say(model: str, weighting: str) -> None:
    tree = lesions()
    counts = [10, 60, 5, 3, 10, 2, 2]
    criterion = build_criterion(model, "focal", weighting, counts, 10, 0.5, tree)
    level = criterion.criteria[0] if model == "hierarchical" else criterion
    assert level.gamma == 0.5
    unweighted = ("none", "logit_adjustment", "balanced_sampling")
    assert (criterion.weighter is None) == (weighting in unweighted)
    assert (level.margin is None) == (weighting not in ("logit_adjustment", "ldam_deferred"))
    if level.margin is not None:
        # of the hierarchy's 11 nodes: those above the leaves hold the sum of what is below
        expected = counts if model == "flat" else node_counts(counts, tree).tolist()
        assert level.margin.class_counts.tolist() == expected
        assert len(expected) == logits_over(model)
    criterion.set_epoch(0)
    target = torch.tensor([0, 1, 1, 1, 2, 3, 4, 5])
    shape = (8, 3, 11) if model == "hierarchical" else (8, 7)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight = criterion._weigh(criterion.samples(logits, target))
    if weighting == "ldam_deferred":
        assert weight is None
        criterion.set_epoch(8)
        assert criterion._weigh(criterion.samples(logits, target)).unique().numel() > 3
        return
    if weighting == "self_paced_per_class":
        assert weight[[0, 4, 5, 6, 7]].tolist() == [1] * 5
        assert weight[1:4].sum() == 2
        return
    if weighting.startswith(("self_paced", "ohem_kept", "random")) or weighting == "ohem":
        assert sorted(weight.tolist()) == [0] * 4 + [1] * 4
    if weighting == "ohem_per_class":
        assert weight[[0, 4, 5, 6, 7]].tolist() == [1] * 5  # the only ones of their classes
        assert weight[1:4].sum() == 2
    if weighting == "effective_number_ohem":
        assert (weight > 0).sum() == 4
    assert criterion.reduction == ("weighted_mean" if weighting.endswith("_kept") else "mean")


def test_random_m_keeps_as_many_as_ohem_but_others() -> None:
    weighter, mined = RandomM(10), sw.OHEM(10)
    loss = torch.arange(1000.0)
    kept = []
    for epoch in (0, 2, 5, 9):
        weighter.set_epoch(epoch)
        mined.set_epoch(epoch)
        torch.manual_seed(epoch)
        assert weighter(loss).sum() == mined(loss).sum()
        kept.append(weighter(loss))
    assert 400 < kept[0][500:].sum() + 200 < 500  # about half of the hardest half
    assert weighter.inactive


def same_result(one: Path, other: Path) -> None:
    a, b = (torch.load(folder / "model.pt", weights_only=True) for folder in (one, other))
    for part in ("encoder", "model"):
        assert a[part].keys() == b[part].keys()
        for key in a[part]:
            assert a[part][key].equal(b[part][key]), key
    pd.testing.assert_frame_equal(
        pd.read_csv(one / "curves.csv"), pd.read_csv(other / "curves.csv"), check_exact=True
    )
    with np.load(one / "predictions.npz") as p, np.load(other / "predictions.npz") as q:
        assert np.array_equal(p["validation_probabilities"], q["validation_probabilities"])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("model", ["flat", "hierarchical"])
@pytest.mark.parametrize("schedule", ["steps", "one-cycle"])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(
    digits: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    optimizer: str, model: str, schedule: str,
) -> None:  # fmt: skip
    run = a_run(replace(SMALL, schedule=schedule), optimizer=optimizer, model=model)
    execute(run, digits, tmp_path / "whole")
    torch.rand(3)  # another state of the generator
    calls, step = 0, Experiment.training_step

    def dies(self: Experiment, *args: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 18:  # in the third epoch
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Experiment, "training_step", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        execute(run, digits, tmp_path / "killed")
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    assert not (tmp_path / "killed" / RESULT).exists()
    before = len(pd.read_csv(tmp_path / "killed" / "curves.csv"))
    assert before == 2
    calls = -100
    execute(run, digits, tmp_path / "killed")
    assert calls == -100 + (4 - before) * 7  # seven batches an epoch
    same_result(tmp_path / "whole", tmp_path / "killed")
    assert not (tmp_path / "killed" / CHECKPOINT).exists()


def test_a_run_leaves_what_it_did(digits: data.Dataset, tmp_path: Path) -> None:
    run = a_run()
    execute(run, digits, tmp_path)
    result = json.loads((tmp_path / RESULT).read_text())
    assert result["weighting"] == "ohem"
    assert result["recipe"]["batch_size"] == 32
    split = digits.split[0]
    target = digits.target.numpy()[split.validation]
    with np.load(tmp_path / "predictions.npz") as file:
        probabilities = file["validation_probabilities"]
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    accuracy = accuracy_score(target, probabilities.argmax(1), sample_weight=split.sample_weight)
    assert result["metrics"]["validation"]["acc"] == pytest.approx(100 * accuracy)
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert curves["epoch"].tolist() == [0, 1, 2, 3]
    counts = np.bincount(digits.target.numpy()[split.train], minlength=7)
    for epoch, kept in zip(range(4), curves["kept"], strict=True):
        fraction = sw.schedules.Sigmoid(4)(epoch)
        m = [int(fraction * size + 0.5) for size in (32,) * 6 + (len(split.train) - 192,)]
        assert kept == pytest.approx(sum(m) / len(split.train))
        of_class = curves.loc[epoch, [f"kept_{c}" for c in digits.classes]].to_numpy(dtype=float)
        assert of_class @ counts == pytest.approx(sum(m))
    weights = curves.loc[3, [f"weight_{c}" for c in digits.classes]]
    assert weights.eq(1).all()


def test_the_effective_weight_of_a_class_is_its_weight(
    digits: data.Dataset, tmp_path: Path
) -> None:
    execute(a_run(weighting="class_balanced"), digits, tmp_path)
    curves = pd.read_csv(tmp_path / "curves.csv")
    counts = np.bincount(digits.target.numpy()[digits.split[0].train], minlength=7)
    expected = counts.sum() / 7 / counts
    weights = curves.loc[2, [f"weight_{c}" for c in digits.classes]].to_numpy(dtype=float)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_rates_and_decay_are_the_papers(digits: data.Dataset, tmp_path: Path) -> None:
    recipe = replace(
        SMALL, epochs_flat=8, schedule="steps", weight_decay=5e-4, adam_rate=1e-3, sgd_rate=1e-3
    )
    for optimizer in ("adam", "sgd"):
        run = a_run(recipe, optimizer=optimizer)
        experiment = Experiment(run, digits, tmp_path / optimizer)
        (tmp_path / optimizer).mkdir()
        fit(experiment)
        rates = [row["learning_rate"] for row in experiment.curves]
        assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2)
        [made], _ = experiment.configure_optimizers()
        decayed = [
            p for group in made.param_groups if group["weight_decay"] for p in group["params"]
        ]
        convolutions = [m.weight for m in experiment.encoder.modules() if isinstance(m, nn.Conv2d)]
        assert {id(p) for p in decayed} == {id(p) for p in convolutions}
        assert sum(len(group["params"]) for group in made.param_groups) == len(
            list(experiment.parameters())
        )


def test_epochs_are_other_permutations_of_the_training_split(digits: data.Dataset) -> None:
    experiment = Experiment(a_run(), digits, Path())
    orders = [torch.cat([index for index, _ in experiment.batches(e)]).tolist() for e in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(digits.split[0].train.tolist())
    assert orders[0] != orders[1]
    views = torch.cat([view for _, view in experiment.batches(0)])
    assert set(views.tolist()) == set(range(5))


def test_balanced_sampling_draws_all_classes_alike(digits: data.Dataset) -> None:
    experiment = Experiment(a_run(weighting="balanced_sampling"), digits, Path())
    orders = [torch.cat([index for index, _ in experiment.batches(e)]) for e in (0, 1, 0)]
    assert orders[0].equal(orders[2])
    assert not orders[0].equal(orders[1])
    assert set(orders[0].tolist()) <= set(digits.split[0].train.tolist())
    share = digits.target[torch.cat(orders[:2])].bincount(minlength=7) / (2 * len(orders[0]))
    assert (share - 1 / 7).abs().max() < 0.05


def test_posthoc_adjustment_is_a_run_of_its_own(digits: data.Dataset, tmp_path: Path) -> None:
    plain, adjusted = a_run(weighting="none"), a_run(weighting="none_posthoc")
    execute(plain, digits, tmp_path / plain.name)
    adjust(adjusted, tmp_path, digits)
    before, after = (
        np.load(tmp_path / run.name / "predictions.npz")["validation_probabilities"]
        for run in (plain, adjusted)
    )
    split = digits.split[0]
    counts = np.bincount(digits.target.numpy()[split.train], minlength=7)
    odds = before / (counts / counts.sum())
    np.testing.assert_allclose(after, odds / odds.sum(1, keepdims=True), rtol=1e-4, atol=1e-7)
    result = json.loads((tmp_path / adjusted.name / RESULT).read_text())
    assert result["weighting"] == "none_posthoc"
    target = digits.target.numpy()[split.validation]
    assert result["metrics"]["validation"] == evaluate(
        after.argmax(1), target, split.sample_weight, after, digits.classes
    )


def test_two_processes_train_together(digits: data.Dataset, tmp_path: Path) -> None:
    run = a_run(replace(SMALL, epochs_flat=2))
    experiment = Experiment(run, digits, tmp_path)
    before = experiment.model.classifier.weight.detach().clone()
    fit(experiment, devices=2, accelerator="cpu")
    assert not experiment.model.classifier.weight.equal(before)
    assert len(pd.read_csv(tmp_path / "curves.csv")) == 2


# --------------------------------------------------------------------------------------------


def job(tmp_path: Path, **changes: object) -> grid.Job:
    args = cli.parse_arguments(
        ["train", "--weightings", "none", "ohem", "--losses", "ce", "--splits", "1",
         "--epochs-flat", "2", "--epochs-hierarchical", "2", "--output", str(tmp_path)]
    )  # fmt: skip
    source = cli.source_of(args)
    runs = cli.runs_of(args, source, "digits")
    return grid.Job(source, runs, tmp_path / "runs", **changes)


def test_a_finished_run_is_not_repeated_and_a_taken_one_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = job(tmp_path)
    done: list[str] = []
    plain = grid.execute

    def noting(run: Run, *arguments: object) -> None:
        done.append(run.name)
        plain(run, *arguments)

    monkeypatch.setattr(grid, "execute", noting)
    first, second = work.runs[0].name, work.runs[1].name
    with grid.taken(work.folder / first) as mine:
        assert mine
        with pytest.raises(DataError, match=f"1 runs did not finish, {first} first"):
            grid.run_all(work)
    assert first not in done
    assert len(done) == len(work.runs) - 1
    grid.run_all(work)
    assert sorted(done) == sorted(run.name for run in work.runs)
    (work.folder / second / RESULT).unlink()
    grid.run_all(work)
    assert done[-1] == second
    assert len(done) == len(work.runs) + 1


def test_the_grid_survives_kill_9(tmp_path: Path) -> None:
    arguments = [
        sys.executable, "-m", "examples.isic2018", "train", "--weightings", "none", "ohem",
        "--losses", "ce", "--splits", "1", "--models", "flat", "--epochs-flat", "30",
        "--output", str(tmp_path), "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, start_new_session=True, cwd=Path(__file__).parents[2]
    )
    runs = tmp_path / "digits" / "runs"
    deadline = time.monotonic() + 120
    while not list(runs.glob(f"*/{CHECKPOINT}")):  # something has begun
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    process.stderr.close()
    # its workers end with it: the locks become free
    for folder in runs.iterdir():
        while True:
            with grid.taken(folder) as mine:
                if mine:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
    unfinished = [folder for folder in runs.iterdir() if not (folder / RESULT).exists()]
    assert unfinished
    finished = {f: (f / RESULT).stat().st_mtime_ns for f in runs.iterdir() if f not in unfinished}
    subprocess.run(arguments, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert len(list(runs.glob(f"*/{RESULT}"))) == 4
    assert all((f / RESULT).stat().st_mtime_ns == at for f, at in finished.items())
    # and the same as without
    folder = unfinished[0]
    weighting = "ohem" if "ohem" in folder.name else "none"
    optimizer = "adam" if "-adam-" in folder.name else "sgd"
    recipe = replace(PRESETS["digits"], epochs_flat=30)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    run = a_run(recipe, weighting=weighting, optimizer=optimizer)
    assert run.name == folder.name
    execute(run, data.digits(1), tmp_path / "whole")
    torch.set_num_threads(threads)
    same_result(tmp_path / "whole", folder)


def test_every_worker_has_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    gpus = grid.visible_gpus()
    assert [grid.own_gpus(gpus, i, 1) for i in range(4)] == [["4"], ["5"], ["6"], ["7"]]
    assert [grid.own_gpus(gpus, i, 2) for i in range(2)] == [["4", "5"], ["6", "7"]]
    assert grid.own_gpus(["0"], 3, 1) == ["0"]


def test_jobs_of_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs submitit")
    work = job(tmp_path, workers=2)
    work = replace(work, runs=work.runs[:2])
    grid._submit(work, "local", {"timeout_min": 5})  # submitit's own stand-in for slurm
    assert all((work.folder / run.name / RESULT).exists() for run in work.runs)


def test_slurm_gets_numbers_and_what_it_does_not_take_is_told(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs submitit")
    pairs = ["slurm_partition=gpu", "timeout_min=600"]
    assert cli.slurm_parameters(pairs) == {"slurm_partition": "gpu", "timeout_min": 600}
    with pytest.raises(DataError, match="--slurm: submitit does not take"):
        grid._submit(job(tmp_path), "local", {"timeout_min": "soon"})


def test_one_bad_run_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = job(tmp_path)
    bad = work.runs[0]
    original = grid.execute

    def fails(run: Run, *arguments: object) -> None:
        if run == bad:
            raise RuntimeError("out of memory")
        original(run, *arguments)

    monkeypatch.setattr(grid, "execute", fails)
    with pytest.raises(DataError, match=f"1 runs did not finish, {bad.name} first"):
        grid.run_all(work)
    assert "out of memory" in (work.folder / bad.name / "error.txt").read_text()
    monkeypatch.setattr(grid, "execute", original)
    grid.run_all(work)
    assert not (work.folder / bad.name / "error.txt").exists()


def test_checkpoints_are_whole(digits: data.Dataset, tmp_path: Path) -> None:
    """Nobody sees a part of one under its name, wherever temporary files are."""
    io = AtomicCheckpoints()
    for value in (1, 2):
        io.save_checkpoint({"value": value}, tmp_path / "new" / CHECKPOINT)
        assert torch.load(tmp_path / "new" / CHECKPOINT) == {"value": value}
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CHECKPOINT]


# --------------------------------------------------------------------------------------------


def run_command(*arguments: object) -> None:
    cli.command(cli.parse_arguments(list(map(str, arguments))))


def test_digits_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(
        "reproduce", "--epochs-flat", 2, "--epochs-hierarchical", 2, "--optimizers", "adam",
        "--losses", "ce", "--output", tmp_path, "--workers", 1, "--tune-gamma",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert out.count("| CE    | OHEM                  |") == 2
    assert out.startswith("This run takes a few minutes and shows what each weighting does on real")
    assert "it does not reproduce the paper's numbers, which need the images" in out.split("\n")[0]
    assert "Long-tailed digits, a small CNN. Flat model, Adam, mean of 2 splits\n" in out
    folder = tmp_path / "digits"
    picture = folder / "figures" / "tradeoff-flat-adam-ce.png"
    assert out.endswith(f"picture: {picture}\nreport: {folder / 'report.html'} (and report.md)\n")
    text = (folder / "report.md").read_text()
    for title in ("Flat model, Adam", "Hierarchical model, Adam", "Claims",
                  "Gamma of the focal loss", "Recall per class"):  # fmt: skip
        assert f"## {title}\n" in text
    assert re.search(
        r"\| 1 \| class-balanced weights raise BAcc and lower Acc \| \d of 2 \| BAcc ", text
    )
    # digits are no lesions, and the paper has no numbers of them
    for shown in (out, text):
        assert not set(CLASSES) & set(re.findall(r"\w+", shown))
        assert not re.search(r"\d \(\d|Table \d|Figures? \d", shown)
        assert not re.search("lesion|diagnos|brackets|VGG", shown)
    assert re.search(r"^\| 8 \| 174 \|", text, re.M)
    named = re.findall(r"\((figures/[^)]+)\)", text)
    assert len(named) == 3 * 2 + 2 * 4 - 2
    assert f"figures/{picture.name}" in named
    for name in named:
        with Image.open(folder / name) as image:
            assert min(image.size) > 300
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(named)
    assert "<table>" in page
    assert 'src="figures' not in page
    split = pd.read_csv(folder / "splits" / "split-1.csv")
    assert split["part"].value_counts()["validation"] == len(data.digits(2).split[1].validation)
    run_command(
        "report", "--epochs-flat", 2, "--epochs-hierarchical", 2, "--optimizers", "adam",
        "--losses", "ce", "--output", tmp_path, "--decode", "greedy",
    )  # fmt: skip
    assert "greedy decoding" in (folder / "report.md").read_text()
    with pytest.raises(DataError, match="there is no finished run of these settings"):
        run_command("report", "--epochs-flat", 3, "--models", "flat", "--output", tmp_path)


def test_the_test_set_can_be_asked_for_afterwards(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(root, "Test", 14)
    command = [
        "train", "--data-root", root, *TINY, "--weightings", "none", "--losses", "ce",
        "--optimizers", "adam", "--models", "flat", "--workers", 1, "--output",
    ]  # fmt: skip
    run_command(*command, tmp_path / "after")
    [model] = tmp_path.rglob("model.pt")
    kept = model.rename(tmp_path / "kept.pt")
    with pytest.raises(DataError, match="1 runs did not finish"):
        run_command(*command, tmp_path / "after", "--with-test")
    assert "has a result but no model.pt, which the test set needs" in capsys.readouterr().err
    # what has no predictions of the test set is still reported
    run_command("report", *command[1:-1], "--weightings", "none", "none_posthoc",
                "--output", tmp_path / "after", "--with-test")  # fmt: skip
    assert "-, post-hoc" in next(tmp_path.rglob("report.md")).read_text()
    kept.rename(model)
    run_command(*command, tmp_path / "after", "--with-test")
    run_command(*command, tmp_path / "at-once", "--with-test")
    results = [
        json.loads(next((tmp_path / name / "isic2018" / "runs").glob(f"*/{RESULT}")).read_text())
        for name in ("after", "at-once")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert {"validation", "test", "test_greedy"} <= results[0]["metrics"].keys()


def test_the_test_set_of_adjusted_rows_stays(root: Path, tmp_path: Path) -> None:
    make(root, "Test", 14)
    command = [
        "train", "--data-root", root, *TINY, "--weightings", "none_posthoc", "--losses", "ce",
        "--optimizers", "adam", "--models", "flat", "--workers", 1, "--output", tmp_path,
    ]  # fmt: skip
    run_command(*command, "--with-test")
    [folder] = (tmp_path / "isic2018" / "runs").glob("*none_posthoc*")
    before = json.loads((folder / RESULT).read_text())["metrics"]
    run_command(*command)
    assert json.loads((folder / RESULT).read_text())["metrics"] == before
    assert "test" in before
    with np.load(folder / "predictions.npz") as file:
        assert file["test_probabilities"].shape == (14, 7)


def test_the_report_adjusts_what_was_trained_and_names_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--epochs-flat", 1, "--models", "flat", "--optimizers", "adam", "--losses", "ce",
        "--output", tmp_path, "--weightings", "none",
    ]  # fmt: skip
    run_command("train", *command, "ohem", "--splits", 1, "--workers", 1)
    run_command("report", *command, "ohem", "none_posthoc", "self_paced", "--splits", 1)
    page = (tmp_path / "digits" / "report.md").read_text()
    assert "-, post-hoc" in page
    assert "SelfPaced" not in page
    assert "do not compare" not in page
    assert "spatial attention" in page
    for model in tmp_path.rglob("model.pt"):
        model.unlink()  # as in docs/results
    run_command("report", *command, "--splits", 1)
    assert "spatial attention" not in (tmp_path / "digits" / "report.md").read_text()
    run_command("train", *command, "--splits", 2, "--workers", 1)
    run_command("report", *command, "ohem", "none_posthoc", "--splits", 2)
    sentence = (
        "These rows have fewer than 2 splits, and their numbers do not compare with those of the "
        "others: flat, adam, ce, ohem (1)."
    )
    page = (tmp_path / "digits" / "report.md").read_text()
    assert sentence in page
    assert page.count("the channel with the largest gate") == 2 * 2  # of the run with a model
    assert sentence in capsys.readouterr().out


def test_figures_of_two_optimisers_are_apart(tmp_path: Path) -> None:
    run_command(
        "reproduce", "--epochs-flat", 1, "--models", "flat", "--losses", "ce", "--weightings",
        "none", "ohem", "--splits", 1, "--output", tmp_path, "--workers", 1,
    )  # fmt: skip
    named = re.findall(r"\((figures/[^)]+)\)", (tmp_path / "digits" / "report.md").read_text())
    assert len(named) == len(set(named)) == 2 + 2 + 2 * 4


def test_importance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("importance", "--epochs-flat", 3, "--output", tmp_path)
    assert capsys.readouterr().out == f"page: {tmp_path / 'digits' / 'importance.html'}\n"
    table = pd.read_csv(tmp_path / "digits" / "importance.csv")
    assert len(table) == len(data.digits(1).table)
    assert (table["times"] == 3).all()
    assert table["kept"].between(1 / 3, 1).all()
    assert "Least needed" in (tmp_path / "digits" / "importance.html").read_text()
    run_command("importance", "--epochs-flat", 3, "--output", tmp_path, "--flip", 0.05)
    rows = re.findall(r"\| mean loss \| ([0-9.]+) \| ([0-9.]+) \|", capsys.readouterr().out)
    assert float(rows[0][0]) > 50  # by chance 5
    page = (tmp_path / "digits" / "importance.html").read_text()
    strips = re.findall(r"<h3>Probably mislabelled.*?(?=<h3>|</section>)", page, re.DOTALL)
    assert sum(" was " in strip for strip in strips) > 3  # of seven classes


def test_probabilities_out_of_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample is predicted once, by a model that was not trained on its lesion."""
    dataset = data.digits(1)
    lesion = np.array([f"lesion-{i // 2}" for i in range(len(dataset.table))])
    dataset = replace(dataset, table=dataset.table.assign(lesion=lesion))
    trained_on: list[set[str]] = []

    def no_training(experiment: importance.Recorded) -> None:
        trained_on.append(set(lesion[experiment.split.train]))

    def predict(*arguments: object) -> tuple[np.ndarray, None]:
        held_out = arguments[3]
        assert isinstance(held_out, np.ndarray)
        assert not trained_on[-1] & set(lesion[held_out])
        return np.full((len(held_out), 7), len(trained_on), np.float32), None

    monkeypatch.setattr(importance, "fit", no_training)
    monkeypatch.setattr(importance, "predict", predict)
    recipe = Recipe(epochs_flat=1)
    folds = importance.out_of_fold(dataset, recipe, dataset.target, tmp_path)
    assert np.unique(folds).tolist() == [1, 2, 3, 4, 5]
    assert len(list(tmp_path.iterdir())) == 5  # each training has a folder of its own


@pytest.mark.parametrize("preset", ["paper", "frozen", "small", "modern"])
def test_images_end_to_end(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    make(root, "Test", 14)
    options = {
        "paper": [],
        "frozen": ["--freeze-backbone", "--grid", 2, 2, "--adapter", 8],
        "small": ["--preset", "small"],
        "modern": ["--preset", "modern", "--no-compile"],
    }[preset]
    run_command(
        "reproduce", "--data-root", root, *TINY, *options, "--weightings", "none", "ohem",
        "--losses", "ce", "--optimizers", "adam", "--output", tmp_path, "--workers", 1,
        "--with-test",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert f"ISIC 2018, {NUM_IMAGES} images of 32x32, test_efficientnet (random), " in out
    assert "Table 2: flat model, Adam, one split; in brackets the paper's numbers" in out
    assert re.search(r"\| CE    \| OHEM +\| [\d.]+ \(84\.5\)", out)
    text = (tmp_path / "isic2018" / "report.md").read_text()
    assert re.search(r"\| 5 \| OHEM has a higher BAcc than no weighting \| 7 of 8 \| ", text)
    results = list((tmp_path / "isic2018" / "runs").glob(f"*/{RESULT}"))
    assert len(results) == 4
    _, _, section = text.partition("## The public test set\n")
    section, _, _ = section.partition("\n## ")
    assert "4 of 4 finished runs were evaluated on it" in section
    tables = re.split(r"### Test set: (\w+) model, Adam\n", section)[1:]
    rows = {
        (model, name): float(value)
        for model, table in zip(tables[::2], tables[1::2], strict=True)
        for name, value in re.findall(r"\| CE    \| (-|OHEM) +\| ([\d.]+) \(", table)
    }
    assert rows == {
        (done["model"], "OHEM" if done["weighting"] == "ohem" else "-"):
            round(done["metrics"]["test"]["acc"], 1)
        for done in (json.loads(path.read_text()) for path in results)
    }  # fmt: skip
    assert re.search(r"\| class \| .* \| test set \|\n.*\n\| MEL \| .* \| 2 \|\n", text)


def test_prepare_downloads_and_says_where(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(
        "prepare", "--data-root", tmp_path / "new", "--mirror", root, *TINY, "--output", tmp_path
    )
    assert f"splits: {tmp_path / 'isic2018' / 'splits'}" in capsys.readouterr().out
    assert (tmp_path / "isic2018" / "splits" / "split-0.csv").exists()
    seen = pd.read_csv(tmp_path / "isic2018" / "files.csv").set_index("file")
    name = "ISIC2018_Task3_Training_Input.zip"
    content = (root / name).read_bytes()
    assert seen.loc[name, "bytes"] == len(content)
    assert seen.loc[name, "sha256"] == hashlib.sha256(content).hexdigest()


def test_features_are_what_compare_reads(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = ["--freeze-backbone", "--grid", 2, 2, "--output", tmp_path]
    run_command("features", "--data-root", root, *TINY, *frozen)
    path = tmp_path / "isic2018" / "features.npz"
    assert capsys.readouterr().out == (
        f"features: {path}\nnext: python -m sampleweights compare {path}\n"
    )
    inputs = load([path])
    dataset = cli.source_of(
        cli.parse_arguments(["features", "--data-root", str(root), *TINY, *map(str, frozen)])
    ).open("flat")
    assert inputs.class_names == CLASSES
    np.testing.assert_array_equal(inputs.target, dataset.target)
    same = inputs.groups[:, None] == inputs.groups
    np.testing.assert_array_equal(same, np.equal.outer(*[dataset.table["lesion"].to_numpy()] * 2))
    expected = dataset.inputs.double().mean((1, 2, 3)).numpy()  # over view, height and width
    assert inputs.features.dtype == np.float32
    np.testing.assert_allclose(inputs.features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images", [True, False])
def test_features_need_a_frozen_backbone(root: Path, images: bool) -> None:
    where = ["--data-root", root, "--preset", "small"] if images else []
    with pytest.raises(DataError, match="^features needs images and a frozen backbone: --data-r"):
        run_command("features", *where)


def test_throughput_is_said_apart(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples.isic2018 import throughput

    monkeypatch.setattr(throughput, "SECONDS", 0.2)
    run_command("throughput", "--data-root", root, *TINY, "--output", tmp_path)
    out = capsys.readouterr().out
    rows = re.findall(r"\| (flat|hierarchical) \| [\d,.]+ images/s \| [\d,.]+ images/s \|", out)
    assert rows == ["flat", "hierarchical"]
    assert "The paper's 80 runs (2 and 2 epochs): " in out


def test_bad_arguments_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in [
        (["--splits", 0], "--splits must be at least 1, got 0"),
        (["--optimizers", "adamax"], "invalid choice: 'adamax'"),
        (["--weightings", "ohm"], "invalid choice: 'ohm'"),
        (["--slurm", "gpu"], "--slurm must be NAME=VALUE, got 'gpu'"),
    ]:
        with pytest.raises(SystemExit):
            run_command("train", *arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--schedule", "cosine"], "--schedule must be steps or one-cycle, got 'cosine'"),
        (["--size", "32"], r"--size must be a height and a width, got \(32,\)"),
        (["--grid", "2", "3", "4"], "--grid must be a height and a width"),
    ],
)
def test_bad_recipes_are_told(option: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        cli.recipe_of(cli.parse_arguments(["train", *option]))


def test_errors_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["isic2018", "report", "--data-root", str(tmp_path / "no")])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert str(error.value).startswith("error: --data-root must be a folder")
    assert "\n" not in str(error.value)
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(sys, "argv", ["isic2018", "train", "--output", str(file)])
    with pytest.raises(SystemExit, match="error: .*file"):
        cli.main()


def test_help_is_for_newcomers(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["reproduce", "--help"]):
        with pytest.raises(SystemExit):
            cli.parse_arguments(arguments)
    out = capsys.readouterr().out
    assert "python -m examples.isic2018 reproduce --data-root DIR --preset fast" in out
    assert "python -m examples.isic2018 features --data-root DIR --preset fast" in out
    assert "--batch-size" in out


def test_digits_need_no_packages_for_images(tmp_path: Path) -> None:
    script = f"""
import runpy, sys
for name in ("timm", "kornia"):
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = ["isic2018", "reproduce", "--weightings", "ohem", "--losses", "ce", "--optimizers",
            "adam", "--epochs-flat", "1", "--epochs-hierarchical", "1", "--splits", "1",
            "--workers", "1", "--output", {str(tmp_path)!r}]
runpy.run_module("examples.isic2018", run_name="__main__", alter_sys=True)
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (tmp_path / "digits" / "report.html").exists()


def test_images_without_their_packages_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install -e \"\.\[examples\]\" \(timm and kornia can"):
        run_command("train", "--data-root", tmp_path)


def test_the_help_needs_nothing_that_only_unix_has() -> None:
    script = """
import runpy, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None  # as on Windows: importing it raises ImportError
sys.argv = ["isic2018", "--help"]
runpy.run_module("examples.isic2018", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "python -m examples.isic2018 reproduce" in done.stdout


# --------------------------------------------------------------------------------------------


def test_the_papers_tables_bear_out_what_the_text_counts() -> None:
    paper = results.paper_numbers()
    counted = [claims.share(claim, paper) for claim in claims.claims()]
    assert counted[:8] == [(8, 8), (8, 8), (8, 8), (6, 8), (7, 8), (20, 20), (14, 20), (14, 20)]
    assert {of for _, of in counted[8:]} == {0}  # rows that the paper does not have


def made_results(
    dataset: data.Dataset, folder: Path, weightings: dict[str, int]
) -> tuple[results.Results, pd.DataFrame]:
    """Of made probabilities, by a seed for each weighting; and the metrics of the rows."""
    runs = [a_run(weighting=w, split=s) for w in weightings for s in (0, 1)]
    for run in runs:
        if run.weighting in recipes.POSTHOC:
            adjust(run, folder, dataset)
            continue
        split = dataset.split[run.split]
        target = dataset.target.numpy()[split.validation]
        generator = np.random.default_rng([weightings[run.weighting], run.split])
        logits = generator.normal(size=(len(target), 7)) + 2 * np.eye(7)[target]
        logits[:, 1] += 1.5
        probabilities = torch.from_numpy(logits).softmax(1).float().numpy()
        predicted = probabilities.argmax(1)
        scores = evaluate(predicted, target, split.sample_weight, probabilities, dataset.classes)
        (folder / run.name).mkdir(parents=True)
        content = {"metrics": {"validation": scores}, "seconds": 1.0}
        (folder / run.name / RESULT).write_text(json.dumps(content))
        np.savez(folder / run.name / "predictions.npz", validation_probabilities=probabilities)
    found = results.Results(runs, folder, {"flat": dataset})
    return found, found.summary()


def test_whole_lesions_are_drawn_the_same_for_every_row(tmp_path: Path) -> None:
    dataset = data.digits(2)
    found, summary = made_results(dataset, tmp_path, {"none": 0, "ohem": 0, "ldam_deferred": 1})
    for row, draws in found.bootstrap.items():
        for metric, values in draws.items():
            assert values.std() > 0.5
            assert values.mean() == pytest.approx(summary.loc[row, metric], abs=1)
    first, same, other = (draws["bacc"] for draws in found.bootstrap.values())
    np.testing.assert_array_equal(first, same)  # the same predictions
    assert (first != other).any()
    dataset.table["group"] = 7  # a single lesion: every draw is all of it
    found = results.Results(found.runs, tmp_path, {"flat": dataset})
    for row, draws in found.bootstrap.items():
        for metric, values in draws.items():
            np.testing.assert_allclose(values, summary.loc[row, metric], rtol=1e-5)


def test_the_curve_of_the_picture_passes_the_adjusted_row(
    digits: data.Dataset, tmp_path: Path
) -> None:
    found, summary = made_results(
        digits,
        tmp_path,
        {"none": 0, "class_balanced": 1, "ohem": 2, "none_posthoc": 0, "ohem_posthoc": 2},
    )
    curve = figures.posthoc_frontier(found, found.of_row(("flat", "adam", "ce", "none")))
    assert curve is not None
    curve = curve.set_index("tau")
    assert curve.index[[0, -1]].tolist() == [0, 1]
    for tau, weighting in ((0, "none"), (1, "none_posthoc")):
        row = summary.loc[("flat", "adam", "ce", weighting)]
        at = curve.iloc[np.abs(curve.index - tau).argmin()]
        assert at["accuracy"] == pytest.approx(row["acc"], abs=1e-3)
        assert at["balanced_accuracy"] == pytest.approx(row["bacc"], abs=1e-3)
    [axes] = figures.tradeoff(found, "flat", "adam", "ce").axes
    anchors = {
        " ".join(text.get_text().split()): text.xy for text in axes.texts if text.arrow_patch
    }
    for weighting in ("none", "none_posthoc", "class_balanced", "ohem", "ohem_posthoc"):
        row = summary.loc[("flat", "adam", "ce", weighting)]
        assert anchors[figures.plain(weighting)] == pytest.approx((row["bacc"], row["acc"]))
    plt.close(axes.figure)


def test_readings_are_drawn_only_where_there_is_nothing_else(
    digits: data.Dataset, tmp_path: Path
) -> None:
    for weightings, shown in (
        ({"ohem": 0, "ohem_kept": 1, "self_paced_kept": 2}, 1),
        ({"ohem_kept": 1, "self_paced_kept": 2}, 2),
    ):
        found, _ = made_results(digits, tmp_path / str(shown), weightings)
        [axes] = figures.tradeoff(found, "flat", "adam", "ce").axes
        assert len([line for line in axes.lines if line.get_marker() == "o"]) == shown
        plt.close(axes.figure)


def test_without_an_unweighted_run_the_picture_has_no_curve(
    digits: data.Dataset, tmp_path: Path
) -> None:
    found, _ = made_results(digits, tmp_path, {"ohem": 0, "ohem_posthoc": 0})
    [axes] = figures.tradeoff(found, "flat", "adam", "ce").axes
    assert not any("curve" in text.get_text() for text in axes.texts)
    assert len([line for line in axes.lines if line.get_marker() == "o"]) == 2
    plt.close(axes.figure)


def test_a_claims_interval_holds_its_mean(digits: data.Dataset, tmp_path: Path) -> None:
    runs = [a_run(weighting=w, optimizer=o) for w in ("none", "ohem") for o in ("adam", "sgd")]
    for run in runs:
        execute(run, digits, tmp_path / run.name)
    found = results.Results(runs, tmp_path, {"flat": digits})
    claim = next(c for c in claims.claims() if "OHEM has a higher BAcc than no w" in c.text)
    difference = claims.difference(claim, found, "bacc")
    assert difference.low <= difference.value <= difference.high
    assert claims.share(claim, found.summary())[1] == 2
    assert claims.difference(claims.claims()[0], found, "bacc") is None
