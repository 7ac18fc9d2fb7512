"""What the text of a kernel needs to know of its traits, as numbers: who has which rows, shared memory, registers.

Sixteen lanes share a row. A thread has `rows` neighbouring rows, of the scores every 16th key and of the results every
16th chunk of 16 bytes, so that the lanes of a row read neighbouring chunks of shared memory, without conflicts.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.language.dtypes import ITEMSIZE, accumulator

LANES_OF_ROW = 16
MOST_REGISTERS = 255  # of a thread
CHUNK = 16  # bytes: what the widest loads and stores move
# Registers of scores and results that leave a thread enough for all else, of 255: beyond, the compiler spills.
MOST_SUMS = {"float32": 160, "float64": 136}


@dataclass(frozen=True, slots=True)
class Numbers:
    """dtype: of the arrays. What is computed is float64 for float64, float32 for everything else."""

    dtype: str

    @property
    def computed(self) -> str:
        """The dtype of what stands in shared memory and registers."""
        return accumulator(self.dtype)

    @property
    def size(self) -> int:
        """Bytes of one of those."""
        return ITEMSIZE[self.computed]

    @property
    def of_chunk(self) -> int:
        """Numbers in a chunk of shared memory."""
        return CHUNK // self.size

    @property
    def loaded(self) -> int:
        """Numbers in a chunk of an array."""
        return CHUNK // ITEMSIZE[self.dtype]

    def chunks(self, dim: int) -> int:
        """Of shared memory, that a row of so many numbers takes."""
        return -(-dim // self.of_chunk)

    def loads(self, dim: int) -> int:
        """Of an array, that a row takes."""
        return -(-dim // self.loaded)

    def row_bytes(self, dim: int) -> int:
        """Of a row in shared memory: all chunks that loads fill, and one to keep neighbouring rows apart."""
        stored = self.loads(dim) * self.loaded * self.size
        return stored + CHUNK if stored // CHUNK % 2 == 0 else stored


@dataclass(frozen=True, slots=True)
class Share:
    """What a thread has. rows: of the 64; keys: of a tile's, for each row; pieces: chunks of a row's results."""

    rows: int
    keys: int
    pieces: int
    threads: int


def pieces(numbers: Numbers, dim: int) -> int:
    """Chunks of a row of so many numbers that a lane has."""
    return -(-numbers.chunks(dim) // LANES_OF_ROW)


def share_of(traits: Traits) -> Share:
    """Eight rows a thread, or four where the registers hold no more."""
    numbers, keys = Numbers(traits.dtype), traits.tile_kv // LANES_OF_ROW
    of_row = pieces(numbers, traits.value_dim)
    rows = 8 if sums(numbers, 8, keys, of_row) <= MOST_SUMS[numbers.computed] else 4
    return Share(rows, keys, of_row, GROUP_ROWS // rows * LANES_OF_ROW)


def sums(numbers: Numbers, rows: int, keys: int, of_row: int) -> int:
    """Registers of a thread's scores and results."""
    return rows * (keys + of_row * numbers.of_chunk) * numbers.size // 4


def registers(traits: Traits) -> int:
    """That a thread wants: scores and results, and what else there is."""
    numbers, share = Numbers(traits.dtype), share_of(traits)
    wanted = sums(numbers, share.rows, share.keys, share.pieces)
    return with_others(wanted, numbers, share.rows, (traits.head_dim, traits.value_dim))


def with_others(wanted: int, numbers: Numbers, rows: int, dims: tuple[int, int]) -> int:
    """Registers for sums, the operands of a step, addresses and what else there is; too many where sums spill.

    Fitted to what the compiler takes without spills: rows that are no power of two of chunks want places of their own,
    16-bit numbers are unpacked, and float64 has functions where float32 has instructions.
    """
    if wanted > MOST_SUMS[numbers.computed]:
        return MOST_REGISTERS + 1
    uneven = any(numbers.loads(dim) & (numbers.loads(dim) - 1) for dim in dims)
    others = 64 + 4 * rows + 16 * uneven + 28 * (numbers.loaded == 8) + 24 * (numbers.size == 8)
    return min(wanted + others, MOST_REGISTERS)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Byte offsets from the aligned start of shared memory. tile: of keys, then of their values."""

    queries: int
    tile: int
    weights: int
    end: int


def shared_layout(traits: Traits) -> SharedMemory:
    """A block's queries, one tile that keys and values take in turn, and the weights of its rows."""
    numbers = Numbers(traits.dtype)
    tile = GROUP_ROWS * numbers.row_bytes(traits.head_dim)
    weights = tile + traits.tile_kv * max(map(numbers.row_bytes, (traits.head_dim, traits.value_dim)))
    return SharedMemory(0, tile, weights, weights + GROUP_ROWS * numbers.row_bytes(traits.tile_kv))


def shared_bytes(traits: Traits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return shared_layout(traits).end + CHUNK


def words_per_row(traits: Traits) -> int:
    """32-bit words of a row of a tile's mask."""
    return -(-traits.tile_kv // 32)
