from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import sampleweights as sw
from sampleweights.functional import class_balanced_weights, effective_number_weights

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


def test_a_weight_that_underflows_is_no_absent_class() -> None:
    weighter = sw.EffectiveNumber([10**9, 10, 0], normalize=None)
    weight = weighter(torch.rand(2, dtype=torch.float16), torch.tensor([0, 1]))
    assert weight.isfinite().all()
