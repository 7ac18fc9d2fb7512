"""A plan with its functions, compiled or emulated, as an implementation of attention or of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import numpy as np

from splat_numba import reference
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.array_steps import finish_sums
from splat_numba.gen.targets.cpu.target import NUMBA_CPU
from splat_numba.runtime.cpu.machine import LoadedSchedule
from splat_numba.testing import Problem as Case


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
        LoadedSchedule(NUMBA_CPU.schedule(plan, problem, None, factor), functions).run(given, threads)
        return (out.view(q.dtype) if half else out), lse

    return attention


def run_backward(plan: Plan, functions: Mapping[str, Any], wanted: Wanted, shares: int) -> Callable[..., Any]:
    """``attention_vjp(q, k, v, mask, ...)`` for (batch, heads, seq, dim) arrays, float32 or float64; out and lse are
    the oracle's, rounded, and the plan is of the same mask.
    """

    def attention_vjp(q, k, v, mask, *, scale=None, kv_lengths=None, **_options):
        dense = Case(q.shape[2], k.shape[2], mask).dense_mask()
        found = reference.attention(q, k, v, dense, scale=scale, kv_lengths=kv_lengths, return_lse=True)
        out, lse = (np.asarray(x, q.dtype) for x in found)

        def vjp(dout, dlse):
            batch, heads, seq_q, head_dim = q.shape
            problem = Problem(seq_q, k.shape[2], head_dim, v.shape[3], plan.problem.dtype, batch, heads, k.shape[1])
            given = {"q": q, "k": k, "v": v, "out": out, "dout": dout, "lse": lse, "dlse": dlse}
            given["kv_lengths"] = np.full(batch, k.shape[2], np.int64) if kv_lengths is None else kv_lengths
            results = {f"d{name}": np.full(given[name].shape, np.nan, q.dtype) for name in "qkv"}
            sums = {
                name: np.zeros((shares, *results[name].shape[:3], width), q.dtype)
                for name, width in NUMBA_CPU.sums_of(problem, plan.cpu, wanted).widths.items()
            }
            factor = 1 / sqrt(head_dim) if scale is None else scale
            loaded = LoadedSchedule(NUMBA_CPU.backward_schedule(plan, problem, None, factor, wanted, shares), functions)
            loaded.run({**given, "dq": results["dq"], **sums}, threads=1)
            for name, one in sums.items():
                finish_sums(one, results[name].shape[3], plan.problem.dtype, results[name])
            return tuple(results[f"d{name}"] if f"d{name}" in wanted.names else None for name in "qkv")

        return out, vjp

    return attention_vjp
