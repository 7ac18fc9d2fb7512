"""Traits of gradients along a sequence, and what follows from them, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.gpu.lanes import QUAD_BYTES
from flurka_numba.targets.sm90.image_shape import turned_bytes
from flurka_numba.targets.sm90.lanes import CHUNK_NUMBERS, CHUNK_WORDS
from flurka_numba.targets.sm90.scales import has_row_scale, is_scaled
from flurka_numba.targets.sm90.shape import BARRIER_BYTES, chunks, state_bytes
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, WARPGROUP, resident_blocks

OPERANDS = {"queries": ("q", "dout", "dq"), "slots": ("k", "v", "dk", "dv")}  # x, y and what is written
SPREAD = ("dk_spread", "dv_spread")
LARGEST_CHUNKS = 8  # of head_dim and value_dim together: more do not fit in registers
MOST_RESIDENT = 4  # blocks
OTHER_REGISTERS = 50  # of a thread, about
CHUNKS_AT_ONCE = 5  # with more, y is loaded after the first product


@dataclass(frozen=True, slots=True)
class GradientTraits:
    """of: "queries", or "slots", for which the images are those of the state's gradient.

    denominator, eps: as in Problem; ragged: the gradients of slots at or beyond a batch entry's length are 0; spread:
    those of slots are written twice, once with columns in the order that token_gradients.py wants. compressed: k and v
    are slots. measure: nothing is written but each block's largest gradients; shared: gradients of k and of v meet in
    one sum, so that they have one scale in float16.
    """

    of: str
    head_dim: int
    value_dim: int
    dtype: str
    feature_map: FeatureMap
    denominator: str
    eps: float
    ragged: bool
    spread: bool
    compressed: bool = False
    measure: bool = False
    shared: bool = False

    @property
    def row_scaled(self) -> bool:
        """Whether features are multiplied with a power of two of their row."""
        return has_row_scale(self.dtype, self.feature_map) or self.slots_scaled

    @property
    def values_scaled(self) -> bool:
        """Whether values, and so results and all that is made of these, have a scale that gradients undo."""
        return self.compressed and is_scaled(self.dtype)

    @property
    def slots_scaled(self) -> bool:
        """Whether x is slots with a scale."""
        return self.values_scaled and self.of == "slots"

    @property
    def gradients_scaled(self) -> bool:
        """Whether what is written has one scale for all heads, as products over heads follow."""
        return self.slots_scaled and self.spread and not self.measure

    @property
    def written(self) -> tuple[str, ...]:
        """What is read and written by address."""
        if self.measure:
            return OPERANDS[self.of][:2]
        return (*OPERANDS[self.of], *(SPREAD if self.spread else ()))

    @property
    def further(self) -> tuple[str, ...]:
        """Pointers to scales, and to what they follow from."""
        found: tuple[str, ...] = ("slot_scales",) if self.slots_scaled else ()
        found += ("gradient_tops",) if self.measure or self.gradients_scaled else ()
        return (*found, "gradient_scales") if self.gradients_scaled else found

    @property
    def top_bytes(self) -> int:
        """Shared memory for the largest gradients: of keys, and of values, 16 bytes a warp."""
        return 2 * QUAD_BYTES * WARPGROUP // WARP if self.measure or self.gradients_scaled else 0

    @property
    def shared_bytes(self) -> int:
        """Both images, the largest gradients, then a barrier."""
        return self.image_bytes + self.turned_bytes + self.top_bytes + BARRIER_BYTES + ALIGNMENT

    @property
    def image_bytes(self) -> int:
        """Of the image for rows of features."""
        return state_bytes(self.head_dim, self.value_dim)

    @property
    def turned_bytes(self) -> int:
        """Of the image for rows of values."""
        return turned_bytes(self.head_dim, self.value_dim)

    @property
    def resident(self) -> int:
        """Blocks on a multiprocessor: a thread holds x, phi(x), y, both products' results, and OTHER_REGISTERS."""
        both = chunks(self.head_dim) + chunks(self.value_dim)
        registers = 3 * CHUNK_WORDS * both + CHUNK_WORDS * chunks(self.head_dim) + OTHER_REGISTERS
        if self.slots_scaled:
            registers += CHUNK_NUMBERS * chunks(self.head_dim)  # features, until their scale is known
        return resident_blocks(WARPGROUP, registers, self.shared_bytes, MOST_RESIDENT)
