"""ArraySchedule: what the CPU's target makes of a plan, steps over named arrays in their order. A value.

A GPU's schedule (schedule.py) has bytes at addresses, with strides as numbers of a launch. Here a buffer is an array
that brings its sizes and strides itself, because CPU texts serve all of them: one schedule serves all strides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from splat_numba.gen.language.cpu_entry import CpuEntry

Numbers = Mapping[str, int | float]


@dataclass(frozen=True, slots=True, eq=False)
class RangeStep:
    """One entry function over all its work items. numbers, arrays (names of buffers): all parameters of the entry, each
    by its name in one of them. limits: where items are cut into ranges of equal work beforehand, (ranges + 1,): only
    whole ones are handed out then, and ``items`` is their number.
    """

    entry: CpuEntry
    items: int
    numbers: Numbers
    arrays: Mapping[str, str]
    limits: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NumpyStep:
    """``targets`` = function(*sources), buffers by name; without targets it writes to its sources. For what is small
    beside the launches: scales, views, fills, rounding.
    """

    function: Callable[..., Any]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FreshStep:
    """A new array, made at every call, of numbers that are 0 where ``zeroed``."""

    target: str
    shape: tuple[int, ...]
    dtype: str
    zeroed: bool


Step = RangeStep | NumpyStep | FreshStep


@dataclass(frozen=True, slots=True, eq=False)
class ArraySchedule:
    """arguments: buffers that come with every call. tables: constant arrays. results: those that the caller gets; what
    else a call makes is let go of after the last step that has it.
    """

    steps: tuple[Step, ...]
    arguments: tuple[str, ...]
    tables: Mapping[str, NDArray[Any]]
    results: tuple[str, ...]

    @property
    def launches(self) -> tuple[RangeStep, ...]:
        """The steps that run entry functions."""
        return tuple(one for one in self.steps if isinstance(one, RangeStep))


class ArrayScheduleBuilder:
    """Collects steps, and refuses a parameter that nobody gives and a buffer that nobody has made before."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._known = set(arguments)
        self._steps: list[Step] = []
        self._tables: dict[str, NDArray[Any]] = {}

    def table(self, name: str, data: NDArray[Any]) -> str:
        """A constant array."""
        self._tables[self._new(name)] = data
        return name

    def fresh(self, name: str, dtype: str, *shape: int, zeroed: bool = False) -> str:
        """An array that every call makes."""
        self._steps.append(FreshStep(self._new(name), shape, dtype, zeroed))
        return name

    def compute(self, targets: str | Sequence[str], function: Callable[..., Any], *sources: str) -> str:
        """Buffers that a NumPy function makes of others; returns the first one's name."""
        names = (targets,) if isinstance(targets, str) else tuple(targets)
        self._check(sources)
        self._steps.append(NumpyStep(function, sources, tuple(self._new(name) for name in names)))
        return names[0]

    def change(self, function: Callable[..., None], *arrays: str) -> None:
        """Let a NumPy function write to buffers."""
        self._check(arrays)
        self._steps.append(NumpyStep(function, arrays, ()))

    def launch(
        self, entry: CpuEntry, items: int, arrays: Mapping[str, str], numbers: Numbers | None = None,
        limits: NDArray[Any] | None = None,
    ) -> None:  # fmt: skip
        """Add a launch; none where it has no items."""
        given = dict(numbers or {})
        wanted = {True: {one.name for one in entry.parameters if one.axes}}
        wanted[False] = {one.name for one in entry.parameters} - wanted[True]
        if wanted != {True: {*arrays}, False: {*given}}:
            raise ValueError(f"{entry.header} wanted, got arrays {list(arrays)} and numbers {list(given)}")
        self._check(arrays.values())
        if items:
            self._steps.append(RangeStep(entry, items, given, dict(arrays), limits))

    def finish(self, *results: str) -> ArraySchedule:
        """The schedule."""
        self._check(results)
        return ArraySchedule(tuple(self._steps), self._arguments, self._tables, results)

    def _new(self, name: str) -> str:
        if name in self._known:
            raise ValueError(f"{name} is another buffer already")
        self._known.add(name)
        return name

    def _check(self, names: Any) -> None:
        if unknown := {*names} - self._known:
            raise ValueError(f"no such buffers: {sorted(unknown)}")


def touched(step: Step) -> frozenset[str]:
    """The buffers that a step has."""
    if isinstance(step, RangeStep):
        return frozenset(step.arrays.values())
    return frozenset((step.target,) if isinstance(step, FreshStep) else (*step.sources, *step.targets))
