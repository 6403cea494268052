"""The recipes of docs/integrations.md for post-hoc adjustment, and for packages that need no code
of ours.

Two of them are in no extra, so that `.ci/run` names their skips: mosaicml, which composer is, pins
torch below 2.7.1, and fastai brings 45 packages. By hand: ``pip install fastai`` beside the newest
torch, and ``pip install mosaicml`` in an environment of its own.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import sampleweights as sw

pytestmark = pytest.mark.filterwarnings("ignore")
PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
COUNTS = [30, 20, 10]
TARGET = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))[torch.randperm(60)]


def recipe(section: str, block: int = 0, **names: Any) -> dict[str, Any]:
    """What a block of code of a section defines."""
    text = re.split(r"\n##+ ", PAGE.split(f"\n### {section}\n")[1])[0]
    code = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    exec(code, names := {"sw": sw, **names})
    return names


def adjusted(logits: Tensor, tau: float) -> Tensor:
    """Post-hoc logit adjustment by the formula."""
    shift = [tau * math.log(n / sum(COUNTS)) for n in COUNTS]
    return torch.stack([logits[:, c] - shift[c] for c in range(3)], 1)


@pytest.mark.slow
def test_posthoc_in_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    callback = pytest.importorskip("sampleweights.integrations.lightning").WeightingCallback
    torch.manual_seed(0)
    classifier = recipe("Lightning: `predict_step`", nn=nn)["Classifier"]
    model, images = nn.Linear(5, 3), torch.randn(60, 5)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    arguments = {"accelerator": "cpu", "default_root_dir": tmp_path, **options}

    def predicted(module: Any, **more: Any) -> Tensor:
        loader = DataLoader(TensorDataset(images, TARGET), batch_size=20)
        return torch.cat(lightning.Trainer(**arguments, **more).predict(module, loader))

    expected = adjusted(model(images), 0.5).argmax(1)
    assert not expected.equal(model(images).argmax(1))
    assert not expected.equal(adjusted(model(images), 1.0).argmax(1))
    module = classifier(model, COUNTS, 0.5)
    module.criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(4))  # for the callback to find
    assert predicted(module).equal(expected)
    assert predicted(module, callbacks=[callback()]).equal(expected)
    trainer = lightning.Trainer(**arguments)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "checkpoint")
    again = {"model": nn.Linear(5, 3), "class_counts": COUNTS}
    path = tmp_path / "checkpoint"
    loaded = classifier.load_from_checkpoint(path, **again, tau=0.5, strict=False)
    assert predicted(loaded).equal(expected)


@pytest.mark.slow
def test_posthoc_in_the_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(5, 3)

        def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(features)
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    torch.manual_seed(0)
    model, images = Model(), torch.randn(60, 5)
    names = recipe(
        "Hugging Face Trainer: `preprocess_logits_for_metrics`",
        model=model,
        arguments=transformers.TrainingArguments(
            str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True
        ),
        dataset=None,
        class_counts=COUNTS,
        tau=0.5,
    )
    rows = [{"features": x, "labels": y} for x, y in zip(images, TARGET, strict=True)]
    found = names["trainer"].predict(rows)
    logits = model.net(images)
    torch.testing.assert_close(torch.tensor(found.predictions), adjusted(logits, 0.5))
    plain = functional.cross_entropy(logits, TARGET).item()
    assert found.metrics["test_loss"] == pytest.approx(plain, rel=1e-5)
    tokens = torch.randn(2, 4, 3)
    torch.testing.assert_close(
        names["adjustment"].posthoc(tokens.mT).mT.flatten(0, 1), adjusted(tokens.flatten(0, 1), 0.5)
    )


@pytest.mark.slow
def test_posthoc_is_exported() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.randn(12, 1, 4, 4)
    section = "Export: `torch.export`"
    names = {"nn": nn, "torch": torch, "model": model, "images": images}
    names = recipe(section, class_counts=COUNTS, tau=0.5, **names)
    others = torch.randn(5, 1, 4, 4)  # a batch of another size
    expected = adjusted(model(others), 0.5).detach()
    torch.testing.assert_close(names["program"].module()(others), expected)
    calibrated = recipe(section, 1, **names)["calibrated"]
    torch.testing.assert_close(calibrated(others), model(others))  # of a temperature of 1
    recipe(section, 2, **names)  # the bias of the same model
    torch.testing.assert_close(model(others), expected)


class Watch:
    """The losses and the weights of every batch."""

    def __init__(self, criterion: sw.Criterion) -> None:
        self.seen: list[tuple[Tensor, Tensor, Any]] = []
        criterion.register_weighting_hook(self)

    def __call__(self, criterion: sw.Criterion, samples: Any, weight: Any) -> None:
        self.seen.append((samples.loss.detach(), samples.target, weight))


@pytest.mark.slow
def test_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = tokenizers.models.WordLevel({str(i): i for i in range(32)}, unk_token="0")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), pad_token="1", eos_token="2", unk_token="0"
    )

    def new() -> Any:
        torch.manual_seed(0)
        sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "pad_token_id": 1}
        sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).double()

    rows = [[3 + (5 * i + j) % 29 for j in range(4 + i)] for i in range(6)]  # of 4 to 9 tokens
    columns = {
        "input_ids": rows,
        "labels": [[-100, *row[1:]] for row in rows],
        "sample_weight": [[0.25 * ((i + j) % 5) for j in range(len(rows[i]))] for i in range(6)],
    }
    arguments = trl.SFTConfig(
        str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=0.5,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        bf16=False,
        packing=True,
        max_length=12,  # 4 rows, of 1 or 2 texts
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    dataset = datasets.Dataset.from_dict(columns)
    trained = new()
    names = recipe("trl", model=trained, arguments=arguments, dataset=dataset, tokenizer=tokenizer)
    loss = names["trainer"].train().training_loss
    model, total = new(), torch.zeros((), dtype=torch.double)
    for row, weight in zip(rows, columns["sample_weight"], strict=True):  # each text alone
        logits = model(torch.tensor([row])).logits[0, :-1]
        of_token = functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none")
        total = total + (of_token * of_token.detach().neg().exp() * torch.tensor(weight)[1:]).sum()
    (total / 33).backward()
    assert loss == pytest.approx(total.item() / 33, rel=1e-6)
    for before, after in zip(model.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.5 * before.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_sentence_transformers(tmp_path: Path) -> None:
    package = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.models")
    datasets = pytest.importorskip("datasets")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]")
    embedding = models.StaticEmbedding(tokenizers.Tokenizer(words), embedding_dim=4)
    model = package.SentenceTransformer(modules=[embedding], device="cpu")
    labels = [0, 0, 0, 1, 1, 2, 0, 0]
    dataset = datasets.Dataset.from_dict(
        {"premise": list("abcabcab"), "hypothesis": list("aabbccaa"), "label": labels}
    )
    arguments = package.SentenceTransformerTrainingArguments(
        str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=8,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    names = recipe(
        "sentence-transformers",
        model=model,
        arguments=arguments,
        dataset=dataset,
        class_counts=[5, 2, 1],
        num_epochs=4,
    )
    watch = Watch(names["criterion"])
    names["trainer"].train()
    [(loss, target, _)] = watch.seen
    weighted = loss * torch.tensor([8 / 3 / 5, 8 / 3 / 2, 8 / 3])[target]
    [logged] = [row["loss"] for row in names["trainer"].state.log_history if "loss" in row]
    assert logged == pytest.approx((weighted.topk(4).values.sum() / 8).item(), rel=1e-4)


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_opacus(mode: str) -> None:
    """Without noise and clipping the gradient is that of the plain training."""
    pytest.importorskip("opacus")
    torch.manual_seed(0)
    model, images = nn.Linear(5, 3), torch.randn(60, 5)
    plain = nn.Linear(5, 3)
    plain.load_state_dict(model.state_dict())
    loader = DataLoader(TensorDataset(images, TARGET), batch_size=20)
    names = recipe(
        "Opacus",
        0,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        train_loader=loader,
        class_counts=COUNTS,
    )
    if mode == "ghost":
        model = nn.Linear(5, 3)
        model.load_state_dict(plain.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        names.update(model=model, optimizer=optimizer, train_loader=loader)
        names = recipe("Opacus", 1, **names)
    names["optimizer"].noise_multiplier = 0.0
    names["optimizer"].max_grad_norm = 1e6
    if mode == "ghost":
        names["private"].max_grad_norm = 1e6
    part = slice(0, 20)
    names["criterion"](names["private"](images[part]), TARGET[part]).backward()
    names["optimizer"].step()
    weight = torch.tensor([60 / 3 / n for n in COUNTS])[TARGET[part]]
    (
        functional.cross_entropy(plain(images[part]), TARGET[part], reduction="none") * weight
    ).mean().backward()
    torch.testing.assert_close(model.weight.grad, plain.weight.grad)


def test_composer() -> None:
    composer = pytest.importorskip("composer")
    torch.manual_seed(0)
    names = recipe("Composer", module=nn.Linear(5, 3), num_epochs=4)
    loader = DataLoader(TensorDataset(torch.randn(60, 5), TARGET), batch_size=20)
    watch = Watch(names["criterion"])
    composer.Trainer(
        model=names["model"],
        train_dataloader=loader,
        max_duration="2ep",
        callbacks=[names["SetEpoch"]()],
        optimizers=torch.optim.SGD(names["model"].parameters(), 0.1),
        progress_bar=False,
        device="cpu",
    ).fit()
    shares = [sw.schedules.Sigmoid(4)(epoch) for epoch in (0, 0, 0, 1, 1, 1)]
    assert [int(w.sum()) for *_, w in watch.seen] == [round(20 * share) for share in shares]


def test_tensordict() -> None:
    tensordict = pytest.importorskip("tensordict")
    torch.manual_seed(0)
    module, images, weight = nn.Linear(5, 3), torch.randn(60, 5), torch.rand(60)
    batch = tensordict.TensorDict(
        {"image": images, "target": TARGET, "weight": weight}, batch_size=[60]
    )
    loss = recipe("tensordict", module=module, batch=batch)["loss"]
    each = functional.cross_entropy(module(images), TARGET, reduction="none")
    torch.testing.assert_close(loss, (weight * each).mean())


def test_pytorch_metric_learning() -> None:
    package = pytest.importorskip("pytorch_metric_learning")
    torch.manual_seed(0)
    names = recipe(
        "pytorch-metric-learning",
        num_classes=3,
        embedding_size=5,
        num_epochs=4,
        model=nn.Linear(2, 5),
    )
    assert len(names["parameters"]) == 3
    embeddings = torch.randn(60, 5)
    names["arcface"].reducer = package.reducers.MeanReducer()
    mean = names["arcface"](embeddings, TARGET)
    names["arcface"].reducer = package.reducers.DoNothingReducer()
    each = names["arcface"](embeddings, TARGET)["loss"]["losses"]
    torch.testing.assert_close(each.mean(), mean)  # one for each sample
    expected = each.topk(30).values.sum() / 60
    torch.testing.assert_close(names["criterion"](embeddings, TARGET), expected)


def test_skorch_counts_in_each_fit() -> None:
    skorch = pytest.importorskip("skorch")
    selection = pytest.importorskip("sklearn.model_selection")
    compute_class_weight = pytest.importorskip("sklearn.utils").compute_class_weight

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(5, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs)

    net = recipe("Class weights of each fit", skorch=skorch, module=Module)["balanced_net"]
    net.set_params(verbose=0, max_epochs=1)
    inputs, target = torch.randn(60, 5).numpy(), np.arange(60) % 2
    target[:4] = 2  # in one fold and in no other
    target[20:25] = 0  # so that no two folds have the same counts
    found: list[Any] = []

    def score(fitted: Any, inputs: Any, target: Any) -> float:
        found.append(fitted.criterion_.weighter)
        return 0.0

    folds = selection.KFold(3)
    selection.cross_val_score(net, inputs, target, cv=folds, scoring=score)
    assert len(found) == 3
    for weighter, (train, _) in zip(found, folds.split(inputs), strict=True):
        y = target[train]
        assert weighter.class_counts.tolist() == np.bincount(y, minlength=3).tolist()
        present = np.unique(y)
        expected = compute_class_weight("balanced", classes=present, y=y)
        torch.testing.assert_close(weighter.class_weight[present], torch.from_numpy(expected))
    assert len({tuple(weighter.class_counts.tolist()) for weighter in found}) == 3


def test_batches_as_those_of_pytorch_metric_learning() -> None:
    samplers = pytest.importorskip("pytorch_metric_learning.samplers")
    target = torch.arange(9).repeat_interleave(8)
    names = recipe(
        "pytorch-metric-learning",
        block=1,
        DataLoader=DataLoader,
        train_targets=target,
        dataset=TensorDataset(target),
    )
    ours = [batch for (batch,) in names["loader"]]
    theirs = samplers.MPerClassSampler(target, 4, 32, len(target))
    assert len(ours) == len(theirs) // 32 == 2
    for batch in [*ours, *target[list(theirs)].split(32)]:
        counts = batch.unique(return_counts=True)[1]
        assert counts.tolist() == [4] * 8


def test_fastai() -> None:
    learner = pytest.importorskip("fastai.learner")
    data = pytest.importorskip("fastai.data.core")
    torch.manual_seed(0)
    names = recipe("fastai", num_epochs=4)
    dataset = TensorDataset(torch.randn(60, 5), TARGET)
    loaders = data.DataLoaders.from_dsets(dataset, dataset, bs=20)
    model = nn.Linear(5, 3)
    learn = learner.Learner(loaders, model, loss_func=names["criterion"], cbs=[names["SetEpoch"]()])
    learn.remove_cbs([cb for cb in learn.cbs if "Progress" in type(cb).__name__])
    with learn.no_logging():
        learn.fit(2)
        probabilities, _, predicted = learn.get_preds(with_decoded=True)
    assert names["criterion"].weighter.fraction == sw.schedules.Sigmoid(4)(1)
    logits = model(dataset.tensors[0])
    torch.testing.assert_close(probabilities, logits.softmax(1).detach())
    assert predicted.equal(logits.argmax(1))


def test_monai() -> None:
    data = pytest.importorskip("monai.data")
    torch.manual_seed(0)
    model, image = nn.Conv2d(1, 3, 1), torch.randn(2, 1, 4, 4)
    label = torch.randint(3, (2, 1, 4, 4)).float()
    batch = {"image": data.MetaTensor(image), "label": data.MetaTensor(label)}
    loss = recipe("MONAI", model=model, batch=batch, num_epochs=4)["loss"]
    each = functional.cross_entropy(model(image), label[:, 0].long(), reduction="none")
    assert loss.item() == pytest.approx((each.flatten().topk(16).values.sum() / 32).item())
