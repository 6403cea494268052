#!/usr/bin/env bash
# `accelerate launch --cpu --num_processes 2` starts one process.
#
# One would guess: two processes, as `--num_processes 2` says and `torchrun --nproc-per-node 2` does.
# What happens: one process, without a warning. On a CPU several processes need --multi-cpu (or MPI) beside --num_processes.
# Versions: accelerate 1.15.0, torch 2.13.0, Python 3.11.
# Output seen:
#   accelerate launch --cpu --num_processes 2: process 0 of 1
#   torchrun --nproc-per-node 2: process 0 of 2, process 1 of 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME=$work/home OMP_NUM_THREADS=1 # no configuration of whoever runs this
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q torch==2.13.0 accelerate==1.15.0 numpy
cat > "$work/run.py" << 'EOF'
import sys
from pathlib import Path

from accelerate import Accelerator

state = Accelerator(cpu=True).state
text = f"process {state.process_index} of {state.num_processes}"
Path(sys.argv[1], f"{state.process_index}").write_text(text)
EOF
launch() { # what it is, then the command
    mkdir -p "$work/said" && rm -f "$work/said/"*
    "${@:2}" "$work/run.py" "$work/said" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    printf '%s: %s\n' "$1" "$(awk 'FNR == 1 { printf "%s%s", sep, $0; sep = ", " }' "$work/said/"*)"
}
{
    launch "accelerate launch --cpu --num_processes 2" \
        "$work/venv/bin/accelerate" launch --cpu --num_processes 2
    launch "torchrun --nproc-per-node 2" "$work/venv/bin/torchrun" --nproc-per-node 2
} | tee "$work/output"
sed -n 's/^#   //p' "$0" | diff - "$work/output"
