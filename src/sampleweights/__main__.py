"""``python -m sampleweights``: a comparison of weightings, from the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence


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
    try:
        from sampleweights.compare import cli
    except ModuleNotFoundError as error:
        if (error.name or "sampleweights").partition(".")[0] == "sampleweights":
            raise  # not a package of the extra
        print(
            f"error: compare needs the package {error.name}, which is not installed: "
            'pip install "sampleweights[compare]"',
            file=sys.stderr,
        )
        return 1
    return cli.main(given[1:])


if __name__ == "__main__":
    # as Ctrl-C: a process that ends at once would leave its worker processes behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
