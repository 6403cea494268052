"""For averages of models: weighters and margins keep the state that they have in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sampleweights._buffers import ExactBuffers

__all__: list[str] = []


def averages(holders: Iterable[object]) -> list[nn.Module]:
    """The averaged models that callbacks hold, such as Lightning's ``EMAWeightAveraging``."""
    values = [value for holder in holders for value in vars(holder).values()]
    return [value.module for value in values if isinstance(value, AveragedModel)]


def weighting_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of the weighters and margins in ``module``."""
    return {
        f"{name}.{key}": buffer
        for name, part in module.named_modules()
        if isinstance(part, ExactBuffers)
        for key, buffer in part.named_buffers(recurse=False)
    }


def write(state: Mapping[str, Tensor], module: nn.Module) -> None:
    """Write ``state`` into the weighters and margins of ``module``, which may lack some."""
    for name, buffer in weighting_buffers(module).items():
        if name in state:
            buffer.copy_(state[name])
