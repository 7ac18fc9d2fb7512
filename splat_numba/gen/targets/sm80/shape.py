"""What the text of a kernel needs to know of its traits, as numbers: who has which rows, shared memory, registers.

A warp has `atoms` neighbouring sixteens of rows, which one matrix product takes each. A row of shared memory takes an
odd number of chunks of 16 bytes, so that the eight rows of a matrix that one instruction reads lie in different banks.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, WARP, sums_of

CHUNK = 16  # bytes: what a lane copies, and what one of a matrix' rows is
NOTE_BYTES = 2 * CHUNK  # of each warp
NUMBERS = 8  # of 16 bits in a chunk
STAGES = 2  # tiles in shared memory: one is computed while the other is fetched
MOST_REGISTERS = 255  # of a thread
REGISTERS = 1 << 16  # of a multiprocessor, on all these chips
# Registers beside scores and results, by atoms: fragments, addresses, peaks and sums. With fewer the compiler spills,
# and with all options it wants 95 where it may: scores and results beyond MOST_SUMS leave no room for these.
OTHER_REGISTERS = {1: 64, 2: 64}
MOST_SUMS = {1: 152, 2: 160}
MOST_SUMS_PLAIN = 192  # of two atoms without any: 128 queries x 64 keys of head_dim 128
MOST_KEYS = {1: 128, 2: 64}  # of a tile
# The same of float32, whose operands are two words each, and whose products of sixteen keys are added up apart.
OTHER_REGISTERS_OF_REALS = {1: 116, 2: 128}
MOST_SUMS_OF_REALS = {1: 96, 2: 80}
MOST_KEYS_OF_REALS = {64: 64, 256: 32}  # of a tile, by what value_dim is at most
LEAST_CROWDED = 32  # keys of a tile of float32 that all compilers have in registers


def steps(dim: int) -> int:
    """Matrix products that so many numbers take, sixteen each."""
    return -(-dim // ATOM)


def loads(dim: int, itemsize: int = 2) -> int:
    """Chunks of an array that a row of so many numbers takes. itemsize: bytes of one."""
    return -(-dim * itemsize // CHUNK)


def row_chunks(dim: int, itemsize: int = 2) -> int:
    """Of a row in shared memory: of whole sixteens of numbers."""
    return itemsize * steps(dim)


def row_bytes(dim: int, itemsize: int = 2) -> int:
    """Of a row in shared memory: its chunks, and one to keep neighbouring rows apart."""
    return CHUNK * (row_chunks(dim, itemsize) + 1)


def score_registers(traits: Traits) -> int:
    """Of an atom's scores, for one thread."""
    return sums_of(traits.tile_kv)


def total_registers(traits: Traits) -> int:
    """Of an atom's results, for one thread."""
    return sums_of(ATOM * steps(traits.value_dim))


def _sums(traits: Traits, atoms: int) -> int:
    return atoms * (score_registers(traits) + total_registers(traits))


def _most_keys_of_reals(traits: Traits) -> int:
    return next(keys for dim, keys in MOST_KEYS_OF_REALS.items() if traits.value_dim <= dim)


def in_registers(traits: Traits, atoms: int) -> bool:
    """Whether a thread of so many atoms has its scores and results in registers, and room for all else."""
    if traits.dtype == "float32":
        return _sums(traits, atoms) <= MOST_SUMS_OF_REALS[atoms] and traits.tile_kv <= _most_keys_of_reals(traits)
    plain = atoms == 2 and not (traits.keeps_rest or traits.ragged or traits.negate)
    most = MOST_SUMS_PLAIN if plain else MOST_SUMS[atoms]
    return _sums(traits, atoms) <= most and traits.tile_kv <= MOST_KEYS[atoms]


def crowded(traits: Traits) -> bool:
    """Whether it is one of those that only some chips' compilers have in registers."""
    if traits.dtype == "float32":
        return traits.tile_kv > LEAST_CROWDED
    return atoms_of(traits) == 2 and _sums(traits, 2) > MOST_SUMS[2]


def registers(traits: Traits) -> int:
    """That a thread wants, where there are as many."""
    others = OTHER_REGISTERS_OF_REALS if traits.dtype == "float32" else OTHER_REGISTERS
    return _sums(traits, atoms_of(traits)) + others[atoms_of(traits)]


def atoms_of(traits: Traits) -> int:
    """Two where a row block has as many groups and registers allow: what is read of keys then serves twice the rows."""
    return 2 if traits.groups == 2 and in_registers(traits, 2) else 1


def resident_blocks(traits: Traits, registers_there: int) -> int:
    """Blocks that a multiprocessor has registers for."""
    return registers_there // (threads_of(traits) * min(registers(traits), MOST_REGISTERS))


def threads_of(traits: Traits) -> int:
    """Of a block."""
    return WARP * traits.tile_q // (ATOM * atoms_of(traits))


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Byte offsets: of queries, stages and warps' notes from the aligned start, of values from a stage's. notes: what a
    warp need not keep in registers while it goes through tiles; rests: from queries to what TF32 leaves of them, 0
    where that is made anew for every tile.
    """

    queries: int
    rests: int
    stages: int
    values: int
    stage_bytes: int
    notes: int


def shared_layout(traits: Traits) -> SharedMemory:
    """A block's queries, their rests where they have such, then keys and values of each stage."""
    size = ITEMSIZE[traits.dtype]
    of_keys = traits.tile_kv * row_bytes(traits.head_dim, size)
    of_stage = of_keys + traits.tile_kv * row_bytes(traits.value_dim, size)
    of_queries = traits.tile_q * row_bytes(traits.head_dim, size)
    rests = of_queries * traits.rests
    stages = of_queries + rests
    return SharedMemory(0, rests, stages, of_keys, of_stage, stages + traits.stages * of_stage)


def shared_bytes(traits: Traits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return shared_layout(traits).notes + NOTE_BYTES * threads_of(traits) // WARP + CHUNK


def words_per_row(traits: Traits) -> int:
    """32-bit words of a row of a tile's mask."""
    return -(-traits.tile_kv // 32)


def mask_bytes(traits: Traits) -> int:
    """Of a group's mask of a tile."""
    return 4 * GROUP_ROWS * words_per_row(traits)
