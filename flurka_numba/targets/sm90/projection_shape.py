"""Traits of the gradients of projections, and what follows from them, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.sm90.shape import BARRIERS_BYTES, STAGE_BYTES
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, GROUP, SPAN_BYTES


@dataclass(frozen=True, slots=True)
class ProjectionTraits:
    """groups: warpgroups of 64 slots each in a row block; columns: tokens of a tile; shared: keys and values have one
    projection; per_head: every head has projections of its own; scaled: the slots' gradients have a scale, see
    gradient_scales.py.
    """

    head_dim: int
    value_dim: int
    dtype: str
    groups: int
    columns: int
    shared: bool
    per_head: bool
    scaled: bool = False

    @property
    def rows(self) -> int:
        """Slots of a row block."""
        return GROUP * self.groups

    @property
    def slot_bytes(self) -> int:
        """Shared memory of a step's columns of the slots' gradients."""
        return self.rows * SPAN_BYTES

    @property
    def token_bytes(self) -> int:
        """The same of tokens."""
        return self.columns * SPAN_BYTES

    @property
    def stages(self) -> int:
        """Steps in flight."""
        return min(STAGE_BYTES // (self.slot_bytes + self.token_bytes), 8)

    @property
    def shared_bytes(self) -> int:
        """Steps, then two barriers a stage."""
        return self.stages * (self.slot_bytes + self.token_bytes + BARRIERS_BYTES) + ALIGNMENT
