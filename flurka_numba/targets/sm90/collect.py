"""In place of stages 2 and 3 for low-rank attention: the parts of stage 1 added up and rounded, as keys and values.

A thread makes 8 adjacent columns of one slot, which are 16 bytes. float16 has powers of two a head, so that a block
makes slots of one head. Those of gradients' slots are undone by other stages. In low-rank attention nobody but the
scores' factor can undo that of keys, which is the same for all; values have one where they may leave float16's range,
and restore.py undoes it in the results. Small values need none: results are rounded to float16, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import OCTET, QUAD_BYTES
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.bounds import emit_bound
from flurka_numba.targets.sm90.scales import SLOT_SCALE_BYTES, TOP, VALUE_TOP, is_scaled
from flurka_numba.targets.sm90.shape import CompressTraits
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import spans

POINTERS = ("parts", "k_slots", "v_slots")
SCALED_POINTERS = (*POINTERS, "bounds", "slot_scales")
COUNTS = ("tiles_k", "tiles", "row_blocks", "pairs_k", "pairs_v", "heads", "slots", "batch")
ENTRY = "collect"
THREADS = 256
# What low-rank attention's keys are divided by, so that slots which are sums stay within range, and scores multiplied.
KEYS_DIVISOR = {"float16": 2.0**8, "bfloat16": 1.0}


@dataclass(frozen=True, slots=True)
class CollectTraits:
    """parts: the compression whose slots are read, which come in ``splits`` parts. of_gradients: slots are those that
    gradients.py and accumulate.py read.
    """

    parts: CompressTraits
    splits: int
    of_gradients: bool = False

    @property
    def scaled(self) -> bool:
        """Whether the slots of a head have a scale."""
        return is_scaled(self.parts.dtype)

    def blocks(self, heads: int, slots: int) -> int:
        """For so many heads, of all batch entries together."""
        threads = [slots * eighths(dim) for dim in (self.parts.head_dim, self.parts.value_dim)]
        if self.scaled:
            return heads * sum(-(-count // THREADS) for count in threads)
        return -(-heads * sum(threads) // THREADS)


def eighths(dim: int) -> int:
    """Threads that make a slot of so many columns."""
    return -(-dim // OCTET)


def collect_entry(traits: CollectTraits) -> Entry:
    """How the kernel is called."""
    pointers = SCALED_POINTERS if traits.scaled else POINTERS
    return Entry(ENTRY, parameters_of(pointers, COUNTS), THREADS, 4, 0, overlaps=True)


def render_collect(traits: CollectTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    parts = traits.parts
    out = start_text(
        collect_entry(traits),
        f"Slots as keys and values of attention, generated for {parts.dtype}; they come in {traits.splits} parts.",
        f"head_dim {parts.head_dim}, value_dim {parts.value_dim}; rows end at a multiple of 16 bytes.",
    )
    with out.suite():
        if traits.scaled:
            _emit_place_of_head(out, parts)
        else:
            _emit_place(out, parts)
        with out.part("add_parts", "The slot's columns: its parts added up in their order."):
            _emit_sums(out, traits)
        _emit_factor(out, traits)
        _emit_store(out, traits)
    return out.text()


def _emit_place(out: KernelWriter, parts: CompressTraits) -> None:
    """Which slot and columns are this thread's: threads of keys, then of values."""
    of_key, of_value = eighths(parts.head_dim), eighths(parts.value_dim)
    with out.part("find_slot", "Which slot and columns are this thread's: threads of keys, then of values."):
        out.lines(
            f"""
            ptx.await_launch()
            number = u32(ptx.block_index() * u32({THREADS}) + ptx.thread_index())
            of_keys = u32(batch * heads * slots * u32({of_key}))
            of_values = u32(1) if number >= of_keys else u32(0)
            real = u32(1) if number < of_keys + batch * heads * slots * u32({of_value}) else u32(0)
            number = u32(ptx.select(number, u32(0), real) - of_keys * (of_values & real))
            of_values = u32(of_values & real)
            """
        )
        _emit_sizes(out, parts)
        out.lines(
            f"""
            row = u32(number // eighths)
            column = u32((number - row * eighths) * u32({OCTET}))
            pair = u32(row // slots)
            slot = u32(row - pair * slots)
            entry = u32(pair // heads)
            """
        )


def _emit_sizes(out: KernelWriter, parts: CompressTraits) -> None:
    of_key, of_value = eighths(parts.head_dim), eighths(parts.value_dim)
    out.lines(
        f"""
        eighths = ptx.select(u32({of_value}), u32({of_key}), of_values)
        spans = ptx.select(u32({spans(parts.value_dim)}), u32({spans(parts.head_dim)}), of_values)
        pairs = ptx.select(pairs_v, pairs_k, of_values)
        """
    )


def _emit_place_of_head(out: KernelWriter, parts: CompressTraits) -> None:
    """The same, where blocks are of keys or values of one head."""
    of_key, of_value = (
        f"(slots * u32({eighths(dim)}) + u32({THREADS - 1})) // u32({THREADS})"
        for dim in (parts.head_dim, parts.value_dim)
    )
    with out.part("find_slot", "Which slot and columns are this thread's: blocks are of keys or values of one head."):
        out.lines(
            f"""
            ptx.await_launch()
            thread = ptx.thread_index()
            blocks_k = u32({of_key})
            blocks = u32(blocks_k + {of_value})
            pair = u32(ptx.block_index() // blocks)
            block = u32(ptx.block_index() - pair * blocks)
            of_values = u32(1) if block >= blocks_k else u32(0)
            block = u32(block - blocks_k * of_values)
            """
        )
        _emit_sizes(out, parts)
        out.lines(
            f"""
            number = u32(block * u32({THREADS}) + thread)
            real = u32(1) if number < slots * eighths else u32(0)
            number = ptx.select(number, u32(0), real)
            slot = u32(number // eighths)
            column = u32((number - slot * eighths) * u32({OCTET}))
            number = u32(pair * slots * eighths + number)
            entry = u32(pair // heads)
            """
        )


def _emit_sums(out: KernelWriter, traits: CollectTraits) -> None:
    """``a`` to ``h``: the slot's columns."""
    parts = traits.parts
    out.lines(
        f"""
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
            e_1, f_1, g_1, h_1 = ptx.load_reals4(at + to_part * u64(part) + u64({QUAD_BYTES}))
            a += a_1
            b += b_1
            c += c_1
            d += d_1
            e += e_1
            f += f_1
            g += g_1
            h += h_1
        """
    )


def _emit_factor(out: KernelWriter, traits: CollectTraits) -> None:
    """Slots times a power of two; the first thread of a head's keys, and of its values, leaves what undoes it."""
    if not traits.scaled:
        return
    out.line("head = u32(pair - entry * heads)")
    emit_bound(out, traits.parts, traits.splits, "top", "pairs", "spans", "tiles_k * of_values")
    if traits.of_gradients:
        out.line(f"top = ptx.select_real(top * f32({2.0 ** (TOP - VALUE_TOP)!r}), top, of_values)")
    emit_scale(out, "factor", "top", TOP)
    emit_inverse(out, "inverse", "factor")
    if not traits.of_gradients:
        out.line(f"near = u32(1) if top <= f32({2.0**TOP!r}) or of_values == u32(0) else u32(0)")
        out.line(f"usual = ptx.select_real(f32(1.0), f32({1.0 / KEYS_DIVISOR[traits.parts.dtype]!r}), of_values)")
        out.line("factor = ptx.select_real(usual, factor, near)")
        out.line("inverse = ptx.select_real(f32(1.0), inverse, near)")
    out.line("first = u32(1) if block == u32(0) and thread == u32(0) else u32(0)")
    at = f"slot_scales + u64({SLOT_SCALE_BYTES}) * u64(pair) + u64(4) * u64(of_values)"
    out.line(f"ptx.store_real({at}, inverse, first)")
    out.line("a, b, c, d = a * factor, b * factor, c * factor, d * factor")
    out.line("e, f, g, h = e * factor, f * factor, g * factor, h * factor")


def _emit_store(out: KernelWriter, traits: CollectTraits) -> None:
    dtype = traits.parts.dtype
    out.lines(
        f"""
        to = v_slots if of_values else k_slots
        ptx.store_words4(
            to + u64({QUAD_BYTES}) * u64(number),
            ptx.pack_{dtype}(a, b),
            ptx.pack_{dtype}(c, d),
            ptx.pack_{dtype}(e, f),
            ptx.pack_{dtype}(g, h),
            real,
        )
        """
    )
