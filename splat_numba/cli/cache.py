"""`splat-numba cache`: what kernels are on disk; remove them, compile some ahead, take them to another machine."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from splat_numba import settings, warm
from splat_numba.arguments.sizes import LARGEST_DIM
from splat_numba.arguments.typed import Ahead
from splat_numba.cli.console import make_table, output, print_table
from splat_numba.cli.options import (
    SUCH_AS,
    CommandError,
    Place,
    file_errors,
    flag,
    number,
    pattern_errors,
    read_pattern,
    whole_numbers,
)
from splat_numba.plain import duration
from splat_numba.runtime import cache
from splat_numba.runtime.cache import archive, contents

EPILOG = """\
examples:
  splat-numba cache list
  splat-numba cache warm "window(512) | sinks(4)" "causal()" --seq 8192 --head-dim 64 128 --backward
  splat-numba cache warm "window(512)" --operators sddmm softmax spmm
  splat-numba cache export kernels.zip
  splat-numba cache import kernels.zip --sha256 0c1f...
"""
IMPORT_EPILOG = "Machine code runs with your rights: take a file only from those whose programs you would run."
LISTED = 40  # kernels that list shows unless asked for all


APP = App(name="cache", help_epilogue=EPILOG)


@APP.command(name="list", help="List the kernels of this version, the last used first.", help_epilogue="")
def run_list(
    *,
    everything: Annotated[
        bool, Parameter(name="--all", help=f"not the last {LISTED} alone", show_default=False)
    ] = False,
) -> int:
    """A table, and the sum."""
    folder, console = _folder(), output()
    kernels = contents.kept(folder)
    table = make_table(console, ("kernel", "KB", "used"))
    shown = kernels if everything else kernels[:LISTED]
    for one in shown:
        table.add_row(one.name, f"{one.size / 1e3:,.0f}", f"{duration(one.used)} ago")
    if shown:
        print_table(console, table)
    more = f", {len(kernels) - len(shown)} not shown (--all)" if len(kernels) > len(shown) else ""
    console.print(f"{len(kernels)} kernels, {sum(one.size for one in kernels) / 1e6:.1f} MB in {folder}{more}")
    return 0


@APP.command(name="clear", help="Remove the kernels, texts and measured choices of all versions.", help_epilogue="")
def run_clear() -> int:
    """Say what was removed."""
    folder = _folder()
    count, size = contents.clear(folder)
    output().print(f"{count} files removed, {size / 1e6:.1f} MB, from {folder.parent}")
    return 0


@APP.command(name="warm", help="Compile kernels ahead of time, several at once.", help_epilogue="")
def run_warm(
    texts: Annotated[list[str], Parameter(name="PATTERN", help=f"{SUCH_AS}; one or more")],
    /,
    *,
    seq: Annotated[int, number("tokens", 1)] = 4096,
    head_dim: Annotated[
        tuple[int, ...],
        Parameter(
            metavar="N...",
            help="elements a head",
            show_default=lambda dims: " ".join(map(str, dims)),
            converter=whole_numbers(1, LARGEST_DIM),
            consume_multiple=True,
        ),
    ] = (64,),
    operators: Annotated[
        tuple[Ahead, ...],
        Parameter(help="what will be called with the masks", show_default=" ".join, consume_multiple=True),
    ] = ("attention",),
    place: Place = Place(),
    backward: Annotated[bool, flag("the kernels of gradients too")] = False,
    processes: Annotated[int | None, number("at once (default: all cores)", 1, warm.MOST_PROCESSES)] = None,
) -> int:
    """A line a kernel."""
    dtype = place.chosen_dtype()
    patterns = [read_pattern(text) for text in texts]
    with pattern_errors(" ".join(texts)):
        told = warm.warm_up(
            patterns, seq_q=seq, seq_kv=seq, head_dim=head_dim, dtype=dtype, operators=operators,
            backward=backward, backend=place.backend, target=place.target, processes=processes,
        )  # fmt: skip
    console = output()
    for one in told:
        console.print(f"{one.kernel}: {'on disk already' if one.cached else f'compiled in {duration(one.seconds)}'}")
    return 0


@APP.command(name="export", help="Write the kernels to a file and print its hash.", help_epilogue="")
def run_export(file: Annotated[Path, Parameter(help="a new zip file")], /) -> int:
    """Say what was written, and its hash."""
    if file.exists():
        raise CommandError(f"FILE wanted as one that is not there, got {file}. Give another, or remove it.")
    kernels = contents.kept(_folder())
    with file_errors("FILE", file, "written"):
        moved = archive.export_kernels(kernels, file)
    console = output()
    console.print(f"{moved.count} kernels written to {file}; on a machine like this one:", soft_wrap=True)
    console.print(f"splat-numba cache import {file.name} --sha256 {moved.sha256}", soft_wrap=True)
    return 0


@APP.command(name="import", help="Take the kernels of an exported file, if all of it is right.",
             help_epilogue=IMPORT_EPILOG)  # fmt: skip
def run_import(
    file: Annotated[Path, Parameter(help="what export wrote, on a machine like this one")],
    /,
    *,
    sha256: Annotated[str, Parameter(metavar="HEX", help="the hash that export printed")],
) -> int:
    """Say what is new."""
    with file_errors("FILE", file, "read"):
        file.open("rb").close()
    moved = archive.import_kernels(_folder(), file, sha256)
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
