"""The producer's part of the text: it takes items, and has boxes of q, and of k and v, copied into shared memory.

One warp does it. Every lane runs the same statements; what only one lane may do is predicated by ``leader()``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.items import emit_rank
from splat_numba.gen.targets.sm90.loads import emit_loads, passing_of
from splat_numba.gen.targets.sm90.shape import INFO_BYTES, SPAN_BYTES, spans

ITEM = ("items", "block", "heads", "blocks", "heads_count", "batch", "heads_per_wave")


def arguments(traits: Traits) -> tuple[str, ...]:
    """Of the function ``produce``."""
    tables = ("q_maps", "kv_maps", "block", "piece", "bits", "heads", "counter")
    ragged = ("kv_lengths", "views") if traits.ragged else ()
    counts = ("blocks", "heads_count", "group", "batch", "heads_per_wave", "q_views", "kv_views")
    return ("base", *tables, *ragged, *counts)


def emit_producer(out: SourceWriter, traits: Traits) -> None:
    """The producer's functions: its loop over items, then what it calls."""
    _emit_items(out, traits)
    emit_end(out)
    emit_fences(out)
    _emit_read_item(out)
    _emit_load_queries(out, traits)
    emit_loads(out, traits)


def _emit_items(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "produce", arguments(traits), "The producer: boxes of each item's queries, then tiles."):
        out.lines(
            """
            fence_maps(q_maps, q_views)
            fence_maps(kv_maps, u32(2) * kv_views)
            """
        )
        with item_loop(out, "q", ITEM, clears=traits.ragged):
            _emit_item(out, traits)


@contextmanager
def item_loop(out: SourceWriter, ring: str, item: Sequence[str], *, clears: bool) -> Iterator[None]:
    """The loop over a block's items; inside: one, of which ``taken`` tells the next. That is read while this one's
    tiles are worked on, which hides 1 us. ring: of the stages that items' own tiles go through; item: arguments of
    ``read_item``.
    """
    read = f"next_rank, next_entry, next_words = read_item(item, {', '.join(item)})"
    out.lines(
        f"""
        items = u32(blocks * heads_count * batch)
        stage = {ring}_stage = u32(0)
        # Parity of the phase in which a stage was given back: a fresh barrier counts as given back.
        free = {ring}_free = u32(1)
        item = ptx.block_index()
        {read}
        """
    )
    if clears:
        out.line("cleared_phase = u32(0)")
    with out.block("while item < items"):
        out.line("rank, entry, words = next_rank, next_entry, next_words")
        yield
        out.line("item = u32(ptx.grid_size() + ptx.word_of_lane(taken, u32(0)))")
        out.line(read)
    out.line(f"end_items(base, {ring}_stage, {ring}_free, counter)")


def _emit_item(out: SourceWriter, traits: Traits) -> None:
    """Its queries, then its tiles."""
    ragged = ", views, length, cleared_phase" if traits.ragged else ""
    out.lines(
        f"""
        head = ptx.word_of_lane(words, u32(8))
        ptx.mbarrier_wait(base + Q_EMPTY + q_stage * u32(8), q_free)
        tiles = ptx.word_of_lane(words, u32(5))
        ptx.store_shared_words4(base + ITEM_INFO + q_stage * u32({INFO_BYTES}), tiles, rank, head, entry, leader())
        load_queries(base, q_stage, q_maps, words, head, entry)
        q_stage, q_free = advance(q_stage, q_free, Q_STAGES)
        """
    )
    if traits.ragged:
        emit_length(out, "length")
    out.lines(
        f"""
        taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn
        kv_head = u32(head // group)
        {passing_of(traits).state} = load_tiles(base, kv_maps, piece, bits, words, kv_head, entry, stage, free{ragged})
        """
    )


def emit_end(out: SourceWriter, ring: str = "Q") -> None:
    """ring: of the stages that items' own tiles go through."""
    text = "Nothing follows; the last block to come here leaves the counter as it found it."
    stage, free = f"{ring.lower()}_stage", f"{ring.lower()}_free"
    with device_function(out, "end_items", ("base", stage, free, "counter"), text):
        out.lines(
            f"""
            ptx.mbarrier_wait(base + {ring}_EMPTY + {stage} * u32(8), {free})
            to = base + ITEM_INFO + {stage} * u32({INFO_BYTES})
            ptx.store_shared_words4(to, u32(0), NO_ITEM, u32(0), u32(0), leader())
            ptx.mbarrier_arrive(base + {ring}_FULL + {stage} * u32(8), leader())
            ended = ptx.word_of_lane(ptx.fetch_add(counter + u64(4), u32(1), leader()), u32(0)) + u32(1)
            last_block = leader() if ended == ptx.grid_size() else u32(0)
            ptx.store_word(counter, u32(0), last_block)
            ptx.store_word(counter + u64(4), u32(0), last_block)
            """
        )


def emit_fences(out: SourceWriter) -> None:
    """What makes tensor maps seen by the copy engine."""
    with device_function(out, "fence_maps", ("maps", "count"), "Tensor maps, before the first copies by them."):
        out.lines(
            """
            for place in range(count):
                ptx.fence_tensor_map(maps + u64(128) * u64(place))
            """
        )


def _emit_read_item(out: SourceWriter) -> None:
    """Items go wave by wave, so that keys of a wave's heads stay in the L2 cache; in it longest row blocks first."""
    text = "Row block and batch entry of an item; by lane, the words of its row block, and in the others its head."
    with device_function(out, "read_item", ("item", *ITEM), text):
        emit_rank(out)
        out.lines(
            """
            head_at = heads + u64(4) * u64(pair - entry * heads_count)
            lane = u32(ptx.thread_index() & u32(31))
            word_at = block + u64(32) * u64(rank) + u64(4) * u64(lane)
            words = ptx.load_word(word_at if lane < u32(8) else head_at)  # one register, where nine would be spilled
            return rank, entry, words
            """
        )


def _emit_load_queries(out: SourceWriter, traits: Traits) -> None:
    parameters = ("base", "q_stage", "q_maps", "words", "head", "entry")
    with device_function(out, "load_queries", parameters, "A tile of queries: the box that the row block names."):
        out.lines(
            """
            q_map = q_maps + u64(128) * u64(ptx.word_of_lane(words, u32(0)))
            c1 = ptx.word_of_lane(words, u32(1))
            c2 = ptx.word_of_lane(words, u32(2))
            full = base + Q_FULL + q_stage * u32(8)
            to = base + Q_TILE + q_stage * Q_BYTES
            ptx.mbarrier_expect(full, Q_BYTES, leader())
            """
        )
        for span in range(spans(traits.head_dim)):
            at = f"to + u32({span * traits.tile_q * SPAN_BYTES}), q_map, full"
            out.line(f"ptx.tensor_copy({at}, u32({span * SPAN}), c1, c2, head, entry, leader())")
