"""R-SpMM: an output row from packed weights and the value vectors of its runs; sums stay in registers over all runs.

Transposed, a row is a key and its runs are of the queries that keep it. Their weights stand in rows of their own, each
at the place that a table tells; the heads that share a key add up in the order of their numbers.
"""

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
    with out.block(f"def combine_{number}({', '.join(_panel_arguments(plan))})"):
        change, listed = ("+=", "queries") if plan.transposed else ("=", "keys")
        out.line(f'"""total {change} sum over the row\'s {listed} of weight * their v, a panel of its vectors."""')
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
                table, apart = ("place", "keys") if plan.transposed else ("weights", "keys * apart_weights")
                out.line(f"{table} = advance({table}, {apart})")
        for vector, (place, _) in enumerate(panel):
            sums = [f"s{way}_{vector}" for way in range(ways)]
            before = [f"load(total, {place})"] if plan.transposed else []
            out.line(f"store(total, {place}, {' + '.join([*before, *sums])})")


def _emit_keys(out: SourceWriter, plan: PackedPlan, panel: list[tuple[str, str]], ways: int) -> None:
    """``ways`` keys from ``key`` on, each into its own sums."""
    for way in range(ways):
        number = f"key + {way}" if way else "key"
        one = f"({number})" if way else number
        slot = f"element(place, {number})" if plan.transposed else one
        weight = from_storage(plan.dtype, f"element(weights, {slot} * apart_weights)")
        out.line(f"a, there = splat({weight}), advance(here, {one} * apart)")
        for vector, (offset, read) in enumerate(panel):
            out.line(f"s{way}_{vector} = fma(a, {read}(there, {offset}, dim_stride), s{way}_{vector})")


def _panel_arguments(plan: PackedPlan) -> list[str]:
    """Of a panel's function."""
    weights = "weights, apart_weights, place" if plan.transposed else "weights, apart_weights"
    return f"{weights}, v, row_stride, dim_stride, run_lo, run_hi, {RUNS}, total".split(", ")


def _emit_entry(out: SourceWriter, plan: PackedPlan, panels: int) -> None:
    emit_header(out, FUNCTION)
    with out.block(f"def {packed_entry(plan).header}"):
        for name, axes in (("values", 3), ("v", 4), ("out", 3)):
            emit_strides(out, plan, name, axes)
        emit_run_pointers(out)
        out.lines(
            f"""
            heads, rows = out.shape[1], out.shape[2]
            group = {"values.shape[1] // heads" if plan.transposed else "heads // v.shape[1]"}
            row_stride, dim_stride = v_at[2], v_at[3]
            scratch = np.zeros({plan.vectors * plan.width}, real)
            total = address(scratch, 0)
            """
        )
        with out.block("for item in range(first, last)"):
            emit_item(out)
            out.lines(
                """
                run_lo, run_hi = run_ptr[row], run_ptr[row + 1]
                result = address(out, batch * out_at[0] + head * out_at[1] + row * out_at[2])
                """
            )
            (_emit_group if plan.transposed else _emit_row)(out, plan, panels)
            with out.block(f"for x in range({plan.dim})"):
                out.line(f"assign(result, x, {to_storage(plan.dtype, 'real(element(total, x) * scale)')})")
        out.line("return scratch.size  # the pointers above are good until here")


def _emit_row(out: SourceWriter, plan: PackedPlan, panels: int) -> None:
    out.lines(
        """
        weights = address(values, batch * values_at[0] + head * values_at[1] + slot_ptr[row] * values_at[2])
        source = address(v, batch * v_at[0] + head // group * v_at[1])
        """
    )
    _emit_calls(out, plan, panels)


def _emit_group(out: SourceWriter, plan: PackedPlan, panels: int) -> None:
    for vector in range(plan.vectors):
        out.line(f"store(total, {vector * plan.width}, splat(real(0.0)))")
    out.line("places = address(place, slot_ptr[row])")
    with out.block("for other in range(head * group, (head + 1) * group)"):
        out.lines(
            """
            weights = address(values, batch * values_at[0] + other * values_at[1])
            source = address(v, batch * v_at[0] + other * v_at[1])
            """
        )
        _emit_calls(out, plan, panels)


def _emit_calls(out: SourceWriter, plan: PackedPlan, panels: int) -> None:
    """Every panel of the row."""
    given = {"apart_weights": "values_at[2]", "place": "places", "v": "source"}
    arguments = ", ".join(given.get(name, name) for name in _panel_arguments(plan))
    for number in range(panels):
        out.line(f"combine_{number}({arguments})")
