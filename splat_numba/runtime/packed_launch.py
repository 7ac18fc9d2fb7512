"""The compiled kernels of the packed operators and their launch on CPU threads."""

from __future__ import annotations

import weakref
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from splat_numba.formats.acsr import ACSR
from splat_numba.gen.packed_plan import PackedPlan, RunTable, balanced_ranges, make_packed_plan
from splat_numba.gen.targets.cpu.packed import render_packed
from splat_numba.runtime.compile import Compiled, compile_source
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.dump import dump
from splat_numba.runtime.lanes import STORED
from splat_numba.runtime.source import KernelSource
from splat_numba.runtime.threads import RANGES_PER_THREAD, parallel_for
from splat_numba.settings import Settings

# Below this many multiply-adds a range is not worth handing to a thread: about 10 us, as long as the handing takes.
SMALLEST_RANGE = 1 << 17
# What a row costs beside its pairs, counted in pairs: set-up, and the last vector or group of keys.
ROW_COST = 8

_tables: dict[int, RunTable] = {}


def run_table(acsr: ACSR) -> RunTable:
    """The run table of a mask, kept as long as the mask: by identity, because equal masks may be cut differently."""
    key = id(acsr)
    if key not in _tables:
        _tables[key] = RunTable.of(acsr)
        weakref.finalize(acsr, _tables.pop, key, None).atexit = False
    return _tables[key]


def _signature(plan: PackedPlan) -> Any:
    """Of the kernel: any strides, and read-only inputs welcome."""
    stored = STORED[plan.dtype]
    real = types.float64 if plan.compute_dtype == "float64" else types.float32
    integers = types.Array(types.int64, 1, "C", readonly=True)
    item_range = (types.int64, types.int64)

    def read(axes: int) -> Any:
        return types.Array(stored, axes, "A", readonly=True)

    def written(axes: int) -> Any:
        return types.Array(stored, axes, "C")

    if plan.operator == "sddmm":
        return types.int64(*item_range, read(4), read(4), written(3), *(integers,) * 5, real)
    if plan.operator == "softmax":
        return types.int64(*item_range, read(3), written(3), integers, types.int64)
    return types.int64(*item_range, read(3), read(4), written(4), *(integers,) * 5)


@lru_cache(maxsize=256)
def compile_packed(plan: PackedPlan, settings: Settings) -> Compiled:
    """Compile, or load, the kernel of a plan."""
    source = KernelSource.of(plan.traits, render_packed(plan))
    dump(source, asdict(plan), settings)
    return compile_source(source, {plan.operator: _signature(plan)}, settings)


def run_sddmm(
    q: NDArray[Any], k: NDArray[Any], values: NDArray[Any], acsr: ACSR, dtype: str, scale: float, settings: Settings
) -> None:
    """Write values (batch, heads, nnz), C-contiguous, from q and k of 4 axes; 16-bit numbers as uint16."""
    table = run_table(acsr)
    host = machine(settings.threads)
    plan = make_packed_plan("sddmm", dtype, host, table, dim=q.shape[3], contiguous=_contiguous(k))
    real = np.float64 if plan.compute_dtype == "float64" else np.float32
    arguments = (q, k, values, *_runs(table), real(scale))
    _launch(plan, table, q.shape[0] * q.shape[1], arguments, settings)


def run_softmax(values: NDArray[Any], weights: NDArray[Any], acsr: ACSR, dtype: str, settings: Settings) -> None:
    """Write weights (batch, heads, nnz), C-contiguous, from values of the same shape."""
    table = run_table(acsr)
    plan = make_packed_plan("softmax", dtype, machine(settings.threads), table, contiguous=_contiguous(values))
    arguments = (values, weights, table.slot_ptr, table.longest)
    _launch(plan, table, values.shape[0] * values.shape[1], arguments, settings)


def run_spmm(
    values: NDArray[Any], v: NDArray[Any], out: NDArray[Any], acsr: ACSR, dtype: str, settings: Settings
) -> None:
    """Write out (batch, heads, rows, value_dim), C-contiguous, from values of 3 axes and v of 4."""
    table = run_table(acsr)
    host = machine(settings.threads)
    plan = make_packed_plan("spmm", dtype, host, table, dim=v.shape[3], contiguous=_contiguous(v))
    _launch(plan, table, values.shape[0] * values.shape[1], (values, v, out, *_runs(table)), settings)


def _contiguous(array: NDArray[Any]) -> bool:
    return array.shape[-1] <= 1 or array.strides[-1] == array.itemsize


def _runs(table: RunTable) -> tuple[NDArray[np.int64], ...]:
    return table.run_ptr, table.slot_ptr, table.start, table.step, table.count


def _launch(plan: PackedPlan, table: RunTable, heads: int, arguments: tuple[Any, ...], settings: Settings) -> None:
    """Rows of all heads, in ranges of equal work."""
    threads = settings.threads or cores()
    work = (int(table.slot_ptr[-1]) + ROW_COST * table.rows) * heads * max(plan.dim, 16)
    if work == 0:
        return
    parts = min(threads * RANGES_PER_THREAD, -(-work // SMALLEST_RANGE))
    limits = balanced_ranges(table, heads, parts, ROW_COST)
    function = compile_packed(plan, settings).functions[plan.operator]

    def run(first: int, last: int) -> None:
        function(int(limits[first]), int(limits[last]), *arguments)

    parallel_for(parts, run, threads)
