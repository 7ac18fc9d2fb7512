"""The attention kernel's text: prelude, tile functions, and one entry function a pass."""

from __future__ import annotations

from dataclasses import replace

from splat_numba.gen.language.cpu_entry import CpuEntry, CpuText
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.plan import Pass, Plan
from splat_numba.gen.rows.passes import ClosedPass, TablePass
from splat_numba.gen.targets.cpu import blocks, products, rows, softmax
from splat_numba.gen.targets.cpu.header import emit_head
from splat_numba.gen.targets.cpu.prelude import FUNCTION, emit_strides
from splat_numba.gen.targets.cpu.row_blocks import (
    emit_interval_places,
    emit_pieces,
    emit_rows,
    emit_scratch,
    emit_segment,
    emit_table_places,
)
from splat_numba.gen.targets.cpu.schedule import pass_entries
from splat_numba.gen.targets.cpu.shape import TileShape, tile_shape

RESULT = "out_head, out_at[2], out_at[3], lse_head, lse_at[2]"


def attention_text(plan: Plan) -> CpuText:
    """The text with its entry functions, one a pass, named after mask, shape and type."""
    name = f"attention_{plan.label}_d{plan.problem.head_dim}_{plan.problem.dtype}"
    return CpuText(name, render_attention(plan), pass_entries(plan))


def render_attention(plan: Plan) -> str:
    """Python source of the attention kernel of ``plan``: functions ``pass_0``, ``pass_1``, ... one a pass.

    Pure and deterministic. A pass takes a range of work items, (batch, head, residue class, row block) flattened with
    the block fastest; ranges are independent, so that threads may take them in any order.
    """
    out = SourceWriter()
    emit_head(out, plan, "Sparse attention")
    _emit_tile_functions(out, plan)
    for entry, one in zip(pass_entries(plan), plan.passes, strict=True):
        if isinstance(one, ClosedPass):
            _emit_closed_pass(out, entry, plan, one)
        elif isinstance(one, TablePass):
            _emit_table_pass(out, entry, plan, one)
    return out.text()


def _emit_tile_functions(out: SourceWriter, plan: Plan) -> None:
    """Each function once, for every tile shape and need among the passes."""
    done: set[tuple[str, TileShape]] = set()

    def once(kind: str, shape: TileShape) -> bool:
        fresh = (kind, shape) not in done
        done.add((kind, shape))
        return fresh

    for one in plan.passes:
        shape = tile_shape(plan, one)
        any_kv = replace(shape, tile_kv=0)
        for dtype in dict.fromkeys((plan.problem.dtype, *([plan.out_dtype] if one.resumes else []))):
            if once(f"read {dtype}", any_kv):
                rows.emit_rows_to_lanes(out, shape, dtype)
        if once("write", any_kv):
            rows.emit_lanes_to_rows(out, shape, plan.out_dtype)
        if once("tile", shape):
            rows.emit_store(out, shape, plan.out_dtype)
            rows.emit_stage(out, shape)
            products.emit_score_tile(out, shape)
            products.emit_value_tile(out, shape)
            softmax.emit_softmax(out, shape, "full")
        if once(f"resumes {one.resumes}", shape):
            if one.resumes:
                rows.emit_resume(out, shape, plan.out_dtype)
            else:
                rows.emit_reset(out, shape)
        if isinstance(one, TablePass) and once("pieces", shape):
            rows.emit_gather(out, shape)
            softmax.emit_softmax(out, shape, "bits")
            blocks.emit_piece_walk(out, shape, blocks.ATTEND)
        if isinstance(one, ClosedPass) and once("interval", shape):
            softmax.emit_softmax(out, shape, "inside")
            blocks.emit_interval_walk(out, shape, blocks.ATTEND)


def _emit_strides(out: SourceWriter, plan: Plan) -> None:
    """Strides in elements, and the lengths."""
    problem = plan.problem
    for name in ("q", "k", "v"):
        emit_strides(out, name, problem.dtype)
    emit_strides(out, "out", plan.out_dtype)
    emit_strides(out, "lse", problem.compute_dtype, 3)
    out.line("seq_q, seq_kv = q.shape[2], k.shape[2]")


def _emit_scratch(out: SourceWriter, shape: TileShape) -> None:
    """The block's state: a few tiles, small enough for the second-level cache."""
    tile_q, tile_kv = shape.tile_q, shape.tile_kv
    sizes = {
        "queries": shape.head_dim * tile_q,
        "scores": tile_kv * tile_q,
        "maxima": tile_q,
        "sums": tile_q,
        "alpha": tile_q,
        "total": shape.value_dim * tile_q,
        "staged": tile_kv * max(shape.head_dim, shape.value_dim),
    }
    emit_scratch(out, sizes)


def _emit_head(out: SourceWriter) -> None:
    """What a work item stands for, and pointers to its head."""
    out.lines(
        """
        block, group = item % blocks, item // blocks
        residue, slot = group % classes, group // classes
        batch, head = slot // heads.size, heads[slot % heads.size]
        kv_head = head // (q.shape[1] // k.shape[1])
        limit = min(kv_lengths[batch], seq_kv)
        q_head = address(q, batch * q_at[0] + head * q_at[1])
        k_head = address(k, batch * k_at[0] + kv_head * k_at[1])
        v_head = address(v, batch * v_at[0] + kv_head * v_at[1])
        out_head = address(out, batch * out_at[0] + head * out_at[1])
        lse_head = address(lse, batch * lse_at[0] + head * lse_at[1])
        """
    )


def _emit_begin(out: SourceWriter, plan: Plan, one: Pass, shape: TileShape) -> None:
    """Queries in; the softmax state fresh, or as an earlier pass left it."""
    transfer = f"rows_to_lanes_{plan.problem.dtype}_{shape.tile_q}"
    out.line(f"{transfer}(q_head, q_at[2], q_at[3], rows, {shape.head_dim}, scale, queries)")
    if one.resumes:
        out.line(f"resume_{shape.suffix}({RESULT}, rows, maxima, sums, total)")
    else:
        out.line(f"reset_{shape.suffix}(maxima, sums, total)")


def _emit_end(out: SourceWriter, shape: TileShape) -> None:
    """Results out."""
    out.line(f"store_rows_{shape.suffix}({RESULT}, rows, maxima, sums, alpha, total)")


def _emit_closed_pass(out: SourceWriter, entry: CpuEntry, plan: Plan, one: ClosedPass) -> None:
    shape = tile_shape(plan, one)
    with out.function(FUNCTION, entry.header, "Row blocks whose keys follow from the row's number."):
        _emit_strides(out, plan)
        out.line("delta = seq_kv - seq_q")
        _emit_scratch(out, shape)
        emit_interval_places(out, one, shape)
        with out.block("for item in range(first, last)"):
            _emit_head(out)
            emit_rows(out, one, shape)
            _emit_begin(out, plan, one, shape)
            for segment in one.segments:
                emit_segment(out, segment, shape, blocks.ATTEND)
            _emit_end(out, shape)
        out.line("return scratch.size + places.size + edges.size  # the pointers above are good until here")


def _emit_table_pass(out: SourceWriter, entry: CpuEntry, plan: Plan, one: TablePass) -> None:
    shape = tile_shape(plan, one)
    with out.function(FUNCTION, entry.header, "Row blocks whose keys are listed in tables."):
        _emit_strides(out, plan)
        _emit_scratch(out, shape)
        emit_table_places(out)
        with out.block("for item in range(first, last)"):
            _emit_head(out)
            out.line(f"rows = address(lane_rows, block * {shape.tile_q})")
            _emit_begin(out, plan, one, shape)
            emit_pieces(out, shape, blocks.ATTEND)
            _emit_end(out, shape)
        out.line("return scratch.size  # the pointers above are good until here")
