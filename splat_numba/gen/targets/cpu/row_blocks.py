"""A row block in the text of a pass: which rows it has, and the calls that walk over the keys that they need."""

from __future__ import annotations

from collections.abc import Mapping

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.rows.passes import ClosedPass, Segment
from splat_numba.gen.targets.cpu.blocks import Walk
from splat_numba.gen.targets.cpu.bounds_text import (
    render_base,
    render_bound,
    render_column,
    render_edge,
    render_number,
    render_quotient,
)
from splat_numba.gen.targets.cpu.shape import TileShape


def emit_scratch(out: SourceWriter, sizes: Mapping[str, int]) -> None:
    """Pointers of these names to so many numbers each of one array."""
    out.line(f"scratch = np.empty({sum(sizes.values())}, real)")
    place = 0
    for name, size in sizes.items():
        out.line(f"{name} = address(scratch, {place})")
        place += size


def emit_interval_places(out: SourceWriter, one: ClosedPass, shape: TileShape) -> None:
    """What a pass over intervals needs once: places of rows and their edges, and the rows that there are."""
    out.line(f"places, edges = np.empty({shape.tile_q}, np.int64), np.empty({2 * shape.tile_q}, np.int32)")
    out.line(f"rows, low, high = address(places, 0), address(edges, 0), address(edges, {shape.tile_q})")
    out.line(f"row_lo, row_hi = {render_edge(one.row_lo)}, {render_edge(one.row_hi)}")


def emit_table_places(out: SourceWriter) -> None:
    """What a pass over tables needs once."""
    out.line("piece, lane_bits, cols = address(pieces, 0), address(masks, 0), address(columns, 0)")


def emit_rows(out: SourceWriter, one: ClosedPass, shape: TileShape) -> None:
    """The rows of the block: of one residue class, tile_q of them, or what is left."""
    first, left, times = "row_lo", "row_hi - row", ""
    if one.row_step > 1:
        step = render_number(one.row_step)
        first, left, times = (
            "row_lo + residue",
            render_quotient(f"row_hi - row + {step} - 1", one.row_step),
            f" * {step}",
        )
    out.line(f"row = {first} + block * {shape.tile_q}{times}  # first row of the block")
    out.line(f"count = min({shape.tile_q}, {left})")
    with out.block("if count <= 0"):
        out.line("continue")
    with out.block(f"for lane in range({shape.tile_q})"):
        out.line(f"places[lane] = row + lane{times} if lane < count else -1")


def emit_segment(out: SourceWriter, segment: Segment, shape: TileShape, walk: Walk) -> None:
    """One band: every lane's interval in lattice coordinates, then the walk over its tiles."""
    step = "" if segment.lattice.step == 1 else render_number(segment.lattice.step)
    lattice = f"one column in {step}" if step else "columns"
    out.line(f"# {lattice} from {render_bound(segment.lo)} to {render_bound(segment.hi)}")
    below, above = render_column(segment.lo), render_column(segment.hi)
    if step:
        out.line(f"base = {render_base(segment.lattice)}")
        below, above = (render_quotient(f"{edge} - base + {step} - 1", segment.lattice.step) for edge in (below, above))
    with out.block("for lane in range(count)"):
        out.line("row = places[lane]")
        out.line(f"edges[lane] = {below}")
        out.line(f"edges[{shape.tile_q} + lane] = {above}")
    with out.block(f"for lane in range(count, {shape.tile_q})"):
        out.line(f"edges[lane] = edges[{shape.tile_q} + lane] = 0")
    call = f"{_sources(walk, step)}, low, high, count, {walk.state}"
    out.line(f"{walk.name}_interval_{shape.suffix}({call})")


def emit_pieces(out: SourceWriter, shape: TileShape, walk: Walk) -> None:
    """The walk over the block's pieces of the table."""
    tables = "piece, block_ptr[block], block_ptr[block + 1], lane_bits, cols, limit"
    out.line(f"{walk.name}_pieces_{shape.suffix}({_sources(walk, '')}, {tables}, {walk.state})")


def _sources(walk: Walk, step: str) -> str:
    """What the walk reads and writes of a head's keys, from the lattice's first key on; step: none for all keys."""
    found: list[str] = []
    for pointer, to_key, to_dim in walk.arrays:
        at = f"advance({pointer}, base * {to_key})" if step else pointer
        found += [at, f"{step} * {to_key}" if step else to_key, *([to_dim] if to_dim else [])]
    return ", ".join(found)
