from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
import reference
import torch
from properties import (
    falls_with_the_loss,
    loss_does_not_matter,
    mean_weight_is_one,
    order_does_not_matter,
    rises_with_the_loss,
    scale_of_the_loss_does_not_matter,
    twice_the_batch_has_twice_the_weights,
)

import sampleweights as sw
from sampleweights.functional import class_balanced_weights, effective_number_weights

BY_CLASS = {
    order_does_not_matter,
    twice_the_batch_has_twice_the_weights,
    scale_of_the_loss_does_not_matter,
    loss_does_not_matter,
    rises_with_the_loss,
    falls_with_the_loss,
}
CLAIMS = {
    "ClassBalanced": {mean_weight_is_one, *BY_CLASS},
    "ClassBalanced(None)": BY_CLASS,
    "ClassBalanced(power)": {mean_weight_is_one, *BY_CLASS},
    "EffectiveNumber": {mean_weight_is_one, *BY_CLASS},
    "EffectiveNumber(beta)": BY_CLASS,
}

COUNTS = [50, 20, 9, 4, 1]
BOTH = [sw.ClassBalanced, sw.EffectiveNumber]


def test_weights_are_the_functions() -> None:
    target = torch.tensor([4, 0, 2])
    loss = torch.rand(3, dtype=torch.float64)
    assert sw.ClassBalanced(COUNTS)(loss, target).equal(class_balanced_weights(COUNTS)[target])
    weighter = sw.EffectiveNumber(COUNTS, beta=0.99, normalize="classes")
    expected = effective_number_weights(COUNTS, 0.99, "classes")[target]
    assert weighter(loss, target).equal(expected)


@pytest.mark.parametrize("cls", BOTH)
def test_probabilities_get_the_expected_weight(cls: type) -> None:
    weighter = cls(COUNTS)
    target = torch.rand(3, 5, 2, dtype=torch.float64).softmax(1)
    weight = weighter(torch.rand(3, 2, dtype=torch.float64), target)
    expected = (target * weighter.class_weight.reshape(1, 5, 1)).sum(1)
    torch.testing.assert_close(weight, expected)
    # one sample without a batch dimension
    alone = weighter(torch.tensor(1.0, dtype=torch.float64), target[0, :, 0])
    torch.testing.assert_close(alone, expected[0, 0])


@pytest.mark.parametrize("cls", BOTH)
def test_one_hot_probabilities_equal_indices(cls: type) -> None:
    weighter, target = cls(COUNTS), torch.tensor([0, 4, 2])
    loss = torch.rand(3)
    one_hot = torch.nn.functional.one_hot(target, 5).float()
    torch.testing.assert_close(weighter(loss, one_hot), weighter(loss, target))


def test_two_classes_take_binary_targets() -> None:
    weighter = sw.ClassBalanced([30, 10])
    target = torch.tensor([[0, 1], [1, 1]])
    weight = weighter(torch.rand(2, 2), target)
    torch.testing.assert_close(weighter(torch.rand(2, 2), target.float()), weight)
    half = weighter(torch.rand(1), torch.tensor([0.5]))
    torch.testing.assert_close(half, weighter.class_weight.mean().float().reshape(1))


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    "targets",
    [
        [0, 0, 2, -100],
        np.array([[0, 0], [2, -100]]),
        torch.tensor([0, 0, 2, -100], dtype=torch.int16),
    ],
)
def test_from_targets_counts(cls: type, targets: object) -> None:
    assert cls.from_targets(targets).class_counts.tolist() == [2, 0, 1]
    assert cls.from_targets(targets, 5).class_counts.tolist() == [2, 0, 1, 0, 0]
    void = cls.from_targets(np.array([0, 1, 255], np.uint8), ignore_index=255, normalize=None)
    assert void.class_counts.tolist() == [1, 1]
    assert void.normalize is None


@pytest.mark.parametrize("cls", BOTH)
def test_bad_targets_for_from_targets(cls: type) -> None:
    for targets, message in [
        ([0, -1], "from 0 or ignore_index"),
        ([0.0, 1.0], "got dtype torch.float64"),
        ([-100], "at least one class index, got none"),
        ([], "at least one class index, got none"),
        ("ab", "targets must be numbers"),
        (None, "targets must be numbers"),
        ({0: 5, 1: 50}, "got dict: counts go to the constructor"),
        ([torch.tensor([0, 1]), torch.tensor([0.5])], "got dtype torch.float32"),
        ([torch.tensor([0, 1]), torch.tensor([-1])], "from 0 or ignore_index"),
        (iter([]), "at least one class index, got none"),
        ([{"mask": torch.tensor([0])}], r"'labels' or 'target', got \['mask'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            cls.from_targets(targets)
    with pytest.raises(ValueError, match="from 0 to 1 .* got 0 to 2"):
        cls.from_targets([0, 2], 2)


@pytest.mark.parametrize("cls", BOTH)
def test_a_target_without_training_samples_is_an_error_that_names_it(cls: type) -> None:
    weighter = cls([10, 0, 100])
    assert weighter.class_weight[1] == 0
    with pytest.raises(ValueError, match="got class 1, whose count is 0"):
        weighter(torch.rand(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="got class 1"):
        sw.CrossEntropyLoss(weighter=[weighter])(torch.randn(2, 3), torch.tensor([1, 2]))
    fine = weighter(torch.rand(2), torch.tensor([1, 2]), torch.tensor([False, True]))
    assert (fine > 0).tolist() == [False, True]
    # a state with other counts brings its own absent classes
    other = cls([10, 1, 0])
    with pytest.warns(UserWarning, match="class_counts"):
        other.load_state_dict(weighter.state_dict())
    with pytest.raises(ValueError, match="got class 1"):
        other(torch.rand(1), torch.tensor([1]))
    assert other(torch.rand(1), torch.tensor([2])) > 0


def test_a_target_without_training_samples_is_an_error_when_compiled() -> None:
    torch._dynamo.reset()
    weighter = torch.compile(sw.ClassBalanced([10, 0, 100]), fullgraph=True, backend="aot_eager")
    assert weighter(torch.rand(2), torch.tensor([0, 2])).isfinite().all()
    with pytest.raises(RuntimeError, match=r"class_counts 0, one of \[1\]"):
        weighter(torch.rand(2), torch.tensor([0, 1]))


@pytest.mark.parametrize("cls", BOTH)
def test_bad_calls(cls: type) -> None:
    weighter, loss = cls(COUNTS), torch.rand(3)
    with pytest.raises(ValueError, match=f"target must be given for {cls.__name__}, got None"):
        weighter(loss)
    with pytest.raises(ValueError, match=r"shape \(3,\), got torch.int64 \(2,\)"):
        weighter(loss, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"5 classes for this .* got shape \(3, 4\)"):
        weighter(loss, torch.rand(3, 4))
    for bad in (5, -1, -100):
        with pytest.raises(IndexError, match=f"from 0 to 4, got {bad}"):
            weighter(loss, torch.tensor([0, bad, 1]))


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("normalize", ["samples", "classes", None])
def test_a_power_of_the_weights(power: float, normalize: Any) -> None:
    counts = [100, 9, 0, 4, 1]
    for cls, bare in (
        (sw.ClassBalanced, reference.class_balanced(counts)),
        (sw.EffectiveNumber, reference.effective_number(counts)),
    ):
        raised = [Fraction(float(w) ** power) if w else Fraction(0) for w in bare]
        expected = reference.normalized(raised, counts, normalize)
        weighter = cls(counts, normalize=normalize, power=power)
        torch.testing.assert_close(
            weighter.class_weight, torch.tensor([*map(float, expected)]).double()
        )
        assert weighter(torch.ones(1), torch.tensor([1])).item() == pytest.approx(
            float(expected[1])
        )


@pytest.mark.parametrize("cls", BOTH)
def test_a_power_acts_wherever_the_weights_do(cls: type) -> None:
    weighter = cls([90, 10], power=0.5)
    assert weighter.power == 0.5
    whole = cls([90, 10]).class_weight
    ratio = (whole[1] / whole[0]).sqrt()
    torch.testing.assert_close(weighter.class_weight[1] / weighter.class_weight[0], ratio)
    logits = torch.zeros(1, 2, dtype=torch.float64)
    calibrated = weighter.calibrate(logits)[0]
    torch.testing.assert_close(calibrated[0] - calibrated[1], ratio.log())
    of_targets = cls.from_targets([0] * 90 + [1] * 10, power=0.5)
    assert of_targets.class_weight.equal(weighter.class_weight)
    assert repr(of_targets) == f"{cls.__name__}(class_counts=[90, 10], power=0.5)"
    labels = cls([[90, 10], [50, 50]], power=0.5)
    assert labels.class_weight[0].equal(weighter.class_weight)
    torch.testing.assert_close(labels.class_weight[1], torch.ones(2).double())
    other = cls([90, 10])
    with pytest.warns(UserWarning, match="class_weight"):
        other.load_state_dict(weighter.state_dict())
    assert other.class_weight.equal(weighter.class_weight)
    for bad in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="power must be finite and at least 0, got"):
            cls([90, 10], power=bad)


@pytest.mark.parametrize("cls", BOTH)
def test_counts_and_weights_are_saved(cls: type) -> None:
    file = io.BytesIO()
    torch.save(cls(COUNTS).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state["class_counts"].tolist() == COUNTS
    assert state["class_weight"].dtype == torch.float64
    with pytest.raises(RuntimeError, match="size mismatch"):
        cls([1, 2]).load_state_dict(state)


def test_reprs_rebuild_the_call() -> None:
    for text in (
        "ClassBalanced(class_counts=[3, 1])",
        "ClassBalanced(class_counts=[3, 1], normalize=None)",
        "EffectiveNumber(class_counts=[3, 1], beta=0.9, normalize='classes')",
    ):
        assert repr(eval(text, vars(sw))) == text
    assert "(1000 classes)" in repr(sw.ClassBalanced(range(1, 1001)))


def test_targets_in_any_container() -> None:
    pandas = pytest.importorskip("pandas")
    array = np.array([0, 0, 2])
    array.flags.writeable = False
    for targets in (
        pandas.Series([0, 0, 2], index=[5, 6, 7]),
        np.array([2, 0, 0])[::-1],
        array,
        (0, 0, 2),
    ):
        assert sw.ClassBalanced.from_targets(targets).class_counts.tolist() == [2, 0, 1]


@pytest.mark.parametrize("cls", BOTH)
def test_targets_in_pieces(cls: type) -> None:
    masks = [torch.tensor([[0, 0], [2, -100]]), np.array([5, 0], np.uint8), torch.tensor(2)]
    inputs = torch.rand(1)
    for pieces in (
        masks,
        tuple(masks),
        (mask for mask in masks),
        [*masks, torch.tensor([])],  # an image without a label
        [(inputs, mask) for mask in masks],
        [(inputs, "name", mask) for mask in masks],
        [[inputs, mask] for mask in masks],  # what a DataLoader makes of tuples
        [{"pixel_values": inputs, "labels": mask} for mask in masks],
        [{"image": inputs, "target": mask} for mask in masks],
        [(inputs, {"boxes": inputs, "labels": mask}) for mask in masks],
        [[0, 0, 2, -100], [5, 0], [2]],
        [[[0, 0], [2, -100]], [[5, 0]], 2],
        [list(np.array([0, 0, 2])), list(np.array([5, 0, 2]))],
        [("a.png", y) for y in (0, 0, 2, -100, 5, 0, 2)],
        (y for y in (0, 0, 2, -100, 5, 0, 2)),
    ):
        assert cls.from_targets(pieces).class_counts.tolist() == [3, 0, 2, 0, 0, 1]


def test_targets_of_a_loader() -> None:
    target = torch.tensor([0, 1, 1, 3, 0])
    for columns in ((torch.rand(5, 2), target), (target,)):
        data = torch.utils.data.TensorDataset(*columns)
        loader = torch.utils.data.DataLoader(data, batch_size=2)
        for source in (loader, data):
            counts = sw.ClassBalanced.from_targets(source).class_counts
            assert counts.tolist() == [2, 2, 0, 1]


@pytest.mark.parametrize("cls", BOTH)
def test_255_is_a_class_only_on_demand(cls: type) -> None:
    masks = [torch.tensor([0, 1], dtype=torch.uint8), torch.tensor([255, 1], dtype=torch.uint8)]
    for targets in (masks, masks[1]):
        for num_classes in (None, 21):
            with pytest.raises(ValueError, match="ignore_index=255 .* num_classes=256"):
                cls.from_targets(targets, num_classes)
    assert cls.from_targets(masks, ignore_index=255).class_counts.tolist() == [1, 2]
    assert cls.from_targets(masks, 256).class_counts.numel() == 256
    assert cls.from_targets([255, 256]).class_counts.numel() == 257


@pytest.mark.parametrize("cls", BOTH)
def test_settings_of_from_targets_are_the_constructor_s(cls: type) -> None:
    def never() -> object:
        raise AssertionError("a wrong setting is found before the counting")
        yield

    with pytest.raises(TypeError, match="normalise"):
        cls.from_targets(never(), normalise=None)
    with pytest.raises(ValueError, match="normalize must be"):
        cls.from_targets(never(), normalize="sample")
    with pytest.raises(TypeError, match="beta"):
        sw.ClassBalanced.from_targets([0, 1], beta=0.9)
    weighter = sw.EffectiveNumber.from_targets([0, 1], beta=0.9, normalize="classes")
    assert repr(weighter) == ("EffectiveNumber(class_counts=[1, 1], beta=0.9, normalize='classes')")


@pytest.mark.parametrize(
    "make",
    [
        sw.ClassBalanced,
        sw.EffectiveNumber,
        class_balanced_weights,
        effective_number_weights,
    ],
)
def test_counts_by_class(make: Callable[[object], object]) -> None:
    def value(counts: object) -> list[float]:
        made = make(counts)
        weight = made if isinstance(made, torch.Tensor) else made.class_weight  # type: ignore[attr-defined]
        return cast("list[float]", weight.tolist())

    expected = value([5, 50, 0, 20])
    for counts in (
        {1: 50, 3: 20, 0: 5},
        Counter([0] * 5 + [1] * 50 + [3] * 20),
        {np.int64(0): np.int64(5), 1.0: 50.0, True + 1: 0, 3: torch.tensor(20)},
    ):
        assert value(counts) == expected
    for bad, message in [
        ({"cat": 5, "dog": 3}, "keys .* got 'cat'"),
        ({"0": 5, "1": 3}, "keys .* got '0'"),
        ({-100: 5, 0: 3}, "keys .* got -100"),
        ({0.5: 5}, "keys .* got 0.5"),
        ({None: 5}, "keys .* got None"),
        ({float("nan"): 5}, "keys .* got nan"),
        ({float("inf"): 5}, "keys .* got inf"),
        ({(0,): 5}, r"keys .* got \(0,\)"),
        ({}, r"shape \(C,\), got \(0,\)"),
        ({0: 5, 1: -1}, "got -1 for class 1"),
        ({0: 5, 1: "a"}, "class_counts must be numbers"),
        ({0: 0}, "only zeros"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(bad)


def test_counts_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series([0] * 5 + [1] * 50 + [2] * 20)
    for counts in (
        labels.value_counts(),
        labels.astype("Int64").value_counts(),
        labels.astype("category").value_counts(),
        labels.astype(float).value_counts(),
        labels.groupby(labels).size(),
        pandas.Series([5, 50, 20]),
    ):
        assert sw.ClassBalanced(counts).class_counts.tolist() == [5, 50, 20]
    with pytest.raises(ValueError, match="once, got 0 twice"):
        sw.ClassBalanced(pandas.Series([5, 50], index=[0, 0]))
    with pytest.raises(ValueError, match="got 'a'"):
        sw.ClassBalanced(pandas.Series([5, 50], index=["a", "b"]))
    with pytest.raises(ValueError, match="shape"):
        sw.ClassBalanced(pandas.DataFrame({0: [1, 2], 1: [3, 4]}))


@pytest.mark.parametrize("cls", BOTH)
def test_loading_other_counts_warns_and_takes_them(cls: type) -> None:
    saved, built = cls([900, 90, 10]), cls([10, 10, 980])
    with pytest.warns(
        UserWarning,
        match=rf"{cls.__name__}.* \[10, 10, 980\].* \[900, 90, 10\]",
    ) as caught:
        built.load_state_dict(saved.state_dict())
    assert len(caught) == 1
    assert built.class_counts.tolist() == [900, 90, 10]
    assert built.class_weight.equal(saved.class_weight)
    built.load_state_dict(saved.state_dict())  # no warning: they are its own now
    cls([900, 90, 10]).load_state_dict(saved.state_dict())
    nested = torch.nn.Sequential(sw.CrossEntropyLoss(weighter=[cls([1, 2, 3]), sw.OHEM(9)]))
    state = torch.nn.Sequential(sw.CrossEntropyLoss(weighter=[saved, sw.OHEM(9)])).state_dict()
    with pytest.warns(UserWarning, match=r"\[1, 2, 3\]"):
        nested.load_state_dict(state)


def test_loading_weights_of_other_settings_warns() -> None:
    built = sw.EffectiveNumber([9, 1], beta=0.9)
    saved = sw.EffectiveNumber([9, 1], beta=0.5)
    with pytest.warns(UserWarning, match=r"class_weight \[0.6611, 4.0499\].* \[0.9094, 1.8153\]"):
        built.load_state_dict(saved.state_dict())
    assert built.class_weight.equal(saved.class_weight)


@pytest.mark.parametrize("cls", BOTH)
def test_counts_are_a_copy(cls: type) -> None:
    counts = torch.tensor([3, 1])
    first, second = cls(counts), cls(counts)
    counts[0] = 7
    assert first.class_counts.tolist() == second.class_counts.tolist() == [3, 1]
    assert cls(first.class_counts).class_counts.data_ptr() != first.class_counts.data_ptr()


@pytest.mark.parametrize("cls", BOTH)
def test_built_under_inference_mode_it_trains(cls: type) -> None:
    with torch.inference_mode():
        criteria = [
            sw.CrossEntropyLoss(weighter=cls(torch.tensor([9, 1]))),
            sw.CrossEntropyLoss(weighter=cls.from_targets(torch.tensor([0] * 9 + [1]))),
        ]
    for criterion in criteria:
        assert not any(b.is_inference() for b in criterion.buffers())
        criterion.load_state_dict(criterion.state_dict())
        for target in (torch.tensor([0, 1]), torch.tensor([[0.5, 0.5], [0.0, 1.0]])):
            logits = torch.zeros(2, 2, requires_grad=True)
            criterion(logits, target).backward()
            assert logits.grad is not None


@pytest.mark.parametrize("cls", BOTH)
def test_a_multi_label_target_for_other_than_two_classes(cls: type) -> None:
    weighter = cls(COUNTS)
    with pytest.raises(
        ValueError, match=r"two classes.*made for 5.*two counts \[negatives, positives\]"
    ):
        weighter(torch.rand(3, 5), torch.rand(3, 5).round())


def test_probabilities_under_autocast_get_exact_weights() -> None:
    weighter = sw.ClassBalanced([200_000, 9, 1], normalize=None)
    target = torch.tensor([[0.25, 0.25, 0.5]])
    expected = weighter(torch.rand(1), target)
    with torch.autocast("cpu", torch.bfloat16):
        assert weighter(torch.rand(1), target).equal(expected)


def test_a_weight_that_underflows_is_no_absent_class() -> None:
    weighter = sw.EffectiveNumber([10**9, 10, 0], normalize=None)
    weight = weighter(torch.rand(2, dtype=torch.float16), torch.tensor([0, 1]))
    assert weight.isfinite().all()


def test_weights_that_are_kept_follow_what_they_came_from() -> None:
    weighter = sw.ClassBalanced([3, 1])
    logits = torch.zeros(4, 2)
    first = weighter.weight_over(4, logits)
    assert weighter.weight_over(4, logits) is first
    torch.testing.assert_close(weighter.weight_over(8, logits), first / 2)
    assert weighter.weight_over(8, logits.double()).dtype == torch.float64
    weighter.class_weight.mul_(3)  # as load_state_dict changes it
    torch.testing.assert_close(weighter.weight_over(4, logits), 3 * first)
    elsewhere = weighter.weight_over(4, logits.to("meta"))
    assert elsewhere.is_meta
    assert weighter.weight_over(4, logits.to("meta")) is elsewhere
    torch.testing.assert_close(weighter.weight_over(4, logits), 3 * first)
    weighter.class_weight = weighter.class_weight * 2  # as `.to` may
    torch.testing.assert_close(weighter.weight_over(4, logits), 6 * first)
    with torch.inference_mode():
        torch.testing.assert_close(weighter.weight_over(4, logits), 6 * first)


def gaussians(seed: int, size: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes with priors 0.9, 0.09 and 0.01, whose log-odds are linear in the features."""
    generator = torch.Generator().manual_seed(seed)
    priors = torch.tensor([0.9, 0.09, 0.01], dtype=torch.float64)
    target = torch.multinomial(priors, size, replacement=True, generator=generator)
    means = torch.tensor([[0.0, 0.0], [0.7, 0.0], [0.0, 1.0]], dtype=torch.float64)
    noise = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    return means[target] + noise, target


def trained(criterion: torch.nn.Module) -> torch.nn.Module:
    features, target = gaussians(0)
    model = torch.nn.Linear(2, 3, dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(features), target)
        loss.backward()
        return cast(torch.Tensor, loss)

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return model


@pytest.mark.parametrize("build", [lambda c: sw.ClassBalanced(c), lambda c: sw.EffectiveNumber(c)])
def test_calibrate_gives_the_training_distribution_back(build: Callable[..., Any]) -> None:
    weighter = build(gaussians(0)[1].bincount(minlength=3))
    features, target = gaussians(1)
    plain = trained(sw.CrossEntropyLoss())(features).detach()
    weighted = trained(sw.CrossEntropyLoss(weighter=weighter))(features).detach()

    def error(logits: torch.Tensor) -> float:
        return reference.calibration_error(logits.softmax(1).tolist(), target.tolist())

    # at most 1/2 sqrt(n_b) / n in each of the 15 bins
    sampling_error = 0.5 * (15 / len(target)) ** 0.5
    calibrated = weighter.calibrate(weighted)
    assert error(plain) < sampling_error
    assert error(weighted) > 5 * sampling_error
    assert abs(error(calibrated) - error(plain)) < sampling_error
    # how often each class is expected, to four standard errors
    priors = torch.tensor([0.9, 0.09, 0.01], dtype=torch.float64)
    deviation = (calibrated.softmax(1).mean(0) - priors).abs()
    assert (deviation < 4 * (2 * priors * (1 - priors) / len(target)).sqrt()).all()


@pytest.mark.parametrize("cls", BOTH)
def test_calibrate_divides_the_odds_by_the_weights(cls: type) -> None:
    weighter = cls(COUNTS)
    generator = torch.Generator().manual_seed(0)
    for shape in ((5,), (3, 5), (3, 5, 2, 4), (0, 5)):
        logits = torch.randn(shape, dtype=torch.float64, generator=generator)
        dim = min(len(shape) - 1, 1)
        weight = weighter.class_weight.reshape([-1] + [1] * (len(shape) - 1 - dim))
        odds = logits.exp() / weight
        expected = odds / odds.sum(dim, keepdim=True)
        torch.testing.assert_close(weighter.calibrate(logits).softmax(dim), expected)
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            rounded = logits.to(dtype)
            calibrated = weighter.calibrate(rounded)
            assert calibrated.dtype == torch.float32
            wanted = rounded.double() - weight.log()
            torch.testing.assert_close(calibrated, wanted.float())


def test_calibrate_passes_the_gradient_on() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    sw.ClassBalanced(COUNTS).calibrate(logits).sum().backward()
    assert logits.grad is not None
    assert (logits.grad == 1).all()


@pytest.mark.parametrize("cls", BOTH)
def test_calibrate_of_a_class_without_samples(cls: type) -> None:
    calibrated = cls([5, 0, 3]).calibrate(torch.zeros(2, 3))
    assert calibrated.isneginf().tolist() == [[False, True, False]] * 2
    assert (calibrated.softmax(1)[:, 1] == 0).all()


@pytest.mark.parametrize("cls", BOTH)
def test_calibrate_errors(cls: type) -> None:
    for shape in ((5, 3), (3,), ()):
        with pytest.raises(ValueError, match=r"was made for 5 classes, logits have [30]"):
            cls(COUNTS).calibrate(torch.zeros(shape))
    with pytest.raises(TypeError, match="logits must be floating, got dtype torch.int64"):
        cls(COUNTS).calibrate(torch.zeros(2, 5, dtype=torch.long))


@pytest.mark.parametrize("cls", BOTH)
def test_calibrate_of_one_logit_divides_the_odds(cls: type) -> None:
    weighter = cls([900, 100])
    ratio = (weighter.class_weight[1] / weighter.class_weight[0]).item()
    for shape in ((), (1,), (2,), (5,), (4, 1), (2, 1, 3)):
        logits = torch.randn(shape, dtype=torch.float64)
        odds = weighter.calibrate(logits).exp()
        torch.testing.assert_close(odds, logits.exp() / ratio)
        for dtype in (torch.float16, torch.bfloat16):
            assert weighter.calibrate(logits.to(dtype)).dtype == torch.float32
    both = torch.stack([torch.zeros(5), torch.arange(5.0)], 1)
    of_classes = weighter.calibrate(both).softmax(1)[:, 1]
    torch.testing.assert_close(weighter.calibrate(torch.arange(5.0)).sigmoid(), of_classes)
    assert cls([5, 0]).calibrate(torch.zeros(3)).isneginf().all()
    assert cls([0, 5]).calibrate(torch.zeros(3)).isposinf().all()


@pytest.mark.parametrize("cls", BOTH)
def test_calibrate_of_labels(cls: type) -> None:
    counts = [[90, 10], [5, 15], [7, 7]]
    logits = torch.randn(4, 3, 2, dtype=torch.float64)
    calibrated = cls(counts).calibrate(logits)
    for label, of_label in enumerate(counts):
        expected = cls(of_label).calibrate(logits[:, label].flatten())
        torch.testing.assert_close(calibrated[:, label].flatten(), expected)
    with pytest.raises(ValueError, match=r"made for 3 labels, logits .* \(N, 3, ...\), got \(3,\)"):
        cls(counts).calibrate(torch.zeros(3))


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("normalize", ["samples", "classes", None])
def test_weights_of_labels_are_those_of_each_label(cls: type, normalize: Any) -> None:
    counts = [[90, 10], [5, 15], [7, 0]]
    weights = cls(counts, normalize=normalize).class_weight
    for weight, of_label in zip(weights, counts, strict=True):
        assert weight.equal(cls(of_label, normalize=normalize).class_weight)
    weighter, loss = cls(counts), torch.zeros(2, 3)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    weight = weighter(loss, torch.tensor([[0, 1, 0], [1, 0, -100]]), valid)
    assert weight[1, 2] == 0
    with pytest.raises(ValueError, match="no negatives, got 1"):
        weighter(loss, torch.tensor([[0, 1, 1], [1, 0, 0]]))
    expected = [[weighter.class_weight[0, 0], weighter.class_weight[1, 1]]]
    assert weight[:1, :2].tolist() == [pytest.approx([w.item() for w in expected[0]])]


def test_a_small_weight_beside_a_large_one_keeps_its_digits() -> None:
    weighter = sw.ClassBalanced([1, 10**7])
    for target in (torch.tensor([0.0, 1.0]), torch.tensor([0, 1])):
        weight = weighter(torch.zeros(2), target)
        assert weight.tolist() == pytest.approx([(10**7 + 1) / 2, (10**7 + 1) / 2e7])
