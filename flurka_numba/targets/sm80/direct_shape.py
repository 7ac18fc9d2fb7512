"""Sizes of a product whose operands go to tensor cores as they stand in memory: tiles, warps' parts of them, stages.

A warp has as many rows as columns of a tile, where there are enough of both, so that it reads little of either from
shared memory for what it multiplies: a lane a word for each product of 16 x 8 x 16 of 64 x 64, 2.25 of 16 x 128.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.sm80.product_shape import ALIGNMENT, MOST_THREADS, Operand
from splat_numba.gen.language.instructions import MATRIX_TYPE
from splat_numba.gen.language.lane_layout import ATOM, WARP, sums_of
from splat_numba.gen.targets.sm80.shape import MOST_REGISTERS, REGISTERS

DEPTH = 32  # that is multiplied at once
STAGES = 3, 4  # tiles of both operands in shared memory: one is multiplied, the others are on their way
OTHER_REGISTERS = 72  # beside sums: fragments, addresses, counts
WARPS_OF_TILE = {(256, 128): (4, 2), (128, 128): (2, 2), (128, 64): (2, 2), (64, 128): (2, 2), (64, 64): (2, 2)}
"""Warps below each other, and beside each other, of a tile of rows x columns."""
SMALL, LARGE, LARGEST = 64, 128, 256
LONG_DEPTH = 1024  # for which one block of the largest tile is enough for a multiprocessor: its ends are few


@dataclass(frozen=True, slots=True)
class DirectProductShape:
    """dtype: of both operands, of 16 bits; result: its dtype. A tile of rows x columns. stages: of both operands.
    a_turned, b_turned: see Operand.
    """

    dtype: str
    result: str
    rows: int
    columns: int
    stages: int
    a_turned: bool = False
    b_turned: bool = False

    def __post_init__(self) -> None:
        """It is for 16 bits alone."""
        if self.dtype not in MATRIX_TYPE:
            raise ValueError(f"dtype wanted as one of {', '.join(MATRIX_TYPE)}, got {self.dtype}")

    @property
    def depth(self) -> int:
        """That is multiplied at once."""
        return DEPTH

    @property
    def kind(self) -> str:
        """The type that tensor cores get."""
        return self.dtype

    @property
    def operands(self) -> tuple[Operand, Operand]:
        """A, rows x depth, and B, depth x columns."""
        a = (DEPTH, self.rows) if self.a_turned else (self.rows, DEPTH)
        b = (self.columns, DEPTH) if self.b_turned else (DEPTH, self.columns)
        return (
            Operand("a", self.dtype, self.a_turned, *a, self.dtype, 1, None, ones=False),
            Operand("b", self.dtype, self.b_turned, *b, self.dtype, 1, None, ones=False),
        )

    @property
    def warps(self) -> tuple[int, int]:
        """Below each other, and beside each other."""
        return WARPS_OF_TILE[self.rows, self.columns]

    @property
    def threads(self) -> int:
        """Of a block."""
        down, across = self.warps
        return down * across * WARP

    @property
    def atoms(self) -> int:
        """Sixteens of a warp's rows."""
        return self.rows // self.warps[0] // ATOM

    @property
    def warp_columns(self) -> int:
        """Of a warp's part of the tile."""
        return self.columns // self.warps[1]

    @property
    def sums(self) -> int:
        """Registers of a thread for its part of the tile."""
        return self.atoms * sums_of(self.warp_columns)

    @property
    def end(self) -> None:
        """Nothing is done with sums before they are stored."""
        return

    def groups(self, operand: Operand) -> int:
        """Chunks that a thread fetches of a tile."""
        return operand.lines * operand.chunks // self.threads

    @property
    def buffer_bytes(self) -> int:
        """A tile of each."""
        return sum(one.piece_bytes for one in self.operands)

    @property
    def shared_bytes(self) -> int:
        """All stages, with room to align their start."""
        return self.stages * self.buffer_bytes + ALIGNMENT

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for."""
        registers = min(self.sums + OTHER_REGISTERS, MOST_REGISTERS)
        return max(1, min(REGISTERS // (registers * self.threads), MOST_THREADS // self.threads, 8))


def direct_tile(sizes: tuple[int, int, int], outer: int) -> tuple[int, int]:
    """The tile for rows, depth and columns of so many products that are summed."""
    rows, depth, columns = sizes
    width = SMALL if columns <= SMALL else LARGE
    if rows > LARGE and width == LARGE and depth * outer >= LONG_DEPTH:
        return LARGEST, width
    return SMALL if rows <= SMALL else LARGE, width


def stages_for(shared_bytes: int) -> int:
    """shared_bytes: that a block may use. The largest tile's four stages are 117 KiB, its three 88."""
    largest = DirectProductShape("bfloat16", "float32", LARGEST, LARGE, STAGES[1], a_turned=False, b_turned=True)
    return STAGES[1] if largest.shared_bytes <= shared_bytes else STAGES[0]
