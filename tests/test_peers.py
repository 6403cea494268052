"""Defects that other libraries have, as cases for ours. Written from descriptions of behaviour."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(64, 7), torch.randint(0, 7, (64,))


def test_one_easy_sample_does_not_destroy_the_step() -> None:
    logits = torch.tensor([[40.0, 0, 0], [1.0, 0, 0]], requires_grad=True)
    sw.FocalLoss(0.5)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[1] != 0).all()
    saturated = torch.tensor([40.0, -40.0], requires_grad=True)
    sw.BinaryFocalLoss(0.5)(saturated, torch.tensor([1.0, 0.0])).backward()
    assert saturated.grad.isfinite().all()


def test_label_smoothing_in_half_precision_is_finite_and_exact() -> None:
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(64, 1000), torch.randint(0, 1000, (64,))
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 4e-3)):
        half = logits.to(dtype)
        exact = nn.CrossEntropyLoss(label_smoothing=0.1)(half.double(), target).item()
        for criterion in (sw.CrossEntropyLoss, sw.FocalLoss):
            kwargs = {} if criterion is sw.CrossEntropyLoss else {"gamma": 0.0}
            for weighter in (None, sw.OHEM(schedule=1.0), sw.ClassBalanced([1] * 1000)):
                value = criterion(label_smoothing=0.1, weighter=weighter, **kwargs)(half, target)
                assert value.item() == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_mean_is_the_mean_over_samples(batch: tuple[Tensor, Tensor], gamma: float) -> None:
    """Not over N C elements, not over ignored ones, and the same with ignore_index on or off."""
    logits, target = batch
    p_t = logits.double().softmax(1).gather(1, target[:, None])[:, 0]
    expected = ((1 - p_t) ** gamma * -p_t.log()).mean().float()
    torch.testing.assert_close(sw.FocalLoss(gamma)(logits, target), expected)
    torch.testing.assert_close(sw.FocalLoss(gamma, ignore_index=7)(logits, target), expected)
    doubled = torch.cat([logits, logits]), torch.cat([target, torch.full_like(target, -100)])
    torch.testing.assert_close(sw.FocalLoss(gamma)(*doubled), expected)


def test_ignore_index_outside_the_classes(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    value = sw.FocalLoss(2.0)(logits, torch.full_like(target, -100))
    assert value.shape == ()
    assert value == 0


@pytest.mark.parametrize(
    ("estimator", "counts_are_weighted"),
    [
        ("tree.DecisionTreeClassifier", False),
        ("ensemble.RandomForestClassifier", True),
        ("linear_model.LogisticRegression", True),
    ],
)
def test_balanced_with_sample_weights_in_scikit_learn(
    estimator: str, counts_are_weighted: bool
) -> None:
    """docs/migrating.md: without features, the class shares that an estimator fits end our loss."""
    module, name = estimator.split(".")
    module = pytest.importorskip(f"sklearn.{module}")
    options = {"bootstrap": False, "n_estimators": 2} if "Forest" in name else {}
    target = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    sample_weight = torch.linspace(1, 6, 100, dtype=torch.float64)
    fitted = getattr(module, name)(class_weight="balanced", **options)
    fitted.fit([[0.0]] * 100, target.numpy(), sample_weight=sample_weight.numpy())
    share = torch.tensor(fitted.predict_proba([[0.0]])[0], dtype=torch.float64)
    logits = share.log().requires_grad_()
    criterion, weight = sw.CrossEntropyLoss(), sample_weight
    if counts_are_weighted:
        weight = sample_weight / torch.bincount(target, weights=sample_weight)[target]
    else:
        criterion = sw.CrossEntropyLoss(weighter=sw.ClassBalanced.from_targets(target))
    criterion(logits.expand(100, 3), target, sample_weight=weight).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-4)
    assert counts_are_weighted == torch.allclose(share, share.new_full((3,), 1 / 3), atol=1e-3)


@pytest.mark.parametrize("bad", [7, -1])
def test_labels_out_of_range_are_errors(batch: tuple[Tensor, Tensor], bad: int) -> None:
    logits, target = batch
    for weighter in (None, sw.ClassBalanced([1] * 7), sw.OHEM(10, per_class=True)):
        with pytest.raises(IndexError, match=f"got {bad}"):
            sw.FocalLoss(weighter=weighter)(logits, target.index_fill(0, torch.tensor([5]), bad))


def test_none_keeps_the_shape_of_the_target() -> None:
    logits, target = torch.randn(4, 3, 2, 2), torch.randint(3, (4, 2, 2))
    target[0] = -100
    assert sw.FocalLoss(reduction="none")(logits, target).shape == (4, 2, 2)
    assert sw.BinaryFocalLoss(reduction="none")(logits, (logits > 0).float()).shape == logits.shape


def test_what_the_mean_divides_by_can_be_chosen(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    weight = torch.logspace(-1, 1, 7)
    losses = nn.CrossEntropyLoss(reduction="none")(logits, target)
    by_weights = (weight[target] * losses).sum() / weight[target].sum()
    by_count = (weight[target] * losses).sum() / 64
    torch.testing.assert_close(sw.FocalLoss(0.0, weight=weight)(logits, target), by_weights)
    sample_weight = weight[target]
    kwargs = {"sample_weight": sample_weight}
    torch.testing.assert_close(sw.FocalLoss(0.0)(logits, target, **kwargs), by_count)
    weighted_mean = sw.FocalLoss(0.0, reduction="weighted_mean")
    torch.testing.assert_close(weighted_mean(logits, target, **kwargs), by_weights)


def test_class_weights_of_another_length_are_errors(batch: tuple[Tensor, Tensor]) -> None:
    logits, target = batch
    with pytest.raises(ValueError, match=r"weight must have shape \(7,\), .* got \(2,\)"):
        sw.FocalLoss(weight=torch.tensor([1.0, 2.0]))(logits, target)


def test_an_absent_class_shrinks_nothing() -> None:
    with_absent = sw.EffectiveNumber([0, 10, 100], beta=0.999).class_weight
    without = sw.EffectiveNumber([10, 100], beta=0.999).class_weight
    torch.testing.assert_close(with_absent[1:], without)
    assert with_absent[0] == 0


def test_class_frequency_weights_for_dense_targets_with_ignore_index() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[:, 0] = -100
    value = sw.CrossEntropyLoss(weighter=sw.EffectiveNumber([50, 30, 20]))(logits, target)
    assert value.isfinite()


def test_alpha_weights_the_positives() -> None:
    positive = sw.BinaryFocalLoss(alpha=0.25)(torch.zeros(1), torch.ones(1))
    assert positive.item() == pytest.approx(0.25 * 0.25 * math.log(2))
    assert sw.BinaryFocalLoss()(torch.zeros(1).double(), torch.ones(1)).dtype == torch.float64


def test_p_t_is_not_raised_to_the_class_weight() -> None:
    logits, target = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    plain = sw.FocalLoss(2.0)(logits, target)
    for w in (0.1, 10.0):
        weighted = sw.FocalLoss(2.0, weight=torch.tensor([w, 1.0]), reduction="sum")
        torch.testing.assert_close(weighted(logits, target), w * plain)


def test_ohem_keeps_what_it_says() -> None:
    ten = torch.rand(10)
    assert sw.OHEM(schedule=1.0)(ten).sum() == 10
    assert sw.OHEM(schedule=0.5)(torch.zeros(10)).sum() == 5  # tied, also at 0
    valid = torch.tensor([True, True, False, False])
    few = sw.OHEM(schedule=0.75)(torch.tensor([0.1, 0.2, 9.0, 9.0]), valid=valid)
    assert few.tolist() == [1, 1, 0, 0]
    assert sw.OHEM(schedule=0.5)(torch.rand(1)).sum() == 1


def test_ohem_says_what_it_divides_by() -> None:
    logits, target = torch.randn(8, 3), torch.randint(3, (8,))
    hardest = nn.CrossEntropyLoss(reduction="none")(logits, target).topk(2).values
    mean = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25))
    torch.testing.assert_close(mean(logits, target), hardest.sum() / 8)
    over_kept = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25), reduction="weighted_mean")
    torch.testing.assert_close(over_kept(logits, target), hardest.mean())


def test_selection_is_the_same_every_time() -> None:
    loss = torch.rand(100).round(decimals=1)
    assert len({tuple(sw.OHEM(schedule=0.3)(loss).tolist()) for _ in range(5)}) == 1


def test_gradient_accumulation_is_exact_with_a_normalizer(batch: tuple[Tensor, Tensor]) -> None:
    """A mean-reducing function is off by the number of micro-batches."""
    logits, target = batch
    full, micro = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    sw.CrossEntropyLoss()(full, target).backward()
    for part in torch.arange(64).chunk(4):
        sw.CrossEntropyLoss()(micro[part], target[part], normalizer=64).backward()
    torch.testing.assert_close(micro.grad, full.grad, rtol=0, atol=0)


def test_a_schedule_does_not_recompile_every_epoch() -> None:
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(150))
    compiled = torch.compile(criterion, fullgraph=True, backend=backend)
    logits, target = torch.randn(20, 7), torch.randint(7, (20,))
    for epoch in range(150):
        criterion.set_epoch(epoch)
        compiled(logits, target)
    assert len(graphs) == 1


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="its kernels flush subnormal numbers to 0 in the whole process; Hypothesis refuses that",
)
@pytest.mark.slow  # a C++ compiler, 20 s; other tests trace the same graphs
def test_inductor_agrees() -> None:
    torch._dynamo.reset()
    criterion = sw.FocalLoss(0.5, weighter=[sw.ClassBalanced([5] * 7), sw.OHEM(10, per_class=True)])
    compiled = torch.compile(criterion, fullgraph=True)
    logits, target = torch.randn(20, 7), torch.randint(7, (20,))
    target[0] = -100
    grads = []
    for module in (criterion, compiled):
        leaf = logits.clone().requires_grad_()
        module(leaf, target).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1])
