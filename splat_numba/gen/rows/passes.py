"""Passes of a CPU: over rows with expressions for bounds, or over row blocks whose pieces are listed in a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.bounds import Bound, chunk_sizes, evaluate, integers
from splat_numba.formats.closed_form import Edge, Lattice
from splat_numba.formats.named import symbols_in
from splat_numba.formats.sealed import Sealed
from splat_numba.formats.terms import phase, row_of

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """The keys of one band: columns lo <= j < hi on a lattice, for every row of the pass."""

    lattice: Lattice
    lo: Bound
    hi: Bound

    def places(self, row: Ints, seq_q: int, seq_kv: int) -> tuple[Ints, Ints, Ints]:
        """(base, low, high) of row blocks (blocks, tile_q): a row keeps base + step * p for low <= p < high.

        base: (blocks, 1), from a block's first row, with which the others agree; low, high: as row.
        """
        low: Ints = np.maximum(evaluate(self.lo, row, seq_q, seq_kv), 0)
        high: Ints = np.minimum(evaluate(self.hi, row, seq_q, seq_kv), seq_kv)
        step = self.lattice.step
        if step == 1:
            return np.zeros_like(row[:, :1]), low, high
        base: Ints = np.broadcast_to(phase(self.lattice, row[:, :1], seq_q, seq_kv) % step, row[:, :1].shape)
        return base, -(-(low - base) // step), -(-(high - base) // step)


@dataclass(frozen=True, slots=True)
class ClosedPass:
    """Rows row_lo <= i < row_hi in residue classes modulo row_step; a block holds at most tile_q rows of one class."""

    row_lo: Edge
    row_hi: Edge | None
    row_step: int
    segments: tuple[Segment, ...]
    tile_q: int
    tile_kv: int
    resumes: bool

    closed: ClassVar[bool] = True
    shared: ClassVar[bool] = False

    @property
    def numbers(self) -> dict[str, int]:
        """The pattern's numbers in this pass by name: arguments of its text, which is the same for other ones."""
        return symbols_in(self._integers())

    def _integers(self) -> Iterator[int]:
        for edge in (self.row_lo, self.row_hi):
            if edge is not None:
                yield edge.value
        yield self.row_step
        for one in self.segments:
            yield from (one.lattice.step, one.lattice.shift, *integers(one.lo), *integers(one.hi))

    @property
    def divisors(self) -> tuple[int, ...]:
        """What the rows and columns of its lanes are divided by."""
        steps = [one.lattice.step for one in self.segments if one.lattice.step > 1]
        return (*steps, *(size for one in self.segments for bound in (one.lo, one.hi) for size in chunk_sizes(bound)))

    def row_range(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """First row and one past the last, clamped to [0, seq_q]."""
        return row_of(self.row_lo, seq_q, seq_kv), row_of(self.row_hi, seq_q, seq_kv)

    def grid(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """(residue classes that have rows, row blocks in each)."""
        low, high = self.row_range(seq_q, seq_kv)
        rows = max(high - low, 0)
        classes = min(int(self.row_step), rows)
        largest_class = -(-rows // self.row_step)
        return classes, -(-largest_class // self.tile_q)

    def describe(self) -> str:
        """In words."""
        classes = f"in {self.row_step} residue classes" if self.row_step > 1 else "in order"
        bands = f"{len(self.segments)} interval{'s' if len(self.segments) > 1 else ''} a row"
        given = ", ".join(f"{name} = {value}" for name, value in self.numbers.items())
        return f"{self.tile_q} x {self.tile_kv} tiles, rows {classes}, {bands}{'; ' if given else ''}{given}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        segments = [{"lattice": asdict(s.lattice), "lo": repr(s.lo), "hi": repr(s.hi)} for s in self.segments]
        rows = {"row_lo": repr(self.row_lo), "row_hi": repr(self.row_hi), "row_step": self.row_step}
        return {**rows, "segments": segments, "numbers": self.numbers}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TileTable(Sealed):
    """The key pieces of every row block, from gen.rows.cover. All arrays are sealed.

    rows: (blocks * tile_q,) int64, the query row of every lane, -1 for padding; block_ptr: (blocks + 1,) int64 into
    the pieces; piece: (pieces, 4) int64 of (start, step, count, mask): keys start + step * t; step 0 means that the
    keys are gathered: cols[start : start + count]. mask is -1 where every row of the block keeps every key, else the
    place in ``lane_bits`` (uint64, bit t: lane t keeps the key) of the piece's first key. cols: int64, ascending.
    """

    rows: NDArray[np.int64]
    block_ptr: NDArray[np.int64]
    piece: NDArray[np.int64]
    lane_bits: NDArray[np.uint64]
    cols: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(a.nbytes for a in (self.rows, self.block_ptr, self.piece, self.lane_bits, self.cols))


@dataclass(frozen=True, slots=True)
class TablePass:
    """Row blocks of tile_q rows and their pieces, listed in ``table``."""

    table: TileTable = field(repr=False)
    tile_q: int
    tile_kv: int
    resumes: bool

    closed: ClassVar[bool] = False
    shared: ClassVar[bool] = False

    def grid(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """(1, row blocks)."""
        return 1, len(self.table.block_ptr) - 1

    def describe(self) -> str:
        """In words."""
        gathered = "; short ranges gathered" if (self.table.piece[:, 1] == 0).any() else ""
        return f"{self.tile_q} x {self.tile_kv} tiles, {len(self.table.piece):,} pieces listed{gathered}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values; the table by its sizes."""
        table = self.table
        return {"pieces": len(table.piece), "blocks": len(table.block_ptr) - 1, "bytes": table.nbytes}


@dataclass(frozen=True, slots=True, eq=False)
class CpuCandidate:
    """One of several ways to run a problem, not yet a plan. name: in words, which no other candidate of the problem
    has; seconds: predicted, for the whole problem.
    """

    name: str
    seconds: float
    passes: tuple[ClosedPass | TablePass, ...]
