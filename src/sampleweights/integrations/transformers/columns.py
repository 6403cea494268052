"""Columns of a data set that are for the criterion, and that a collator does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sampleweights._checks import is_index

PER_SAMPLE = ("sample_weight", "reference_loss")
COLUMNS = (*PER_SAMPLE, "index")


def without_columns(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the model gets."""
    return {name: value for name, value in inputs.items() if name not in COLUMNS}


class KeepColumns:
    """A collator that takes the columns out of the features, since others may not know them."""

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator

    def __call__(self, features: list[Any]) -> Any:
        if not isinstance(features[0], Mapping):
            return self.collator(features)
        features_of_model = [without_columns(feature) for feature in features]
        batch = self.collator(features_of_model)
        for name in COLUMNS:
            values = [torch.as_tensor(f[name]) for f in features if name in f]
            if values and len(values) < len(features):
                raise ValueError(
                    f"{name} must be in all rows of the data set or in none, got {len(values)} of "
                    f"{len(features)} rows of a batch that have it"
                )
            if values:
                batch[name] = self._collate(name, values, features_of_model, batch.get("labels"))
        return batch

    def _collate(
        self, name: str, values: list[Tensor], features: list[dict[str, Any]], labels: Any
    ) -> Tensor:
        """One value for each row of the batch, or one for each label."""
        shape, same_rows = values[0].shape, labels is None or len(labels) == len(values)
        same = same_rows and all(value.shape == shape for value in values)
        of_tokens = labels is not None and labels.ndim == 2 and is_index(labels) and len(shape) == 1
        if same and not (of_tokens and shape != labels.shape[1:]):
            return torch.stack(values)
        if name == "index":
            raise ValueError(
                f"the rows of a batch must be those of the data set for its column 'index', got "
                f"{len(values)} in a batch of {len(labels)}: the collator has joined them"
            )
        return self._where_labels_go(name, values, features, labels)

    def _where_labels_go(
        self, name: str, values: list[Tensor], features: list[dict[str, Any]], labels: Tensor
    ) -> Tensor:
        """Found by collating numbers in the place of the labels, none of which may be an id."""
        numbered, parts, start = [], [], 0
        for value, feature in zip(values, features, strict=True):
            tokens: dict[str, Any] = {
                key: feature[key] for key in ("input_ids", "labels") if key in feature
            }
            length = len([*tokens.values()][-1]) if tokens else 0
            if value.ndim and value.shape != (length,):
                raise ValueError(
                    f"{name} must be one number for each row of the data set, or one for each of "
                    f"its labels, got shape {tuple(value.shape)} for {length} labels"
                )
            size = max(map(len, tokens.values()), default=0)
            parts.append(torch.cat([value.expand(length), value.new_zeros(size - length)]))
            numbers = {key: _numbers_like(value, start) for key, value in tokens.items()}
            numbered.append({**feature, **numbers})
            start += size
        position = _FIRST - self.collator(numbered)["labels"]
        there = position >= 0
        if position.shape != labels.shape or bool((labels.ne(-100) & ~there).any()):
            raise ValueError(
                f"the collator must take its labels from 'labels' or 'input_ids' for {name} to "
                f"follow them, but those of {type(self.collator).__name__} come from elsewhere"
            )
        return torch.cat(parts)[position.clamp(min=0)].masked_fill(~there, 0)


_FIRST = -1000


def _numbers_like(tokens: Any, start: int) -> Any:
    """-1000 - start and what comes below: no collator has such ids of its own."""
    numbers = list(range(_FIRST - start, _FIRST - start - len(tokens), -1))
    return torch.tensor(numbers) if isinstance(tokens, Tensor) else numbers
