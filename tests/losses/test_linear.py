"""LinearCrossEntropyLoss against the same loss of full logits, in float64."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import sampleweights as sw

N, D, C = 50, 8, 13
COUNTS = [1 + 3 * c for c in range(C)]

WEIGHTERS = {
    "none": lambda: None,
    "ClassBalanced": lambda: sw.ClassBalanced(COUNTS),
    "Confidence": sw.Confidence,
    "OHEM": lambda: sw.OHEM(schedule=0.3),
    "SelfPaced": lambda: sw.SelfPaced(schedule=0.6),
    "list": lambda: [sw.EffectiveNumber(COUNTS), sw.OHEM(schedule=0.5)],
    "elementwise list": lambda: [sw.Confidence(), sw.ClassBalanced(COUNTS)],
    "deferred": lambda: sw.Deferred(sw.ClassBalanced(COUNTS), start=0),
}
MARGINS = {
    "none": lambda: None,
    "LogitAdjustment": lambda: sw.LogitAdjustment(COUNTS, tau=0.7),
    "LDAM": lambda: sw.LDAM(COUNTS, scale=2.0),
}


def batch(dtype=torch.float32, ignored=0, seed=0, shape=(N,)):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, D, generator=generator).to(dtype).requires_grad_()
    target = torch.randint(0, C, shape, generator=generator)
    if ignored:
        target.view(-1)[torch.randperm(target.numel(), generator=generator)[:ignored]] = -100
    return hidden, target


def head(dtype=torch.float32, bias=True, seed=1):
    torch.manual_seed(seed)
    linear = nn.Linear(D, C, bias=bias)
    with torch.no_grad():
        linear.weight.mul_(3)
    return linear.to(dtype)


def full(linear, hidden, target, gamma=0.0, call=None, **arguments):
    """The loss of full logits in float64, and the gradients of hidden states, matrix and bias."""
    linear = copy.deepcopy(linear).double()
    x = hidden.detach().double().requires_grad_()
    logits = linear(x)
    if logits.ndim > 2:
        logits = logits.movedim(-1, 1)
    criterion = sw.FocalLoss(gamma, **arguments) if gamma else sw.CrossEntropyLoss(**arguments)
    value = criterion(logits, target, **(call or {}))
    value.sum().backward()
    return value.detach(), [x.grad, *(p.grad for p in linear.parameters())]


def ours(linear, hidden, target, call=None, **arguments):
    criterion = sw.LinearCrossEntropyLoss.from_linear(linear, **arguments)
    linear.zero_grad()
    hidden.grad = None
    value = criterion(hidden, target, **(call or {}))
    value.sum().backward()
    return value.detach(), [hidden.grad, *(p.grad for p in linear.parameters())]


def close(found, right, tolerance=1e-6):
    """The error is at most so much of the largest number of each tensor."""
    for a, b in zip([found[0], *found[1]], [right[0], *right[1]], strict=True):
        assert a.shape == b.shape
        assert (a.double() - b).abs().max() <= tolerance * max(b.abs().max(), 1e-3)


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("weighter", WEIGHTERS)
def test_it_is_the_loss_of_full_logits(weighter, margin, gamma, chunk_size):
    hidden, target = batch(ignored=9)
    linear = head()

    def arguments():
        return {"weighter": WEIGHTERS[weighter](), "margin": MARGINS[margin](), "gamma": gamma}

    close(
        ours(linear, hidden, target, chunk_size=chunk_size, **arguments()),
        full(linear, hidden, target, **arguments()),
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
@pytest.mark.parametrize("weighter", ["none", "ClassBalanced", "OHEM"])
def test_reductions_smoothing_and_class_weights(weighter, reduction, smoothing, with_weight, gamma):
    hidden, target = batch(ignored=5)
    linear = head(bias=False)
    weight = torch.linspace(0.5, 2, C) if with_weight else None

    def arguments(dtype):
        return {
            "weighter": WEIGHTERS[weighter](),
            "reduction": reduction,
            "label_smoothing": smoothing,
            "gamma": gamma,
            "weight": None if weight is None else weight.to(dtype),
        }

    close(
        ours(linear, hidden, target, chunk_size=11, **arguments(torch.float32)),
        full(linear, hidden, target, **arguments(torch.float64)),
    )


@pytest.mark.parametrize("weighter", WEIGHTERS)
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
def test_the_call(weighter, reduction):
    hidden, target = batch(ignored=5, shape=(10, 6))
    linear = head()
    generator = torch.Generator().manual_seed(3)
    sample_weight = torch.rand(10, 6, generator=generator)
    sample_weight[::3] = 0
    for call in (
        {"sample_weight": sample_weight},
        {"sample_weight": sample_weight[:, 0]},
        {"normalizer": 17.0},
        {"normalizer": torch.tensor(3.5)},
        {"reference_loss": torch.rand(10, 6, generator=generator)},
        {"sample_weight": sample_weight, "reference_loss": torch.rand(10, 6)},
    ):
        found, right = (
            of(linear, hidden, target, weighter=WEIGHTERS[weighter](), reduction=reduction,
               call=call, **more)
            for of, more in ((ours, {"chunk_size": 16}), (full, {}))
        )  # fmt: skip
        close(found, right)


@pytest.mark.parametrize("weighter", ["none", "ClassBalanced", "OHEM"])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
def test_a_batch_in_which_nothing_counts(weighter, reduction):
    linear = head()
    for rows in (0, 4):
        hidden = torch.randn(rows, D, requires_grad=True)
        target = torch.full((rows,), -100)
        value, gradients = ours(
            linear, hidden, target, weighter=WEIGHTERS[weighter](), reduction=reduction
        )
        assert value.eq(0).all()
        assert value.shape == ((rows,) if reduction == "none" else ())
        assert all(g.eq(0).all() for g in gradients)


@pytest.mark.parametrize("weighter", ["none", "OHEM"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype, weighter):
    hidden, target = batch(dtype, ignored=5)
    linear = head(dtype)
    found = ours(linear, hidden, target, weighter=WEIGHTERS[weighter](), chunk_size=16)
    # by the logits that these numbers give: a curriculum may choose others by rounding
    rounded = full(linear, hidden, target, weighter=WEIGHTERS[weighter]())
    assert found[0].dtype == dtype
    assert [g.dtype for g in found[1]] == [dtype] * 3
    close(found, rounded, 3 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("weighter", ["none", "OHEM"])
def test_autocast_computes_products_in_half_precision(weighter):
    hidden, target = batch()
    linear = head()
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(linear, hidden, target, weighter=WEIGHTERS[weighter]())
        linear.zero_grad()
        hidden.grad = None
        value = sw.CrossEntropyLoss(weighter=WEIGHTERS[weighter]())(linear(hidden), target)
    value.backward()
    right = value.detach(), [hidden.grad, *(p.grad for p in linear.parameters())]
    assert found[0].dtype == torch.float32
    assert [g.dtype for g in found[1]] == [torch.float32] * 3
    close(found, right, 3 * torch.finfo(torch.bfloat16).eps)


def test_only_what_is_asked_for_is_computed():
    hidden, target = batch()
    for of_hidden, of_weight in itertools.product([False, True], repeat=2):
        for weighter in ("none", "OHEM"):
            linear = head()
            linear.requires_grad_(of_weight)
            x = hidden.detach().requires_grad_(of_hidden)
            criterion = sw.LinearCrossEntropyLoss.from_linear(
                linear, weighter=WEIGHTERS[weighter]()
            )
            value = criterion(x, target)
            assert value.requires_grad == (of_hidden or of_weight)
            if value.requires_grad:
                value.backward()
            assert (x.grad is None) != of_hidden
            assert (linear.weight.grad is None) != of_weight
            right = full(linear, hidden, target, weighter=WEIGHTERS[weighter]())
            if of_hidden:
                torch.testing.assert_close(x.grad, right[1][0].float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("weighter", ["none", "OHEM"])
def test_a_second_backward_pass(weighter):
    hidden, target = batch()
    linear = head()
    criterion = sw.LinearCrossEntropyLoss.from_linear(linear, weighter=WEIGHTERS[weighter]())
    value = criterion(hidden, target)
    value.backward(retain_graph=True)
    once = [hidden.grad.clone(), linear.weight.grad.clone()]
    value.backward()
    torch.testing.assert_close([hidden.grad, linear.weight.grad], [2 * g for g in once])


def test_without_gradients_there_is_no_graph():
    hidden, target = batch()
    criterion = sw.LinearCrossEntropyLoss.from_linear(head())
    with torch.no_grad():
        value = criterion(hidden, target)
    assert not value.requires_grad
    torch.testing.assert_close(value, criterion(hidden, target).detach())


@pytest.mark.filterwarnings("ignore:.*cpu.amp.autocast:FutureWarning")  # torch 2.4 of itself
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("weighter", ["none", "OHEM"])
def test_gradient_checkpointing(weighter, reentrant):
    hidden, target = batch()
    linear = head()
    criterion = sw.LinearCrossEntropyLoss.from_linear(linear, weighter=WEIGHTERS[weighter]())
    right = ours(linear, hidden, target, weighter=WEIGHTERS[weighter]())
    right = right[0], [g.clone() for g in right[1]]
    linear.zero_grad()
    hidden.grad = None
    seen = []
    criterion.register_weighting_hook(lambda c, samples, weight: seen.append(samples.loss))
    value = checkpoint(criterion, hidden, target, use_reentrant=reentrant)
    value.backward()
    found = value.detach(), [hidden.grad, *(p.grad for p in linear.parameters())]
    torch.testing.assert_close(found, right)
    assert len(seen) == 1


@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize("weighter", WEIGHTERS)
def test_a_history_is_that_of_full_logits(weighter, with_weight):
    hidden, target = batch(ignored=5)
    linear = head()
    sample_weight = torch.arange(N) % 3.0 if with_weight else None
    histories = []
    for of_logits in (True, False):
        history = sw.LossHistory(N)
        if of_logits:
            criterion = sw.CrossEntropyLoss(weighter=WEIGHTERS[weighter]())
        else:
            criterion = sw.LinearCrossEntropyLoss.from_linear(
                linear, weighter=WEIGHTERS[weighter](), chunk_size=7
            )
        unwatched = criterion(linear(hidden) if of_logits else hidden, target)
        with history.record(criterion, torch.arange(N)):
            value = criterion(
                linear(hidden) if of_logits else hidden, target, sample_weight=sample_weight
            )
        if sample_weight is None:
            assert value == unwatched
        history.end_epoch()
        histories.append(history.scores())
    for name, right in histories[0].items():
        found = histories[1][name]
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5, equal_nan=True, msg=name)


def test_a_margin_of_ones_own_learns():
    class Temperature(sw.Margin):
        def __init__(self):
            super().__init__()
            self.log = nn.Parameter(torch.tensor(0.3))

        def forward(self, logits, target=None, valid=None):
            return logits * self.log.exp()

    hidden, target = batch()
    linear = head()
    for weighter in ("none", "OHEM"):
        found, right = Temperature(), Temperature()
        criterion = sw.LinearCrossEntropyLoss.from_linear(
            linear, margin=found, weighter=WEIGHTERS[weighter](), chunk_size=9
        )
        criterion(hidden, target).backward()
        sw.CrossEntropyLoss(margin=right, weighter=WEIGHTERS[weighter]())(
            linear(hidden), target
        ).backward()
        torch.testing.assert_close(found.log.grad, right.log.grad)


def test_large_gaps_are_finite():
    linear = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[200.0, 0], [0, 0], [-200, 0]]))
    hidden = torch.tensor([[1.0, 0], [1, 0], [-1, 0]], requires_grad=True)
    target = torch.tensor([0, 2, 0])
    for gamma, smoothing in itertools.product([0.0, 0.3, 2.0], [0.0, 0.1]):
        arguments = {"gamma": gamma, "label_smoothing": smoothing}
        found = ours(linear, hidden, target, **arguments)
        close(found, full(linear, hidden, target, **arguments))


def test_its_own_head_is_that_of_torch():
    criterion = sw.LinearCrossEntropyLoss(D, C, bias=True)
    assert list(criterion.state_dict()) == ["linear.weight", "linear.bias"]
    hidden, target = batch()
    right = nn.functional.cross_entropy(criterion.linear(hidden), target)
    torch.testing.assert_close(criterion(hidden, target), right)


def test_a_given_head_is_shared_and_not_owned():
    linear = head()
    criterion = sw.LinearCrossEntropyLoss.from_linear(linear, weighter=sw.ClassBalanced(COUNTS))
    assert criterion.head is linear
    assert not list(criterion.parameters())  # an optimizer of model and criterion has it once
    model = nn.ModuleDict({"head": linear, "criterion": criterion})
    assert not any("linear" in key for key in model.state_dict())
    twin = copy.deepcopy(model)
    assert twin["criterion"].head is twin["head"]
    twin = pickle.loads(pickle.dumps(model))
    assert twin["criterion"].head is twin["head"]


def test_one_sample():
    hidden, target = batch()
    linear = head()
    close(ours(linear, hidden[0].detach().requires_grad_(), target[0]),
          full(linear, hidden[0], target[0]))  # fmt: skip


@pytest.mark.parametrize(
    ("hidden", "target", "error", "words"),
    [
        (torch.zeros(3, D + 1), torch.zeros(3, dtype=torch.long), ValueError, "in_features"),
        (torch.zeros(3, D), torch.zeros(4, dtype=torch.long), ValueError, r"\(3,\).*\(4,\)"),
        (torch.zeros(3, D), torch.zeros(3, C), TypeError, "CrossEntropyLoss on the logits"),
        (torch.zeros(3, D), torch.tensor([0, 1, C]), IndexError, f"from 0 to {C - 1}.*{C}"),
        (torch.zeros(3, D).double(), torch.tensor([0, 1, 2]), ValueError, "dtype of the head"),
        (torch.zeros(3, D).long(), torch.tensor([0, 1, 2]), TypeError, "hidden must be floating"),
    ],
)
def test_bad_input(hidden, target, error, words):
    with pytest.raises(error, match=words):
        sw.LinearCrossEntropyLoss.from_linear(head())(hidden, target)


def test_bad_heads():
    with pytest.raises(TypeError, match=r"linear must be an nn\.Linear.*Embedding"):
        sw.LinearCrossEntropyLoss.from_linear(nn.Embedding(3, 4))

    class Adapted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(TypeError, match=r"linear must be an nn\.Linear.*Adapted"):
        sw.LinearCrossEntropyLoss.from_linear(Adapted(3, 4))
    replaced = nn.Linear(3, 4)
    replaced.forward = lambda x: x
    with pytest.raises(TypeError, match="forward of nn.Linear, got one that was replaced"):
        sw.LinearCrossEntropyLoss.from_linear(replaced)
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        sw.LinearCrossEntropyLoss(3, 4, chunk_size=0)
    with pytest.raises(ValueError, match=r"weight must have shape \(13,\)"):
        sw.LinearCrossEntropyLoss.from_linear(head(), weight=torch.ones(4))(*batch())
    with pytest.raises(ValueError, match="weighter was made for 2 classes"):
        sw.LinearCrossEntropyLoss.from_linear(head(), weighter=sw.ClassBalanced([1, 2]))(*batch())


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_finite_logits_give_no_nan(scale):
    linear = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(4))
    hidden = (
        torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0.5, 0], [0, 0, 0, 0]]) * scale
    ).requires_grad_()
    target = torch.tensor([0, 0, 3])
    for gamma, smoothing, margin in itertools.product(
        [0.0, 0.1, 2.0], [0.0, 0.1], [None, sw.LDAM([9, 5, 3, 1]), sw.LogitAdjustment([9, 5, 3, 1])]
    ):
        for weighter in (None, sw.Confidence(), sw.OHEM(schedule=0.7)):
            value, gradients = ours(
                linear, hidden, target, gamma=gamma, label_smoothing=smoothing, margin=margin,
                weighter=weighter,
            )  # fmt: skip
            assert value.isfinite()
            assert all(g.isfinite().all() for g in gradients)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, at the break
@pytest.mark.parametrize("weighter", ["none", "OHEM"])
def test_a_model_around_it_is_compiled(weighter):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(D, D), head()
            self.criterion = sw.LinearCrossEntropyLoss.from_linear(
                self.head, weighter=WEIGHTERS[weighter]()
            )

        def forward(self, x, target):
            return self.criterion(self.body(x).tanh(), target)

    model, (x, target) = Model(), batch(ignored=5)
    model(x, target).backward()
    right = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch._dynamo.reset()
    torch.compile(model, backend="eager")(x, target).backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], right)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [0.0, 0.0], [0.0, 1.0]])
def test_hooks_see_every_loss_with_weights_of_samples(weights):
    hidden, target = torch.randn(2, D), torch.tensor([3, 5])
    linear, seen = head(), []
    criterion = sw.LinearCrossEntropyLoss.from_linear(linear)
    criterion.register_weighting_hook(lambda c, samples, weight: seen.append((samples, weight)))
    criterion(hidden, target, sample_weight=torch.tensor(weights))
    [(samples, weight)] = seen
    torch.testing.assert_close(samples.loss, nn.functional.cross_entropy(
        linear(hidden), target, reduction="none"
    ).detach())  # fmt: skip
    assert weight.tolist() == weights
    assert samples.judged[1][:, 0].tolist() == [3, 5]


@pytest.mark.parametrize("weighter", ["none", "OHEM", "ClassBalanced"])
@pytest.mark.parametrize("loss_scale", [1.0, 2.0**14])
def test_float16_holds_the_gradients_of_a_large_vocabulary(weighter, loss_scale):
    torch.manual_seed(0)
    classes = 4000
    linear = nn.Linear(16, classes, bias=False)
    with torch.no_grad():
        linear.weight.normal_(0, 0.05)
    hidden, target = torch.randn(300, 16).half(), torch.randint(0, classes, (300,))
    linear.half()
    counts = torch.arange(1, classes + 1)
    make = {
        "none": lambda: None, "OHEM": lambda: sw.OHEM(schedule=0.5),
        "ClassBalanced": lambda: sw.ClassBalanced(counts),
    }[weighter]  # fmt: skip
    x = hidden.clone().requires_grad_()
    criterion = sw.LinearCrossEntropyLoss.from_linear(linear, weighter=make(), chunk_size=64)
    (criterion(x, target).float() * loss_scale).backward()
    _, (of_hidden, of_weight) = full(linear, hidden, target, weighter=make())
    for found, right in ((x.grad, of_hidden), (linear.weight.grad, of_weight)):
        error = (found.double() / loss_scale - right).norm() / right.norm()
        # without a scale float16 itself does not hold what is returned
        assert error < (2e-3 if loss_scale > 1 else 3e-2)
