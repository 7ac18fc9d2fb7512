"""Traits of kernels for FMA units whose texts are kept."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.targets.simt.backward.traits import GradientTraits
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.packed.traits import PackedTraits

GOLDEN = {
    "float32": Traits(64, 64, "float32", 1, 64, 1, 3, partial=True, skips=False),
    "float64": Traits(20, 40, "float64", 1, 32, 1, 2, partial=True, skips=False, resumes=True, ragged=True),
}
GOLDEN_GRADIENTS = {
    "gradients_of_queries": GradientTraits(
        Traits(33, 17, "bfloat16", 1, 32, 1, 2, partial=True, skips=False), QUERIES, ("dq",), "float32", added=True,
        ragged=True, clears=True,
    ),
    "gradients_of_keys": GradientTraits(
        Traits(64, 64, "float32", 1, 32, 1, 2, partial=True, skips=False), KEYS, ("dk", "dv"), "float32", added=False,
        ragged=False, clears=False,
    ),
}  # fmt: skip

GOLDEN_PACKED = {
    "sddmm_runs": PackedTraits("sddmm", "float32", 64),
    "spmm_listed_placed": PackedTraits("spmm", "float16", 20, listed=True, placed=True),
    "softmax": PackedTraits("softmax", "float64"),
    "softmax_chunks": PackedTraits("softmax", "float16", held=2, sharing=8),
    "softmax_backward": PackedTraits("softmax_backward", "bfloat16"),
    "spmm_partial": PackedTraits("spmm", "float16", 20, partial=True),
    "adding": PackedTraits("adding", "float16", 20),
    "gathering": PackedTraits("gathering", "bfloat16"),
}
"""Of packed operators."""
GOLDEN_TILES = {"sddmm_tiles": FmaTraits("sddmm", "float32", 64), "spmm_tiles": FmaTraits("spmm", "float64", 20)}
"""Of packed operators in tiles."""
