"""LogitAdjustment against Balanced Softmax in plain Python, and against the optimal decision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
import torch.nn.functional as F
from contracts import COUNTS, indices, logits
from torch import Tensor, nn

import sampleweights as sw


def test_tau_1_is_balanced_softmax() -> None:
    z, target = logits(12, 5).double().requires_grad_(), indices(12)
    criterion = sw.CrossEntropyLoss(margin=sw.LogitAdjustment(COUNTS, 1.0), reduction="none")
    losses = criterion(z, target)
    losses.sum().backward()
    for row, y, loss, grad in zip(
        z.tolist(), target.tolist(), losses.tolist(), z.grad.tolist(), strict=True
    ):
        assert loss == pytest.approx(reference.balanced_softmax(row, y, COUNTS), rel=1e-12)
        expected = reference.balanced_softmax_gradient(row, y, COUNTS)
        assert grad == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_tau_is_the_power_of_the_counts() -> None:
    """So a ``power`` of its own would be a second name of tau."""
    z, target = logits(12, 3).double(), indices(12) % 3
    halved, rooted = sw.LogitAdjustment([100, 25, 4], 0.5), sw.LogitAdjustment([10, 5, 2])
    torch.testing.assert_close(
        sw.CrossEntropyLoss(margin=halved)(z, target), sw.CrossEntropyLoss(margin=rooted)(z, target)
    )
    torch.testing.assert_close(halved.posthoc(z).softmax(1), rooted.posthoc(z).softmax(1))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_p_t_of_focal_loss_is_that_of_the_moved_logits(gamma: float) -> None:
    z, target = logits(12, 5).double(), indices(12)
    criterion = sw.FocalLoss(gamma, margin=sw.LogitAdjustment(COUNTS, 0.7), reduction="none")
    total = sum(COUNTS)
    expected = [
        reference.focal(
            [z + 0.7 * math.log(n / total) for z, n in zip(row, COUNTS, strict=True)], y, gamma
        )
        for row, y in zip(z.tolist(), target.tolist(), strict=True)
    ]
    assert criterion(z, target).tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("tau", [0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 5, 3)])
def test_training_and_posthoc_cancel(tau: float, shape: tuple[int, ...]) -> None:
    margin = sw.LogitAdjustment(COUNTS, tau)
    zero = torch.zeros(shape)
    assert margin.posthoc(zero).equal(-margin(zero))  # one is the other's negative, exactly
    z = logits(*shape).double()
    torch.testing.assert_close(margin.posthoc(margin(z)), z, rtol=0, atol=1e-14)
    torch.testing.assert_close(margin(margin.posthoc(z)), z, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_to_in_float32(dtype: torch.dtype) -> None:
    z = logits(2000, 5).to(dtype)
    log_prior = torch.tensor([math.log(n / sum(COUNTS)) for n in COUNTS])
    margin = sw.LogitAdjustment(COUNTS).to(dtype)
    assert margin(z).equal(z.float() + log_prior)
    assert margin.posthoc(z).equal(z.float() - log_prior)


def test_a_class_without_samples_is_never_predicted() -> None:
    margin = sw.LogitAdjustment([5, 0, 9])
    z = torch.randn(4, 3)
    for moved in (margin(z), margin.posthoc(z)):
        assert (moved[:, 1] == -math.inf).all()
        assert moved[:, [0, 2]].isfinite().all()
    leaf = z.clone().requires_grad_()
    sw.CrossEntropyLoss(margin=margin)(leaf, torch.tensor([0, 2, 2, 0])).backward()
    assert (leaf.grad[:, 1] == 0).all()
    two = sw.CrossEntropyLoss(margin=sw.LogitAdjustment([5, 9]))
    torch.testing.assert_close(
        sw.CrossEntropyLoss(margin=margin)(z, torch.tensor([0, 2, 2, 0])),
        two(z[:, [0, 2]], torch.tensor([0, 1, 1, 0])),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("build", [sw.CrossEntropyLoss, sw.FocalLoss])
def test_probabilities_with_a_class_without_samples(build: Any, dtype: torch.dtype) -> None:
    z = (4 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))).to(dtype)
    z.requires_grad_()
    target = torch.tensor([[0.5, 0, 0.5], [1, 0, 0], [0, 0, 1], [0.25, 0, 0.75]], dtype=dtype)
    margin = sw.LogitAdjustment([5, 0, 9])
    for weighter in (None, sw.ClassBalanced([5, 0, 9])):
        loss = build(margin=margin, weighter=weighter, reduction="none")(z, target)
        two = None if weighter is None else sw.ClassBalanced([5, 9])
        without = build(margin=sw.LogitAdjustment([5, 9]), weighter=two, reduction="none")
        expected = without(z[:, [0, 2]], target[:, [0, 2]])
        torch.testing.assert_close(loss, expected)
        [grad] = torch.autograd.grad(loss.sum(), z)
        assert grad.isfinite().all()
        assert (grad[:, 1] == 0).all()
        with pytest.raises(ValueError, match="got class 1, whose count is 0"):
            build(margin=margin, weighter=weighter)(z, torch.full_like(target, 1 / 3))


@pytest.mark.parametrize("build", [sw.CrossEntropyLoss, sw.FocalLoss])
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3), (5,)])
def test_the_law_of_mixup_holds(build: Any, shape: tuple[int, ...]) -> None:
    z = logits(*shape).double()
    dim = min(len(shape) - 1, 1)
    target = logits(*shape).flip(0).double().softmax(dim)
    criterion = build(margin=sw.LogitAdjustment(COUNTS), reduction="none")
    of_class = [criterion(z, torch.full(target.select(dim, 0).shape, c)) for c in range(5)]
    expected = sum(target.select(dim, c) * loss for c, loss in enumerate(of_class))
    torch.testing.assert_close(criterion(z, target), expected)


def test_label_smoothing_with_a_class_without_samples_is_an_error() -> None:
    for build in (sw.CrossEntropyLoss, sw.FocalLoss):
        with pytest.raises(ValueError, match="label_smoothing must be 0 with a margin that exclu"):
            build(margin=sw.LogitAdjustment([5, 0, 9]), label_smoothing=0.1)
        build(margin=sw.LogitAdjustment([5, 0, 9], tau=0), label_smoothing=0.1)
    criterion = sw.CrossEntropyLoss(margin=sw.LogitAdjustment([5, 1, 9]), label_smoothing=0.1)
    z, target = torch.randn(4, 3), torch.tensor([0, 2, 2, 0])
    assert criterion(z, target).isfinite()
    with pytest.warns(UserWarning, match="was built with class_counts"):
        criterion.margin.load_state_dict(sw.LogitAdjustment([5, 0, 9]).state_dict())
    with pytest.raises(ValueError, match="label_smoothing must be 0"):
        criterion(z, target)


@pytest.mark.parametrize(
    ("tau", "error", "message"),
    [
        (-1, ValueError, "tau must be finite and at least 0, got -1"),
        (math.inf, ValueError, "tau must be finite and at least 0, got inf"),
        (math.nan, ValueError, "tau must be finite and at least 0, got nan"),
        ("1", TypeError, "tau must be a number, got '1'"),
    ],
)
def test_wrong_tau(tau: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sw.LogitAdjustment([3, 1], tau)


def test_posthoc_checks_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match="was made for 2 classes, logits have 3"):
        sw.LogitAdjustment([3, 1]).posthoc(torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (0,), (4, 1), (2, 1, 3, 2)])
def test_one_logit_is_the_log_odds(shape: tuple[int, ...], tau: float, dtype: torch.dtype) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    moved = sw.LogitAdjustment([900, 100], tau).posthoc(z)
    assert moved.dtype == torch.promote_types(dtype, torch.float32)
    assert moved.shape == shape
    expected = [value - tau * math.log(100 / 900) for value in z.flatten().tolist()]
    assert moved.flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_two_samples_of_one_logit_are_not_one_sample_of_two_classes() -> None:
    margin, z = sw.LogitAdjustment([900, 100]), torch.tensor([0.3, -1.2])
    moved = margin.posthoc(z)
    assert moved.tolist() == pytest.approx([0.3 + math.log(9), -1.2 + math.log(9)])
    assert [round(value, 2) for value in moved.tolist()] == [2.50, 1.00]
    both = torch.stack([torch.zeros(2), z], 1)  # the same as the logits of two classes
    of_classes = margin.posthoc(both).softmax(1)[:, 1]
    torch.testing.assert_close(moved.sigmoid(), of_classes)
    # a softmax loss has no such logit: there, as for torch, it is one sample
    one = sw.CrossEntropyLoss(margin=margin)(z, torch.tensor(1))
    torch.testing.assert_close(one, sw.CrossEntropyLoss(margin=margin)(z[None], torch.tensor([1])))


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2), (0, 3)])
def test_labels_have_counts_of_their_own(shape: tuple[int, ...]) -> None:
    counts = [[90, 10], [5, 15], [7, 7]]
    z = torch.randn(shape, dtype=torch.float64)
    moved = sw.LogitAdjustment(counts, 0.7).posthoc(z)
    for label, (negatives, positives) in enumerate(counts):
        expected = z[:, label] - 0.7 * math.log(positives / negatives)
        torch.testing.assert_close(moved[:, label], expected)
    assert sw.LogitAdjustment(counts, 0.7).posthoc(z.bfloat16()).dtype == torch.float32


def test_labels_without_positives_or_negatives() -> None:
    moved = sw.LogitAdjustment([[3, 0], [0, 3], [1, 1]]).posthoc(torch.randn(4, 3))
    assert (moved[:, 0] == -math.inf).all()
    assert (moved[:, 1] == math.inf).all()
    assert moved[:, 2].isfinite().all()
    assert (sw.LogitAdjustment([5, 0]).posthoc(torch.zeros(3)) == -math.inf).all()
    assert sw.LogitAdjustment([5, 0], 0).posthoc(torch.ones(3)).eq(1).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 2, 3], [4, 5, 6]], r"shape \(C,\), got \(2, 3\); or \(L, 2\), the negatives"),
        (torch.ones(2, 2, 2), r"got \(2, 2, 2\)"),
        (torch.ones(0, 2), r"got \(0, 2\)"),
        ([[1, 2], [0, 0]], "at least one sample of each label, got none of label 1"),
        ([[1, 2], [3, -1]], "got -1 for class 1 of label 1"),
    ],
)
@pytest.mark.parametrize(
    "build", [sw.LogitAdjustment, sw.LDAM, sw.ClassBalanced, sw.EffectiveNumber]
)
def test_wrong_counts_of_labels(build: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(counts)


def test_logits_that_do_not_fit_the_labels() -> None:
    labels = sw.LogitAdjustment([[3, 1], [1, 1]])
    for shape in ((), (2,), (2, 3), (2, 1)):
        with pytest.raises(ValueError, match=r"made for 2 labels, logits .* \(N, 2, ...\)"):
            labels.posthoc(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"for 2 classes, logits have 3, and not one logit"):
        sw.LogitAdjustment([3, 1]).posthoc(torch.zeros(4, 3))


def test_states_and_copies_of_labels() -> None:
    margin, other = sw.LogitAdjustment([[3, 1], [1, 0]]), sw.LogitAdjustment([[3, 1], [1, 2]])
    assert repr(margin) == "LogitAdjustment(class_counts=[[3, 1], [1, 0]])"
    assert "(9 labels)" in repr(sw.LDAM([[1, 2]] * 9))
    with pytest.warns(UserWarning, match="was built with class_counts"):
        other.load_state_dict(margin.state_dict())
    z = torch.randn(4, 2)
    assert other.posthoc(z).equal(margin.posthoc(z))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_posthoc_of_a_thousand_classes_predicts_what_exact_logits_predict(
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.logspace(4, 0, 1000).long()
    z = (3 * torch.randn(500, 1000, generator=generator)).to(dtype)
    margin = sw.LogitAdjustment(counts)
    exact = z.double() - (counts.double() / counts.sum()).log()
    assert margin.posthoc(z).argmax(1).equal(exact.argmax(1))
    # what rounding to the dtype of the logits would predict
    assert not exact.to(dtype).argmax(1).equal(exact.argmax(1))


def test_a_model_average_keeps_the_class_without_samples_out() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    model.margin = sw.LogitAdjustment([5, 0, 9])
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    average.update_parameters(model)
    average.update_parameters(model)
    margin, z = average.module.margin, torch.randn(4, 3)
    for buffer in margin.buffers():
        assert buffer.isfinite().all()
    assert margin.posthoc(z).equal(model.margin.posthoc(z))
    assert margin(z).equal(model.margin(z))


@pytest.mark.parametrize("value", [-math.inf, math.nan, 3.0])
def test_only_the_counts_say_which_class_has_no_samples(value: float) -> None:
    """-inf is what states held before, and NaN what averages of models made of it."""
    margin = sw.LogitAdjustment([5, 0, 9])
    expected = [margin(torch.zeros(2, 3)), margin.posthoc(torch.zeros(2, 3))]
    target = torch.tensor([[0.5, 0, 0.5]] * 2)
    expected.append(margin(torch.zeros(2, 3), target))
    margin.log_prior[1] = value
    assert margin(torch.zeros(2, 3)).equal(expected[0])
    assert margin.posthoc(torch.zeros(2, 3)).equal(expected[1])
    assert margin(torch.zeros(2, 3), target).equal(expected[2])


def test_states_that_were_saved_with_infinity_load() -> None:
    margin = sw.LogitAdjustment([5, 0, 9])
    state = margin.state_dict()
    state["log_prior"] = torch.tensor([5 / 14, 0, 9 / 14], dtype=torch.float64).log()
    before = state["log_prior"].clone()
    margin.load_state_dict(state)  # a warning would be an error
    assert margin.log_prior.isfinite().all()
    assert state["log_prior"].equal(before)
    assert (margin(torch.zeros(2, 3))[:, 1] == -math.inf).all()


CENTRES = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]], dtype=torch.float64)
PRIOR = torch.tensor([0.9, 0.09, 0.01], dtype=torch.float64)


def drawn(counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    target = torch.repeat_interleave(torch.arange(3), counts)
    noise = torch.randn(
        len(target), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return CENTRES[target] + noise, target


def trained(criterion: sw.CrossEntropyLoss, inputs: Tensor, target: Tensor) -> nn.Linear:
    """The linear model of least loss: with equal covariances the optimal decision is linear."""
    model = nn.Linear(2, 3, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = criterion(model(inputs), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def test_both_ways_reach_the_optimal_decision_for_balanced_accuracy() -> None:
    counts = (PRIOR * 40_000).round().long()
    inputs, target = drawn(counts, seed=0)
    margin = sw.LogitAdjustment(counts)
    plain = trained(sw.CrossEntropyLoss(), inputs, target)
    adjusted = trained(sw.CrossEntropyLoss(margin=margin), inputs, target)
    per_class = 20_000
    inputs, target = drawn(torch.full((3,), per_class), seed=1)

    def balanced_accuracy(scores: Tensor) -> float:
        right = (scores.argmax(1) == target).double()
        return right.reshape(3, per_class).mean().item()

    with torch.no_grad():
        optimum = balanced_accuracy(-torch.cdist(inputs, CENTRES))  # the nearest centre
        # the standard error of an accuracy from 60,000 samples; the decisions are all but the
        # same, so that the difference of two accuracies has less
        error = math.sqrt(optimum * (1 - optimum) / (3 * per_class))
        without = balanced_accuracy(plain(inputs))
        in_training = balanced_accuracy(adjusted(inputs))
        posthoc = balanced_accuracy(margin.posthoc(plain(inputs)))
        twice = balanced_accuracy(margin.posthoc(adjusted(inputs)))
    assert optimum - without > 0.2
    assert abs(in_training - optimum) < 4 * error
    assert abs(posthoc - optimum) < 4 * error
    assert twice < optimum - 0.05  # both at once adjust too far


def test_posthoc_is_the_bayes_decision_of_known_probabilities() -> None:
    inputs, _ = drawn(torch.full((3,), 500), seed=2)
    log_density = -(torch.cdist(inputs, CENTRES) ** 2) / 2
    logits = F.log_softmax(log_density + PRIOR.log(), 1)  # log p(y | x), up to rounding
    margin = sw.LogitAdjustment((PRIOR * 100).round().long())
    assert margin.posthoc(logits).argmax(1).equal(log_density.argmax(1))
