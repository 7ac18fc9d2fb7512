"""What the text of a tiled packed operator depends on, and where things stand in its shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splat_numba.gen.machine import WARP
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.gen.packed_tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.targets.sm80.shape import ATOM, CHUNK, STAGES, row_bytes

THREADS = WARP * TILE_ROWS // ATOM  # a warp has sixteen rows
PACKED_ROW = row_bytes(TILE_PLACES)  # bytes of a tile's row of packed values

TiledFamily = Literal["sddmm", "spmm"]
FAMILIES: tuple[TiledFamily, ...] = ("sddmm", "spmm")


@dataclass(frozen=True, slots=True)
class TiledTraits:
    """dim: numbers of a row of q and k, or of v."""

    family: TiledFamily
    dtype: str
    dim: int

    @classmethod
    def of(cls, problem: PackedProblem) -> TiledTraits:
        """Of a call. Raises ValueError for an operator that has no tiled text."""
        for family in FAMILIES:
            if family == problem.operator:
                return cls(family, problem.dtype, problem.dim)
        raise ValueError(f"operator wanted among {FAMILIES}, got {problem.operator!r}")

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for: sddmm takes 96 a thread, spmm 56 and half its dim."""
        if self.family == "sddmm":
            return 5
        return 4 if self.dim <= 64 else 3 if self.dim <= 128 else 2

    @property
    def stage_bytes(self) -> int:
        """Of a tile's keys or values."""
        return TILE_PLACES * row_bytes(self.dim)

    @property
    def packed_at(self) -> int:
        """Where a tile's packed values stand, behind the stages."""
        return STAGES * self.stage_bytes

    @property
    def notes_at(self) -> int:
        """Where the block's list of rows stands."""
        return self.packed_at + TILE_ROWS * PACKED_ROW

    @property
    def queries_at(self) -> int:
        """Where sddmm has its queries."""
        return self.notes_at + TILE_ROWS * CHUNK

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block, with room to align its start."""
        queries = TILE_ROWS * row_bytes(self.dim) if self.family == "sddmm" else 0
        return self.queries_at + queries + CHUNK
