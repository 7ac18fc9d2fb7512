"""Traits of stage 3 from a layer's input, and what follows from them, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.lanes import CHUNK
from flurka_numba.targets.sm90.shape import BARRIER_BYTES, BARRIERS_BYTES, STEP
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, GROUP, SHARED_BYTES, SPAN_BYTES

GROUPS = 2  # warpgroups with a tile each
HALVES = 2  # of a tile: 64 tokens each
TOKENS = GROUP * HALVES
COLUMNS = 128
LARGEST_BARRIERS = 256  # bytes, of all stages and of the warpgroups
INPUT_BYTES = TOKENS * SPAN_BYTES  # of x, for one step
WEIGHT_BYTES = COLUMNS // SPAN * STEP * SPAN_BYTES
STAGE_BYTES = INPUT_BYTES + WEIGHT_BYTES


@dataclass(frozen=True, slots=True)
class ProjectTraits:
    """apply: what is done with the queries."""

    apply: ApplyTraits

    @property
    def heads(self) -> int:
        """Of a tile."""
        return COLUMNS // self.apply.head_dim

    @property
    def fits(self) -> bool:
        """Whether whole heads make up a tile."""
        apply = self.apply
        if not isinstance(apply.feature_map, FeatureMap) or apply.head_dim != apply.value_dim:
            return False
        return apply.head_dim % CHUNK == 0 and COLUMNS % apply.head_dim == 0

    @property
    def state_bytes(self) -> int:
        """Of a tile's states."""
        return self.heads * self.apply.state_bytes

    @property
    def stages(self) -> int:
        """Steps in flight."""
        return (SHARED_BYTES - ALIGNMENT - self.state_bytes - LARGEST_BARRIERS) // STAGE_BYTES

    @property
    def shared_bytes(self) -> int:
        """Steps, states, then barriers: two a stage, two of the states, and a turn a warpgroup."""
        barriers = BARRIERS_BYTES * (self.stages + 1) + BARRIER_BYTES * GROUPS
        return self.stages * STAGE_BYTES + self.state_bytes + barriers + ALIGNMENT
