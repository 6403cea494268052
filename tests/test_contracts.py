"""What holds for every public loss x weighter, generated from the list in contracts.py."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import pickle
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from contracts import (
    CONTRACTED,
    LOSSES,
    MARGINS,
    NUM_CLASSES,
    NUM_EPOCHS,
    PAIRS,
    SCHEDULES,
    WEIGHTERS,
    compiled,
    indices,
)
from torch import Tensor, nn

import sampleweights as sw
from sampleweights import functional, schedules, selection
from sampleweights.integrations.evaluation import without_weighters

BASES = {"Margin", "Weighter"}
HEADS = {"LinearCrossEntropyLoss"}  # takes hidden states: tests/losses/test_linear.py
SAMPLERS = {"ClassBatchSampler", "WeightedSampler"}
NO_LOSS_OR_WEIGHTER = {
    "Calibration", "LossHistory", "PredictionSets", "Taxonomy", "WithIndex",
} | SAMPLERS | HEADS  # fmt: skip


def build(loss: str, weighter: str | None, **kwargs: Any) -> tuple[Any, Any, Tensor]:
    entry = LOSSES[loss]
    criterion = entry.build(
        weighter=None if weighter is None else entry.weighter(weighter), **kwargs
    )
    return criterion, *entry.batch()


def names(entries: dict[str, Any]) -> set[str]:
    return {name.partition("(")[0] for name in entries}


def test_every_public_class_is_in_the_list() -> None:
    public = {name for name in sw.__all__ if inspect.isclass(getattr(sw, name))}
    listed = names(WEIGHTERS) | names(MARGINS) | names(LOSSES) - {"docs/extending.md"}
    assert public == listed | BASES | NO_LOSS_OR_WEIGHTER
    public = set(schedules.__all__) - {"Schedule"}  # an alias
    assert public == names(SCHEDULES)


@pytest.mark.parametrize("module", [sw, functional, schedules, selection])
def test_every_public_name_has_a_doctest(module: Any) -> None:
    aliases = {"Normalize", "Schedule", "functional", "schedules", "selection"}
    for name in set(module.__all__) - aliases:
        doc = getattr(module, name).__doc__
        assert doc is not None
        assert ">>>" in doc, f"{module.__name__}.{name} has no example"


TORCHS_OWN = 3


def _times_compiled(criterion: Any, logits: Tensor, target: Tensor, **options: Any) -> int:
    """How often a training is compiled that evaluates after each epoch."""
    in_one_graph, graphs = compiled(criterion, **options)
    for epoch in (0, 2.5, NUM_EPOCHS - 1):
        if isinstance(criterion, sw.losses.base.Criterion):
            criterion.set_epoch(epoch)
        parts = [
            (logits[:size].clone(), target[:size].clone())
            for size in (len(logits), len(logits) - 1)
        ]
        for batch in parts:
            leaf = batch[0].clone().requires_grad_()
            torch.testing.assert_close(in_one_graph(leaf, batch[1]), criterion(*batch))
        with torch.no_grad(), without_weighters(criterion):
            for batch in parts:
                torch.testing.assert_close(in_one_graph(*batch), criterion(*batch))
    return len(graphs)


@pytest.mark.parametrize("own", [nn.CrossEntropyLoss, sw.CrossEntropyLoss, sw.FocalLoss])
@pytest.mark.parametrize(("dynamic", "times"), [(None, TORCHS_OWN), (True, 2)])
def test_what_torchs_own_takes(own: Any, dynamic: bool | None, times: int) -> None:
    batch = torch.randn(9, 7), torch.randint(7, (9,))
    weighter = {} if own is nn.CrossEntropyLoss else {"weighter": sw.OHEM(NUM_EPOCHS)}
    assert _times_compiled(own(**weighter), *batch, dynamic=dynamic) == times


ONCE = ("ClassBalanced", "SelfPaced(Linear)", "OHEM(per_class)", "Deferred(nested)")
QUICK = {(loss, "Compose(Deferred)") for loss in LOSSES} | {("FocalLoss", name) for name in ONCE}
QUICK |= {("CrossEntropyLoss(dense)", "Compose(sample)")}
"""Every loss and every kind of weighter once; a compilation takes a second."""


@pytest.mark.parametrize(
    ("loss", "weighter"),
    [pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_a_pair_compiles_as_often_as_torchs_own(loss: str, weighter: str | None) -> None:
    """Whatever the epoch: once, once more for a last batch that is shorter, and once more to
    evaluate, without gradients."""
    criterion, logits, target = build(loss, weighter)
    whole = torch.cat([logits, logits]), torch.cat([target, target])
    assert _times_compiled(criterion, *whole) <= TORCHS_OWN


@pytest.mark.parametrize(("loss", "weighter"), PAIRS)
class TestPair:
    def test_gives_a_finite_scalar_with_a_finite_gradient(
        self, loss: str, weighter: str | None
    ) -> None:
        criterion, logits, target = build(loss, weighter)
        logits.requires_grad_()
        value = criterion(logits, target)
        assert value.shape == ()
        assert value > 0
        value.backward()
        assert logits.grad.isfinite().all()
        assert (logits.grad != 0).any()

    def test_none_is_weight_times_loss(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target = build(loss, weighter, reduction="none")
        plain, _, _ = build(loss, None, reduction="none")
        losses = plain(logits, target)
        if weighter is None:
            expected = losses
        else:
            expected = criterion.weighter(losses, target, target != -100) * losses
        torch.testing.assert_close(criterion(logits, target), expected)

    def test_reductions_agree_with_none(self, loss: str, weighter: str | None) -> None:
        each, logits, target = build(loss, weighter, reduction="none")
        losses = build(loss, None, reduction="none")[0](logits, target)
        valid = target != -100
        weight = valid.float()
        if weighter is not None:
            weight = each.weighter(losses, target, valid)
        denominators = {"mean": valid.sum(), "weighted_mean": weight.sum(), "sum": 1}
        if getattr(each, "weight", None) is not None:  # torch's class weights: test_cross_entropy
            denominators = {"sum": 1}
        for reduction, denominator in denominators.items():
            criterion, _, _ = build(loss, weighter, reduction=reduction)
            expected = each(logits, target).sum() / denominator
            torch.testing.assert_close(criterion(logits, target), expected)

    def test_sample_weight_multiplies_in_last(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target = build(loss, weighter, reduction="none")
        losses = criterion(logits, target)
        sample_weight = torch.rand(losses.shape, generator=torch.Generator().manual_seed(1))
        weighted = criterion(logits, target, sample_weight=sample_weight)
        torch.testing.assert_close(weighted, losses * sample_weight)

    def test_normalizer_replaces_the_denominator(self, loss: str, weighter: str | None) -> None:
        summed, logits, target = build(loss, weighter, reduction="sum")
        for reduction in ("mean", "weighted_mean"):
            criterion, _, _ = build(loss, weighter, reduction=reduction)
            for normalizer in (7, 7.0, torch.tensor(7)):
                value = criterion(logits, target, normalizer=normalizer)
                torch.testing.assert_close(value, summed(logits, target) / 7)

    def test_empty_batch_is_zero_with_its_graph(self, loss: str, weighter: str | None) -> None:
        for reduction in ("mean", "weighted_mean", "sum"):
            criterion, logits, target = build(loss, weighter, reduction=reduction)
            logits = logits[:0].clone().requires_grad_()
            value = criterion(logits, target[:0])
            assert value.item() == 0
            value.backward()
            assert logits.grad.shape == logits.shape

    def test_state_round_trips_mid_schedule(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target = build(loss, weighter)
        for epoch in (1, 3.5, NUM_EPOCHS - 1):
            criterion.set_epoch(epoch)
            expected = criterion(logits, target)
            file = io.BytesIO()
            torch.save(criterion.state_dict(), file)
            file.seek(0)
            fresh, _, _ = build(loss, weighter)
            fresh.load_state_dict(torch.load(file, weights_only=True))
            copies = [fresh, copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))]
            for other in copies:
                assert other(logits, target).equal(expected)
                other.set_epoch(0)
                other.set_epoch(epoch)
                assert other(logits, target).equal(expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_module_and_input_dtypes(
        self, loss: str, weighter: str | None, dtype: torch.dtype
    ) -> None:
        criterion, logits, target = build(loss, weighter)
        expected = criterion(logits, target)
        criterion.to(dtype)
        if target.is_floating_point():
            target = target.to(dtype)
        logits = logits.to(dtype).requires_grad_()
        value = criterion(logits, target)
        assert value.dtype == dtype
        # in half precision losses round, which may swap neighbours of a ranking
        tolerance = 1e-5 if dtype == torch.float64 else 0.1
        torch.testing.assert_close(value.float(), expected, rtol=tolerance, atol=1e-6)
        value.backward()
        assert logits.grad.dtype == dtype
        assert logits.grad.isfinite().all()

    def test_watched_equals_unwatched(self, loss: str, weighter: str | None) -> None:
        dtypes = (torch.float32, torch.bfloat16)
        reductions = ("mean", "weighted_mean", "sum", "none")
        for dtype, reduction in itertools.product(dtypes, reductions):
            criterion, logits, target = build(loss, weighter, reduction=reduction)
            target = target.to(dtype) if target.is_floating_point() else target
            history, results = sw.LossHistory(len(target)), []
            for watching in (nullcontext(), history.record(criterion, torch.arange(len(target)))):
                leaf = logits.to(dtype, copy=True).requires_grad_()
                with watching:
                    value = criterion(leaf, target)
                value.sum().backward()
                results.append((value, leaf.grad))
            assert results[0][0].equal(results[1][0])
            assert results[0][1].equal(results[1][1])
            assert history.current[:, 0].any()

    def test_inputs_are_not_changed(self, loss: str, weighter: str | None) -> None:
        criterion, logits, target = build(loss, weighter)
        before = logits.clone(), target.clone()
        criterion(logits, target)
        assert logits.equal(before[0])
        assert target.equal(before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_host_synchronisation() -> None:
    for loss, weighter in PAIRS:
        criterion, logits, target = build(loss, weighter)
        expected = criterion(logits, target)
        criterion, logits, target = criterion.cuda(), logits.cuda().requires_grad_(), target.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            value = criterion(logits, target)
            value.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(value.detach().cpu(), expected)


CURRICULA = (
    "OHEM", "OHEM(per_class)", "SelfPaced", "SelfPaced(per_class)", "SelfPaced(Linear)",
    "OHEM(sample)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "weighter"),
    [pair for pair in PAIRS if pair[1] in CURRICULA],
)
def test_curricula_end_at_the_unweighted_loss_to_the_last_bit(loss: str, weighter: str) -> None:
    for reduction in ("mean", "weighted_mean", "sum", "none"):
        criterion, logits, target = build(loss, weighter, reduction=reduction)
        plain, _, _ = build(loss, None, reduction=reduction)
        if loss == "CrossEntropyLoss(smoothing)" and reduction == "mean":
            plain.weighter = sw.OHEM(schedule=1.0)  # without any, torch's own denominator
        for epoch in (NUM_EPOCHS / 2, NUM_EPOCHS - 1):
            criterion.set_epoch(epoch)
            results = []
            for module in (criterion, plain):
                leaf = logits.clone().requires_grad_()
                value = module(leaf, target)
                value.sum().backward()
                results.append((value, leaf.grad))
            assert results[0][0].equal(results[1][0])
            assert results[0][1].equal(results[1][1])


@pytest.mark.parametrize("name", CONTRACTED)
class TestWeighter:
    def loss(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(2))

    @pytest.mark.parametrize("shape", [(16,), (1,), (0,), (3, 4, 5), ()])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_one_weight_per_sample(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        loss = self.loss(*shape).to(dtype).requires_grad_()
        weight = CONTRACTED[name]()(loss, indices(*shape))
        assert weight.shape == loss.shape
        assert weight.dtype == dtype
        assert (weight >= 0).all()
        assert weight.isfinite().all()
        assert not weight.requires_grad

    def test_ignored_samples_have_no_say(self, name: str) -> None:
        loss, target = self.loss(20), indices(20)
        valid = torch.arange(20) % 3 != 0
        weight = CONTRACTED[name]()(loss, target.masked_fill(~valid, -100), valid)
        assert (weight[~valid] == 0).all()
        alone = CONTRACTED[name]()(loss[valid], target[valid])
        assert weight[valid].equal(alone)

    def test_set_epoch_reaches_it_however_deep(self, name: str) -> None:
        alone, loss, target = CONTRACTED[name](), self.loss(20), indices(20)
        nested = sw.HierarchicalLoss(
            [
                sw.CrossEntropyLoss(weighter=[CONTRACTED[name]()]),
                nn.CrossEntropyLoss(reduction="none"),
            ]
        )
        for epoch in (0, 2, 3.5, 7):
            alone.set_epoch(epoch)
            nested.set_epoch(epoch)
            weighter = nested.criteria[0].weighter
            assert weighter(loss, target).equal(alone(loss, target))

    def test_float64_buffers_survive_casts(self, name: str) -> None:
        weighter = CONTRACTED[name]()
        before = copy.deepcopy(weighter.state_dict())
        weighter.half().bfloat16().float()
        after = weighter.state_dict()
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert after[key].equal(value)
            assert after[key].dtype == value.dtype

    def test_moves_to_another_device(self, name: str) -> None:
        weighter = CONTRACTED[name]().to("meta")
        assert all(buffer.is_meta for buffer in weighter.buffers())

    def test_number_of_classes_is_checked(self, name: str) -> None:
        weighter = CONTRACTED[name]()
        if weighter.num_classes is None:
            return
        assert weighter.num_classes == NUM_CLASSES
        criterion = sw.CrossEntropyLoss(weighter=weighter)
        with pytest.raises(ValueError, match=f"{NUM_CLASSES} classes, logits have 7"):
            criterion(torch.randn(4, 7), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_rise_within_their_range(name: str) -> None:
    schedule = SCHEDULES[name]()
    fractions = [schedule(epoch / 4) for epoch in range(4 * NUM_EPOCHS)]
    assert all(0 < fraction <= 1 for fraction in fractions)
    assert fractions == sorted(fractions)
    assert eval(repr(schedule), vars(schedules)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
