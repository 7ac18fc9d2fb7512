"""Traits of kernels for a warp's matrix products whose texts are kept."""

from __future__ import annotations

from splat_numba.gen.boxes import Traits

GOLDEN = {
    "two_atoms": Traits(64, 64, "bfloat16", 2, 64, 2, 2),
    "every_option": Traits(
        20, 40, "float16", 1, 32, 2, 4, partial=True, skips=False, resumes=True, hands_on=True, ragged=True, negate=True
    ),
}
