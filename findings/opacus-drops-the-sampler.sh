#!/usr/bin/env bash
# Opacus' make_private replaces the sampler of the DataLoader, a weighted one too, and says nothing.
#
# One would guess: the loader comes back with its sampler, or there is an error, since class-balanced sampling and the privacy
# accounting do not go together.
# What happens: with the default poisson_sampling=True the returned loader draws each sample with the same probability. A
# WeightedRandomSampler that gave half of each batch to a class of 5 % gives it 5 % again, without a warning that names the
# sampler. It is so for per-sample gradients (hooks) and for ghost clipping. With poisson_sampling=False the sampler stays.
# Versions: opacus 1.6.0, torch 2.13.0, Python 3.11.
# Output seen (share of the rare class over 20 epochs, rounded):
#   given: WeightedRandomSampler, rare class 50 %
#   hooks, poisson_sampling=True: UniformWithReplacementSampler, rare class 5 %
#   hooks, poisson_sampling=False: WeightedRandomSampler, rare class 50 %
#   ghost, poisson_sampling=True: UniformWithReplacementSampler, rare class 5 %
#   ghost, poisson_sampling=False: WeightedRandomSampler, rare class 50 %
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0 opacus==1.6.0
cat > "$work/run.py" << 'EOF'
import warnings

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    torch.manual_seed(0)
    target = (torch.arange(1000) >= 950).long()
    weight = torch.where(target == 1, 1 / 50, 1 / 950)
    dataset = TensorDataset(torch.randn(1000, 5), target)

    def show(title, loader):
        drawn = torch.cat([labels for _ in range(20) for _, labels in loader])
        sampler = getattr(loader.batch_sampler, "sampler", loader.batch_sampler)
        share = 100 * drawn.double().mean().item()
        print(f"{title}: {type(sampler).__name__}, rare class {5 * round(share / 5)} %")

    def given():
        return DataLoader(dataset, 100, sampler=WeightedRandomSampler(weight, 1000))

    show("given", given())
    for mode in ("hooks", "ghost"):
        for poisson in (True, False):
            model = nn.Linear(5, 2)
            options = {} if mode == "hooks" else {"criterion": nn.CrossEntropyLoss(), "grad_sample_mode": mode}
            *_, loader = PrivacyEngine().make_private(
                module=model,
                optimizer=torch.optim.SGD(model.parameters(), 0.1),
                data_loader=given(),
                noise_multiplier=1.0,
                max_grad_norm=1.0,
                poisson_sampling=poisson,
                **options,
            )
            show(f"{mode}, poisson_sampling={poisson}", loader)
assert not [w for w in caught if "sampler" in str(w.message).lower()], "now a warning names the sampler"
EOF
"$work/venv/bin/python" "$work/run.py" | tee "$work/output"
sed -n 's/^#   //p' "$0" | diff - "$work/output"
