"""What the text of a tiled packed operator on FMA units depends on, and where things stand in its shared memory."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.packed.tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.plans.machine import HOPPER_REGISTERS
from splat_numba.gen.targets.gpu.tiled_operator import TiledOperator
from splat_numba.gen.targets.simt.shape import CHUNK, LANES_OF_ROW, Numbers, Share, pieces, sums, with_others

MOST_SUMS = 128  # registers of a thread's results beside the operands of a step
MOST_RESIDENT = 5  # blocks of a multiprocessor: more would leave sddmm too few registers


@dataclass(frozen=True, slots=True)
class FmaTraits(TiledOperator):
    """On FMA units."""

    @property
    def numbers(self) -> Numbers:
        """What is stored, and what is computed."""
        return Numbers(self.dtype)

    @property
    def share(self) -> Share:
        """Eight rows a thread, or four where the registers hold no more."""
        keys, of_row = TILE_PLACES // LANES_OF_ROW, pieces(self.numbers, self.dim)
        rows = 8 if sums(self.numbers, 8, 0 if self.family == "spmm" else keys, of_row) <= MOST_SUMS else 4
        return Share(rows, keys, of_row, TILE_ROWS // rows * LANES_OF_ROW)

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for."""
        share = self.share
        of_row = 0 if self.family == "sddmm" else share.pieces
        wanted = sums(self.numbers, share.rows, share.keys if self.family == "sddmm" else 0, of_row)
        registers = with_others(wanted, self.numbers, share.rows, (self.dim, self.dim))
        return max(min(HOPPER_REGISTERS // (share.threads * registers), MOST_RESIDENT), 1)

    @property
    def others_at(self) -> int:
        """Where queries stand, or the tile's packed values, behind keys or rows of v."""
        return TILE_PLACES * self.numbers.row_bytes(self.dim)

    @property
    def notes_at(self) -> int:
        """Where the block's list of rows stands."""
        return self.others_at + TILE_ROWS * self.numbers.row_bytes(self.dim if self.family == "sddmm" else TILE_PLACES)

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block, with room to align its start."""
        return self.notes_at + TILE_ROWS * CHUNK + CHUNK
