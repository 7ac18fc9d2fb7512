"""What the text of a gradient kernel needs to know of its traits, as numbers: shared memory, rows, registers.

A block holds a *left* tile, the tokens whose gradients it makes, and *right* tiles pass by, in two stages where they
fit. Of each there are two arrays: the first (queries or keys) gives scores = left.right, the second (dout or values)
gives dP. Weights and slopes stay in registers: what a product leaves there is what the next one wants of its left
operand.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, WARP, sums_of, words_of
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES, WRITTEN
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.shape import CHUNK, row_bytes, steps

# Of each warp: behind the item, and where right arrays, levels and slopes are, whose gradients it makes.
HEAD_NOTE = 3 * CHUNK
NOTE_BYTES = HEAD_NOTE + CHUNK
# Registers of a thread beside scores, slopes and gradients; and how many of these leave it room, by atoms.
OTHER_REGISTERS = 64
MOST_SUMS = {QUERIES: {1: 176, 2: 176}, KEYS: {1: 192, 2: 192}}
MOST_SUMS_OF_WIDE = 176  # of keys, where eight warps have 128 rows: 12 bytes of 128 x 64 of head_dim 128 are spilled
MOST_COLUMNS = 64  # of a tile
PRESENT_BYTES = 4  # of a row, whether it is no padding
# The same of float32, whose operands are two words each.
OTHER_REGISTERS_OF_REALS = 96
MOST_SUMS_OF_REALS = {1: 96, 2: 80}


def sums(traits: GradientTraits, atoms: int, columns: int) -> int:
    """Registers of a thread's scores, slopes and gradients, of so many columns at once; a kernel of queries of 16 bits
    has weights two a word in place of scores when it makes slopes.
    """
    one, packed = sums_of(columns), words_of(columns)
    if traits.paired:
        return atoms * (2 * one + total_registers(traits.boxes.head_dim))
    tiles = one + packed if traits.packs else one * (1 + traits.slopes)
    return atoms * (tiles + sum(total_registers(dim) for dim in traits.dims.values()))


def total_registers(dim: int) -> int:
    """Of an atom's gradients, for one thread."""
    return sums_of(ATOM * steps(dim))


def in_registers(traits: GradientTraits, atoms: int, columns: int) -> bool:
    """Whether a thread of so many atoms has all of them in registers, and room for all else."""
    if traits.boxes.dtype == "float32":
        return sums(traits, atoms, columns) <= MOST_SUMS_OF_REALS[atoms] and columns <= MOST_COLUMNS
    most = MOST_SUMS[traits.of][atoms]
    if atoms < traits.boxes.groups:
        most = min(most, MOST_SUMS_OF_WIDE)
    return sums(traits, atoms, columns) <= most and columns <= MOST_COLUMNS


def columns_at_once(traits: GradientTraits) -> int:
    """Of a tile. Where slopes are kept tiles are images, which take more registers than 128 rows leave at head_dim 64:
    those have one half of its columns after the other. Of paired warps each has a half.
    """
    tile = traits.boxes.tile_kv
    if traits.paired:
        return tile // 2
    if traits.kept == WRITTEN and traits.boxes.groups == 2 and not in_registers(traits, 2, tile):
        return tile // 2 if in_registers(traits, 2, tile // 2) else tile
    return tile


def fits_registers(traits: GradientTraits) -> bool:
    """Whether a thread has what it works on at once in registers."""
    return in_registers(traits, atoms_of(traits), columns_at_once(traits))


def atoms_of(traits: GradientTraits) -> int:
    """Two where a row block has as many groups and registers allow: what is read of right tiles serves both."""
    if traits.paired:
        return 2
    return 2 if traits.boxes.groups == 2 and in_registers(traits, 2, columns_at_once(traits)) else 1


def registers(traits: GradientTraits) -> int:
    """That a thread wants, where there are as many."""
    others = OTHER_REGISTERS_OF_REALS if traits.boxes.dtype == "float32" else OTHER_REGISTERS
    return sums(traits, atoms_of(traits), columns_at_once(traits)) + others


def threads_of(traits: GradientTraits) -> int:
    """Of a block."""
    return WARP * traits.boxes.tile_q // (ATOM * atoms_of(traits)) << traits.paired


def row_threads(traits: GradientTraits) -> int:
    """Of a block, that have rows of their own: where warps are paired the others have the same rows."""
    return threads_of(traits) >> traits.paired


@dataclass(frozen=True, slots=True)
class GradientMemory:
    """Byte offsets: of left tiles, stages and warps' notes from the aligned start, of the others from a stage's; of
    levels from where the queries' tiles begin, that start or a stage's.
    notes: what a warp need not keep in registers while it goes through tiles; given: what a warp hands to the one that
    it is paired with; present: of each row, where some are padding.
    """

    left: tuple[int, int]
    stages: int
    right_2: int
    levels: int
    stage_bytes: int
    notes: int
    given: int
    present: int
    end: int


def shared_layout(traits: GradientTraits) -> GradientMemory:
    """A block's left tiles, then right tiles of each stage; behind those of queries their lse and delta."""
    boxes, by_column = traits.boxes, traits.columns_are_queries
    first, second = (row_bytes(dim, ITEMSIZE[boxes.dtype]) for dim in (boxes.head_dim, boxes.value_dim))
    left = boxes.tile_q * (first + (second if traits.slopes else 0))
    right = boxes.tile_kv * (first + second)
    stages = left + boxes.tile_q * LEVEL_BYTES * (not by_column)
    of_stage = right + boxes.tile_kv * LEVEL_BYTES * by_column
    notes = stages + boxes.stages * of_stage
    places = (0, boxes.tile_q * first)
    given = notes + NOTE_BYTES * threads_of(traits) // WARP
    present = given + ITEMSIZE[boxes.dtype] * boxes.tile_q * boxes.tile_kv * traits.paired
    end = present + PRESENT_BYTES * boxes.tile_q * traits.padded
    levels = right if by_column else left
    return GradientMemory(places, stages, boxes.tile_kv * first, levels, of_stage, notes, given, present, end)


def shared_bytes(traits: GradientTraits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return shared_layout(traits).end + CHUNK
