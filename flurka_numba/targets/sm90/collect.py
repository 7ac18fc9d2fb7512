"""In place of stages 2 and 3 for low-rank attention: the parts of stage 1 added up and rounded, as keys and values.

A thread makes 8 adjacent columns of one slot, which are 16 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.shape import CompressTraits
from splat_numba.gen.entry import Entry
from splat_numba.gen.targets.sm90.shape import SPAN, spans

POINTERS = ("parts", "k_slots", "v_slots")
COUNTS = ("tiles_k", "tiles", "row_blocks", "pairs_k", "pairs_v", "heads", "slots", "batch")
ENTRY = "collect"
THREADS = 256


@dataclass(frozen=True, slots=True)
class CollectTraits:
    """parts: the compression whose slots are read, which come in ``splits`` parts."""

    parts: CompressTraits
    splits: int


def eighths(dim: int) -> int:
    """Threads that make a slot of so many columns."""
    return -(-dim // 8)


def collect_entry(traits: CollectTraits) -> Entry:
    """How the kernel is called."""
    del traits
    return Entry(ENTRY, parameters_of(POINTERS, COUNTS), THREADS, 4, 0, overlaps=True)


def render_collect(traits: CollectTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    parts = traits.parts
    of_key, of_value = eighths(parts.head_dim), eighths(parts.value_dim)
    out = start_text(
        collect_entry(traits),
        f"Slots as keys and values of attention, generated for {parts.dtype}; they come in {traits.splits} parts.",
        f"head_dim {parts.head_dim}, value_dim {parts.value_dim}; rows end at a multiple of 16 bytes.",
    )
    with out.suite():
        out.lines(
            f"""
            ptx.await_launch()
            number = u32(ptx.block_index() * u32({THREADS}) + ptx.thread_index())
            of_keys = u32(batch * heads * slots * u32({of_key}))
            of_values = u32(1) if number >= of_keys else u32(0)
            real = u32(1) if number < of_keys + batch * heads * slots * u32({of_value}) else u32(0)
            number = u32(ptx.select(number, u32(0), real) - of_keys * (of_values & real))
            of_values = u32(of_values & real)
            eighths = ptx.select(u32({of_value}), u32({of_key}), of_values)
            spans = ptx.select(u32({spans(parts.value_dim)}), u32({spans(parts.head_dim)}), of_values)
            pairs = ptx.select(pairs_v, pairs_k, of_values)
            row = u32(number // eighths)
            column = u32((number - row * eighths) * u32(8))
            pair = u32(row // slots)
            slot = u32(row - pair * slots)
            entry = u32(pair // heads)
            span = u32((pair - entry * heads) * spans + column // u32({SPAN}))
            tile_pair = u32(span // u32({parts.tile_spans}))
            row_block = u32(slot // u32({parts.rows}))
            tile = u32(tiles_k * of_values + (entry * pairs + tile_pair) * row_blocks + row_block)
            first = u32((span - tile_pair * u32({parts.tile_spans})) * u32({SPAN}))
            column_of_tile = u32(first + (column & u32({SPAN - 1})))
            at = u64(tile) * u64({parts.rows}) + u64(slot - row_block * u32({parts.rows}))
            at = parts + u64({4 * parts.columns}) * at + u64(4) * u64(column_of_tile)
            to_part = u64(tiles) * u64({4 * parts.rows * parts.columns})
            a = b = c = d = e = f = g = h = f32(0.0)
            for part in range({traits.splits}):
                a_1, b_1, c_1, d_1 = ptx.load_reals4(at + to_part * u64(part))
                e_1, f_1, g_1, h_1 = ptx.load_reals4(at + to_part * u64(part) + u64(16))
                a += a_1
                b += b_1
                c += c_1
                d += d_1
                e += e_1
                f += f_1
                g += g_1
                h += h_1
            to = v_slots if of_values else k_slots
            ptx.store_words4(
                to + u64(16) * u64(number),
                ptx.pack_{parts.dtype}(a, b),
                ptx.pack_{parts.dtype}(c, d),
                ptx.pack_{parts.dtype}(e, f),
                ptx.pack_{parts.dtype}(g, h),
                real,
            )
            """
        )
    return out.text()
