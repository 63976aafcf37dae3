"""``python -m lif_cuda info``."""

from __future__ import annotations

import argparse
import os
import sys

from . import info


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the package.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m lif_cuda")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "info",
        help="print what was built and on what it runs, and check it against the reference",
    )
    parser.parse_args(arguments)
    try:
        status = info.main()
        sys.stdout.flush()
    except BrokenPipeError:  # of `... info | head`: who reads has enough
        # Python flushes once more as it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
