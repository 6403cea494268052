"""The loss function and the callback in real trainings of a tiny language model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sampleweights as sw

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from sampleweights.integrations.transformers import (  # noqa: E402
    EpochCallback,
    LossFunction,
    WeightingTrainer,
)

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
        labels[: 1 + i % 5] = -100  # the first has no loss, and is counted by some Trainers
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
    assert criterion.weighter.fraction == sw.schedules.Sigmoid(6)(2 + 3 / 4)
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


class Recorded(sw.OHEM):
    """OHEM that notes the fraction of every batch."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[float] = []

    def forward(self, *args: Any) -> Tensor:
        self.seen.append(float(self.fraction))
        return super().forward(*args)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_schedule_moves_at_every_update(accumulated: int, tmp_path: Path) -> None:
    recorded = Recorded(4)  # not yet 1 in the two epochs
    train(
        tmp_path,
        sw.CrossEntropyLoss(weighter=recorded),
        num_train_epochs=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulated,
    )
    schedule = sw.schedules.Sigmoid(4)
    expected = [schedule((step - step % accumulated) / 8) for step in range(16)]
    assert recorded.seen == pytest.approx(expected)


def test_a_training_of_one_epoch(tmp_path: Path) -> None:
    recorded = Recorded(1)
    train(
        tmp_path,
        sw.CrossEntropyLoss(weighter=recorded),
        num_train_epochs=1,
        per_device_train_batch_size=2,
    )
    assert recorded.seen == [sw.schedules.Sigmoid(1)(step / 8) for step in range(4)]


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
def test_evaluation_is_the_mean_of_all(counted: bool, reduction: str) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, LENGTH, 5), torch.randint(5, (4, LENGTH))
    labels[0, :3] = -100
    criterion = sw.CrossEntropyLoss(
        weighter=[sw.ClassBalanced([5, 4, 3, 2, 1]), sw.OHEM(4)], reduction=reduction
    )
    function = LossFunction(criterion)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    modes = []
    number = labels.ne(-100).sum() if counted else None
    with criterion.register_weighting_hook(lambda c, samples, w: modes.append((c.training, w))):
        for epoch in range(4):
            criterion.set_epoch(epoch)
            with torch.no_grad():
                loss = function({"logits": logits}, labels, number)
            torch.testing.assert_close(loss, expected)
    assert modes == [(False, None)] * 4
    assert not torch.allclose(function({"logits": logits}, labels, number), expected)
    assert criterion.training


def test_the_trainer_evaluates_without_the_weighter(tmp_path: Path) -> None:
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(6))
    trainer = train(tmp_path, criterion, learning_rate=0.0, num_train_epochs=1)
    losses = []
    for epoch in (0, 1, 2):
        criterion.set_epoch(epoch)
        losses.append(trainer.evaluate(texts()[:8])["eval_loss"])
    assert losses[0] == losses[1] == losses[2]


# ---------------------------------------------------------------------------------------------
# What the Trainer counts and what the criterion counts
# ---------------------------------------------------------------------------------------------


def parts_of(function: Any, logits: Tensor, labels: Tensor, sizes: list[int], shift: int) -> Any:
    """The sum over the parts of an accumulated batch, of which the Trainer counts ``shift:``."""
    number = labels[:, shift:].ne(-100).sum().float()
    parts = zip(logits.split(sizes), labels.split(sizes), strict=True)
    return sum(function({"logits": z}, y, number) for z, y in parts)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_first_labels_in_one_part(shift: int) -> None:
    logits, labels = torch.randn(2, 4, 11), torch.randint(11, (2, 4))
    right = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    came = parts_of(LossFunction(sw.CrossEntropyLoss(), shift=True), logits, labels, [2], shift)
    torch.testing.assert_close(came, right)


def test_the_first_labels_in_several_parts() -> None:
    logits, labels = torch.randn(7, 4, 11), torch.randint(11, (7, 4))
    right = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    function = LossFunction(sw.CrossEntropyLoss(), shift=True)
    for sizes in ([3, 3, 1], [6, 1], [1, 6]):
        torch.testing.assert_close(parts_of(function, logits, labels, sizes, 1), right)
        of_another = LossFunction(sw.CrossEntropyLoss(), shift=True)
        with pytest.raises(ValueError, match=r"got 28, .*WeightingTrainer\(criterion=.*first of"):
            parts_of(of_another, logits, labels, sizes, 0)
    labels[:, 0] = -100  # then both count the same
    for counted in (0, 1):
        torch.testing.assert_close(parts_of(function, logits, labels, [3, 3, 1], counted), right)
    unshifted = LossFunction(sw.CrossEntropyLoss())
    with pytest.raises(ValueError, match="num_items_in_batch must count"):
        parts_of(unshifted, logits, labels.clamp(min=0), [3, 3, 1], 1)


def test_last_rows_as_long_as_the_batch_has_rows() -> None:
    """They look like the first labels of all rows; a batch before has shown that they are not."""
    function = LossFunction(sw.CrossEntropyLoss(), shift=True)
    logits = torch.randn(4, 6, 11)
    for sizes in ([2, 1, 1], [3, 1]):
        for length in (3, 4, 2, 6):  # of the last of 4 rows
            labels = torch.randint(11, (4, 6))
            labels[-1, length:] = -100
            right = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            )
            torch.testing.assert_close(parts_of(function, logits, labels, sizes, 1), right)


@pytest.mark.parametrize(
    ("criterion", "labels"),
    [
        (sw.CrossEntropyLoss(ignore_index=2), torch.tensor([0, 1, 2, 0])),
        (sw.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), torch.tensor([0, 1, 2, 0])),
        (
            sw.CrossEntropyLoss(weighter=sw.ClassBalanced([4, 2, 2]), reduction="weighted_mean"),
            torch.tensor([0, 1, 2, 2]),
        ),
        (
            sw.BinaryFocalLoss(ignore_index=torch.nan),
            torch.tensor([[0, 1, torch.nan]] * 3 + [[1, 1, 0]]),
        ),
        (
            sw.CrossEntropyLoss(
                weighter=[sw.ClassBalanced([4, 2, 2]), sw.OHEM(schedule=0.5)],
                reduction="weighted_mean",
            ),
            torch.tensor([0, 1, 2, 0]),
        ),
    ],
)
def test_what_the_trainer_does_not_count(criterion: Any, labels: Tensor) -> None:
    """In one part the criterion decides; of several, others are not known, and an error says so."""
    logits, function = torch.randn(4, 3), LossFunction(criterion)
    torch.testing.assert_close(
        parts_of(function, logits, labels, [4], 0) if labels.ndim > 1 else
        function({"logits": logits}, labels, torch.tensor(4.0)), criterion(logits, labels),
    )  # fmt: skip
    number = labels.ne(-100).sum()

    def train_in_parts() -> None:
        for part, of_part in zip(logits.split(2), labels.split(2), strict=True):
            function({"logits": part}, of_part, number)

    with pytest.raises(ValueError, match="num_items_in_batch must count what the criterion"):
        train_in_parts()


def test_the_same_number_again() -> None:
    """A number is known by its identity; who calls by hand may have one for all batches."""
    logits, labels = torch.randn(4, 3), torch.randint(3, (4,))
    function, right = LossFunction(sw.CrossEntropyLoss()), sw.CrossEntropyLoss()(logits, labels)
    for _ in range(2):
        torch.testing.assert_close(function({"logits": logits}, labels, 4), right)
    for _ in range(3):
        parts = zip(logits.split(3), labels.split(3), strict=True)
        came = sum(function({"logits": z}, y, 5 - 1) for z, y in parts)
        torch.testing.assert_close(came, right)


def test_a_batch_in_which_nothing_counts() -> None:
    logits, labels = torch.randn(4, 3, requires_grad=True), torch.full((4,), -100)
    for _ in range(2):
        loss = LossFunction(sw.CrossEntropyLoss())({"logits": logits}, labels, torch.tensor(0.0))
        loss.backward()
        assert loss == 0
    function, some = LossFunction(sw.CrossEntropyLoss()), torch.tensor(2.0)
    assert function({"logits": logits}, labels, some) == 0  # a part without labels
    labels[:2] = 1
    right = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(function({"logits": logits}, labels, some), right)


def test_labels_that_never_arrive(tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no"
    )

    class Unaware(Classifier):
        def forward(self, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"logits": self.linear(features)}

    trainer = transformers.Trainer(
        Unaware(), arguments, train_dataset=numbered(weighted=False),
        compute_loss_func=LossFunction(sw.CrossEntropyLoss()),
    )  # fmt: skip
    with pytest.raises(ValueError, match="labels must be in the batch .*remove_unused_columns"):
        trainer.train()
    trainer = trainer_of(tmp_path, sw.CrossEntropyLoss(), numbered(), Unaware())
    trainer.train()  # which keeps them
    assert trainer.evaluate(numbered())["eval_loss"] > 0
    assert trainer.predict([{"features": s["features"]} for s in numbered()]).metrics is not None


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_models_whose_own_loss_is_accumulated_wrongly(kind: str, tmp_path: Path) -> None:
    """Theirs is 4 times as large here in transformers 5.24, its issue 47688."""
    sizes = {"vocab_size": 11, "num_labels": 4, "pad_token_id": 0}
    if kind == "Bert":
        sizes |= {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        sizes |= {"num_attention_heads": 2, "hidden_dropout_prob": 0.0}  # type: ignore[dict-item]
        sizes |= {"attention_probs_dropout_prob": 0.0}  # type: ignore[dict-item]
    else:
        sizes |= {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "dropout": 0}
        sizes |= {"attention_dropout": 0, "seq_classif_dropout": 0}
    g = torch.Generator().manual_seed(0)
    data: Any = [
        {"input_ids": torch.randint(1, 11, (5,), generator=g), "labels": torch.tensor(i % 4)}
        for i in range(8)
    ]
    results = []
    for size, steps in ((8, 1), (2, 4)):
        transformers.set_seed(0)
        config = getattr(transformers, f"{kind}Config")(**sizes)
        net = getattr(transformers, f"{kind}ForSequenceClassification")(config)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, max_steps=1,
            max_grad_norm=0.0, optim="sgd", learning_rate=0.1, lr_scheduler_type="constant",
            save_strategy="no", per_device_train_batch_size=size, gradient_accumulation_steps=steps,
        )  # fmt: skip
        trainer = transformers.Trainer(
            net,
            arguments,
            train_dataset=data,
            compute_loss_func=LossFunction(sw.CrossEntropyLoss()),
        )
        results.append((trainer.train().training_loss, parameters(trainer)))
    (loss, after), (of_parts, accumulated) = results
    assert of_parts == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(accumulated, after, rtol=0, atol=1e-6)


def call(criterion: Any, logits: Any, labels: Tensor, number: Any = None, **options: Any) -> Tensor:
    return LossFunction(criterion)({"logits": logits}, labels, number, **options)


def test_the_number_of_items_of_each_of_several_gpus() -> None:
    logits, labels = torch.randn(6, 3), torch.randint(3, (6,))
    number = torch.tensor(3).unsqueeze(0).expand(2, -1)  # as the Trainer makes it
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(call(sw.CrossEntropyLoss(), logits, labels, number), expected)


def test_multi_label_tokens() -> None:
    logits, labels = torch.randn(2, 5, 4), torch.randint(2, (2, 5, 4))
    plain = sw.BinaryFocalLoss()
    for number in (None, labels.ne(-100).sum()):
        for given in (labels, labels.float()):
            loss = call(sw.BinaryFocalLoss(), logits, given, number)
            torch.testing.assert_close(loss, plain(logits, labels))


@pytest.mark.parametrize("wrapped", [False, True])
def test_probabilities_of_tokens(wrapped: bool) -> None:
    logits, labels = torch.randn(2, 5, 4), torch.rand(2, 5, 4).softmax(-1)
    criterion = sw.CrossEntropyLoss()
    if wrapped:
        criterion = sw.WeightedLoss(torch.nn.CrossEntropyLoss(reduction="none"))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))
    for number in (None, labels.ne(-100).sum()):  # the Trainer counts every probability
        torch.testing.assert_close(call(criterion, logits, labels, number), expected)
        whole = call(criterion, logits[:, 0], labels[:, 0], None if number is None else number / 5)
        part = torch.nn.functional.cross_entropy(logits[:, 0], labels[:, 0])
        torch.testing.assert_close(whole, part)


def test_levels_of_a_hierarchy() -> None:
    tree = sw.Taxonomy({"animal": ["cat", "dog"], "plant": ["oak"]})
    logits, leaf = torch.randn(4, tree.num_levels, tree.num_nodes), torch.tensor([0, 1, 2, 2])
    by_tree = sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=tree)
    torch.testing.assert_close(call(by_tree, logits, leaf, torch.tensor(4)), by_tree(logits, leaf))
    by_level = sw.HierarchicalLoss(sw.CrossEntropyLoss())
    labels = torch.tensor([[0, 1], [0, -100], [1, 2], [-100, -100]])
    expected = by_level(logits, labels)
    for given in (logits, list(logits.unbind(1))):
        for number in (None, labels.ne(-100).sum()):
            torch.testing.assert_close(call(by_level, given, labels, number), expected)


def test_weights_of_samples_and_of_tokens() -> None:
    logits, labels = torch.randn(2, 5, 4), torch.randint(4, (2, 5))
    weight = torch.tensor([0.0, 2.0])
    per_token = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none")
    for given in (weight, weight[:, None].expand(2, 5)):
        loss = call(sw.CrossEntropyLoss(), logits, labels, sample_weight=given)
        torch.testing.assert_close(loss, per_token[1].mean())
        shifted = LossFunction(sw.CrossEntropyLoss(), shift=True)
        loss = shifted({"logits": logits}, labels, sample_weight=given)
        expected = torch.nn.functional.cross_entropy(logits[1, :-1], labels[1, 1:])
        torch.testing.assert_close(loss, expected)


def test_reference_losses_of_samples_and_of_tokens() -> None:
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 5, 4, generator=g), torch.randint(4, (2, 5), generator=g)
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
    for given in (torch.tensor([0.0, 9.0]), 3 * torch.rand(2, 5, generator=g)):
        by_token = given if given.ndim > 1 else given[:, None].expand(2, 5)
        for shift in (False, True):
            seen, wanted = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
            expected = criterion(
                seen.flatten(0, 1), wanted.flatten(), reference_loss=by_token[:, shift:].flatten()
            )
            function = LossFunction(criterion, shift=shift)
            loss = function({"logits": logits}, labels, reference_loss=given)
            torch.testing.assert_close(loss, expected)
            assert not torch.allclose(loss, function({"logits": logits}, labels))
    with torch.no_grad():  # evaluation has no weighter
        loss = call(criterion, logits, labels, reference_loss=torch.tensor([0.0, 9.0]))
    torch.testing.assert_close(loss, call(sw.CrossEntropyLoss(), logits, labels))


# ---------------------------------------------------------------------------------------------
# WeightingTrainer
# ---------------------------------------------------------------------------------------------


class Classifier(torch.nn.Module):
    """Takes nothing but its features and labels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.linear(features)}


def numbered(*, weighted: bool = True) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(2)
    return [
        {
            "features": torch.randn(4, generator=g),
            "labels": torch.randint(3, (), generator=g),
            "index": i,
        }
        | ({"sample_weight": float(i % 3)} if weighted else {})
        for i in range(16)
    ]


def trainer_of(folder: Path, criterion: Any, data: Any, net: Any = None, **options: Any) -> Any:
    given = {name: options.pop(name) for name in ("history", "shift") if name in options}
    kind = options.pop("kind", WeightingTrainer)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], lr_scheduler_type="constant",
        disable_tqdm=True, max_grad_norm=0.0,
        **{"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "no",
           "learning_rate": 0.1, "save_steps": 1} | options,
    )  # fmt: skip
    net = Classifier() if net is None else net
    return kind(net, arguments, train_dataset=data, criterion=criterion, **given)


@pytest.mark.parametrize("removed", [True, False])
def test_reference_losses_from_a_column(removed: bool, tmp_path: Path) -> None:
    data = [sample | {"reference_loss": 0.7 * (i % 4)} for i, sample in enumerate(numbered())]
    history = sw.LossHistory(16)
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25))
    trainer = trainer_of(
        tmp_path, criterion, data, num_train_epochs=1, optim="sgd", history=history,
        per_device_train_batch_size=16, remove_unused_columns=removed,
    )  # fmt: skip
    trainer.train()
    net = Classifier()
    features, labels, weight, reference = (
        torch.stack([torch.as_tensor(s[k]) for s in data])
        for k in ("features", "labels", "sample_weight", "reference_loss")
    )
    loss = torch.nn.functional.cross_entropy(net.linear(features), labels, reduction="none")
    kept = sw.selection.select(loss - reference, 0.25, largest=True)
    assert not kept.equal(sw.selection.select(loss, 0.25, largest=True))
    (loss * weight * kept).mean().backward()
    expected = net.linear.weight - 0.1 * net.linear.weight.grad
    torch.testing.assert_close(trainer.model.linear.weight, expected)


def test_reference_losses_of_tokens_from_a_column(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(3)
    data = [text | {"reference_loss": 4 * torch.rand(LENGTH, generator=g)} for text in texts()]
    reached = []
    for given in (data, texts()):
        criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.25))
        trainer = trainer_of(
            tmp_path, criterion, given, model(), shift=True, num_train_epochs=1, learning_rate=0.01
        )
        trainer.train()
        reached.append(parameters(trainer))
    assert not reached[0].equal(reached[1])


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_sample_weights_from_a_column(accumulated: int, removed: bool, tmp_path: Path) -> None:
    data = numbered()
    trainer = trainer_of(
        tmp_path, sw.CrossEntropyLoss(), data, num_train_epochs=1, optim="sgd",
        per_device_train_batch_size=16 // accumulated, gradient_accumulation_steps=accumulated,
        remove_unused_columns=removed,
    )  # fmt: skip
    trainer.train()
    net = Classifier()
    features, labels = (torch.stack([s[k] for s in data]) for k in ("features", "labels"))
    weight = torch.tensor([s["sample_weight"] for s in data])
    loss = torch.nn.functional.cross_entropy(net.linear(features), labels, reduction="none")
    (loss * weight).mean().backward()
    expected = net.linear.weight - 0.1 * net.linear.weight.grad
    torch.testing.assert_close(trainer.model.linear.weight, expected)
    with torch.no_grad():
        after = trainer.model.linear(features)
    loss = torch.nn.functional.cross_entropy(after, labels, reduction="none")
    told = trainer.evaluate(data)["eval_loss"]
    assert told == pytest.approx(float((loss * weight).mean()))
    unlabelled = [{k: v for k, v in s.items() if k != "labels"} for s in data]
    assert trainer.predict(unlabelled).predictions.shape == (16, 3)


@pytest.mark.parametrize("killed_after", [4, 6])
@pytest.mark.parametrize("tokens", [False, True])
def test_a_killed_history_goes_on(tokens: bool, killed_after: int, tmp_path: Path) -> None:
    """After an epoch's last step, and in mid-epoch."""
    data: Any = [sample | {"index": i} for i, sample in enumerate(texts())]
    data = data if tokens else numbered()

    def build(name: str, **options: Any) -> Any:
        return trainer_of(
            tmp_path / name, sw.CrossEntropyLoss(weighter=sw.OHEM(6)), data,
            model() if tokens else None, history=sw.LossHistory(16, 3), shift=tokens,
            learning_rate=0.01, **options,
        )  # fmt: skip

    whole = build("whole")
    whole.train()
    build("part", max_steps=killed_after, save_strategy="steps").train()
    resumed = build("part", save_strategy="steps")
    resumed.train(resume_from_checkpoint=True)
    assert parameters(resumed).equal(parameters(whole))
    assert whole.history.epochs == 3
    expected = whole.history.state_dict()
    for name, value in resumed.history.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True)
    times = torch.full((16,), 3, dtype=torch.int32)
    assert whole.history.times.equal(times)


def test_evaluation_is_not_recorded(tmp_path: Path) -> None:
    history = sw.LossHistory(16)
    trainer = trainer_of(tmp_path, sw.CrossEntropyLoss(), numbered(), history=history)
    trainer.evaluate(numbered())
    assert history.current.sum() == 0
    trainer = trainer_of(
        tmp_path, sw.CrossEntropyLoss(), texts(), model(), history=history, shift=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match="a column 'index'"):
        trainer.train()


def test_a_checkpoint_of_another_trainer(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-4").mkdir()
    trainer = trainer_of(tmp_path, sw.CrossEntropyLoss(), numbered())
    with pytest.raises(ValueError, match="must be one of a WeightingTrainer"):
        trainer.train(resume_from_checkpoint=True)


def test_weights_that_not_all_rows_have(tmp_path: Path) -> None:
    data = numbered()
    del data[5]["sample_weight"]
    with pytest.raises(ValueError, match="sample_weight must be in all rows"):
        trainer_of(tmp_path, sw.CrossEntropyLoss(), data).train()


@pytest.mark.parametrize(("reduction", "fits"), [("mean", True), ("weighted_mean", False)])
def test_weights_that_depend_on_losses(reduction: str, fits: bool, tmp_path: Path) -> None:
    """Their sum in an accumulated batch is known only with its last part."""
    weighter = [sw.ClassBalanced([6, 5, 5]), sw.OHEM(schedule=0.5)]
    criterion = sw.CrossEntropyLoss(weighter=weighter, reduction=reduction)
    trainer_of(tmp_path, criterion, numbered(weighted=False)).train()
    trainer = trainer_of(
        tmp_path, criterion, numbered(weighted=False), gradient_accumulation_steps=2
    )
    if fits:
        trainer.train()
    else:
        with pytest.raises(ValueError, match="must divide by what the labels alone decide"):
            trainer.train()


def test_the_mean_over_the_kept(tmp_path: Path) -> None:
    """How many samples a curriculum keeps is known before their losses."""
    data = numbered(weighted=False)[:12]
    criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5), reduction="weighted_mean")
    trainer = trainer_of(
        tmp_path, criterion, data, num_train_epochs=1, optim="sgd", gradient_accumulation_steps=3,
        per_device_train_batch_size=5,
    )  # fmt: skip
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(data)
    trainer.train()
    net = Classifier()
    features, labels = (torch.stack([s[k] for s in data]) for k in ("features", "labels"))
    loss = torch.nn.functional.cross_entropy(net.linear(features), labels, reduction="none")
    kept = [part.topk(-(-len(part) // 2)).values for part in loss.split(5)]
    torch.cat(kept).mean().backward()
    expected = net.linear.weight - 0.1 * net.linear.weight.grad
    torch.testing.assert_close(trainer.model.linear.weight, expected, rtol=1e-5, atol=1e-6)


class RowsThatCount(sw.losses.base.Criterion):
    """A loss of one's own, which leaves out rows for reasons that no label has."""

    def samples(self, logits: Any, target: Tensor) -> Any:
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        valid = logits.detach()[:, 0] > 0
        return sw.losses.base.Samples(loss * valid, target, valid)


def test_a_criterion_that_counts_by_itself(tmp_path: Path) -> None:
    def build() -> Any:
        return RowsThatCount(
            reduction="mean", weighter=None, global_batch=False, process_group=None
        )

    trainer_of(tmp_path, build(), numbered()).train()
    trainer = trainer_of(tmp_path, build(), numbered(), gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="must divide by what the labels alone decide"):
        trainer.train()
    per_row = sw.WeightedLoss(lambda z, y: (z - y[:, :3]).abs().mean(1))
    rows = [s | {"labels": torch.rand(4)} for s in numbered()]
    trainer_of(tmp_path, per_row, rows).train()
    trainer = trainer_of(tmp_path, per_row, rows, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="one loss for each label"):
        trainer.train()


def test_with_another_trainer(tmp_path: Path) -> None:
    """Both classes' methods are called, and the loss is the criterion's."""
    called = []

    class Other(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            called.append(kwargs["return_outputs"])
            return super().compute_loss(*args, **kwargs)

    class Both(WeightingTrainer, Other):
        pass

    trainer = trainer_of(
        tmp_path, sw.CrossEntropyLoss(), numbered(), num_train_epochs=1, optim="sgd",
        gradient_accumulation_steps=4, kind=Both,
    )  # fmt: skip
    trainer.train()
    assert called == [False] * 4
    data, net = numbered(), Classifier()
    features, labels = (torch.stack([s[k] for s in data]) for k in ("features", "labels"))
    weight = torch.tensor([s["sample_weight"] for s in data])
    loss = torch.nn.functional.cross_entropy(net.linear(features), labels, reduction="none")
    (loss * weight).mean().backward()
    expected = net.linear.weight - 0.1 * net.linear.weight.grad
    torch.testing.assert_close(trainer.model.linear.weight, expected)


class Endless(torch.utils.data.IterableDataset[Any]):
    """The numbered samples, again and again."""

    def __iter__(self) -> Any:
        while True:
            yield from numbered()


def test_an_endless_stream_is_one_epoch(tmp_path: Path) -> None:
    recorded, history = Recorded(1), sw.LossHistory(16)
    trainer_of(
        tmp_path, sw.CrossEntropyLoss(weighter=recorded), Endless(), max_steps=8, history=history,
        gradient_accumulation_steps=2,
    ).train()  # fmt: skip
    schedule = sw.schedules.Sigmoid(1)
    assert recorded.seen == pytest.approx([schedule(step // 2 / 8) for step in range(8)])
    assert history.epochs == 1
    assert history.times.equal(torch.full_like(history.times, 4))


def test_label_smoothing_of_the_trainer_is_told(tmp_path: Path) -> None:
    """It has no effect beside a loss function, and the Trainer does not say so."""
    criterion = sw.CrossEntropyLoss()
    says = "label_smoothing_factor=0.1 has no effect .* pass label_smoothing= to it"
    with pytest.warns(UserWarning, match=says):
        smoothed = train(tmp_path, criterion, max_steps=1, label_smoothing_factor=0.1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*label_smoothing")
        plain = train(tmp_path, criterion, max_steps=1)
        own = train(tmp_path, sw.CrossEntropyLoss(label_smoothing=0.1), max_steps=1)
    torch.testing.assert_close(parameters(smoothed), parameters(plain), rtol=0, atol=0)
    assert (parameters(own) - parameters(plain)).norm() > 0
