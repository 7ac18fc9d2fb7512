"""The launches of attention on a CPU: a step a pass, with what has to happen before the first and after the last."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.cpu_entry import CpuEntry, Parameter, arrays, numbers
from splat_numba.gen.plans.plan import Pass, Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.passes import ClosedPass, TablePass
from splat_numba.gen.schedules.array_schedule import ArraySchedule, ArrayScheduleBuilder
from splat_numba.gen.schedules.array_steps import attend_to_nothing, round_staged

ARGUMENTS = ("q", "k", "v", "out", "lse", "kv_lengths")  # lse: (batch, heads, seq_q), the others with four axes


def pass_entries(plan: Plan) -> tuple[CpuEntry, ...]:
    """How the function of each pass is called."""
    stored, compute = plan.problem.dtype, plan.problem.compute_dtype
    common = (
        *numbers("int64", "blocks", "classes"),
        *arrays(stored, 4, "q", "k", "v"),
        *arrays(plan.out_dtype, 4, "out", written=True),
        *arrays(compute, 3, "lse", written=True),
        *arrays("int64", 1, "heads", "kv_lengths", contiguous=True),
        *numbers(compute, "scale"),
    )
    return entries_of(plan, common)


def entries_of(plan: Plan, common: tuple[Parameter, ...]) -> tuple[CpuEntry, ...]:
    """A function for each pass of a plan, with what they have in common and what is its own."""
    return tuple(
        CpuEntry(f"pass_{number}", (*common, *own_parameters(one))) for number, one in enumerate(plan.passes)
    )  # fmt: skip


def own_parameters(one: Pass) -> tuple[Parameter, ...]:
    """What a pass has besides: its mask's numbers, or its tables; see numbers_of() and tables_of()."""
    if not isinstance(one, TablePass):
        return numbers("int64", *numbers_of(one))
    return (
        *arrays("int64", 1, "lane_rows", "block_ptr", "pieces", contiguous=True),
        *arrays("uint64", 1, "masks", contiguous=True),
        *arrays("int64", 1, "columns", contiguous=True),
    )


def attention_schedule(plan: Plan, problem: Problem, heads: tuple[int, ...] | None, scale: float) -> ArraySchedule:
    """The steps of a call of these sizes over ARGUMENTS; heads: that take the plan, None for all.

    Several passes keep 16-bit results in float32 between them. Where no pass is known to visit every row, out = 0 and
    lse = -inf are written first.
    """
    builder = ArrayScheduleBuilder(*ARGUMENTS)
    chosen = np.array(problem.query_heads(heads), np.int64)
    if problem.batch * chosen.size * problem.seq_q == 0:
        return builder.finish()
    builder.table("heads", chosen)
    out = "out"
    if plan.out_dtype != problem.dtype:
        out = builder.fresh("staged", plan.out_dtype, *problem.sizes("out"))
    if not plan.covered or not plan.passes:
        builder.change(attend_to_nothing, out, "lse", "heads")
    for number, (one, entry) in enumerate(zip(plan.passes, pass_entries(plan), strict=True)):
        classes, blocks = one.grid(problem.seq_q, problem.seq_kv)
        given = {**{name: name for name in (*ARGUMENTS, "heads")}, "out": out}
        given |= {name: builder.table(f"{name}_{number}", data) for name, data in tables_of(one).items()}
        values = {"blocks": blocks, "classes": classes, "scale": scale * math.log2(math.e), **numbers_of(one)}
        builder.launch(entry, problem.batch * chosen.size * classes * blocks, given, values)
    if out != "out":
        builder.change(partial(round_staged, problem.dtype), out, "out", "heads")
    return builder.finish()


def numbers_of(one: Pass) -> dict[str, int]:
    """By the names of the parameters that are theirs."""
    return one.numbers if isinstance(one, ClosedPass) else {}


def tables_of(one: Pass) -> dict[str, NDArray[Any]]:
    """By the names of the parameters that are theirs."""
    if not isinstance(one, TablePass):
        return {}
    table = one.table
    names, pieces = ("lane_rows", "block_ptr", "pieces", "masks", "columns"), table.piece.reshape(-1)
    return dict(zip(names, (table.rows, table.block_ptr, pieces, table.lane_bits, table.cols), strict=True))
