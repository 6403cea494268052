"""``python -m sampleweights``: a comparison of weightings, from the command line."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Sequence

PACKAGES = ("sklearn", "scipy", "pandas", "matplotlib", "joblib", "tqdm")
"""Of the extra ``compare``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments to a subcommand, and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m sampleweights",
        description="compare: find out which weighting is worth its training on your data.",
        epilog="python -m sampleweights compare --help shows its options.",
    )
    parser.add_argument("command", choices=["compare"], help="what to do")
    parser.parse_args(given[:1])
    for package in PACKAGES:  # now, and not when a comparison has been trained
        if importlib.util.find_spec(package) is None:
            print(
                f"error: compare needs the package {package}, which is not installed: "
                'pip install "sampleweights[compare]"',
                file=sys.stderr,
            )
            return 1
    from sampleweights.compare import cli

    return cli.main(given[1:])


if __name__ == "__main__":
    # as Ctrl-C: a process that ends at once would leave its worker processes behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
