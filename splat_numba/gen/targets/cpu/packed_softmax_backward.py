"""The gradient of R-softmax: two walks over a row of packed weights and of their gradients, and nothing kept between.

A weight of 0 adds nothing to its row's sum and has a gradient of 0, whatever its own gradient holds: 0 x NaN is NaN.
"""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_rows import each_item, entry_function
from splat_numba.gen.targets.cpu.prelude import FUNCTION, from_storage, to_storage


def emit_softmax_backward(out: SourceWriter, plan: PackedPlan) -> None:
    """turn_row and the entry function."""
    out.line(f'read_weight = reader("{plan.dtype}", WIDTH, WIDTH, True)')
    _emit_turn_row(out, plan)
    _emit_entry(out, plan)


def _emit_turn_row(out: SourceWriter, plan: PackedPlan) -> None:
    weight = from_storage(plan.dtype, "element(weights, t)")
    gradient = from_storage(plan.dtype, "element(dweights, t * stride)")
    text = "dvalues = w * (dw - sum of w * dw) for ``count`` packed values; ``rest`` is scratch for two vectors."
    with out.function(FUNCTION, "turn_row(weights, dweights, stride, count, rest, dvalues)", text):
        out.lines(
            f"""
            whole = count - count % WIDTH
            sums = splat(real(0.0))
            for t in range(0, whole, WIDTH):
                sums = sums + times_or_zero((read(dweights, t, stride),), read_weight(weights, t, 1))[0]
            if whole < count:
                store(rest, 0, splat(real(0.0)))
                store(rest, WIDTH, splat(real(0.0)))
                for t in range(whole, count):
                    assign(rest, t - whole, {weight})
                    assign(rest, WIDTH + t - whole, {gradient})
                sums = sums + times_or_zero((load(rest, WIDTH),), load(rest, 0))[0]
            total = splat(add_lanes(sums))
            """
        )
        with out.block("if whole < count"):
            out.line("store(rest, 0, times_or_zero((load(rest, WIDTH) - total,), load(rest, 0))[0])")
            with out.block("for t in range(whole, count)"):
                out.line(f"assign(dvalues, t, {to_storage(plan.dtype, 'element(rest, t - whole)')})")
        with out.block("for t in range(0, whole, WIDTH)"):
            out.line("x = times_or_zero((read(dweights, t, stride) - total,), read_weight(weights, t, 1))[0]")
            if plan.dtype == plan.compute_dtype:
                out.line("store(dvalues, t, x)")
            else:
                out.line("store(rest, 0, x)")
                with out.block("for lane in range(WIDTH)"):
                    out.line(f"assign(dvalues, t + lane, {to_storage(plan.dtype, 'element(rest, lane)')})")


def _emit_entry(out: SourceWriter, plan: PackedPlan) -> None:
    with entry_function(out, plan, {"weights": 3, "dweights": 3, "dvalues": 3}):
        out.lines(
            """
            heads, rows = weights.shape[1], slot_ptr.size - 1
            scratch = np.zeros(2 * WIDTH, real)
            rest = address(scratch, 0)
            """
        )
        with each_item(out, plan):
            out.lines(
                """
                slot, count = slot_ptr[row], slot_ptr[row + 1] - slot_ptr[row]
                held = address(weights, batch * weights_at[0] + head * weights_at[1] + slot)
                given = address(dweights, batch * dweights_at[0] + head * dweights_at[1] + slot * dweights_at[2])
                result = address(dvalues, batch * dvalues_at[0] + head * dvalues_at[1] + slot)
                turn_row(held, given, dweights_at[2], count, rest, result)
                """
            )
