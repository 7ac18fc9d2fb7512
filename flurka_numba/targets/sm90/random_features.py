"""Random features from u = x omega^T, as text: what stage 2 and stage 3 do with a number, its row and omega.

favor: exp(c u - c^2 |x|^2 / 2 - stab) + eps with c = head_dim^-1/4, as a power of 2. The factor rows^-1/2 is left out,
because it cancels: favor's denominator is phi(q).z as it is. rfa: rows^-1/2 (sin, cos) of u / |x|.
"""

from __future__ import annotations

from flurka_numba.targets.formulas import LOG2_E
from flurka_numba.targets.sm90.shape import RandomFeatures

SMALLEST_SQUARE = 2.0**-126  # below it the square root is 0; a shorter row, as one of zeros, has direction 0


def slope(head_dim: int) -> str:
    """What u is multiplied with in favor's power of 2."""
    return f"f32({head_dim**-0.25 * LOG2_E!r})"


def square_slope(head_dim: int) -> str:
    """What is taken off for |x|^2."""
    return f"f32({head_dim**-0.5 / 2.0 * LOG2_E!r})"


def rfa_factor(phi: RandomFeatures) -> str:
    """rows^-1/2."""
    return f"f32({phi.rows**-0.5!r})"


def inverse_norm(square: str) -> str:
    """1 / |x|; 0 where |x| is."""
    return f"ptx.reciprocal(ptx.square_root({square})) if {square} >= f32({SMALLEST_SQUARE!r}) else f32(0.0)"
