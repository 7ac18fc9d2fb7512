"""The emulator as an executor: the texts that a GPU would run, on NumPy, for small sizes and for debugging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flurka_numba.emulated.composed import attend
from flurka_numba.emulated.forward import MULTIPROCESSORS, EmulatedCall
from flurka_numba.emulated.gradients import attend_vjp
from flurka_numba.executor import Executor
from flurka_numba.gpu.checks import check_supported
from flurka_numba.gpu.composed.plan import composes_forward
from flurka_numba.gpu.plan import forward_plan, taking_input
from flurka_numba.heads import needs_queries, with_queries, with_views
from flurka_numba.operands import Operands, export_out, import_call
from flurka_numba.problem import Call
from splat_numba.runtime.arrays import export_array, import_array


class EmulatedExecutor:
    """Nothing is compiled, and every call is planned anew."""

    name = "emulate"

    def attend(self, call: Call) -> Any:
        """Check the arguments, then run every stage. Raises EmulationError for a fault in a text."""
        operands = import_call(with_views(call))
        problem = operands.problem
        check_supported(problem)
        if call.w_q is not None:
            problem = taking_input(problem, call.q.shape[-1])
        if needs_queries(call, problem):
            return self.attend(with_queries(call))
        if composes_forward(problem):
            attend(operands)
        elif operands.out.size:
            w_q = None if call.w_q is None else import_array("w_q", call.w_q).bits
            run = EmulatedCall(operands, forward_plan(problem, MULTIPROCESSORS), w_q)
            run.stages()
            if problem.method == "low_rank":
                _attend_to_slots(call, operands, run)
            else:
                operands.out[...] = run.rows("out")
        return export_out(call, operands)

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """Run the call and give the function from dout to gradients."""
        return attend_vjp(call, frozen)


def _attend_to_slots(call: Call, operands: Operands, run: EmulatedCall) -> None:
    import splat_numba

    problem = operands.problem
    q, k, v = (
        export_array(np.ascontiguousarray(bits), problem.dtype, call.q)
        for bits in (operands.q, run.rows("k_slots"), run.rows("v_slots"))
    )
    found = splat_numba.attention(q, k, v, splat_numba.full(), scale=problem.scale, backend="emulate")
    operands.out[...] = import_array("out", found).bits


EMULATED: Executor = EmulatedExecutor()
