from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import sampleweights as sw

LESIONS = {
    "melanocytic": ["MEL", "NV"],
    "non-melanocytic": {"benign": ["BKL", "DF", "VASC"], "malignant": ["BCC", "AKIEC"]},
}
CLASSES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
PATHS = [  # by hand, in the order of CLASSES
    ["melanocytic", "MEL"],
    ["melanocytic", "NV"],
    ["non-melanocytic", "malignant", "BCC"],
    ["non-melanocytic", "malignant", "AKIEC"],
    ["non-melanocytic", "benign", "BKL"],
    ["non-melanocytic", "benign", "DF"],
    ["non-melanocytic", "benign", "VASC"],
]


def lesions() -> sw.Taxonomy:
    return sw.Taxonomy(LESIONS, CLASSES)


def test_the_papers_tree() -> None:
    tree = lesions()
    assert (tree.num_nodes, tree.num_leaves, tree.num_levels) == (11, 7, 3)
    assert tree.leaves == tuple(CLASSES)
    for leaf, path in enumerate(PATHS):
        ids = tree.level_targets(torch.tensor(leaf)).tolist()
        assert [tree.nodes[i] for i in ids if i >= 0] == path
        assert ids[len(path) :] == [-100] * (3 - len(path))


def test_nodes_are_numbered_level_by_level() -> None:
    assert lesions().nodes[:6] == (
        "melanocytic", "non-melanocytic", "MEL", "NV", "benign", "malignant",
    )  # fmt: skip


def test_a_list_of_paths_is_the_same_tree() -> None:
    by_paths = sw.Taxonomy(PATHS, CLASSES)
    assert sorted(by_paths.nodes) == sorted(lesions().nodes)
    for leaf in range(7):
        names = [
            [tree.nodes[i] for i in tree.level_targets(torch.tensor(leaf)) if i >= 0]
            for tree in (by_paths, lesions())
        ]
        assert names[0] == names[1]


def test_mappings_may_end_in_none_or_nothing() -> None:
    tree = sw.Taxonomy({"a": {"x": None, "y": {}}, "b": None})
    assert tree.leaves == ("x", "y", "b")
    assert tree.nodes == ("a", "b", "x", "y")


def test_level_targets_of_any_shape_with_ignored_leaves() -> None:
    tree = lesions()
    target = torch.tensor([[0, -100], [6, 2]], dtype=torch.int32)
    levels = tree.level_targets(target)
    assert levels.shape == (2, 2, 3)
    assert levels[0, 1].tolist() == [-100] * 3
    assert tree.nodes[levels[1, 0, 2]] == "VASC"


def test_leaf_probabilities_are_products_of_softmaxes_among_siblings() -> None:
    tree = lesions()
    logits = torch.randn(4, 3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    number = {name: node for node, name in enumerate(tree.nodes)}
    siblings = [
        ["melanocytic", "non-melanocytic"], ["MEL", "NV"], ["benign", "malignant"],
        ["BKL", "DF", "VASC"], ["BCC", "AKIEC"],
    ]  # fmt: skip
    log_probs = tree.leaf_log_probs(logits)
    assert log_probs.shape == (4, 7)
    for sample in range(4):
        for leaf, path in enumerate(PATHS):
            expected = 1.0
            for level, name in enumerate(path):
                scores = {
                    s: math.exp(logits[sample, level, number[s]])
                    for s in next(group for group in siblings if name in group)
                }
                expected *= scores[name] / sum(scores.values())
            assert log_probs[sample, leaf].exp().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_leaf_probabilities_sum_to_one(scale: float) -> None:
    logits = scale * torch.randn(50, 3, 11, generator=torch.Generator().manual_seed(0))
    total = lesions().leaf_log_probs(logits).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(50))


def test_leaf_log_probs_have_right_gradients() -> None:
    tree = sw.Taxonomy({"a": ["x", "y"], "b": {"c": ["z"]}})
    logits = torch.randn(2, 3, tree.num_nodes, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tree.leaf_log_probs, (logits,))


def test_an_only_child_has_probability_one_whatever_its_logit() -> None:
    tree = sw.Taxonomy({"a": ["x", "y"], "b": {"c": ["z"]}})
    for infinite in (-math.inf, math.inf):
        logits = torch.zeros(1, 3, tree.num_nodes)
        logits[0, 1, tree.nodes.index("c")] = infinite
        logits[0, 2, tree.nodes.index("z")] = infinite
        logits.requires_grad_()
        log_probs = tree.leaf_log_probs(logits)
        torch.testing.assert_close(log_probs.exp(), torch.tensor([[0.25, 0.25, 0.5]]))
        log_probs[0, 2].backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
    single = sw.Taxonomy([["only"]])
    assert single.leaf_log_probs(torch.full((1, 1, 1), -math.inf)).item() == 0
    assert single.leaf_log_probs(torch.full((1, 1, 1), math.nan)).isnan().all()


def test_a_sibling_of_logit_minus_infinity_has_probability_zero() -> None:
    tree = sw.Taxonomy({"a": ["x", "y"], "b": {"c": ["z"]}})
    logits = torch.zeros(1, 3, tree.num_nodes)
    logits[0, 0, tree.nodes.index("b")] = -math.inf
    assert tree.leaf_log_probs(logits).exp().tolist() == [[0.5, 0.5, 0.0]]


def test_built_in_inference_mode_it_trains() -> None:
    with torch.inference_mode():
        tree = lesions()
    logits = torch.randn(2, 3, 11, requires_grad=True)
    tree.leaf_log_probs(logits).sum().backward()
    assert logits.grad is not None


def test_a_large_tree_is_handled_without_a_nodes_by_nodes_table() -> None:
    tree = sw.Taxonomy({f"g{i}": [f"g{i}s{j}" for j in range(100)] for i in range(200)})
    log_probs = tree.leaf_log_probs(torch.randn(2, 2, tree.num_nodes))
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(2))


def test_it_copies_and_has_no_state() -> None:
    tree = lesions()
    assert not tree.state_dict()
    for other in (copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
        assert other.paths.equal(tree.paths)
    assert "MEL" in repr(tree)


@pytest.mark.parametrize(
    ("tree", "leaves", "message"),
    [
        ({}, None, "at least one leaf"),
        ([], None, "at least one leaf"),
        ("abc", None, "got 'abc'"),
        ({"a": "xy"}, None, "got 'xy'"),
        ([["a", "x"], ["a", "x"]], None, r"\['a', 'x'\] again"),
        ([["a"], ["a", "x"]], None, r"only as a leaf, got \['a'\]"),
        ({"a": ["x"], "b": ["x"]}, None, "different names"),
        ({"a": ["x", "y"]}, ["x"], r"leaves must be those of the tree, \['x', 'y'\], got \['x'\]"),
        ({"a": ["x", "y"]}, ["x", "y", "y"], "leaves must be those of the tree"),
        ({"a": [3]}, None, "got 3"),
        ({"a": {"x", "y"}}, None, "must hold lists or mappings of names"),
        ({"a": 1}, None, "must hold lists or mappings of names, got 1"),
        (None, None, "must hold lists or mappings of names, got None"),
    ],
)
def test_bad_trees(tree: object, leaves: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sw.Taxonomy(tree, leaves)


def test_bad_calls() -> None:
    tree = lesions()
    with pytest.raises(IndexError, match=r"from 0 to 6 or ignore_index \(-100\), got 7"):
        tree.level_targets(torch.tensor([0, 7]))
    with pytest.raises(TypeError, match="leaf classes"):
        tree.level_targets(torch.tensor([0.0]))
    with pytest.raises(ValueError, match=r"shape \(N, 3, 11\), got \(2, 2, 11\)"):
        tree.leaf_log_probs(torch.zeros(2, 2, 11))
