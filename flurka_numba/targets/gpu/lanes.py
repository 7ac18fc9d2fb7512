"""Who a thread is, and how much a lane moves at once: sizes and words that texts of every target for GPUs have."""

from __future__ import annotations

from typing import Final

from splat_numba.gen.language.lane_layout import WARP, log2

QUAD: Final = 4  # words, or numbers of float32, that one access moves
QUAD_BYTES: Final = 4 * QUAD
OCTET: Final = 2 * QUAD  # numbers of 16 bits that it moves
# Of a thread, by its index in the block:
LANE: Final = f"(thread & u32({WARP - 1}))"
WARP_OF_BLOCK: Final = f"(thread >> u32({log2(WARP)}))"


def quad_of(array: str, first: int, before: str = "") -> str:
    """A list of the names of four neighbouring numbers of an array. before: text in front of the number of each."""
    return ", ".join(f"{array}[{before}{first + i}]" for i in range(QUAD))
