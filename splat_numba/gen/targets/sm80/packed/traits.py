"""What the text of a tiled packed operator depends on, and where things stand in its shared memory."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.packed.tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.targets.gpu.tiled_operator import TiledOperator
from splat_numba.gen.targets.sm80.shape import CHUNK, STAGES, row_bytes

ENDS_BYTES = 2 * CHUNK  # of the chunk in which a head's packed values begin, and of the one in which they end
NARROW = 64  # numbers of a row
HALF = 2  # bytes of a number
# Bytes of a tile's row of packed values: 64, those before them in their sector, a chunk before all; odd, to keep rows
# apart.
PACKED_ROW = {2: 11 * CHUNK, 4: 19 * CHUNK}  # by the bytes of a number
VALUES_ROW = 18 * CHUNK  # of spmm's of float32: 64, and those before them in their sector; rows 8 banks apart


@dataclass(frozen=True, slots=True)
class TiledTraits(TiledOperator):
    """By a warp's matrix products. rows: of a block; they share what is read of keys or v."""

    rows: int = TILE_ROWS

    @property
    def sizes(self) -> tuple[int, ...]:
        """What ``rows`` may be: twice as many where a multiprocessor has room for two such blocks."""
        return (TILE_ROWS, 2 * TILE_ROWS) if self.dim <= NARROW and self.itemsize == HALF else (TILE_ROWS,)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return ITEMSIZE[self.dtype]

    @property
    def described(self) -> str:
        """The dtype and what products make of it, for people."""
        return self.dtype if self.itemsize == HALF else f"{self.dtype} by three products of TF32"

    @property
    def of_chunk(self) -> int:
        """Numbers of 16 bytes."""
        return CHUNK // self.itemsize

    @property
    def of_sector(self) -> int:
        """Numbers of 32 bytes, which memory reads and writes together."""
        return 2 * self.of_chunk

    @property
    def packed_row(self) -> int:
        """Bytes of a tile's row of sddmm's packed values."""
        return PACKED_ROW[self.itemsize]

    @property
    def atoms(self) -> int:
        """Sixteens of rows of a warp: two share its reads of keys; spmm has registers for one, beside its values."""
        return self.rows // TILE_ROWS if self.family == "sddmm" else 1

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.rows // (ATOM * self.atoms)

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for."""
        if self.family == "sddmm":
            return 3 if self.atoms > 1 or self.itemsize > HALF else 5
        if self.itemsize > HALF:
            return 2
        if self.dim <= NARROW:
            return 4 * TILE_ROWS // self.rows
        return 3 if self.dim <= 2 * NARROW else 2

    @property
    def stages(self) -> int:
        """Tiles in shared memory: spmm of float32 has two on their way while one is computed."""
        return STAGES + 1 if self.copies_values else STAGES

    @property
    def copies_values(self) -> bool:
        """Whether spmm has packed values in shared memory; of 16 bits in registers, which an H200 did faster."""
        return self.family == "spmm" and self.itemsize > HALF

    @property
    def layout(self) -> str:
        """Of shared memory, in words."""
        if self.family == "columns":
            return "two stages of rows of v and the tile's packed values; a head's first and last chunk of these"
        if self.family == "spmm":
            what = "rows of v and packed values" if self.copies_values else "rows of v"
            return f"{self.stages} stages of {what}; a head's first and last chunk of packed values"
        return "two stages of keys, packed values, the block's rows, queries"

    @property
    def _of_rows(self) -> int:
        """Bytes of a tile's keys or rows of v."""
        return TILE_PLACES * row_bytes(self.dim, self.itemsize)

    @property
    def stage_bytes(self) -> int:
        """Of what is fetched for a tile."""
        if self.family == "columns":
            return self._of_rows + TILE_ROWS * row_bytes(self.rows)
        return self._of_rows + (self.rows * VALUES_ROW if self.copies_values else 0)

    @property
    def values_in_stage(self) -> int:
        """Where a stage of spmm or of columns has packed values, behind rows of v."""
        return self._of_rows

    @property
    def packed_at(self) -> int:
        """Where sddmm has a tile's packed values."""
        return self.stages * self.stage_bytes

    @property
    def notes_at(self) -> int:
        """Where sddmm has the block's list of rows, the others a head's ends."""
        if self.family != "sddmm":
            return self.stages * self.stage_bytes
        return self.packed_at + self.rows * self.packed_row

    @property
    def queries_at(self) -> int:
        """Where sddmm has its queries, behind all else."""
        return self.notes_at + self.rows * CHUNK

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block, with room to align its start."""
        if self.family != "sddmm":
            return self.notes_at + ENDS_BYTES + CHUNK
        return self.queries_at + self.rows * row_bytes(self.dim, self.itemsize) + CHUNK
