"""The command line `splat-numba`: one file a command, shared pieces beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: see entry. Ctrl-C ends it quietly, while it is imported too."""
    try:
        from splat_numba.cli.entry import run

        return run(arguments)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        return INTERRUPTED


__all__ = ["main"]
