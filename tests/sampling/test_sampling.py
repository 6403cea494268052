"""What the sampler draws: how often, in which order, by how many processes and from where."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import ranks
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import sampleweights as sw
from sampleweights.sampling import weighted
from sampleweights.sampling.table import CHUNK, Table

weights = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40)


def sequence(sampler: sw.WeightedSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def critical(degrees: int) -> float:
    """The value that chi-squared exceeds with probability 1e-3 (Wilson and Hilferty, 1931)."""
    z = 3.0902323  # of a standard normal variable
    return float(degrees * (1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3)


def chi_squared(times: Any, expected: Any) -> float:
    return float(((np.asarray(times) - expected) ** 2 / expected).sum())


def test_the_critical_values_are_those_of_the_tables() -> None:
    for degrees, value in ((3, 16.27), (9, 27.88), (100, 149.45)):
        assert critical(degrees) == pytest.approx(value, rel=0.02)


class TestFrequencies:
    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("kind", ["even", "random", "long tail", "one"])
    def test_with_replacement(self, kind: str, seed: int) -> None:
        weight = {
            "even": np.ones(50),
            "random": np.random.default_rng(0).random(97) + 0.01,
            "long tail": 1 / np.arange(1, 41) ** 1.5,
            "one": np.array([1.0] * 9 + [500.0]),
        }[kind]
        draws = 200_000  # more than one chunk
        times = np.bincount(sequence(sw.WeightedSampler(weight, draws, seed=seed)))
        expected = draws * weight / weight.sum()
        assert chi_squared(times, expected) < critical(len(weight) - 1)

    def test_pairs_of_neighbours(self) -> None:
        """A place says nothing of the next one."""
        weight = np.array([1.0, 2.0, 3.0, 4.0])
        drawn = np.array(sequence(sw.WeightedSampler(weight, 200_000))).reshape(-1, 2)
        p = weight / 10
        times = np.bincount(4 * drawn[:, 0] + drawn[:, 1], minlength=16)
        assert chi_squared(times, 100_000 * np.outer(p, p).ravel()) < critical(15)

    def test_epochs_and_seeds_are_independent(self) -> None:
        weight = np.array([1.0, 2.0, 3.0, 4.0])
        p = np.outer(weight, weight).ravel() / 100
        sampler = sw.WeightedSampler(weight, 100_000)
        first = np.array(sequence(sampler))
        others = [sequence(sampler, 1), sequence(sw.WeightedSampler(weight, 100_000, seed=1))]
        for other in others:
            times = np.bincount(4 * first + np.array(other), minlength=16)
            assert chi_squared(times, 100_000 * p) < critical(15)

    def test_without_replacement_is_one_after_the_other(self) -> None:
        """Each ordered pair (i, j) has probability p_i p_j / (1 - p_i)."""
        weight = np.array([1.0, 2.0, 3.0, 4.0])
        p = weight / 10
        sampler = sw.WeightedSampler(weight, 2, replacement=False)
        times = np.zeros((4, 4))
        epochs = 20_000
        for epoch in range(epochs):
            i, j = sequence(sampler, epoch)
            times[i, j] += 1
        expected = p[:, None] * p / (1 - p[:, None])
        pairs = ~np.eye(4, dtype=bool)
        assert not times[~pairs].any()
        assert chi_squared(times[pairs], epochs * expected[pairs]) < critical(11)

    def test_the_table_is_a_binary_search(self) -> None:
        g = np.random.default_rng(0)
        for size in (1, 2, 3, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 1, 200_000):
            for weight in (
                g.random(size) + 1e-9,
                np.full(size, 0.1),
                np.exp(9 * g.normal(size=size)),
            ):
                table = Table(weight)
                bounds = table.cumulative[:: 1 + size // 500] / table.total
                parts = g.integers(table.parts, size=500) / table.parts
                uniform = np.concatenate([g.random(500), bounds, parts, [0, 1 - 2**-53]])
                uniform = uniform[uniform < 1]
                found = np.searchsorted(table.cumulative, uniform * table.total, side="right")
                assert np.array_equal(table.find(uniform), np.minimum(found, size - 1))

    def test_more_weights_than_multinomial_takes(self) -> None:
        weight = torch.full((2**24 + 1,), 1e-12)
        with pytest.raises(RuntimeError, match="2\\^24"):
            torch.multinomial(weight, 1)
        weight[-3:] = 1.0
        drawn = sequence(sw.WeightedSampler(weight, 3000))
        times = np.bincount(np.array(drawn) - (2**24 - 2), minlength=3)
        assert chi_squared(times, 1000) < critical(2)
        first = sequence(sw.WeightedSampler(weight, 3, replacement=False))
        assert set(first) == {2**24 - 2, 2**24 - 1, 2**24}


class TestProcesses:
    @settings(deadline=None)
    @given(weights, st.integers(1, 90), st.integers(1, 7), st.booleans(), st.integers(0, 3))
    def test_interleaved_they_are_one(
        self, weight: list[float], num_samples: int, world: int, replacement: bool, epoch: int
    ) -> None:
        if not replacement:
            num_samples = min(num_samples, len(weight))
        options = {"num_samples": num_samples, "replacement": replacement, "seed": 5}
        alone = sequence(sw.WeightedSampler(weight, **options), epoch)
        parts = []
        for rank in range(world):
            sampler = sw.WeightedSampler(weight, num_replicas=world, rank=rank, **options)
            parts.append(sequence(sampler, epoch))
            assert len(sampler) == len(parts[-1]) == -(-num_samples // world)
        together = [index for turn in zip(*parts, strict=True) for index in turn]
        assert together[:num_samples] == alone
        assert len(alone) == num_samples
        if replacement:  # what is drawn in excess is what a longer epoch would go on with
            options["num_samples"] = len(together)
            assert together == sequence(sw.WeightedSampler(weight, **options), epoch)
        else:
            assert len(set(alone)) == num_samples
            assert together == list(itertools.islice(itertools.cycle(alone), len(together)))

    def test_across_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weighted, "CHUNK", 7)
        for replacement in (True, False):
            alone = sequence(sw.WeightedSampler(range(1, 101), 61, replacement=replacement))
            parts = [
                sequence(
                    sw.WeightedSampler(
                        range(1, 101), 61, replacement=replacement, num_replicas=9, rank=rank
                    )
                )
                for rank in range(9)
            ]
            together = [index for turn in zip(*parts, strict=True) for index in turn]
            assert together[:61] == alone
            assert len(set(alone)) == 61 or replacement

    @pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
    @pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
    def test_distributed_data_parallel(self, world: int, tmp_path: Path) -> None:
        """Two epochs under DDP are those of one process with the whole batches."""
        sampler = sw.WeightedSampler.from_targets(targets(), num_samples=24)
        model, seen = train(sampler, 24 // 2)
        ranks.run(_train, world, str(tmp_path))
        parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
        for part in parts:
            for ours, theirs in zip(part["model"], model.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        columns = [part["seen"] for part in parts]
        assert [i for turn in zip(*columns, strict=True) for i in turn] == seen


def targets() -> Tensor:
    return torch.tensor([0] * 20 + [1] * 6 + [2] * 2)


def train(sampler: sw.WeightedSampler, batch_size: int, wrap: Any = lambda m: m) -> Any:
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    target = targets()
    features = torch.randn(len(target), 4, generator=g, dtype=torch.float64)
    dataset = TensorDataset(torch.arange(len(target)), features, target)
    model = nn.Linear(4, 3).double()
    forward = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = DataLoader(dataset, batch_size, sampler=sampler)
    criterion, seen = sw.CrossEntropyLoss(), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for index, x, y in loader:
            seen += index.tolist()
            optimizer.zero_grad()
            criterion(forward(x), y, sample_weight=sampler.importance_weight(index)).backward()
            optimizer.step()
    return model, seen


def _train(rank: int, world: int, folder: str) -> None:
    sampler = sw.WeightedSampler.from_targets(targets(), num_samples=24)  # finds its place itself
    model, seen = train(sampler, 24 // 2 // world, DistributedDataParallel)
    torch.save({"model": list(model.parameters()), "seen": seen}, f"{folder}/{rank}.pt")


class TestState:
    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 50), st.booleans(), st.integers(1, 3), st.integers(1, 3))
    def test_resumed_in_mid_epoch(
        self, drawn: int, replacement: bool, world: int, later: int
    ) -> None:
        """Bit for bit, also with another number of processes and within a chunk or at its end."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(weighted, "CHUNK", 16)

            def create(rank: int, world: int) -> sw.WeightedSampler:
                return sw.WeightedSampler(
                    range(1, 61),
                    50,
                    replacement=replacement,
                    seed=3,
                    num_replicas=world,
                    rank=rank,
                )

            alone = sequence(create(0, 1), 2)
            before = create(world - 1, world)
            before.set_epoch(2)
            drawn = min(drawn, len(before))
            assert len(list(itertools.islice(before, drawn))) == drawn
            state = before.state_dict()
            assert state == {"seed": 3, "epoch": 2, "position": drawn * world}
            parts = []
            for rank in range(later):
                resumed = sw.WeightedSampler(
                    range(1, 61), 50, replacement=replacement, num_replicas=later, rank=rank
                )
                resumed.load_state_dict(copy.deepcopy(state))
                assert resumed.state_dict() == state
                resumed.set_epoch(2)  # as a training loop does
                parts.append(list(resumed))
            together = [index for turn in zip(*parts, strict=True) for index in turn]
            rest = alone[drawn * world :]
            assert together[: len(rest)] == rest
            assert sequence(resumed, 3) == sequence(create(later - 1, later), 3)  # a whole one

    def test_a_loader_stopped_in_mid_epoch(self) -> None:
        def loader() -> Any:
            sampler = sw.WeightedSampler(torch.rand(30) + torch.arange(30))
            return sampler, DataLoader(torch.arange(30), 4, sampler=sampler)

        torch.manual_seed(0)
        sampler, whole = loader()
        batches = [batch.tolist() for batch in whole]
        iterator = iter(whole)
        sampler.set_epoch(0)
        for _ in range(3):
            next(iterator)
        state = torch.utils.data.default_collate([sampler.state_dict()])  # tensors, as files have
        torch.manual_seed(0)
        other, rest = loader()
        other.load_state_dict({name: int(value) for name, value in state.items()})
        assert [batch.tolist() for batch in rest] == batches[3:]

    def test_set_epoch_begins_another_epoch_and_goes_on_in_the_same(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3], 20)
        whole = sequence(sampler)
        state = {"seed": 0, "epoch": 0, "position": 8}
        sampler.load_state_dict(state)
        sampler.set_epoch(0)
        assert list(sampler) == whole[8:]
        sampler.load_state_dict(state)
        sampler.set_epoch(1)
        assert len(list(sampler)) == 20
        sampler.load_state_dict(state | {"position": 20})
        assert list(sampler) == []  # the epoch was over

    @settings(deadline=None, max_examples=60)
    @given(st.integers(0, 50), st.integers(1, 3), st.integers(1, 3), st.booleans())
    def test_the_length_is_that_of_the_pass(
        self, position: int, world: int, rank: int, replacement: bool
    ) -> None:
        sampler = sw.WeightedSampler(
            range(1, 61), 50, replacement=replacement, num_replicas=world, rank=rank % world
        )
        sampler.load_state_dict({"seed": 0, "epoch": 1, "position": position})
        sampler.set_epoch(1)
        expected = math.ceil((50 - position) / world)
        assert len(sampler) == expected
        lengths = [len(sampler) for _ in sampler]
        assert lengths == [expected] * expected
        whole = math.ceil(50 / world)
        assert len(sampler) == whole  # of the next pass
        sampler.load_state_dict({"seed": 0, "epoch": 1, "position": position})
        sampler.set_epoch(2)
        assert len(sampler) == len(list(sampler)) == whole

    def test_saved_at_the_end_of_an_epoch_and_loaded_behind_set_epoch(self) -> None:
        """As a stateful loader does, which loads when it is iterated over."""
        sampler = sw.WeightedSampler([1, 2, 3], 20)
        end = sampler.state_dict() | {"position": 20}
        expected = sequence(sampler, 1)
        for _ in range(2):
            sampler.set_epoch(1)
            sampler.load_state_dict(end)
            assert sampler.state_dict() == {"seed": 0, "epoch": 1, "position": 0}
            assert list(sampler) == expected
        sampler.set_epoch(3)
        sampler.load_state_dict(end | {"position": 8})  # within an epoch, the state decides
        assert sampler.state_dict() == {"seed": 0, "epoch": 0, "position": 8}

    def test_a_pass_of_nothing_says_so(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3], 20)
        sampler.load_state_dict({"seed": 0, "epoch": 0, "position": 20})
        with pytest.warns(UserWarning, match="nothing is left of epoch 0.* call set_epoch"):
            assert list(sampler) == []

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
    def test_a_stateful_loader(self, workers: int) -> None:
        stateful = pytest.importorskip("torchdata.stateful_dataloader")

        def create() -> Any:
            sampler = sw.WeightedSampler(range(1, 11))
            loader = stateful.StatefulDataLoader(
                list(range(10)), 2, sampler=sampler, num_workers=workers
            )
            return sampler, loader

        sampler, loader = create()
        sampler.set_epoch(0)
        assert len(list(loader)) == 5
        end = copy.deepcopy(loader.state_dict())
        sampler.set_epoch(1)
        iterator = iter(loader)
        first = [next(iterator).tolist() for _ in range(2)]
        within = copy.deepcopy(loader.state_dict())
        rest = [batch.tolist() for batch in iterator]
        for state, expected in ((end, first + rest), (within, rest)):
            sampler, loader = create()
            loader.load_state_dict(state)
            sampler.set_epoch(1)
            assert [batch.tolist() for batch in loader] == expected

    def test_copies(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3], 20)
        whole = sequence(sampler)
        iterator = iter(sampler)
        for _ in range(5):
            next(iterator)
        for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
            assert other.state_dict() == sampler.state_dict()
            assert list(other) == whole

    def test_an_epoch_that_repeats_says_so(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3])
        list(sampler)
        with pytest.warns(UserWarning, match="epoch 0 again: call set_epoch"):
            list(sampler)
        sampler.set_epoch(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(sampler)

    def test_epochs_differ(self) -> None:
        for replacement in (True, False):
            sampler = sw.WeightedSampler(range(1, 30), replacement=replacement)
            assert sequence(sampler, 0) != sequence(sampler, 1)
            assert sequence(sampler, 0) == sequence(sampler, 0)
            other = sw.WeightedSampler(range(1, 30), replacement=replacement, seed=1)
            assert sequence(other) != sequence(sampler)

    def test_what_the_caller_changes_later_changes_nothing(self) -> None:
        weight = torch.rand(10, dtype=torch.float64)
        for replacement in (True, False):
            sampler = sw.WeightedSampler(weight, replacement=replacement)
            before = sequence(sampler)
            weight *= torch.rand(10)
            assert sequence(sampler) == before

    def test_global_generators_are_left_alone(self) -> None:
        states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        for replacement in (True, False):
            list(sw.WeightedSampler([1, 2, 3], replacement=replacement))
        assert torch.get_rng_state().equal(states[0])
        assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


class TestSetWeights:
    NEW = (5.0, 1.0, 1.0, 2.0)

    @pytest.mark.parametrize("replacement", [True, False])
    def test_from_the_next_epoch_on_it_is_a_sampler_of_these_weights(
        self, replacement: bool
    ) -> None:
        options = {"num_samples": 4, "replacement": replacement}
        sampler = sw.WeightedSampler([1, 2, 3, 4], **options)
        first = sequence(sampler, 0)
        sampler.set_weights(self.NEW)
        other = sw.WeightedSampler(self.NEW, **options)
        assert sequence(sampler, 1) == sequence(other, 1) != first
        assert sampler.weights.tolist() == list(self.NEW)
        if replacement:
            index = range(4)
            assert sampler.importance_weight(index).equal(other.importance_weight(index))

    def test_is_saved(self, tmp_path: Path) -> None:
        sampler = sw.WeightedSampler([1, 2, 3, 4], 20)
        before = sampler.state_dict()
        sampler.set_epoch(1)
        sampler.set_weights(self.NEW)
        iterator = iter(sampler)
        for _ in range(7):
            next(iterator)
        torch.save(sampler.state_dict(), tmp_path / "state.pt")
        rest = list(iterator)
        resumed = sw.WeightedSampler([1, 2, 3, 4], 20)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert list(resumed) == rest
        resumed.set_epoch(0)
        resumed.load_state_dict(before)  # of a time at which the constructor's weights acted
        assert resumed.state_dict() == before
        assert list(resumed) == list(sw.WeightedSampler([1, 2, 3, 4], 20))

    def test_not_within_an_epoch(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3, 4], 20)
        iterator = iter(sampler)
        next(iterator)
        with pytest.raises(RuntimeError, match="between epochs, got position 1 of 20 in epoch 0"):
            sampler.set_weights(self.NEW)
        sampler.set_epoch(1)
        sampler.set_weights(self.NEW)

    def test_weights_that_do_not_fit_change_nothing(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3, 4], 20)
        before = sampler.state_dict(), sampler.weights.tolist()
        for weight, message in [
            ([1, 2], "one value for each of the 4 samples, got 2"),
            ([1, 2, 0, 1], "positive and finite"),
            ([1e308] * 4, "finite sum"),
        ]:
            with pytest.raises(ValueError, match=message):
                sampler.set_weights(weight)
            with pytest.raises(ValueError, match=message):
                sampler.load_state_dict({"seed": 1, "epoch": 2, "position": 3, "weight": weight})
            assert (sampler.state_dict(), sampler.weights.tolist()) == before

    def test_attributes_that_would_do_nothing(self) -> None:
        class Own(sw.WeightedSampler):
            """May keep what it likes."""

        for cls in (sw.WeightedSampler, Own):
            sampler = cls([1, 2, 3])
            for name in ("weights", "replacement"):
                with pytest.raises(AttributeError, match=name):
                    setattr(sampler, name, torch.ones(3))
        sampler = sw.WeightedSampler([1, 2, 3])
        with pytest.raises(AttributeError, match=r"'weights' to set: call set_weights\(weight\)"):
            sampler.weights = torch.ones(3)  # type: ignore[misc]
        with pytest.raises(AttributeError, match="no attribute 'generator' to set: it has"):
            sampler.generator = None  # type: ignore[attr-defined]
        Own([1, 2]).generator = None  # type: ignore[attr-defined]
        sampler.num_samples, sampler.seed = 5, 1  # these act
        assert list(sampler) == list(sw.WeightedSampler([1, 2, 3], 5, seed=1))


class TestImportanceWeight:
    def test_the_weighted_mean_is_unbiased(self) -> None:
        """To 4 standard errors, of the loss and of its gradient; without the weights it is not."""
        g = torch.Generator().manual_seed(0)
        target = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
        features = torch.randn(1000, 5, generator=g, dtype=torch.float64) + target[:, None]
        layer = torch.randn(5, 3, generator=g, dtype=torch.float64, requires_grad=True)
        for power in (0.0, 0.5):
            sampler = sw.WeightedSampler.from_targets(target, power, num_samples=100_000)
            index = torch.tensor(list(sampler))
            weight = sampler.importance_weight(index).double()
            losses = nn.functional.cross_entropy(features @ layer, target, reduction="none")
            [gradient] = torch.autograd.grad(losses.mean(), layer, retain_graph=True)
            residual = (features @ layer).softmax(1) - nn.functional.one_hot(target, 3)
            each = (features[:, :, None] * residual[:, None]).flatten(1)
            torch.testing.assert_close(each.mean(0).view(5, 3), gradient)
            values = torch.cat([losses.detach()[:, None], each.detach()], 1)
            drawn = weight[:, None] * values[index]
            error = drawn.std(0) / math.sqrt(len(index))
            assert ((drawn.mean(0) - values.mean(0)).abs() < 4 * error).all()
            plain = values[index]
            bias = (plain.mean(0) - values.mean(0)).abs()
            assert (bias > 4 * plain.std(0) / math.sqrt(len(index))).any()

    def test_values(self) -> None:
        sampler = sw.WeightedSampler([1.0, 2.0, 5.0])  # p = 1/8, 1/4, 5/8
        weight = sampler.importance_weight(torch.tensor([[0, 1], [2, 2]]))
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, torch.tensor([[8 / 3, 4 / 3], [8 / 15, 8 / 15]]))
        assert sampler.importance_weight([0]).tolist() == pytest.approx([8 / 3])

    def test_not_without_replacement(self) -> None:
        sampler = sw.WeightedSampler([1, 2], replacement=False)
        with pytest.raises(ValueError, match="importance_weight needs replacement=True"):
            sampler.importance_weight([0])


FORMS: dict[str, Callable[[list[int]], Any]] = {
    "list": lambda t: t,
    "tuple": tuple,
    "tensor": torch.tensor,
    "uint8": lambda t: torch.tensor(t, dtype=torch.uint8),
    "numpy": np.array,
    "generator": iter,
    "dataset of pairs": lambda t: [(torch.zeros(2), i) for i in t],
    "dataset of tensors": lambda t: TensorDataset(torch.zeros(len(t), 2), torch.tensor(t)),
    "numbers among tensors": lambda t: [
        (0, i if k % 3 else torch.tensor(i)) for k, i in enumerate(t)
    ],
    "dicts": lambda t: [{"labels": i} for i in t],
    "loader": lambda t: DataLoader(TensorDataset(torch.zeros(len(t)), torch.tensor(t)), 4),
}


class TestFromTargets:
    TARGET: ClassVar = [0, 2, 0, 0, 1, 0, 2, 0, 0, 0, 1, 2]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
    def test_every_form(self, form: str, power: float) -> None:
        sampler = sw.WeightedSampler.from_targets(FORMS[form](self.TARGET), power)
        counts = {label: self.TARGET.count(label) for label in range(3)}
        total = sum(n**power for n in counts.values())
        p = [counts[label] ** power / total / counts[label] for label in self.TARGET]
        expected = torch.tensor([1 / (len(p) * value) for value in p])
        torch.testing.assert_close(sampler.importance_weight(range(len(p))), expected)

    def test_classes_are_drawn_alike(self) -> None:
        target = np.repeat([0, 1, 3], [1000, 100, 10])  # no sample of class 2
        sampler = sw.WeightedSampler.from_targets(target, num_samples=30_000)
        times = np.bincount(target[list(sampler)])
        assert times[2] == 0
        assert chi_squared(times[[0, 1, 3]], 10_000) < critical(2)

    def test_settings(self) -> None:
        sampler = sw.WeightedSampler.from_targets(
            self.TARGET, 0.5, num_samples=7, replacement=False, seed=4, num_replicas=2, rank=1
        )
        assert (sampler.num_samples, sampler.seed, sampler.rank, len(sampler)) == (7, 4, 1, 4)

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ([0.5, 1.0], r"targets must be class indices \(integer\), got dtype torch.float64"),
            (torch.zeros(4, 3, dtype=torch.long), r"one class index for each sample.* \(4, 3\)"),
            ([], "targets must hold at least one class index, got none"),
            ([0, 1, -100], "targets must hold class indices from 0, got -100"),
            ({0: 3}, "targets must be class indices, got dict"),
            (
                DataLoader(TensorDataset(torch.zeros(4), torch.arange(4)), 2, shuffle=True),
                "targets must come in the order of the data set, got .* RandomSampler",
            ),
        ],
    )
    def test_targets_that_do_not_fit(self, targets: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            sw.WeightedSampler.from_targets(targets)

    def test_power(self) -> None:
        with pytest.raises(ValueError, match="power must be finite, got inf"):
            sw.WeightedSampler.from_targets([0, 1], math.inf)
        with pytest.raises(TypeError, match="power must be a number, got 'sqrt'"):
            sw.WeightedSampler.from_targets([0, 1], "sqrt")  # type: ignore[arg-type]


class TestArguments:
    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            ([], r"weight must have shape \(N,\).* got \(0,\)"),
            (3.0, r"weight must have shape \(N,\).* got \(\)"),
            (torch.ones(2, 2), r"weight must have shape \(N,\).* got \(2, 2\)"),
            ([1.0, 0.0], "weight must be positive and finite, got 0.0 for sample 1"),
            ([0.0, 0.0], "weight must be positive and finite, got 0.0 for sample 0"),
            ([1.0, -2.0], "weight must be positive and finite, got -2.0 for sample 1"),
            ([1.0, 2.0, math.nan], "weight must be positive and finite, got nan for sample 2"),
            ([math.inf, 1.0], "weight must be positive and finite, got inf for sample 0"),
            ([1e308, 1e308], "weight must have a finite sum, got inf"),
            (["a", "b"], "weight must be numbers"),
            ([True, True], "weight must be numbers, got dtype torch.bool"),
            ([1j], "weight must be numbers, got dtype torch.complex128"),
        ],
    )
    def test_weights(self, weight: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            sw.WeightedSampler(weight)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
            ({"num_samples": 2.0}, TypeError, "num_samples must be a whole number, got 2.0"),
            ({"num_samples": True}, TypeError, "num_samples must be a whole number, got True"),
            (
                {"num_samples": 4, "replacement": False},
                ValueError,
                r"num_samples must be at most the number of weights \(3\) .* got 4",
            ),
            ({"replacement": 1}, TypeError, "replacement must be True or False, got 1"),
            ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
            ({"seed": None}, TypeError, "seed must be a whole number, got None"),
            ({"rank": 0}, ValueError, "num_replicas and rank must be given together"),
            ({"num_replicas": 2}, ValueError, "num_replicas and rank must be given together"),
            ({"num_replicas": 0, "rank": 0}, ValueError, "num_replicas must be at least 1, got 0"),
            ({"num_replicas": 2, "rank": 2}, ValueError, "rank must be below num_replicas"),
            ({"num_replicas": 2, "rank": -1}, ValueError, "rank must be at least 0, got -1"),
        ],
    )
    def test_others(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            sw.WeightedSampler([1, 2, 3], **options)

    def test_epochs_and_states(self) -> None:
        sampler = sw.WeightedSampler([1, 2, 3])
        with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
            sampler.set_epoch(-1)
        with pytest.raises(TypeError, match="epoch must be a whole number, got 0.5"):
            sampler.set_epoch(0.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"state_dict must hold \['position', 'seed'\]"):
            sampler.load_state_dict({"epoch": 1})
        with pytest.raises(ValueError, match="position must be at least 0"):
            sampler.load_state_dict({"epoch": 1, "seed": 0, "position": -1})

    @pytest.mark.parametrize(
        "weight",
        [
            [1, 2, 4],
            (1.0, 2.0, 4.0),
            np.array([1, 2, 4]),
            torch.tensor([1, 2, 4], dtype=torch.bfloat16),
            torch.tensor([1.0, 2.0, 4.0], requires_grad=True),
            torch.tensor([1.0, 0, 2.0, 0, 4.0])[::2],
        ],
    )
    def test_every_container(self, weight: Any) -> None:
        assert sequence(sw.WeightedSampler(weight, 50)) == sequence(
            sw.WeightedSampler(torch.tensor([10.0, 20.0, 40.0]), 50)
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader(workers: int) -> None:
    sampler = sw.WeightedSampler.from_targets(targets())
    loader = DataLoader(TensorDataset(targets()), 5, sampler=sampler, num_workers=workers)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn = torch.cat([batch for (batch,) in loader])
        assert drawn.tolist() == targets()[sequence(sampler, epoch)].tolist()
    assert len(loader) == 6
