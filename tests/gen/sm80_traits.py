"""Traits of kernels for a warp's matrix products whose texts are kept."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, FINISHED, READ, ROUNDED, WRITTEN
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits

GOLDEN = {
    "two_atoms": Traits(64, 64, "bfloat16", 2, 64, 2, 2),
    "every_option": Traits(
        20, 40, "float16", 1, 32, 2, 4, partial=True, skips=False, resumes=True, hands_on=True, ragged=True, negate=True
    ),
    "three_products": Traits(20, 12, "float32", 2, 32, 2, 2, partial=False, skips=False, rests=True),
    "one_product": Traits(
        8, 8, "float32", 1, 16, 1, 2, partial=True, skips=False, resumes=True, ragged=True, precision="tf32"
    ),
}
GOLDEN_GRADIENTS = {
    "dq_lengths": GradientTraits(
        Traits(20, 40, "float16", 1, 32, 1, 3, partial=True, skips=False), QUERIES, ("dq",), FINISHED, ragged=True
    ),
    "dk_dv_slopes": GradientTraits(
        Traits(64, 64, "bfloat16", 2, 64, 2, 2, partial=True, skips=True),
        KEYS,
        ("dk", "dv"),
        ROUNDED,
        ragged=False,
        kept=WRITTEN,
        padded=True,
    ),
    "dk_dv_slopes_in_pairs": GradientTraits(
        Traits(32, 32, "float16", 1, 64, 2, 2, partial=True, skips=False),
        KEYS,
        ("dk", "dv"),
        ROUNDED,
        ragged=False,
        kept=WRITTEN,
        padded=True,
    ),
    "dk_dv": GradientTraits(Traits(64, 64, "bfloat16", 2, 32, 2, 2), KEYS, ("dk", "dv"), ROUNDED, ragged=False),
    "dq_three_products": GradientTraits(
        Traits(20, 12, "float32", 1, 16, 1, 3, partial=False, skips=False), QUERIES, ("dq",), ADDED, ragged=False
    ),
}
GOLDEN_READING = {
    "dq_of_slopes": GradientTraits(
        Traits(64, 64, "bfloat16", 2, 64, 4, 2, partial=False, skips=True),
        QUERIES,
        ("dq",),
        ROUNDED,
        ragged=False,
        kept=READ,
    ),
}
"""Of kernels that read kept slopes."""
GOLDEN_TILED = {
    "packed_sddmm": TiledTraits("sddmm", "bfloat16", 64, 128),
    "packed_spmm": TiledTraits("spmm", "float16", 20),
    "packed_columns": TiledTraits("columns", "float16", 64),
}
"""Of packed operators."""
