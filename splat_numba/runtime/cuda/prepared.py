"""A call made ready: everything but addresses is decided once, and a repeated call looks it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.targets.sm90.attention import attention_entry
from splat_numba.runtime.cuda.arrays import GpuArray
from splat_numba.runtime.cuda.copies import move, padded, padded_strides
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import is_capturing, load
from splat_numba.runtime.cuda.memory import undisturbed
from splat_numba.runtime.cuda.passes import PassLaunch, Shapes
from splat_numba.runtime.cuda.tables import counters, pool
from splat_numba.runtime.cuda.tensor_map import ALIGNMENT, MAP_BYTES, Layout, describable

_serial = count()
_captured: set[Prepared] = set()  # what graphs may still point to: never freed


@dataclass(frozen=True, slots=True)
class LoadablePass:
    """A pass, its machine code, the entry's name in that, and the query heads that use it."""

    box_pass: BoxPass
    cubin: bytes
    symbol: str
    heads: tuple[int, ...]


def store_bytes(layout: Layout) -> int:
    """The widest of the kernel's stores: of 16 bytes for every 32 numbers of a row, of 4 for the rest."""
    return 16 if layout.sizes[3] >= 32 else 4


def writable_in_place(pointer: int, layout: Layout) -> bool:
    """Whether the kernel's stores can write there."""
    *steps, unit = layout.strides
    whole = layout.sizes[3] % 2 == 0 and unit == 2
    return whole and not (pointer | steps[0] | steps[1] | steps[2]) % store_bytes(layout)


def shared_key_head(layout: Layout) -> bool:
    """Whether all heads are one, broadcast by a stride of 0."""
    return layout.strides[1] == 0 and layout.sizes[1] > 1


def one_head(layout: Layout) -> Layout:
    """A broadcast head axis as one head: the kernel groups query heads anyway, so nothing need be copied."""
    batch, _, seq, dim = layout.sizes
    return replace(layout, sizes=(batch, 1, seq, dim))


class Prepared:
    """One call but for its addresses. The first of a mask's passes writes every row; keep: objects whose identities its
    key stands for.
    """

    def __init__(self, passes: Sequence[LoadablePass], shapes: Shapes, device: Device, *, keep: object) -> None:
        self._serial = next(_serial)
        self._device = device
        self._keep = keep
        if shared_key_head(shapes.k) and shared_key_head(shapes.v):
            shapes = replace(shapes, k=one_head(shapes.k), v=one_head(shapes.v))
        self._shapes = shapes
        q, k, v, out = (
            replace(one, strides=padded_strides(one.sizes)) for one in (shapes.q, shapes.k, shapes.v, shapes.out)
        )
        self._copied = Shapes(q, k, v, out, shapes.scale)
        self._passes = tuple(passes)
        self._launches: dict[tuple[int, ...], tuple[PassLaunch, ...]] = {}
        readable = all(describable(0, one) for one in (shapes.q, shapes.k, shapes.v))
        self._in_place = readable and writable_in_place(0, shapes.out)
        self._out_alignment = store_bytes(shapes.out)
        self._counters = counters(device)
        maps = sum(len(one.box_pass.table.q_views) + 2 * len(one.box_pass.table.kv_views) for one in passes)
        self._slot_bytes = 1 << max(maps * MAP_BYTES - 1, 1).bit_length()
        self._pool = pool(device, self._slot_bytes)
        self.empty = 0 in shapes.q.sizes[:3]

    def run(
        self, q: int, k: int, v: int, out: int, lse: int, kv_lengths: int, stream: int,
        framework: Framework, like: Any,
    ) -> list[Any]:  # fmt: skip
        """Launch every pass. The addresses must be of the shapes this was prepared for; ``like``: an array of q's
        framework. Returns what must live until the work is done, where the framework does not know the stream.
        """
        if self.empty:
            return []
        entered = self._device.enter()
        try:
            return self._run(q, k, v, out, lse, kv_lengths, stream, framework, like)
        finally:
            if entered:
                self._device.leave()

    def _run(
        self, q: int, k: int, v: int, out: int, lse: int, kv_lengths: int, stream: int,
        framework: Framework, like: Any,
    ) -> list[Any]:  # fmt: skip
        shapes = self._shapes
        if self._in_place and not ((q | k | v) % ALIGNMENT or out % self._out_alignment):
            self._launch(shapes, q, k, v, out, lse, kv_lengths, stream)
            return []
        copied = self._copied
        scratch: list[Any] = []  # alive until the launches are given to the stream, whose order the allocator keeps
        places, layouts = [], []
        for pointer, layout, aligned in ((q, shapes.q, copied.q), (k, shapes.k, copied.k), (v, shapes.v, copied.v)):
            if describable(pointer, layout):
                places.append(pointer)
                layouts.append(layout)
            else:
                buffer = self._scratch(aligned, framework, like, scratch)
                move(buffer, aligned.strides, pointer, layout.strides, layout.sizes, stream)
                places.append(buffer)
                layouts.append(aligned)
        staged = not writable_in_place(out, shapes.out)
        target = self._scratch(copied.out, framework, like, scratch) if staged else out
        written = Shapes(layouts[0], layouts[1], layouts[2], copied.out if staged else shapes.out, shapes.scale)
        self._launch(written, places[0], places[1], places[2], target, lse, kv_lengths, stream)
        if staged:
            move(out, shapes.out.strides, target, copied.out.strides, shapes.out.sizes, stream)
        return scratch

    def _launch(self, shapes: Shapes, q: int, k: int, v: int, out: int, lse: int, kv_lengths: int, stream: int) -> None:
        launches = self._launches.get(shapes.out.strides) or self._make_launches(shapes)
        capturing = is_capturing(stream)
        if capturing:
            _captured.add(self)
        counter = self._counters.get(stream, fresh=capturing)
        layouts = () if shapes is self._shapes else (shapes.q.strides, shapes.k.strides, shapes.v.strides)
        maps = self._pool.get(
            (self._serial, q, k, v, layouts), lambda: self._encode(launches, shapes, (q, k, v)), lambda: capturing
        )
        for launch in launches:
            launch.run(maps, out, lse, kv_lengths, counter, stream)
            maps += MAP_BYTES * launch.maps

    def _make_launches(self, shapes: Shapes) -> tuple[PassLaunch, ...]:
        """The launches that write to out itself, or to padded rows: they differ in the strides of their results."""
        with undisturbed():
            made = tuple(
                PassLaunch(one.box_pass, self._load(one), self._device, shapes, one.heads) for one in self._passes
            )
        self._launches[shapes.out.strides] = made
        return made

    def _load(self, one: LoadablePass) -> int:
        entry = attention_entry(one.box_pass.traits)
        return load(one.cubin, one.symbol, self._device.ordinal, entry.shared_bytes)

    def _encode(self, launches: Sequence[PassLaunch], shapes: Shapes, places: Sequence[int]) -> NDArray[np.uint64]:
        q, k, v = places
        maps = [one for launch in launches for one in launch.encode(shapes, q, k, v)]
        return np.concatenate(maps) if maps else np.zeros(0, np.uint64)

    @staticmethod
    def _scratch(layout: Layout, framework: Framework, like: Any, scratch: list[Any]) -> int:
        """Padded contiguous rows from the framework's own allocator, which knows its stream."""
        shape = (*layout.sizes[:3], padded(layout.sizes[3]))
        buffer = framework.empty(shape, layout.dtype, like)
        scratch.append(buffer)
        found: GpuArray = framework.describe("scratch", buffer)
        return found.pointer
