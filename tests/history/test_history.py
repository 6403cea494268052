"""What is recorded against a plain-Python account of the same training."""

from __future__ import annotations

import copy
import io
import itertools
import math
import statistics
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from torch import Tensor

import sampleweights as sw
from sampleweights.history import state

NUM_SAMPLES, NUM_CLASSES, NUM_EPOCHS = 12, 3, 5


def batches(epoch: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Indices, logits and targets; sample 11 is never seen, sample 0 twice an epoch."""
    g = torch.Generator().manual_seed(epoch)
    order = torch.cat([torch.randperm(NUM_SAMPLES - 1, generator=g), torch.zeros(1).long()])
    logits = 3 * torch.randn(NUM_SAMPLES, NUM_CLASSES, generator=g)
    target = order % NUM_CLASSES
    return list(zip(order.split(5), logits.split(5), target.split(5), strict=True))


def criterion() -> Any:
    return sw.CrossEntropyLoss(weighter=[sw.ClassBalanced([4, 4, 2]), sw.OHEM(NUM_EPOCHS)])


def train(history: sw.LossHistory, epochs: range = range(NUM_EPOCHS)) -> sw.LossHistory:
    loss = criterion()
    for epoch in epochs:
        loss.set_epoch(epoch)
        for index, logits, target in batches(epoch):
            with history.record(loss, index):
                loss(logits, target)
        history.end_epoch()
    return history


def account() -> list[dict[str, float]]:
    """The same by hand."""
    loss = criterion()
    rows: list[list[list[dict[str, float]]]] = [
        [[] for _ in range(NUM_EPOCHS)] for _ in range(NUM_SAMPLES)
    ]
    for epoch in range(NUM_EPOCHS):
        loss.set_epoch(epoch)
        for index, logits, target in batches(epoch):
            samples = loss.samples(logits, target)
            weight = loss._weigh(samples)
            weight = torch.ones(len(index)) if weight is None else weight
            for i, z, y, one, w in zip(index, logits, target, samples.loss, weight, strict=True):
                others = [v for c, v in enumerate(z.tolist()) if c != y]
                rows[i][epoch].append(
                    {
                        "loss": one.item(),
                        "weight": w.item(),
                        "p": z.softmax(0)[y].item(),
                        "margin": z[y].item() - max(others),
                        "right": z[y].item() > max(others),
                    }
                )
    results = []
    for sample in rows:
        if not any(sample):
            results.append(dict.fromkeys(["importance", "mean_loss", "variability"], math.nan))
            continue

        def mean(of: list[dict[str, float]], key: str) -> float:
            return statistics.fmean(visit[key] for visit in of)

        right = [statistics.fmean(v["margin"] > 0 for v in visits) > 0.5 for visits in sample]
        visits = [visit for epoch in sample for visit in epoch]
        p = [mean(epoch, "p") for epoch in sample]
        results.append(
            {
                "importance": sum(visit["weight"] for visit in visits),
                "kept": statistics.fmean(visit["weight"] > 0 for visit in visits),
                "mean_loss": statistics.fmean(mean(epoch, "loss") for epoch in sample),
                "loss_std": statistics.pstdev(mean(epoch, "loss") for epoch in sample),
                "confidence": statistics.fmean(p),
                "variability": statistics.pstdev(p),
                "area_under_margin": statistics.fmean(mean(epoch, "margin") for epoch in sample),
                "correctness": mean(visits, "right"),
                "forgetting_events": sum(a and not b for a, b in itertools.pairwise(right)),
                "first_learned": right.index(True) if any(right) else -1,
                "times": len(visits),
            }
        )
    return results


def test_scores_equal_the_account() -> None:
    scores = train(sw.LossHistory(NUM_SAMPLES)).scores()
    for i, expected in enumerate(account()):
        for name, value in expected.items():
            assert scores[name][i].item() == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True)
    assert scores["times"].tolist() == [2 * NUM_EPOCHS] + [NUM_EPOCHS] * 10 + [0]


def test_trajectories() -> None:
    history = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS - 1))
    assert history.losses.shape == (NUM_EPOCHS - 1, NUM_SAMPLES)
    assert history.losses[:, -1].isnan().all()
    assert history.losses[:, :-1].isfinite().all()
    assert (history.weights[3, :-1] > 0).all()  # the curriculum is over: all are kept
    loss = criterion()
    index, logits, target = batches(0)[0]
    expected = loss.samples(logits, target).loss
    only_once = index != 0
    torch.testing.assert_close(
        history.losses[0, index[only_once]].float(), expected[only_once], rtol=1e-3, atol=1e-3
    )


def test_recording_changes_nothing() -> None:
    for weighter in (None, sw.OHEM(schedule=0.5), sw.OHEM(schedule=1.0)):
        loss, (index, logits, target) = sw.CrossEntropyLoss(weighter=weighter), batches(0)[0]
        history = sw.LossHistory(NUM_SAMPLES)
        with history.record(loss, index):
            recorded = loss(logits, target)
        torch.testing.assert_close(recorded, loss(logits, target))
        assert not loss.is_watched
        assert history.current[:, 0].sum() == len(index)


def test_any_loss() -> None:
    history, index = sw.LossHistory(4), torch.tensor([2, 0])
    dense = sw.FocalLoss()
    target = torch.tensor([[[0, 1], [1, -100]], [[-100] * 2] * 2])
    with history.record(dense, index):
        dense(torch.randn(2, 3, 2, 2), target)
    tree = sw.HierarchicalLoss(
        sw.CrossEntropyLoss(), taxonomy=sw.Taxonomy({"a": ["b", "c"], "d": ["e"]})
    )
    with history.record(tree, index=torch.tensor([1])):
        tree(torch.randn(1, 2, 5), torch.tensor([2]))
    history.update(torch.tensor([3]), torch.tensor([0.7]))
    history.end_epoch()
    assert history.times.tolist() == [0, 1, 1, 1]  # all of sample 0 was ignored
    assert history.scores()["mean_loss"][3] == pytest.approx(0.7)
    judged = ~history.scores()["area_under_margin"].isnan()
    assert judged.tolist() == [False, True, False, False]  # of a hierarchy the leaves


def test_state_round_trips_in_mid_epoch() -> None:
    whole = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS))
    part = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS), range(2))
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    resumed = sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(copy.deepcopy(resumed), range(2, NUM_EPOCHS))
    train(resumed, range(2, NUM_EPOCHS))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, equal_nan=True)


@pytest.mark.parametrize(("size", "epochs"), [(20, 8), (7, 3), (20, None)])
def test_another_size_keeps_what_both_have(size: int, epochs: int | None) -> None:
    saved = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS))
    loaded = sw.LossHistory(size, epochs)
    message = f"of 12 samples and 5 epochs, this one of {size} and {epochs or 0}"
    with pytest.warns(UserWarning, match=message):
        loaded.load_state_dict(saved.state_dict())
    both = min(size, NUM_SAMPLES)
    for name in ("mean_loss", "importance", "forgetting_events"):
        value = loaded.scores()[name]
        assert len(value) == size
        torch.testing.assert_close(value[:both], saved.scores()[name][:both], equal_nan=True)
    assert loaded.scores()["times"][both:].sum() == 0
    assert loaded.losses.shape == (epochs or 0, size)


def test_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    history = train(sw.LossHistory(NUM_SAMPLES))
    table = history.to_pandas(label=list("abcdefghijkl"))
    assert table.index.name == "sample"
    assert list(table.columns[:2]) == ["label", "importance"]
    assert len(table) == NUM_SAMPLES
    pytest.importorskip("pyarrow")
    history.to_parquet(tmp_path / "history.parquet", label=list("abcdefghijkl"))
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "history.parquet"), table)


def test_bad_input() -> None:
    history, loss = sw.LossHistory(4), sw.CrossEntropyLoss()
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        sw.LossHistory(0)
    with pytest.raises(TypeError, match=r"num_samples must be a whole number, got 3\.5"):
        sw.LossHistory(3.5)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="index must be from 0 to 3, got 1 to 4"):
        history.update(torch.tensor([1, 4]), torch.rand(2))
    with (
        pytest.raises(RuntimeError, match="exactly one call"),
        history.record(loss, torch.arange(2)),
    ):
        pass
    assert not loss.is_watched
    with pytest.raises(TypeError, match="valid must be bool, got dtype torch.float32"):
        history.update(torch.arange(2), torch.rand(2), valid=torch.ones(2))


def work(rank: int, world: int, folder: str) -> None:
    history, loss = sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS), criterion()
    for epoch in range(NUM_EPOCHS):
        loss.set_epoch(epoch)
        for number, (index, logits, target) in enumerate(batches(epoch)):
            if number % world == rank:
                with history.record(loss, index):
                    loss(logits, target)
        history.end_epoch()
    torch.save(history.state_dict(), f"{folder}/{rank}.pt")


def test_processes_know_what_all_have_seen(tmp_path: Path) -> None:
    ranks.run(work, 2, str(tmp_path))
    expected = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS)).state_dict()
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt")
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, equal_nan=True)


def test_correctness_is_the_share_of_the_presentations() -> None:
    history, label = sw.LossHistory(1), torch.tensor([0])
    for rights in ([False, False, False], [True]):
        for right in rights:
            logits = torch.tensor([[1.0, 0.0]]) if right else torch.tensor([[0.0, 1.0]])
            history.update(torch.tensor([0]), torch.rand(1), logits=logits, target=label)
        history.end_epoch()
    assert history.scores()["correctness"].item() == 0.25


def see(history: sw.LossHistory, *index: int, logits: tuple[float, ...] = (1.0, 0.0, 2.0)) -> None:
    history.update(
        torch.tensor(index),
        torch.ones(len(index)),
        logits=torch.tensor([logits]).expand(len(index), -1),
        target=torch.zeros(len(index), dtype=torch.int64),
    )


def save_and_load(rank: int, world: int, folder: str) -> None:
    """Of the first epoch are samples 4 and 5; of the open one 0 and 1, and 2 and 3 afterwards."""
    history = sw.LossHistory(6)
    see(history, 4 + rank)
    history.end_epoch()
    torch.save(history.state_dict(), f"{folder}/closed-{rank}.pt")
    see(history, rank)
    torch.save(history.state_dict(), f"{folder}/all-{rank}.pt")
    if rank == 0:  # the other does not even call state_dict
        history._exchange.patience = timedelta(milliseconds=1)
        with pytest.warns(UserWarning, match="only what process 0 has seen of the open epoch"):
            torch.save(history.state_dict(), f"{folder}/alone-0.pt")
    torch.distributed.barrier()
    for name, of in [("closed", rank), ("closed", 0), ("all", rank), ("all", 0), ("alone", 0)]:
        history = resumed(f"{folder}/{name}-{of}.pt")
        see(history, *([rank, 2 + rank] if name == "closed" else [2 + rank]))
        history.end_epoch()
        check(history, complete=name != "alone")


def resumed(file: str | Path) -> sw.LossHistory:
    history = sw.LossHistory(6)
    history.load_state_dict(torch.load(file, weights_only=True))
    return history


def check(history: sw.LossHistory, complete: bool = True) -> None:
    scores = history.scores()
    # what nobody has saved is lost; nothing counts twice
    assert scores["times"].tolist() == [1, int(complete), 1, 1, 1, 1]
    assert scores["rival"].tolist() == [2, 2 if complete else -1, 2, 2, 2, 2]
    assert scores["correctness"][[0, 2, 3, 4, 5]].tolist() == [0] * 5


def test_saved_within_an_epoch_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks.run(save_and_load, 2, str(tmp_path))
    one = resumed(tmp_path / "all-0.pt")  # in a single process
    see(one, 2, 3)
    one.end_epoch()
    check(one)
    # in three processes, of which the third finds no file of its own
    parts = []
    monkeypatch.setattr(state, "world_size", lambda: 3)
    for rank, own in enumerate([0, 1, 0]):
        monkeypatch.setattr(state, "rank", lambda rank=rank: rank)
        for files, of in (("each", own), ("one", 0)):
            history = resumed(tmp_path / f"all-{of}.pt")
            parts.append((files, history.current[:, 0]))
    for files in ("each", "one"):
        total = sum(part for name, part in parts if name == files)
        assert total.tolist() == [1, 1, 0, 0, 0, 0]


def test_a_history_of_version_0_1_loads() -> None:
    new = ("times_judged", "label", "rival", "lead", "current_classes", "process", "others")
    saved = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS))
    state = {name: value for name, value in saved.state_dict().items() if name not in new}
    # that version added up shares of epochs: twice right of two, then once of two, is 1.5
    state["correct"] = state["correct"] / saved.times.clamp(min=1) * saved.epochs_judged
    for size in (NUM_SAMPLES, 20):
        loaded = sw.LossHistory(size, NUM_EPOCHS)
        with nullcontext() if size == NUM_SAMPLES else pytest.warns(UserWarning, match="of 12"):
            loaded.load_state_dict(state)
        for name in ("mean_loss", "correctness", "times", "area_under_margin"):
            value, expected = loaded.scores()[name][:NUM_SAMPLES], saved.scores()[name]
            torch.testing.assert_close(value, expected, equal_nan=True)
        assert loaded.scores()["adjusted_margin"].isnan().all()  # no labels yet
        see(loaded, 3)
        loaded.end_epoch()
        assert loaded.label[3] == 0
    partly = saved.state_dict()
    del partly["lead"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"lead"'):
        sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS).load_state_dict(partly)


def test_what_is_no_class_is_not_judged() -> None:
    history, target = sw.LossHistory(4), torch.tensor([0, -100, 7, 2])
    logits = torch.tensor([[3.0, 1.0, 2.0]]).expand(4, -1)
    history.update(torch.arange(4), torch.rand(4), logits=logits, target=target)
    history.end_epoch()
    scores = history.scores()
    assert scores["times"].tolist() == [1] * 4
    margins = [1, math.nan, math.nan, -1]
    assert scores["area_under_margin"].tolist() == pytest.approx(margins, nan_ok=True)
    assert scores["rival"].tolist() == [2, -1, -1, 0]
    assert scores["correctness"].tolist() == pytest.approx([1, math.nan, math.nan, 0], nan_ok=True)


def test_the_adjusted_margin_forgives_what_is_rare() -> None:
    # two classes: nine samples that the model is sure of, and one class of which it is not
    logits = torch.tensor([[4.0, 0.0]] * 9 + [[1.0, 0.0], [4.0, 0.0]])
    target = torch.tensor([0] * 9 + [1, 1])
    history = sw.LossHistory(11)
    history.update(torch.arange(11), torch.rand(11), logits=logits, target=target)
    history.end_epoch()
    sure = 1 / (1 + math.exp(-4)), (1 / (1 + math.e) + 1 / (1 + math.exp(4))) / 2
    lift = math.log(sure[0] / sure[1])
    scores = history.scores()
    assert scores["area_under_margin"].tolist() == pytest.approx([4] * 9 + [-1, -4])
    assert scores["adjusted_margin"].tolist() == pytest.approx([4] * 9 + [lift - 1, lift - 4])
    assert lift - 4 < 0 < lift - 1  # the first is rare, the second labelled wrongly


def test_the_rival_is_a_majority_vote() -> None:
    history = sw.LossHistory(1)
    for rival in (2, 2, 1, 3, 2):
        logits = [3.0, 0.0, 0.0, 0.0]
        logits[rival] = 1.0
        see(history, 0, logits=tuple(logits))
        history.end_epoch()
    assert history.scores()["rival"].tolist() == [2]


def test_changed_labels_are_found_among_rare_classes() -> None:
    """Clean samples of rare classes are no longer listed; see the numbers in docs/samples.md."""
    torch.manual_seed(0)
    counts = [400, 200, 60, 8]
    target = torch.arange(4).repeat_interleave(torch.tensor(counts))
    inputs = torch.randn(4, 8)[target] * 1.5 + torch.randn(len(target), 8)
    given, wrong = target.clone(), torch.randperm(len(target))[:33]
    given[wrong] = (target[wrong] + torch.randint(1, 4, (33,))) % 4
    model, criterion = torch.nn.Linear(8, 4), sw.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    history, order = sw.LossHistory(len(target)), torch.randperm(len(target))
    for _ in range(5):
        for index in order.split(64):
            optimizer.zero_grad()
            with history.record(criterion, index):
                loss = criterion(model(inputs[index]), given[index])
            loss.backward()
            optimizer.step()
        history.end_epoch()
    scores = history.scores()
    is_wrong = given != target
    clean_rare = ~is_wrong & (target == 3)
    before, after = scores["area_under_margin"] < 0, scores["adjusted_margin"] < 0
    assert (before | ~after).all()  # it only takes samples off the list
    assert before[clean_rare].float().mean() > 0.9
    assert after[clean_rare].float().mean() < 0.5
    assert after[is_wrong].float().mean() > 0.8


def test_the_data_map() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    history, target = train(sw.LossHistory(NUM_SAMPLES)), torch.arange(NUM_SAMPLES) % NUM_CLASSES
    scores = history.scores()
    one = history.plot_data_map()
    [dots] = one.collections
    expected = torch.stack([scores["variability"], scores["confidence"]], 1)[:-1]
    torch.testing.assert_close(torch.as_tensor(dots.get_offsets()[:-1]).float(), expected)
    assert dots.get_offsets().mask[-1].all()  # the last sample was never seen
    ax = matplotlib.pyplot.figure().gca()
    assert history.plot_data_map(target, ["a", "b", "c"], ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert [len(dots.get_offsets()) for dots in ax.collections] == [4, 4, 4]
    with pytest.raises(ValueError, match=r"target must have shape \(12,\), got \(3,\)"):
        history.plot_data_map([0, 1, 2])
    matplotlib.pyplot.close("all")


def test_selective_loss_is_recorded_with_every_sample() -> None:
    torch.manual_seed(0)
    model, inputs, target = torch.nn.Linear(4, 3), torch.randn(8, 4), torch.arange(8) % 3
    loss = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25))
    plain, selective = sw.LossHistory(8), sw.LossHistory(8)
    with plain.record(loss, torch.arange(8)):
        loss(model(inputs), target)
    with selective.record(loss, torch.arange(8)):
        sw.selective_loss(model, loss, inputs, target)
    for a, b in zip(plain.state_dict().values(), selective.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert plain.current[:, 3].tolist().count(1) == 2


def test_a_hierarchy_is_judged_by_its_leaves() -> None:
    tree = sw.Taxonomy({"a": ["x", "y"], "b": ["z"]})
    loss = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=tree)
    logits = torch.randn(5, 2, tree.num_nodes, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 0, 1])
    history = sw.LossHistory(5)
    with history.record(loss, torch.arange(5)):
        loss(logits, target)
    history.end_epoch()
    p = tree.leaf_log_probs(logits).exp()
    scores = history.scores()
    torch.testing.assert_close(scores["confidence"], p[torch.arange(5), target])
    assert scores["correctness"].equal((p.argmax(1) == target).float())


def test_a_history_inside_a_model_is_not_rounded() -> None:
    history = sw.LossHistory(3)
    history.update(torch.arange(3), torch.tensor([0.1, 0.2, 1 / 3]))
    before = copy.deepcopy(history.state_dict())
    torch.nn.Sequential(history).half()
    for name, value in history.state_dict().items():
        assert value.dtype == before[name].dtype
        assert value.equal(before[name])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], torch.rand(2)), TypeError, "index must be a tensor, got list"),
        ((torch.rand(2), torch.rand(2)), TypeError, "index must hold positions"),
        ((torch.arange(2), torch.rand(2), torch.rand(3)), ValueError, r"weight .* \(2,\), got \(3"),
        ((torch.arange(3), torch.rand(2)), ValueError, r"index .* 2 samples, .* got \(3,\)"),
        ((torch.arange(2), [0.1, 0.2]), TypeError, "loss must be a tensor, got list"),
    ],
)
def test_wrong_batches(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sw.LossHistory(4).update(*arguments)


def test_kept_is_the_share_of_the_positions() -> None:
    history = sw.LossHistory(4)
    weight = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [2, 1, 1, 1]])
    for _ in range(3):
        history.update(torch.arange(4), torch.rand(4, 4), weight)
        history.end_epoch()
    assert history.scores()["kept"].tolist() == [0.25, 0.75, 0, 1]
    # a quarter of the pixels, mined by the loss itself
    dense, history = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25)), sw.LossHistory(1)
    with history.record(dense, torch.tensor([0])):
        dense(torch.randn(1, 3, 4, 4), torch.randint(3, (1, 4, 4)))
    history.end_epoch()
    assert history.scores()["kept"].item() == 0.25


def test_what_is_not_valid_adds_exactly_nothing() -> None:
    loss, history = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=1.0)), sw.LossHistory(3)
    logits = torch.tensor([[math.nan, math.nan], [2.0, 0.0], [math.inf, 0.0]])
    with history.record(loss, torch.arange(3)):
        loss(logits, torch.tensor([-100, 0, -100]))
    bad = torch.full((2,), math.nan)
    history.update(
        torch.tensor([0, 2]),
        bad,
        bad,
        logits=bad[:, None].expand(2, 2),
        target=torch.tensor([0, 1]),
        valid=torch.zeros(2, dtype=torch.bool),
    )
    partly = torch.tensor([[True, False]])
    history.update(
        torch.tensor([1]), torch.tensor([[0.5, math.nan]]), 1 / partly.float() - 1, valid=partly
    )
    assert history.current[[0, 2]].count_nonzero() == 0
    history.end_epoch()
    with history.record(loss, torch.arange(3)):
        loss(torch.tensor([[1.0, 0.0]]).repeat(3, 1), torch.zeros(3).long())
    history.end_epoch()
    scores = history.scores()
    assert scores["area_under_margin"].tolist() == [1, 1.5, 1]
    assert all(value.isfinite().all() for value in scores.values())


@pytest.mark.filterwarnings("ignore:the saved history")
@pytest.mark.parametrize("missing", ["forgotten", "current", "losses"])
def test_a_missing_key_is_reported_as_by_torch(missing: str) -> None:
    saved = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS)).state_dict()
    del saved[missing]
    for size in (NUM_SAMPLES, 20):
        history = sw.LossHistory(size, NUM_EPOCHS)
        with pytest.raises(RuntimeError, match=rf"(?s)Missing key.*{missing}"):
            history.load_state_dict(saved)
    loaded = sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS)
    assert loaded.load_state_dict(saved, strict=False).missing_keys == [missing]


def test_a_resized_history_may_lack_a_key_where_asked() -> None:
    saved = train(sw.LossHistory(NUM_SAMPLES, NUM_EPOCHS)).state_dict()
    del saved["forgotten"]
    loaded = sw.LossHistory(20, NUM_EPOCHS)
    with pytest.warns(UserWarning, match="of 12 samples"):
        assert loaded.load_state_dict(saved, strict=False).missing_keys == ["forgotten"]
    assert loaded.loss[:NUM_SAMPLES].equal(saved["loss"])


def test_other_columns_are_not_cut() -> None:
    saved = sw.LossHistory(NUM_SAMPLES).state_dict()
    saved["current"] = saved["current"][:, :-1]
    with (
        pytest.warns(UserWarning, match="of 12 samples"),
        pytest.raises(RuntimeError, match="size mismatch for current"),
    ):
        sw.LossHistory(20).load_state_dict(saved)


def test_scores_of_an_open_epoch_warn() -> None:
    history = sw.LossHistory(3)
    history.scores()
    history.update(torch.tensor([1]), torch.rand(1))
    with pytest.warns(UserWarning, match=r"0 closed epochs.*end_epoch\(\)"):
        history.scores()
    history.end_epoch()
    assert history.scores()["times"].tolist() == [0, 1, 0]


def test_ignored_samples_have_no_class_on_the_data_map() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    target = torch.arange(NUM_SAMPLES) % NUM_CLASSES
    target[-3:] = -100
    history = train(sw.LossHistory(NUM_SAMPLES))
    ax = history.plot_data_map(target, ["a", "b", "c"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="class_names must name 3 classes, got 2"):
        history.plot_data_map(target, ["a", "b"])
    matplotlib.pyplot.close("all")
