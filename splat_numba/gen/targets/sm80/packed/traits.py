"""What the text of a tiled packed operator depends on, and where things stand in its shared memory."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.packed.tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.targets.gpu.tiled_operator import TiledOperator
from splat_numba.gen.targets.sm80.shape import CHUNK, STAGES, row_bytes

THREADS = WARP * TILE_ROWS // ATOM  # a warp has sixteen rows
PACKED_ROW = 11 * CHUNK  # bytes of a tile's row of packed values: 64, up to 15 before them; odd, to keep rows apart


@dataclass(frozen=True, slots=True)
class TiledTraits(TiledOperator):
    """By a warp's matrix products."""

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for."""
        if self.family == "sddmm":
            return 5
        return 5 if self.dim <= 64 else 3 if self.dim <= 128 else 2

    @property
    def layout(self) -> str:
        """Of shared memory, in words."""
        if self.family == "spmm":
            return "two stages, of each the rows of v, then packed values; the block's rows"
        return "two stages of keys, packed values, the block's rows, queries"

    @property
    def _of_rows(self) -> int:
        """Bytes of a tile's keys or rows of v."""
        return TILE_PLACES * row_bytes(self.dim)

    @property
    def stage_bytes(self) -> int:
        """Of what is fetched for a tile."""
        return self._of_rows + (TILE_ROWS * PACKED_ROW if self.family == "spmm" else 0)

    @property
    def packed_at(self) -> int:
        """Where a tile's packed values stand: of spmm in each stage, of sddmm behind them."""
        return self._of_rows if self.family == "spmm" else STAGES * self.stage_bytes

    @property
    def notes_at(self) -> int:
        """Where the block's list of rows stands."""
        if self.family == "spmm":
            return STAGES * self.stage_bytes
        return self.packed_at + TILE_ROWS * PACKED_ROW

    @property
    def queries_at(self) -> int:
        """Where sddmm has its queries, behind all else."""
        return self.notes_at + TILE_ROWS * CHUNK

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block, with room to align its start."""
        return self.queries_at + (self._of_rows if self.family == "sddmm" else 0) + CHUNK
