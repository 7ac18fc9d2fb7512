"""CPU threads as a machine: schedules over NumPy arrays, with functions that take ranges of work items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.array_schedule import ArraySchedule, FreshStep, NumpyStep, RangeStep, touched
from splat_numba.runtime.graphs import look_again, look_away
from splat_numba.runtime.threads import parallel_for

Buffers = dict[str, Any]
Run = Callable[[Buffers, int], None]
NUMBERS: dict[str, Callable[[Any], Any]] = {"int64": int, "float32": np.float32, "float64": np.float64}
SCHEDULES_KEPT = 16  # of a text: of the sizes that calls had last


class LoadedSchedule:
    """A schedule with its functions, compiled or emulated: what a repeated call does not do again."""

    def __init__(self, schedule: ArraySchedule, functions: Mapping[str, Callable[..., object]]) -> None:
        self._results = schedule.results
        self._fixed: Buffers = dict(schedule.tables)
        runs: list[Run] = []
        for number, step in enumerate(schedule.steps):
            if isinstance(step, RangeStep):
                names = self._names_of(number, step)
                limits = None if step.limits is None else step.limits.tolist()
                runs.append(_launching(functions[step.entry.name], names, step.items, limits))
            else:
                runs.append(_making(step) if isinstance(step, FreshStep) else _computing(step))
        self._steps = list(zip(runs, _last_uses(schedule), strict=True))

    def run(self, arrays: Mapping[str, NDArray[Any]], threads: int) -> dict[str, NDArray[Any]]:
        """Run the steps over the schedule's arguments, by name, on so many threads; returns its results."""
        buffers = {**self._fixed, **arrays}
        dynamo = look_away()
        try:
            for step, unwanted in self._steps:
                step(buffers, threads)
                for name in unwanted:
                    del buffers[name]
        finally:
            look_again(dynamo)
        return {name: buffers[name] for name in self._results}

    def _names_of(self, number: int, step: RangeStep) -> list[str]:
        """Of all arguments, in the entry's order: numbers are buffers too, under names that no other step has."""
        names = []
        for one in step.entry.parameters:
            names.append(step.arrays[one.name] if one.axes else f"{number} {one.name}")
            if not one.axes:
                self._fixed[names[-1]] = NUMBERS[one.dtype](step.numbers[one.name])
        return names


def _launching(
    function: Callable[..., object], names: Sequence[str], items: int, limits: Sequence[int] | None
) -> Run:  # fmt: skip
    def run(buffers: Buffers, threads: int) -> None:
        arguments = [buffers[name] for name in names]
        if limits is None:
            parallel_for(items, lambda first, last: function(first, last, *arguments), threads)
        else:
            parallel_for(items, lambda first, last: function(limits[first], limits[last], *arguments), threads)

    return run


def _computing(step: NumpyStep) -> Run:
    function, sources, targets = step.function, step.sources, step.targets

    def run(buffers: Buffers, _threads: int) -> None:
        found = function(*[buffers[name] for name in sources])
        if len(targets) == 1:
            buffers[targets[0]] = found
        elif targets:
            buffers.update(zip(targets, found, strict=True))

    return run


def _making(step: FreshStep) -> Run:
    make, target, shape, dtype = np.zeros if step.zeroed else np.empty, step.target, step.shape, np.dtype(step.dtype)

    def run(buffers: Buffers, _threads: int) -> None:
        buffers[target] = make(shape, dtype)

    return run


def _last_uses(schedule: ArraySchedule) -> list[tuple[str, ...]]:
    """Of every step the buffers, of those that the call makes, that no later one has."""
    kept = {*schedule.results, *schedule.arguments, *schedule.tables}
    found: list[tuple[str, ...]] = []
    for step in reversed(schedule.steps):
        last = touched(step) - kept
        kept |= last
        found.append(tuple(sorted(last)))
    return found[::-1]
