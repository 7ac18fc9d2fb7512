"""Traits of the gradients of tokens, and what follows from them, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.sm90.shape import BARRIERS_BYTES
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, GROUP, SPAN_BYTES, spans

GROUPS = 4  # warpgroups
TOKENS = GROUP * GROUPS
STEP = 64  # slots
LARGEST_STEPS = 4  # more slots do not fit beside what is fetched ahead
TILE_SPANS = 2
STAGES = 4
REGISTERS = 32, 112  # a thread of the warpgroup that fetches, and of the others: together no more than 96 of each,
# with which the block begins, or who asks for more waits for ever; with 96 some would be spilled
PIECE_BYTES = TOKENS * STEP * 2  # of the projection, for a step of slots
STAGE_BYTES = TILE_SPANS * STEP * SPAN_BYTES


@dataclass(frozen=True, slots=True)
class TokenTraits:
    """head_dim, value_dim: elements; steps: of 64 slots. In float16 their gradients have a scale, see
    gradient_scales.py.
    """

    head_dim: int
    value_dim: int
    dtype: str
    steps: int

    @property
    def shared_bytes(self) -> int:
        """A projection's columns, stages, and two barriers for each."""
        pieces = self.steps * (PIECE_BYTES + BARRIERS_BYTES)
        return pieces + STAGES * (STAGE_BYTES + BARRIERS_BYTES) + ALIGNMENT


def pairs_of_spans(heads: int, dim: int) -> int:
    """Tiles that make up all columns."""
    return -(-heads * spans(dim) // TILE_SPANS)
