"""A forward call on a GPU made ready: everything but addresses is decided once, and a repeated call looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from flurka_numba.gpu.launches import BETWEEN, MAPPED, OPERANDS, StageLaunches, machine_code, map_offsets, starts_of
from flurka_numba.gpu.plan import ForwardPlan
from splat_numba.runtime.cuda.copies import move, padded, padded_strides
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import is_capturing
from splat_numba.runtime.cuda.memory import Upload, memory, undisturbed
from splat_numba.runtime.cuda.tables import pool
from splat_numba.runtime.cuda.tensor_map import ALIGNMENT, MAP_BYTES, Layout, describable
from splat_numba.settings import Settings

_captured: set[PreparedForward] = set()  # what graphs may still point to: never freed


def padded_layout(layout: Layout) -> Layout:
    """An array's layout after it was copied to rows padded to 16 bytes."""
    return replace(layout, strides=padded_strides(layout.sizes))


def fits_in_place(name: str, pointer: int, layout: Layout) -> bool:
    """Whether the stages can read an operand, or write out, where it is: the last one stores 16 bytes at a time."""
    if name == "out":
        return pointer % ALIGNMENT == 0 and layout.sizes[3] % 8 == 0 and describable(0, layout)
    return describable(pointer, layout)


class PreparedForward:
    """One call but for its addresses.

    layouts: with four axes, of those OPERANDS that the caller's arrays are and that a stage reads or writes;
    projections as (1, heads or 1, rank, seq_kv), x as (batch, 1, seq, model_dim).
    """

    def __init__(self, plan: ForwardPlan, layouts: Mapping[str, Layout], device: Device, settings: Settings) -> None:
        self.plan = plan
        self._layouts = layouts
        self._device = device
        self._cubins = machine_code(plan, settings)
        self._in_place = all(fits_in_place(name, 0, layout) for name, layout in layouts.items())
        *self._offsets, self._workspace_bytes = starts_of(tuple(getattr(plan, name) for name in BETWEEN))
        self._launches: dict[tuple[str, ...], StageLaunches] = {}  # by the names of what was copied
        self._pool = pool(device, MAP_BYTES * len(MAPPED))
        self._mapped = tuple(OPERANDS.index(name) for name in plan.boxes)
        offsets = map_offsets(plan)
        self._map_offsets = tuple(offsets.get(f"{name}_map", 0) for name in MAPPED)  # 0 for those that no stage reads
        self._spare = Upload(memory(device), np.zeros(16, np.uint32))
        self._counters: dict[int, Upload] = {}
        self._counters_of_graphs: list[Upload] = []

    def run(
        self, places: tuple[int, ...], kv_lengths: int, omega: int, stream: int, framework: Framework, like: Any
    ) -> Any:
        """Launch the stages. places: addresses of OPERANDS. Returns what must live until the work is done."""
        entered = self._device.enter()
        try:
            if self._in_place and not reduce(or_, places) % ALIGNMENT:
                return self._launch((), places, kv_lengths, omega, stream, framework, like)
            return self._launch_copied(places, kv_lengths, omega, stream, framework, like)
        finally:
            if entered:
                self._device.leave()

    def _launch(
        self, copied: tuple[str, ...], places: tuple[int, ...], kv_lengths: int, omega: int, stream: int,
        framework: Framework, like: Any,
    ) -> Any:  # fmt: skip
        launches = self._launches.get(copied) or self._make_launches(copied)
        capturing = is_capturing(stream)
        counters = None if capturing else self._counters.get(stream)
        if counters is None:
            counters = self._make_counters(stream, capturing)
        workspace, start = None, 0
        if self._workspace_bytes:
            workspace = framework.empty((self._workspace_bytes,), "uint8", like)
            start = framework.address(workspace)
        maps = 0
        if self._mapped:
            key = (launches.identity, *[places[number] for number in self._mapped])
            maps = self._pool.get(key, lambda: self._encode(launches, places), lambda: capturing)
        launches.run(
            stream, *places, kv_lengths, omega, *[start + offset for offset in self._offsets], counters.address,
            *[maps + offset for offset in self._map_offsets],
        )  # fmt: skip
        return workspace

    def _launch_copied(
        self, places: tuple[int, ...], kv_lengths: int, omega: int, stream: int, framework: Framework, like: Any
    ) -> list[Any]:
        """Operands that cannot be read in place are copied first, each once; such an out is written elsewhere first."""
        given = dict(zip(OPERANDS, places, strict=True))
        placed = given.copy()
        copied = tuple(name for name, one in self._layouts.items() if not fits_in_place(name, given[name], one))
        buffers: dict[tuple[int, Layout], int] = {}
        scratch: list[Any] = []
        for name in copied:
            layout = self._layouts[name]
            placed[name] = buffers.get((given[name], layout), 0)
            if not placed[name]:
                target = padded_layout(layout)
                scratch.append(framework.empty((*layout.sizes[:3], padded(layout.sizes[3])), layout.dtype, like))
                placed[name] = buffers[given[name], layout] = framework.address(scratch[-1])
                if name != "out":
                    move(placed[name], target.strides, given[name], layout.strides, layout.sizes, stream)
        scratch.append(self._launch(copied, tuple(placed.values()), kv_lengths, omega, stream, framework, like))
        if "out" in copied:
            layout = self._layouts["out"]
            move(given["out"], layout.strides, placed["out"], padded_layout(layout).strides, layout.sizes, stream)
        return scratch

    def _make_launches(self, copied: tuple[str, ...]) -> StageLaunches:
        layouts = {name: padded_layout(layout) if name in copied else layout for name, layout in self._layouts.items()}
        with undisturbed():
            made = StageLaunches(self.plan, self._cubins, layouts, self._device)
        return self._launches.setdefault(copied, made)

    def _encode(self, launches: StageLaunches, places: tuple[int, ...]) -> Any:
        return launches.encode(dict(zip(OPERANDS, places, strict=True)), self._spare.address)

    def _make_counters(self, stream: int, capturing: bool) -> Upload:
        """Words that are 0 between launches: launches of one stream follow each other, a graph has its own for good."""
        made = Upload(memory(self._device), np.zeros(max(self.plan.counters, 1), np.uint32))
        if not capturing:
            return self._counters.setdefault(stream, made)
        self._counters_of_graphs.append(made)
        _captured.add(self)
        return made
