"""Arrays for timing on a CPU: random operands of a problem, contiguous, whole key lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.executors.cpu.backward import fresh_sums, sums_for
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.halves import narrow
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.device import machine

Arrays = dict[str, NDArray[Any]]


def forward_operands(problem: Problem) -> Arrays:
    """q, k, v, out, lse and kv_lengths, as a forward schedule names them."""
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(problem.sizes(name), np.float32) for name in ("q", "k", "v", "out")}
    half = ITEMSIZE[problem.dtype] == 2
    found: Arrays = {
        name: narrow(one, problem.dtype) if half else one.astype(problem.dtype) for name, one in drawn.items()
    }
    # About what random scores have, so that weights are as small as a call's own.
    found["lse"] = np.full(problem.lse_sizes, np.log(problem.seq_kv), problem.compute_dtype)
    found["kv_lengths"] = np.full(problem.batch, problem.seq_kv, np.int64)
    return found


def gradient_operands(request: str | None, problem: Problem, wanted: Wanted) -> tuple[Arrays, int]:
    """The same with what a backward schedule reads and writes besides; and the shares of its sums.

    request: the argument ``target``.
    """
    found = forward_operands(problem)
    planned = sums_for(request, problem, machine(None), wanted)
    targets = {name: np.empty_like(found[name[1:]]) for name in wanted.names}
    sums = fresh_sums(targets, planned, problem)
    return {**found, "dout": found["out"][::-1].copy(), "dlse": 0 * found["lse"], **targets, **sums}, planned.shares
