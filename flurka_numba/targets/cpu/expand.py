"""Text of the gradients of the first stage: slots back to tokens, E^T dK', and to the projection, dK' K^T.

One function serves keys and values. Items are tiles of tokens, which sum over batch and heads by themselves.
"""

from __future__ import annotations

from flurka_numba.targets.cpu.compress import emit_stage, emit_stage_proj
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, block, emit_keep, emit_scratch, emit_strides, place
from splat_numba.gen.writer import SourceWriter

EACH_HEAD = "for head in range(which, heads, proj.shape[0])  # those that this projection serves"


def emit_expand(out: SourceWriter, plan: CpuPlan) -> None:
    """expand: gradients of tokens from those of slots."""
    tile = plan.tile_tokens
    with out.function(
        FUNCTION,
        "expand(first, last, proj, dslots, lengths, dsource)",
        "dsource = proj^T dslots, an item being a projection and a tile of tokens; rows beyond a length stay as they are.",
    ):
        emit_strides(out, plan.dtype, "proj", axes=3)
        emit_strides(out, plan.compute_dtype, "dsource")
        out.line("batches, heads, seq, dim = dsource.shape")
        out.line("slots, dims = proj.shape[1], dslots.shape[3]")
        emit_scratch(out, weights=f"slots * {plan.proj_apart}", result=f"{tile} * dims")
        with out.block("for item in range(first, last)"):
            _emit_item(out, plan)
            emit_stage_proj(out, plan, "which")
            with out.block("for batch in range(batches)"):
                _emit_count(out, plan)
                with out.block(EACH_HEAD.split("  #")[0]):
                    matrix = block("dslots", ["batch", "head"], "dslots.shape[2]", "dims")
                    factors = f"weights, 1, {plan.proj_apart}, count, slots, {matrix}"
                    out.line(f"multiply({factors}, dims, result, dims)")
                    rows = f"{place('dsource', 'batch', 'head', 'token')}, dsource_at[2], dsource_at[3]"
                    out.line(f"store_rows_{plan.result_dtype}(result, dims, count, dim, {rows})")
        emit_keep(out)


def _emit_item(out: SourceWriter, plan: CpuPlan) -> None:
    tile = plan.tile_tokens
    out.line(f"tiles = -(-seq // {tile})")
    out.line(f"token, which = item % tiles * {tile}, item // tiles")
    out.line(f"count = min({tile}, seq - token)")


def _emit_count(out: SourceWriter, plan: CpuPlan) -> None:
    out.line(f"count = min({plan.tile_tokens}, min(seq, lengths[batch]) - token)")
    with out.block("if count <= 0"):
        out.line("continue")


def emit_project_gradient(out: SourceWriter, plan: CpuPlan) -> None:
    """project_gradient: of a projection, summed over batch and the heads it serves."""
    tile = plan.tile_tokens
    with out.function(
        FUNCTION,
        "project_gradient(first, last, source, dslots_t, lengths, dproj)",
        "dproj = sum of dslots source^T, an item being a projection and a tile of tokens.",
    ):
        emit_strides(out, plan.dtype, "source")
        out.line("batches, heads, seq, dim = source.shape")
        out.line("slots, slots_padded, dims = dproj.shape[1], dslots_t.shape[3], padded(dim)")
        emit_scratch(out, tokens=f"{tile} * dims", total=f"{tile} * slots_padded")
        with out.block("for item in range(first, last)"):
            _emit_item(out, plan)
            out.line(f"clear(total, {tile} * slots_padded)  # transposed: a token's slots lie together")
            with out.block("for batch in range(batches)"):
                _emit_count(out, plan)
                with out.block("for head in range(which, heads, dproj.shape[0])"):
                    emit_stage(out, plan.dtype, "source", "tokens", "dim", "dims")
                    out.line(f"clear(advance(tokens, count * dims), ({tile} - count) * dims)")
                    matrix = block("dslots_t", ["batch", "head"], "dslots_t.shape[2]", "slots_padded")
                    out.line(f"multiply_onto(tokens, dims, 1, count, dim, {matrix}, slots_padded, total, slots_padded)")
            out.line(f"count = min({tile}, seq - token)")
            with out.block("for slot in range(slots)"):
                out.line("row = address(dproj, (which * slots + slot) * seq + token)")
                with out.block("for at in range(count)"):
                    out.line("assign(row, at, element(total, at * slots_padded + slot))")
        emit_keep(out)
