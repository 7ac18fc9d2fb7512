"""Which lane of a warp holds which numbers of a matrix: the layout that products of tensor cores share, as numbers.

PTX ISA, "Matrix Fragments for mma.m16n8k16": of lane l, groupID is l / 4, a row, and threadID_in_group is l % 4, two
neighbouring columns. A fragment is made of (8, 8) matrices laid out so. Of A (16, 16) a lane has four words of two
16-bit numbers, of B (16, 8) two, of the sums C and D (16, 8) four numbers: c0 and c1 in row groupID, c2 and c3 eight
rows further on. wgmma.m64nNk16 lays out A and D alike, 16 of the 64 rows for each warp, N / 8 times side by side, and
ldmatrix.x4, stmatrix and movmatrix move such matrices: a row of one is 16 bytes, and lane l gives the place of row
l % 8 of matrix l / 8.

So sums[4 j + 2 r + x] of a lane is row groupID + 8 r, column 8 j + 2 threadID_in_group + x.
"""

from __future__ import annotations

from typing import Final

WARP: Final = 32  # lanes of one

MATRIX: Final = 8  # rows and columns of the matrices that fragments are made of; columns of B, C and D
ATOM: Final = 16  # rows of A, C and D, and the depth of a product
ROW_LANES: Final = WARP // MATRIX  # that share a row
LANE_COLUMNS: Final = MATRIX // ROW_LANES  # neighbouring ones of a lane: as 16-bit numbers a word
LANE_ROWS: Final = ATOM // MATRIX  # of a lane
SUMS: Final = LANE_ROWS * LANE_COLUMNS  # of a lane in each eight columns
LEFT_WORDS: Final = LANE_ROWS * (ATOM // MATRIX)  # of a lane in A
RIGHT_WORDS: Final = ATOM // MATRIX  # of a lane in B


def log2(size: int) -> int:
    """Of a power of two: by how many bits to shift for dividing by it."""
    return size.bit_length() - 1


def sums_of(columns: int) -> int:
    """Registers of a lane for sums of so many columns, whole eights."""
    return columns // MATRIX * SUMS


def words_of(columns: int) -> int:
    """The same for 16-bit numbers, two in a word."""
    return sums_of(columns) // LANE_COLUMNS


def sum_at(array: str, row: int | str, x: int | str, eight: int | str = "j") -> str:
    """A lane's number of these, as text: in its row 0 or 1, of an eight of columns the one of place 0 or 1. Each is a
    number, or the name of one in the text.
    """
    numbers = LANE_COLUMNS * (row if isinstance(row, int) else 0) + (x if isinstance(x, int) else 0)
    parts = [f"{SUMS} * {eight}" if isinstance(eight, str) else str(SUMS * eight)]
    parts += [f"{LANE_COLUMNS} * {row}"] if isinstance(row, str) else []
    parts += [str(numbers)] if numbers or isinstance(row, int) else []
    parts += [x] if isinstance(x, str) else []
    return f"{array}[{' + '.join(parts)}]"
