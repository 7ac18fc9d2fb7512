"""Rows of float32 between memory and a lane's sums, of which it has four neighbours in each sixteen columns: sums
[8 m + 4 x + 2 row + y] is column 16 m + 2 column + 2 y + x, as targets/sm80/real_products.py leaves them.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, SUMS, sums_of
from splat_numba.gen.language.writer import SourceWriter

FLOAT = 4  # bytes
SIXTEEN = sums_of(ATOM)  # registers of sixteen columns


def four_sums(total: str, m: int) -> list[str]:
    """A lane's numbers of sixteen columns, in the order of columns."""
    return [
        f"{total}[{SIXTEEN * m + SUMS * x + y} + {LANE_COLUMNS} * row]" for y in range(2) for x in range(LANE_COLUMNS)
    ]


def sixteens(dim: int) -> range:
    """Of the columns of so many numbers."""
    return range(-(-dim // ATOM))


def inside(m: int, dim: int, when: str) -> str:
    """1 where the lane's four columns are there, as rows are whole chunks, and ``when``."""
    if ATOM * (m + 1) <= dim:
        return when
    return f"{when} if u32({LANE_COLUMNS} * column) < u32({dim - ATOM * m}) else u32(0)"


def place(first: str, m: int) -> str:
    """Of these four columns in a row that begins there."""
    return f"{first} + u64({ATOM * FLOAT * m}) + u64({LANE_COLUMNS * FLOAT}) * u64(column)"


def emit_real_row(out: SourceWriter, dim: int, total: str, share: str) -> None:
    """A row of ``total`` times a share, to the row at ``to``, where the row is ``real``."""
    for m in sixteens(dim):
        numbers = ", ".join(f"{one} * {share}" for one in four_sums(total, m))
        out.line(f"ptx.store_reals4({place('to', m)}, {numbers}, {inside(m, dim, 'real')})")


def readable(first: str, m: int, dim: int) -> str:
    """The same to read from: what reaches beyond the row is its first place, for columns that nobody stores."""
    if ATOM * (m + 1) <= dim:
        return place(first, m)
    return f"{place(first, m)} if u32({LANE_COLUMNS} * column) < u32({dim - ATOM * m}) else {first}"


def emit_resume_real_row(out: SourceWriter, dim: int) -> None:
    """A row of ``total`` from ``start``."""
    for m in sixteens(dim):
        out.line(f"{', '.join(four_sums('total', m))} = ptx.load_reals4({readable('start', m, dim)})")


def emit_add_real_row(out: SourceWriter, dim: int) -> None:
    """To a row of ``total`` what is in the one at ``to``."""
    for m in sixteens(dim):
        out.line(f"x_0, x_1, x_2, x_3 = ptx.load_reals4({readable('to', m, dim)})")
        for x, one in enumerate(four_sums("total", m)):
            out.line(f"{one} += x_{x}")
