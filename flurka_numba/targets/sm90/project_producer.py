"""The warp that fetches for stage 3 from a layer's input: where a tile is, its steps, its heads' states."""

from __future__ import annotations

from flurka_numba.targets.sm90.project_shape import COLUMNS, INPUT_BYTES, STAGE_BYTES, TOKENS, ProjectTraits
from flurka_numba.targets.sm90.ring import emit_advance
from flurka_numba.targets.sm90.shape import BARRIER_BYTES, STEP
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES


def emit_place(out: KernelWriter) -> None:
    """Where ``tile`` is: neighbouring blocks read the same tokens."""
    with out.part("find_tile", "Where a tile is: neighbouring blocks read the same tokens."):
        out.lines(
            f"""
            rest = u32(tile // column_tiles)
            column_tile = u32(tile - rest * column_tiles)
            entry = u32(rest // row_tiles)
            first_row = u32((rest - entry * row_tiles) * u32({TOKENS}))
            """
        )


def emit_producer(out: KernelWriter, traits: ProjectTraits) -> None:
    """One warp; what only one lane may do is predicated by ``leader``. What lies outside an array arrives as 0."""
    out.lines(
        """
        stage = u32(0)
        free = u32(1)  # parity of the phase in which a stage was given back; a fresh barrier counts as given back
        states_free = u32(1)
        """
    )
    out.line("ptx.fence_tensor_map(x_map)")
    out.line("ptx.fence_tensor_map(w_q_map)")
    with out.block("while tile < tiles"):
        emit_place(out)
        out.line("step = u32(0)")
        with out.block("while step < steps"):
            out.line(f"ptx.mbarrier_wait(empty + stage * u32({BARRIER_BYTES}), free)")
            _emit_step(out)
            out.line("step = u32(step + u32(1))")
            emit_advance(out, "stage", "free", traits.stages)
        out.line("ptx.await_launch()  # of the states")
        out.line("ptx.mbarrier_wait(states_empty, states_free)")
        out.line("states_free = u32(states_free ^ u32(1))")
        with out.part("load_states", "The states of a tile's heads."):
            out.lines(
                f"""
                ptx.mbarrier_expect(states_full, u32({traits.state_bytes}), leader)
                pair = u64(entry) * u64(heads) + u64(column_tile * u32({traits.heads}))
                from_states = states + u64({traits.apply.state_bytes}) * pair
                ptx.bulk_copy(states_at, from_states, u32({traits.state_bytes}), states_full, leader)
                """
            )
        out.line("tile = u32(tile + ptx.grid_size())")


def _emit_step(out: KernelWriter) -> None:
    """64 columns of x for the tile's tokens, and these rows of w_q for its columns."""
    with out.part("load_step", "64 columns of x for the tile's tokens, and these rows of w_q for its columns."):
        out.lines(
            f"""
            barrier = u32(full + stage * u32({BARRIER_BYTES}))
            ptx.mbarrier_expect(barrier, u32({STAGE_BYTES}), leader)
            to = u32(base + stage * u32({STAGE_BYTES}))
            from_column = u32(step * u32({STEP}))
            ptx.tensor_copy(to, x_map, barrier, from_column, first_row, u32(0), u32(0), entry, leader)
            """
        )
        for span in range(COLUMNS // SPAN):
            out.line(f"column = u32(column_tile * u32({COLUMNS}) + u32({SPAN * span}))")
            at = f"to + u32({INPUT_BYTES + span * STEP * SPAN_BYTES})"
            place = "column, from_column, u32(0), u32(0), u32(0)"
            out.line(f"ptx.tensor_copy({at}, w_q_map, barrier, {place}, leader)")
