"""What the text of a gradient kernel depends on, and where its tiles are in shared memory.

A block holds a *left* tile, the tokens whose gradients it makes, and *right* tiles pass by. Of each there are two
arrays: the first (queries or keys) gives scores = left.right, the second (dout or values) gives dP. For dq the left
ones are q and dout, the right ones k and v; for dk and dv it is the other way round.

Where slopes (dS, less the scale) are kept, a kernel of keys writes those of its tiles to memory, and one of queries
reads them instead of making them again: then it needs no left tiles, and of the right ones k alone. An *image* is the
slopes of 64 queries x 64 keys in the order in which the reader's threads want them, four words a thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.targets.gpu.addresses import STEPS
from splat_numba.gen.targets.gpu.gradient_kernels import (
    LEVEL_BYTES,
    NOWHERE,
    READ,
    WRITTEN,
    GradientKernel,
    names_written,
)
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    INFO_BYTES,
    SHARED_BYTES,
    SPAN_BYTES,
    group_mask_bytes,
    spans,
)

IMAGE_PART = IMAGE_BYTES // 16  # of a warp of the reader for 16 keys: 16 bytes a thread


@dataclass(frozen=True, slots=True)
class BackwardTraits(GradientKernel):
    """result: how gradients are stored; ragged: key lengths differ between batch entries; kept: NOWHERE, WRITTEN or
    READ; padded: some rows of a kernel that writes slopes are padding, whose slopes must be 0.
    """

    result: str
    ragged: bool
    kept: str = NOWHERE
    padded: bool = False

    @property
    def scores(self) -> bool:
        """Whether scores are made."""
        return self.kept != READ

    @property
    def slopes(self) -> bool:
        """Whether gradients of the scores are made."""
        return self.scores and (self.kept == WRITTEN or self.wanted != ("dv",))

    @property
    def pairs(self) -> int:
        """Products left.right of a tile."""
        return self.scores + self.slopes

    @property
    def weights(self) -> bool:
        """Whether weights are the left operand of a product."""
        return "dv" in self.wanted

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the arrays that the kernel is given for its results, in the order of the gradients' products."""
        return names_written(self.dims, self.result)

    @property
    def strides(self) -> tuple[str, ...]:
        """Of those arrays, in bytes."""
        return tuple(f"{name}_{step}" for name in self.written for step in STEPS)

    @property
    def clears(self) -> bool:
        """Whether right tiles reach beyond the key length."""
        return self.ragged and self.of == QUERIES and self.scores

    @property
    def left_dims(self) -> tuple[int, ...]:
        """Elements a token of the left arrays, as many as are read."""
        return (self.boxes.head_dim, self.boxes.value_dim)[: self.pairs]

    @property
    def right_dims(self) -> tuple[int, ...]:
        """The same of the right arrays."""
        return (self.boxes.head_dim, self.boxes.value_dim)[: 2 if self.scores else 1]


@dataclass(frozen=True, slots=True)
class GradientMemory:
    """Byte offsets from the aligned start of shared memory. left, right: of the arrays' tiles; sizes: of a stage."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    left_sizes: tuple[int, ...]
    right_sizes: tuple[int, ...]
    levels: int
    mask: int
    mask_bytes: int
    slopes: int
    slopes_bytes: int
    tile_info: int
    item_info: int
    left_full: int
    left_empty: int
    right_full: int
    right_empty: int
    cleared: int
    end: int


def left_stages(traits: BackwardTraits) -> int:
    """Two left tiles, so that the next item's is fetched in time, where the memory holds them."""
    one = sum(_sizes(traits.left_dims, traits.boxes.tile_q))
    right = traits.boxes.stages * _right_stage(traits)
    return 2 if right + 2 * one + 2048 <= SHARED_BYTES // traits.boxes.blocks_per_multiprocessor else 1


def _sizes(dims: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    return tuple(spans(dim) * tokens * SPAN_BYTES for dim in dims)


def _level_bytes(traits: BackwardTraits) -> int:
    return traits.boxes.tile_kv * LEVEL_BYTES if traits.columns_are_queries else 0


def _mask_bytes(traits: BackwardTraits) -> int:
    return traits.boxes.groups * group_mask_bytes(traits.boxes) if traits.boxes.partial else 0


def _slopes_bytes(traits: BackwardTraits) -> int:
    return traits.boxes.groups * IMAGE_BYTES if traits.kept == READ else 0


def _right_stage(traits: BackwardTraits) -> int:
    tiles = sum(_sizes(traits.right_dims, traits.boxes.tile_kv)) + _slopes_bytes(traits)
    return tiles + _level_bytes(traits) + _mask_bytes(traits)


def shared_layout(traits: BackwardTraits) -> GradientMemory:
    """Where everything is: tiles first, as they need alignment, then what goes with them, then barriers."""
    boxes, lefts = traits.boxes, left_stages(traits)
    left_sizes = _sizes(traits.left_dims, boxes.tile_q)
    right_sizes = _sizes(traits.right_dims, boxes.tile_kv)
    at = 0
    left: list[int] = []
    right: list[int] = []
    for places, sizes, count in ((left, left_sizes, lefts), (right, right_sizes, boxes.stages)):
        for size in sizes:
            places.append(at)
            at += size * count
    slopes = at
    levels = slopes + boxes.stages * _slopes_bytes(traits)
    mask = levels + boxes.stages * _level_bytes(traits)
    tile_info = mask + boxes.stages * _mask_bytes(traits)
    item_info = tile_info + boxes.stages * INFO_BYTES
    left_full = item_info + lefts * INFO_BYTES
    left_empty = left_full + 8 * lefts
    right_full = left_empty + 8 * lefts
    right_empty = right_full + 8 * boxes.stages
    cleared = right_empty + 8 * boxes.stages
    return GradientMemory(
        tuple(left), tuple(right), left_sizes, right_sizes, levels, mask, _mask_bytes(traits), slopes,
        _slopes_bytes(traits), tile_info, item_info, left_full, left_empty, right_full, right_empty, cleared,
        cleared + 8,
    )  # fmt: skip


def shared_bytes(traits: BackwardTraits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return shared_layout(traits).end + ALIGNMENT
