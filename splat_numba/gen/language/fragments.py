"""Which lane of a warp holds which number of a matrix, and the matrix product that is of registers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, LEFT_WORDS, MATRIX, ROW_LANES
from splat_numba.gen.language.lane_values import LANE, LANES, Reals, Words, canonical, halves_of, lanes, tf32, widen

ROW = LANE // ROW_LANES
COLUMN = LANE_COLUMNS * (LANE % ROW_LANES)


def left_rows(words: Sequence[Any], dtype: str) -> Reals:
    """(16, 16) numbers of a left operand from its four words a lane."""
    found = np.zeros((ATOM, ATOM), np.float32)
    for i, word in enumerate(words):
        for x, half in enumerate(halves_of(word)):
            found[ROW + MATRIX * (i % LANE_ROWS), MATRIX * (i // LANE_ROWS) + COLUMN + x] = widen(half, dtype)
    return found


def right_columns(words: Sequence[Any], dtype: str) -> Reals:
    """(16, 8) numbers of a right operand from its two words a lane."""
    found = np.zeros((ATOM, MATRIX), np.float32)
    for i, word in enumerate(words):
        for x, half in enumerate(halves_of(word)):
            found[MATRIX * i + COLUMN + x, ROW] = widen(half, dtype)
    return found


def spread(sums: Reals) -> Reals:
    """A warp's (16, columns) sums as its accumulators, (columns / 2, lanes)."""
    # Row 8 r + g, column 8 j + 2 t + x: lane 4 g + t, number 4 j + 2 r + x of it.
    by_lane = sums.reshape(LANE_ROWS, MATRIX, -1, ROW_LANES, LANE_COLUMNS)
    return by_lane.transpose(2, 0, 4, 1, 3).reshape(-1, LANES)


def _add_product(words: Sequence[Any], sums: Sequence[Any], dtype: str) -> tuple[Reals, ...]:
    added = spread(left_rows(words[:LEFT_WORDS], dtype) @ right_columns(words[LEFT_WORDS:], dtype))
    return tuple(canonical(lanes(one, np.float32) + more) for one, more in zip(sums, added, strict=True))


def transpose_matrix(word: Any) -> Words:
    """An (8, 8) matrix of 16-bit numbers transposed; lane l holds numbers 2 (l % 4) and the next of row l // 4."""
    rows = np.stack(halves_of(word), axis=-1).reshape(MATRIX, MATRIX)
    low, high = rows.T.reshape(LANES, LANE_COLUMNS).T.astype(np.uint32)
    return low | high << np.uint32(16)


def mma_bfloat16(
    a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> tuple[Reals, ...]:
    """(16, 8) float32 + (16, 16) x (16, 8), a warp's."""
    return _add_product((a0, a1, a2, a3, b0, b1), (c0, c1, c2, c3), "bfloat16")


def mma_float16(
    a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> tuple[Reals, ...]:
    """(16, 8) float32 + (16, 16) x (16, 8), a warp's."""
    return _add_product((a0, a1, a2, a3, b0, b1), (c0, c1, c2, c3), "float16")


def mma_tf32(
    a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> tuple[Reals, ...]:
    """(16, 8) float32 + (16, 8) x (8, 8), a warp's; a word is a number, and its lanes' columns are 4 apart."""
    left = np.zeros((ATOM, MATRIX), np.float32)
    right = np.zeros((MATRIX, MATRIX), np.float32)
    inner = LANE % ROW_LANES
    for i, word in enumerate((a0, a1, a2, a3)):
        left[ROW + MATRIX * (i % LANE_ROWS), inner + ROW_LANES * (i // LANE_ROWS)] = tf32(word).view(np.float32)
    for i, word in enumerate((b0, b1)):
        right[inner + ROW_LANES * i, ROW] = tf32(word).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        added = spread(left @ right)
        return tuple(
            canonical(lanes(one, np.float32) + more) for one, more in zip((c0, c1, c2, c3), added, strict=True)
        )
