"""Traits of stage 2 with an elementwise map, and what follows from them, as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import OCTET, QUAD, QUAD_BYTES
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import STATE_SIDE, CompressTraits
from splat_numba.gen.language.lane_layout import WARP, sums_of, words_of
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, GROUP, SPAN_BYTES, WARPGROUP, spans

THREADS = 2 * WARPGROUP
ROW_THREADS = STATE_SIDE // OCTET  # that read a slot's columns, 8 each
THREAD_NUMBERS = 2 * OCTET  # of a slot, that a thread has: of keys and of values
ROWS = THREADS // ROW_THREADS  # slots that all threads read at a time
LOADS = 16  # of a thread in flight, 16 bytes each: 64 KiB of a block
LARGEST_DEPTH = 256  # slots in shared memory
LARGEST_SCALED_DEPTH = 128  # where a thread holds its numbers of all of them, until their scale is known
NUMBERS = sums_of(STATE_SIDE) + words_of(STATE_SIDE)  # of a thread's share: products, and sums of its columns' features
SHARE_BYTES = 4 * NUMBERS * WARPGROUP


@dataclass(frozen=True, slots=True)
class SlotStateTraits:
    """parts: the compression whose slots are read, which come in ``splits`` parts; depth: slots in shared memory, a
    multiple of 64.
    """

    parts: CompressTraits
    splits: int
    feature_map: FeatureMap
    depth: int

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.parts.head_dim), spans(self.parts.value_dim)

    @property
    def parts_at_once(self) -> int:
        """Parts of a slot whose loads are in flight together."""
        return min(self.splits, 2)

    @property
    def turns(self) -> int:
        """Slots of a thread."""
        return self.depth // ROWS

    @property
    def turns_at_once(self) -> int:
        """Those whose loads are: each has two times 8 columns, two loads each."""
        return math.gcd(LOADS // (THREAD_NUMBERS // QUAD * self.parts_at_once), self.turns)

    @property
    def turns_held(self) -> int:
        """Those whose numbers are in registers at once."""
        return self.turns if self.scaled else self.turns_at_once

    @property
    def scaled(self) -> bool:
        """Whether features are multiplied with a power of two before they are rounded, and the state with another."""
        return is_scaled(self.parts.dtype)

    @property
    def shared_bytes(self) -> int:
        """Features and values of the slots, a word, and 16 bytes a warp."""
        return (
            2 * self.depth * SPAN_BYTES + QUAD_BYTES + (QUAD_BYTES * THREADS // WARP if self.scaled else 0) + ALIGNMENT
        )


def state_depth(dtype: str, slots: int) -> int:
    """The depth for a share of so many slots; without slots that of one step, as an array of none does not compile."""
    return min(max(-(-slots // GROUP), 1) * GROUP, LARGEST_SCALED_DEPTH if is_scaled(dtype) else LARGEST_DEPTH)
