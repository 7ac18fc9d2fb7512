"""Which lane has which numbers, where a lane takes 16 adjacent bytes of each of its rows (rows.py says why).

A tile is GROUP rows. A lane has LANE_ROWS of them, MATRIX apart, and of every chunk of CHUNK columns OCTET adjacent
ones, QUAD words: word i of such an array is of row (i // QUAD) % LANE_ROWS. Texts go over words in loops over i, and
have the lane's first column of a chunk in ``eighth``.
"""

from __future__ import annotations

from typing import Final

from flurka_numba.targets.gpu.lanes import OCTET, QUAD, QUAD_BYTES, quad_of
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, MATRIX, ROW_LANES, SUMS, log2
from splat_numba.gen.targets.sm90.shape import PRODUCT_DEPTH, WARPGROUP

CHUNK: Final = OCTET * ROW_LANES  # adjacent numbers of a row that its lanes hold
CHUNK_WORDS: Final = LANE_ROWS * QUAD  # of a chunk that a lane holds
CHUNK_NUMBERS: Final = LANE_COLUMNS * CHUNK_WORDS
CHUNK_STEPS: Final = CHUNK // PRODUCT_DEPTH  # of a product along it
LANES_OF_ROW: Final = tuple(1 << doubling for doubling in range(log2(ROW_LANES)))  # how far apart, one after the other

LANE_ROW: Final = f"(lane >> u32({log2(ROW_LANES)}))"  # of a warp's rows
LANE_OF_ROW: Final = f"(lane & u32({ROW_LANES - 1}))"
GROUP_OF_BLOCK: Final = f"(thread >> u32({log2(WARPGROUP)}))"

ROW_OF_WORD: Final = f"(i // {QUAD}) % {LANE_ROWS}"
IN_SECOND_ROW: Final = f"{ROW_OF_WORD} == 1"
COLUMN_OF_WORD: Final = f"u32({CHUNK} * (i // {CHUNK_WORDS}) + {LANE_COLUMNS} * (i % {QUAD})) + eighth"
# Where products leave the first of word i's two numbers, see rows.py.
RESULT_OF_WORD: Final = (
    f"{CHUNK_NUMBERS} * (i // {CHUNK_WORDS}) + {SUMS} * (i % {QUAD}) + {LANE_COLUMNS} * ({ROW_OF_WORD})"
)


def of_row(name: str) -> str:
    """``name``_0 or ``name``_1, by the row of word i."""
    return f"{name}_0 if {ROW_OF_WORD} == 0 else {name}_1"


def first_word(chunk: int, row: int) -> int:
    """Of a lane's words of a chunk in one of its rows."""
    return QUAD * (LANE_ROWS * chunk + row)


def words_of_chunk(name: str, chunk: int, row: int) -> str:
    """A list of the names of these."""
    return quad_of(name, first_word(chunk, row))


def swizzle(row: str) -> str:
    """What the places in a row of a swizzled tile are combined with. row: its name in the text."""
    return f"(({row} & u32({MATRIX - 1})) << u32({log2(QUAD_BYTES)}))"
