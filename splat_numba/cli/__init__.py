"""The command line `splat-numba`: one file a command, shared pieces beside them."""

from splat_numba.cli.entry import main

__all__ = ["main"]
