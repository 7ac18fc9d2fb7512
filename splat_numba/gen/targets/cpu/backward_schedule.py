"""The launches of a backward pass on a CPU: a step a pass, each adding to what the others left."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.cpu_entry import CpuEntry, arrays, numbers
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import Sums, Wanted
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.array_schedule import ArraySchedule, ArrayScheduleBuilder
from splat_numba.gen.schedules.array_steps import clear, round_staged
from splat_numba.gen.targets.cpu.products import VECTORS
from splat_numba.gen.targets.cpu.schedule import entries_of, numbers_of, tables_of
from splat_numba.gen.targets.cpu.shape import vector_width
from splat_numba.gen.targets.gradients import LEVELS, OPERANDS

LARGEST_SUMS = 256 << 20  # bytes of the shares of dk and dv beyond the first, which is as large as they are
ITEMS_OF_CORE = 4  # work items, so that cores end together


def padded_dim(width: int, dim: int) -> int:
    """Numbers of a row whose lanes lie along it: whole register tiles of vectors of this width."""
    lanes = VECTORS * width
    return -(-dim // lanes) * lanes


def backward_entries(plan: Plan, wanted: Wanted) -> tuple[CpuEntry, ...]:
    """How the function of each pass is called. An item is (batch entry, key head, share), the share fastest.

    blocks, classes: row blocks of a residue class, and how many of those; shares: of a head's row blocks. dk, dv:
    (shares, batch, heads_kv, seq_kv, padded dim). heads: query heads, those of key head key_heads[i] at head_ptr[i].
    """
    stored, compute = plan.problem.dtype, plan.problem.compute_dtype
    common = (
        *numbers("int64", "blocks", "classes", "shares"),
        *arrays(stored, 4, *OPERANDS),
        *arrays(compute, 3, *LEVELS),
        *(arrays(plan.out_dtype, 4, "dq", written=True) if wanted.q else ()),
        *arrays(compute, 5, *wanted.sums, contiguous=True, written=True),
        *arrays("int64", 1, "heads", "head_ptr", "key_heads", "kv_lengths", contiguous=True),
        *numbers(compute, "scale"),
    )
    return entries_of(plan, common)


def backward_arguments(wanted: Wanted) -> tuple[str, ...]:
    """The arrays of a call, as the entries have them, but dq of the problem's dtype."""
    return (*OPERANDS, *LEVELS, "kv_lengths", *wanted.names)


def backward_schedule(
    plan: Plan, problem: Problem, heads: tuple[int, ...] | None, scale: float, wanted: Wanted, shares: int
) -> ArraySchedule:
    """The steps of a call of these sizes; heads: that take the plan, None for all. dk and dv are sums: zeros at first.

    Several passes keep dq of 16-bit arrays in float32 between them, and where no pass is known to visit every row, it
    begins as 0.
    """
    builder = ArrayScheduleBuilder(*backward_arguments(wanted))
    chosen = np.array(problem.query_heads(heads), np.int64)
    if problem.batch * chosen.size * problem.seq_q == 0:
        return builder.finish()
    key_heads, head_ptr = _by_key_head(chosen, problem.heads_q // problem.heads_kv)
    lists = {"heads": chosen, "key_heads": key_heads, "head_ptr": head_ptr}
    given = {name: builder.table(name, data) for name, data in lists.items()}
    given |= {name: name for name in backward_arguments(wanted)}
    if wanted.q:
        if plan.out_dtype != problem.dtype:
            given["dq"] = builder.fresh("staged", plan.out_dtype, *problem.sizes("dq"))
        if not plan.covered or not plan.passes:
            builder.change(clear, given["dq"], "heads")
    for number, (one, entry) in enumerate(zip(plan.passes, backward_entries(plan, wanted), strict=True)):
        classes, blocks = one.grid(problem.seq_q, problem.seq_kv)
        of_pass = {name: builder.table(f"{name}_{number}", data) for name, data in tables_of(one).items()}
        values = {"blocks": blocks, "classes": classes, "shares": shares, "scale": scale, **numbers_of(one)}
        items = problem.batch * key_heads.size * shares if classes * blocks else 0
        builder.launch(entry, items, {**given, **of_pass}, values)
    if given.get("dq") == "staged":
        builder.change(partial(round_staged, problem.dtype), "staged", "dq", "heads")
    return builder.finish()


def sums_of(problem: Problem, machine: Machine, wanted: Wanted) -> Sums:
    """One share where heads and batch entries keep all cores busy, as every other one has sums of its own."""
    width = vector_width(machine, problem.compute_dtype)
    widths = sum_widths(wanted, width, problem.head_dim, problem.value_dim)
    return Sums(_shares(problem, machine, sum(widths.values())), widths)


def _shares(problem: Problem, machine: Machine, row: int) -> int:
    """row: numbers of a token in all sums."""
    pairs = problem.batch * problem.heads_kv
    if not pairs or pairs % machine.cores == 0 or pairs >= ITEMS_OF_CORE * machine.cores:
        return 1
    fitting = 1 + LARGEST_SUMS // max(pairs * problem.seq_kv * row * ITEMSIZE[problem.compute_dtype], 1)
    return max(1, min(-(-ITEMS_OF_CORE * machine.cores // pairs), fitting))


def sum_widths(wanted: Wanted, width: int, head_dim: int, value_dim: int) -> dict[str, int]:
    """Numbers of a row of the wanted sums, by name, for vectors of so many numbers."""
    dims = {"dk": head_dim, "dv": value_dim}
    return {name: padded_dim(width, dims[name]) for name in wanted.sums}


def _by_key_head(heads: NDArray[np.int64], group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The key heads of these query heads, which ascend, and where the ones of each begin."""
    key_heads, first = np.unique(heads // group, return_index=True)
    return key_heads, np.append(first, heads.size).astype(np.int64)
