"""The schedules of a CPU's attention, forward and back, as programs that XLA calls: every step a compiled function.

The plans, texts and bits are those of `executors.cpu` and `executors.cpu_backward`. What those do in NumPy between the
launches is here a function of `runtime.xla.steps`; a step that has none is a fault of ours, and raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.executors.cpu_backward import compiled_of
from splat_numba.executors.executor import Recipe
from splat_numba.gen.array_schedule import ArraySchedule, FreshStep, NumpyStep, RangeStep
from splat_numba.gen.backward import Wanted
from splat_numba.gen.cpu_entry import CpuEntry, Parameter, arrays, numbers
from splat_numba.gen.plan import Plan
from splat_numba.gen.problem import ITEMSIZE, Problem
from splat_numba.gen.targets.cpu.backward_schedule import (
    backward_schedule,
    clear,
    shares_of,
    sums_shape,
)
from splat_numba.gen.targets.cpu.schedule import attend_to_nothing, attention_schedule, round_staged
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu.code import signature_of
from splat_numba.runtime.device import machine
from splat_numba.runtime.xla import layout, link, steps
from splat_numba.runtime.xla.program import Argument, BufferView, Program, ProgramLaunch
from splat_numba.settings import Settings

ALIGNMENT = 64  # bytes, of parts of the scratch memory, as XLA's own buffers have it
# Below this, threads cost more than they bring: a task of XLA's pool begins some 10 us after it was asked for.
FEWEST_SECONDS = 4e-5
NO_MEMORY = "splat_numba found no memory for a kernel's tiles.", layout.RESOURCE_EXHAUSTED


@dataclass(frozen=True, slots=True)
class XlaCall:
    """A program and the bytes of scratch memory, its last result, that it wants; 0 for none."""

    program: Program
    scratch: int


@dataclass(slots=True)
class _Recorder:
    """Collects launches over named arrays. buffers: of the call, by name, as (batch, heads, seq, dim)."""

    buffers: dict[str, Argument]
    scratch_buffer: int
    settings: Settings
    threads: int
    scratch: int = 0
    launches: list[ProgramLaunch] = field(default_factory=list)

    def fresh(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Name a part of the scratch memory."""
        itemsize = ITEMSIZE.get(dtype, 8)
        self.buffers[name] = BufferView(self.scratch_buffer, self.scratch, shape, _dense(shape, itemsize), itemsize)
        size = itemsize * int(np.prod(shape, dtype=np.int64))
        self.scratch += max(-(-size // ALIGNMENT), 1) * ALIGNMENT  # an empty part has an address, too

    def add(self, schedule: ArraySchedule, compiled: CompiledText, problem: Problem) -> None:
        """The steps of a schedule, whose own arrays are forgotten after it."""
        outer = dict(self.buffers)
        self.buffers.update(schedule.tables)
        for step in schedule.steps:
            if isinstance(step, FreshStep) and not step.zeroed:
                self.fresh(step.target, step.shape, step.dtype)
            elif isinstance(step, RangeStep) and step.limits is None:
                self._launch(step, compiled)
            elif isinstance(step, NumpyStep):
                self._compute(step, problem)
            else:
                raise NotImplementedError(f"no compiled form of {step}")
        self.buffers = outer

    def _launch(self, step: RangeStep, compiled: CompiledText) -> None:
        given = {name: self.buffers[of] for name, of in step.arrays.items()} | dict(step.numbers)
        self.launches.append(ProgramLaunch(compiled, step.entry, step.items, given, self.threads, NO_MEMORY))

    def _compute(self, step: NumpyStep, problem: Problem) -> None:
        """A step of NumPy's, as a function over (batch entry, head)."""
        names = dict(zip(("out", "lse", "heads"), step.sources, strict=False))
        wide = problem.compute_dtype
        heads = arrays("int64", 1, "heads", contiguous=True)
        if step.function is attend_to_nothing:
            kinds = (*self._of("out", names["out"], problem), *arrays(wide, 3, "lse", written=True), *heads)
            self.call("attend_to_nothing", kinds, names, problem.batch * self._size("heads"))
        elif step.function is clear:
            target, slots = step.sources
            self.call(
                "clear", (*self._of("target", target, problem), *heads), {"target": target, "heads": slots},
                problem.batch * self._size(slots),
            )  # fmt: skip
        elif isinstance(step.function, partial) and step.function.func is round_staged:
            staged, out, slots = step.sources
            kinds = (*arrays(wide, 4, "staged"), *arrays(problem.dtype, 4, "out", written=True), *heads)
            given = {"staged": staged, "out": out, "heads": slots}
            self.call(f"round_{problem.dtype}", kinds, given, problem.batch * self._size(slots))
        else:
            raise NotImplementedError(f"no compiled form of {step}")

    def call(
        self, function: str, parameters: tuple[Parameter, ...], given: Mapping[str, Any], items: int,
        error: tuple[str, int] = NO_MEMORY,
    ) -> None:  # fmt: skip
        """A function of runtime.xla.steps; given: names of buffers, or numbers."""
        if not items:
            return
        entry = CpuEntry(function, parameters)
        compiled = link.compile_file(steps, ((function, signature_of(entry)),), self.settings)
        arguments = {name: self.buffers[of] if isinstance(of, str) else of for name, of in given.items()}
        self.launches.append(ProgramLaunch(compiled, entry, items, arguments, self.threads, error))

    def _of(self, parameter: str, buffer: str, problem: Problem) -> tuple[Parameter, ...]:
        """A parameter for a result, which is stored as the problem's dtype or, where passes stage it, wider."""
        stored = problem.itemsize == self.view(buffer).itemsize
        return arrays(problem.dtype if stored else problem.compute_dtype, 4, parameter, written=True)

    def view(self, name: str) -> BufferView:
        """A buffer of the call. Raises TypeError for a constant array."""
        found = self.buffers[name]
        if not isinstance(found, BufferView):
            raise TypeError(f"{name} is no buffer of the call")
        return found

    def _size(self, name: str) -> int:
        found = self.buffers[name]
        return found.size if isinstance(found, np.ndarray) else self.view(name).shape[0]

    def finish(self, arguments: int, results: int) -> XlaCall:
        """The program of a call with so many arguments, and results beside the scratch memory."""
        more = 1 if self.scratch else 0
        return XlaCall(Program(tuple(self.launches), arguments, results + more), self.scratch)


def forward_call(
    recipe: Recipe, problem: Problem, scale: float, settings: Settings, threads: int, *, ragged: bool
) -> XlaCall:
    """attention over (q, k, v) or (q, k, v, kv_lengths int32) to (out, lse), contiguous in the recipe's layout."""
    parts = recipe.parts_for(problem, scale, settings, ragged=ragged)
    given = 4 if ragged else 3
    sizes = {"q": problem.head_dim, "k": problem.head_dim, "v": problem.value_dim, "out": problem.value_dim}
    buffers = _tokens(dict(zip(sizes, (0, 1, 2, given), strict=True)), sizes, problem, recipe.layout)
    buffers["lse"] = _level(given + 1, problem)
    recorder = _Recorder(buffers, given + 2, settings, _worth([part.plan for part in parts], threads))
    _add_lengths(recorder, problem, ragged=ragged)
    for part in parts:
        schedule = attention_schedule(part.plan, problem, part.heads, scale)
        recorder.add(schedule, part.compiled.code, problem)
    return recorder.finish(given, 2)


def backward_call(
    recipe: Recipe, problem: Problem, scale: float, settings: Settings, threads: int, *, ragged: bool
) -> XlaCall:
    """attention_backward over (q, k, v[, kv_lengths], out, lse, dout, dlse) to (dq, dk, dv), likewise."""
    wanted, host = Wanted(), machine(None)
    masks = recipe.masks_for(problem)
    made = [compiled_of(recipe.executor, one, wanted, settings) for one in masks]
    first = 4 if ragged else 3
    dims = {"q": problem.head_dim, "k": problem.head_dim, "v": problem.value_dim}
    sizes = {**dims, "out": problem.value_dim, "dout": problem.value_dim, **{f"d{name}": n for name, n in dims.items()}}
    places = (0, 1, 2, first, first + 2, first + 4, first + 5, first + 6)
    buffers = _tokens(dict(zip(sizes, places, strict=True)), sizes, problem, recipe.layout)
    buffers |= {"lse": _level(first + 1, problem), "dlse": _level(first + 3, problem)}
    recorder = _Recorder(buffers, first + 7, settings, _worth([one.plan for one in made], threads))
    _add_lengths(recorder, problem, ragged=ragged)
    shares = shares_of(problem, host, wanted)
    targets = {name: recorder.view(name) for name in wanted.sums}
    for name, width in sums_shape(problem, host, wanted).items():
        _add_sums(recorder, name, (shares, problem.batch, problem.heads_kv, problem.seq_kv, width), problem)
    for one, compiled in zip(masks, made, strict=True):
        schedule = backward_schedule(compiled.plan, problem, one.heads, scale, wanted, shares)
        recorder.add(schedule, compiled.code, problem)
    for name, target in targets.items():
        _finish_sums(recorder, name, target, problem)
    return recorder.finish(first + 4, 3)


def _worth(plans: Sequence[Plan], threads: int) -> int:
    """Threads of the launches: one where the plans predict less time than threads take to come."""
    return threads if sum(plan.cost.seconds for plan in plans) > FEWEST_SECONDS else 1


def _add_lengths(recorder: _Recorder, problem: Problem, *, ragged: bool) -> None:
    """Key lengths as kernels read them: constant, or widened from the call's, the fourth argument."""
    if not ragged:
        recorder.buffers["kv_lengths"] = np.full(problem.batch, problem.seq_kv, np.int64)
        return
    recorder.buffers["given"] = BufferView(3, 0, (problem.batch,), (4,), 4)
    recorder.fresh("kv_lengths", (problem.batch,), "int64")
    error = f"kv_lengths wanted between 0 and seq_kv = {problem.seq_kv}, got others. Correct them."
    kinds = (
        *arrays("int32", 1, "given", contiguous=True),
        *arrays("int64", 1, "lengths", contiguous=True, written=True),
        *numbers("int64", "most"),
    )
    given = {"given": "given", "lengths": "kv_lengths", "most": problem.seq_kv}
    recorder.call("widen_lengths", kinds, given, problem.batch, (error, layout.INVALID_ARGUMENT))


def _add_sums(recorder: _Recorder, name: str, shape: tuple[int, ...], problem: Problem) -> None:
    """Zeros for a gradient's sums, which take its name: in the gradient itself where that has their form."""
    result, itemsize = recorder.view(name), ITEMSIZE[problem.compute_dtype]
    if (1, *result.shape) == shape and _dense(shape, itemsize)[1:] == result.strides:
        recorder.buffers[name] = replace(result, shape=shape, strides=_dense(shape, itemsize))
    else:
        recorder.fresh(name, shape, problem.compute_dtype)
    rows, width = shape[0] * shape[1] * shape[2], shape[3] * shape[4]
    flat = replace(recorder.view(name), shape=(rows, width), strides=(width * itemsize, itemsize))
    recorder.buffers[f"{name} rows"] = flat
    kinds = arrays(problem.compute_dtype, 2, "target", contiguous=True, written=True)
    recorder.call("clear_rows", kinds, {"target": f"{name} rows"}, rows)


def _finish_sums(recorder: _Recorder, name: str, target: BufferView, problem: Problem) -> None:
    """The gradient from its sums, unless they are in it already."""
    if recorder.view(name).buffer == target.buffer:
        return
    recorder.buffers[f"{name} result"] = target
    sums = arrays(problem.compute_dtype, 5, "sums", contiguous=True)
    kinds = (*sums, *arrays(problem.dtype, 4, "target", written=True))
    function = f"finish_{problem.dtype if problem.itemsize == 2 else 'sums'}"
    given = {"sums": name, "target": f"{name} result"}
    recorder.call(function, kinds, given, problem.batch * problem.heads_kv)


def _tokens(places: Mapping[str, int], dims: Mapping[str, int], problem: Problem, order: str) -> dict[str, Argument]:
    """Views of contiguous arrays of this layout as (batch, heads, seq, dim), by name."""
    found: dict[str, Argument] = {}
    for name, buffer in places.items():
        of_keys = name.removeprefix("d") in ("k", "v")
        heads, seq = (problem.heads_kv, problem.seq_kv) if of_keys else (problem.heads_q, problem.seq_q)
        shape = (problem.batch, heads, seq, dims[name])
        strides = bhsd_axes(_dense(bhsd_axes(shape, order, 1), problem.itemsize), order, 0)
        found[name] = BufferView(buffer, 0, shape, strides, problem.itemsize)
    return found


def _level(buffer: int, problem: Problem) -> BufferView:
    """lse or its gradient, (batch, heads, seq_q)."""
    shape, itemsize = (problem.batch, problem.heads_q, problem.seq_q), ITEMSIZE[problem.compute_dtype]
    return BufferView(buffer, 0, shape, _dense(shape, itemsize), itemsize)


def _dense(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides of an array in C order, in bytes."""
    strides = [itemsize]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))
