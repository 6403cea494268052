#!/usr/bin/env bash
# A causal language model in the Trainer of transformers, one batch, no accumulation: is the loss that
# the Trainer reports the loss that the model returns for the same batch?
#
# One would guess: yes. The Trainer counts the labels and passes the number for the mean, without the
# first label of each row, which has no loss, where it sees that the model's loss shifts the labels.
#
# What happens, transformers 5.24.0 (torch 2.13.0, CPU): it sees that in the name of the class. Of
# GPT2LMHeadModel, which is not named "...ForCausalLM", it counts the first labels, and loss and
# gradient are (T - 1) / T of the mean over the tokens: 6 / 7 for rows of 7 tokens. LlamaForCausalLM
# is right. In `model(input_ids, labels=...)` both are.
#
# Output:
#   GPT2LMHeadModel (loss_type None): model 2.399, Trainer 2.056, ratio 0.857
#   LlamaForCausalLM (loss_type ForCausalLM): model 2.422, Trainer 2.422, ratio 1.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
cat > run.py <<'PYTHON'
import torch
import transformers as hf

torch.manual_seed(0)
tokens = torch.randint(1, 11, (8, 7))
data = [{"input_ids": row, "labels": row} for row in tokens]
gpt2 = hf.GPT2Config(
    vocab_size=11, n_positions=8, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
    attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
)
llama = hf.LlamaConfig(
    vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
)
ratios = []
for build in (lambda: hf.GPT2LMHeadModel(gpt2), lambda: hf.LlamaForCausalLM(llama)):
    hf.set_seed(0)
    model = build()
    with torch.no_grad():
        own = model(input_ids=tokens, labels=tokens).loss.item()
    arguments = hf.TrainingArguments(
        "output", use_cpu=True, report_to=[], disable_tqdm=True, max_steps=1, save_strategy="no",
        per_device_train_batch_size=8,
    )
    loss = hf.Trainer(model, arguments, train_dataset=data).train().training_loss
    ratios.append(loss / own)
    print(
        f"{type(model).__name__} (loss_type {model.loss_type}): model {own:.3f}, Trainer "
        f"{loss:.3f}, ratio {ratios[-1]:.3f}"
    )
same = abs(ratios[0] - 6 / 7) < 1e-3 and abs(ratios[1] - 1) < 1e-3
raise SystemExit(0 if same else "the behaviour has changed")
PYTHON
"$folder/venv/bin/python" run.py 2> "$folder/errors" | grep -v "^{" || { cat "$folder/errors" >&2; exit 1; }
