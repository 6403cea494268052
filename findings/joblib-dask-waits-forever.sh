#!/usr/bin/env bash
# joblib's backend for Dask waits forever for a task that kills its workers, or that the workers cannot read.
#
# One would guess: inside joblib.parallel_config(backend="dask") such a task raises what Dask says of it (KilledWorker, or the error
# of the import), as it does through Dask's own client.
# What happens: Parallel waits without end and without a word, also with return_as="generator". The backend notes the error on
# the task, but only calls back for tasks that were finished (joblib/_dask.py, _collect).
# Versions: joblib 1.6.0, distributed 2026.8.0, Python 3.11.
# Output seen:
#   kills its workers, through Dask's client: KilledWorker
#   kills its workers, through joblib: no answer in 60 seconds
#   cannot be read there, through Dask's client: ModuleNotFoundError
#   cannot be read there, through joblib: no answer in 60 seconds
set -euo pipefail
self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
python="$work/venv/bin/python"
"$python" -m pip install -q joblib==1.6.0 distributed==2026.8.0
cat > "$work/try.py" << 'EOF'
import importlib
import os
import sys

import joblib
from distributed import Client, LocalCluster


class Absent:
    """What a worker looks for in a module that it does not have."""

    def __reduce__(self):
        return importlib.import_module, ("only_here",)


def read(what):
    return what


def kill(what):
    os._exit(1)


if __name__ == "__main__":
    task, what = (kill, 0) if sys.argv[1] == "kill" else (read, Absent())
    with LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        try:
            if sys.argv[2] == "client":
                client.submit(task, what, pure=False).result()
            else:
                with joblib.parallel_config(backend="dask"):
                    joblib.Parallel()(joblib.delayed(task)(what) for _ in range(2))
            print("an answer")
        except Exception as error:
            cause = error.__cause__ or error  # Dask wraps what it cannot read
            print(type(cause).__name__)
EOF
answer() {
    timeout 60 "$python" "$work/try.py" "$1" "$2" 2> "$work/log" || echo "no answer in 60 seconds"
}
{
    echo "kills its workers, through Dask's client: $(answer kill client)"
    echo "kills its workers, through joblib: $(answer kill joblib)"
    echo "cannot be read there, through Dask's client: $(answer read client)"
    echo "cannot be read there, through joblib: $(answer read joblib)"
} | tee "$work/seen"
sed -n 's/^#   //p' "$self" | diff - "$work/seen"
