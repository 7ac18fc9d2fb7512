"""A plan with its functions, compiled or emulated, as an implementation of attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import numpy as np

from splat_numba.gen.plan import Plan
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.cpu.schedule import attention_schedule
from splat_numba.runtime.cpu.machine import LoadedSchedule


def run_plan(
    plan: Plan, functions: Mapping[str, Any], threads: int = 2
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """``attention(q, k, v, mask, ...)`` -> (out, lse) for (batch, heads, seq, dim) arrays; the mask is the plan's."""

    def attention(q, k, v, _mask, *, scale=None, kv_lengths=None, **_options):
        half = q.dtype.itemsize == 2
        bits = [x.view(np.uint16) if half else x for x in (q, k, v)]
        out = np.full((*q.shape[:3], v.shape[3]), np.nan, q.dtype).view(bits[0].dtype)  # so that nothing right is there
        lse = np.full(q.shape[:3], np.nan, plan.problem.compute_dtype)
        if kv_lengths is None:
            kv_lengths = np.full(q.shape[0], k.shape[2], np.int64)
        factor = 1 / sqrt(q.shape[3]) if scale is None else scale
        batch, heads, seq_q, head_dim = q.shape
        problem = Problem(seq_q, k.shape[2], head_dim, v.shape[3], plan.problem.dtype, batch, heads, k.shape[1])
        given = dict(zip(("q", "k", "v", "out", "lse", "kv_lengths"), (*bits, out, lse, kv_lengths), strict=True))
        LoadedSchedule(attention_schedule(plan, problem, None, factor), functions).run(given, threads)
        return (out.view(q.dtype) if half else out), lse

    return attention
