"""R-SDDMM: a row of scores from one query and the keys of its runs, several keys at a time."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_rows import (
    PIECES,
    each_item,
    each_piece,
    each_row,
    each_run,
    emit_group_pointers,
    emit_run_pointers,
    entry_function,
)
from splat_numba.gen.targets.cpu.prelude import FUNCTION, from_storage, to_storage


def emit_sddmm(out: SourceWriter, plan: PackedPlan) -> None:
    """multiply_run and the entry function."""
    _emit_multiply_run(out, plan)
    if plan.grouped:
        _emit_multiply_pieces(out, plan)
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
    header = "multiply_run(query, here, apart, dim_stride, keys, scale, scores, values)"
    with out.function(FUNCTION, header, f"values[t] = scale * query.key for the keys of one run, {group} at a time."):
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


def _emit_multiply_pieces(out: SourceWriter, plan: PackedPlan) -> None:
    """A group's pieces: every number of a key is loaded once for all rows."""
    rows, group = range(plan.shared_rows), plan.width // plan.shared_rows
    narrow, padded = plan.dtype != plan.compute_dtype, plan.vectors * plan.width
    for row in rows if not narrow else ():
        out.line(f'write_{row} = part_writer("{plan.dtype}", WIDTH, {row * group}, {group})')
    header = f"multiply_pieces(query, k, row_stride, dim_stride, scale, {PIECES}, piece_lo, piece_hi, scores, values)"
    text = f"values of {plan.shared_rows} rows = scale * query.key, for the keys that all keep, {group} at once."
    with out.function(FUNCTION, header, text):
        out.line("factor = splat(scale)")
        with each_piece(out, plan, "k"):
            for row in rows:
                slot = f"element(piece_slot, piece * {plan.shared_rows} + {row})"
                out.line(f"values_{row} = advance(values, {slot})")
            with out.block(f"for first in range(0, keys, {group})"):
                out.line(f"key = min(first, keys - {group})  # the last group overlaps its neighbour")
                for key in range(group):
                    out.line(f"k{key} = advance(here, {f'(key + {key})' if key else 'key'} * apart)")
                _emit_shared_dots(out, plan, padded)
                vectors = ", ".join(f"s{row}_{key}" for row in rows for key in range(group))
                out.line(f"found = add_each(({vectors})) * factor")
                _emit_store_parts(out, plan, group)


def _emit_shared_dots(out: SourceWriter, plan: PackedPlan, padded: int) -> None:
    """s0_0, s0_1, ... = lanes of every row's query times every key, not yet added up."""
    rows, keys = range(plan.shared_rows), range(plan.width // plan.shared_rows)
    out.line(" = ".join([*(f"s{row}_{key}" for row in rows for key in keys), "splat(real(0.0))"]))

    def emit_step(place: str, read: str) -> None:
        for row in rows:
            out.line(f"a{row} = load(query, {place}{f' + {row * padded}' if row else ''})")
        for key in keys:
            out.line(f"b = {read}(k{key}, {place}, dim_stride)")
            for row in rows:
                out.line(f"s{row}_{key} = fma(a{row}, b, s{row}_{key})")

    whole = plan.dim - plan.dim % plan.width
    if whole:
        with out.block(f"for x in range(0, {whole}, WIDTH)"):
            emit_step("x", "read")
    if plan.dim % plan.width:
        emit_step(str(whole), "read_rest")


def _emit_store_parts(out: SourceWriter, plan: PackedPlan, group: int) -> None:
    """``found`` to every row's values[key ...]; 16-bit numbers are rounded on the way."""
    narrow = plan.dtype != plan.compute_dtype
    if narrow:
        out.line("store(scores, 0, found)")
    for row in range(plan.shared_rows):
        if not narrow:
            out.line(f"write_{row}(values_{row}, key, found)")
            continue
        with out.block(f"for lane in range({group})"):
            score = to_storage(plan.dtype, f"element(scores, lane + {row * group})")
            out.line(f"assign(values_{row}, key + lane, {score})")


def _emit_entry(out: SourceWriter, plan: PackedPlan) -> None:
    padded = plan.vectors * plan.width
    with entry_function(out, plan, {"q": 4, "k": 4, "values": 2}):
        emit_run_pointers(out)
        if plan.grouped:
            emit_group_pointers(out)
        many, queries = ("groups", plan.shared_rows) if plan.grouped else ("rows", 1)
        size = f"group_rows.size // {plan.shared_rows}" if plan.grouped else "q.shape[2]"
        out.lines(
            f"""
            heads, {many} = q.shape[1], {size}
            group = heads // k.shape[1]
            row_stride, dim_stride = k_at[2], k_at[3]
            scratch = np.zeros({queries * padded + _group(plan)}, real)  # queries, zeros up to whole vectors; scores
            query, scores = address(scratch, 0), address(scratch, {queries * padded})
            """
        )
        with each_item(out, plan):
            out.line("k_head = address(k, batch * k_at[0] + head // group * k_at[1])")
            (_emit_group if plan.grouped else _emit_row)(out, plan, padded)


def _emit_query(out: SourceWriter, plan: PackedPlan, place: str) -> None:
    """Its numbers at query[place ...]."""
    out.line("q_row = address(q, batch * q_at[0] + head * q_at[1] + row * q_at[2])")
    with out.block(f"for x in range({plan.dim})"):
        out.line(f"assign(query, {place}x, {from_storage(plan.dtype, 'element(q_row, x * q_at[3])')})")


def _emit_row(out: SourceWriter, plan: PackedPlan, _padded: int) -> None:
    out.line("run_lo, run_hi = run_ptr[row], run_ptr[row + 1]")
    out.line("packed = address(values, batch * values_at[0] + head * values_at[1] + slot_ptr[row])")
    _emit_query(out, plan, "")
    with each_run(out, plan, "k_head"):
        out.line("multiply_run(query, here, apart, dim_stride, keys, scale, scores, packed)")
        if not plan.regular:
            out.line("packed = advance(packed, keys)")


def _emit_group(out: SourceWriter, plan: PackedPlan, padded: int) -> None:
    """What each row keeps alone, then what the group shares."""
    out.line("packed = address(values, batch * values_at[0] + head * values_at[1])")
    with each_row(out, plan):
        _emit_query(out, plan, f"member * {padded} + ")
        out.line("run_lo, run_hi = run_ptr[row], run_ptr[row + 1]")
        with each_run(out, plan, "k_head"):
            one = f"advance(query, member * {padded})"
            target = "advance(packed, element(run_slot, run))"
            out.line(f"multiply_run({one}, here, apart, dim_stride, keys, scale, scores, {target})")
    out.line("piece_lo, piece_hi = piece_ptr[number], piece_ptr[number + 1]")
    out.line(
        f"multiply_pieces(query, k_head, row_stride, dim_stride, scale, {PIECES}, piece_lo, piece_hi, scores, packed)"
    )
