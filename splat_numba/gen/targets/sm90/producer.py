"""The producer's part of the text: it reads the tables and has boxes of q, k and v copied into shared memory.

One warp does it. Every lane runs the same statements; what only one lane may do is predicated by ``leader()``.
"""

from __future__ import annotations

from splat_numba.gen.boxes import SOME, Traits
from splat_numba.gen.targets.sm90.functions import device_function, wrapped
from splat_numba.gen.targets.sm90.lengths import emit_clearing, emit_valid
from splat_numba.gen.targets.sm90.shape import INFO_BYTES, SPAN_BYTES, group_mask_bytes, spans
from splat_numba.gen.tensor_map import SPAN
from splat_numba.gen.writer import SourceWriter

ITEM = ("items", "block", "heads", "blocks", "heads_count", "batch", "heads_per_wave")
TILE = ("base", "stage", "tensor_map", "k1", "k2", "kv_head", "entry")


def arguments(traits: Traits) -> tuple[str, ...]:
    """Of the function ``produce``."""
    tables = ("q_maps", "kv_maps", "block", "piece", "bits", "heads", "counter")
    ragged = ("kv_lengths", "views") if traits.ragged else ()
    counts = ("blocks", "heads_count", "group", "batch", "heads_per_wave", "q_views", "kv_views")
    return ("base", *tables, *ragged, *counts)


def emit_producer(out: SourceWriter, traits: Traits) -> None:
    """The producer's functions: its loop over items, then what it calls."""
    _emit_items(out, traits)
    _emit_end(out)
    _emit_fences(out)
    _emit_read_item(out)
    _emit_load_queries(out, traits)
    _emit_tiles(out, traits)
    _emit_load_keys(out, traits)
    _emit_load_values(out, traits)
    if traits.ragged:
        emit_valid(out, traits)
        emit_clearing(out, traits)


def _emit_items(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "produce", arguments(traits), "The producer: boxes of each item's queries, then tiles."):
        out.lines(
            f"""
            fence_maps(q_maps, q_views)
            fence_maps(kv_maps, u32(2) * kv_views)
            items = u32(blocks * heads_count * batch)
            stage = q_stage = u32(0)
            # Parity of the phase in which a stage was given back: a fresh barrier counts as given back.
            free = q_free = u32(1)
            item = ptx.block_index()
            next_rank, next_entry, next_words = read_item(item, {", ".join(ITEM)})
            """
        )
        if traits.ragged:
            out.line("cleared_phase = u32(0)")
        with out.block("while item < items"):
            _emit_item(out, traits)
        out.line("end_items(base, q_stage, q_free, counter)")


def _emit_item(out: SourceWriter, traits: Traits) -> None:
    """Take the item that was read; the next one is read while this one's tiles are worked on, which hides 1 us."""
    state = "stage, free, cleared_phase" if traits.ragged else "stage, free"
    ragged = ", views, length, cleared_phase" if traits.ragged else ""
    out.lines(
        f"""
        rank, entry, words = next_rank, next_entry, next_words
        head = ptx.word_of_lane(words, u32(8))
        ptx.mbarrier_wait(base + Q_EMPTY + q_stage * u32(8), q_free)
        tiles = ptx.word_of_lane(words, u32(5))
        ptx.store_shared_words4(base + ITEM_INFO + q_stage * u32({INFO_BYTES}), tiles, rank, head, entry, leader())
        load_queries(base, q_stage, q_maps, words, head, entry)
        q_stage, q_free = advance(q_stage, q_free, Q_STAGES)
        """
    )
    if traits.ragged:
        out.line("length = ptx.load_word(kv_lengths + u64(4) * u64(entry))")
    out.lines(
        f"""
        taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn
        kv_head = u32(head // group)
        {state} = load_tiles(base, kv_maps, piece, bits, words, kv_head, entry, stage, free{ragged})
        item = u32(ptx.grid_size() + ptx.word_of_lane(taken, u32(0)))
        next_rank, next_entry, next_words = read_item(item, {", ".join(ITEM)})
        """
    )


def _emit_end(out: SourceWriter) -> None:
    text = "Nothing follows; the last block to come here leaves the counter as it found it."
    with device_function(out, "end_items", ("base", "q_stage", "q_free", "counter"), text):
        out.lines(
            f"""
            ptx.mbarrier_wait(base + Q_EMPTY + q_stage * u32(8), q_free)
            to = base + ITEM_INFO + q_stage * u32({INFO_BYTES})
            ptx.store_shared_words4(to, u32(0), NO_ITEM, u32(0), u32(0), leader())
            ptx.mbarrier_arrive(base + Q_FULL + q_stage * u32(8), leader())
            ended = ptx.word_of_lane(ptx.fetch_add(counter + u64(4), u32(1), leader()), u32(0)) + u32(1)
            last_block = leader() if ended == ptx.grid_size() else u32(0)
            ptx.store_word(counter, u32(0), last_block)
            ptx.store_word(counter + u64(4), u32(0), last_block)
            """
        )


def _emit_fences(out: SourceWriter) -> None:
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
        out.lines(
            """
            number = u32(min(item, items - u32(1)))
            wave_items = u32(heads_per_wave * blocks)
            wave = u32(number // wave_items)
            left = u32(number - wave * wave_items)
            first_pair = u32(wave * heads_per_wave)
            width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
            rank = u32(left // width)
            pair = u32(first_pair + left - rank * width)
            entry = u32(pair // heads_count)
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


def _emit_tiles(out: SourceWriter, traits: Traits) -> None:
    """One loop over pieces and tiles: nested, it is unrolled."""
    parameters = ["base", "kv_maps", "piece", "bits", "words", "kv_head", "entry", "stage", "free"]
    if traits.ragged:
        parameters += ["views", "length", "cleared_phase"]
    with device_function(out, "load_tiles", parameters, "The tiles of an item's pieces, as stages become free."):
        out.lines(
            """
            k1 = k2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
            k_map = u64(0)
            place = ptx.word_of_lane(words, u32(3))
            end_of_pieces = ptx.word_of_lane(words, u32(4))
            """
        )
        if traits.ragged:
            out.line("token = inner_step = kept_status = u32(0)")
        with out.block("while place < end_of_pieces"):
            with out.block("if count == u32(0)"):
                _emit_piece(out, traits)
            _emit_tile(out, traits)
            out.lines(
                f"""
                k1 = u32(k1 + u32({traits.tile_kv}))
                stage, free = advance(stage, free, STAGES)
                count = u32(count - u32(1))
                if count == u32(0):
                    place = u32(place + u32(1))
                """
            )
        out.line("return stage, free, cleared_phase" if traits.ragged else "return stage, free")


def _emit_piece(out: SourceWriter, traits: Traits) -> None:
    """Read the next piece of the list."""
    status = "kept_status" if traits.ragged else "status"
    out.lines(
        f"""
        kv_view, k1, k2, count = ptx.load_words4(piece + u64(32) * u64(place))
        {status}, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        k_map = kv_maps + u64(256) * u64(kv_view)
        """
    )
    if traits.ragged:
        out.lines(
            """
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(kv_view))
            token = u32(offset + inner_step * k1 + outer_step * k2)
            """
        )


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    """One tile: its keys and what goes with them, then its values."""
    if traits.ragged:
        out.lines(
            f"""
            valid = valid_keys(token, inner_step, length)
            status = u32(kept_status | (valid << u32(8))) if valid != u32(0) else u32(0)
            token = u32(token + inner_step * u32({traits.tile_kv}))
            """
        )
    out.lines(
        f"""
        ptx.mbarrier_wait(base + K_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32({INFO_BYTES})
        ptx.store_shared_words4(info, status, bits_0, bits_1, bits_2, leader())
        """
    )
    masks = ("status", "bits", "bits_0", "bits_1", "bits_2")[: 2 + traits.groups] if traits.partial else ()
    keys = ("base", "stage", "k_map", *TILE[3:])
    wrapped(out, "load_keys", (*keys, *masks))
    out.line("ptx.mbarrier_wait(base + V_EMPTY + stage * u32(8), free)")
    values = ("base", "stage", "k_map + u64(128)", *TILE[3:])
    if not traits.ragged:
        wrapped(out, "load_values", (*values, "base + V_FULL + stage * u32(8)"))
        return
    with out.block(f"if valid == u32({traits.tile_kv})"):
        wrapped(out, "load_values", (*values, "base + V_FULL + stage * u32(8)"))
    with out.block("else"):
        wrapped(out, "load_values", (*values, "base + CLEARED"))
        out.line("clear_values(base, stage, valid, cleared_phase)")
        out.line("cleared_phase = u32(cleared_phase ^ u32(1))")


def _emit_load_keys(out: SourceWriter, traits: Traits) -> None:
    """With masks of all groups or of none, so that the barrier expects one of two numbers of bytes."""
    masks = ("status", "bits", *(f"bits_{group}" for group in range(traits.groups))) if traits.partial else ()
    text = "A tile of keys, and its masks if any group keeps some pairs only." if masks else "A tile of keys."
    with device_function(out, "load_keys", (*TILE, *masks), text):
        out.line("full = base + K_FULL + stage * u32(8)")
        if masks:
            size = group_mask_bytes(traits)
            some = sum(SOME << 2 * group for group in range(traits.groups))
            out.line(f"masked = u32(1) if (status & u32({some})) != u32(0) else u32(0)")
            out.line("ptx.mbarrier_expect(full, K_BYTES + masked * MASK_BYTES, leader())")
            out.line("to = base + MASK_TILE + stage * MASK_BYTES")
            for group in range(traits.groups):
                copied = f"bits + u64({size}) * u64(bits_{group}), u32({size}), full, leader() & masked"
                out.line(f"ptx.bulk_copy(to + u32({group * size}), {copied})")
        else:
            out.line("ptx.mbarrier_expect(full, K_BYTES, leader())")
        _emit_copies(out, traits, "K", traits.head_dim)


def _emit_load_values(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "load_values", (*TILE, "full"), "A tile of values."):
        out.line("ptx.mbarrier_expect(full, V_BYTES, leader())")
        _emit_copies(out, traits, "V", traits.value_dim)


def _emit_copies(out: SourceWriter, traits: Traits, name: str, dim: int) -> None:
    """The boxes of a tile, each 64 numbers wide."""
    out.line(f"to = base + {name}_TILE + stage * {name}_BYTES")
    for span in range(spans(dim)):
        at = f"to + u32({span * traits.tile_kv * SPAN_BYTES}), tensor_map, full"
        out.line(f"ptx.tensor_copy({at}, u32({span * SPAN}), k1, k2, kv_head, entry, leader())")
