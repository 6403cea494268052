from __future__ import annotations

import math

import pytest
import reference
import torch
from torch import nn

import sampleweights as sw

TREE = {"m": ["MEL", "NV"], "n": {"b": ["BKL", "DF", "VASC"], "c": ["BCC", "AKIEC"]}}


def tree() -> sw.Taxonomy:
    return sw.Taxonomy(TREE)


def batch(size: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, 3, 11, generator=generator, dtype=torch.float64)
    return logits, torch.randint(7, (size,), generator=generator)


def test_equals_eq_10() -> None:
    taxonomy, (logits, leaf) = tree(), batch()
    losses = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=taxonomy, reduction="none")
    for sample, value in enumerate(losses(logits, leaf).tolist()):
        path = [node for node in taxonomy.paths[leaf[sample]].tolist() if node >= 0]
        assert len(path) == (2 if leaf[sample] < 2 else 3)
        expected = math.fsum(
            reference.cross_entropy(logits[sample, level].tolist(), node)
            for level, node in enumerate(path)
        )
        assert value == pytest.approx(expected, rel=1e-12)


def test_level_targets_and_a_sequence_of_logits_are_the_same_thing() -> None:
    taxonomy, (logits, leaf) = tree(), batch()
    expected = sw.HierarchicalLoss(sw.FocalLoss(), taxonomy=taxonomy)(logits, leaf)
    levels = taxonomy.level_targets(leaf)
    without = sw.HierarchicalLoss(sw.FocalLoss())
    assert without(logits, levels).equal(expected)
    assert without(list(logits.unbind(1)), levels).equal(expected)
    assert sw.HierarchicalLoss([sw.FocalLoss()] * 3)(logits, levels).equal(expected)


def test_levels_of_different_widths() -> None:
    logits = [torch.randn(4, 2), torch.randn(4, 5)]
    target = torch.tensor([[0, 1], [1, 4], [0, -100], [1, 2]])
    value = sw.HierarchicalLoss(nn.CrossEntropyLoss(reduction="none"))(logits, target)
    first = nn.functional.cross_entropy(logits[0], target[:, 0], reduction="sum")
    second = nn.functional.cross_entropy(logits[1], target[:, 1], reduction="sum")
    torch.testing.assert_close(value, (first + second) / 4)


def test_the_weighter_sees_the_summed_loss_and_the_leaf() -> None:
    taxonomy, (logits, leaf) = tree(), batch()
    leaf[3] = -100
    plain = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=taxonomy, reduction="none")
    losses = plain(logits, leaf)
    assert losses[3] == 0
    weighter = sw.Compose([sw.ClassBalanced([7, 6, 5, 4, 3, 2, 1]), sw.OHEM(schedule=0.5)])
    weight = weighter(losses, leaf, leaf != -100)
    criterion = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=taxonomy, weighter=weighter)
    torch.testing.assert_close(criterion(logits, leaf), (weight * losses).sum() / 9)
    levels = taxonomy.level_targets(leaf)
    without = sw.HierarchicalLoss(sw.CrossEntropyLoss(), weighter=weighter)
    given = without(logits, levels, leaf_target=leaf)
    torch.testing.assert_close(given, criterion(logits, leaf))
    with pytest.raises(ValueError, match="leaf_target must be given without a taxonomy"):
        without(logits, levels)
    with pytest.raises(ValueError, match="made for 3 classes, logits have 7"):
        sw.HierarchicalLoss(
            sw.CrossEntropyLoss(), taxonomy=taxonomy, weighter=sw.ClassBalanced([1, 2, 3])
        )(logits, leaf)


def test_levels_may_have_weighters_and_other_losses_of_their_own() -> None:
    taxonomy, (logits, leaf) = tree(), batch()
    levels = taxonomy.level_targets(leaf)
    parts = [
        sw.FocalLoss(1.0, weighter=sw.OHEM(schedule=0.5)),
        sw.CrossEntropyLoss(ignore_index=-1, reduction="sum"),
        nn.CrossEntropyLoss(reduction="none"),
    ]
    losses = sw.HierarchicalLoss(parts, taxonomy=taxonomy, reduction="none")(logits, leaf)
    expected = sw.FocalLoss(1.0, weighter=sw.OHEM(schedule=0.5), reduction="none")(
        logits[:, 0], levels[:, 0]
    )
    for level in (1, 2):
        expected = expected + nn.functional.cross_entropy(
            logits[:, level], levels[:, level], reduction="none"
        )
    torch.testing.assert_close(losses, expected)


def test_criteria_without_an_ignore_index_leave_missing_levels_out_all_the_same() -> None:
    taxonomy, (logits, leaf) = tree(), batch()

    def smooth_l1(level_logits, target):
        one_hot = nn.functional.one_hot(target, 11).double()
        return nn.functional.smooth_l1_loss(level_logits, one_hot, reduction="none").sum(1)

    losses = sw.HierarchicalLoss(smooth_l1, taxonomy=taxonomy, reduction="none")(logits, leaf)
    levels = taxonomy.level_targets(leaf)
    for sample, value in enumerate(losses):
        expected = sum(
            smooth_l1(logits[sample : sample + 1, level], node[None])
            for level, node in enumerate(levels[sample])
            if node >= 0
        )
        torch.testing.assert_close(value, expected[0])


def test_level_weighters_count_only_samples_that_have_the_level() -> None:
    taxonomy, (logits, leaf) = tree(), batch()
    level = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    losses = sw.HierarchicalLoss([nn.CrossEntropyLoss(reduction="none")] * 2 + [level],
                                 taxonomy=taxonomy, reduction="none")(logits, leaf)  # fmt: skip
    rest = sw.HierarchicalLoss([nn.CrossEntropyLoss(reduction="none")] * 2)(
        logits[:, :2], taxonomy.level_targets(leaf)[:, :2]
    )
    has_third = int((leaf >= 2).sum())
    third = sw.CrossEntropyLoss(reduction="sum", weighter=sw.OHEM(schedule=0.5))(
        logits[leaf >= 2, 2], taxonomy.level_targets(leaf)[leaf >= 2, 2]
    )
    assert 0 < has_third < 10
    torch.testing.assert_close(losses.sum() - rest * 10, third)


def test_dense_targets() -> None:
    taxonomy = tree()
    logits = torch.randn(2, 3, 11, 4, 5)
    leaf = torch.randint(7, (2, 4, 5))
    leaf[0, 0] = -100
    value = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=taxonomy)(logits, leaf)
    flat = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=taxonomy)(
        logits.movedim((3, 4), (1, 2)).reshape(-1, 3, 11), leaf.reshape(-1)
    )
    torch.testing.assert_close(value, flat)


def test_all_ignored() -> None:
    logits, leaf = batch()
    logits.requires_grad_()
    value = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=tree())(logits, leaf.fill_(-100))
    assert value == 0
    value.backward()
    assert (logits.grad == 0).all()


def test_bad_arguments() -> None:
    taxonomy, (logits, leaf) = tree(), batch()
    ce = sw.CrossEntropyLoss()
    for args, kwargs, error, message in [
        (([],), {}, ValueError, "got an empty list"),
        (([ce, ce],), {"taxonomy": taxonomy}, ValueError, "one loss per level .* 3, got 2"),
        ((nn.CrossEntropyLoss(),), {}, ValueError, "reduction='none'"),
        (("ce",), {}, TypeError, "criterion must be"),
        ((ce,), {"taxonomy": TREE}, TypeError, "taxonomy must be a Taxonomy, got dict"),
        (
            (sw.CrossEntropyLoss(ignore_index=0),),
            {"taxonomy": taxonomy},
            ValueError,
            "ignore_index that is no node of the taxonomy, got 0",
        ),
    ]:
        with pytest.raises(error, match=message):
            sw.HierarchicalLoss(*args, **kwargs)
    with_tree, without = sw.HierarchicalLoss(ce, taxonomy=taxonomy), sw.HierarchicalLoss(ce)
    levels = taxonomy.level_targets(leaf)
    for criterion, args, kwargs, error, message in [
        (with_tree, (logits[:, :2], leaf), {}, ValueError, "3 levels of 11 nodes .* got 2 levels"),
        (with_tree, (logits[..., :9], leaf), {}, ValueError, "3 levels of 11 nodes"),
        (with_tree, (logits, leaf + 7), {}, IndexError, "from 0 to 6 or ignore_index"),
        (with_tree, (logits, leaf), {"leaf_target": leaf}, ValueError, "leaf_target must be None"),
        (without, (logits, leaf), {}, ValueError, r"shape \(N, 3, ...\), got torch.int64 \(10,\)"),
        (without, (logits[0], levels), {}, ValueError, r"sequence of L tensors, got shape"),
        (without, ([], levels), {}, ValueError, "at least one level, got none"),
        (without, (logits, levels), {"leaf_target": leaf[:2]}, ValueError, r"\(10,\), got \(2,\)"),
        (sw.HierarchicalLoss([ce] * 2), (logits, levels), {}, ValueError, "criterion, 2, got 3"),
    ]:
        with pytest.raises(error, match=message):
            criterion(*args, **kwargs)
