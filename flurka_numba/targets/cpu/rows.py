"""Text of what entry functions have in common: which rows an item stands for, and tiles of them in and out."""

from __future__ import annotations

from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import place
from splat_numba.gen.language.writer import SourceWriter


def emit_split(out: SourceWriter, plan: CpuPlan) -> None:
    """An item is a split of a head: rows ``start`` to ``stop`` of ``seq``."""
    tile = plan.tile_rows
    out.line("split, batch, head = item % splits, item // splits // heads, item // splits % heads")
    out.line(f"share = -(-seq // (splits * {tile})) * {tile}  # rows of a split, in whole tiles")
    out.line("start, stop = split * share, min(seq, split * share + share)")


def emit_tile(out: SourceWriter, plan: CpuPlan) -> None:
    """An item is a tile of a head: ``count`` rows from ``token`` on."""
    tile = plan.tile_rows
    out.line(f"tiles = -(-seq // {tile})")
    out.line(f"token, batch, head = item % tiles * {tile}, item // tiles // heads, item // tiles % heads")
    out.line(f"count = min({tile}, seq - token)")


def emit_weights(out: SourceWriter, plan: CpuPlan, side: str, *names: str) -> None:
    """Pointers to the weights of the head's feature map, which heads may share, and favor's stabiliser of its keys."""
    for name in names if plan.linear else ():
        matrix = f"(batch % {name}.shape[0] * {name}.shape[1] + head % {name}.shape[1])"
        out.line(f"{name}_head = address({name}, {matrix} * {name}.shape[2] * {name}.shape[3])")
    if plan.stabilised(side):
        out.line("stab = stabs[batch, head]")


def emit_stage(out: SourceWriter, dtype: str, source: str, tile: str, dim: str, dims: str) -> None:
    """``count`` rows, from ``token`` on, of a head."""
    rows = f"{place(source, 'batch', 'head', 'token')}, {source}_at[2], {source}_at[3]"
    out.line(f"stage_{dtype}({rows}, count, {dim}, {tile}, {dims})")


def emit_store(out: SourceWriter, plan: CpuPlan, tile: str, dims: str, dim: str, target: str) -> None:
    """``count`` rows, from ``token`` on, of a head."""
    rows = f"{place(target, 'batch', 'head', 'token')}, {target}_at[2], {target}_at[3]"
    out.line(f"store_{plan.result_dtype}({tile}, {dims}, count, {dim}, {rows})")
