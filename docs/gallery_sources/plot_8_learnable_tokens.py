"""
Tokens that are hard but learnable
==================================

The hardest tokens of a text are often its noise: typing errors, numbers, broken markup. A reference
model that was trained on a little clean text tells the two apart, since noise is hard for both
models. Given its losses as ``reference_loss=``, ``OHEM`` keeps the tokens that the reference model
predicts better than the model in training (RHO-loss; Rho-1 for language models).
"""

from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import torch
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# The text is Python's own documentation, one token for each character. A part of it stays clean,
# for the reference model; another part, also clean, is the test. In the rest, which is the training
# text, every fifth character on average becomes a random one.
text = "\n".join(topics.values())[:180_000]
alphabet = sorted(set(text))
tokens = torch.tensor([alphabet.index(c) for c in text])
rows = tokens[: len(tokens) // 64 * 64].view(-1, 64)
generator = torch.Generator().manual_seed(0)
rows = rows[torch.randperm(len(rows), generator=generator)]
test, clean, train = rows[:300], rows[300:800], rows[800:]
is_noise = torch.rand(train.shape, generator=generator) < 0.2
noise = torch.randint(len(alphabet), train.shape, generator=generator)
train = torch.where(is_noise, noise, train)
print(
    f"{clean.numel():,} clean characters for the reference, {train.numel():,} with noise to train"
)

# %%
# A small recurrent network reads every row and predicts each next character. All three trainings
# see the same batches; those with ``OHEM`` learn from 60 % of the tokens of each. The model returns
# hidden states: the loss shares the parameters of its head, and computes logits chunk by chunk.
EPOCHS, KEPT = 5, 0.6


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(alphabet), 32)
        self.rnn = nn.GRU(32, 96, batch_first=True)
        self.head = nn.Linear(96, len(alphabet))

    def forward(self, x):
        return self.rnn(self.embed(x))[0]  # the head is for the criterion


def losses_of(model, rows):
    per_token = sw.LinearCrossEntropyLoss.from_linear(model.head, reduction="none")
    with torch.no_grad():
        return per_token(model(rows[:, :-1]), rows[:, 1:])


def train_on(rows, weighter=None, reference_loss=None, epochs=EPOCHS, seed=0):
    torch.manual_seed(seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        model.head, weighter=weighter, reduction="weighted_mean"
    )
    for _ in range(epochs):
        for index in torch.randperm(len(rows)).split(32):
            optimizer.zero_grad()
            hidden = model(rows[index, :-1])
            reference = None if reference_loss is None else reference_loss[index]
            criterion(hidden, rows[index, 1:], reference_loss=reference).backward()
            optimizer.step()
    return model


# %%
# The reference losses are computed once, before the training.
reference = train_on(clean, epochs=10)
reference_loss = losses_of(reference, train)
hard = sw.OHEM(schedule=KEPT)
models = {
    "reference": reference,
    "all tokens": train_on(train),
    "OHEM": train_on(train, hard),
    "OHEM with reference_loss": train_on(train, hard, reference_loss),
}

# %%
# The table shows bits per character on the clean test text, and what is kept in the end. ``OHEM``
# alone trains on noise and ends far behind. With the reference losses it is better than the
# training on all tokens, with this seed and with another, and better than the reference model.
noisy = is_noise[:, 1:]
bits, share = {}, {}
for name, model in models.items():
    bits[name] = (losses_of(model, test).mean() / torch.log(torch.tensor(2.0))).item()
    losses = losses_of(model, train)
    if name == "OHEM with reference_loss":
        losses = losses - reference_loss
    kept = hard(losses) > 0 if "OHEM" in name else torch.ones_like(noisy)
    share[name] = (kept & noisy).sum().item() / kept.sum().item()
    print(f"{name:<25} {bits[name]:.3f} bits per character, {share[name]:4.0%} of kept is noise")

# %%
# A part of the training text, with its noise in blue. The first line is shaded by the loss of each
# character under the model that learned from all tokens; the others show what ``OHEM`` keeps
# without and with the reference losses.
i = int(noisy[:200, :32].sum(1).argmax())
losses = losses_of(models["all tokens"], train)
kept = hard(losses)
kept_with_reference = hard(losses - reference_loss)
fig, ax = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
shades = torch.stack([losses[i], 4 * kept[i], 4 * kept_with_reference[i]])[:, :32]
ax.imshow(shades, aspect="auto", cmap="Oranges", vmin=0, vmax=8)
for j, token in enumerate(train[i, 1:33]):
    character = alphabet[token]
    for line in range(3):
        ax.text(
            j,
            line,
            character if character.isprintable() else "·",
            color="blue" if noisy[i, j] else "black",
            ha="center",
            va="center",
            family="monospace",
        )
ax.set_yticks([0, 1, 2], ["loss", "OHEM", "OHEM with\nreference_loss"])
ax.set_xticks([])
