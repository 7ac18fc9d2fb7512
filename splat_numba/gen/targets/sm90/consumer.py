"""A consumer warpgroup's part of the text: its 64 queries against the tiles that the producer hands over.

The scores of the next tile are issued before the softmax of this one is added up, so that the tensor cores work while
the exponentials are taken (562 -> 618 TFLOP/s, dense, head_dim 128).
"""

from __future__ import annotations

from splat_numba.gen.boxes import NONE, Traits
from splat_numba.gen.targets.sm90.epilogue import emit_places, emit_results, emit_rows, rows_early
from splat_numba.gen.targets.sm90.producer import NO_ITEM, emit_advance
from splat_numba.gen.targets.sm90.shape import (
    INFO_BYTES,
    keys_descriptor,
    q_stages,
    score_offset,
    score_steps,
    shared_layout,
    value_columns,
    values_descriptor,
    words_per_row,
)
from splat_numba.gen.targets.sm90.softmax import emit_mask, emit_pack, emit_rescale, emit_softmax
from splat_numba.gen.writer import SourceWriter


def emit_consumer(out: SourceWriter, traits: Traits) -> None:
    """The consumers' loop over items; stands in their branch."""
    _emit_registers(out, traits)
    with out.block("while True"):
        _emit_item(out, traits)
        with out.block("while tiles_left > u32(0)"):
            _emit_wait(out, traits)
            if may_skip(traits):
                with out.block("if kept == u32(0)"):
                    _emit_skip(out, traits)
                with out.block("else"):
                    _emit_chain(out, traits)
            else:
                _emit_chain(out, traits)
        with out.block("if q_held"):
            out.line("ptx.mbarrier_arrive(q_empty + q_stage * u32(8), leader)")
        emit_results(out, traits)
        emit_advance(out, "q_stage", "q_phase", q_stages(traits))


def may_skip(traits: Traits) -> bool:
    """Whether a group may have to skip a tile: by the mask, or because key lengths leave it out."""
    return traits.skips or traits.ragged


def _emit_registers(out: SourceWriter, traits: Traits) -> None:
    """What a thread holds throughout: its rows and columns, descriptors, and the arrays that become registers."""
    out.lines(
        f"""
        leader = u32(1) if lane == u32(0) else u32(0)  # each warp gives back for itself: no warp may lag behind another
        row_in_group = ((thread >> u32(5)) & u32(3)) * u32(16) + (lane >> u32(2))  # and the row 8 further on
        column = (lane & u32(3)) * u32(2)
        q_descriptor = u64({keys_descriptor()}) | u64((q_tile + warpgroup * u32(8192)) >> u32(4))
        total = cuda.local.array({value_columns(traits) // 2}, dtype=np.float32)
        score = cuda.local.array({traits.tile_kv // 2}, dtype=np.float32)
        weight = cuda.local.array({traits.tile_kv // 4}, dtype=np.uint32)
        for i in range({traits.tile_kv // 2}):
            score[i] = f32(0.0)
        stage = u32(0)
        phase = u32(0)
        q_stage = u32(0)
        q_phase = u32(0)
        """
    )
    if traits.partial:
        layout, at = shared_layout(traits), f"row_in_group * u32({4 * words_per_row(traits)})"
        out.line(f"mask = cuda.local.array({words_per_row(traits)}, dtype=np.uint32)")
        out.line(f"mask_base = mask_tile + warpgroup * u32({layout.mask_bytes // traits.groups}) + {at}")


def _emit_item(out: SourceWriter, traits: Traits) -> None:
    """The item's queries have arrived; the state of an empty softmax, or the one an earlier pass left."""
    out.lines(
        f"""
        ptx.mbarrier_wait(q_full + q_stage * u32(8), q_phase)
        tiles_left, rank, head, entry = ptx.load_shared_words4(item_info + q_stage * u32({INFO_BYTES}))
        if rank == u32({NO_ITEM}):
            break
        ptx.warp_barrier()  # all lanes have read it before the leader gives anything back
        q_held = True
        q_at = q_descriptor + u64(q_stage * u32({shared_layout(traits).q_bytes >> 4}))
        """
    )
    if rows_early(traits):
        emit_rows(out, traits)
    if traits.resumes:
        _emit_resume(out, traits)
    else:
        for row in (0, 1):
            out.line(f"peak_{row} = NONE_KEPT")
            out.line(f"sum_{row} = f32(0.0)")
        with out.block(f"for i in range({value_columns(traits) // 2})"):
            out.line("total[i] = f32(0.0)")


def _emit_resume(out: SourceWriter, traits: Traits) -> None:
    """out and lse of an earlier pass as a softmax state: a sum of 1 at the peak lse."""
    emit_places(out)
    for row in (0, 1):
        out.lines(
            f"""
            safe_{row} = row_{row} if real_{row} else u32(0)
            peak_{row} = ptx.load_state(lse_at + u64(4) * u64(safe_{row})) * f32(1.4426950408889634)
            sum_{row} = f32(0.0) if peak_{row} == NONE_KEPT else f32(0.25)  # four lanes add up to a row, NaN or not
            from_{row} = out_at + u64(safe_{row}) * out_row + u64(2) * u64(column)
            """
        )
        for j in range(value_columns(traits) // 8):
            at = f"from_{row} + u64({16 * j})"
            if 8 * j + 8 > traits.value_dim:
                at = f"{at} if column < u32({traits.value_dim - 8 * j}) else out"
            target = ", ".join(f"total[{4 * j + 2 * row + x}]" for x in (0, 1))
            out.line(f"{target} = ptx.unpack_{traits.dtype}(ptx.load_pair({at}))")


def _emit_wait(out: SourceWriter, traits: Traits) -> None:
    """Wait for the keys of the next tile, and read which of its pairs this group keeps."""
    out.line("ptx.mbarrier_wait(k_full + stage * u32(8), phase)")
    if may_skip(traits) or traits.partial:
        out.line(f"word = ptx.load_shared_word(tile_info + stage * u32({INFO_BYTES}))")
        out.line("status = u32((word >> (u32(2) * warpgroup)) & u32(3))")
    if may_skip(traits):
        # All lanes agree; the vote tells ptxas so, which then keeps the stage in uniform registers for descriptors.
        out.line(f"kept = ptx.any_lane(u32(1) if status != u32({NONE}) else u32(0))")


def _emit_skip(out: SourceWriter, traits: Traits) -> None:
    """Give a tile back of which this group keeps nothing. No values may be pending here: another's wait needs them."""
    _emit_read(out)
    out.lines(
        """
        tiles_left = u32(tiles_left - u32(1))
        ptx.mbarrier_arrive(k_empty + stage * u32(8), leader)
        ptx.mbarrier_wait(v_full + stage * u32(8), phase)  # else a later wait could take the phase before for its own
        ptx.mbarrier_arrive(v_empty + stage * u32(8), leader)
        """
    )
    emit_advance(out, "stage", "phase", traits.stages)


def _emit_read(out: SourceWriter) -> None:
    """All lanes have read what the leader gives back: its arrival alone orders its own reads only (racecheck)."""
    out.line("ptx.warp_barrier()")


def _emit_chain(out: SourceWriter, traits: Traits) -> None:
    """Tiles one after the other, up to one that this group skips: the next one's scores overlap this softmax."""
    _emit_first_tile(out, traits)
    _emit_peek(out, traits)
    with out.block("while going"):
        _emit_tile(out, traits)
        _emit_peek(out, traits)
    _emit_last_values(out, traits)


def _emit_peek(out: SourceWriter, traits: Traits) -> None:
    """Whether the chain goes on. Not a branch round the tile's body: that moved accumulators about (20 % lost)."""
    out.line("going = tiles_left > u32(0)")
    with out.block("if going"):
        _emit_wait(out, traits)
        if may_skip(traits):
            out.line("going = kept != u32(0)")


def _emit_scores(out: SourceWriter, traits: Traits) -> None:
    """Issue q.k of the tile in ``stage``."""
    layout = shared_layout(traits)
    out.line(f"k_descriptor = u64({keys_descriptor()}) | u64((k_tile + stage * u32({layout.k_bytes})) >> u32(4))")
    out.line("ptx.wgmma_fence()")
    for step in range(score_steps(traits)):
        q_at = f"q_at + u64({score_offset(step, traits.tile_q)})"
        k_at = f"k_descriptor + u64({score_offset(step, traits.tile_kv)})"
        out.line(f"score_product(score, {q_at}, {k_at}, u32({int(step > 0)}))")
    out.line("ptx.wgmma_commit()")


def _emit_values(out: SourceWriter, traits: Traits) -> None:
    """Issue weights.v of the tile in ``v_stage``, once its values have arrived."""
    layout = shared_layout(traits)
    high = values_descriptor(traits.tile_kv)
    out.line("ptx.mbarrier_wait(v_full + v_stage * u32(8), v_phase)")
    out.line(f"v_descriptor = u64({high}) | u64((v_tile + v_stage * u32({layout.v_bytes})) >> u32(4))")
    out.line("ptx.wgmma_fence()")
    for step in range(traits.tile_kv // 16):
        weights = ", ".join(f"weight[{4 * step + i}]" for i in range(4))
        out.line(f"value_product(total, {weights}, v_descriptor + u64({2048 * step >> 4}))")
    out.line("ptx.wgmma_commit()")


def _emit_keys_done(out: SourceWriter, traits: Traits) -> None:
    """The scores are there: keys and mask may be overwritten, and the queries after the last tile."""
    out.line("tiles_left = u32(tiles_left - u32(1))")
    if may_skip(traits) or traits.partial:
        _emit_read(out)
    out.line("ptx.mbarrier_arrive(k_empty + stage * u32(8), leader)")
    with out.block("if tiles_left == u32(0)"):
        out.line("ptx.mbarrier_arrive(q_empty + q_stage * u32(8), leader)")
        out.line("q_held = False")


def _emit_first_tile(out: SourceWriter, traits: Traits) -> None:
    _emit_scores(out, traits)
    out.line("ptx.wgmma_wait_all()")
    emit_mask(out, traits)
    _emit_keys_done(out, traits)
    emit_softmax(out, traits)
    emit_pack(out, traits)
    if traits.resumes or may_skip(traits):  # there may be a sum to bring to the new peak
        emit_rescale(out, traits)
    _emit_turn(out, traits)


def _emit_tile(out: SourceWriter, traits: Traits) -> None:
    _emit_scores(out, traits)
    _emit_values(out, traits)
    out.line("ptx.wgmma_wait_but_one()")
    emit_mask(out, traits)
    _emit_keys_done(out, traits)
    emit_softmax(out, traits)
    # This tile's values are used next. Waiting here, in a loop, keeps ptxas from moving the wait for the products up
    # before the exponentials (causal, head_dim 128: 0.89 -> 0.84 ms).
    out.line("ptx.mbarrier_wait(v_full + stage * u32(8), phase)")
    out.line("ptx.wgmma_wait_all()")
    out.line("ptx.mbarrier_arrive(v_empty + v_stage * u32(8), leader)")
    emit_pack(out, traits)
    emit_rescale(out, traits)
    _emit_turn(out, traits)


def _emit_turn(out: SourceWriter, traits: Traits) -> None:
    """The tile's values come next; its successor's keys after them."""
    out.line("v_stage = stage")
    out.line("v_phase = phase")
    emit_advance(out, "stage", "phase", traits.stages)


def _emit_last_values(out: SourceWriter, traits: Traits) -> None:
    _emit_values(out, traits)
    out.line("ptx.wgmma_wait_all()")
    out.line("ptx.mbarrier_arrive(v_empty + v_stage * u32(8), leader)")
