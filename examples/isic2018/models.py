"""The paper's two models, on the feature maps of any encoder.

Both take feature maps (N, C, H, W) and know three things: the logits that a criterion trains
(``forward``), the log-probabilities of the diagnoses (``leaf_log_probs``), and where they looked
(``attention``). Numbers that the paper leaves open are those of the first author's earlier work on
the hierarchical model (Barata, Celebi & Marques, "Explainable skin lesion diagnosis using
taxonomies", Pattern Recognition 2021).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from sampleweights import Taxonomy


class Model(nn.Module):
    """What the training needs of a model."""

    def forward(self, maps: Tensor, target: Tensor) -> Tensor:
        """Logits for the criterion; ``target`` (N,) serves as teacher and does not leak."""
        raise NotImplementedError

    def leaf_log_probs(self, maps: Tensor) -> Tensor:
        """Log-probabilities (N, classes) of the diagnoses."""
        raise NotImplementedError

    def greedy(self, maps: Tensor) -> Tensor:
        """Classes (N,), decided level by level where the model has levels."""
        return self.leaf_log_probs(maps).argmax(1)

    def attention(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Of the last decision: spatial attention (N, H, W) and channel gates (N, C)."""
        raise NotImplementedError


class CBAM(nn.Module):
    """Channel gates, then spatial gates: Woo et al., "CBAM", ECCV 2018, Eq. 1 to 3.

    Parameters have the names and initial values of those of timm's ``CbamModule``, which the
    digits would need timm for, and which does not give its gates away.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        hidden = max(1, int(channels / reduction + 0.5))
        self.channel = nn.Sequential(
            OrderedDict(
                fc1=nn.Conv2d(channels, hidden, 1, bias=False),
                act=nn.ReLU(),
                fc2=nn.Conv2d(hidden, channels, 1, bias=False),
            )
        )
        conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.spatial = nn.Sequential(
            OrderedDict(conv=nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(1))))
        )

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gated maps (N, C, H, W), spatial gates (N, 1, H, W), channel gates (N, C, 1, 1)."""
        average, largest = maps.mean((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        channel = (self.channel(average) + self.channel(largest)).sigmoid()
        maps = maps * channel
        summary = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        spatial = self.spatial(summary).sigmoid()
        return maps * spatial, spatial, channel


class Flat(Model):
    """CBAM, global average pooling, dropout and one linear layer.

    Args:
        channels: of the feature maps.
        num_classes: how many diagnoses there are.
        dropout: probability, before the linear layer (0.5, the paper's).
    """

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.cbam = CBAM(channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, maps: Tensor, target: Tensor | None = None) -> Tensor:
        return self.classifier(self.dropout(self.cbam(maps)[0].mean((2, 3))))

    def leaf_log_probs(self, maps: Tensor) -> Tensor:
        return self(maps).float().log_softmax(1)

    def attention(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        _, spatial, channel = self.cbam(maps)
        return spatial[:, 0], channel[:, :, 0, 0]


class DynamicAttention(nn.Module):
    r"""Channel and spatial attention that an LSTM's state steers, one set of weights for all steps.

    .. math::
        a &= relu(W_1 avg(x) + b_1) + relu(W_1 max(x) + b_1) \\
        \beta &= sigmoid(W_2 tanh(a + W_s s)), \quad x' = \beta x \\
        \alpha &= softmax_i(v \cdot tanh(x'_i + U_s s)), \quad z = \sum_i \alpha_i x'_i
    """

    def __init__(self, channels: int, state: int, dropout: float) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 2)  # W1, b1
        self.channel_state = nn.Linear(state, channels // 2, bias=False)  # Ws
        self.excite = nn.Linear(channels // 2, channels)  # W2
        self.spatial_state = nn.Linear(state, channels)  # Us
        self.score = nn.Linear(channels, 1, bias=False)  # v
        self.dropout = nn.Dropout(dropout)

    def summary(self, locations: Tensor) -> Tensor:
        """What does not depend on the state: a (N, C / 2), from locations (N, H W, C)."""
        average, largest = locations.mean(1), locations.amax(1)
        return self.squeeze(average).relu() + self.squeeze(largest).relu()

    def forward(
        self, locations: Tensor, summary: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Context z (N, C), spatial attention alpha (N, H W), channel gates beta (N, C)."""
        beta = self.excite((summary + self.channel_state(state)).tanh()).sigmoid()
        gated = locations * beta[:, None]
        hidden = (gated + self.spatial_state(state)[:, None]).tanh()
        alpha = self.score(self.dropout(hidden))[..., 0].softmax(1)
        return (alpha[:, None] @ gated)[:, 0], alpha, beta


class Hierarchical(Model):
    """An LSTM that decides level by level, looking again at every step.

    Args:
        channels: of the feature maps.
        taxonomy: the tree of diagnoses.
        hidden: size of the LSTM (512).
        embedding: size of the embedding of the node decided before (50).
        dropout: probability, of the initial state, of the LSTM's input (the same units at every
            step) and of the state before the last layer (0.5).
        attention_dropout: probability, in the spatial attention (0.2).
    """

    def __init__(
        self,
        channels: int,
        taxonomy: Taxonomy,
        hidden: int = 512,
        embedding: int = 50,
        dropout: float = 0.5,
        attention_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.attend = DynamicAttention(channels, 2 * hidden, attention_dropout)
        self.initial = nn.Linear(channels, 2 * hidden)
        self.embed = nn.Embedding(taxonomy.num_nodes, embedding)
        self.lstm = nn.LSTMCell(channels + embedding, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * hidden, taxonomy.num_nodes)
        with torch.no_grad():  # forget bias 1; torch's gates are input, forget, cell, output
            self.lstm.bias_hh.zero_()
            self.lstm.bias_ih.zero_()
            self.lstm.bias_ih[hidden : 2 * hidden] = 1

    def forward(self, maps: Tensor, target: Tensor) -> Tensor:
        """Node logits (N, L, nodes); each step is told the true node of the level above."""
        previous = self.taxonomy.level_targets(target).clamp(min=0)  # a missing level is ignored
        decoder = _Decoder(self, maps)
        logits = []
        for level in range(self.taxonomy.num_levels):
            decoder.step(self.embed(previous[:, level - 1]) if level else None)
            logits.append(decoder.logits())
        return torch.stack(logits, dim=1)

    def node_logits(self, maps: Tensor) -> Tensor:
        """Node logits (N, L, nodes), each node's from the step that was told its true parent."""
        decoder = _Decoder(self, maps)
        decoder.step(None)
        first = decoder.logits()
        levels = [first] + [torch.zeros_like(first) for _ in range(self.taxonomy.num_levels - 1)]
        self._descend(decoder, -1, levels)
        return torch.stack(levels, dim=1)

    def _descend(self, decoder: _Decoder, node: int, levels: list[Tensor]) -> None:
        parent, level = self.taxonomy.node_parent, self.taxonomy.node_level
        for child in (parent == node).nonzero()[:, 0].tolist():
            grandchildren = (parent == child).nonzero()[:, 0]
            if len(grandchildren):
                branch = decoder.branch()
                branch.step(self.embed(grandchildren.new_full((len(branch.state),), child)))
                here = levels[int(level[child]) + 1]
                here[:, grandchildren] = branch.logits()[:, grandchildren]
                self._descend(branch, child, levels)

    def leaf_log_probs(self, maps: Tensor) -> Tensor:
        return self.taxonomy.leaf_log_probs(self.node_logits(maps).float())

    def greedy(self, maps: Tensor) -> Tensor:
        logits = self.node_logits(maps)
        paths = self.taxonomy.paths
        possible = torch.ones(len(maps), len(paths), dtype=torch.bool, device=maps.device)
        for level in range(self.taxonomy.num_levels):
            nodes = paths[:, level]
            score = logits[:, level, nodes.clamp(min=0)].masked_fill(
                ~possible | (nodes < 0), -torch.inf
            )
            chosen = nodes[score.argmax(1)]
            has_level = score.isfinite().any(1, keepdim=True)
            possible &= ~has_level | (nodes == chosen[:, None])
        return possible.to(torch.uint8).argmax(1)

    def attention(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        target = self.leaf_log_probs(maps).argmax(1)
        path = self.taxonomy.level_targets(target)
        decoder = _Decoder(self, maps)
        last = (path >= 0).sum(1) - 1
        spatial, channel = [], []
        for level in range(self.taxonomy.num_levels):
            decoder.step(self.embed(path[:, level - 1].clamp(min=0)) if level else None)
            spatial.append(decoder.alpha)
            channel.append(decoder.beta)
        rows = torch.arange(len(maps), device=maps.device)
        alpha = torch.stack(spatial, 1)[rows, last]
        return alpha.unflatten(1, maps.shape[2:]), torch.stack(channel, 1)[rows, last]


class _Decoder:
    """The LSTM on one batch of feature maps; a branch goes on from the same state."""

    alpha: Tensor
    beta: Tensor

    def __init__(self, model: Hierarchical, maps: Tensor) -> None:
        self.model = model
        self.locations = maps.flatten(2).transpose(1, 2)
        self.summary = model.attend.summary(self.locations)
        self.state = model.dropout(model.initial(self.locations.mean(1)).tanh())  # [c; h]
        width = model.lstm.input_size
        self.mask = model.dropout(self.state.new_ones(len(maps), width))  # the same at every step

    def branch(self) -> _Decoder:
        other = object.__new__(_Decoder)
        other.__dict__.update(self.__dict__)
        return other

    def step(self, embedding: Tensor | None) -> None:
        model = self.model
        context, self.alpha, self.beta = model.attend(self.locations, self.summary, self.state)
        if embedding is None:
            embedding = context.new_zeros(len(context), model.embed.embedding_dim)
        cell, hidden = self.state.chunk(2, dim=1)
        inputs = torch.cat([context, embedding], dim=1) * self.mask
        hidden, cell = model.lstm(inputs, (hidden, cell))
        self.state = torch.cat([cell, hidden], dim=1)

    def logits(self) -> Tensor:
        return self.model.classifier(self.model.dropout(self.state))
