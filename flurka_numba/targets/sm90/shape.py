"""Traits: all that the text of each stage depends on; and what follows from them, as numbers.

A *span* is 64 columns of a head, 128 bytes of a token: what one copy fetches. The compressed keys and values are
numbered by *tiles*: (keys or values, batch entry, tile_spans neighbouring spans, row block of slots).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import QUAD, QUAD_BYTES
from flurka_numba.targets.sm90.lanes import CHUNK
from splat_numba.gen.language.lane_layout import MATRIX, log2
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    BLOCK_SHARED_BYTES,
    GROUP,
    PRODUCT_DEPTH,
    SHARED_BYTES,
    SPAN_BYTES,
    spans,
)

STEP = 64  # tokens of one step of the compression
SLOTS = 32  # slots that a block of the state kernel holds at a time
STATE_SIDE = SPAN  # features and values of such a block
SIDE_THREADS = STATE_SIDE // QUAD  # that share a row of it
STATE_THREADS = SIDE_THREADS * SIDE_THREADS
STATE_NUMBERS = STATE_THREADS * QUAD * (QUAD + 1)  # of a block's share of a state: products, and sums of features
BARRIER_BYTES = 8
BARRIERS_BYTES = 2 * BARRIER_BYTES  # of a stage in flight: a barrier for full, one for empty
SUM_ROWS = MATRIX  # copies of the sum of features behind the state's values: every lane then has the denominator
LARGEST_PRODUCT = 256  # columns
STAGE_BYTES = 200 << 10  # shared memory for the tiles of the compression

# A thread's row among those that a state's block takes at a time, and its four columns.
SIDE_ROW: Final = f"(thread >> u32({log2(SIDE_THREADS)}))"
SIDE_COLUMN: Final = f"(thread & u32({SIDE_THREADS - 1}))"


@dataclass(frozen=True, slots=True)
class CompressTraits:
    """head_dim, value_dim: elements; dtype: "float16" or "bfloat16"; groups: warpgroups of 64 slots each in a row
    block; tile_spans: spans of a tile; ragged: key lengths differ between batch entries; per_head: every head has
    projections of its own.
    """

    head_dim: int
    value_dim: int
    dtype: str
    groups: int
    tile_spans: int
    ragged: bool
    per_head: bool

    @property
    def rows(self) -> int:
        """Slots of a row block."""
        return GROUP * self.groups

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return SPAN * self.tile_spans

    @property
    def proj_bytes(self) -> int:
        """Shared memory of a row block of a projection, for one step."""
        return self.rows * SPAN_BYTES

    @property
    def token_bytes(self) -> int:
        """Shared memory of the tokens of one step."""
        return self.tile_spans * STEP * SPAN_BYTES

    @property
    def stages(self) -> int:
        """Steps in flight."""
        return min(STAGE_BYTES // (self.proj_bytes + self.token_bytes), 8)

    @property
    def shared_bytes(self) -> int:
        """Tiles, then two barriers a stage and one more, with room to align the start."""
        return self.stages * (self.proj_bytes + self.token_bytes + BARRIERS_BYTES) + BARRIER_BYTES + ALIGNMENT


@dataclass(frozen=True, slots=True)
class RandomFeatures:
    """A feature map by products with omega. name: "favor" or "rfa"; rows: of omega; eps: added to each of favor's."""

    name: str
    rows: int
    eps: float

    @property
    def part(self) -> int:
        """Places of one part of the features: as many as rows, and then up to what a product takes at once."""
        return -(-self.rows // PRODUCT_DEPTH) * PRODUCT_DEPTH

    @property
    def places(self) -> int:
        """Of all features: rfa has sines, then cosines."""
        return self.part * (2 if self.name == "rfa" else 1)


def feature_places(feature_map: FeatureMap | RandomFeatures, head_dim: int) -> int:
    """Places of a token's features."""
    return feature_map.places if isinstance(feature_map, RandomFeatures) else head_dim


def omega_rows(feature_map: FeatureMap | RandomFeatures) -> int:
    """Rows of omega in a product; 0 where there is no omega."""
    return feature_map.part if isinstance(feature_map, RandomFeatures) else 0


@dataclass(frozen=True, slots=True)
class StateTraits:
    """parts: the compression whose slots are read, which come in ``splits`` parts; None: slots are tokens of k and v
    themselves. ragged: tokens beyond the key lengths are left out.
    """

    head_dim: int
    value_dim: int
    dtype: str
    feature_map: RandomFeatures
    parts: CompressTraits | None
    splits: int
    ragged: bool

    @property
    def features(self) -> int:
        """Places of a slot's features."""
        return self.feature_map.places

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.features), spans(self.value_dim)

    @property
    def row_bytes(self) -> int:
        """Of a slot, and of a row of omega, where random features are made: 4 numbers more than the spans have, so
        that 8 lanes that read 16 bytes of a row each meet in no bank.
        """
        return 4 * (SPAN * spans(self.head_dim) + QUAD)

    @property
    def tile_bytes(self) -> int:
        """Features and values of some slots in float32."""
        return 2 * SLOTS * STATE_SIDE * 4

    @property
    def shared_bytes(self) -> int:
        """The tiles, the slots themselves, rows of omega; then a word."""
        return self.tile_bytes + (SLOTS + STATE_SIDE) * self.row_bytes + QUAD_BYTES + ALIGNMENT

    @property
    def resident(self) -> int:
        """Blocks on a multiprocessor. More than 4 parts in flight take more than 128 registers."""
        return 1 if self.splits > 4 or 2 * (self.shared_bytes + BLOCK_SHARED_BYTES) > SHARED_BYTES else 2


def chunks(dim: int) -> int:
    """Chunks of a row."""
    return -(-dim // CHUNK)


def state_rows(value_dim: int) -> int:
    """Rows of a span of a state: one a value, then the sums."""
    return CHUNK * chunks(value_dim) + SUM_ROWS


def state_bytes(features: int, value_dim: int) -> int:
    """Bytes of a head's state: spans of 64 features."""
    return spans(features) * state_rows(value_dim) * SPAN_BYTES
