"""What needs no code of ours: Accelerate, skorch, scikit-learn's vocabulary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS = 3


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(32, 5, generator=g), torch.randint(3, (32,), generator=g)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def test_accelerate_checkpoints_a_criterion(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")

    def train(epochs: range, resume: Path | None = None, save: Path | None = None) -> Any:
        accelerator = accelerate.Accelerator(cpu=True)
        model = network()
        criterion = sw.CrossEntropyLoss(weighter=sw.OHEM(2 * EPOCHS))
        history = sw.LossHistory(32)
        model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 0.05))
        accelerator.register_for_checkpointing(criterion, history)
        if resume is not None:
            accelerator.load_state(str(resume))
            assert criterion.weighter.fraction == sw.schedules.Sigmoid(2 * EPOCHS)(epochs.start - 1)
        for epoch in epochs:
            criterion.set_epoch(epoch)
            inputs, target = data()
            for index in torch.arange(32).split(8):
                optimizer.zero_grad()
                with history.record(criterion, index):
                    loss = criterion(model(inputs[index]), target[index])
                accelerator.backward(loss)
                optimizer.step()
            history.end_epoch()
        if save is not None:
            accelerator.save_state(str(save))
        return [*model.state_dict().values(), *history.state_dict().values()]

    whole = train(range(EPOCHS))
    train(range(2), save=tmp_path)
    resumed = train(range(2, EPOCHS), resume=tmp_path)
    for a, b in zip(whole, resumed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


CRITERIA: dict[str, tuple[Any, dict[str, Any]]] = {
    "FocalLoss": (sw.FocalLoss, {"criterion__gamma": 1.0}),
    "WeightedLoss": (
        sw.WeightedLoss,
        {"criterion__criterion": nn.CrossEntropyLoss(reduction="none")},
    ),
}


@pytest.mark.parametrize("name", CRITERIA)
class TestSkorch:
    def net(self, name: str) -> Any:
        skorch = pytest.importorskip("skorch")

        class SetEpoch(skorch.callbacks.Callback):
            def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
                net.criterion_.set_epoch(len(net.history) - 1)

        criterion, options = CRITERIA[name]
        return skorch.NeuralNetClassifier(
            network,
            criterion=criterion,
            criterion__weighter=sw.OHEM(2 * EPOCHS),
            **options,
            optimizer=torch.optim.Adam,
            max_epochs=EPOCHS,
            batch_size=8,
            train_split=None,
            verbose=0,
            callbacks=[SetEpoch()],
        )

    def test_epochs_are_set(self, name: str) -> None:
        net = self.net(name)
        inputs, target = data()
        net.fit(inputs.numpy(), target.numpy())
        assert net.criterion_.weighter.fraction == sw.schedules.Sigmoid(2 * EPOCHS)(EPOCHS - 1)
        losses = net.history[:, "train_loss"]
        assert len(losses) == EPOCHS
        assert np.isfinite(losses).all()

    def test_a_stopped_training_ends_the_same(self, name: str, tmp_path: Path) -> None:
        inputs, target = (values.numpy() for values in data())
        whole = self.net(name).fit(inputs, target)
        files = {f"f_{part}": str(tmp_path / part) for part in ("params", "optimizer", "criterion")}
        files["f_history"] = str(tmp_path / "history.json")
        part = self.net(name).initialize()
        part.partial_fit(inputs, target, epochs=2)
        part.save_params(**files)
        resumed = self.net(name).initialize()
        resumed.load_params(**files)
        assert resumed.criterion_.weighter.fraction == sw.schedules.Sigmoid(2 * EPOCHS)(1)
        resumed.partial_fit(inputs, target, epochs=EPOCHS - 2)
        for a, b in zip(
            whole.module_.state_dict().values(), resumed.module_.state_dict().values(), strict=True
        ):
            assert a.equal(b)


def recipe(**names: Any) -> dict[str, Any]:
    """What the blocks of the page's section on skorch define."""
    page = Path(__file__).parents[2] / "docs" / "integrations.md"
    section = page.read_text(encoding="utf-8").split("## skorch")[1].split("\n## ")[0]
    for code in re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
        exec(code, names)
    return names


class TestTheRecipeForSkorch:
    def test_probabilities(self) -> None:
        skorch = pytest.importorskip("skorch")
        inputs, target = (values.numpy() for values in data())
        focal = recipe(sw=sw, module=network, num_epochs=3)["net"]
        plain = skorch.NeuralNetClassifier(
            network,
            criterion=sw.CrossEntropyLoss,
            predict_nonlinearity=focal.predict_nonlinearity,
        )
        for net in (focal, plain):
            net.set_params(max_epochs=2, verbose=0)
            net.fit(inputs, target)
            probabilities = net.predict_proba(inputs)
            np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
            with torch.no_grad():
                logits = net.module_(torch.from_numpy(inputs))
            np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), rtol=1e-5)

    def test_binary_probabilities(self) -> None:
        pytest.importorskip("skorch")
        inputs, target = data()[0].numpy(), (data()[1] > 0).numpy().astype("int64")

        def one_logit() -> nn.Module:
            torch.manual_seed(0)
            return nn.Linear(5, 1)

        net = recipe(sw=sw, module=one_logit, num_epochs=3)["binary_net"]
        net.set_params(max_epochs=20, lr=1.0, verbose=0)
        net.fit(inputs, target)
        probabilities = net.predict_proba(inputs)
        assert probabilities.shape == (32, 2)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
        with torch.no_grad():
            positive = net.module_(torch.from_numpy(inputs)).sigmoid().squeeze(1)
        np.testing.assert_allclose(probabilities[:, 1], positive.numpy(), rtol=1e-5)
        assert set(net.predict(inputs)) <= {0, 1}


def test_class_weights_are_scikit_learns_balanced() -> None:
    utils = pytest.importorskip("sklearn.utils.class_weight")
    target = data()[1]
    expected = utils.compute_class_weight("balanced", classes=np.arange(3), y=target.numpy())
    ours = sw.ClassBalanced.from_targets(target).class_weight
    np.testing.assert_allclose(ours.numpy(), expected)
