"""The loss function and the callback in real trainings of a tiny language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sampleweights as sw

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from sampleweights.integrations.transformers import EpochCallback, LossFunction  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
VOCABULARY, LENGTH = 11, 7


def model() -> Any:
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def texts() -> list[dict[str, Tensor]]:
    """Sequences in which different numbers of tokens are labels."""
    g = torch.Generator().manual_seed(1)
    samples = []
    for i in range(16):
        tokens = torch.randint(VOCABULARY, (LENGTH,), generator=g)
        labels = tokens.clone()
        labels[: i % 5] = -100
        samples.append({"input_ids": tokens, "labels": labels})
    return samples


def train(folder: Path, criterion: Any, *, resume: Any = None, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to=[],
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        disable_tqdm=True,
        **{"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "no"}
        | {"learning_rate": 0.01}
        | options,
    )
    trainer = transformers.Trainer(
        model(),
        arguments,
        train_dataset=texts(),
        compute_loss_func=LossFunction(criterion, shift=True),
        callbacks=[EpochCallback(criterion)],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def parameters(trainer: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    """The same update from one batch of 8 and from four of 2, whose tokens differ in number."""
    results = []
    for size, steps in ((8, 1), (2, 4)):
        trainer = train(
            tmp_path,
            sw.FocalLoss(weighter=sw.ClassBalanced([3] + [1] * (VOCABULARY - 1))),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            learning_rate=0.5,
            num_train_epochs=1,
        )
        results.append(parameters(trainer))
    assert (results[0] - parameters_before()).norm() > 0.01
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def parameters_before() -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model().parameters()])


def test_equals_the_trainers_own_loss(tmp_path: Path) -> None:
    mine = train(tmp_path, sw.CrossEntropyLoss(), optim="sgd")
    arguments = mine.args
    theirs = transformers.Trainer(model(), arguments, train_dataset=texts())
    theirs.train()
    torch.testing.assert_close(parameters(mine), parameters(theirs), rtol=1e-5, atol=1e-6)


def test_tokens_are_mined_and_a_killed_training_ends_the_same(tmp_path: Path) -> None:
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(6))
    whole = train(tmp_path / "whole", criterion)
    assert criterion.weighter.fraction == sw.schedules.Sigmoid(6)(2)
    options = {"save_strategy": "steps", "save_steps": 1}
    train(tmp_path / "part", sw.CrossEntropyLoss(weighter=sw.OHEM(6)), max_steps=6, **options)
    resumed = train(
        tmp_path / "part",
        sw.CrossEntropyLoss(weighter=sw.OHEM(6)),
        resume=str(tmp_path / "part" / "checkpoint-6"),
    )
    assert parameters(resumed).equal(parameters(whole))


def test_losses_per_token_from_elsewhere() -> None:
    """A fused linear cross-entropy gives losses, no logits: a weighter alone is enough."""
    per_token = torch.rand(2, LENGTH, requires_grad=True)
    labels = torch.randint(VOCABULARY, (2, LENGTH))
    labels[0, :3] = -100
    weight = sw.OHEM(schedule=0.5)(per_token.detach(), valid=labels != -100)
    assert weight.sum() == 6  # half of the 11 tokens, rounded up
    assert (weight[0, :3] == 0).all()
    loss = sw.reduction.reduce(per_token, weight, valid=labels != -100)
    loss.backward()
    assert ((per_token.grad != 0) == (weight != 0)).all()


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="reduction 'mean' or 'weighted_mean', got 'sum'"):
        LossFunction(sw.CrossEntropyLoss(reduction="sum"))
    with pytest.raises(ValueError, match="global_batch"):
        LossFunction(sw.CrossEntropyLoss(global_batch=True))
