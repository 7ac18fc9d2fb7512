"""Traits of stage 3, and what follows from them, as numbers: shared memory, registers, blocks."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.sm90.lanes import CHUNK_NUMBERS, CHUNK_WORDS
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import (
    BARRIER_BYTES,
    SUM_ROWS,
    RandomFeatures,
    chunks,
    feature_places,
    omega_rows,
    state_bytes,
)
from splat_numba.gen.language.lane_layout import sums_of, words_of
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, SHARED_BYTES, SPAN_BYTES, WARPGROUP, resident_blocks, spans

MOST_RESIDENT = 8  # blocks
LARGEST_THREAD = 232  # of THREAD_REGISTERS, that the text's own numbers may take
LARGEST_ROWS = {"favor": 256, "rfa": 128}  # of omega: what a product has, and what compiles without spilling
OTHER_REGISTERS = 24  # of a thread, about
OMEGA_REGISTERS = 32  # the same while u = q omega^T is made


@dataclass(frozen=True, slots=True)
class ApplyTraits:
    """denominator, eps: as in Problem. of_slots: the state is over slots, F v, which float16 has scales for."""

    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap | RandomFeatures
    denominator: str
    eps: float
    of_slots: bool = False

    @property
    def features(self) -> int:
        """Places of a query's features."""
        return feature_places(self.feature_map, self.head_dim)

    @property
    def state_bytes(self) -> int:
        """Of a head's state."""
        return state_bytes(self.features, self.value_dim)

    @property
    def omega_bytes(self) -> int:
        """Of one of omega's two images: spans of 64 columns, rounded to 16 bits."""
        return omega_rows(self.feature_map) * spans(self.head_dim) * SPAN_BYTES

    @property
    def scaled(self) -> bool:
        """Whether a row's features are multiplied with a power of two of its own, and the state with the head's."""
        return is_scaled(self.dtype)

    @property
    def values_scaled(self) -> bool:
        """Whether the state's values are multiplied with a power of two of their head, which the results undo."""
        return self.scaled and self.of_slots

    @property
    def relative(self) -> bool:
        """Whether features are multiplied with their span's part of the head's scale: those of slots have a scale a
        span, as the blocks that make one do not know each other.
        """
        return self.scaled and spans(self.features) > 1 and self.denominator != "guarded"  # rfa's are equal

    @property
    def shared_bytes(self) -> int:
        """A head's state, omega's images, then a barrier."""
        return self.state_bytes + 2 * self.omega_bytes + BARRIER_BYTES + ALIGNMENT

    @property
    def prefetches(self) -> bool:
        """Whether the next queries are loaded while these are worked on. An elementwise map needs registers of their
        own for that, which wide heads have not; otherwise they go where these were, beside features and results.
        """
        narrow = chunks(self.head_dim) <= 4
        if omega_rows(self.feature_map):
            return narrow and self._queries + self._after_omega <= LARGEST_THREAD
        return narrow

    @property
    def registers(self) -> int:
        """Of a thread, about: the most that it holds at once."""
        ahead = self._queries if self.prefetches else 0
        if rows := omega_rows(self.feature_map):
            operands = 17 * self._queries // 8  # where they were loaded to, and in a product's order; and addresses
            return max(operands + sums_of(rows) + OMEGA_REGISTERS, ahead + self._after_omega)
        return self._queries + ahead + self._results

    @property
    def _queries(self) -> int:
        """Registers of two rows of queries."""
        return CHUNK_WORDS * chunks(self.head_dim)

    @property
    def _results(self) -> int:
        """Registers of two rows of results."""
        return CHUNK_NUMBERS * chunks(self.value_dim) + sums_of(SUM_ROWS) + OTHER_REGISTERS

    @property
    def _after_omega(self) -> int:
        """Registers of two rows of random features, and of u that they are made from, or of results."""
        angles = words_of(omega_rows(self.feature_map)) if self.features > omega_rows(self.feature_map) else 0  # rfa's
        made_from = sums_of(omega_rows(self.feature_map)) + angles + OTHER_REGISTERS
        return words_of(self.features) + max(made_from, self._results)

    @property
    def fits(self) -> bool:
        """Whether a multiprocessor holds a block, and a thread its numbers."""
        if self.shared_bytes > SHARED_BYTES or self.registers > LARGEST_THREAD:
            return False
        return isinstance(self.feature_map, FeatureMap) or self.feature_map.rows <= LARGEST_ROWS[self.feature_map.name]

    @property
    def resident(self) -> int:
        """Blocks on a multiprocessor: each waits for memory, so many of them hide that."""
        return resident_blocks(WARPGROUP, self.registers, self.shared_bytes, MOST_RESIDENT)
