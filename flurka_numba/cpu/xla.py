"""FLuRKA's schedules on a CPU, forward and back, as programs that XLA calls: every step a compiled function.

The plans, texts and bits are those of `cpu.executor`. Gradients begin with the forward pass, up to the queries, since
what it leaves has other sizes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flurka_numba.cpu import xla_steps
from flurka_numba.cpu.executor import compiled_for
from flurka_numba.problem import Problem
from flurka_numba.targets.cpu import host
from flurka_numba.targets.cpu.backward import gradient_schedule, wanted
from flurka_numba.targets.cpu.forward import forward_schedule, kept_of
from flurka_numba.targets.cpu.plan import FORWARD, CpuPlan, make_plan
from splat_numba.gen.language.cpu_entry import arrays, numbers
from splat_numba.gen.schedules.array_schedule import ArraySchedule, NumpyStep, touched
from splat_numba.runtime.device import machine
from splat_numba.runtime.xla.program import Argument, BufferView
from splat_numba.runtime.xla.recorder import Form, Recorder, XlaCall, dense
from splat_numba.settings import Settings

# Below so many multiplications (some 40 us of one core) threads cost more than they bring.
FEWEST_PRODUCTS = 1_000_000


def forward_call(problem: Problem, settings: Settings, threads: int) -> XlaCall:
    """Over problem.inputs to (out,), all contiguous. kv_lengths: int32; omega: of the compute dtype."""
    plan, names = make_plan(problem, FORWARD, machine(settings.threads)), problem.inputs
    recorder = _recorder(problem, plan, (*names, "out"), settings, threads)
    recorder.add(forward_schedule(plan, problem), compiled_for(plan, settings))
    return recorder.finish(len(names), 1)


def backward_call(problem: Problem, settings: Settings, threads: int) -> XlaCall:
    """Over (*problem.inputs, dout) to problem.gradients, likewise."""
    plan = make_plan(problem, FORWARD, machine(settings.threads))
    slopes = make_plan(problem, wanted(problem, frozenset()), machine(settings.threads))
    names, results = (*problem.inputs, "dout"), problem.gradients
    recorder = _recorder(problem, slopes, (*names, *results), settings, threads)
    whole = problem.itemsize == np.dtype(problem.compute_dtype).itemsize
    targets = {name: recorder.view(name) for name in results}
    for name in results:
        del recorder.buffers[name]
    if whole:
        recorder.places = targets
    recorder.add(_without_out(forward_schedule(plan, problem)), compiled_for(plan, settings), kept_of(problem))
    schedule = gradient_schedule(slopes, problem, frozenset())
    recorder.add(schedule, compiled_for(slopes, settings), schedule.results)
    if not whole:
        for name, target in targets.items():
            _round(recorder, name, target, problem)
    return recorder.finish(len(names), len(results))


def _recorder(problem: Problem, plan: CpuPlan, names: tuple[str, ...], settings: Settings, threads: int) -> Recorder:
    views = {name: _view(problem, name, place) for place, name in enumerate(names) if name != "kv_lengths"}
    buffers: dict[str, Argument] = dict(views)
    tokens = problem.batch * problem.heads * (problem.seq_q + problem.seq_kv)
    products = tokens * problem.head_dim * max(problem.features, problem.rank)
    worth = threads if products > FEWEST_PRODUCTS else 1
    recorder = Recorder(buffers, len(names), settings, worth, _forms(problem, plan))
    given = names.index("kv_lengths") if problem.ragged else None
    recorder.add_lengths(given, problem.batch, problem.seq_kv)
    return recorder


def _view(problem: Problem, name: str, buffer: int) -> BufferView:
    """A contiguous array of the call: tokens with four axes, projections with three."""
    of = name.removeprefix("d")
    itemsize = problem.itemsize
    if of.startswith("proj"):
        shape: tuple[int, ...] = (problem.heads if problem.per_head_proj else 1, problem.rank, problem.seq_kv)
    elif of == "omega":
        rows = problem.features // (2 if problem.feature_map == "rfa" else 1)
        shape, itemsize = (rows, problem.head_dim), np.dtype(problem.compute_dtype).itemsize
    else:
        seq = problem.seq_kv if of in ("k", "v") else problem.seq_q
        shape = (problem.batch, problem.heads, seq, problem.head_dim if of in ("q", "k") else problem.value_dim)
    return BufferView(buffer, 0, shape, dense(shape, itemsize), itemsize)


def _without_out(schedule: ArraySchedule) -> ArraySchedule:
    """The steps that do not write the result."""
    return replace(schedule, steps=tuple(one for one in schedule.steps if "out" not in touched(one)))


def _round(recorder: Recorder, name: str, target: BufferView, problem: Problem) -> None:
    """A gradient of 16 bits from that in float32."""
    given = {"staged": recorder.view(name), "out": target}
    if len(target.shape) == 3:
        given = {key: replace(one, shape=(1, *one.shape), strides=(0, *one.strides)) for key, one in given.items()}
    batch, heads = given["out"].shape[:2]
    kinds = (
        *arrays(problem.compute_dtype, 4, "staged"), *arrays(problem.dtype, 4, "out", written=True),
        *arrays("int64", 1, "heads", contiguous=True),
    )  # fmt: skip
    recorder.call(f"round_{problem.dtype}", kinds, {**given, "heads": np.arange(heads)}, batch * heads)


def _forms(problem: Problem, plan: CpuPlan) -> Mapping[Callable[..., Any], Form]:
    """What stands for the functions of `targets.cpu.host`."""
    return _Forms(problem, plan).table()


class _Forms:
    """Each adds what computes a step's targets from its sources."""

    def __init__(self, problem: Problem, plan: CpuPlan) -> None:
        self.problem, self.plan, self.wide = problem, plan, problem.compute_dtype
        self.of_heads = problem.batch, problem.heads
        self.items = problem.batch * problem.heads

    def table(self) -> dict[Callable[..., Any], Form]:
        """By NumPy's functions."""
        return {
            host.first_split: self._first_split, host.cut: self._cut, np.asarray: self._same,
            host.transposed: self._transposed, host.largest_of: self._largest_of, host.add: self._add,
            host.clear_without_keys: self._clear_without_keys, host.scaled_by_head: self._scaled_by_head,
            host.scaled: self._scaled, host.scaled_state: self._scaled_state,
            host.random_weights: self._random_weights, host.slot_weights: self._slot_weights,
        }  # fmt: skip

    def _first_split(self, to: Recorder, step: NumpyStep) -> None:
        found = to.view(step.sources[0])
        shape, strides = (*found.shape[:2], *found.shape[3:]), (*found.strides[:2], *found.strides[3:])
        to.buffers[step.targets[0]] = replace(found, shape=shape, strides=strides)

    def _cut(self, to: Recorder, step: NumpyStep, rows: int | None, dims: int) -> None:
        found = to.view(step.sources[0])
        kept = found.shape[2] if rows is None else rows
        to.buffers[step.targets[0]] = replace(found, shape=(*found.shape[:2], kept, dims))

    def _same(self, to: Recorder, step: NumpyStep) -> None:
        to.buffers[step.targets[0]] = to.buffers[step.sources[0]]

    def _transposed(self, to: Recorder, step: NumpyStep) -> None:
        batch, heads, rows, columns = to.view(step.sources[0]).shape
        to.fresh(step.targets[0], (batch, heads, columns, rows), self.wide)
        given = {"source": step.sources[0], "target": step.targets[0]}
        self._call(to, "transposed", (*arrays(self.wide, 4, "source"), *self._ours(4, "target")), given)

    def _largest_of(self, to: Recorder, step: NumpyStep) -> None:
        to.fresh(step.targets[0], self.of_heads, self.wide)
        given = {"splits": step.sources[0], "target": step.targets[0]}
        self._call(to, "largest_of", (*arrays(self.wide, 3, "splits"), *self._ours(2, "target")), given)

    def _clear_without_keys(self, to: Recorder, step: NumpyStep) -> None:
        target, lengths = step.sources
        dtype = self.problem.dtype if target == "out" else self.wide
        kinds = (*arrays(dtype, 4, "target", written=True), *arrays("int64", 1, "lengths", contiguous=True))
        self._call(to, "clear_without_keys", kinds, {"target": target, "lengths": lengths})

    def _scaled_by_head(self, to: Recorder, step: NumpyStep) -> None:
        source, scales = step.sources
        to.fresh(step.targets[0], to.view(source).shape, self.wide)
        kinds = (*arrays(self.wide, 4, "source"), *arrays(self.wide, 2, "scales"), *self._ours(4, "target"))
        self._call(to, "scaled_by_head", kinds, {"source": source, "scales": scales, "target": step.targets[0]})

    def _scaled(self, to: Recorder, step: NumpyStep, scale: float) -> None:
        to.fresh(step.targets[0], to.view(step.sources[0]).shape, self.wide)
        kinds = (*arrays(self.wide, 4, "source"), *self._ours(4, "target"), *numbers(self.wide, "scale"))
        given = {"source": step.sources[0], "target": step.targets[0], "scale": scale}
        self._call(to, "scaled", kinds, given)

    def _add(self, to: Recorder, step: NumpyStep) -> None:
        views = [to.view(name) for name in step.sources]
        rows, width = views[0].shape[0] * views[0].shape[1], views[0].shape[2]
        flat = [replace(one, shape=(rows, width), strides=one.strides[1:]) for one in views]
        kinds = (*self._ours(2, "target"), *arrays(self.wide, 2, "more"))
        to.call("add", kinds, dict(zip(("target", "more"), flat, strict=True)), rows, module=xla_steps)

    def _scaled_state(self, to: Recorder, step: NumpyStep) -> None:
        (state, sums), (new_state, new_sums, scales) = step.sources, step.targets
        to.fresh(new_state, to.view(state).shape, self.wide)
        to.fresh(new_sums, to.view(sums).shape, self.wide)
        to.fresh(scales, self.of_heads, self.wide)
        made = (*self._ours(4, "new_state", "new_sums"), *self._ours(2, "scales"))
        kinds = (*arrays(self.wide, 4, "state", "sums"), *made, *numbers("int64", "most", "goal"))
        given = {
            "state": state, "sums": sums, "new_state": new_state, "new_sums": new_sums, "scales": scales,
            "most": host.LARGEST_EXPONENT, "goal": host.LARGEST_SUM,
        }  # fmt: skip
        self._call(to, "scaled_state", kinds, given)

    def _random_weights(self, to: Recorder, step: NumpyStep, plan: CpuPlan, factor: float) -> None:
        w, w_t = step.targets
        rows, head_dim = to.view(step.sources[0]).shape
        self._weights(to, w, w_t, (1, 1), rows, head_dim, plan)
        kinds = (*arrays(self.wide, 2, "omega"), *self._ours(4, "w", "w_t"), *numbers(self.wide, "factor"))
        given = {"omega": step.sources[0], "w": w, "w_t": w_t, "factor": factor}
        to.call("random_weights", kinds, given, 1, module=xla_steps)

    def _slot_weights(
        self, to: Recorder, step: NumpyStep, plan: CpuPlan, rank: int, head_dim: int, scale: float
    ) -> None:
        w, w_t, scales = step.targets
        found, kind = to.view(step.sources[0]), np.finfo(self.wide)
        slots = replace(found, shape=(*self.of_heads, rank, head_dim))
        self._weights(to, w, w_t, self.of_heads, rank, head_dim, plan)
        to.fresh(scales, self.of_heads, self.wide)
        made = (*self._ours(4, "w", "w_t"), *self._ours(2, "scales"))
        kinds = (
            *arrays(self.wide, 4, "slots"), *made, *numbers(self.wide, "scale"), *numbers("float64", "size", "sign"),
            *numbers(self.wide, "largest"), *numbers("int64", "least", "most"),
        )  # fmt: skip
        given = {
            "slots": slots, "w": w, "w_t": w_t, "scales": scales, "scale": scale, "size": abs(scale),
            "sign": float(np.copysign(1, scale)), "largest": kind.max, "least": -host.LARGEST_EXPONENT,
            "most": int(kind.maxexp) - 2,
        }  # fmt: skip
        self._call(to, "slot_weights", kinds, given)

    def _weights(
        self, to: Recorder, w: str, w_t: str, leading: tuple[int, int], kept: int, head_dim: int, plan: CpuPlan
    ) -> None:
        """Room for host.weights_of."""
        to.fresh(w, (*leading, head_dim, plan.padded(kept)), self.wide)
        to.fresh(w_t, (*leading, plan.padded(kept), plan.padded(head_dim)), self.wide)

    def _ours(self, axes: int, *names: str) -> Any:
        return arrays(self.wide, axes, *names, contiguous=True, written=True)

    def _call(self, to: Recorder, function: str, kinds: Any, given: Mapping[str, Any]) -> None:
        to.call(function, kinds, given, self.items, module=xla_steps)
