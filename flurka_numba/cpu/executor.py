"""The CPU as an executor: schedules over NumPy views of the caller's arrays, on threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

from numpy.typing import NDArray

from flurka_numba.executor import Executor
from flurka_numba.operands import Operands, export_gradients, export_out, import_call, import_dout
from flurka_numba.problem import Call, Problem
from flurka_numba.targets.cpu.backward import gradient_schedule, wanted
from flurka_numba.targets.cpu.forward import forward_schedule
from flurka_numba.targets.cpu.plan import FORWARD, CpuPlan, make_plan
from flurka_numba.targets.cpu.text import cpu_text
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu import code
from splat_numba.runtime.cpu.machine import LoadedSchedule
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import REMEMBERED
from splat_numba.settings import Settings, current

Arrays = Mapping[str, NDArray[Any]]


@lru_cache(maxsize=REMEMBERED)
def compiled_for(plan: CpuPlan, settings: Settings) -> CompiledText:
    """Machine code of a plan, remembered. Raises CompileError."""
    return code.compile_text(cpu_text(plan), partial(asdict, plan), settings)


@lru_cache(maxsize=REMEMBERED)
def forward_for(problem: Problem, settings: Settings) -> LoadedSchedule:
    """The forward pass of a problem, ready to run."""
    plan = make_plan(problem, FORWARD, machine(settings.threads))
    return LoadedSchedule(forward_schedule(plan, problem), compiled_for(plan, settings).functions)


@lru_cache(maxsize=REMEMBERED)
def gradients_for(problem: Problem, frozen: frozenset[str], settings: Settings) -> LoadedSchedule | None:
    """The gradients of a problem, ready to run; None where all that they go through is frozen."""
    wants = wanted(problem, frozen)
    if not wants:
        return None
    plan = make_plan(problem, wants, machine(settings.threads))
    return LoadedSchedule(gradient_schedule(plan, problem, frozen), compiled_for(plan, settings).functions)


@dataclass(frozen=True, slots=True)
class CpuExecutor:
    """Kernels in which sizes are arguments: one text serves all shapes of a method, feature map and dtype."""

    name: str = "cpu"
    takes_rows: bool = False

    def attend(self, call: Call) -> Any:
        """Check the arguments, and run the three stages."""
        operands, _ = self._attend(call)
        return export_out(call, operands)

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """As attend, and the function from dout to gradients, which keeps what was made of keys and values."""
        operands, kept = self._attend(call)

        def vjp(dout: Any) -> tuple[Any, ...]:
            bits, settings = import_dout(call, operands, dout), current()
            schedule = gradients_for(operands.problem, frozen, settings)
            if schedule is None:
                return export_gradients(call, operands, {})
            found = schedule.run({**operands.arrays, "dout": bits, **kept}, settings.threads or cores())
            return export_gradients(call, operands, {name.removeprefix("d"): one for name, one in found.items()})

        return export_out(call, operands), vjp

    def _attend(self, call: Call) -> tuple[Operands, Arrays]:
        operands, settings = import_call(call), current()
        schedule = forward_for(operands.problem, settings)
        given = {**operands.arrays, "omega": operands.omega, "out": operands.out}
        return operands, schedule.run(given, settings.threads or cores())


CPU: Executor = CpuExecutor()
