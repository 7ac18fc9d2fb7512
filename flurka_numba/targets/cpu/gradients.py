"""Text of the gradients through a head's state: of queries, and of what was absorbed (tokens, or slots).

With r the divisor of a row, G = dout / r and delta = -(phi(q) . G state^T) / r, which is -(dout . out) / r:
    dphi(q) = G state^T + delta sums     dstate = phi(q)^T G     dsums = phi(q)^T delta
    dphi(k) = v dstate^T + dsums         dv = phi(k) dstate
"""

from __future__ import annotations

from flurka_numba.targets.cpu.attend import emit_stretch
from flurka_numba.targets.cpu.entries import entry_of
from flurka_numba.targets.cpu.features import call_features
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, emit_keep, emit_scratch, emit_strides, head_block, item_block
from flurka_numba.targets.cpu.rows import emit_split, emit_stage, emit_store, emit_tile, emit_weights
from flurka_numba.targets.cpu.slopes import call_slopes
from splat_numba.gen.language.writer import SourceWriter


def emit_query_gradient(out: SourceWriter, plan: CpuPlan) -> None:
    """query_gradient: dq, and what the queries of a split add to the gradients of state, sums and softmax's weights."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        entry_of(plan, "query_gradient").header,
        "dq; and dstate, dsums (over the scale) and dw_t of [batch, head, split], over the queries of one split.",
    ):
        emit_strides(out, plan.dtype, "q", "dout")
        emit_strides(out, plan.compute_dtype, "dq")
        out.line("heads, seq, head_dim, value_dim = q.shape[1], q.shape[2], q.shape[3], dout.shape[3]")
        out.line(
            "splits, features, dims, value_dims = dsums.shape[2], dsums.shape[4], padded(head_dim), padded(value_dim)"
        )
        _emit_tiles(out, plan, slope=f"{tile}", inverse=f"{tile}")
        with out.block("for item in range(first, last)"):
            emit_split(out, plan)
            emit_weights(out, plan, "query", "w", "w_t")
            emit_stretch(out, plan)
            _emit_totals(out, plan)
            with out.block(f"for token in range(start, stop, {tile})"):
                _emit_query_tile(out, plan)
        emit_keep(out)


def _emit_tiles(out: SourceWriter, plan: CpuPlan, **more: str) -> None:
    tokens, values, features = (f"{plan.tile_rows} * {size}" for size in ("dims", "value_dims", "features"))
    if plan.keeps_exponentials:
        more["exponentials"] = features
    emit_scratch(out, tokens=tokens, values=values, phi=features, dphi=features, dtokens=tokens, **more)


def _emit_totals(out: SourceWriter, plan: CpuPlan) -> None:
    """The sums of a split, from 0."""
    out.line(f"dweight = {item_block('dsums', 'features')}")
    out.line("clear(dweight, features)")
    if plan.absorbs:
        out.line(f"total = {item_block('dstate', 'features', 'value_dims')}")
        out.line("clear(total, features * value_dims)")
    if plan.weighs:
        out.line(f"steep = {item_block('dw_t', 'features', 'dims')}")
        out.line("clear(steep, features * dims)")


def _emit_query_tile(out: SourceWriter, plan: CpuPlan) -> None:
    out.line(f"count = min({plan.tile_rows}, stop - token)")
    emit_stage(out, plan.dtype, "q", "tokens", "head_dim", "dims")
    emit_stage(out, plan.dtype, "dout", "values", "value_dim", "value_dims")
    out.line(call_features(plan, "query"))
    out.line(f"weight = {head_block('sums', 'features')}")
    out.line("divide(phi, weight, scales[batch, head], count, features, inverse, slope)")
    out.line("scale_rows(values, value_dims, count, inverse)")
    out.line(f"matrix = {head_block('state_t', 'value_dims', 'features')}")
    out.line("multiply(values, value_dims, 1, count, value_dim, matrix, features, dphi, features)")
    out.line("fall(phi, dphi, weight, slope, count, features, dweight)")
    if plan.absorbs:
        out.line("multiply_onto(phi, 1, features, features, count, values, value_dims, total, value_dims)")
    if "q" in plan.wants or plan.weighs:
        out.line(call_slopes(plan))
    if plan.weighs:
        out.line("multiply_onto(dphi, 1, features, features, count, tokens, dims, steep, dims)")
    if "q" in plan.wants:
        emit_store(out, plan, "dtokens", "dims", "head_dim", "dq")


def emit_key_gradient(out: SourceWriter, plan: CpuPlan) -> None:
    """key_gradient: dk and dv, row by row."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        entry_of(plan, "key_gradient").header,
        "dk and dv, an item being a tile of rows; those beyond a length are left as they are.",
    ):
        emit_strides(out, plan.key_dtype, "k", "v")
        emit_strides(out, plan.compute_dtype, "dk", "dv")
        out.line("heads, seq, head_dim, value_dim = k.shape[1], k.shape[2], k.shape[3], v.shape[3]")
        out.line("features, dims, value_dims = dstate.shape[2], padded(head_dim), dstate.shape[3]")
        _emit_tiles(out, plan, dvalues=f"{tile} * value_dims")
        with out.block("for item in range(first, last)"):
            emit_tile(out, plan)
            out.line("count = min(count, lengths[batch] - token)")
            with out.block("if count <= 0"):
                out.line("continue")
            emit_weights(out, plan, "key", "w", "w_t")
            emit_stage(out, plan.key_dtype, "k", "tokens", "head_dim", "dims")
            out.line(call_features(plan, "key"))
            if "values" in plan.wants:
                out.line(f"matrix = {head_block('dstate', 'features', 'value_dims')}")
                out.line("multiply(phi, features, 1, count, features, matrix, value_dims, dvalues, value_dims)")
                emit_store(out, plan, "dvalues", "value_dims", "value_dim", "dv")
            if "keys" in plan.wants:
                _emit_dk(out, plan)
        emit_keep(out)


def _emit_dk(out: SourceWriter, plan: CpuPlan) -> None:
    emit_stage(out, plan.key_dtype, "v", "values", "value_dim", "value_dims")
    out.line(f"spread_row({head_block('dsums', 'features')}, count, features, dphi)")
    out.line(f"matrix = {head_block('dstate_t', 'value_dims', 'features')}")
    out.line("multiply_onto(values, value_dims, 1, count, value_dim, matrix, features, dphi, features)")
    out.line(call_slopes(plan))
    emit_store(out, plan, "dtokens", "dims", "head_dim", "dk")
