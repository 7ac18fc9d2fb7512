"""Traits of Hopper kernels for the tests: those whose texts are kept, and any that the planner may choose."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, READ, ROUNDED, WRITTEN
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits
from splat_numba.gen.targets.sm90.tile_shapes import candidates

DTYPES = ("float16", "bfloat16")
DIMS = (1, 8, 16, 20, 32, 33, 64, 72, 80, 96, 128, 192, 255, 256)

GOLDEN = {
    "plain": Traits(64, 64, "float16", 1, 128, 2, 2, partial=False, skips=False),
    "masked": Traits(128, 128, "bfloat16", 2, 128, 2, 1, partial=True, skips=True),
    "ragged": Traits(
        80, 72, "bfloat16", 1, 80, 2, 2, partial=True, skips=False, resumes=True, hands_on=True, ragged=True,
        negate=True,
    ),
}  # fmt: skip


def shapes(head_dim: int, value_dim: int, dtype: str) -> list[Traits]:
    """What the planner may choose for these dimensions."""
    return candidates(Problem(64, 64, head_dim, value_dim, dtype), Gpu())


@st.composite
def traits(draw):
    """Any traits: of one group, no group skips a tile, as the others then have none to wait for."""
    one = draw(st.sampled_from(shapes(*(draw(st.sampled_from(kinds)) for kinds in (DIMS, DIMS, DTYPES)))))
    partial, skips, resumes, hands_on, ragged, negate = (draw(st.booleans()) for _ in range(6))
    return replace(
        one, partial=partial, skips=skips and one.groups > 1, resumes=resumes, hands_on=hands_on, ragged=ragged,
        negate=negate,
    )  # fmt: skip


GOLDEN_GRADIENTS = {
    "gradients_of_queries": BackwardTraits(
        Traits(80, 72, "bfloat16", 1, 64, 2, 2, partial=True, skips=False, negate=True), QUERIES, ("dq",), ADDED,
        ragged=True,
    ),
    "gradients_of_keys": BackwardTraits(
        Traits(128, 128, "bfloat16", 2, 64, 2, 1), KEYS, ("dk", "dv"), ROUNDED, ragged=False
    ),
    "gradients_that_keep_slopes": BackwardTraits(
        Traits(128, 128, "float16", 2, 64, 2, 1, partial=False, skips=False), KEYS, ("dk", "dv"), ROUNDED, ragged=False,
        kept=WRITTEN, padded=True,
    ),
    "gradients_of_kept_slopes": BackwardTraits(
        Traits(128, 128, "bfloat16", 3, 64, 5, 1, partial=False), QUERIES, ("dq",), ROUNDED, ragged=False, kept=READ
    ),
}  # fmt: skip
