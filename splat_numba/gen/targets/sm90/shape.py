"""What the text of a Hopper kernel needs to know of its traits, as numbers: shared memory, registers, descriptors."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.passes import GROUP_ROWS, WORD_BITS, Traits
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.plans.machine import HOPPER_REGISTERS, HOPPER_SHARED_BYTES
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu import softmax

WARPGROUP = 4 * WARP  # threads of one, whose products are of GROUP_ROWS rows
GROUP = GROUP_ROWS  # tokens or slots that a warpgroup multiplies
WARP_ROWS = GROUP_ROWS // 4
PRODUCT_DEPTH = 16  # numbers of 16 bits of a row that one product takes
SPAN_BYTES = 2 * SPAN
INFO_BYTES = 16  # four words that go with every tile and every item
ALIGNMENT = 1024  # of a swizzled tile
SHARED_BYTES = HOPPER_SHARED_BYTES  # of a multiprocessor, for the blocks resident on it
BLOCK_SHARED_BYTES = 1024  # that the hardware keeps of every block
STAGES_BYTES = 2048  # at most, of barriers and what else goes with tiles

# In a descriptor: the layout, and how far apart groups of 8 rows of a span are.
SWIZZLE_128, EIGHT_ROWS = 1 << 62, 8 * SPAN_BYTES

# (groups, resident blocks) -> registers a thread of producer and consumers; None: what the compiler gives them. Sums
# stay within HOPPER_REGISTERS of a multiprocessor: 128 * (producer + groups * consumer) * blocks.
REGISTERS = {(1, 1): (56, 240), (1, 2): (56, 200), (1, 3): (40, 120), (2, 1): (40, 232), (3, 1): (32, 160)}

STEP_OF_ROWS = PRODUCT_DEPTH * SPAN_BYTES >> 4  # from a product's tokens to the next one's, in units of a descriptor
value_columns = softmax.value_columns  # by the name that texts know


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Byte offsets from the aligned start of shared memory, and the sizes behind them."""

    q: int
    k: int
    v: int
    mask: int
    tile_info: int
    item_info: int
    q_full: int
    q_empty: int
    k_full: int
    k_empty: int
    v_full: int
    v_empty: int
    cleared: int
    end: int
    q_bytes: int
    k_bytes: int
    v_bytes: int
    mask_bytes: int


def spans(dim: int) -> int:
    """Copies that fetch ``dim`` elements of each token; the last may reach past them, where the copy engine gives 0."""
    return -(-dim // SPAN)


def q_stages(traits: Traits) -> int:
    """Two tiles of queries, so that the next item's are fetched in time, where the memory holds them."""
    dims, masks = spans(traits.head_dim) + spans(traits.value_dim), traits.groups * group_mask_bytes(traits)
    stages = traits.stages * (dims * traits.tile_kv * SPAN_BYTES + masks)
    two = 2 * spans(traits.head_dim) * traits.tile_q * SPAN_BYTES
    return 2 if stages + two + STAGES_BYTES <= SHARED_BYTES // traits.blocks_per_multiprocessor else 1


def shared_layout(traits: Traits) -> SharedMemory:
    """Where everything is: tiles first, as they need alignment, then what goes with them, then barriers."""
    q_bytes = spans(traits.head_dim) * traits.tile_q * SPAN_BYTES
    k_bytes = spans(traits.head_dim) * traits.tile_kv * SPAN_BYTES
    v_bytes = spans(traits.value_dim) * traits.tile_kv * SPAN_BYTES
    k = q_stages(traits) * q_bytes
    v = k + traits.stages * k_bytes
    mask_bytes = traits.groups * group_mask_bytes(traits) if traits.partial else 0
    mask = v + traits.stages * v_bytes
    tile_info = mask + traits.stages * mask_bytes
    item_info = tile_info + traits.stages * INFO_BYTES
    q_full = item_info + q_stages(traits) * INFO_BYTES
    q_empty = q_full + 8 * q_stages(traits)
    k_full = q_empty + 8 * q_stages(traits)
    k_empty, v_full, v_empty = (k_full + 8 * traits.stages * i for i in (1, 2, 3))
    cleared = v_empty + 8 * traits.stages
    return SharedMemory(
        0, k, v, mask, tile_info, item_info, q_full, q_empty, k_full, k_empty, v_full, v_empty, cleared, cleared + 8,
        q_bytes, k_bytes, v_bytes, mask_bytes,
    )  # fmt: skip


def shared_bytes(traits: Traits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return shared_layout(traits).end + ALIGNMENT


def threads_per_block(traits: Traits) -> int:
    """One producer warpgroup and the consumers."""
    return WARPGROUP * (traits.groups + 1)


def score_steps(traits: Traits) -> int:
    """Products of 16 elements each that make up q.k."""
    return -(-traits.head_dim // PRODUCT_DEPTH)


def score_offset(step: int, rows: int) -> int:
    """Bytes from the start of a tile of ``rows`` tokens to the 16 elements of a step, in units of a descriptor (16)."""
    per_span = SPAN // PRODUCT_DEPTH
    return units(step // per_span * rows * SPAN_BYTES + step % per_span * 2 * PRODUCT_DEPTH)


def units(size: int) -> int:
    """Bytes as descriptors have them, in units of 16."""
    return size >> 4


def resident_blocks(threads: int, registers: int, shared: int, most: int) -> int:
    """Blocks on a multiprocessor, at least one: threads of a block, registers of a thread, shared memory of a block."""
    by_memory = SHARED_BYTES // (shared + BLOCK_SHARED_BYTES)
    return max(1, min(most, HOPPER_REGISTERS // (threads * registers), by_memory))


def keys_descriptor() -> int:
    """High half of a descriptor for rows of a swizzled tile, 8 rows 1024 bytes apart: layout 1 in bits 62-63."""
    return SWIZZLE_128 | (units(EIGHT_ROWS) << 32) | (1 << 16)


def values_descriptor(tile_kv: int) -> int:
    """The same for columns: spans of 64 columns are a tile's rows apart."""
    return SWIZZLE_128 | (units(EIGHT_ROWS) << 32) | (units(tile_kv * SPAN_BYTES) << 16)


def words_per_row(traits: Traits) -> int:
    """32-bit words of a row of a tile's mask."""
    return -(-traits.tile_kv // WORD_BITS)


def group_mask_bytes(traits: Traits) -> int:
    """Bytes of the mask of one tile for one group."""
    return GROUP_ROWS * words_per_row(traits) * 4
