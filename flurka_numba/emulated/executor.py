"""The emulator as an executor: the schedules that a GPU would run, on NumPy, for small sizes and for debugging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.checks import ARRAYS
from flurka_numba.executor import Executor
from flurka_numba.gpu.checks import check_supported
from flurka_numba.gpu.choice import HOPPER, choose_target
from flurka_numba.gpu.forward import forward_recording
from flurka_numba.gpu.gradient_schedules import Gradients, result_axes
from flurka_numba.gpu.gradients import SlotProduct
from flurka_numba.gpu.plan import taking_input
from flurka_numba.gpu.recorder import KEPT, Recording
from flurka_numba.heads import merge, needs_queries, with_queries, with_views
from flurka_numba.operands import Operands, export_out, import_call, import_dout
from flurka_numba.problem import Call, Problem
from splat_numba.emulator.machine import EmulatedMachine
from splat_numba.gen.language.halves import narrow, widen
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.simt.target import SIMT
from splat_numba.runtime.arrays import export_array, import_array

GPU = Gpu(multiprocessors=8)  # that plans are made for: few, so that blocks are few, but more than one share a state
NOTHING: frozenset[str] = frozenset()


class EmulatedExecutor:
    """Nothing is compiled, and every call is planned anew."""

    name = "emulate"
    takes_rows = True

    def attend(self, call: Call) -> Any:
        """Check the arguments, then run every stage. Raises EmulationError for a fault in a text."""
        operands = import_call(with_views(call))
        problem = operands.problem
        check_supported(problem)
        target = choose_target(call.target, problem, GPU).chosen
        if call.w_q is not None and target == HOPPER:
            problem = taking_input(problem, call.q.shape[-1])
        if needs_queries(call, problem):
            return self.attend(with_queries(call))
        w_q = None if call.w_q is None else import_array("w_q", call.w_q).bits
        run = EmulatedCall(operands, problem, target, w_q)
        operands.out[...] = run.read(run.forward()["out"])
        return export_out(call, operands)

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """Run the call and give the function from dout to gradients."""
        operands = import_call(call)
        problem = operands.problem
        check_supported(problem)
        target = choose_target(call.target, problem, GPU, gradients=True).chosen
        run = EmulatedCall(operands, problem, target)
        axes = {name: np.ndim(getattr(call, name)) for name in ARRAYS if getattr(call, name) is not None}
        gradients = Gradients(problem, GPU, run.operands, result_axes(axes), target, views=True)
        operands.out[...] = run.read(run.run(gradients.forward(NOTHING))["out"])

        def vjp(dout: Any) -> tuple[Any, ...]:
            placed = run.place("dout", import_dout(call, operands, dout))
            recording, products = gradients.backward(placed, frozen, NOTHING)
            made = {name: run.read(tensor) for name, tensor in run.run(recording).items()}
            made |= {f"d{name}": run.product(one, made) for name, one in products.items()}
            return tuple(
                _exported(made[f"d{name}"], call, name, problem) if f"d{name}" in made else None for name in ARRAYS
            )

        return export_out(call, operands), vjp


def _exported(bits: NDArray[Any], call: Call, name: str, problem: Problem) -> Any:
    shape = np.shape(getattr(call, name))
    return export_array(np.ascontiguousarray(bits).reshape(shape), problem.dtype, call.q)


class EmulatedCall:
    """One call's arrays in an emulated GPU's memory: rows padded to 16 bytes, and what lies behind them is NaN; where
    the target takes any strides, with theirs. w_q: where the problem has a model_dim; q is the layer's input.
    """

    def __init__(self, given: Operands, problem: Problem, target: str, w_q: NDArray[Any] | None = None) -> None:
        self._problem, self._target = problem, target
        self._machine = EmulatedMachine()
        arrays = {"q": given.q, "k": given.k, "v": given.v}
        if w_q is not None:
            arrays |= {"q": merge(given.q)[:, None], "w_q": w_q[None, None]}
        if given.proj_k is not None:
            arrays["proj_k"] = given.proj_k[None]
        if given.proj_v is not None:
            arrays["proj_v"] = given.proj_v[None]
        self.operands = {name: self.place(name, array) for name, array in arrays.items()}
        self._machine.place_table("kv_lengths", given.kv_lengths.astype(np.int32))
        if given.omega is not None:
            self._machine.place_table("omega", given.omega)

    def place(self, name: str, array: NDArray[Any]) -> Tensor:
        """An array of the call, where the stages find it."""
        if self._target == SIMT.name:
            return self._machine.place_as_it_is(name, array, self._problem.dtype)
        return self._machine.place(name, array, self._problem.dtype)

    def forward(self) -> dict[str, Tensor]:
        """Run the forward pass. Returns its results by name."""
        return self.run(forward_recording(self._problem, GPU, self.operands, NOTHING, {}, self._target))

    def run(self, recording: Recording) -> dict[str, Tensor]:
        """Run a schedule. Returns its results by name."""
        made = {
            name: self._machine.allocate_contiguous(name, one.shape, self._problem.dtype, side_by_side=one.side_by_side)
            for name, one in recording.outputs.items()
        }
        if recording.kept:
            self._machine.reserve(KEPT, recording.kept)
        self._machine.run(recording.schedule)
        return made

    def read(self, tensor: Tensor) -> NDArray[Any]:
        """An array as written: 16-bit numbers as uint16."""
        return self._machine.read(tensor)

    def product(self, one: SlotProduct, made: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """E^T dk' in float32, as tensor cores accumulate, rounded once."""
        dtype = self._problem.dtype
        proj = widen(self.read(self.operands[one.proj]), dtype)
        return narrow(proj.swapaxes(-1, -2) @ widen(made[one.slots], dtype), dtype)


EMULATED: Executor = EmulatedExecutor()
