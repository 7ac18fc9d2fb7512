"""Text of the gradients of the first stage: slots back to tokens, E^T dK', and to the projection, dK' K^T.

One function serves keys and values. An item is a projection and a tile of tokens, and sums over batch and the heads
which that projection serves by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flurka_numba.targets.cpu.compress import emit_stage_proj
from flurka_numba.targets.cpu.entries import entry_of
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, emit_keep, emit_scratch, emit_strides, head_block
from flurka_numba.targets.cpu.rows import emit_stage, emit_store
from splat_numba.gen.language.writer import SourceWriter


def emit_expand(out: SourceWriter, plan: CpuPlan) -> None:
    """expand: gradients of tokens from those of slots."""
    tile, apart = plan.tile_tokens, plan.proj_apart
    with out.function(
        FUNCTION,
        entry_of(plan, "expand").header,
        "dsource = proj^T dslots; rows beyond a length are left as they are.",
    ):
        emit_strides(out, plan.dtype, "proj", axes=3)
        emit_strides(out, plan.compute_dtype, "dsource")
        out.line("batches, heads, seq, dim = dsource.shape")
        out.line(
            "projections, slots, slots_padded, dims = proj.shape[0], proj.shape[1], dslots.shape[2], dslots.shape[3]"
        )
        emit_scratch(out, weights=f"slots * {apart}", result=f"{tile} * dims")
        with out.block("for item in range(first, last)"):
            _emit_item(out, plan)
            emit_stage_proj(out, plan, "which")
            with _each_head(out, plan):
                out.line(f"matrix = {head_block('dslots', 'slots_padded', 'dims')}")
                out.line(f"multiply(weights, 1, {apart}, count, slots, matrix, dims, result, dims)")
                emit_store(out, plan, "result", "dims", "dim", "dsource")
        emit_keep(out)


def _emit_item(out: SourceWriter, plan: CpuPlan) -> None:
    """Of ``projections``, which; and the ``count`` tokens from ``token`` on."""
    tile = plan.tile_tokens
    out.line(f"tiles = -(-seq // {tile})")
    out.line(f"token, which = item % tiles * {tile}, item // tiles")
    out.line(f"count = min({tile}, seq - token)")


@contextmanager
def _each_head(out: SourceWriter, plan: CpuPlan) -> Iterator[None]:
    """Every batch entry, of which ``count`` tokens are below the length, and every head that the projection serves."""
    with out.block("for batch in range(batches)"):
        out.line(f"count = min({plan.tile_tokens}, lengths[batch] - token)")
        with out.block("for head in range(which, heads if count > 0 else 0, projections)"):
            yield


def emit_project_gradient(out: SourceWriter, plan: CpuPlan) -> None:
    """project_gradient: of a projection."""
    tile = plan.tile_tokens
    with out.function(
        FUNCTION,
        entry_of(plan, "project_gradient").header,
        "dproj = sum over batch and heads of dslots source^T, over tokens within the lengths.",
    ):
        emit_strides(out, plan.dtype, "source")
        out.line("batches, heads, seq, dim = source.shape")
        out.line(
            "projections, slots, slots_padded, dims = dproj.shape[0], dproj.shape[1], dslots_t.shape[3], padded(dim)"
        )
        emit_scratch(out, tokens=f"{tile} * dims", total=f"{tile} * slots_padded")
        with out.block("for item in range(first, last)"):
            _emit_item(out, plan)
            out.line(f"clear(total, {tile} * slots_padded)  # (tokens, slots), the transpose of dproj")
            with _each_head(out, plan):
                emit_stage(out, plan.dtype, "source", "tokens", "dim", "dims")
                out.line(f"clear(advance(tokens, count * dims), ({tile} - count) * dims)")
                out.line(f"matrix = {head_block('dslots_t', 'dim', 'slots_padded')}")
                out.line("multiply_onto(tokens, dims, 1, count, dim, matrix, slots_padded, total, slots_padded)")
            out.line(f"count = min({tile}, seq - token)")
            with out.block("for slot in range(slots)"):
                out.line("row = address(dproj, (which * slots + slot) * seq + token)")
                with out.block("for column in range(count)"):
                    out.line("assign(row, column, element(total, column * slots_padded + slot))")
        emit_keep(out)
