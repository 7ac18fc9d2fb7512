"""R-SDDMM: a row of scores from one query and the keys of its runs, several keys at a time."""

from __future__ import annotations

from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_rows import (
    each_run,
    emit_header,
    emit_item,
    emit_run_pointers,
    emit_strides,
)
from splat_numba.gen.targets.cpu.packed_schedule import packed_entry
from splat_numba.gen.targets.cpu.prelude import FUNCTION, from_storage, to_storage
from splat_numba.gen.writer import SourceWriter


def emit_sddmm(out: SourceWriter, plan: PackedPlan) -> None:
    """multiply_run and the entry function."""
    _emit_multiply_run(out, plan)
    _emit_entry(out, plan)


def _group(plan: PackedPlan) -> int:
    """Keys at a time: whole vectors of scores, as many sums as there are registers; 1 where that is no vector."""
    return plan.registers - plan.registers % plan.width or 1


def _emit_dot(out: SourceWriter, plan: PackedPlan, keys: int) -> None:
    """s0, s1, ... = lanes of query times the keys k0, k1, ..., not yet added up."""
    sums = [f"s{key}" for key in range(keys)]
    out.line(" = ".join([*sums, "splat(real(0.0))"]))
    whole = plan.dim - plan.dim % plan.width
    if whole:
        with out.block(f"for x in range(0, {whole}, WIDTH)"):
            out.line("a = load(query, x)")
            for key in range(keys):
                out.line(f"s{key} = fma(a, read(k{key}, x, dim_stride), s{key})")
    if plan.dim % plan.width:
        out.line(f"a = load(query, {whole})")
        for key in range(keys):
            out.line(f"s{key} = fma(a, read_rest(k{key}, {whole}, dim_stride), s{key})")


def _emit_multiply_run(out: SourceWriter, plan: PackedPlan) -> None:
    group = _group(plan)
    emit_header(out, FUNCTION)
    with out.block("def multiply_run(query, here, apart, dim_stride, keys, scale, scores, values)"):
        out.line(f'"""values[t] = scale * query.key for the keys of one run, {group} at a time."""')
        if group == 1:
            _emit_each_key(out, plan)
            return
        with out.block(f"if keys < {group}"):
            _emit_each_key(out, plan)
            out.line("return")
        out.line("factor = splat(scale)")
        with out.block(f"for first in range(0, keys, {group})"):
            out.line(
                f"key = min(first, keys - {group})  # the last group overlaps its neighbour: same keys, same scores"
            )
            for key in range(group):
                out.line(f"k{key} = advance(here, {f'(key + {key})' if key else 'key'} * apart)")
            _emit_dot(out, plan, group)
            _emit_store(out, plan, group)


def _emit_each_key(out: SourceWriter, plan: PackedPlan) -> None:
    """The keys one by one."""
    with out.block("for key in range(keys)"):
        out.line("k0 = advance(here, key * apart)")
        _emit_dot(out, plan, 1)
        out.line(f"assign(values, key, {to_storage(plan.dtype, 'real(add_lanes(s0) * scale)')})")


def _emit_store(out: SourceWriter, plan: PackedPlan, group: int) -> None:
    """The sums of s0, s1, ... to values[key ...]; 16-bit numbers are rounded on the way."""
    narrow = plan.dtype != plan.compute_dtype
    for first in range(0, group, plan.width):
        vectors = ", ".join(f"s{key}" for key in range(first, first + plan.width))
        place = ("scores, " if narrow else "values, key + ") + str(first)
        out.line(f"store({place}, add_each(({vectors})) * factor)")
    if narrow:
        with out.block(f"for lane in range({group})"):
            out.line(f"assign(values, key + lane, {to_storage(plan.dtype, 'element(scores, lane)')})")


def _emit_entry(out: SourceWriter, plan: PackedPlan) -> None:
    padded = plan.vectors * plan.width
    emit_header(out, FUNCTION)
    with out.block(f"def {packed_entry(plan).header}"):
        for name, axes in (("q", 4), ("k", 4), ("values", 2)):
            emit_strides(out, plan, name, axes)
        emit_run_pointers(out)
        out.lines(
            f"""
            heads, rows = q.shape[1], q.shape[2]
            group = heads // k.shape[1]
            row_stride, dim_stride = k_at[2], k_at[3]
            scratch = np.zeros({padded + _group(plan)}, real)  # a query, zeros up to whole vectors; a group of scores
            query, scores = address(scratch, 0), address(scratch, {padded})
            """
        )
        with out.block("for item in range(first, last)"):
            emit_item(out)
            out.lines(
                """
                run_lo, run_hi = run_ptr[row], run_ptr[row + 1]
                q_row = address(q, batch * q_at[0] + head * q_at[1] + row * q_at[2])
                k_head = address(k, batch * k_at[0] + head // group * k_at[1])
                packed = address(values, batch * values_at[0] + head * values_at[1] + slot_ptr[row])
                """
            )
            with out.block(f"for x in range({plan.dim})"):
                out.line(f"assign(query, x, {from_storage(plan.dtype, 'element(q_row, x * q_at[3])')})")
            with each_run(out, plan, "k_head"):
                out.line("multiply_run(query, here, apart, dim_stride, keys, scale, scores, packed)")
                if not plan.regular:
                    out.line("packed = advance(packed, keys)")
        out.line("return scratch.size  # the pointers above are good until here")
