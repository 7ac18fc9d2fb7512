"""Plan: every decision about one attention kernel, as frozen values that can be printed, compared and tested alone.

A plan is a sequence of *passes* over the rows. A pass cuts its rows into *row blocks* of ``tile_q`` rows and walks, for
each, the key tiles that the block's rows need. A later pass that meets rows of an earlier one *resumes* their online
softmax from (out, lse). There are three kinds: a ClosedPass holds expressions in the row index and serves every length;
a TablePass holds tables made for one mask; a BoxPass holds tables of what a GPU's copy engine can fetch. Emitters see
plans only, never patterns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.bounds import Bound
from splat_numba.formats.closed_form import Edge, Lattice
from splat_numba.formats.sealed import Sealed
from splat_numba.formats.terms import row_of
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.machine import Gpu, Machine
from splat_numba.gen.problem import Problem


@dataclass(frozen=True, slots=True)
class Segment:
    """The keys of one band: columns lo <= j < hi on a lattice, for every row of the pass."""

    lattice: Lattice
    lo: Bound
    hi: Bound


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

    def row_range(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """First row and one past the last, clamped to [0, seq_q]."""
        return row_of(self.row_lo, seq_q, seq_kv), row_of(self.row_hi, seq_q, seq_kv)

    def grid(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """(residue classes that have rows, row blocks in each)."""
        low, high = self.row_range(seq_q, seq_kv)
        rows = max(high - low, 0)
        classes = min(self.row_step, rows)
        largest_class = -(-rows // self.row_step)
        return classes, -(-largest_class // self.tile_q)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TileTable(Sealed):
    """The key pieces of every row block, from gen.cover. All arrays are sealed.

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

    def grid(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """(1, row blocks)."""
        return 1, len(self.table.block_ptr) - 1


Pass = ClosedPass | TablePass | BoxPass


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision: what was chosen and why, and what was refused and why."""

    what: str
    chosen: str
    reason: str
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """Counted work of one (batch, head) and the predicted time of the whole call.

    kept: pairs attended; area: pairs computed, padding of tiles included; blocks: row blocks; tiles: key tiles; full:
    tiles that need no predicate; seconds: predicted; dense_seconds: predicted for the same shapes without a mask.
    exact: whether all row blocks were counted; at great lengths the counts are scaled up from some thousands of them.
    """

    kept: int
    area: int
    blocks: int
    tiles: int
    full: int
    seconds: float
    dense_seconds: float
    exact: bool = True

    @property
    def fill(self) -> float:
        """Share of the computed pairs that were asked for."""
        return self.kept / self.area if self.area else 1.0


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The decisions for one mask and problem on one target.

    label: a short name of the mask for file names; covered: the passes visit every row, so nothing needs filling first;
    closed: every pass is a ClosedPass, so the kernel serves every length. A plan of box passes is made for its lengths
    and so is not closed; its kernels nevertheless serve every mask and length of the same Traits.
    """

    problem: Problem
    target: str
    machine: Machine | Gpu
    label: str
    mask: str
    bands: int
    passes: tuple[Pass, ...]
    covered: bool
    cost: Cost
    choices: tuple[Choice, ...]

    @property
    def cpu(self) -> Machine:
        """The machine of a plan for CPUs. Raises TypeError for another target's."""
        if isinstance(self.machine, Machine):
            return self.machine
        raise TypeError(f"plan wanted for a CPU, got one for {self.target}.")

    @property
    def closed(self) -> bool:
        """Whether the kernel serves every length."""
        return all(isinstance(p, ClosedPass) for p in self.passes)

    @property
    def out_dtype(self) -> str:
        """What the kernel writes: on CPUs 16-bit outputs are kept in float32 between two passes, so rounded once."""
        if any(isinstance(p, BoxPass) for p in self.passes):
            return self.problem.dtype
        resumes = not self.covered or any(p.resumes for p in self.passes)
        return self.problem.compute_dtype if resumes else self.problem.dtype

    def __repr__(self) -> str:
        passes = f"{len(self.passes)} pass{'es' if len(self.passes) != 1 else ''}"
        return f"<Plan {self.summary}, {passes}, predicted {self.cost.seconds * 1e3:.3g} ms>"

    @property
    def summary(self) -> str:
        """Target, mask and sizes in a line; explain() has all of it."""
        one = self.problem
        mask = shorten(self.mask, 80, placeholder="...")
        return f"{self.target}: {mask}, {one.seq_q} x {one.seq_kv}, head_dim {one.head_dim}, {one.dtype}"

    def explain(self) -> str:
        """The plan in words: see gen.explain."""
        from splat_numba.gen.explain import explain

        return explain(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; tables are given by their sizes."""
        from splat_numba.gen.explain import as_dict

        return as_dict(self)
