"""Trainings of one update with a known result, for tests in one process and in two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import sampleweights as sw
from sampleweights.integrations.transformers import WeightingTrainer

ROWS = 8
TREE = sw.Taxonomy({"animal": ["cat", "dog"], "plant": ["oak"]})


class Model(nn.Module):
    """Anything on features; knows no labels, so that the Trainer would remove them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(features)}


def language_model(kind: str) -> Any:
    sizes = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "llama":  # the Trainer counts its labels after the first of each row
        config = transformers.LlamaConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, **sizes,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config)
    config = transformers.GPT2Config(  # and of this one all labels
        n_positions=8, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, **sizes,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


def classes(*shape: int, high: int = 3) -> Tensor:
    return torch.randint(high, shape)


def without(labels: Tensor, value: float, share: float = 0.4) -> Tensor:
    """Other shares of ignored labels in each row."""
    share = share * torch.linspace(0.2, 1.8, len(labels)).view(-1, *[1] * (labels.ndim - 1))
    return labels.masked_fill(torch.rand(labels.shape) < share, value)


class Case(NamedTuple):
    """What is trained, and what is right."""

    model: Callable[[], nn.Module]
    columns: Callable[[], dict[str, Tensor]]
    criterion: Callable[[], Any]
    right: Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, Tensor]]
    """(logits, columns) to losses and what each adds to the denominator, in plain torch."""
    evaluated: Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, Tensor]] | None = None
    """Where evaluation, which has no weighter, is something else."""
    shift: bool = False
    fused_head: bool = False


def cross_entropy(logits: Tensor, columns: dict[str, Tensor], ignore: int = -100) -> Any:
    labels = columns["labels"]
    loss = F.cross_entropy(logits, labels, reduction="none", ignore_index=ignore)
    return loss, labels.ne(ignore).double()


def of_tokens(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    labels = columns["labels"][:, 1:]
    loss = F.cross_entropy(logits[:, :-1].mT, labels, reduction="none")
    return loss, labels.ne(-100).double()


def of_weighted_tokens(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss, there = of_tokens(logits, columns)
    return loss * columns["sample_weight"][:, 1:], there


def of_confident_tokens(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss, there = of_tokens(logits, columns)
    return loss * loss.detach().neg().exp(), there


def of_sigmoids(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    labels = columns["labels"]
    there = ~(labels.isnan() | labels.eq(-1))
    loss = F.binary_cross_entropy_with_logits(logits, labels.where(there, 0), reduction="none")
    return loss * there, there.double()


def of_probabilities(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss = -(columns["labels"] * logits.log_softmax(1)).sum(1)
    return loss, torch.ones_like(loss)


def of_token_probabilities(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss = -(columns["labels"] * logits.log_softmax(-1)).sum(-1)
    return loss, torch.ones_like(loss)


WEIGHT = torch.tensor([0.5, 1.0, 4.0])


def class_weighted(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss, there = cross_entropy(logits, columns)
    weight = WEIGHT[columns["labels"].clamp(min=0)] * there
    return loss * weight, weight


def balanced(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss, there = cross_entropy(logits, columns)
    weight = torch.tensor([10 / 15, 10 / 9, 10 / 6])[columns["labels"].clamp(min=0)] * there
    return loss * weight, weight


def sample_weighted(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss, there = cross_entropy(logits, columns)
    return loss * columns["sample_weight"], there


def over_sample_weights(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    loss, there = sample_weighted(logits, columns)
    return loss, there * columns["sample_weight"]


def of_levels(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    labels = columns["labels"]
    loss = F.cross_entropy(logits.mT, labels, reduction="none").sum(1)
    return loss, labels.ne(-100).any(1).double()


def of_tree(logits: Tensor, columns: dict[str, Tensor]) -> Any:
    labels = columns["labels"]
    levels = TREE.level_targets(labels.clamp(min=0)).where(labels[:, None] >= 0, -100)
    loss = F.cross_entropy(logits.mT, levels, reduction="none").sum(1)
    return loss, labels.ne(-100).double()


def linear(out: int) -> Callable[[], nn.Module]:
    return lambda: Model(nn.Linear(4, out))


def levelled(levels: int, nodes: int) -> Callable[[], nn.Module]:
    return lambda: Model(
        nn.Sequential(nn.Linear(4, levels * nodes), nn.Unflatten(1, (levels, nodes)))
    )


def rows(labels: Callable[[], Tensor], *shape: int, **columns: Callable[[], Tensor]) -> Any:
    def build() -> dict[str, Tensor]:
        built = {"features": random(ROWS, *(shape or (4,))), "labels": labels()}
        return built | {name: column() for name, column in columns.items()}

    return build


def texts() -> dict[str, Tensor]:
    tokens = classes(ROWS, 7, high=11)
    labels = without(tokens, -100)
    labels[::2, 0] = tokens[::2, 0]  # labels without a loss
    labels[1::2, 0] = -100
    return {"input_ids": tokens, "labels": labels}


def weighted_texts() -> dict[str, Tensor]:
    columns = texts()
    return columns | {"sample_weight": torch.rand(columns["labels"].shape)}


def ignored_classes() -> Tensor:
    labels = classes(ROWS)
    labels[1] = -100
    return labels


def weights(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(ROWS, *shape) * torch.arange(ROWS).view(-1, *[1] * len(shape))


def levels_of_rows() -> Tensor:
    labels = torch.stack([classes(ROWS), classes(ROWS)], 1)
    labels[2:5, 1] = -100
    labels[6] = -100
    return labels


def leaves() -> Tensor:
    labels = classes(ROWS)
    labels[3] = -100
    return labels


def distributions(*shape: int) -> Callable[[], Tensor]:
    return lambda: random(ROWS, *shape).softmax(1 if len(shape) != 2 else -1)


PLAIN = {"gamma": 0.0, "alpha": None}
CASES = {
    "segmentation": Case(
        lambda: Model(nn.Conv2d(2, 3, 1)),
        rows(lambda: without(classes(ROWS, 5, 4), 255), 2, 5, 4),
        lambda: sw.CrossEntropyLoss(ignore_index=255),
        lambda logits, columns: cross_entropy(logits, columns, 255),
    ),
    "nan": Case(
        linear(5),
        rows(lambda: without(classes(ROWS, 5, high=2).float(), torch.nan)),
        lambda: sw.BinaryFocalLoss(**PLAIN, ignore_index=torch.nan),
        of_sigmoids,
    ),
    "minus one": Case(
        linear(5),
        rows(lambda: without(classes(ROWS, 5, high=2).float(), -1)),
        lambda: sw.BCEWithLogitsLoss(ignore_index=-1),
        of_sigmoids,
    ),
    "nan, any loss": Case(
        linear(5),
        rows(lambda: without(classes(ROWS, 5, high=2).float(), torch.nan)),
        lambda: sw.WeightedLoss(nn.BCEWithLogitsLoss(reduction="none"), ignore_index=torch.nan),
        of_sigmoids,
    ),
    "gpt2": Case(
        lambda: language_model("gpt2"), texts, sw.CrossEntropyLoss, of_tokens, shift=True
    ),
    "llama": Case(
        lambda: language_model("llama"), texts, sw.CrossEntropyLoss, of_tokens, shift=True
    ),
    "gpt2, head": Case(  # its head is tied to the embedding, and that of Llama is not
        lambda: language_model("gpt2"),
        weighted_texts,
        sw.CrossEntropyLoss,
        of_weighted_tokens,
        shift=True,
        fused_head=True,
    ),
    "llama, head": Case(
        lambda: language_model("llama"),
        texts,
        lambda: sw.CrossEntropyLoss(weighter=sw.Confidence()),
        of_confident_tokens,
        of_tokens,
        shift=True,
        fused_head=True,
    ),
    "class weights": Case(
        linear(3),
        rows(ignored_classes),
        lambda: sw.CrossEntropyLoss(weight=WEIGHT),
        class_weighted,
    ),
    "weighted mean": Case(
        linear(3),
        rows(ignored_classes),
        lambda: sw.CrossEntropyLoss(
            weighter=sw.ClassBalanced([15, 9, 6]), reduction="weighted_mean"
        ),
        balanced,
        cross_entropy,
    ),
    "sample weights": Case(
        linear(3),
        rows(ignored_classes, sample_weight=weights()),
        sw.CrossEntropyLoss,
        sample_weighted,
    ),
    "index": Case(
        linear(3),
        rows(ignored_classes, index=lambda: torch.arange(ROWS)),
        sw.CrossEntropyLoss,
        cross_entropy,
    ),
    "over sample weights": Case(
        linear(3),
        rows(ignored_classes, sample_weight=weights()),
        lambda: sw.CrossEntropyLoss(reduction="weighted_mean"),
        over_sample_weights,
    ),
    "levels": Case(
        levelled(2, 3),
        rows(levels_of_rows),
        lambda: sw.HierarchicalLoss(sw.CrossEntropyLoss()),
        of_levels,
    ),
    "tree": Case(
        levelled(TREE.num_levels, TREE.num_nodes),
        rows(leaves),
        lambda: sw.HierarchicalLoss(sw.CrossEntropyLoss(), taxonomy=TREE),
        of_tree,
    ),
    "probabilities": Case(
        linear(3), rows(distributions(3)), sw.CrossEntropyLoss, of_probabilities
    ),
    "probabilities of pixels": Case(
        lambda: Model(nn.Conv2d(2, 3, 1)),
        rows(distributions(3, 5, 4), 2, 5, 4),
        lambda: sw.WeightedLoss(nn.CrossEntropyLoss(reduction="none")),
        of_probabilities,
    ),
    "probabilities of tokens": Case(
        linear(3), rows(distributions(5, 3), 5, 4), sw.CrossEntropyLoss, of_token_probabilities
    ),
}  # fmt: skip


def setting(name: str) -> tuple[Case, Any, dict[str, Tensor]]:
    transformers.set_seed(0)
    case = CASES[name]
    model = case.model()
    return case, model, case.columns()


def right(name: str) -> tuple[float, Tensor, float]:
    """One process on the whole batch: training loss, parameters after the update, evaluation."""
    case, model, columns = setting(name)
    inputs = {k: v for k, v in columns.items() if k in ("features", "input_ids")}
    loss, number = case.right(model(**inputs)["logits"], columns)
    mean = loss.sum() / number.sum()
    mean.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * parameter.grad
        loss, number = (case.evaluated or case.right)(model(**inputs)["logits"], columns)
        return float(mean), flat(model), float(loss[:7].sum() / number[:7].sum())


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def reached(
    name: str,
    folder: Path,
    *,
    history: sw.LossHistory | None = None,
    resume: bool = False,
    **options: Any,
) -> tuple[float, Tensor, float]:
    """The same from a real Trainer."""
    case, model, columns = setting(name)
    data: Any = [{k: v[i] for k, v in columns.items()} for i in range(ROWS)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], lr_scheduler_type="constant",
        disable_tqdm=True, max_grad_norm=0.0, optim="sgd", learning_rate=0.5, num_train_epochs=1,
        per_device_eval_batch_size=2, logging_steps=1, **{"save_strategy": "no"} | options,
    )  # fmt: skip
    trainer = WeightingTrainer(
        model,
        arguments,
        train_dataset=data,
        criterion=case.criterion(),
        shift=case.shift,
        fused_head=case.fused_head,
        history=history,
    )
    loss = trainer.train(resume).training_loss
    return loss, flat(model), trainer.evaluate(data[:7])["eval_loss"]
