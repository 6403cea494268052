"""
The tokens of a language model
==============================

A language model's samples are its tokens, and most are easy: the end of a long word, the space
after a full stop. A small model of characters reads Python's own documentation; ``OHEM`` keeps the
harder half of the characters at first and all of them in the end. Padding carries -100 and is never
kept. ``LinearCrossEntropyLoss`` takes the hidden states and the head, so that the logits of a large
vocabulary never fill the memory.
"""

from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import torch
from torch import nn

import sampleweights as sw

torch.set_num_threads(1)  # small tensors: more threads are slower

# %%
# The text is turned into the numbers of its characters.
text = "\n".join(topics.values())[:120_000]
alphabet = sorted(set(text))
tokens = torch.tensor([alphabet.index(c) for c in text])
rows = tokens[: len(tokens) // 64 * 64].view(-1, 64)
order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
test, train = rows[order[:300]], rows[order[300:]]
print(f"{len(text):,} characters, {len(alphabet)} different ones, {len(train)} rows to train on")

# %%
# The model returns hidden states, (N, T, D). The criterion shares the parameters of its head, and
# every token is a sample.
EPOCHS = 12


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(alphabet), 32)
        self.rnn = nn.GRU(32, 96, batch_first=True)
        self.head = nn.Linear(96, len(alphabet))

    def forward(self, x):
        return self.rnn(self.embed(x))[0]  # the head is for the criterion


def train_with(weighter, seed=0):
    torch.manual_seed(seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    criterion = sw.LinearCrossEntropyLoss.from_linear(
        model.head, weighter=weighter, reduction="weighted_mean"
    )
    for epoch in range(EPOCHS):
        criterion.set_epoch(epoch)
        for index in torch.randperm(len(train)).split(32):
            batch = train[index].clone()
            batch[:, 60:] = -100  # as if the last four were padding
            optimizer.zero_grad()
            criterion(model(batch[:, :-1].clamp(min=0)), batch[:, 1:]).backward()
            optimizer.step()
    per_token = sw.LinearCrossEntropyLoss.from_linear(model.head, reduction="none")
    with torch.no_grad():
        return per_token(model(test[:, :-1]), test[:, 1:])


results = {"all tokens": train_with(None), "OHEM": train_with(sw.OHEM(EPOCHS))}

# %%
# The table shows bits per character on held-out text, for all characters and for the hardest tenth.
# In such a short training mining makes almost no difference, and costs nothing.
for name, losses in results.items():
    bits = losses / torch.log(torch.tensor(2.0))
    hard = bits.flatten().topk(bits.numel() // 10).values
    print(f"{name:<11} {bits.mean():.3f} bits per character, hardest tenth {hard.mean():.2f}")

# %%
# The picture shows a row of the test text. The shade of each character is its loss under the model
# that was trained on all tokens. ``OHEM(schedule=0.5)`` would keep the black characters and leave
# out the grey ones.
losses = results["all tokens"][1]
kept = sw.OHEM(schedule=0.5)(losses) > 0
fig, ax = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
shades = ax.imshow(losses.view(3, 21), aspect="auto", cmap="Oranges", vmin=0, vmax=8)
for i, token in enumerate(test[1, 1:]):
    character = alphabet[token]
    ax.text(
        i % 21,
        i // 21,
        character if character.isprintable() else "·",
        color="black" if kept[i] else "silver",
        ha="center",
        va="center",
        family="monospace",
        fontsize=18,
    )
ax.axis("off")
fig.colorbar(shades, label="loss")
