"""Text of the gradients through a head's state: of queries, and of what was absorbed (tokens, or slots).

With r the divisor of a row, G = dout / r and delta = -(phi(q) . G state^T) / r, which is -(dout . out) / r without ``out``:
    dphi(q) = G state^T + delta sums     dstate = phi(q)^T G             dsums = phi(q)^T delta
    dphi(k) = v dstate^T + dsums         dv = phi(k) dstate
"""

from __future__ import annotations

from flurka_numba.targets.cpu.attend import emit_split, emit_weights
from flurka_numba.targets.cpu.compress import emit_stage
from flurka_numba.targets.cpu.features import call_features
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, block, emit_keep, emit_scratch, emit_strides, place
from flurka_numba.targets.cpu.slopes import CALL_SLOPES
from splat_numba.gen.writer import SourceWriter


def emit_fall(out: SourceWriter) -> None:
    """fall: the gradient through the denominator."""
    with (
        out.function(
            FUNCTION,
            "fall(phi, dphi, sums, slope, rows, features, dsums)",
            "dphi[row] += delta sums and dsums += delta phi[row], delta = -slope[row] * (phi[row] . dphi[row]).",
        ),
        out.block("for row in range(rows)"),
    ):
        out.line("here, there = advance(phi, row * features), advance(dphi, row * features)")
        out.line("total = splat(real(0.0))")
        with out.block("for at in range(0, features, WIDTH)"):
            out.line("total = fma(load(here, at), load(there, at), total)")
        out.line("delta = splat(-add_lanes(total) * element(slope, row))")
        with out.block("for at in range(0, features, WIDTH)"):
            out.line("store(there, at, fma(delta, load(sums, at), load(there, at)))")
            out.line("store(dsums, at, fma(delta, load(here, at), load(dsums, at)))")


def emit_query_gradient(out: SourceWriter, plan: CpuPlan) -> None:
    """query_gradient: dq, and what the queries of a split add to the gradients of state, sums and softmax weights."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        "query_gradient(first, last, q, dout, w, w_t, kept, state_t, sums, dq, dstate, dsums, dw_t)",
        "dq; dstate, dsums and dw_t of [batch, head, split], over the queries of one split.",
    ):
        emit_strides(out, plan.dtype, "q", "dout")
        emit_strides(out, plan.compute_dtype, "dq")
        out.line("heads, seq, head_dim, value_dim = q.shape[1], q.shape[2], q.shape[3], dout.shape[3]")
        out.line("splits, features, dims, value_dims = dsums.shape[2], dsums.shape[4], padded(head_dim), padded(value_dim)")
        emit_scratch(
            out,
            tokens=f"{tile} * dims",
            values=f"{tile} * value_dims",
            phi=f"{tile} * features",
            dphi=f"{tile} * features",
            dtokens=f"{tile} * dims",
            inverse=f"{tile}",
            slope=f"{tile}",
        )
        with out.block("for item in range(first, last)"):
            emit_split(out, plan, "seq")
            emit_weights(out, plan, transposed=True)
            _emit_totals(out, plan)
            with out.block(f"for token in range(start, stop, {tile})"):
                _emit_query_tile(out, plan)
        emit_keep(out)


def _emit_totals(out: SourceWriter, plan: CpuPlan) -> None:
    """The sums of a split, from 0."""
    totals = {"weight": block("dsums", ["item"], "features")}
    sizes = {"weight": "features"}
    if plan.absorbs:
        totals["total"], sizes["total"] = block("dstate", ["item"], "features", "value_dims"), "features * value_dims"
    if plan.weighs:
        totals["steep"], sizes["steep"] = block("dw_t", ["item"], "features", "dims"), "features * dims"
    for name, text in totals.items():
        out.line(f"{name} = {text}")
        out.line(f"clear({name}, {sizes[name]})")


def _emit_query_tile(out: SourceWriter, plan: CpuPlan) -> None:
    out.line(f"count = min({plan.tile_rows}, stop - token)")
    emit_stage(out, plan.dtype, "q", "tokens", "head_dim", "dims")
    emit_stage(out, plan.dtype, "dout", "values", "value_dim", "value_dims")
    out.line(call_features(plan, "query"))
    head = ["batch", "head"]
    out.line(f"sums_head, state_head = {block('sums', head, 'features')}, {block('state_t', head, 'value_dims', 'features')}")
    out.line("divide(phi, sums_head, count, features, inverse, slope)")
    out.line("scale_rows(values, value_dims, count, inverse)")
    out.line("multiply(values, value_dims, 1, count, value_dim, state_head, features, dphi, features)")
    out.line("fall(phi, dphi, sums_head, slope, count, features, weight)")
    if plan.absorbs:
        out.line("multiply_onto(phi, 1, features, features, count, values, value_dims, total, value_dims)")
    if "q" in plan.wants or plan.weighs:
        out.line(CALL_SLOPES)
    if plan.weighs:
        out.line("multiply_onto(dphi, 1, features, features, count, tokens, dims, steep, dims)")
    if "q" in plan.wants:
        _emit_store(out, plan, "dtokens", "dims", "head_dim", "dq")


def _emit_store(out: SourceWriter, plan: CpuPlan, tile: str, apart: str, dim: str, target: str) -> None:
    rows = f"{place(target, 'batch', 'head', 'token')}, {target}_at[2], {target}_at[3]"
    out.line(f"store_rows_{plan.result_dtype}({tile}, {apart}, count, {dim}, {rows})")


def emit_key_gradient(out: SourceWriter, plan: CpuPlan) -> None:
    """key_gradient: dk and dv, row by row."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        "key_gradient(first, last, k, v, w, w_t, stabs, lengths, kept, dstate, dstate_t, dsums, dk, dv)",
        "dk and dv of tiles of rows; those beyond a length are left as they are.",
    ):
        emit_strides(out, plan.key_dtype, "k", "v")
        emit_strides(out, plan.compute_dtype, "dk", "dv")
        out.line("heads, seq, head_dim, value_dim = k.shape[1], k.shape[2], k.shape[3], v.shape[3]")
        out.line("features, value_dims, dims = dstate.shape[2], dstate.shape[3], padded(head_dim)")
        out.line(f"tiles = -(-seq // {tile})")
        emit_scratch(
            out,
            tokens=f"{tile} * dims",
            values=f"{tile} * value_dims",
            phi=f"{tile} * features",
            dphi=f"{tile} * features",
            dtokens=f"{tile} * max(dims, value_dims)",
        )
        with out.block("for item in range(first, last)"):
            out.line(f"token, batch, head = item % tiles * {tile}, item // tiles // heads, item // tiles % heads")
            out.line(f"count = min({tile}, min(seq, lengths[batch]) - token)")
            with out.block("if count <= 0"):
                out.line("continue")
            emit_weights(out, plan, transposed=True, stab=True)
            emit_stage(out, plan.key_dtype, "k", "tokens", "head_dim", "dims")
            out.line(call_features(plan, "key"))
            if "values" in plan.wants:
                matrix = block("dstate", ["batch", "head"], "features", "value_dims")
                out.line(f"multiply(phi, features, 1, count, features, {matrix}, value_dims, dtokens, value_dims)")
                _emit_store(out, plan, "dtokens", "value_dims", "value_dim", "dv")
            if "keys" in plan.wants:
                _emit_keys(out, plan)
        emit_keep(out)


def _emit_keys(out: SourceWriter, plan: CpuPlan) -> None:
    emit_stage(out, plan.key_dtype, "v", "values", "value_dim", "value_dims")
    matrix = block("dstate_t", ["batch", "head"], "value_dims", "features")
    sums = block("dsums", ["batch", "head"], "features")
    out.line(f"spread_row({sums}, count, features, dphi)")
    out.line(f"multiply_onto(values, value_dims, 1, count, value_dim, {matrix}, features, dphi, features)")
    out.line(CALL_SLOPES)
    _emit_store(out, plan, "dtokens", "dims", "head_dim", "dk")


def emit_spread_row(out: SourceWriter) -> None:
    """spread_row: one row, in every row of a tile."""
    with (
        out.function(FUNCTION, "spread_row(row, rows, size, tile)", "tile[each] = row."),
        out.block("for each in range(rows)"),
        out.block("for at in range(0, size, WIDTH)"),
    ):
        out.line("store(tile, each * size + at, load(row, at))")
