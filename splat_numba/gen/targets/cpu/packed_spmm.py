"""R-SpMM: an output row from packed weights and the value vectors of its runs; sums stay in registers over all runs.

Transposed, a row is a key and its runs are of the queries that keep it. Their weights stand in rows of their own, each
at the place that a table tells; the heads that share a key add up in the order of their numbers.

A group of rows first takes what each row keeps alone, then the columns that all keep, whose values are loaded once.
"""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_rows import (
    PIECES,
    RUNS,
    each_item,
    each_piece,
    each_row,
    each_run,
    emit_group_pointers,
    emit_run_pointers,
    entry_function,
    vector_places,
)
from splat_numba.gen.targets.cpu.prelude import FUNCTION, from_storage, to_storage

PANEL = 8  # vectors, the fewest registers that any machine's plan has for contiguous values


def emit_spmm(out: SourceWriter, plan: PackedPlan) -> None:
    """A function for every panel of value dimensions, and the entry function."""
    places = vector_places(plan)
    size = max(plan.registers, PANEL)
    panels = [places[start : start + size] for start in range(0, len(places), size)]
    for number, panel in enumerate(panels):
        _emit_panel(out, plan, number, panel)
    few = max(plan.registers // plan.shared_rows, 1)
    shared = [places[start : start + few] for start in range(0, len(places), few)] if plan.grouped else []
    for number, panel in enumerate(shared):
        _emit_shared_panel(out, plan, number, panel)
    _emit_entry(out, plan, len(panels), len(shared))


def _emit_panel(out: SourceWriter, plan: PackedPlan, number: int, panel: list[tuple[str, str]]) -> None:
    # Few vectors in a panel are few sums, each waiting for its last FMA: several keys at a time have sums of their own.
    ways = max(1, plan.registers // len(panel))
    vectors = range(len(panel))
    change, listed = ("+=", "queries") if plan.transposed else ("=", "keys")
    header = f"combine_{number}({', '.join(_panel_arguments(plan))})"
    text = f"total {change} sum over the row's {listed} of weight * their v, a panel of its vectors."
    with out.function(FUNCTION, header, text):
        for way in range(ways):
            out.line(" = ".join([*(f"s{way}_{vector}" for vector in vectors), "splat(real(0.0))"]))
        with each_run(out, plan, "v"):
            if plan.grouped:
                _emit_weights_at(out, plan, "element(run_slot, run)")
            if ways > 1:
                with out.block(f"for key in range(0, keys - {ways - 1}, {ways})"):
                    _emit_keys(out, plan, panel, ways)
                with out.block(f"for key in range(keys - keys % {ways}, keys)"):
                    _emit_keys(out, plan, panel, 1)
            else:
                with out.block("for key in range(keys)"):
                    _emit_keys(out, plan, panel, 1)
            if not plan.regular and not plan.grouped:
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
        weight = from_storage(plan.dtype, _weight(plan, number, "_here" if plan.grouped else ""))
        out.line(f"a, there = splat({weight}), advance(here, {one} * apart)")
        for vector, (offset, read) in enumerate(panel):
            out.line(f"s{way}_{vector} = fma(a, {read}(there, {offset}, dim_stride), s{way}_{vector})")


def _panel_arguments(plan: PackedPlan) -> list[str]:
    """Of a panel's function."""
    runs = f"run_lo, run_hi, {RUNS}{', run_slot' if plan.grouped else ''}"
    return f"{_weights(plan)}, v, row_stride, dim_stride, {runs}, total".split(", ")


def _weights(plan: PackedPlan) -> str:
    return "weights, apart_weights, place" if plan.transposed else "weights, apart_weights"


def _weight(plan: PackedPlan, number: str, ending: str) -> str:
    """The weight of a run's key ``number``, whose table of places or weights has this ending to its name."""
    if plan.transposed:
        return f"element(weights, element(place{ending}, {number}) * apart_weights)"
    one = f"({number})" if " " in number else number
    return f"element(weights{ending}, {one} * apart_weights)"


def _emit_weights_at(out: SourceWriter, plan: PackedPlan, slot: str, ending: str = "_here") -> None:
    """Where the weights of a run are that begins at this slot."""
    if plan.transposed:
        out.line(f"place{ending} = advance(place, {slot})")
    else:
        out.line(f"weights{ending} = advance(weights, {slot} * apart_weights)")


def _emit_shared_panel(out: SourceWriter, plan: PackedPlan, number: int, panel: list[tuple[str, str]]) -> None:
    """A group's pieces, into the sums of all its rows: every vector of v is loaded once for them."""
    rows, padded = range(plan.shared_rows), plan.vectors * plan.width
    arguments = f"{_weights(plan)}, v, row_stride, dim_stride, piece_lo, piece_hi, {PIECES}, total"
    listed = "queries" if plan.transposed else "keys"
    text = f"total += sum over the {listed} that all {plan.shared_rows} rows keep, a panel of its vectors."
    with out.function(FUNCTION, f"share_{number}({arguments})", text):
        places = [(row, vector, f"{row * padded} + {place}") for row in rows for vector, (place, _) in enumerate(panel)]
        for row, vector, place in places:
            out.line(f"s{row}_{vector} = load(total, {place})")
        with each_piece(out, plan, "v"):
            for row in rows:
                slot = f"element(piece_slot, piece * {plan.shared_rows} + {row})"
                _emit_weights_at(out, plan, slot, f"_{row}")
            with out.block("for key in range(keys)"):
                out.line("there = advance(here, key * apart)")
                for vector, (offset, read) in enumerate(panel):
                    out.line(f"b{vector} = {read}(there, {offset}, dim_stride)")
                for row in rows:
                    out.line(f"a = splat({from_storage(plan.dtype, _weight(plan, 'key', f'_{row}'))})")
                    for vector in range(len(panel)):
                        out.line(f"s{row}_{vector} = fma(a, b{vector}, s{row}_{vector})")
        for row, vector, place in places:
            out.line(f"store(total, {place}, s{row}_{vector})")


def _emit_entry(out: SourceWriter, plan: PackedPlan, panels: int, shared: int) -> None:
    with entry_function(out, plan, {"values": 3, "v": 4, "out": 3}):
        emit_run_pointers(out)
        if plan.grouped:
            emit_group_pointers(out)
        many = f"groups = out.shape[1], group_rows.size // {plan.shared_rows}"
        out.lines(
            f"""
            heads, {many if plan.grouped else "rows = out.shape[1], out.shape[2]"}
            group = {"values.shape[1] // heads" if plan.transposed else "heads // v.shape[1]"}
            row_stride, dim_stride = v_at[2], v_at[3]
            scratch = np.zeros({plan.shared_rows * plan.vectors * plan.width}, real)
            {"totals" if plan.grouped else "total"} = address(scratch, 0)
            """
        )
        with each_item(out, plan):
            if plan.transposed:
                _emit_heads(out, plan, panels, shared)
            else:
                _emit_operands(out, plan, "head", "head // group")
                _emit_sums(out, plan, panels, shared)
            if plan.grouped:
                with each_row(out, plan):
                    _emit_result(out, plan)
            else:
                _emit_result(out, plan)


def _emit_operands(out: SourceWriter, plan: PackedPlan, values_head: str, v_head: str) -> None:
    """Pointers to a head's values, row by row those of the row, and to its v."""
    place = "" if plan.transposed or plan.grouped else " + slot_ptr[row] * values_at[2]"
    out.line(f"weights = address(values, batch * values_at[0] + {values_head} * values_at[1]{place})")
    out.line(f"source = address(v, batch * v_at[0] + {v_head} * v_at[1])")


def _emit_heads(out: SourceWriter, plan: PackedPlan, panels: int, shared: int) -> None:
    """A key's heads, one after the other, into its sums."""
    for vector in range(plan.shared_rows * plan.vectors):
        out.line(f"store({'totals' if plan.grouped else 'total'}, {vector * plan.width}, splat(real(0.0)))")
    out.line(f"places = address(place, {'0' if plan.grouped else 'slot_ptr[row]'})")
    with out.block("for other in range(head * group, (head + 1) * group)"):
        _emit_operands(out, plan, "other", "other")
        _emit_sums(out, plan, panels, shared)


def _emit_sums(out: SourceWriter, plan: PackedPlan, panels: int, shared: int) -> None:
    """What the row or group adds up: every panel."""
    if not plan.grouped:
        _emit_calls(out, plan, panels)
        return
    with each_row(out, plan):
        out.line(f"total = advance(totals, member * {plan.vectors * plan.width})")
        _emit_calls(out, plan, panels)
    out.line("piece_lo, piece_hi = piece_ptr[number], piece_ptr[number + 1]")
    weights = "weights, values_at[2], places" if plan.transposed else "weights, values_at[2]"
    for number in range(shared):
        out.line(f"share_{number}({weights}, source, row_stride, dim_stride, piece_lo, piece_hi, {PIECES}, totals)")


def _emit_result(out: SourceWriter, plan: PackedPlan) -> None:
    """The row's sums to the result."""
    out.line("result = address(out, batch * out_at[0] + head * out_at[1] + row * out_at[2])")
    if plan.grouped:
        out.line(f"total = advance(totals, member * {plan.vectors * plan.width})")
    with out.block(f"for x in range({plan.dim})"):
        out.line(f"assign(result, x, {to_storage(plan.dtype, 'real(element(total, x) * scale)')})")


def _emit_calls(out: SourceWriter, plan: PackedPlan, panels: int) -> None:
    """Every panel of the row."""
    out.line("run_lo, run_hi = run_ptr[row], run_ptr[row + 1]")
    given = {"apart_weights": "values_at[2]", "place": "places", "v": "source"}
    arguments = ", ".join(given.get(name, name) for name in _panel_arguments(plan))
    for number in range(panels):
        out.line(f"combine_{number}({arguments})")
