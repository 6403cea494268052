#!/usr/bin/env bash
# The SFTTrainer of trl on a tokenized data set with a column of weights, one for each token. Does the
# column reach the batch, so that a loss function of one's own could use it?
#
# One would guess: yes with remove_unused_columns=False, as in the Trainer of transformers.
#
# What happens, trl 1.16.0 (transformers 5.24.0, CPU): never. With packing=True the preparation keeps
# input_ids and labels alone. Without packing the column stays in the data set, and the collator leaves
# it out of the batch. Nothing warns.
#
# Output:
#   packing=False: data set ['input_ids', 'labels', 'weight'], batch ['attention_mask', 'input_ids', 'labels']
#   packing=True: data set ['input_ids', 'labels', 'seq_lengths'], batch without weight
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 trl==1.16.0 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
cat > run.py <<'PYTHON'
import datasets
import tokenizers
import transformers as hf
import trl

words = tokenizers.models.WordLevel({str(i): i for i in range(11)}, unk_token="0")
tokenizer = hf.PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(words), pad_token="1", eos_token="2", unk_token="0"
)
llama = hf.LlamaConfig(
    vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
)
columns = {"input_ids": [[3, 4, 5], [6, 7]], "labels": [[3, 4, 5], [6, 7]]}
data = datasets.Dataset.from_dict({**columns, "weight": [[1.0, 0.5, 0.5], [1.0, 2.0]]})
reached = []
for packing in (False, True):
    arguments = trl.SFTConfig(
        "output", packing=packing, max_length=8, use_cpu=True, bf16=False, report_to="none",
        remove_unused_columns=False, disable_tqdm=True,
    )
    model = hf.LlamaForCausalLM(llama)
    trainer = trl.SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    names = sorted(trainer.train_dataset.column_names)
    reached.append("weight" in batch or packing and "weight" in names)
    seen = "without weight" if packing and "weight" not in batch else sorted(batch)
    print(f"packing={packing}: data set {names}, batch {seen}")
raise SystemExit("the behaviour has changed" if any(reached) else 0)
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py 2> "$folder/errors" || { cat "$folder/errors" >&2; exit 1; }
