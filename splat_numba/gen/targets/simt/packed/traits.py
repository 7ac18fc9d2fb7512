"""What the text of a packed operator depends on, and what follows from it: which lanes have which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.simt.shape import CHUNK, Numbers

WARPS = 4  # of a block, each with a row of its own
THREADS = WARPS * WARP
LANES_OF_KEY = 8  # share the product of a query and a key: together they read 128 bytes of it at a time
MOST_AT_ONCE = 4  # keys or rows of values under way in a lane
HELD = ((8, 2), (8, 5), (16, 5), (WARP, 5), (WARP, 10), (WARP, 17))  # of softmax: lanes that share a row, chunks each
MOST_UNDER_WAY = 32  # chunks of keys: with 64, which a lane has of eight keys of 256 float32, the compiler spills

Family = Literal["sddmm", "softmax", "softmax_backward", "spmm", "adding", "gathering"]


@dataclass(frozen=True, slots=True)
class PackedTraits:
    """dim: numbers of a row of q and k, or of v; 0 for softmax. listed: columns are a list, one a pair, rather than
    runs. placed: the packed values of a pair stand where a list says (of a transposed mask). held: softmax
    of 16 or 32 bits reads and writes 16 bytes at a time, as packed values lie side by side, and a lane holds so many of
    a row's chunks, 0: number by number; sharing: then so many lanes have a row, both of HELD. partial: rows of spmm are
    parts of longer ones, whose results are stored as they were computed.
    """

    family: Family
    dtype: str
    dim: int = 0
    listed: bool = False
    placed: bool = False
    held: int = 0
    sharing: int = WARP
    partial: bool = False

    @property
    def numbers(self) -> Numbers:
        """What is stored, and what is computed."""
        return Numbers(self.dtype)

    @property
    def loads(self) -> int:
        """Chunks of 16 bytes in a row."""
        return self.numbers.loads(self.dim)

    @property
    def rows(self) -> int:
        """Of a block, when each has its lanes."""
        return WARPS * WARP // self.sharing

    @property
    def stored_bytes(self) -> int:
        """Of results, for a chunk of 16 bytes of the arrays' dtype."""
        return CHUNK * self.numbers.loaded // self.numbers.of_chunk if self.partial else CHUNK

    @property
    def lanes(self) -> int:
        """Lanes that share a row of k or v, a chunk each: of a warp's 32, so that others take other rows."""
        if self.family == "sddmm":
            return LANES_OF_KEY
        return min(1 << (self.loads - 1).bit_length(), WARP)

    @property
    def pieces(self) -> int:
        """Chunks of a row that a lane has."""
        return -(-self.loads // self.lanes)

    @property
    def sums(self) -> int:
        """Numbers of a row that a lane has."""
        return self.pieces * self.numbers.loaded

    @property
    def at_once(self) -> int:
        """Keys or rows of values that a lane takes before it looks whether there are more: a divisor of its of 32."""
        return min(MOST_AT_ONCE, self.lanes, MOST_UNDER_WAY // self.pieces)
