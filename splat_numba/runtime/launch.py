"""The compiled passes of a plan and their launch on CPU threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from splat_numba.gen.cpu_passes import TablePass
from splat_numba.gen.plan import Plan
from splat_numba.gen.targets.cpu.attention import render_attention
from splat_numba.runtime.arrays import narrow
from splat_numba.runtime.compile import Compiled, compile_source
from splat_numba.runtime.dump import dump
from splat_numba.runtime.lanes import STORED
from splat_numba.runtime.source import KernelSource
from splat_numba.runtime.threads import parallel_for
from splat_numba.settings import Settings


def _signature(plan: Plan, table: bool) -> Any:
    """Of a pass: any strides, and read-only inputs welcome."""
    compute, stored = STORED[plan.problem.compute_dtype], STORED[plan.problem.dtype]
    operand = types.Array(stored, 4, "A", readonly=True)
    integers = types.Array(types.int64, 1, "C", readonly=True)
    out, lse = types.Array(STORED[plan.out_dtype], 4, "A"), types.Array(compute, 3, "A")
    numbers = (types.int64,) * 4
    arguments: tuple[Any, ...] = (*numbers, operand, operand, operand, out, lse, integers, integers, compute)
    if table:
        words = types.Array(types.uint64, 1, "C", readonly=True)
        arguments += (integers, integers, integers, words, integers)
    return types.int64(*arguments)


def render(plan: Plan) -> KernelSource:
    """The plan's text, named after mask, shape and type."""
    problem = plan.problem
    traits = f"attention_{plan.label}_d{problem.head_dim}_{problem.dtype}"
    return KernelSource.of(traits, render_attention(plan))


def compile_plan(plan: Plan, settings: Settings, source: KernelSource | None = None) -> Compiled:
    """Compile, or load, all passes of a plan; ``source`` stands in for the generated text."""
    source = source or render(plan)
    signatures = {
        f"pass_{number}": _signature(plan, isinstance(one, TablePass)) for number, one in enumerate(plan.passes)
    }
    dump(source, plan.as_dict(), settings)
    return compile_source(source, signatures, settings)


@dataclass(frozen=True, slots=True)
class Launch:
    """The operands of one call: (batch, heads, seq, dim) views, 16-bit numbers as uint16; lse (batch, heads, seq_q)."""

    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]
    out: NDArray[Any]
    lse: NDArray[Any]
    kv_lengths: NDArray[np.int64]
    scale: float


def run(plan: Plan, compiled: Compiled, launch: Launch, heads: NDArray[np.int64], threads: int) -> None:
    """Run all passes of a plan for the given query heads, and write out and lse."""
    if launch.q.shape[0] * heads.size * launch.q.shape[2] == 0:
        return
    staged = plan.out_dtype != plan.problem.dtype  # several passes keep 16-bit results in float32 between them
    out = np.empty(launch.out.shape, np.float32) if staged else launch.out
    if not plan.covered or not plan.passes:
        out[:, heads] = 0
        launch.lse[:, heads] = -np.inf
    for number, one in enumerate(plan.passes):
        _run_pass(plan, compiled.functions[f"pass_{number}"], one, launch, out, heads, threads)
    if staged:
        launch.out[:, heads] = narrow(out[:, heads], plan.problem.dtype)


def _run_pass(
    plan: Plan, function: Callable[..., object], one: Any, launch: Launch, out: Any, heads: Any, threads: int
) -> None:
    batch, _, seq_q, _ = launch.q.shape
    classes, blocks = one.grid(seq_q, launch.k.shape[2])
    real = np.float64 if plan.problem.compute_dtype == "float64" else np.float32
    scale = real(launch.scale * math.log2(math.e))
    common: tuple[Any, ...] = (launch.q, launch.k, launch.v, out, launch.lse, heads, launch.kv_lengths, scale)
    if isinstance(one, TablePass):
        table = one.table
        common += (table.rows, table.block_ptr, table.piece.reshape(-1), table.lane_bits, table.cols)

    def work(first: int, last: int) -> None:
        function(first, last, blocks, classes, *common)

    parallel_for(batch * heads.size * classes * blocks, work, threads)
