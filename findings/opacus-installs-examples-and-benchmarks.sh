#!/usr/bin/env bash
# Opacus installs packages called examples and benchmarks beside itself, which a project's own folders of these names lose to.
#
# One would guess: the wheel of a library holds the library, and `import benchmarks` finds the folder of the project.
# What happens: the wheel has three packages at its top, benchmarks, examples and opacus. A project's tests find their own folders
# while their root comes first in sys.path. When pytest is also given an installed package with --pyargs and --doctest-modules, it
# puts site-packages before the root, and a process that the tests then start imports those of Opacus.
# Versions: opacus 1.6.0, pytest 9.1.1, Python 3.11.
# Output seen:
#   top of the wheel: benchmarks examples opacus
#   the project's tests alone: imported in a new process from the project
#   with --pyargs and an installed package: imported in a new process from site-packages
set -euo pipefail
self=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
python="$work/venv/bin/python"
"$python" -m pip install -q --no-deps opacus==1.6.0
"$python" -m pip install -q pytest==9.1.1 iniconfig pluggy packaging pygments wrapt==1.17.3
mkdir -p "$work/project/benchmarks" "$work/project/tests"
cd "$work/project"
touch benchmarks/__init__.py
printf '[pytest]\npythonpath = .\naddopts = --doctest-modules\n' > pytest.ini
cat > tests/test_place.py << 'EOF'
import multiprocessing
import pathlib


def place(queue):
    import benchmarks

    queue.put(benchmarks.__file__)


def test_place():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=place, args=(queue,))
    process.start()
    where = queue.get(timeout=60)
    process.join()
    found = "site-packages" if "site-packages" in where else "the project"
    pathlib.Path("place.txt").write_text(found)
EOF
{
    "$python" - << 'EOF'
from importlib.metadata import files

top = sorted({f.parts[0] for f in files("opacus") if f.suffix == ".py"})
print("top of the wheel:", *top)
EOF
    "$python" -m pytest -q tests > log 2>&1
    echo "the project's tests alone: imported in a new process from $(cat place.txt)"
    rm place.txt
    "$python" -m pytest -q tests --pyargs wrapt > log 2>&1 || true # whatever the other's examples say
    echo "with --pyargs and an installed package: imported in a new process from $(cat place.txt)"
} | tee "$work/seen"
sed -n 's/^#   //p' "$self" | diff - "$work/seen"
