"""A model is exported together with what was fitted after its training."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

import sampleweights as sw

CLASSES = 4


def made(kind: str) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 5, generator=generator)
    model = nn.Linear(5, {"classes": CLASSES, "one logit": 1, "labels": 3}[kind])
    with torch.no_grad():
        logits = model(images)
    shape = (60,) if kind == "classes" else logits.shape
    target = torch.randint(CLASSES if kind == "classes" else 2, shape, generator=generator)
    calibration = sw.Calibration.fit(logits, target)
    sets = sw.PredictionSets.fit(calibration(logits), target, 0.8)
    others = torch.randn(60, 5, generator=generator)  # none of them is right at the threshold
    return nn.Sequential(model, calibration, sets), others


@pytest.mark.parametrize("kind", ["classes", "one logit", "labels"])
@pytest.mark.parametrize("parts", [2, 3])
def test_torch_export_computes_the_same(kind: str, parts: int) -> None:
    whole, images = made(kind)
    model = whole[:parts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, which change with its version
        batch = torch.export.Dim("batch", min=1)
        exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        file = io.BytesIO()
        torch.export.save(exported, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
    for size in (60, 7):
        assert loaded(images[:size]).equal(model(images[:size]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "one logit", "labels"])
def test_onnx_computes_the_same(kind: str) -> None:
    pytest.importorskip("onnxscript", reason="torch exports to ONNX with it")
    reference = pytest.importorskip("onnx.reference")
    whole, images = made(kind)
    for parts in (2, 3):
        model = whole[:parts].eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
        [found] = reference.ReferenceEvaluator(program.model_proto).run(
            None, {program.model.graph.inputs[0].name: images.numpy()}
        )
        torch.testing.assert_close(torch.from_numpy(found), model(images))


def test_compiled() -> None:
    whole, images = made("classes")
    compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)
    assert compiled(images).equal(whole(images))
