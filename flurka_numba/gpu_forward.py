"""A forward call on a GPU made ready: everything but addresses is decided once, and a repeated call looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.gpu_plan import ForwardPlan, Stage
from splat_numba.gen.boxes import Box, View
from splat_numba.gen.targets.sm90.shape import SPAN
from splat_numba.runtime.cuda.arrays import Framework
from splat_numba.runtime.cuda.copies import move, padded
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.launch import Launch, is_capturing, load
from splat_numba.runtime.cuda.memory import Upload, memory, undisturbed
from splat_numba.runtime.cuda.tables import pool
from splat_numba.runtime.cuda.tensor_map import (
    MAP_BYTES,
    Layout,
    TensorMapArguments,
    describable,
    encode,
    tensor_map_arguments,
)
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

MAPPED = ("k", "v", "proj_k", "proj_v")  # what stage 1 fetches by tensor maps, in their order
STRIDED = ("q", "k", "v", "out")  # what stages read and write by address
BETWEEN = ("parts", "tops", "states", "shares")  # what stages leave for later ones
LARGEST_COUNTERS = 64  # streams that a call remembers counters for

_serial = count()
_captured: set[PreparedForward] = set()  # what graphs may still point to: never freed


@dataclass(frozen=True, slots=True)
class Shapes:
    """The arrays that stages read and write, but for addresses; projections as (1, heads or 1, rank, seq_kv)."""

    layouts: Mapping[str, Layout]

    def padded(self, name: str) -> Layout:
        """The array's layout after it was copied to rows padded to 16 bytes."""
        one = self.layouts[name]
        _, heads, rows, dim = one.sizes
        row = 2 * padded(dim)
        return replace(one, strides=(heads * rows * row, rows * row, row, 2))


def storable(layout: Layout) -> bool:
    """Whether the last stage, which stores 16 bytes at a time, can write such an array in place."""
    return layout.sizes[3] % 8 == 0 and describable(0, layout)


def stride_numbers(layouts: Mapping[str, Layout]) -> dict[str, int]:
    """The parameters that are strides."""
    found: dict[str, int] = {}
    for name in STRIDED:
        steps = layouts[name].strides if name in layouts else ()
        found |= {f"{name}_{axis}": step % 2**64 for axis, step in zip(("batch", "head", "row"), steps, strict=False)}
    return found


def stage_numbers(stage: Stage, layouts: Mapping[str, Layout]) -> dict[str, int]:
    """The parameters of a stage that are no addresses, by name."""
    wanted = {name for name, _ in stage.entry.parameters}
    return stage.numbers | {name: step for name, step in stride_numbers(layouts).items() if name in wanted}


def stage_maps(
    plan: ForwardPlan, layouts: Mapping[str, Layout], places: Mapping[str, int], spare: int
) -> list[TensorMapArguments]:
    """The tensor maps of MAPPED. spare: a valid device address."""
    boxes = {"k": SPAN, "v": SPAN, "proj_k": plan.proj_rows, "proj_v": plan.proj_rows}
    found = []
    for name in MAPPED:
        rows = layouts[name].sizes[2]
        view = View(0, 1, rows, max(rows, 1), 1)
        found.append(tensor_map_arguments(view, Box(boxes[name]), places[name], layouts[name], spare))
    return found


@lru_cache(maxsize=256)
def _machine_code(name: str, text: str, stage_entry: Any, settings: Settings) -> Any:
    from splat_numba.runtime.cuda.build import build

    return build(KernelSource.of(name, text), stage_entry, settings)


class PreparedForward:
    """One call but for its addresses."""

    def __init__(self, plan: ForwardPlan, shapes: Shapes, device: Device, settings: Settings) -> None:
        self.plan = plan
        self._serial = next(_serial)
        self._shapes = shapes
        self._device = device
        self._cubins = [_machine_code(one.name, one.render(), one.entry, settings) for one in plan.stages]
        self._spare = Upload(memory(device), np.zeros(16, np.uint32))
        self._pool = pool(device, MAP_BYTES * len(MAPPED))
        self._launches: dict[tuple[Any, ...], list[Launch]] = {}
        self._counters: dict[int, Upload] = {}

    def run(self, places: dict[str, int], stream: int, framework: Framework, like: Any) -> list[Any]:
        """Launch the stages. places: addresses by name. Returns what must live until the work is done."""
        entered = self._device.enter()
        try:
            return self._run(places, stream, framework, like)
        finally:
            if entered:
                self._device.leave()

    def _run(self, places: dict[str, int], stream: int, framework: Framework, like: Any) -> list[Any]:
        scratch: list[Any] = []
        layouts = dict(self._shapes.layouts)
        for name, layout in self._shapes.layouts.items():
            if name != "out" and not describable(places[name], layout):
                source, layouts[name] = places[name], self._shapes.padded(name)
                places[name] = self._scratch(layouts[name].sizes, layout.dtype, framework, like, scratch)
                move(places[name], layouts[name].strides, source, layout.strides, layout.sizes, stream)
        out, given = places.get("out", 0), layouts.get("out")
        staged = given is not None and (out % 16 != 0 or not storable(given))
        if staged:
            layouts["out"] = self._shapes.padded("out")
            places["out"] = self._scratch(layouts["out"].sizes, layouts["out"].dtype, framework, like, scratch)
        self._launch(places, layouts, stream, framework, like, scratch)
        if staged and given is not None:
            move(out, given.strides, places["out"], layouts["out"].strides, given.sizes, stream)
        return scratch

    def _launch(
        self, places: dict[str, int], layouts: dict[str, Layout], stream: int, framework: Framework, like: Any,
        scratch: list[Any],
    ) -> None:  # fmt: skip
        plan, capturing = self.plan, is_capturing(stream)
        if capturing:
            _captured.add(self)
        for name in BETWEEN:
            places[name] = self._words(getattr(plan, name), framework, like, scratch)
        places["counters"] = self._counters_for(stream, fresh=capturing)
        if plan.proj_rows:
            steps = tuple(layouts[name].strides for name in MAPPED)
            key = (self._serial, *(places[name] for name in MAPPED), steps)
            maps = self._pool.get(key, lambda: self._encode(layouts, places), lambda: capturing)
            places |= {f"{name}_map": maps + MAP_BYTES * place for place, name in enumerate(MAPPED)}
        key = tuple(layouts[name].strides for name in STRIDED if name in layouts)
        launches = self._launches.get(key) or self._make_launches(key, layouts)
        for launch, stage in zip(launches, plan.stages, strict=True):
            if launch.grid:
                with launch.lock:
                    for name, kind in stage.entry.parameters:
                        if kind == "l" and name in places:
                            setattr(launch.parameters, name, places[name])
                    launch.run(stream)

    def _make_launches(self, key: tuple[Any, ...], layouts: Mapping[str, Layout]) -> list[Launch]:
        with undisturbed():
            self._launches[key] = made = [
                Launch(
                    load(cubin.code, cubin.report.symbol, self._device.ordinal, stage.entry.shared_bytes),
                    stage.entry,
                    stage.grid,
                    stage_numbers(stage, layouts),
                )
                for stage, cubin in zip(self.plan.stages, self._cubins, strict=True)
            ]
        return made

    def _encode(self, layouts: Mapping[str, Layout], places: Mapping[str, int]) -> NDArray[np.uint64]:
        return np.concatenate([encode(one) for one in stage_maps(self.plan, layouts, places, self._spare.address)])

    def _counters_for(self, stream: int, *, fresh: bool) -> int:
        """Words that are 0 between launches: launches of one stream follow each other, a graph has its own."""
        found = None if fresh else self._counters.get(stream)
        if found is None:
            found = Upload(memory(self._device), np.zeros(max(self.plan.counters, 1), np.uint32))
            if fresh or len(self._counters) >= LARGEST_COUNTERS:
                stream = -1 - len(self._counters)
            self._counters[stream] = found
        return found.address

    @staticmethod
    def _scratch(sizes: tuple[int, ...], dtype: str, framework: Framework, like: Any, scratch: list[Any]) -> int:
        """Padded rows from the framework's own allocator, which knows its stream."""
        scratch.append(framework.empty((*sizes[:3], padded(sizes[3])), dtype, like))
        return framework.key(scratch[-1])[0]

    @staticmethod
    def _words(nbytes: int, framework: Framework, like: Any, scratch: list[Any]) -> int:
        """32-bit words from the framework's allocator; 0 where none are needed."""
        if not nbytes:
            return 0
        scratch.append(framework.empty((-(-nbytes // 4),), "float32", like))
        return framework.key(scratch[-1])[0]
