"""The compiled backward pass of a plan, and its run on CPU threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.cpu_passes import TablePass
from splat_numba.gen.plan import Plan
from splat_numba.gen.targets.cpu.backward import Wanted, backward_entry, key_sums, render_backward
from splat_numba.gen.targets.cpu.shape import tile_shape
from splat_numba.runtime.arrays import narrow
from splat_numba.runtime.compile import Compiled, compile_source
from splat_numba.runtime.dump import dump
from splat_numba.runtime.ranges import run, signature_of
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings


def render(plan: Plan, wanted: Wanted) -> KernelSource:
    """The text, named after mask, shape and type."""
    problem = plan.problem
    name = f"gradients_{'_'.join(wanted.names)}_{plan.label}_d{problem.head_dim}_{problem.dtype}"
    return KernelSource.of(name, render_backward(plan, wanted))


def compile_backward(plan: Plan, wanted: Wanted, settings: Settings, source: KernelSource | None = None) -> Compiled:
    """Compile, or load, all passes of the backward pass; ``source`` stands in for the generated text."""
    source = source or render(plan, wanted)
    entries = [backward_entry(plan, number, wanted) for number in range(len(plan.passes))]
    dump(source, plan.as_dict(), settings)
    return compile_source(source, {one.name: signature_of(one) for one in entries}, settings)


HALVES = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Backward:
    """The arrays of one call: (batch, heads, seq, dim) views, 16-bit numbers as uint16; lse, dlse (batch, heads, seq_q).

    dq: the result; dk, dv: sums in the compute type, (shares, batch, heads_kv, seq_kv, padded dim). Of what is not
    wanted, None.
    """

    read: Mapping[str, NDArray[Any]]
    dq: NDArray[Any] | None
    sums: Mapping[str, NDArray[Any]]
    kv_lengths: NDArray[np.int64]
    scale: float
    shares: int


def sums_for(plan: Plan, wanted: Wanted, shares: int) -> dict[str, NDArray[Any]]:
    """Zeros to which the passes add the gradients of keys and values."""
    problem = plan.problem
    leading = (shares, problem.batch, problem.heads_kv, problem.seq_kv)
    return {name: np.zeros((*leading, dim), problem.compute_dtype) for name, dim in key_sums(plan, wanted).items()}


def run_backward(
    plan: Plan, wanted: Wanted, compiled: Compiled, call: Backward, heads: Sequence[int], threads: int
) -> None:
    """Run all passes of a plan for the given query heads."""
    q, k = call.read["q"], call.read["k"]
    batch, heads_q, seq_q, _ = q.shape
    if not batch * len(heads) * seq_q:
        return
    dq, staged = call.dq, False
    if dq is not None:
        staged = plan.out_dtype != plan.problem.dtype
        dq = np.empty(dq.shape, plan.out_dtype) if staged else dq
        if not plan.covered or not plan.passes:
            dq[:, heads] = 0
    key_heads, head_ptr = _grouped(heads, heads_q // k.shape[1])
    given: dict[str, Any] = {
        **call.read,
        "dq": dq,
        **call.sums,
        "heads": np.array(heads, np.int64),
        "shares": call.shares,
    }
    given |= {"key_heads": key_heads, "head_ptr": head_ptr, "kv_lengths": call.kv_lengths}
    given["scale"] = np.dtype(plan.problem.compute_dtype).type(call.scale)
    for number, one in enumerate(plan.passes):
        classes, blocks = one.grid(seq_q, k.shape[2])
        of_pass = {**given, "classes": classes, "blocks": blocks}
        if isinstance(one, TablePass):
            table = one.table
            of_pass |= {"lane_rows": table.rows, "block_ptr": table.block_ptr, "pieces": table.piece.reshape(-1)}
            of_pass |= {"masks": table.lane_bits, "columns": table.cols}
        entry = backward_entry(plan, number, wanted)
        run(compiled.functions[entry.name], entry, batch * key_heads.size * call.shares, of_pass, threads)
    if staged and dq is not None and call.dq is not None:
        call.dq[:, heads] = narrow(dq[:, heads], plan.problem.dtype)


def _grouped(heads: Sequence[int], group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The key heads of these query heads, which ascend, and where the ones of each begin."""
    of_query = np.array(heads, np.int64) // group
    key_heads, first = np.unique(of_query, return_index=True)
    return key_heads, np.append(first, of_query.size).astype(np.int64)


def finish_sums(sums: NDArray[Any], dim: int, dtype: str) -> NDArray[Any]:
    """The gradient of keys or values from the sums of all shares, added in their order, rounded once."""
    total = sums[0]
    for one in sums[1:]:
        total += one
    found = total[..., :dim]
    return narrow(found, dtype) if dtype in HALVES else found
