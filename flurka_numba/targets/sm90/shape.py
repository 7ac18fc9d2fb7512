"""Traits: all that the text of each stage depends on; and what follows from them, as numbers.

A *span* is 64 columns of a head, 128 bytes of a token: what one copy fetches. The compressed keys and values are
numbered by *tiles*: (keys or values, batch entry, tile_spans neighbouring spans, row block of slots).
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, SPAN, SPAN_BYTES, spans

STEP = 64  # tokens of one step of the compression
CHUNK = 32  # adjacent numbers of a row that four lanes hold, 16 bytes each
SLOTS = 32  # slots that a block of the state kernel holds at a time
STATE_SIDE = 64  # features and values of such a block
STATE_THREADS = 256
STATE_NUMBERS = STATE_THREADS * (16 + 4)  # of a block's share of a state: each thread's products and sums of features
SUM_ROWS = 8  # copies of the sum of features behind the state's values: every lane then has the denominator
LARGEST_PRODUCT = 256  # columns
STAGE_BYTES = 200 << 10  # shared memory for the tiles of the compression


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
        return 64 * self.groups

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
        return self.stages * (self.proj_bytes + self.token_bytes + 16) + 8 + ALIGNMENT


@dataclass(frozen=True, slots=True)
class StateTraits:
    """parts: the compression whose slots are read, which come in ``splits`` parts; None: slots are tokens of k and v
    themselves. ragged: tokens beyond the key lengths are left out.
    """

    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap
    parts: CompressTraits | None
    splits: int
    ragged: bool

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.head_dim), spans(self.value_dim)

    @property
    def shared_bytes(self) -> int:
        """Features and values of some slots in float32, then a word."""
        return 2 * SLOTS * STATE_SIDE * 4 + 16 + ALIGNMENT


@dataclass(frozen=True, slots=True)
class ApplyTraits:
    """denominator, eps: as in Problem."""

    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap
    denominator: str
    eps: float

    @property
    def prefetches(self) -> bool:
        """Whether the next queries are loaded while these are worked on; wide heads have no registers for that."""
        return chunks(self.head_dim) <= 4

    @property
    def shared_bytes(self) -> int:
        """A head's state, then a barrier."""
        return state_bytes(self.head_dim, self.value_dim) + 8 + ALIGNMENT

    @property
    def resident(self) -> int:
        """Blocks on a multiprocessor: each waits for memory, so many of them hide that.

        A thread holds sums, features, the next queries, and about 24 registers more.
        """
        queries = 8 * chunks(self.head_dim) * (2 if self.prefetches else 1)
        registers = 16 * chunks(self.value_dim) + 4 + queries + 24
        return max(1, min(8, 65536 // (128 * registers), (227 << 10) // (self.shared_bytes + 1024)))


def chunks(dim: int) -> int:
    """Chunks of a row."""
    return -(-dim // CHUNK)


def state_rows(value_dim: int) -> int:
    """Rows of a span of a state: one a value, then the sums."""
    return CHUNK * chunks(value_dim) + SUM_ROWS


def state_bytes(head_dim: int, value_dim: int) -> int:
    """Bytes of a head's state: spans of 64 features."""
    return spans(head_dim) * state_rows(value_dim) * SPAN_BYTES
