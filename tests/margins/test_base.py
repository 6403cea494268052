"""What holds for every margin, and for every loss with one."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contracts import COUNTS, MARGINS, NUM_CLASSES, TREE, indices, logits
from torch import Tensor, nn
from torch.autograd import forward_ad

import sampleweights as sw
from sampleweights import functional

LOSSES = {"CrossEntropyLoss": sw.CrossEntropyLoss, "FocalLoss": sw.FocalLoss}
SHAPES: list[tuple[int, ...]] = [(), (12,), (0,), (2, 4, 3)]


@pytest.fixture(autouse=True, params=[0, 2**16])
def size_of_the_lean_path(request: Any, monkeypatch: Any) -> None:
    """Small batches take the path of large ones too."""
    monkeypatch.setattr(functional.reference, "LEAN_FROM", request.param)


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return logits(*shape[:1], NUM_CLASSES, *shape[1:]), indices(*shape)


def value_and_grad(criterion: Any, logits: Tensor, target: Tensor, **kw: Any) -> list[Tensor]:
    leaf = logits.clone().requires_grad_()
    value = criterion(leaf, target, **kw)
    value.sum().backward()
    return [value.detach(), leaf.grad]


def assert_same(ours: list[Tensor], theirs: list[Tensor], **tolerance: float) -> None:
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, **tolerance)


@pytest.mark.parametrize("name", MARGINS)
class TestMargin:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_keeps_the_shape_and_moves_in_at_least_float32(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        z, target = batch(shape)
        before = z.to(dtype)
        moved = MARGINS[name]()(before, target)
        assert moved.shape == z.shape
        assert moved.dtype == torch.promote_types(dtype, torch.float32)
        assert before.equal(z.to(dtype))
        exact = MARGINS[name]()(before.double(), target)
        torch.testing.assert_close(moved.double(), exact, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_one_rounding_is_all_that_half_precision_costs(
        self, name: str, loss: str, dtype: torch.dtype
    ) -> None:
        z, index = batch((12,))
        z, probabilities = z.to(dtype), logits(12, NUM_CLASSES).softmax(1).to(dtype)
        weight = torch.linspace(0.5, 2, NUM_CLASSES).to(dtype)
        for kw, target in itertools.product(
            [{}, {"weight": weight}, {"weighter": sw.ClassBalanced(COUNTS)}, {"reduction": "none"}],
            [index] if "LDAM" in name else [index, probabilities],
        ):
            criterion = LOSSES[loss](margin=MARGINS[name](), **kw)
            ours = value_and_grad(criterion, z, target)
            wide = target.double() if target.is_floating_point() else target
            exact = value_and_grad(criterion.double(), z.double(), wide)
            assert [x.dtype for x in ours] == [dtype, dtype]
            for our, exactly in zip(ours, exact, strict=True):
                epsilon = torch.finfo(dtype).eps
                torch.testing.assert_close(our.double(), exactly, rtol=epsilon, atol=epsilon / 100)

    def test_casts_do_not_round_its_buffers(self, name: str) -> None:
        margin = MARGINS[name]()
        before = copy.deepcopy(margin.state_dict())
        after = margin.half().bfloat16().float().state_dict()
        assert all(after[key].equal(value) for key, value in before.items())
        assert all(buffer.is_meta for buffer in margin.to("meta").buffers())

    def test_copies_and_states(self, name: str) -> None:
        z, target = batch((12,))
        margin, fresh = MARGINS[name](), MARGINS[name]()
        expected = margin(z, target)
        file = io.BytesIO()
        torch.save(margin.state_dict(), file)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fresh.load_state_dict(torch.load(file, weights_only=True))
        for other in (fresh, copy.deepcopy(margin), pickle.loads(pickle.dumps(margin))):
            assert other(z, target).equal(expected)

    def test_repr_builds_it(self, name: str) -> None:
        text = repr(MARGINS[name]())
        assert repr(eval(text, vars(sw))) == text

    def test_counts_come_from_targets_too(self, name: str) -> None:
        margin = MARGINS[name]()
        target = torch.repeat_interleave(torch.arange(NUM_CLASSES), torch.tensor(COUNTS))
        assert type(margin).from_targets(target).class_counts.tolist() == COUNTS
        mapped = type(margin)(dict(enumerate(COUNTS)))
        assert mapped.class_counts.tolist() == COUNTS
        with pytest.raises(TypeError):
            type(margin).from_targets(target, beta=1)

    def test_loading_other_counts_warns(self, name: str) -> None:
        margin = MARGINS[name]()
        other = type(margin)(COUNTS[::-1])
        with pytest.warns(UserWarning, match=r"built with class_counts \[50, 20"):
            margin.load_state_dict(other.state_dict())
        assert margin.class_counts.tolist() == COUNTS[::-1]

    @pytest.mark.parametrize("loss", LOSSES)
    def test_another_number_of_classes(self, name: str, loss: str) -> None:
        z, target = torch.randn(4, 7), torch.zeros(4, dtype=torch.long)
        for module in (MARGINS[name](), LOSSES[loss](margin=MARGINS[name]())):
            with pytest.raises(ValueError, match=f"made for {NUM_CLASSES} classes, logits have 7"):
                module(z, target)
        with pytest.raises(ValueError, match="made for 5 classes, logits have 0"):
            MARGINS[name]()(torch.tensor(1.0), target)
        with pytest.raises(TypeError, match="logits must be floating"):
            MARGINS[name]()(torch.zeros(4, 5, dtype=torch.long), target)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_criterion_is_that_of_the_moved_logits(
        self, name: str, loss: str, shape: tuple[int, ...]
    ) -> None:
        z, target = (t.double() if t.is_floating_point() else t for t in batch(shape))
        margin, class_weight = MARGINS[name](), torch.linspace(0.5, 2, NUM_CLASSES).double()
        weighters: list[Any] = [None, sw.ClassBalanced(COUNTS), sw.OHEM(schedule=0.5)]
        for reduction, weighter, weight, smoothing in itertools.product(
            ["mean", "weighted_mean", "sum", "none"], weighters, [None, class_weight], [0, 0.1]
        ):
            kw = {
                "reduction": reduction,
                "weighter": weighter,
                "weight": weight,
                "label_smoothing": smoothing,
            }
            plain = LOSSES[loss](**kw)
            ours = value_and_grad(LOSSES[loss](margin=margin, **kw), z, target)
            theirs = value_and_grad(lambda z, y: plain(margin(z, y), y), z, target)  # noqa: B023
            assert_same(ours, theirs, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("ignore_index", [-100, 2, 255])
    def test_ignored_samples_add_nothing(self, name: str, loss: str, ignore_index: int) -> None:
        z, target = batch((2, 4, 3))
        target[:, 1] = ignore_index
        criterion = LOSSES[loss](
            margin=MARGINS[name](), ignore_index=ignore_index, reduction="none"
        )
        losses, grad = value_and_grad(criterion, z, target)
        valid = target != ignore_index
        assert (losses[~valid] == 0).all()
        assert (grad.movedim(1, -1)[~valid] == 0).all()
        flat = LOSSES[loss](margin=MARGINS[name](), reduction="none")
        torch.testing.assert_close(
            losses[valid], flat(z.movedim(1, -1)[valid], target[valid]), rtol=1e-5, atol=1e-6
        )

    def test_hooks_see_the_logits_of_the_model(self, name: str) -> None:
        z, target = batch((12,))
        criterion = sw.CrossEntropyLoss(margin=MARGINS[name]())
        seen: list[Any] = []
        with criterion.register_weighting_hook(lambda c, samples, weight: seen.append(samples)):
            value = criterion(z, target)
        assert seen[0].logits.equal(z)
        torch.testing.assert_close(seen[0].loss.mean(), value)

    def test_second_derivatives_and_many_gradients_at_once(self, name: str) -> None:
        z, target = (t.double() if t.is_floating_point() else t for t in batch((4,)))
        target[1] = -100
        for build in LOSSES.values():
            criterion = build(margin=MARGINS[name](), reduction="none")
            z.requires_grad_()
            assert torch.autograd.gradcheck(criterion, (z, target))
            assert torch.autograd.gradgradcheck(criterion, (z, target))
            losses = criterion(z, target)
            [many] = torch.autograd.grad(losses, z, torch.eye(4).double(), is_grads_batched=True)
            for row, of_row in enumerate(many):
                [one] = torch.autograd.grad(criterion(z, target)[row], z)
                torch.testing.assert_close(of_row, one)

    def test_forward_mode_and_vmap(self, name: str) -> None:
        z, target = (t.double() if t.is_floating_point() else t for t in batch((4,)))
        criterion = sw.CrossEntropyLoss(margin=MARGINS[name]())
        [_, expected] = value_and_grad(criterion, z, target)
        each = torch.func.vmap(torch.func.grad(criterion))(z, target) / 4
        with forward_ad.dual_level():
            loss = criterion(forward_ad.make_dual(z, torch.ones_like(z)), target)
            tangent = forward_ad.unpack_dual(loss).tangent
        torch.testing.assert_close(tangent, expected.sum())
        torch.testing.assert_close(each, expected)

    def test_gradient_twice_from_one_graph(self, name: str) -> None:
        z, target = batch((12,))
        z.requires_grad_()
        value = sw.CrossEntropyLoss(margin=MARGINS[name]())(z, target)
        [first] = torch.autograd.grad(value, z, retain_graph=True)
        [second] = torch.autograd.grad(value, z)
        assert first.equal(second)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("shape", [(64,), (2, 8, 8)])
    def test_no_more_is_saved_for_the_backward_pass(
        self, name: str, loss: str, shape: tuple[int, ...]
    ) -> None:
        z, target = batch(shape)

        def saved(criterion: Any) -> int:
            found: set[int] = set()

            def pack(tensor: Tensor) -> Tensor:
                if tensor.numel() == z.numel():
                    found.add(tensor.data_ptr())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                value = criterion(z.clone().requires_grad_(), target)
            value.backward()
            return len(found)

        assert saved(LOSSES[loss](margin=MARGINS[name]())) <= saved(LOSSES[loss]())

    def test_selective_loss(self, name: str) -> None:
        model = nn.Linear(3, NUM_CLASSES)
        inputs, target = torch.randn(32, 3), indices(32)
        criterion = sw.CrossEntropyLoss(margin=MARGINS[name](), weighter=sw.OHEM(schedule=0.25))
        losses = [
            criterion(model(inputs), target),
            sw.selective_loss(model, criterion, inputs, target),
        ]
        assert_same(*[[x, *torch.autograd.grad(x, list(model.parameters()))] for x in losses])

    def test_a_bad_class_index_is_named(self, name: str) -> None:
        z, target = batch((12,))
        target[3] = 5
        for build in LOSSES.values():
            for leaf in (z, z.clone().requires_grad_()):
                with pytest.raises(IndexError, match="target must hold class indices from 0 to 4"):
                    build(margin=MARGINS[name]())(leaf, target)


@pytest.mark.parametrize(
    "build", [lambda: sw.LogitAdjustment(COUNTS, 0), lambda: sw.LDAM(COUNTS, 0)]
)
@pytest.mark.parametrize("loss", LOSSES)
def test_without_effect_it_is_the_plain_loss_to_the_last_bit(build: Any, loss: str) -> None:
    assert build().inactive
    for shape, dtype in itertools.product(SHAPES, [torch.bfloat16, torch.float32]):
        z, target = batch(shape)
        z = z.to(dtype)
        assert build()(z, target) is z
        for reduction in ("mean", "sum", "none"):
            ours = LOSSES[loss](margin=build(), reduction=reduction)
            plain = LOSSES[loss](reduction=reduction)
            for our, their in zip(
                value_and_grad(ours, z, target), value_and_grad(plain, z, target), strict=True
            ):
                assert our.equal(their)


@pytest.mark.parametrize("build", [sw.LogitAdjustment, sw.LDAM])
def test_a_class_without_samples_is_an_error_as_target(build: Any) -> None:
    z, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 0])
    criterion = sw.CrossEntropyLoss(margin=build([5, 0, 9]))
    with pytest.raises(ValueError, match="got class 1, whose count is 0"):
        criterion(z, target)
    target[2] = -100
    assert criterion(z, target).isfinite()
    # where it is what is ignored, nobody has it
    ignoring = sw.CrossEntropyLoss(margin=build([5, 0, 9]), ignore_index=1)
    assert ignoring(z, torch.tensor([0, 2, 1, 0])).isfinite()


def test_levels_of_a_hierarchy() -> None:
    tree = sw.Taxonomy(TREE)
    leaf = indices(40)
    levels = tree.level_targets(leaf).unbind(-1)
    z = logits(40, tree.num_levels, tree.num_nodes)
    for build in (sw.LogitAdjustment, sw.LDAM):
        margins = [build.from_targets(level, tree.num_nodes) for level in levels]
        criteria = [sw.CrossEntropyLoss(margin=margin) for margin in margins]
        criterion = sw.HierarchicalLoss(criteria, taxonomy=tree, reduction="none")
        losses, grad = value_and_grad(criterion, z, leaf)
        expected = torch.zeros(40)
        for number, (margin, level) in enumerate(zip(margins, levels, strict=True)):
            has = level != -100
            moved = margin(z[has, number], level[has])
            expected[has] += F.cross_entropy(moved, level[has], reduction="none")
        torch.testing.assert_close(losses, expected)
        assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_levels_keep_the_dtype_of_half_precision(dtype: torch.dtype) -> None:
    tree = sw.Taxonomy(TREE)
    levels = tree.level_targets(indices(12)).unbind(-1)
    margins = [sw.LDAM.from_targets(level, tree.num_nodes) for level in levels]
    criteria = [sw.CrossEntropyLoss(margin=margin) for margin in margins]
    z = logits(12, tree.num_levels, tree.num_nodes).to(dtype)
    assert sw.HierarchicalLoss(criteria, taxonomy=tree)(z, indices(12)).dtype == dtype


def test_a_margin_of_ones_own() -> None:
    class Temperature(sw.Margin):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(
            self, logits: Tensor, target: Tensor | None = None, valid: Tensor | None = None
        ) -> Tensor:
            return logits * self.log_scale.exp()

    margin, (z, target) = Temperature(), batch((12,))
    criterion = sw.CrossEntropyLoss(margin=margin)
    torch.testing.assert_close(criterion(z, target), F.cross_entropy(z, target))
    criterion(z, target).backward()
    expected = torch.autograd.grad(
        F.cross_entropy(z * margin.log_scale.exp(), target), margin.log_scale
    )
    torch.testing.assert_close(margin.log_scale.grad, expected[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_margin_must_be_one(loss: str) -> None:
    with pytest.raises(TypeError, match="margin must be a Margin, got float"):
        LOSSES[loss](margin=0.5)
