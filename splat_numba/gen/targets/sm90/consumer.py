"""A consumer warpgroup's part of the text: its 64 queries against the tiles that the producer hands over.

The scores of the next tile are issued before the softmax of this one is added up, so that the tensor cores work while
the exponentials are taken (562 -> 618 TFLOP/s, dense, head_dim 128).
"""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.lane_layout import LANE_ROWS, sums_of, words_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.results import emit_epilogue, emit_places_of_results, rest_pointer, resumed, stored
from splat_numba.gen.targets.sm90.epilogue import emit_for_rows, emit_rows, rows_early
from splat_numba.gen.targets.sm90.handover import emit_handover, emit_read, may_skip, tile_info
from splat_numba.gen.targets.sm90.products import emit_products
from splat_numba.gen.targets.sm90.shape import INFO_BYTES, value_columns
from splat_numba.gen.targets.sm90.softmax import emit_mask_place, emit_place, emit_softmax, masks

RESULTS = ("rows", "out", "lse", "scale_log2", "heads_q", "seq_q", "out_row", "out_head", "out_batch")
REGISTERS = ("score", "weight", "total", "peak", "added")


def emit_consumer(out: SourceWriter, traits: Traits) -> None:
    """The consumers' functions: their loop over items, over tiles, and what these call."""
    _emit_items(out, traits)
    _emit_tiles(out, traits)
    _emit_weigh(out, traits)
    emit_handover(out, traits)
    emit_products(out, traits)
    emit_softmax(out, traits)
    emit_epilogue(out, traits)


def arguments(traits: Traits) -> tuple[str, ...]:
    """Of ``consume``: where it is, and where results go."""
    return ("base", "thread", "warpgroup", *RESULTS, *rest_pointer(traits))


def _tile_arguments(traits: Traits) -> tuple[str, ...]:
    """What tiles are worked on with: where this thread is, what is left, where the rings are, its registers."""
    masks = ("mask_base",) if traits.partial else ()
    state = ("tiles", "stage", "phase", "q_stage")
    return ("base", "warpgroup", "column", *masks, "q_at", "scale_log2", *state, *REGISTERS)


def _emit_items(out: SourceWriter, traits: Traits) -> None:
    with device_function(out, "consume", arguments(traits), "A consumer warpgroup: 64 queries of each item."):
        _emit_registers(out, traits)
        with out.block("while True"):
            _emit_item(out, traits)
            wrapped(out, "stage, phase = attend", _tile_arguments(traits))
            out.line("give_queries_back(base, tiles, q_stage)  # of an item without tiles")
            if not rows_early(traits):
                emit_rows(out, traits)
            emit_places_of_results(out, traits)
            emit_for_rows(out, "store_row", stored(traits))
            out.line("q_stage, q_phase = advance(q_stage, q_phase, Q_STAGES)")


def _emit_registers(out: SourceWriter, traits: Traits) -> None:
    """What a thread holds throughout: where its rows and columns are, and the arrays that become registers."""
    emit_place(out)
    out.lines(
        f"""
        total = cuda.local.array({sums_of(value_columns(traits))}, dtype=np.float32)
        score = cuda.local.array({sums_of(traits.tile_kv)}, dtype=np.float32)
        weight = cuda.local.array({words_of(traits.tile_kv)}, dtype=np.uint32)
        peak = cuda.local.array({LANE_ROWS}, dtype=np.float32)
        added = cuda.local.array({LANE_ROWS}, dtype=np.float32)
        for i in range({sums_of(traits.tile_kv)}):
            score[i] = f32(0.0)
        stage = phase = q_stage = q_phase = u32(0)
        """
    )
    if traits.partial:
        emit_mask_place(out, traits)


def _emit_item(out: SourceWriter, traits: Traits) -> None:
    """The item's queries have arrived; the state of an empty softmax, or the one an earlier pass left."""
    out.lines(
        f"""
        ptx.mbarrier_wait(base + Q_FULL + q_stage * u32(8), q_phase)
        tiles, rank, head, entry = ptx.load_shared_words4(base + ITEM_INFO + q_stage * u32({INFO_BYTES}))
        if rank == NO_ITEM:
            break
        ptx.warp_barrier()  # all lanes have read it before the leader gives anything back
        q_at = queries_at(base, warpgroup, q_stage)
        """
    )
    if rows_early(traits):
        emit_rows(out, traits)
    if traits.resumes:
        emit_places_of_results(out, traits)
        emit_for_rows(out, "resume_row", resumed(traits))
        return
    out.lines(
        f"""
        for row in range(2):
            peak[row] = NONE_KEPT
            added[row] = f32(0.0)
        for i in range({value_columns(traits) // 2}):
            total[i] = f32(0.0)
        """
    )


def _emit_tiles(out: SourceWriter, traits: Traits) -> None:
    """Chains of tiles, up to one that this group skips: the next one's scores overlap this softmax."""
    text = "An item's tiles, in chains up to one that this group skips; where the ring of tiles is then."
    with device_function(out, "attend", _tile_arguments(traits), text):
        out.line("rescale = cuda.local.array(2, dtype=np.float32)")
        with out.block("while tiles > u32(0)"):
            emit_read(out, traits)
            if may_skip(traits):
                with out.block("if kept == u32(0)"):
                    _emit_skipped(out)
                out.line("else:")
                with out.suite():
                    _emit_chain(out, traits)
            else:
                _emit_chain(out, traits)
        out.line("return stage, phase")


def _emit_skipped(out: SourceWriter) -> None:
    out.lines(
        """
        skip_tile(base, stage, phase)
        tiles = u32(tiles - u32(1))
        give_queries_back(base, tiles, q_stage)
        stage, phase = advance(stage, phase, STAGES)
        """
    )


def _emit_chain(out: SourceWriter, traits: Traits) -> None:
    out.line("multiply_queries(score, base, q_at, stage)")
    out.line("ptx.wgmma_wait_all()")
    _emit_weights(out, traits)
    _emit_turn(out, traits, rescale=traits.resumes or may_skip(traits))  # else there is no sum to bring to a new peak
    with out.block("while going"):
        out.lines(
            """
            multiply_queries(score, base, q_at, stage)
            multiply_weights(total, weight, base, v_stage, v_phase)
            ptx.wgmma_wait_but_one()
            """
        )
        _emit_weights(out, traits)
        # This tile's values are used next. Waiting here, in a loop, keeps ptxas from moving the wait for the products
        # up before the exponentials (causal, head_dim 128: 0.89 -> 0.84 ms).
        out.line("ptx.mbarrier_wait(base + V_FULL + stage * u32(8), phase)")
        _emit_values_done(out)
        _emit_turn(out, traits, rescale=True)
    out.line("multiply_weights(total, weight, base, v_stage, v_phase)")
    _emit_values_done(out)


def _emit_weights(out: SourceWriter, traits: Traits) -> None:
    out.line("tiles = u32(tiles - u32(1))")
    wrapped(out, "weigh_scores", _weight_arguments(traits))


def _emit_values_done(out: SourceWriter) -> None:
    out.line("ptx.wgmma_wait_all()")
    out.line("ptx.mbarrier_arrive(base + V_EMPTY + v_stage * u32(8), leader())")


def _emit_turn(out: SourceWriter, traits: Traits, *, rescale: bool) -> None:
    """The tile's values come next; its successor's keys after them, if the chain goes on.

    Not a branch round the tile's body: that moved accumulators about (20 % lost). Nor a function that returns whether:
    the loop of plain texts had 507 instructions in place of 436.
    """
    out.line("round_weights(weight, score)")
    if rescale:
        out.line("bring_to_peak(total, rescale)")
    out.line("v_stage, v_phase = stage, phase")
    out.line("stage, phase = advance(stage, phase, STAGES)")
    out.line("going = tiles > u32(0)")
    with out.block("if going"):
        emit_read(out, traits)
        if may_skip(traits):
            out.line("going = kept != u32(0)")


def _weight_arguments(traits: Traits) -> tuple[str, ...]:
    masks = ("mask_base", "column") if traits.partial else ("column",) if traits.ragged else ()
    state = ("tiles", "stage", "q_stage", "scale_log2", "peak", "added", "rescale")
    return ("score", *tile_info(traits)[: 2 if traits.partial else 1], *masks, "base", *state)


def _emit_weigh(out: SourceWriter, traits: Traits) -> None:
    text = "A tile's scores become weights; its keys, and queries after the last one, are given back in between."
    with device_function(out, "weigh_scores", _weight_arguments(traits), text):
        for mask in masks(traits, limited=traits.ragged):
            out.line(mask)
        out.lines(
            """
            give_keys_back(base, stage)
            give_queries_back(base, tiles, q_stage)
            softmax(score, scale_log2, peak, added, rescale)
            """
        )
