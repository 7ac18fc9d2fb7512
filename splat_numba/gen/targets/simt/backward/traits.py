"""What the text of a gradient kernel depends on, and where its tiles are in shared memory.

A block holds a *left* tile, the tokens whose gradients it makes, and *right* tiles pass by. Of each there are two
arrays: the first (queries or keys) gives scores = left.right, the second (dout or values) gives dP. For dq the left
ones are q and dout, the right ones k and v; for dk and dv it is the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.passes import GROUP_ROWS
from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.targets.gpu.gradient_kernels import GradientKernel
from splat_numba.gen.targets.simt.shape import (
    CHUNK,
    LANES_OF_ROW,
    MOST_SUMS,
    Numbers,
    pieces,
    with_others,
)


@dataclass(frozen=True, slots=True)
class GradientTraits(GradientKernel):
    """result: the dtype that gradients are stored in; added: to what an earlier launch stored; ragged: key lengths
    differ between batch entries; clears: some queries keep nothing, whose dout may be anything.
    """

    result: str
    added: bool
    ragged: bool
    clears: bool

    @property
    def limited(self) -> bool:
        """Whether right tiles reach beyond the key length."""
        return self.ragged and self.of == QUERIES


@dataclass(frozen=True, slots=True)
class GradientShare:
    """What a thread has. rows: of the 64; keys: columns of a tile for each; threads: of a block."""

    rows: int
    keys: int
    threads: int


def share_of(traits: GradientTraits) -> GradientShare:
    """Eight rows a thread, or four where the registers hold no more."""
    numbers = Numbers(traits.boxes.dtype)
    rows = 8 if sums(traits, 8) <= MOST_SUMS[numbers.computed] else 4
    return GradientShare(rows, traits.boxes.tile_kv // LANES_OF_ROW, GROUP_ROWS // rows * LANES_OF_ROW)


def sums(traits: GradientTraits, rows: int) -> int:
    """Registers of a thread's scores, slopes and gradients."""
    numbers, keys = Numbers(traits.boxes.dtype), traits.boxes.tile_kv // LANES_OF_ROW
    of_row = sum(pieces(numbers, dim) for dim in traits.dims.values()) * numbers.of_chunk
    return rows * (of_row + (2 if traits.slopes else 1) * keys) * numbers.size // 4


def registers(traits: GradientTraits) -> int:
    """That a thread wants: scores, slopes and gradients, and what else there is."""
    boxes, rows = traits.boxes, share_of(traits).rows
    return with_others(sums(traits, rows), Numbers(boxes.dtype), rows, (boxes.head_dim, boxes.value_dim))


@dataclass(frozen=True, slots=True)
class GradientMemory:
    """Byte offsets from the aligned start of shared memory. weights: of a tile's pairs, then their slopes."""

    left: tuple[int, int]
    right: tuple[int, int]
    weights: int
    end: int


def shared_layout(traits: GradientTraits) -> GradientMemory:
    """Left tiles, right tiles, and weights."""
    numbers, boxes = Numbers(traits.boxes.dtype), traits.boxes
    first, second = map(numbers.row_bytes, (boxes.head_dim, boxes.value_dim))
    right = GROUP_ROWS * (first + (second if traits.slopes else 0))
    weights = right + boxes.tile_kv * (first + second)
    end = weights + GROUP_ROWS * numbers.row_bytes(boxes.tile_kv)
    return GradientMemory((0, GROUP_ROWS * first), (right, right + boxes.tile_kv * first), weights, end)


def shared_bytes(traits: GradientTraits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return shared_layout(traits).end + CHUNK
