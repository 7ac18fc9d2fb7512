"""The producer's part of the text: it reads the tables and has boxes of q, k and v copied into shared memory.

One warp does it. Every lane runs the same statements; what only one lane may do is predicated by ``leader``.
"""

from __future__ import annotations

from splat_numba.gen.boxes import SOME, Traits
from splat_numba.gen.targets.sm90.shape import INFO_BYTES, SPAN_BYTES, group_mask_bytes, q_stages, shared_layout, spans
from splat_numba.gen.tensor_map import SPAN
from splat_numba.gen.writer import SourceWriter

NO_ITEM = 2**32 - 1  # in place of a row block's number: nothing follows


def emit_producer(out: SourceWriter, traits: Traits) -> None:
    """The producer's loop over items; stands in the producer warpgroup's branch."""
    with out.block(f"if thread < u32({128 * traits.groups + 32})"):
        out.lines(
            """
            leader = u32(1) if lane == u32(0) else u32(0)
            stage = u32(0)
            free = u32(1)  # parity of the phase in which a stage was given back; a fresh barrier counts as given back
            q_stage = u32(0)
            q_free = u32(1)
            for place in range(q_views):
                ptx.fence_tensor_map(q_maps + u64(128) * u64(place))
            for place in range(u32(2) * kv_views):
                ptx.fence_tensor_map(kv_maps + u64(128) * u64(place))
            k1 = k2 = status = bits_0 = bits_1 = bits_2 = u32(0)
            k_map = u64(0)
            item = ptx.block_index()
            """
        )
        if traits.ragged:
            out.line("cleared_phase = token = inner_step = kept_status = u32(0)")
        _emit_decode(out, "item")
        with out.block("while item < items"):
            _emit_queries(out, traits)
            out.line("taken = ptx.fetch_add(counter, u32(1), leader)  # blocks take what is left in turn")
            out.line("place = first_piece")
            out.line("count = u32(0)")
            with out.block("while place < end_of_pieces"):  # one loop over pieces and tiles: nested, it is unrolled
                with out.block("if count == u32(0)"):
                    _emit_piece(out, traits)
                _emit_tile(out, traits)
                out.line("count = u32(count - u32(1))")
                with out.block("if count == u32(0)"):
                    out.line("place = u32(place + u32(1))")
            out.line("item = u32(ptx.grid_size() + ptx.word_of_lane(taken, u32(0)))")
            _emit_decode(out, "min(item, items - u32(1))")
        _emit_end(out)


def _emit_end(out: SourceWriter) -> None:
    """Tell the consumers that nothing follows; the last block to come here leaves the counter as it found it."""
    out.lines(
        f"""
        ptx.mbarrier_wait(q_empty + q_stage * u32(8), q_free)
        ptx.store_shared_words4(item_info + q_stage * u32({INFO_BYTES}), u32(0), u32({NO_ITEM}), u32(0), u32(0), leader)
        ptx.mbarrier_arrive(q_full + q_stage * u32(8), leader)
        ended = ptx.word_of_lane(ptx.fetch_add(counter + u64(4), u32(1), leader), u32(0)) + u32(1)
        last_block = leader if ended == ptx.grid_size() else u32(0)
        ptx.store_word(counter, u32(0), last_block)
        ptx.store_word(counter + u64(4), u32(0), last_block)
        """
    )


def _emit_decode(out: SourceWriter, item: str) -> None:
    """Which row block, head and batch entry comes next. Read while the tiles before it are worked on, which hides 1 us.

    Items go wave by wave, so that the keys of a wave's heads stay in the L2 cache; in it longest row blocks first.
    """
    out.lines(
        f"""
        number = u32({item})
        wave_items = u32(heads_per_wave * blocks)
        wave = u32(number // wave_items)
        left = u32(number - wave * wave_items)
        first_pair = u32(wave * heads_per_wave)
        width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
        next_rank = u32(left // width)
        pair = u32(first_pair + left - next_rank * width)
        next_entry = u32(pair // heads_count)
        head_at = heads + u64(4) * u64(pair - next_entry * heads_count)
        word_at = block + u64(32) * u64(next_rank) + u64(4) * u64(lane)
        next_words = ptx.load_word(word_at if lane < u32(8) else head_at)  # one register, where nine would be spilled
        """
    )


def _emit_queries(out: SourceWriter, traits: Traits) -> None:
    """Take the item that was read, and fetch its queries."""
    layout = shared_layout(traits)
    out.lines(
        """
        rank, entry = next_rank, next_entry
        view = ptx.word_of_lane(next_words, u32(0))
        c1 = ptx.word_of_lane(next_words, u32(1))
        c2 = ptx.word_of_lane(next_words, u32(2))
        first_piece = ptx.word_of_lane(next_words, u32(3))
        end_of_pieces = ptx.word_of_lane(next_words, u32(4))
        tiles = ptx.word_of_lane(next_words, u32(5))
        head = ptx.word_of_lane(next_words, u32(8))
        kv_head = u32(head // group)
        ptx.mbarrier_wait(q_empty + q_stage * u32(8), q_free)
        """
    )
    out.line(f"ptx.store_shared_words4(item_info + q_stage * u32({INFO_BYTES}), tiles, rank, head, entry, leader)")
    out.line(f"ptx.mbarrier_expect(q_full + q_stage * u32(8), u32({layout.q_bytes}), leader)")
    for span in range(spans(traits.head_dim)):
        to = f"q_tile + q_stage * u32({layout.q_bytes}) + u32({span * traits.tile_q * SPAN_BYTES})"
        source = "q_maps + u64(128) * u64(view), q_full + q_stage * u32(8)"
        out.line(f"ptx.tensor_copy({to}, {source}, u32({span * SPAN}), c1, c2, head, entry, leader)")
    emit_advance(out, "q_stage", "q_free", q_stages(traits))
    if traits.ragged:
        out.line("length = ptx.load_word(kv_lengths + u64(4) * u64(entry))")


def _emit_piece(out: SourceWriter, traits: Traits) -> None:
    """Read the next piece of the list."""
    out.lines(
        """
        kv_view, k1, k2, count = ptx.load_words4(piece + u64(32) * u64(place))
        status, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        k_map = kv_maps + u64(256) * u64(kv_view)
        """
    )
    if traits.ragged:
        out.lines(
            """
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(kv_view))
            token = u32(offset + inner_step * k1 + outer_step * k2)
            kept_status = status
            """
        )


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    """One tile: its keys and what goes with them, then its values."""
    if traits.ragged:
        _emit_valid(out, traits)
    out.line("ptx.mbarrier_wait(k_empty + stage * u32(8), free)")
    info = f"tile_info + stage * u32({INFO_BYTES})"
    out.line(f"ptx.store_shared_words4({info}, status, bits_0, bits_1, bits_2, leader)")
    if traits.partial:
        _emit_masks(out, traits)
    _emit_copies(out, traits, "k")
    out.line("ptx.mbarrier_wait(v_empty + stage * u32(8), free)")
    if traits.ragged:
        _emit_ragged_values(out, traits)
    else:
        _emit_copies(out, traits, "v")
    out.line(f"k1 = u32(k1 + u32({traits.tile_kv}))")
    if traits.ragged:
        out.line(f"token = u32(token + inner_step * u32({traits.tile_kv}))")
    emit_advance(out, "stage", "free", traits.stages)


def _emit_masks(out: SourceWriter, traits: Traits) -> None:
    """Whether masks go with the tile's keys: all groups' or none, so that the barrier expects one of two numbers."""
    some = sum(SOME << 2 * group for group in range(traits.groups))
    out.line(f"masked = u32(1) if (status & u32({some})) != u32(0) else u32(0)")
    out.line(f"mask_bytes = u32(masked) * u32({shared_layout(traits).mask_bytes})")


def _emit_copies(out: SourceWriter, traits: Traits, name: str, barrier: str = "") -> None:
    """One tile of keys or values, announced at its barrier."""
    layout = shared_layout(traits)
    size, dim = (layout.k_bytes, traits.head_dim) if name == "k" else (layout.v_bytes, traits.value_dim)
    barrier = barrier or f"{name}_full + stage * u32(8)"
    masks = " + mask_bytes" if name == "k" and traits.partial else ""
    out.line(f"ptx.mbarrier_expect({barrier}, u32({size}){masks}, leader)")
    if masks:
        for group in range(traits.groups):
            size_of_one = group_mask_bytes(traits)
            to = f"mask_tile + stage * u32({layout.mask_bytes}) + u32({group * size_of_one})"
            source = f"bits + u64({size_of_one}) * u64(bits_{group})"
            out.line(f"ptx.bulk_copy({to}, {source}, u32({size_of_one}), {barrier}, leader & masked)")
    tensor_map = "k_map" if name == "k" else "k_map + u64(128)"
    for span in range(spans(dim)):
        to = f"{name}_tile + stage * u32({size}) + u32({span * traits.tile_kv * SPAN_BYTES})"
        where = f"u32({span * SPAN}), k1, k2, kv_head, entry, leader"
        out.line(f"ptx.tensor_copy({to}, {tensor_map}, {barrier}, {where})")


def _emit_valid(out: SourceWriter, traits: Traits) -> None:
    """How many of the tile's keys lie below the batch entry's length: status above bit 8; none: all groups skip."""
    out.lines(
        f"""
        valid = u32(0)
        if token < length:
            valid = u32(min(u32(length - token + inner_step - u32(1)) // inner_step, u32({traits.tile_kv})))
        status = u32(kept_status | (valid << u32(8)))
        if valid == u32(0):
            status = u32(0)
        """
    )


def _emit_ragged_values(out: SourceWriter, traits: Traits) -> None:
    """A tile of values; those beyond the length are cleared, since they may be NaN and 0 x NaN is NaN."""
    layout = shared_layout(traits)
    with out.block(f"if valid == u32({traits.tile_kv})"):
        _emit_copies(out, traits, "v")
    with out.block("else"):
        _emit_copies(out, traits, "v", "cleared")
        out.line("ptx.mbarrier_wait(cleared, cleared_phase)")
        out.line("cleared_phase = u32(cleared_phase ^ u32(1))")
        with out.block(f"for token_in_tile in range(valid, u32({traits.tile_kv}))"):
            for span in range(spans(traits.value_dim)):
                span_at = span * traits.tile_kv * SPAN_BYTES
                at = f"u32({span_at}) + u32(token_in_tile) * u32({SPAN_BYTES}) + lane * u32(4)"
                out.line(f"ptx.store_shared_word(v_tile + stage * u32({layout.v_bytes}) + {at}, u32(0), u32(1))")
        out.lines(
            """
            ptx.fence_shared()
            ptx.warp_barrier()
            ptx.mbarrier_arrive(v_full + stage * u32(8), leader)
            """
        )


def emit_advance(out: SourceWriter, stage: str, phase: str, stages: int) -> None:
    """On to the next stage; its barriers' phase turns over with the round."""
    if stages == 1:
        out.line(f"{phase} = u32({phase} ^ u32(1))")
        return
    out.line(f"{stage} = u32({stage} + u32(1))")
    with out.block(f"if {stage} == u32({stages})"):
        out.line(f"{stage} = u32(0)")
        out.line(f"{phase} = u32({phase} ^ u32(1))")
