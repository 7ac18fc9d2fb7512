"""Sizes of a product of many rows with a small matrix, which stands in shared memory while rows go by.

A's rows go from memory to fragments without shared memory. A lane's 16 or 32 bytes are eight neighbouring places of the
depth, where a fragment's are two and two. As sums do not ask for an order, it is B's lines that are exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import OCTET
from flurka_numba.targets.sm80.product_ends import End
from flurka_numba.targets.sm80.product_shape import ALIGNMENT, MOST_THREADS, Operand
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, ROW_LANES, WARP, sums_of
from splat_numba.gen.targets.sm80.shape import MOST_REGISTERS, REGISTERS

WARPS = 4  # of a block, sixteen rows each
CHUNKS = OCTET * ROW_LANES  # places of the depth that the four lanes of a row have at once
MOST_DEPTH = 3 * CHUNKS  # which registers have room for
MOST_COLUMNS = 80
LEAST_TILES = 4  # that a block's B must be worth
OTHER_REGISTERS = 64  # beside sums and what is fetched
DEEP_REGISTERS = 16  # more, where 16-bit numbers of three steps are made pieces: all of a row's are at work


@dataclass(frozen=True, slots=True)
class RowsProductShape:
    """a, b, result: dtypes. depth, columns: of B, rounded up. b_turned, a_map, a_ones: see Operand. end: what is done
    with sums before they are stored.
    """

    a: str
    b: str
    result: str
    depth: int
    columns: int
    b_turned: bool = False
    a_map: FeatureMap | None = None
    a_ones: bool = False
    end: End | None = None

    @property
    def kind(self) -> str:
        """The type that tensor cores get."""
        return "bfloat16"

    @property
    def operands(self) -> tuple[Operand, Operand]:
        """A, of which a tile is never in shared memory, and B."""
        pieces = 1 if self.a == self.kind and self.a_map is None else 2
        a = Operand("a", self.a, False, self.rows, self.depth, self.kind, pieces, self.a_map, self.a_ones)
        lines = (self.columns, self.depth) if self.b_turned else (self.depth, self.columns)
        return a, Operand("b", self.b, self.b_turned, *lines, self.kind, 2, None, ones=False)

    @property
    def rows(self) -> int:
        """Of a tile."""
        return WARPS * ATOM

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARPS * WARP

    @property
    def atoms(self) -> int:
        """Sixteens of a warp's rows."""
        return 1

    @property
    def warp_columns(self) -> int:
        """A warp has all."""
        return self.columns

    @property
    def sums(self) -> int:
        """Registers of a thread for its part of the tile."""
        return sums_of(self.columns)

    def groups(self, operand: Operand) -> int:
        """Chunks that a thread fetches of B, the last one perhaps not."""
        return -(-operand.lines * operand.chunks // self.threads)

    @property
    def words(self) -> int:
        """Of 32 bits that a lane fetches of A's rows."""
        return self.depth // CHUNKS * LANE_ROWS * OCTET * ITEMSIZE[self.a] // 4

    @property
    def shared_bytes(self) -> int:
        """B's pieces, with room to align their start."""
        return 2 * self.operands[1].piece_bytes + ALIGNMENT

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for."""
        deep = DEEP_REGISTERS if self.depth == MOST_DEPTH and self.operands[0].pieces > 1 else 0
        registers = min(self.sums + self.words + OTHER_REGISTERS + deep, MOST_REGISTERS)
        return max(1, min(REGISTERS // (registers * self.threads), MOST_THREADS // self.threads, 8))


def stays_in_shared_memory(sizes: tuple[int, int, int], b: str, *, a_turned: bool) -> bool:
    """Whether B, of these rows of A, depth and columns, is small enough, and of float32, and A's rows follow."""
    rows, depth, columns = sizes
    small = depth <= MOST_DEPTH and columns <= MOST_COLUMNS
    return small and not a_turned and b == "float32" and rows >= LEAST_TILES * WARPS * ATOM


def rounded(depth: int, columns: int) -> tuple[int, int]:
    """Of B, up to what a step has."""
    return -(-depth // CHUNKS) * CHUNKS, -(-columns // ATOM) * ATOM
