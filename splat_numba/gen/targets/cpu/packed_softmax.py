"""R-softmax: a row of packed values lies in one piece, so only the rows' limits are read of the mask."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_rows import each_item, entry_function
from splat_numba.gen.targets.cpu.prelude import FUNCTION, LOG2_E, from_storage, to_storage


def emit_softmax(out: SourceWriter, plan: PackedPlan) -> None:
    """soften_row and the entry function."""
    _emit_soften_row(out, plan)
    _emit_entry(out, plan)


def _emit_soften_row(out: SourceWriter, plan: PackedPlan) -> None:
    text = "weights = softmax of ``count`` values; ``row`` is scratch for that many, in whole vectors."
    with out.function(FUNCTION, "soften_row(values, stride, count, row, weights)", text):
        value = from_storage(plan.dtype, "element(values, t * stride)")
        weight = to_storage(plan.dtype, "real(element(row, t) * inverse)")
        out.lines(
            f"""
            whole = count - count % WIDTH
            top = splat(LOWEST)
            for t in range(0, whole, WIDTH):
                x = read(values, t, stride)
                store(row, t, x)
                top = maximum(x, top)
            if whole < count:
                store(row, whole, splat(real(-np.inf)))  # weighs nothing
                for t in range(whole, count):
                    assign(row, t, {value})
                top = maximum(load(row, whole), top)
            peak = largest_lane(top)
            top = splat(peak)
            sums = splat(real(0.0))
            for t in range(0, count, WIDTH):
                p = exp2((load(row, t) - top) * splat(real({LOG2_E!r})))
                store(row, t, p)
                sums = sums + p
            total = add_lanes(sums)
            inverse = real(0.0) if total == real(0.0) else real(real(1.0) / total)  # nothing but -inf weighs nothing
            for t in range(count):
                assign(weights, t, {weight})
            """
        )
        if plan.operator == "softmax_lse":
            out.line("return real(-np.inf) if total == real(0.0) else real(peak + math.log(total))")


def _emit_entry(out: SourceWriter, plan: PackedPlan) -> None:
    with entry_function(out, plan, {"values": 3, "weights": 3}):
        out.lines(
            """
            heads, rows = values.shape[1], slot_ptr.size - 1
            scratch = np.empty(longest + WIDTH, real)
            scores = address(scratch, 0)
            """
        )
        with each_item(out, plan):
            out.lines(
                """
                slot, count = slot_ptr[row], slot_ptr[row + 1] - slot_ptr[row]
                packed = address(values, batch * values_at[0] + head * values_at[1] + slot * values_at[2])
                result = address(weights, batch * weights_at[0] + head * weights_at[1] + slot)
                """
            )
            call = "soften_row(packed, values_at[2], count, scores, result)"
            out.line(f"lse[batch, head, row] = {call}" if plan.operator == "softmax_lse" else call)
