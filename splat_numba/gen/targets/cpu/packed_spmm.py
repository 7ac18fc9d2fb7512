"""R-SpMM: an output row from packed weights and the value vectors of its runs; sums stay in registers over all runs."""

from __future__ import annotations

from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_rows import (
    RUNS,
    each_run,
    emit_header,
    emit_item,
    emit_run_pointers,
    emit_strides,
    vector_places,
)
from splat_numba.gen.targets.cpu.packed_schedule import packed_entry
from splat_numba.gen.targets.cpu.prelude import FUNCTION, from_storage, to_storage
from splat_numba.gen.writer import SourceWriter

PANEL = 8  # vectors, the fewest registers that any machine's plan has for contiguous values


def emit_spmm(out: SourceWriter, plan: PackedPlan) -> None:
    """A function for every panel of value dimensions, and the entry function."""
    places = vector_places(plan)
    size = max(plan.registers, PANEL)
    panels = [places[start : start + size] for start in range(0, len(places), size)]
    for number, panel in enumerate(panels):
        _emit_panel(out, plan, number, panel)
    _emit_entry(out, plan, len(panels))


def _emit_panel(out: SourceWriter, plan: PackedPlan, number: int, panel: list[tuple[str, str]]) -> None:
    # Few vectors in a panel are few sums, each waiting for its last FMA: several keys at a time have sums of their own.
    ways = max(1, plan.registers // len(panel))
    vectors = range(len(panel))
    emit_header(out, FUNCTION)
    arguments = f"weights, apart_weights, v, row_stride, dim_stride, run_lo, run_hi, {RUNS}, total"
    with out.block(f"def combine_{number}({arguments})"):
        out.line('"""total = sum over the row\'s keys of weight * v[key], a panel of its vectors."""')
        for way in range(ways):
            out.line(" = ".join([*(f"s{way}_{vector}" for vector in vectors), "splat(real(0.0))"]))
        with each_run(out, plan, "v"):
            if ways > 1:
                with out.block(f"for key in range(0, keys - {ways - 1}, {ways})"):
                    _emit_keys(out, plan, panel, ways)
                with out.block(f"for key in range(keys - keys % {ways}, keys)"):
                    _emit_keys(out, plan, panel, 1)
            else:
                with out.block("for key in range(keys)"):
                    _emit_keys(out, plan, panel, 1)
            if not plan.regular:
                out.line("weights = advance(weights, keys * apart_weights)")
        for vector, (place, _) in enumerate(panel):
            out.line(f"store(total, {place}, {' + '.join(f's{way}_{vector}' for way in range(ways))})")


def _emit_keys(out: SourceWriter, plan: PackedPlan, panel: list[tuple[str, str]], ways: int) -> None:
    """``ways`` keys from ``key`` on, each into its own sums."""
    for way in range(ways):
        place = f"(key + {way})" if way else "key"
        weight = from_storage(plan.dtype, f"element(weights, {place} * apart_weights)")
        out.line(f"a, there = splat({weight}), advance(here, {place} * apart)")
        for vector, (offset, read) in enumerate(panel):
            out.line(f"s{way}_{vector} = fma(a, {read}(there, {offset}, dim_stride), s{way}_{vector})")


def _emit_entry(out: SourceWriter, plan: PackedPlan, panels: int) -> None:
    emit_header(out, FUNCTION)
    with out.block(f"def {packed_entry(plan).header}"):
        for name, axes in (("values", 3), ("v", 4), ("out", 3)):
            emit_strides(out, plan, name, axes)
        emit_run_pointers(out)
        out.lines(
            f"""
            heads, rows = out.shape[1], out.shape[2]
            group = heads // v.shape[1]
            scratch = np.zeros({plan.vectors * plan.width}, real)
            total = address(scratch, 0)
            """
        )
        with out.block("for item in range(first, last)"):
            emit_item(out)
            out.lines(
                """
                run_lo, run_hi = run_ptr[row], run_ptr[row + 1]
                weights = address(values, batch * values_at[0] + head * values_at[1] + slot_ptr[row] * values_at[2])
                v_head = address(v, batch * v_at[0] + head // group * v_at[1])
                result = address(out, batch * out_at[0] + head * out_at[1] + row * out_at[2])
                """
            )
            for number in range(panels):
                arguments = f"weights, values_at[2], v_head, v_at[2], v_at[3], run_lo, run_hi, {RUNS}, total"
                out.line(f"combine_{number}({arguments})")
            with out.block(f"for x in range({plan.dim})"):
                out.line(f"assign(result, x, {to_storage(plan.dtype, 'element(total, x)')})")
        out.line("return scratch.size  # the pointers above are good until here")
