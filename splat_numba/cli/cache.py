"""`splat-numba cache`: what kernels are on disk; remove them, compile some ahead, take them to another machine."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from splat_numba import settings, warm
from splat_numba.arguments.sizes import LARGEST_DIM, LARGEST_LENGTH
from splat_numba.cli.console import make_table, output, print_table
from splat_numba.cli.options import (
    DTYPES,
    CommandError,
    HelpFormatter,
    add_backend_options,
    add_command,
    pattern_errors,
    read_pattern,
    whole_number,
)
from splat_numba.plain import duration
from splat_numba.runtime import cache
from splat_numba.runtime.cache import archive, contents

HELP = "List, remove, compile, export or import the kernels on disk."
EPILOG = """\
examples:
  splat-numba cache list
  splat-numba cache warm "window(512) | sinks(4)" "causal()" --seq 8192 --head-dim 64 128 --backward
  splat-numba cache export kernels.zip
  splat-numba cache import kernels.zip --sha256 0c1f...
"""
LISTED = 40  # kernels that list shows unless asked for all


def add_parsers(commands: Any) -> None:
    """Add the command with its own commands."""
    parser = commands.add_parser("cache", help=HELP, description=HELP, epilog=EPILOG, formatter_class=HelpFormatter)
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = add_command(inner, "list", run_list, "List the kernels of this version, the last used first.", "")
    listing.add_argument("--all", action="store_true", help=f"not the last {LISTED} alone")
    add_command(inner, "clear", run_clear, "Remove the kernels, texts and measured choices of all versions.", "")
    _add_warm(inner)
    exporting = add_command(inner, "export", run_export, "Write the kernels to a file and print its hash.", "")
    exporting.add_argument("file", type=Path, metavar="FILE", help="a new zip file")
    importing = add_command(inner, "import", run_import, "Take the kernels of an exported file, if all of it is right.",
                            "Machine code runs with your rights: take a file only from those whose programs you would "
                            "run.\n")  # fmt: skip
    importing.add_argument("file", type=Path, metavar="FILE", help="what export wrote, on a machine like this one")
    importing.add_argument("--sha256", required=True, metavar="HEX", help="the hash that export printed")


def _add_warm(inner: Any) -> None:
    length, dim = whole_number(1, LARGEST_LENGTH), whole_number(1, LARGEST_DIM)
    parser = add_command(inner, "warm", run_warm, "Compile kernels ahead of time, several at once.", "")
    add = parser.add_argument
    add("pattern", nargs="+", help='such as "window(512) | sinks(4)"')
    add("--seq", type=length, default=4096, metavar="N", help="tokens (default: %(default)s)")
    add("--head-dim", type=dim, nargs="+", default=[64], metavar="N", help="elements a head (default: 64)")
    add("--dtype", choices=DTYPES, help="of the arrays (default: float32, for a GPU but --target simt float16)")
    add("--backward", action="store_true", help="the kernels of gradients too")
    add("--processes", type=whole_number(1, warm.MOST_PROCESSES), metavar="N", help="at once (default: all cores)")
    add_backend_options(parser)


def run_list(args: argparse.Namespace) -> int:
    """A table, and the sum."""
    folder, console = _folder(), output()
    kernels = contents.kept(folder)
    table = make_table(console, ("kernel", "KB", "used"))
    shown = kernels if args.all else kernels[:LISTED]
    for one in shown:
        table.add_row(one.name, f"{one.size / 1e3:,.0f}", f"{duration(one.used)} ago")
    if shown:
        print_table(console, table)
    more = f", {len(kernels) - len(shown)} not shown (--all)" if len(kernels) > len(shown) else ""
    console.print(f"{len(kernels)} kernels, {sum(one.size for one in kernels) / 1e6:.1f} MB in {folder}{more}")
    return 0


def run_clear(_: argparse.Namespace) -> int:
    """Say what was removed."""
    folder = _folder()
    count, size = contents.clear(folder)
    output().print(f"{count} files removed, {size / 1e6:.1f} MB, from {folder.parent}")
    return 0


def run_warm(args: argparse.Namespace) -> int:
    """A line a kernel."""
    patterns = [read_pattern(text) for text in args.pattern]
    with pattern_errors(" ".join(args.pattern)):
        told = warm.warm_up(
            patterns, seq_q=args.seq, seq_kv=args.seq, head_dim=args.head_dim, dtype=args.dtype, backward=args.backward,
            backend=args.backend, target=args.target, processes=args.processes,
        )  # fmt: skip
    console = output()
    for one in told:
        console.print(f"{one.kernel}: {'on disk already' if one.cached else f'compiled in {duration(one.seconds)}'}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Say what was written, and its hash."""
    if args.file.exists():
        raise CommandError(f"FILE wanted as one that is not there, got {args.file}. Give another, or remove it.")
    moved = archive.export_kernels(contents.kept(_folder()), args.file)
    console = output()
    console.print(f"{moved.count} kernels written to {args.file}; on a machine like this one:", soft_wrap=True)
    console.print(f"splat-numba cache import {args.file.name} --sha256 {moved.sha256}", soft_wrap=True)
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Say what is new."""
    moved = archive.import_kernels(_folder(), args.file, args.sha256)
    output().print(f"{moved.count} kernels are new in {_folder()}")
    return 0


def _folder() -> Path:
    """The cache folder in use. Raises CommandError where there is none."""
    found = settings.current()
    if not found.cache:
        raise CommandError("SPLAT_CACHE wanted on, got off: there are no kernels on disk. Unset it.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = cache.folder(found)
    if folder is None:
        reason = str(caught[0].message) if caught else "the cache folder cannot be used. Set SPLAT_CACHE_DIR."
        raise CommandError(reason)
    return folder
