import math

import pytest
import torch
from properties import (
    falls_with_the_loss,
    order_does_not_matter,
    twice_the_batch_has_twice_the_weights,
)

import sampleweights as sw

CLAIMS = {
    "Confidence": {
        falls_with_the_loss, order_does_not_matter, twice_the_batch_has_twice_the_weights,
    }
}  # fmt: skip


def test_it_is_the_probability_of_the_target():
    logits, target = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    loss = sw.functional.cross_entropy(logits, target)
    weight = sw.Confidence()(loss.requires_grad_())
    rows = zip(logits.tolist(), target.tolist(), strict=True)
    expected = [math.exp(z[y]) / sum(map(math.exp, z)) for z, y in rows]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64))
    assert not weight.requires_grad


def test_what_is_not_valid_has_weight_0():
    weight = sw.Confidence()(torch.zeros(3), valid=torch.tensor([True, False, True]))
    assert weight.tolist() == [1, 0, 1]


def test_the_gradient_of_a_token_is_that_of_dynamic_fine_tuning():
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 0, -100])
    sw.CrossEntropyLoss(weighter=sw.Confidence())(logits, target).backward()
    p = logits.detach().softmax(1)
    for j, y in enumerate(target.tolist()):
        for c in range(4):
            right = 0 if y < 0 else p[j, y] * (p[j, c] - float(c == y)) / 5
            assert logits.grad[j, c].item() == pytest.approx(float(right), abs=1e-12)


def test_bad_losses():
    with pytest.raises(TypeError, match="loss must be floating"):
        sw.Confidence()(torch.tensor([1]))
