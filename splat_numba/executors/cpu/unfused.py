"""Attention on a CPU by the three packed operators: where tiles would hold few of the pairs that a mask keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.masks import Stored, stored_pairs
from splat_numba.executors.cpu.packed import CPU_PACKED
from splat_numba.executors.executor import HeadsMask
from splat_numba.executors.packed.call import PackedCall
from splat_numba.executors.packed.machine import HostMachine
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import sinks
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.halves import narrow, widen
from splat_numba.gen.plans.problem import Problem
from splat_numba.settings import Settings

LARGEST_VALUES = 256 << 20  # bytes of packed values at a time: more heads and batch entries take turns

Bits = NDArray[Any]


def attend_unfused(
    one: HeadsMask, problem: Problem, scale: float, arrays: Mapping[str, Bits], settings: Settings
) -> None:  # fmt: skip
    """Write out and lse of the mask's heads. arrays: q, k, v, out, lse and kv_lengths, as a schedule names them; 16-bit
    ones are widened first, so that scores and weights are kept in float32 as they are where they are fused.
    """
    for length in np.unique(arrays["kv_lengths"]):
        acsr = _pairs(one.mask, problem.seq_q, problem.seq_kv, int(length))
        entries = np.flatnonzero(arrays["kv_lengths"] == length)
        for batch, heads, shared in _turns(one, problem, acsr.nnz, entries):
            q, k, v = (
                _part(arrays[name], batch, which) for name, which in (("q", heads), ("k", shared), ("v", shared))
            )
            found, levels = _attend(acsr, problem, scale, q, k, v, settings)
            arrays["out"][np.ix_(batch, heads)] = found
            arrays["lse"][np.ix_(batch, heads)] = levels


def _attend(
    acsr: ACSR, problem: Problem, scale: float, q: Bits, k: Bits, v: Bits, settings: Settings
) -> tuple[Bits, Bits]:
    half = ITEMSIZE[problem.dtype] == 2
    if half:
        q, k, v = (widen(one, problem.dtype) for one in (q, k, v))
    call = PackedCall(HostMachine(CPU_PACKED), acsr, problem.compute_dtype, settings)
    values = call.sddmm(q, k, scale)
    lse = call.softmax_lse(values)
    out = call.spmm(values, v)
    return narrow(out, problem.dtype) if half else out, lse


def _part(array: Bits, batch: NDArray[np.int64], heads: NDArray[np.int64]) -> Bits:
    """Of these batch entries and heads: a view where they follow each other, as nearly always."""
    for axis, which in enumerate((batch, heads)):
        follows = which.size and (np.diff(which) == 1).all()
        taken = slice(int(which[0]), int(which[-1]) + 1) if follows else which
        array = array[taken] if axis == 0 else array[:, taken]
    return array


def _turns(
    one: HeadsMask, problem: Problem, nnz: int, entries: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(batch entries, query heads, heads of keys) whose values are made at a time; the latter divide the former."""
    group = problem.heads_q // max(problem.heads_kv, 1)
    heads = np.array(problem.query_heads(one.heads), np.int64)
    # Heads that share keys stay together where all of them take the mask; else each has its own.
    step, shared = (group, np.arange(problem.heads_kv)) if one.heads is None else (1, heads // group)
    units = max(LARGEST_VALUES // max(nnz * ITEMSIZE[problem.compute_dtype] * step, 1), 1)
    fit = max(min(units, shared.size), 1)
    batches = max(units // max(shared.size, 1), 1)
    for first in range(0, entries.size, batches):
        for begin in range(0, shared.size, fit):
            own = slice(begin * step, (begin + fit) * step)
            yield entries[first : first + batches], heads[own], shared[begin : begin + fit]


@lru_cache(maxsize=16)
def _pairs(mask: Stored, seq_q: int, seq_kv: int, length: int) -> ACSR:
    """The pairs of a mask whose keys are below ``length``, remembered."""
    acsr = stored_pairs(mask, seq_q, seq_kv)
    return acsr if length >= seq_kv else acsr & sinks(length)
