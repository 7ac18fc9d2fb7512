"""The CPU as an executor: Numba functions on threads, over NumPy views of the caller's arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from numba import types

from flurka_numba.cpu.gradients import gradients, wanted
from flurka_numba.cpu.stages import Absorbed, Kernels, attend
from flurka_numba.executor import Executor
from flurka_numba.operands import Operands, export_gradients, export_out, import_call, import_dout
from flurka_numba.problem import Call, Problem
from flurka_numba.targets.cpu.plan import FORWARD, CpuPlan, make_plan
from flurka_numba.targets.cpu.text import entries, render
from splat_numba.runtime.compile import Compiled, compile_source
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.dump import dump
from splat_numba.runtime.lanes import STORED
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current


def source_of(plan: CpuPlan) -> KernelSource:
    """The plan's text, named after what it is for."""
    return KernelSource.of(plan.traits, render(plan))


@lru_cache(maxsize=256)
def compiled_for(plan: CpuPlan, settings: Settings) -> Compiled:
    """Machine code of a plan, remembered. Raises CompileError."""
    source = source_of(plan)
    dump(source, asdict(plan), settings)
    return compile_source(source, signatures(plan), settings)


def signatures(plan: CpuPlan) -> dict[str, Any]:
    """Of the entry functions of a plan: the caller's arrays at any strides, read-only ones welcome."""
    compute = STORED[plan.compute_dtype]
    tokens, proj = (types.Array(STORED[plan.dtype], axes, "A", readonly=True) for axes in (4, 3))
    rows = types.Array(STORED[plan.key_dtype], 4, "A", readonly=True)
    lengths = types.Array(types.int64, 1, "C", readonly=True)
    out, written = types.Array(STORED[plan.dtype], 4, "A"), types.Array(compute, 4, "A")
    stabs, tops, heads, splits = (types.Array(compute, axes, "C") for axes in (2, 3, 4, 5))
    kept = group = types.int64
    arguments = {
        "fold": (splits, heads),
        "compress": (tokens, proj, lengths, splits, group),
        "largest_key": (rows, heads, lengths, kept, tops),
        "absorb": (rows, rows, heads, stabs, lengths, kept, splits, splits),
        "attend": (tokens, heads, kept, heads, heads, stabs, out),
        "query_gradient": (tokens, tokens, heads, heads, kept, heads, heads, stabs, written, splits, splits, splits),
        "key_gradient": (rows, rows, heads, heads, stabs, lengths, kept, heads, heads, heads, written, written),
        "expand": (proj, heads, lengths, written),
        "project_gradient": (tokens, heads, lengths, tops),
    }
    work = (types.int64, types.int64)
    return {name: types.int64(*work, *arguments[name]) for name in entries(plan)}


def kernels_for(problem: Problem, wants: tuple[str, ...], settings: Settings) -> Kernels:
    """The compiled kernels of a problem, and the threads of this call."""
    plan = make_plan(problem, wants, machine(settings.threads))
    compiled = compiled_for(plan, replace(settings, threads=None))  # which makes no difference to a text
    return Kernels(plan, compiled, settings.threads or cores())


@dataclass(frozen=True, slots=True)
class CpuExecutor:
    """Kernels in which sizes are arguments: one text serves all shapes of a method, feature map and dtype."""

    name: str = "cpu"

    def attend(self, call: Call) -> Any:
        """Check the arguments, and run the three stages."""
        operands, _ = self._attend(call)
        return export_out(call, operands)

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """As attend, and the function from dout to gradients, which keeps what was made of keys and values."""
        operands, absorbed = self._attend(call)

        def vjp(dout: Any) -> tuple[Any, ...]:
            bits = import_dout(call, operands, dout)
            wants = wanted(operands.problem, frozen)
            if not wants:
                return export_gradients(call, operands, {})
            kernels = kernels_for(operands.problem, wants, current())
            return export_gradients(call, operands, gradients(kernels, operands, absorbed, bits, frozen))

        return export_out(call, operands), vjp

    def _attend(self, call: Call) -> tuple[Operands, Absorbed]:
        operands = import_call(call)
        return operands, attend(kernels_for(operands.problem, FORWARD, current()), operands)


CPU: Executor = CpuExecutor()
