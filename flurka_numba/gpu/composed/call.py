"""Calls in float32 on a GPU: a Machine that launches on the caller's stream, with memory of the caller's framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu.checks import place_lengths
from flurka_numba.gpu.composed.attention import Composed, Given
from flurka_numba.gpu.composed.matrix import ROW_ALIGNMENT, Extent, Matrix, dense, padded_columns
from flurka_numba.gpu.composed.plan import composed_plan
from flurka_numba.gpu.launches import stage_cubin
from flurka_numba.gpu.omega import place_omega
from flurka_numba.problem import ITEMSIZE, Call, Problem
from flurka_numba.targets.simt.text import Text
from splat_numba.arguments.results import check_fits
from splat_numba.runtime.cuda.arrays import GpuArray, check_whole_elements
from splat_numba.runtime.cuda.copies import move
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import JAX, Framework, describe
from splat_numba.runtime.cuda.launch import Launch, load
from splat_numba.runtime.cuda.memory import undisturbed
from splat_numba.settings import Settings, current

LARGEST_FUNCTIONS = 4096


def attend(call: Call, problem: Problem, framework: Framework) -> Any:
    """Out, as an array of q's framework. The arguments were checked."""
    return _forward(call, problem, framework)[0]


def attend_vjp(
    call: Call, problem: Problem, framework: Framework, frozen: frozenset[str]
) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). The arguments were checked."""
    out, machine, composed = _forward(call, problem, framework)

    def vjp(dout: Any) -> tuple[Any, ...]:
        found = describe("dout", dout, framework)
        check_fits("dout", found, tuple(out.shape), problem.dtype)
        check_whole_elements("dout", found)
        given, keep = _given(call, problem, machine, framework, [dout])
        with machine.device.current():
            gradients = composed.pull(given, matrix_of(found), frozen)
            results = tuple(machine.finished(gradients[name]) if name in gradients else None for name in ARRAYS)
        framework.finish(machine.stream)
        machine.forget()
        del keep
        return results

    return out, vjp


def _forward(call: Call, problem: Problem, framework: Framework) -> tuple[Any, CudaMachine, Composed]:
    machine = CudaMachine(call, problem, framework, current())
    arrays = [getattr(call, name) for name in (*ARRAYS, "out") if getattr(call, name) is not None]
    given, keep = _given(call, problem, machine, framework, arrays)
    composed = Composed(composed_plan(problem), problem, given, machine)
    with machine.device.current():
        place = None if call.out is None else framework.describe("out", call.out)
        if place is not None and _writable(place):
            composed.forward(given, matrix_of(place))
            out = call.out
        else:
            held, fresh = machine.rows("out", (problem.batch, problem.heads, problem.seq_q, problem.value_dim))
            composed.forward(given, fresh)
            out = machine.finished(held, call.out)
    framework.finish(machine.stream)
    machine.forget()
    del keep
    return out, machine, composed


def _given(
    call: Call, problem: Problem, machine: CudaMachine, framework: Framework, arrays: list[Any]
) -> tuple[Given, Any]:
    """The operands as matrices, key lengths and omega placed anew, and what keeps these two there."""
    machine.stream = framework.stream(arrays, machine.device.ordinal)
    with machine.device.current():
        lengths, keep = place_lengths(call, problem, machine.device, framework, machine.stream)
        omega, keep_omega = None, None
        if call.omega is not None:
            place, keep_omega = place_omega(call.omega, machine.device, framework, call.q, machine.stream)
            omega = Matrix(place, "float32", (0, 0, 4 * problem.head_dim, 4))
    named = {name: getattr(call, name) for name in ARRAYS}
    named["proj_v"] = named["proj_k"] if named["proj_v"] is None else named["proj_v"]
    matrices = {name: matrix_of(framework.describe(name, one)) for name, one in named.items() if one is not None}
    return Given(matrices, lengths, omega), (keep, keep_omega)


def matrix_of(array: GpuArray) -> Matrix:
    """An array of 2 to 4 axes; those that are missing or have one place are shared. Projections: (heads, rank, seq)."""
    missing = (0,) * (4 - len(array.shape))
    steps = (0 if size == 1 else step for size, step in zip(array.shape, array.strides, strict=True))
    batch, head, row, column = (*missing, *steps)
    return Matrix(array.pointer, array.dtype, (batch, head, row, column))


def _writable(array: GpuArray) -> bool:
    """Whether kernels can store there, which they do in fours of numbers that are 16 bytes or 8."""
    size = ITEMSIZE[array.dtype]
    *steps, last = array.strides
    aligned = not any(step % ROW_ALIGNMENT for step in (array.pointer, *steps))
    return aligned and last == size and array.shape[-1] % (ROW_ALIGNMENT // size) == 0


_functions: dict[tuple[Text, int], int] = {}


def _function(text: Text, ordinal: int, settings: Settings) -> int:
    """A text's handle on one device, whose context must be current."""
    found = _functions.get((text, ordinal))
    if found is None:
        cubin = stage_cubin(text.name, text.render(), text.entry, settings)
        with undisturbed():
            found = load(cubin.code, cubin.report.symbol, ordinal, text.entry.shared_bytes)
        if len(_functions) >= LARGEST_FUNCTIONS:
            _functions.clear()
        _functions[text, ordinal] = found
    return found


class CudaMachine:
    """Memory comes from the framework's allocator, which knows its stream. ``stream``: where launches go."""

    def __init__(self, call: Call, problem: Problem, framework: Framework, settings: Settings) -> None:
        self._call, self._problem, self._framework, self._settings = call, problem, framework, settings
        self.device: Device = device(framework.describe("q", call.q).device)
        self.multiprocessors = self.device.multiprocessors
        self.stream = 0
        self._held: list[Any] = []  # until the work on them is done

    def words(self, nbytes: int) -> tuple[Any, int]:
        """Fresh memory."""
        held = self._framework.empty((max(-(-nbytes // 4), 1),), "float32", self._call.q)
        if self._framework is JAX:  # whose allocator does not know our stream
            self._held.append(held)
        return held, self._framework.address(held)

    def rows(self, name: str, shape: tuple[int, int, int, int]) -> tuple[Any, Matrix]:
        """Fresh memory for a result, of the shape that the caller knows but for padding."""
        known = tuple(self._call.q.shape[:-1]) + shape[3:] if name == "out" else tuple(getattr(self._call, name).shape)
        dtype = self._problem.dtype
        whole = self._framework.empty((*known[:-1], padded_columns(shape[3], dtype)), dtype, self._call.q)
        return (whole, known), dense(self._framework.address(whole), dtype, Extent(*shape[:3]), shape[3])

    def finished(self, held: tuple[Any, tuple[int, ...]], target: Any = None) -> Any:
        """A result as the caller's array: what was written, or where rows are padded a copy in the stream's order.

        target: an array that it is copied to.
        """
        whole, shape = held
        if target is None and tuple(whole.shape) == shape:
            return whole
        fresh = self._framework.empty(shape, self._problem.dtype, self._call.q) if target is None else target
        a, b = (self._framework.describe("out", one) for one in (whole, fresh))
        sizes = (*(1,) * (4 - len(shape)), *shape)
        strides = [((0,) * (4 - len(shape)) + one.strides) for one in (b, a)]
        kind = f"<u{ITEMSIZE[self._problem.dtype]}"
        move(b.pointer, strides[0], a.pointer, strides[1], (sizes[0], sizes[1], sizes[2], sizes[3]), self.stream,
             (kind, kind))  # fmt: skip
        self._held.append(whole)
        return fresh

    def forget(self) -> None:
        """Give back memory, once the work is safe."""
        self._held.clear()

    def launch(self, text: Text, grid: int, values: Mapping[str, int | float]) -> None:
        """Run a text on the stream. The device's context must be current."""
        if grid:
            function = _function(text, self.device.ordinal, self._settings)
            Launch(function, text.entry, grid, values).run(self.stream)
