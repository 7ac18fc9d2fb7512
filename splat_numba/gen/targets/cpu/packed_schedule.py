"""The launch of a packed operator on a CPU: how its function is called, and its items in ranges of equal work."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.cpu_entry import CpuEntry, Parameter, arrays, numbers
from splat_numba.gen.packed.groups import GroupTable
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.gen.schedules.array_schedule import ArraySchedule, ArrayScheduleBuilder
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan

# Below this many multiply-adds a range is not worth handing to a thread: about 10 us, as long as the handing takes.
SMALLEST_RANGE = 1 << 17
# What a row costs beside its pairs, counted in pairs: set-up, and the last vector or group of keys.
ROW_COST = 8

ARGUMENTS = {
    "sddmm": ("q", "k", "values"), "softmax": ("values", "weights"), "spmm": ("values", "v", "out"),
    "softmax_backward": ("weights", "dweights", "dvalues"), "spmm_transposed": ("values", "v", "out"),
    "softmax_lse": ("values", "weights", "lse"),
}  # fmt: skip
"""Of each operator, the last one written (of softmax_lse both): packed values (batch, heads, nnz), else four axes."""


GROUP_TABLE = (
    "group_rows", "piece_ptr", "start_of_piece", "step_of_piece", "count_of_piece", "slot_of_piece", "run_ptr",
    "run_start", "run_step", "run_count", "slot_of_run",
)  # fmt: skip


def packed_entry(plan: PackedPlan) -> CpuEntry:
    """How the plan's function is called."""
    stored = plan.dtype
    of_rows = ("run_ptr", "slot_ptr", "run_start", "run_step", "run_count")
    runs = arrays("int64", 1, *(GROUP_TABLE if plan.grouped else of_rows), contiguous=True)
    product = (
        *arrays(stored, 3, "values"), *arrays(stored, 4, "v"), *arrays(stored, 4, "out", contiguous=True, written=True),
        *runs, *numbers(plan.compute_dtype, "scale"),
    )  # fmt: skip
    rows = arrays("int64", 1, "slot_ptr", contiguous=True)
    soften = *arrays(stored, 3, "values"), *arrays(stored, 3, "weights", contiguous=True, written=True)
    longest = numbers("int64", "longest")
    parameters: dict[str, tuple[Parameter, ...]] = {
        "sddmm": (
            *arrays(stored, 4, "q", "k"), *arrays(stored, 3, "values", contiguous=True, written=True), *runs,
            *numbers(plan.compute_dtype, "scale"),
        ),
        "softmax": (*soften, *rows, *longest),
        "softmax_lse": (
            *soften, *arrays(plan.compute_dtype, 3, "lse", contiguous=True, written=True), *rows, *longest,
        ),
        "softmax_backward": (
            *arrays(stored, 3, "weights", contiguous=True), *arrays(stored, 3, "dweights"),
            *arrays(stored, 3, "dvalues", contiguous=True, written=True), *rows,
        ),
        "spmm": product,
        "spmm_transposed": (*product, *arrays("int64", 1, "place", contiguous=True)),
    }  # fmt: skip
    return CpuEntry(plan.operator, parameters[plan.operator])


def packed_schedule(
    plan: PackedPlan, problem: PackedProblem, table: RunTable | GroupTable, most_ranges: int
) -> ArraySchedule:
    """One launch over the rows, or groups of rows, of all heads. most_ranges: that are worth handing out, however much
    work there is.
    """
    builder = ArrayScheduleBuilder(*ARGUMENTS[plan.operator])
    entry, heads = packed_entry(plan), problem.batch * problem.heads
    cost = items_cost(table, ROW_COST)
    work = int(cost[-1]) * heads * max(problem.group, 1) * max(plan.dim, 16)
    if work == 0:
        return builder.finish()
    names = [one.name for one in entry.parameters]
    constant = _tables(table)
    for name in constant.keys() & names:
        builder.table(name, constant[name])
    longest = table.longest if isinstance(table, RunTable) else 0
    values = {name: value for name, value in (("scale", problem.scale), ("longest", longest)) if name in names}
    ranges = min(most_ranges, -(-work // SMALLEST_RANGE))
    limits = balanced_ranges(cost, heads, ranges)
    builder.launch(entry, ranges, {name: name for name in names if name not in values}, values, limits)
    return builder.finish()


def _tables(table: RunTable | GroupTable) -> dict[str, NDArray[Any]]:
    """By the names of the parameters that are theirs."""
    found: dict[str, NDArray[Any]] = {
        "run_ptr": table.run_ptr, "run_start": table.start, "run_step": table.step, "run_count": table.count,
    }  # fmt: skip
    if isinstance(table, RunTable):
        found["slot_ptr"] = table.slot_ptr
    else:
        found |= {
            "group_rows": table.rows, "piece_ptr": table.piece_ptr, "start_of_piece": table.piece_start,
            "step_of_piece": table.piece_step, "count_of_piece": table.piece_count,
            "slot_of_piece": table.piece_slot, "slot_of_run": table.slot,
        }  # fmt: skip
    return found if table.place is None else {**found, "place": table.place}


def items_cost(table: RunTable | GroupTable, row_cost: int) -> NDArray[np.int64]:
    """(items + 1,): what all items before cost. A row costs its pairs + row_cost."""
    pairs, rows = (table.slot_ptr, 1) if isinstance(table, RunTable) else (table.cost, table.size)
    return pairs + np.arange(pairs.size, dtype=np.int64) * rows * row_cost


def balanced_ranges(cost: NDArray[np.int64], heads: int, parts: int) -> NDArray[np.int64]:
    """Limits, (parts + 1,), in (head, item) pairs, items fastest, that cut the work evenly. cost: of items_cost()."""
    items, whole = cost.size - 1, int(cost[-1])
    if whole * heads == 0:
        return np.array([0, heads * items], np.int64)
    targets = np.array([whole * heads * part // parts for part in range(1, parts)], np.int64)
    head, rest = np.divmod(targets, whole)
    inner = head * items + np.searchsorted(cost, rest)
    return np.concatenate([np.zeros(1, np.int64), inner, np.array([heads * items], np.int64)])
