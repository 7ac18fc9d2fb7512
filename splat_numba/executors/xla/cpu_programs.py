"""The schedules of a CPU's attention, forward and back, as programs that XLA calls: every step a compiled function.

The plans, texts and bits are those of `executors.cpu.executor` and `executors.cpu.backward`. What those do in NumPy
between the launches is here a function of `runtime.xla.steps`; a step that has none is a fault of ours, and raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.executors.cpu.backward import compiled_of, sums_for
from splat_numba.executors.cpu.executor import threads_worth
from splat_numba.executors.executor import Recipe
from splat_numba.gen.language.cpu_entry import Parameter, arrays
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.array_schedule import NumpyStep
from splat_numba.gen.schedules.array_steps import attend_to_nothing, clear, round_staged
from splat_numba.gen.targets.registry import cpu_target
from splat_numba.runtime.device import machine
from splat_numba.runtime.xla.program import Argument, BufferView
from splat_numba.runtime.xla.recorder import Form, Recorder, XlaCall, dense
from splat_numba.settings import Settings


def _forms(problem: Problem) -> dict[Callable[..., Any], Form]:
    """What attention's schedules do in NumPy between launches, as functions over (batch entry, head)."""
    heads, wide = arrays("int64", 1, "heads", contiguous=True), problem.compute_dtype

    def stored(to: Recorder, parameter: str, buffer: str) -> tuple[Parameter, ...]:
        """A parameter for a result, which is stored as the problem's dtype or, where passes stage it, wider."""
        as_given = problem.itemsize == to.view(buffer).itemsize
        return arrays(problem.dtype if as_given else wide, 4, parameter, written=True)

    def nothing(to: Recorder, step: NumpyStep) -> None:
        names = dict(zip(("out", "lse", "heads"), step.sources, strict=True))
        kinds = (*stored(to, "out", names["out"]), *arrays(wide, 3, "lse", written=True), *heads)
        to.call("attend_to_nothing", kinds, names, problem.batch * to.size(names["heads"]))

    def cleared(to: Recorder, step: NumpyStep) -> None:
        target, slots = step.sources
        kinds = (*stored(to, "target", target), *heads)
        to.call("clear", kinds, {"target": target, "heads": slots}, problem.batch * to.size(slots))

    def rounded(to: Recorder, step: NumpyStep, *_bound: Any) -> None:
        staged, out, slots = step.sources
        kinds = (*arrays(wide, 4, "staged"), *arrays(problem.dtype, 4, "out", written=True), *heads)
        given = {"staged": staged, "out": out, "heads": slots}
        to.call(f"round_{problem.dtype}", kinds, given, problem.batch * to.size(slots))

    return {attend_to_nothing: nothing, clear: cleared, round_staged: rounded}


def forward_call(
    recipe: Recipe, problem: Problem, scale: float, settings: Settings, threads: int, *, ragged: bool
) -> XlaCall:
    """attention over (q, k, v) or (q, k, v, kv_lengths int32) to (out, lse), contiguous in the recipe's layout."""
    parts = recipe.parts_for(problem, scale, settings, ragged=ragged)
    given = 4 if ragged else 3
    buffers = _tokens({"q": 0, "k": 1, "v": 2, "out": given}, problem, recipe.layout)
    buffers["lse"] = _level(given + 1, problem)
    worth = threads_worth([part.plan for part in parts], problem, threads)
    recorder = Recorder(buffers, given + 2, settings, worth, _forms(problem))
    recorder.add_lengths(3 if ragged else None, problem.batch, problem.seq_kv)
    for part in parts:
        schedule = cpu_target(part.plan.target).schedule(part.plan, problem, part.heads, scale)
        recorder.add(schedule, part.compiled.code)
    return recorder.finish(given, 2)


def backward_call(
    recipe: Recipe, problem: Problem, scale: float, settings: Settings, threads: int, *, ragged: bool
) -> XlaCall:
    """attention_backward over (q, k, v[, kv_lengths], out, lse, dout, dlse) to (dq, dk, dv), likewise."""
    wanted = Wanted()
    masks = recipe.masks_for(problem)
    made = [compiled_of(recipe.executor, one, wanted, settings) for one in masks]
    first = 4 if ragged else 3
    places = {
        "q": 0,
        "k": 1,
        "v": 2,
        "out": first,
        "dout": first + 2,
        "dq": first + 4,
        "dk": first + 5,
        "dv": first + 6,
    }
    buffers = _tokens(places, problem, recipe.layout)
    buffers |= {"lse": _level(first + 1, problem), "dlse": _level(first + 3, problem)}
    worth = threads_worth([one.plan for one in made], problem, threads)
    recorder = Recorder(buffers, first + 7, settings, worth, _forms(problem))
    recorder.add_lengths(3 if ragged else None, problem.batch, problem.seq_kv)
    sums = sums_for(recipe.executor.target, problem, machine(None), wanted)
    targets = {name: recorder.view(name) for name in wanted.sums}
    for name, width in sums.widths.items():
        _add_sums(recorder, name, (sums.shares, *problem.sizes(name)[:3], width), problem)
    for one, compiled in zip(masks, made, strict=True):
        schedule = compiled.schedule(problem, one.heads, scale, sums.shares)
        recorder.add(schedule, compiled.code)
    for name, target in targets.items():
        _finish_sums(recorder, name, target, problem)
    return recorder.finish(first + 4, 3)


def _add_sums(recorder: Recorder, name: str, shape: tuple[int, ...], problem: Problem) -> None:
    """Zeros for a gradient's sums, which take its name: in the gradient itself where that has their form."""
    result, itemsize = recorder.view(name), ITEMSIZE[problem.compute_dtype]
    if (1, *result.shape) == shape and dense(shape, itemsize)[1:] == result.strides:
        recorder.buffers[name] = replace(result, shape=shape, strides=dense(shape, itemsize))
    else:
        recorder.fresh(name, shape, problem.compute_dtype)
    recorder.clear(name, problem.compute_dtype)


def _finish_sums(recorder: Recorder, name: str, target: BufferView, problem: Problem) -> None:
    """The gradient from its sums, unless they are in it already."""
    if recorder.view(name).buffer == target.buffer:
        return
    recorder.buffers[f"{name} result"] = target
    sums = arrays(problem.compute_dtype, 5, "sums", contiguous=True)
    kinds = (*sums, *arrays(problem.dtype, 4, "target", written=True))
    function = f"finish_{problem.dtype if problem.itemsize == 2 else 'sums'}"
    given = {"sums": name, "target": f"{name} result"}
    recorder.call(function, kinds, given, problem.batch * problem.heads_kv)


def _tokens(places: Mapping[str, int], problem: Problem, order: str) -> dict[str, Argument]:
    """Views of contiguous arrays of this layout as (batch, heads, seq, dim), by name."""
    found: dict[str, Argument] = {}
    for name, buffer in places.items():
        shape = problem.sizes(name)
        strides = bhsd_axes(dense(bhsd_axes(shape, order, 1), problem.itemsize), order, 0)
        found[name] = BufferView(buffer, 0, shape, strides, problem.itemsize)
    return found


def _level(buffer: int, problem: Problem) -> BufferView:
    """lse or its gradient, (batch, heads, seq_q)."""
    shape, itemsize = problem.lse_sizes, ITEMSIZE[problem.compute_dtype]
    return BufferView(buffer, 0, shape, dense(shape, itemsize), itemsize)
