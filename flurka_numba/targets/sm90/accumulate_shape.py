"""Traits of sums over a sequence, and what follows from them, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import QUAD_BYTES
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import STATE_SIDE, SUM_ROWS
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    GROUP,
    SPAN_BYTES,
    WARPGROUP,
    spans,
)

OPERANDS = {"keys": ("k", "v"), "queries": ("q", "dout")}  # x and y
TILE = GROUP  # rows
TILE_BYTES = TILE * SPAN_BYTES
BUFFERS = 2
SHARE_COLUMNS = STATE_SIDE + SUM_ROWS  # values, then the sums and zeros, or the row's largest and what has no meaning
SHARE_NUMBERS = STATE_SIDE * SHARE_COLUMNS


@dataclass(frozen=True, slots=True)
class AccumulateTraits:
    """of: "keys", or "queries": then features are multiplied by the first of their row's weights, and w is the second.
    ragged: rows at or beyond a batch entry's length are left out. compressed: keys and values are slots.
    """

    of: str
    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap
    ragged: bool
    compressed: bool = False

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.head_dim), spans(self.value_dim)

    @property
    def scaled(self) -> bool:
        """Whether sums are those of features over a divisor that has the state's scale, which is undone at the end."""
        return self.of == "queries" and is_scaled(self.dtype)

    @property
    def slots_scaled(self) -> bool:
        """Whether x and y have scales, so that features may be beyond float16: they have one then, too."""
        return self.compressed and self.of == "keys" and is_scaled(self.dtype)

    @property
    def shared_bytes(self) -> int:
        """Three buffers of features, values and weights; 16 bytes a warp."""
        return BUFFERS * 3 * TILE_BYTES + (QUAD_BYTES * WARPGROUP // WARP if self.slots_scaled else 0) + ALIGNMENT
