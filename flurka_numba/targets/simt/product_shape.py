"""Sizes of a product's tiles, of their buffers in shared memory, and the names of its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.text import SHARED_ALIGNMENT

DEPTH = 16  # that is multiplied at once
BUFFERS = 2
LIMITS = {None: 0, "rows": 1, "depth": 2, "columns": 3}
NONE = 2**32 - 1  # no place for ones
COUNTS = (
    "heads", "outer_heads", "rows", "columns", "depth", "depth_blocks", "steps", "shares", "steps_of_share",
    "row_blocks", "column_blocks", "part_row", "limited", "limit_first", "a_ones", "b_ones", "a_along", "b_along",
)  # fmt: skip
PAD = QUAD  # numbers behind a row of a tile, so that neighbouring rows are in other banks


@dataclass(frozen=True, slots=True)
class ProductShape:
    """a, b, result: dtypes. A tile of rows x columns, of which a thread has thread_rows x thread_columns, in fours."""

    a: str
    b: str
    result: str
    rows: int
    columns: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.rows * self.columns // (self.thread_rows * self.thread_columns)

    @property
    def a_pitch(self) -> int:
        """Bytes of a row of A's tile, which holds one place of the depth."""
        return 4 * (self.rows + PAD)

    @property
    def b_pitch(self) -> int:
        """Bytes of a row of B's tile."""
        return 4 * (self.columns + PAD)

    @property
    def shared_bytes(self) -> int:
        """Two buffers."""
        return BUFFERS * self.buffer_bytes + SHARED_ALIGNMENT

    @property
    def buffer_bytes(self) -> int:
        """A tile of each."""
        return DEPTH * (self.a_pitch + self.b_pitch)

    @property
    def row_hop(self) -> int:
        """Rows from one of a thread's fours to the next: so that lanes read what is adjacent."""
        return self.rows // (self.thread_rows // QUAD)

    @property
    def column_hop(self) -> int:
        """Columns, likewise."""
        return self.columns // (self.thread_columns // QUAD)


LARGE = (128, 64, 8, 8)
MEDIUM = (64, 64, 8, 4)
SMALL = (32, 32, 4, 4)
