"""The Triton kernels against the reference: on a GPU, or in Triton's interpreter without one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
import reference
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import sampleweights as sw
from sampleweights.functional import reference as in_torch
from sampleweights.functional import softmax

kernels = pytest.importorskip("sampleweights.functional.kernels", exc_type=ImportError)
# a GPU divides by zero without a word, and so do the kernels, in what tl.where then leaves out
pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::DeprecationWarning:triton"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SHAPES = [(5, 3), (3, 2, 7), (2, 19, 4, 5), (2, 9000), (130, 5)]


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=generator)).to(DEVICE, dtype)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target.view(-1)[1] = -100
    return logits, target.to(DEVICE)


def both(logits: Tensor, target: Tensor, gamma: float, smoothing: float, grad: Tensor) -> Any:
    results = []
    for fused in (True, False):
        leaf = logits.clone(memory_format=torch.preserve_format).requires_grad_()
        if fused:
            loss = kernels.softmax_loss(leaf, target, gamma, -100, smoothing)
        else:
            loss = in_torch.softmax_loss_reference(
                leaf.float(), target, gamma, None, -100, smoothing
            )
        loss.backward(grad)
        results += [loss.detach(), leaf.grad]
    return results


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equal_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits, target = batch(shape, dtype)
    grad = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    grad.view(-1)[::3] = 0  # dropped by a weighter
    for gamma, smoothing in itertools.product((0.0, 0.5, 2.0), (0.0, 0.1)):
        loss, gradient, expected, expected_gradient = both(logits, target, gamma, smoothing, grad)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        assert gradient.dtype == dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {}
        torch.testing.assert_close(gradient, expected_gradient, **tolerance)
        assert (gradient.movedim(1, -1)[(target == -100) | (grad == 0)] == 0).all()


def test_any_strides() -> None:
    logits, target = batch((2, 5, 4, 3))
    grad = torch.ones(target.shape, device=DEVICE)
    expected = both(logits, target, 2.0, 0.0, grad)[:2]
    for other in (
        logits.to(memory_format=torch.channels_last),
        logits.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        torch.stack([logits, logits], -1)[..., 0],
    ):
        loss, gradient = both(other, target, 2.0, 0.0, grad)[:2]
        torch.testing.assert_close(loss, expected[0])
        torch.testing.assert_close(gradient, expected[1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_many_blocks_of_samples_and_classes(smoothing: float) -> None:
    """CUDA allows 65,535 blocks in the second dimension of a grid: 2.1 million classes."""
    logits, target = batch((300, 70))
    logits = logits.t().contiguous().t()  # 3 blocks of samples by 3 of classes
    grad = torch.rand(300, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    loss, gradient, expected, expected_gradient = both(logits, target, 2.0, smoothing, grad)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_the_grid_has_one_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[Any] = []

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            grids.append(grid)
            return lambda *args, **kwargs: None

    monkeypatch.setattr(kernels, "_backward_kernel", Kernel())
    logits = torch.zeros(2_200_000, 2, device=DEVICE).t()
    target, grad = torch.zeros(2, dtype=torch.int64, device=DEVICE), torch.ones(2, device=DEVICE)
    kernels._backward(logits, target, torch.zeros(3, 2), grad, 2.0, -100, 0.0)
    assert grids == [(2_200_000 // 32,)]


@pytest.mark.parametrize("gamma", [0.01, 0.5, 1.0, 2.0, 5.0])
def test_smoothing_of_saturated_samples(gamma: float) -> None:
    """At p_t = 1 smoothing leaves a loss to divide by 1 - p_t = 0."""
    for gap in (5.0, 20.0, 40.0, 60.0, 86.0, 95.0, 103.0, 1000.0, 1e9, 1e30):
        leaf = torch.tensor([[gap, 0.0, -1.0]], device=DEVICE, requires_grad=True)
        loss = kernels.softmax_loss(leaf, torch.tensor([0], device=DEVICE), gamma, -100, 0.1)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert leaf.grad.isfinite().all(), gap
        if gap > 60:
            continue
        exact = leaf.detach().double().requires_grad_()
        log_p = exact.log_softmax(1)[0]
        others = torch.exp(exact[0, 1:].logsumexp(0) - exact.logsumexp(1))  # all digits of 1 - p
        (others**gamma * -(0.9 * log_p[0] + 0.1 * log_p.mean())).backward()
        torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_every_digit_of_saturated_samples(gamma: float) -> None:
    """Where float32 log-probabilities have lost 1 - p, the other classes still have it."""
    for gap in (1.0, 5.0, 12.0, 17.0, 40.0):
        row = [gap, 0.0, -1.0]
        leaf = torch.tensor([row], device=DEVICE, requires_grad=True)
        loss = kernels.softmax_loss(leaf, torch.tensor([0], device=DEVICE), gamma, -100, 0.0)
        loss.sum().backward()
        assert loss.item() == pytest.approx(reference.focal(row, 0, gamma), rel=1e-5)
        h = 1e-3
        slope = (
            reference.focal([gap + h, 0.0, -1.0], 0, gamma)
            - reference.focal([gap - h, 0.0, -1.0], 0, gamma)
        ) / (2 * h)
        assert leaf.grad[0, 0].item() == pytest.approx(slope, rel=1e-4)


def test_infinite_logits_are_as_torch_has_them() -> None:
    inf = float("inf")
    logits = torch.tensor(
        [[-inf, 0.0, 1.0], [0.0, -inf, 1.0], [-inf] * 3, [inf, 0.0, 0.0], [0.0, float("nan"), 0.0]],
        device=DEVICE,
    )
    target = torch.tensor([0, 0, 1, 0, 0], device=DEVICE)
    for gamma in (0.0, 0.5, 2.0):
        grad = torch.ones(5, device=DEVICE)
        loss, gradient, expected, expected_gradient = both(logits, target, gamma, 0.0, grad)
        torch.testing.assert_close(loss, expected, equal_nan=True)
        torch.testing.assert_close(gradient[:2], expected_gradient[:2])


def test_a_class_that_does_not_exist_gives_nan() -> None:
    loss = kernels.softmax_loss(
        torch.zeros(3, 4, device=DEVICE), torch.tensor([0, 4, -1], device=DEVICE), 2.0, -100, 0.0
    )
    assert loss.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_second_derivatives(gamma: float) -> None:
    logits, target = batch((4, 3))
    hessians = []
    for softmax_loss in (
        lambda x: kernels.softmax_loss(x, target, gamma, -100, 0.0),
        lambda x: in_torch.softmax_loss_reference(x, target, gamma, None, -100, 0.0),
    ):
        leaf = logits.clone().requires_grad_()
        [first] = torch.autograd.grad(softmax_loss(leaf).sum(), leaf, create_graph=True)
        hessians.append(torch.autograd.grad((first**2).sum(), leaf)[0])
    torch.testing.assert_close(*hessians)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_many_gradients_at_once(gamma: float, create_graph: bool) -> None:
    logits, target = batch((4, 3))
    grads = torch.eye(4, device=DEVICE)
    results = []
    for softmax_loss in (
        lambda x: kernels.softmax_loss(x, target, gamma, -100, 0.0),
        lambda x: in_torch.softmax_loss_reference(x, target, gamma, None, -100, 0.0),
    ):
        leaf = logits.clone().requires_grad_()
        loss = softmax_loss(leaf)
        [jacobian] = torch.autograd.grad(
            loss, leaf, grads, is_grads_batched=True, create_graph=create_graph
        )
        assert jacobian.requires_grad == create_graph
        results.append(jacobian.detach())
    torch.testing.assert_close(*results)


def test_numbers_may_come_in_tensors() -> None:
    """Triton takes a tensor for a pointer."""
    logits, target = batch((4, 3))
    expected = kernels.softmax_loss(logits, target, 2.0, -100, 0.1)
    numbers = torch.tensor(2.0), torch.tensor(-100), torch.tensor(0.1)
    torch.testing.assert_close(kernels.softmax_loss(logits, target, *numbers), expected)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The gammas of the calls of the kernels, which take any device for a GPU."""
    calls: list[float] = []
    original = kernels.softmax_loss
    monkeypatch.setattr(
        kernels, "softmax_loss", lambda *args: calls.append(args[2]) or original(*args)
    )
    monkeypatch.setattr(softmax, "_on_one_gpu", lambda logits, target: True)
    softmax._kernels_work.cache_clear()
    return calls


LARGE = (2**20 // 1024, 1024)


def focal_of(logits: Tensor) -> Tensor:
    return sw.functional.focal_loss(logits, torch.zeros_like(logits[:, 0], dtype=torch.int64))


def test_large_plain_tensors_take_them(calls: list[float]) -> None:
    logits, target = batch(LARGE)
    loss = sw.functional.focal_loss(logits, target, torch.tensor(2.0))
    torch.testing.assert_close(loss, sw.functional.focal_loss(logits.double(), target).float())
    sw.functional.focal_loss(logits[1:], target[1:])
    assert calls == [2.0]
    assert type(calls[0]) is float


class Subclass(Tensor):
    pass


def under_a_mode(logits: Tensor) -> None:
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Mode():
        focal_of(logits)


def with_a_tangent(logits: Tensor) -> None:
    with forward_ad.dual_level():
        loss = focal_of(forward_ad.make_dual(logits, torch.ones_like(logits)))
        assert forward_ad.unpack_dual(loss).tangent is not None


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)
@pytest.mark.parametrize(
    "call",
    [
        lambda logits: focal_of(logits.as_subclass(Subclass)),
        lambda logits: focal_of(FakeTensorMode().from_tensor(logits)),
        lambda logits: focal_of(logits.to("meta")),
        lambda logits: focal_of(torch.complex(logits, logits).conj().imag),  # negated lazily
        lambda logits: make_fx(focal_of)(logits),
        lambda logits: make_fx(focal_of, pre_dispatch=True)(logits),
        lambda logits: make_fx(focal_of, tracing_mode="symbolic")(logits),
        lambda logits: torch.jit.trace(focal_of, logits, check_trace=False),
        lambda logits: torch.func.vmap(focal_of)(torch.stack([logits, logits])),
        lambda logits: torch.func.grad(lambda x: focal_of(x).sum())(logits),
        lambda logits: torch.func.jvp(focal_of, (logits,), (logits,)),
        with_a_tangent,
        under_a_mode,
    ],
)
def test_others_do_not(calls: list[float], call: Any) -> None:
    logits, _ = batch(LARGE)
    call(logits)
    assert calls == []


def test_exported_code_has_no_guard_on_the_size(calls: list[float]) -> None:
    class Loss(torch.nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return sw.functional.focal_loss(logits, target)

    batch_size = torch.export.Dim("batch_size", min=2)
    program = torch.export.export(
        Loss(), batch(LARGE), dynamic_shapes=({0: batch_size}, {0: batch_size})
    )
    logits, target = batch((5, 1024))
    expected = sw.functional.focal_loss(logits, target)
    torch.testing.assert_close(program.module()(logits, target), expected)
    assert calls == []


def test_tensors_on_two_devices_do_not() -> None:
    logits, target = batch(LARGE)
    assert not softmax._on_one_gpu(logits.cpu(), target.cpu())
    assert not softmax._on_one_gpu(logits, target.to("meta"))


def test_without_a_compiler_torch_computes(
    calls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        tried.append(args)
        raise RuntimeError("Failed to find C compiler.\nSecond line")

    tried: list[object] = []
    monkeypatch.setattr(kernels, "try_out", fail)
    logits, target = batch(LARGE)
    with pytest.warns(RuntimeWarning, match=r"RuntimeError: Failed to find C compiler.\)$"):
        loss = sw.functional.focal_loss(logits, target)
    sw.functional.focal_loss(logits, target)  # without another warning, which is an error here
    assert calls == []
    assert len(tried) == 1
    torch.testing.assert_close(loss, sw.functional.focal_loss(logits.double(), target).float())


def test_without_triton_torch_computes(calls: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sw.functional.focal_loss(*batch(LARGE))
    assert calls == []


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "FocalLoss"])
@pytest.mark.parametrize("class_weight", [False, True])
@pytest.mark.parametrize("weighter", [None, sw.OHEM(schedule=0.4), sw.ClassBalanced([5, 3, 1])])
def test_criteria_use_them(
    monkeypatch: pytest.MonkeyPatch, loss: str, class_weight: bool, weighter: Any
) -> None:
    logits, target = batch((9, 3))
    weight = torch.tensor([1.0, 2.0, 0.5], device=DEVICE) if class_weight else None
    calls: list[float] = []
    original = kernels.softmax_loss
    monkeypatch.setattr(
        kernels, "softmax_loss", lambda *args: calls.append(args[2]) or original(*args)
    )
    # on a CPU so few samples have a way of their own, which asks for no kernel
    monkeypatch.setattr(sw.losses.softmax, "loss_of_few", lambda *args: None)
    for reduction in ("mean", "weighted_mean", "sum", "none"):
        results = []
        for fused in (True, False):
            for module in (softmax, sw.losses.softmax):
                monkeypatch.setattr(module, "has_kernel", lambda *args, fused=fused: fused)
            criterion = getattr(sw, loss)(weight=weight, weighter=weighter, reduction=reduction)
            leaf = logits.clone().requires_grad_()
            value = criterion.to(DEVICE)(leaf, target)
            value.sum().backward()
            results.append((value.detach(), leaf.grad))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)
    assert len(calls) == 4


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from sampleweights.functional import kernels

floats, constants = {"gamma", "smoothing"}, {"FOCAL": True, "SMOOTH": True}
pointers = {"logits": "bf16", "grad_logits": "bf16", "target": "i64"}
pointers |= dict.fromkeys(["loss", "stats", "grad_loss"], "fp32")
# a 1 is compiled in, and what passes 2**31 comes as int64
ONE, WIDE = {"num_rows", "inner", "stride_n", "stride_s"}, {"num_rows", "num_classes", "stride_n"}
for tile, ones, wide in (
    ({"ROWS": 128, "COLS": 32}, (), ()),
    ({"ROWS": 1, "COLS": 8192}, (), WIDE),
    ({"ROWS": 128, "COLS": 2}, ONE, ()),
):
    for kernel in (kernels._forward_kernel, kernels._backward_kernel):
        ones_here = {name: 1 for name in ones}
        types = {
            name: "constexpr" if name.isupper() or name in ones
            else f"*{pointers[name]}" if name in pointers
            else "fp32" if name in floats
            else "i64" if name in wide
            else "i32"
            for name in kernel.arg_names
        }
        compiled = compile(
            ASTSource(kernel, types, {**constants, **tile, **ones_here}),
            target=GPUTarget("cuda", 90, 32),
        )
        print(len(compiled.asm["cubin"]))
"""


def test_compile_for_a_gpu_that_is_not_here() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 6
