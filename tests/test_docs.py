"""The weighter that docs/extending.md shows keeps what the page says it owes."""

from __future__ import annotations

import io

import torch
from contracts import shown


def test_the_weighter_of_the_page() -> None:
    names = shown()
    weighter = names["Robust"]()
    for shape, dtype in (((16,), torch.float32), ((2, 3, 4), torch.float64)):
        loss = torch.rand(shape, dtype=dtype)
        loss.view(-1)[0] = 100
        weight = weighter(loss)
        assert weight.shape == loss.shape
        assert weight.dtype == dtype
        assert (weight >= 0).all()
        assert weight.view(-1)[0] < 0.1
        assert weight.max() == 1


def test_its_state_is_saved_with_the_criterion() -> None:
    criterion, logits = shown()["criterion"], torch.randn(12, 3, requires_grad=True)
    target = torch.randint(3, (12,))
    criterion(logits, target).backward()
    assert logits.grad.isfinite().all()
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    other = shown()["criterion"]
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(logits, target).equal(criterion(logits, target))
