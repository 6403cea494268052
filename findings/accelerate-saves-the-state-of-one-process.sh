#!/usr/bin/env bash
# What one would guess: an object that is registered with Accelerate's `register_for_checkpointing`
# gets its own state back, in each process, as the random number generators and samplers do.
# What happens: `save_state` asks the object for its state in every process, but writes only that of
# the main process, and `load_state` gives that one to all. Sums that each process keeps for itself
# are counted twice (here 10 + 10) or are lost (20), without a message.
# Versions: accelerate 1.15.0, torch 2.13.0, Python 3.11.
# Output seen:
#   process 0: asked for its state 1 times, had 10, loaded 10
#   process 1: asked for its state 1 times, had 20, loaded 10
#   files: custom_checkpoint_0.pkl random_states_0.pkl random_states_1.pkl
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0 numpy
cat > "$folder/run.py" <<'PYTHON'
import os
import sys

import torch.multiprocessing as mp


class Sum:
    def __init__(self, value):
        self.value, self.asked = value, 0

    def state_dict(self):
        self.asked += 1
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def work(rank, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29617", OMP_NUM_THREADS="1",
    )
    from accelerate import Accelerator

    accelerator, total = Accelerator(cpu=True), Sum(10 * (rank + 1))
    accelerator.register_for_checkpointing(total)
    had = total.value
    accelerator.save_state(f"{folder}/checkpoint")
    accelerator.wait_for_everyone()
    accelerator.load_state(f"{folder}/checkpoint")
    line = f"process {rank}: asked for its state {total.asked} times, had {had}, loaded {total.value}"
    with open(f"{folder}/{rank}.txt", "w") as file:
        file.write(line + "\n")
    accelerator.wait_for_everyone()
    os._exit(0)


if __name__ == "__main__":
    mp.spawn(work, (sys.argv[1],), nprocs=2)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" 2> "$folder/errors.txt" || { cat "$folder/errors.txt"; exit 1; }
files=$(ls "$folder/checkpoint" | sort | tr '\n' ' ')
seen=$(cat "$folder/0.txt" "$folder/1.txt"; echo "files: ${files% }")
echo "$seen"
grep -q "process 0: asked for its state 1 times, had 10, loaded 10" <<< "$seen"
grep -q "process 1: asked for its state 1 times, had 20, loaded 10" <<< "$seen"
