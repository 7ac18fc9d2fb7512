"""Sizes of a tensor-core product's tiles and buffers, and of how many 16-bit pieces its operands are.

Tensor cores take 16-bit numbers. Two operands of one such type go to them as they are. Otherwise both are bfloat16,
whose exponents are float32's, so that nothing needs a scale: a number is the sum of *pieces*, each what the one before
has left, and a product that of pieces whose error would be seen. float32 in two pieces has 16 bits (2^-16 of a number
is lost), float16 has 11 and is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import OCTET, QUAD_BYTES
from flurka_numba.targets.sm80.product_ends import End
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.instructions import MATRIX_TYPE
from splat_numba.gen.language.lane_layout import ATOM, WARP, sums_of
from splat_numba.gen.targets.sm80.shape import MOST_REGISTERS, REGISTERS

DEPTHS = 64, 32  # that may be multiplied at once
LONG_BYTES = 72 << 10  # of both buffers at most, for the longer one
BUFFERS = 2
MOST_COLUMNS = 144  # of a tile: 128 numbers of a value and the sum of the weights beside them
TILE_ROWS = (64, 128)
OTHER_REGISTERS = 56  # beside sums and what is fetched: fragments, addresses, counts
TURNED_REGISTERS = 8  # more, of an A that is turned
MOST_THREADS = 2048  # resident on a multiprocessor, of the chips with most
ALIGNMENT = QUAD_BYTES


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a product. dtype: in memory. turned: its rows' numbers are not those that are adjacent, but those of
    its columns. lines: of a tile in memory's order, each of ``along`` adjacent numbers. pieces: of its numbers, in
    ``kind``. feature_map: that it is taken through on its way in. ones: whether a place of its lines may be all ones.
    """

    name: str
    dtype: str
    turned: bool
    lines: int
    along: int
    kind: str
    pieces: int
    feature_map: FeatureMap | None
    ones: bool

    @property
    def pitch(self) -> int:
        """Bytes of a line in shared memory: an odd number of chunks, so that eight lines are in different banks."""
        return 2 * (self.along + OCTET)

    @property
    def piece_bytes(self) -> int:
        """Of a tile of one piece."""
        return self.lines * self.pitch

    @property
    def chunks(self) -> int:
        """Of eight numbers in a line."""
        return self.along // OCTET

    @property
    def widened(self) -> bool:
        """Whether numbers become float32 on their way to shared memory."""
        return self.pieces > 1 or self.feature_map is not None

    @property
    def words(self) -> int:
        """Of 32 bits that a chunk is in memory."""
        return OCTET * ITEMSIZE[self.dtype] // 4


@dataclass(frozen=True, slots=True)
class WarpProductShape:
    """a, b, result: dtypes. A tile of rows x columns, sixteen rows a warp. a_turned, b_turned, a_map, a_ones, b_ones:
    see Operand. end: what is done with sums before they are stored.
    """

    a: str
    b: str
    result: str
    rows: int
    columns: int
    a_turned: bool = False
    b_turned: bool = False
    a_map: FeatureMap | None = None
    a_ones: bool = False
    b_ones: bool = False
    end: End | None = None

    @property
    def kind(self) -> str:
        """The type that tensor cores get."""
        same = self.a == self.b and self.a in MATRIX_TYPE and self.a_map is None
        return self.a if same else "bfloat16"

    def _pieces(self, dtype: str, feature_map: FeatureMap | None) -> int:
        return 1 if dtype == self.kind and feature_map is None else 2

    def _left(self, depth: int) -> Operand:
        lines, along = (depth, self.rows) if self.a_turned else (self.rows, depth)
        pieces = self._pieces(self.a, self.a_map)
        return Operand("a", self.a, self.a_turned, lines, along, self.kind, pieces, self.a_map, self.a_ones)

    def _right(self, depth: int) -> Operand:
        lines, along = (self.columns, depth) if self.b_turned else (depth, self.columns)
        pieces = self._pieces(self.b, None)
        return Operand("b", self.b, self.b_turned, lines, along, self.kind, pieces, None, self.b_ones)

    @property
    def depth(self) -> int:
        """That is multiplied at once. A step waits for memory once, so it is long where registers have room for it."""
        halves = ITEMSIZE[self.a] == ITEMSIZE[self.b] == 2
        long = sum(one.pieces * one.piece_bytes for one in (self._left(DEPTHS[0]), self._right(DEPTHS[0])))
        return DEPTHS[0] if halves and BUFFERS * long <= LONG_BYTES else DEPTHS[1]

    @property
    def operands(self) -> tuple[Operand, Operand]:
        """A, rows x depth, and B, depth x columns."""
        return self._left(self.depth), self._right(self.depth)

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.rows // ATOM * WARP

    @property
    def sums(self) -> int:
        """Registers of a thread for its part of the tile."""
        return sums_of(self.columns)

    @property
    def atoms(self) -> int:
        """Sixteens of a warp's rows."""
        return 1

    @property
    def warp_columns(self) -> int:
        """A warp has all of the tile's."""
        return self.columns

    def groups(self, operand: Operand) -> int:
        """Chunks that a thread fetches of a tile, the last one perhaps not."""
        return -(-operand.lines * operand.chunks // self.threads)

    @property
    def buffer_bytes(self) -> int:
        """A tile of each, in all pieces."""
        return sum(one.pieces * one.piece_bytes for one in self.operands)

    @property
    def shared_bytes(self) -> int:
        """Two buffers, with room to align their start."""
        return BUFFERS * self.buffer_bytes + ALIGNMENT

    @property
    def resident(self) -> int:
        """Blocks of a multiprocessor that registers are left for."""
        fetched = sum(self.groups(one) * one.words for one in self.operands)
        others = OTHER_REGISTERS + TURNED_REGISTERS * self.a_turned
        registers = min(self.sums + fetched + others, MOST_REGISTERS)
        return max(1, min(REGISTERS // (registers * self.threads), MOST_THREADS // self.threads, 8))


def tile_of(rows: int, columns: int) -> tuple[int, int]:
    """The tile for a result of such a size: as few columns as make the fewest tiles side by side."""
    blocks = max(-(-columns // MOST_COLUMNS), 1)
    width = max(-(-columns // blocks), 1)
    return TILE_ROWS[0] if rows <= TILE_ROWS[0] else TILE_ROWS[1], -(-width // ATOM) * ATOM
