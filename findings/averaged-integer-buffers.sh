#!/usr/bin/env bash
# An average of models with use_buffers=True averages integer buffers too, and cuts off the fraction.
#
# One would guess: "running averages for both the parameters and the buffers" means the floating
# buffers; integer ones, as BatchNorm's num_batches_tracked, are counts, and are copied from the
# model. A buffer that never changes keeps its value in any average.
#
# What happens: AveragedModel passes every buffer to avg_fn, which computes in float32 for an integer
# buffer; the result is cut off towards 0 when it is written back, at every update anew. So after 100
# batches a moving average with decay 0.9 says 90, and one with decay 0.999, or the plain mean of the
# models (50.5), says 1: each step adds less than 1, which is cut off. Buffers that never change do
# change: 3 becomes 2, and 20,000,001 becomes 20,000,000, the nearest number of float32. The
# multi_avg_fn for moving averages does the same.
#
# Where it matters: BatchNorm(momentum=None) divides by num_batches_tracked, so that training on from
# such an average gives the next batch the weight 1/2. Lightning's WeightAveraging and
# EMAWeightAveraging set use_buffers=True, use the average in validation, and leave it in the module.
#
# Seen with torch 2.13.0 on the CPU:
#   model                              num_batches_tracked 100, constant [3, 7, 20000001]
#   get_ema_avg_fn(0.9)                num_batches_tracked  90, constant [2, 6, 20000000]
#   get_ema_avg_fn(0.999)              num_batches_tracked   1, constant [3, 7, 20000000]
#   get_ema_multi_avg_fn(0.9)          num_batches_tracked  90, constant [2, 6, 20000000]
#   the mean (default)                 num_batches_tracked   1, constant [3, 7, 20000000]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0

"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

CONSTANT = [3, 7, 20_000_001]
AVERAGES = {
    "get_ema_avg_fn(0.9)": {"avg_fn": get_ema_avg_fn(0.9)},
    "get_ema_avg_fn(0.999)": {"avg_fn": get_ema_avg_fn(0.999)},
    "get_ema_multi_avg_fn(0.9)": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
    "the mean (default)": {},
}
EXPECTED = {
    "get_ema_avg_fn(0.9)": (90, [2, 6, 20_000_000]),
    "get_ema_avg_fn(0.999)": (1, [3, 7, 20_000_000]),
    "get_ema_multi_avg_fn(0.9)": (90, [2, 6, 20_000_000]),
    "the mean (default)": (1, [3, 7, 20_000_000]),
}

model = nn.BatchNorm1d(2)
model.register_buffer("constant", torch.tensor(CONSTANT))
averages = {name: AveragedModel(model, use_buffers=True, **how) for name, how in AVERAGES.items()}
for _ in range(100):
    model(torch.randn(4, 2))
    for average in averages.values():
        average.update_parameters(model)


def show(name, module):
    tracked, constant = module.num_batches_tracked.item(), module.constant.tolist()
    print(f"{name:34} num_batches_tracked {tracked:3}, constant {constant}")
    return tracked, constant


assert show("model", model) == (100, CONSTANT)
seen = {name: show(name, average.module) for name, average in averages.items()}
assert seen == EXPECTED, "the behaviour has changed"
PYTHON
