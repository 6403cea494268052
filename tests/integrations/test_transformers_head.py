"""A Trainer whose model has no logits trains as one whose model has them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sampleweights as sw

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from sampleweights.integrations.transformers import LossFunction, WeightingTrainer  # noqa: E402
from sampleweights.integrations.transformers.head import (  # noqa: E402
    FusedHead,
    on_hidden_states,
)

pytestmark = pytest.mark.filterwarnings("ignore")
VOCABULARY, LENGTH, ROWS = 37, 7, 8
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def model_of(kind: str, **more: Any) -> Any:
    transformers.set_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES | more)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def gpt2() -> Any:
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


MODELS = {
    "gpt2": gpt2,
    "llama": lambda: model_of("Llama"),
    "qwen2, tied": lambda: model_of("Qwen2", tie_word_embeddings=True),
}


def texts(lengths: Any = (LENGTH,) * ROWS, **columns: Any) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(1)
    rows = []
    for i, length in enumerate(lengths):
        tokens = torch.randint(1, VOCABULARY, (length,), generator=g)
        labels = tokens.clone()
        labels[: i % 4] = -100
        row = {"input_ids": tokens.tolist(), "labels": labels.tolist()}
        rows.append(row | {name: column(i, length) for name, column in columns.items()})
    return rows


def trainer_of(
    folder: Path,
    model: Any,
    criterion: Any,
    dataset: Any = None,
    *,
    more: Any = None,
    **options: Any,
) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        max_grad_norm=0.0,
        **{"num_train_epochs": 2, "per_device_train_batch_size": 4, "save_strategy": "no"}
        | {"learning_rate": 0.5, "optim": "sgd", "lr_scheduler_type": "constant"}
        | options,
    )
    return WeightingTrainer(
        model,
        arguments,
        train_dataset=texts() if dataset is None else dataset,
        criterion=criterion,
        shift=True,
        **more or {},
    )


def parameters(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def weight_of_token(i: int, length: int) -> list[float]:
    return [0.25 * ((3 * i + j) % 5) for j in range(length)]


CRITERIA = {
    "plain": sw.CrossEntropyLoss,
    "focal": lambda: sw.FocalLoss(gamma=1.5, label_smoothing=0.1),
    "class weights": lambda: sw.CrossEntropyLoss(weight=torch.linspace(0, 2, VOCABULARY).double()),
    "mined": lambda: sw.CrossEntropyLoss(weighter=sw.OHEM(4)),
    "confidence": lambda: sw.CrossEntropyLoss(weighter=sw.Confidence()),
    "adjusted": lambda: sw.CrossEntropyLoss(
        margin=sw.LogitAdjustment(torch.arange(1, VOCABULARY + 1))
    ),
    "weighted mean": lambda: sw.CrossEntropyLoss(
        weighter=sw.ClassBalanced(torch.arange(1, VOCABULARY + 1)), reduction="weighted_mean"
    ),
    "other index": lambda: sw.CrossEntropyLoss(ignore_index=5),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gpt2", "mined"),
        pytest.param("qwen2, tied", "focal", marks=pytest.mark.slow),
        *(pytest.param("llama", name, marks=pytest.mark.slow) for name in CRITERIA),
    ],
)
def test_trains_as_with_logits(kind: str, name: str, tmp_path: Path) -> None:
    found = []
    for fused in (False, True):
        model, dataset = MODELS[kind]().double(), texts(sample_weight=weight_of_token)
        if name == "other index":
            for row in dataset:
                row["labels"] = [5 if label == -100 else label for label in row["labels"]]
        trainer = trainer_of(
            tmp_path, model, CRITERIA[name](), dataset, more={"fused_head": fused},
            gradient_accumulation_steps=2, per_device_train_batch_size=2,
        )  # fmt: skip
        loss = trainer.train().training_loss
        found.append((parameters(model), loss, trainer.evaluate(dataset)["eval_loss"]))
        assert not parameters(model).allclose(parameters(MODELS[kind]().double()), rtol=1e-3)
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-9, atol=1e-12)
    assert found[1][1:] == pytest.approx(found[0][1:], rel=1e-9)


class Largest(TorchDispatchMode):
    """The most rows of a tensor over the vocabulary."""

    rows = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        came = function(*args, **kwargs or {})
        for value in came if isinstance(came, tuple | list) else [came]:
            if isinstance(value, Tensor) and value.shape[-1:] == (VOCABULARY,):
                self.rows = max(self.rows, value.numel() // VOCABULARY)
        return came


def test_the_logits_never_exist(tmp_path: Path) -> None:
    """Nor in an evaluation that returns no predictions, and in one that does they do."""
    seen = []
    for more in ({"fused_head": False}, {}):
        model = MODELS["llama"]()
        criterion: Any = sw.CrossEntropyLoss()
        if not more:
            criterion = sw.LinearCrossEntropyLoss.from_linear(model.lm_head, chunk_size=3)
        trainer = trainer_of(tmp_path, model, criterion, more=more)
        for call in (trainer.train, lambda t=trainer: t.evaluate(texts())):
            with Largest() as largest:
                call()
            seen.append(largest.rows)
        logits = trainer.predict(texts()).predictions
        with torch.no_grad():
            expected = model(torch.tensor([row["input_ids"] for row in texts()])).logits
        torch.testing.assert_close(torch.tensor(logits), expected)
    # of 4 and of 8 rows; else a chunk of 3, or the 8 tokens with which the model is checked, and
    # the transposed matrix (16, V) and its gradient
    assert seen == [4 * LENGTH, 8 * LENGTH, 16, 16]


def test_metrics_have_the_logits(tmp_path: Path) -> None:
    def accuracy(prediction: Any) -> dict[str, float]:
        return {"shape": prediction.predictions.shape}

    found = []
    for fused in (False, True):
        more = {"fused_head": fused, "compute_metrics": accuracy}
        trainer = trainer_of(tmp_path, MODELS["gpt2"](), sw.CrossEntropyLoss(), more=more)
        metrics = trainer.evaluate(texts())
        assert metrics["eval_shape"] == (ROWS, LENGTH, VOCABULARY)
        found.append(metrics["eval_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"gradient_checkpointing": True}, {"bf16": True}])
def test_checkpointing_and_autocast(options: Any, tmp_path: Path) -> None:
    found = []
    for fused in (False, True):
        model = MODELS["llama"]()
        criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(4))
        trainer = trainer_of(tmp_path, model, criterion, more={"fused_head": fused}, **options)
        trainer.train()
        found.append(parameters(model) - parameters(MODELS["llama"]()))
    error = (found[0] - found[1]).norm() / found[0].norm()
    assert error < (2e-2 if "bf16" in options else 1e-5)


@pytest.mark.slow
def test_a_killed_training_ends_the_same(tmp_path: Path) -> None:
    def start(folder: str, **options: Any) -> Any:
        history = sw.LossHistory(ROWS)
        dataset = texts(index=lambda i, _: i)
        criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(3))
        more = {"history": history, "fused_head": True}
        return trainer_of(
            tmp_path / folder, MODELS["llama"](), criterion, dataset, more=more, **options
        )

    whole = start("whole")
    whole.train()
    start("part", max_steps=3, save_strategy="steps", save_steps=1).train()
    resumed = start("part")
    resumed.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-3"))
    assert parameters(resumed.model).equal(parameters(whole.model))
    for name, value in whole.history.state_dict().items():
        torch.testing.assert_close(resumed.history.state_dict()[name], value, equal_nan=True)


def test_hooks_of_the_criterion_are_called(tmp_path: Path) -> None:
    criterion, seen = sw.CrossEntropyLoss(weighter=sw.OHEM(4)), []
    criterion.register_weighting_hook(
        lambda c, samples, weight: seen.append((samples.loss, weight))
    )
    trainer = trainer_of(tmp_path, MODELS["llama"](), criterion, more={"fused_head": True})
    trainer.train()
    assert [loss.shape for loss, _ in seen] == [(4 * (LENGTH - 1),)] * 4
    assert trainer.criterion.weighter is criterion.weighter
    assert criterion.weighter.fraction == sw.schedules.Sigmoid(4)(1.5)


def test_a_head_that_is_replaced(tmp_path: Path) -> None:
    """By a model_init, which train() calls again, and by another vocabulary."""
    more = {"fused_head": True, "model_init": MODELS["llama"]}
    trainer = trainer_of(tmp_path, None, sw.CrossEntropyLoss(), more=more)
    trainer.train()
    assert not parameters(trainer.model).allclose(parameters(MODELS["llama"]()), rtol=1e-3)
    more["model_init"] = None
    trainer = trainer_of(tmp_path, MODELS["llama"](), sw.CrossEntropyLoss(), more=more)
    trainer.model.resize_token_embeddings(VOCABULARY + 2)
    before = trainer.model.lm_head.weight.detach().clone()
    trainer.train()
    assert not trainer.model.lm_head.weight.allclose(before, rtol=1e-3)


# ---------------------------------------------------------------------------------------------
# Weights per token, through collators
# ---------------------------------------------------------------------------------------------

LENGTHS = (7, 4, 6, 3, 5, 7, 2, 6)


def tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="1")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), pad_token="0", unk_token="1"
    )


def left_padded(features: list[Any]) -> Any:
    fast = tokenizer()
    fast.padding_side = "left"
    return transformers.DataCollatorForSeq2Seq(fast, pad_to_multiple_of=4)(features)


COLLATORS = {
    "right": lambda: transformers.DataCollatorForSeq2Seq(tokenizer()),
    "left": lambda: left_padded,
    "flat": lambda: transformers.DataCollatorWithFlattening(),
    "from tokens": lambda: transformers.DataCollatorForLanguageModeling(tokenizer(), mlm=False),
}


@pytest.mark.parametrize("fused", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", ["token", pytest.param("row", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COLLATORS)
def test_weights_follow_their_tokens(name: str, kind: str, fused: bool, tmp_path: Path) -> None:
    """The gradient is that of each text alone, added up."""
    weight = weight_of_token if kind == "token" else lambda i, _: 0.5 * i
    rows, model = texts(LENGTHS, sample_weight=weight), MODELS["llama"]().double()
    for row in rows:
        row["labels"][0] = -100  # which padding on the left would predict
        if name == "from tokens":
            del row["labels"]
    total, number = 0.0, 0
    for row in rows:
        labels = torch.tensor(row.get("labels", row["input_ids"]))[1:]
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        loss = F.cross_entropy(logits, labels, reduction="none")
        of_row = torch.as_tensor(row["sample_weight"])
        total = total + (loss * (of_row[1:] if of_row.ndim else of_row)).sum()
        number += int(labels.ne(-100).sum())
    (total / number).backward()
    expected = parameters(model) - 0.5 * torch.cat([p.grad.flatten() for p in model.parameters()])
    model = MODELS["llama"]().double()
    more = {"fused_head": fused, "data_collator": COLLATORS[name]()}
    trainer = trainer_of(
        tmp_path, model, sw.CrossEntropyLoss(), rows, more=more, num_train_epochs=1,
        per_device_train_batch_size=2, gradient_accumulation_steps=4,
    )  # fmt: skip
    trainer.train()
    # padding moves positions, whose rotations Llama computes in float32
    torch.testing.assert_close(parameters(model), expected, rtol=1e-6, atol=1e-9)


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    def train(rows: Any, collator: Any) -> None:
        more = {"data_collator": collator, "history": sw.LossHistory(ROWS)}
        trainer_of(tmp_path, MODELS["llama"](), sw.CrossEntropyLoss(), rows, more=more).train()

    flat, numbered = COLLATORS["flat"](), {"index": lambda i, _: i}
    with pytest.raises(ValueError, match="rows of a batch .* 'index', got 4 in a batch of 1"):
        train(texts(LENGTHS, **numbered), flat)
    with pytest.raises(
        ValueError, match=r"sample_weight must be one number .* \(2,\) for . labels"
    ):
        train(texts(LENGTHS, sample_weight=lambda i, _: [1.0, 2.0]), flat)

    def constant(features: Any) -> Any:
        return {"input_ids": torch.ones(4, 9).long(), "labels": torch.ones(4, 9).long()}

    with pytest.raises(ValueError, match="the collator must take its labels from 'labels'"):
        train(texts(LENGTHS, sample_weight=weight_of_token), constant)


# ---------------------------------------------------------------------------------------------
# What has no head to replace
# ---------------------------------------------------------------------------------------------


def refused(model: Any, folder: Path, match: str, criterion: Any = None, **options: Any) -> None:
    more = {"fused_head": True}

    def train() -> None:
        trainer_of(folder, model, criterion or sw.CrossEntropyLoss(), more=more, **options).train()

    with pytest.raises(ValueError, match=match):
        train()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Gemma2", {"final_logit_softcapping": 30.0, "head_dim": 8}),
        ("Cohere", {"logit_scale": 0.0625}),
        ("Granite", {"logits_scaling": 8.0}),
    ],
)
def test_logits_that_are_changed(kind: str, more: Any, tmp_path: Path) -> None:
    refused(model_of(kind, **more), tmp_path, f"a {kind}ForCausalLM changes them")
    assert "forward" not in vars(model_of(kind).lm_head)


def test_a_granite_that_scales_by_one(tmp_path: Path) -> None:
    model = model_of("Granite", logits_scaling=1.0)
    trainer_of(tmp_path, model, sw.CrossEntropyLoss(), more={"fused_head": True}).train()
    assert model.training
    assert "forward" not in vars(model.lm_head)


def test_heads_that_are_more(tmp_path: Path) -> None:
    class Adapted(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            return super().forward(hidden) + 1

    model = model_of("Llama")
    model.set_output_embeddings(Adapted(16, VOCABULARY))
    refused(
        model,
        tmp_path,
        "must be an nn.Linear without adapters.*got .*Adapted.* of a LlamaForCausalLM",
    )
    model = model_of("Llama")
    model.lm_head.forward = lambda hidden: hidden
    refused(model, tmp_path, "must have the forward of nn.Linear")
    model = model_of("Llama")
    model.lm_head.register_forward_hook(lambda module, args, logits: logits + 1)
    refused(model, tmp_path, "a LlamaForCausalLM changes them")
    model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SIZES))
    refused(model, tmp_path, "got .*NoneType.* of a LlamaForSeq")
    other = sw.LinearCrossEntropyLoss.from_linear(model_of("Llama").lm_head)
    refused(model_of("Llama"), tmp_path, "of the head of the model that is trained", other)


class Odd(nn.Module):
    """A model that calls its head as often as one says, and not with all that there is."""

    def __init__(self, calls: int, kept: int = 0) -> None:
        super().__init__()
        self.body, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, VOCABULARY)
        self.calls, self.kept = calls, kept

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        hidden = self.body(input_ids)[:, self.kept :]
        logits = F.linear(hidden, self.head.weight, self.head.bias)
        for _ in range(self.calls):
            logits = self.head(hidden)
        return {"logits": logits}


@pytest.mark.parametrize("odd", [(0,), (2,), (1, 1)])
def test_heads_that_are_called_otherwise(odd: Any, tmp_path: Path) -> None:
    refused(Odd(*odd), tmp_path, "an? Odd changes them .*or computes them otherwise")
    trainer_of(tmp_path, Odd(1), sw.CrossEntropyLoss(), more={"fused_head": True}).train()


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    llama = MODELS["llama"]
    refused(llama(), tmp_path, "got BCEWithLogitsLoss", sw.BCEWithLogitsLoss())

    class Own(sw.CrossEntropyLoss):
        pass

    refused(llama(), tmp_path, "with fused_head=True, got Own", Own())
    refused(llama(), tmp_path, "label_smoothing_factor must be 0", label_smoothing_factor=0.1)
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True)
    _, arguments._n_gpu = arguments.device, 2
    given = {"args": arguments, "criterion": sw.CrossEntropyLoss(), "fused_head": True}
    with pytest.raises(ValueError, match="needs one GPU for each process, got 2"):
        WeightingTrainer(llama(), **given)


@pytest.mark.parametrize("fused", [False, True])
def test_an_auxiliary_loss_is_not_lost(fused: bool, tmp_path: Path) -> None:
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
    for routed in (True, False):
        model = model_of("Mixtral", output_router_logits=routed, **experts)
        trainer = trainer_of(tmp_path, model, sw.CrossEntropyLoss(), more={"fused_head": fused})
        if routed:
            with pytest.raises(ValueError, match="must have no aux_loss"):
                trainer.train()
        else:
            trainer.train()


# ---------------------------------------------------------------------------------------------
# A sharded model (for DDP see test_transformers_denominator.py)
# ---------------------------------------------------------------------------------------------

SHARDED = [("llama", False), ("llama", True), ("qwen2, tied", False)]
LABELS = ROWS * (LENGTH - 1)


def shard(rank: int, world: int, folder: str) -> None:
    fully_shard: Any = torch.distributed.fsdp.fully_shard
    tokens = torch.tensor([row["input_ids"] for row in texts()]).chunk(world)[rank]
    found = []
    for kind, has_head_alone in SHARDED:
        model = MODELS[kind]().double()
        parts = [*model.model.layers, *([model.lm_head] if has_head_alone else []), model]
        for part in parts:  # as accelerate does
            fully_shard(part, reshard_after_forward=True)
        criterion = on_hidden_states(sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5)), model)
        function = LossFunction(criterion, shift=True)
        compute = functools.partial(
            function.compute,
            normalizer=LABELS / world,
            sample_weight=None,
            reference_loss=None,
        )
        head = FusedHead(criterion, compute, follows=True)
        head.check(model, {"input_ids": tokens}, model)
        with head.in_place(tokens, keeps_logits=False):
            loss = head.loss(model(input_ids=tokens))
        loss.backward()
        grads: Any = [parameter.grad for parameter in model.parameters()]
        found.append([grad.full_tensor() for grad in grads])
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_a_sharded_model(tmp_path: Path) -> None:
    """Its head is gathered when it is called, and its gradient is counted once."""
    ranks.run(shard, 2, str(tmp_path), seconds=100)
    came = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for i, (kind, _) in enumerate(SHARDED):
        model = MODELS[kind]().double()
        for tokens in torch.tensor([row["input_ids"] for row in texts()]).chunk(2):
            logits, labels = model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
            criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(schedule=0.5))
            criterion(logits, labels, normalizer=LABELS).backward()
        for grads in came:
            for parameter, grad in zip(model.parameters(), grads[i], strict=True):
                torch.testing.assert_close(grad, parameter.grad, rtol=1e-9, atol=1e-12)
